"""Best of n: sample many chains, score each, take the best; or let the scores be the weights of a vote.

Source: Cobbe et al., "Training Verifiers to Solve Math Word Problems" (2021, arXiv:2110.14168), section 4, for the
best; Li et al., "Making Language Models Better Reasoners with Step-Aware Verifier" (ACL 2023, arXiv:2206.02336) for the
vote.

Scores of finished candidates: by a reward model, by the model's own evaluation, by their probability.

A candidate that cannot be scored takes no other along. Where the budget does not cover all of them, the first ones are
scored.

The weighted vote: many sampled chains, each vote weighs what the chain scores (see `best_of_n`).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from ..core.answer import Candidate, Solution, Step, Stopped
from ..core.errors import LimitExceeded
from ..core.events import StrategyNote
from ..core.messages import Frozen
from ..core.question import Question
from ..core.run import Run
from ..serving.metered import MeteredModel
from ..serving.metered_rewards import MeteredReward
from ..serving.model import Feature
from ..serving.rewards import Aggregation, Which, as_one_step, count_passes, score_solutions
from .candidates import shown_text
from .prompts import as_problem
from .sampling import Drawn, SampledChains
from .self_evaluation import Evaluating, SelfEvaluator, reads_verdicts
from .strategy import Models, Stability
from .voting.answer_classes import answer_classes, most_reached


class Score(Frozen):
    """A candidate's score.

    Attributes:
        key: What candidates are ordered by, finer than `value` where that rounds to 0 or 1; the range is the scorer's.
        value: A probability, in [0, 1].
        steps: Probability of each step, where every step was scored.
    """

    key: float
    value: float
    steps: tuple[float, ...] = ()


@dataclass(frozen=True)
class CandidateScores:
    """What became of scoring.

    Attributes:
        scores: A score for each candidate, in order; None for one that has none.
        stopped: "budget" if the budget did not cover all of them.
    """

    scores: list[Score | None]
    stopped: Stopped = "done"

    def put_on(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The candidates with their scores, and their steps with those of a reward model."""
        return tuple(
            candidate if score is None else _with_score(candidate, score)
            for candidate, score in zip(candidates, self.scores, strict=True)
        )


async def score_by_reward(
    candidates: Sequence[Candidate], question: Question, reward: MeteredReward, aggregate: Aggregation, run: Run
) -> CandidateScores:
    """Score by a reward model: one number over the steps of each candidate (see `Aggregation`); equal ones once."""
    problem = as_problem(question)
    steps = [tuple(text for step in candidate.steps if (text := step.text.strip())) for candidate in candidates]
    solutions = list(dict.fromkeys(texts for texts in steps if texts))
    if not solutions:
        return CandidateScores([None] * len(candidates))
    which: Which = "last" if aggregate in ("last", "model") else "all"
    sent = [(as_one_step(texts),) for texts in solutions] if aggregate == "model" else solutions

    def too_dear(count: int) -> bool:
        passes = count_passes(reward.capabilities.one_pass, sent[:count], which)
        usd = 0.0 if run.config.budget.usd is None else reward.most_usd(problem, sent[:count], which)
        return passes > run.ledger.left("reward_calls") or usd > run.ledger.left("usd")

    # the most that fit: both amounts grow with the count
    count = bisect_right(range(1, len(solutions) + 1), False, key=too_dear)
    try:
        made = await score_solutions(reward, problem, solutions[: max(1, count)], aggregate)
    except LimitExceeded as e:
        run.note_limit(e)
        return CandidateScores([None] * len(candidates), "budget")
    found: dict[tuple[str, ...], Score] = {}
    for texts, told in zip(solutions, made, strict=False):
        if told.ok:
            each = told.probabilities if which == "all" else ()
            found[texts] = Score(key=told.log_value(aggregate), value=told.value(aggregate), steps=each)
    scores = [found.get(texts) for texts in steps]
    unpaid = any(told.failure is not None and told.failure.code == LimitExceeded.code for told in made)  # in a replay
    if unpaid or len(made) < len(solutions):
        run.note_limit(run.ledger.refuse("reward_calls" if run.config.budget.usd is None else "usd"))
        return CandidateScores(scores, "budget")
    return CandidateScores(scores)


async def score_by_self_evaluation(
    candidates: Sequence[Candidate], question: Question, model: MeteredModel, evaluating: Evaluating, run: Run
) -> CandidateScores:
    """Score by what the model thinks of each (see `SelfEvaluator`); ordered by `alpha + beta v`."""
    texts = list(dict.fromkeys(shown_text(candidate) for candidate in candidates))
    left = run.ledger.left("calls")
    about_nothing = 1 if reads_verdicts(model) else 0  # a pair of requests about the empty response
    count = len(texts) if left == math.inf else max(1, min(len(texts), int(left) // 2 - about_nothing))
    try:
        made = await SelfEvaluator(model, question, run, evaluating).evaluate(texts[:count])
    except LimitExceeded as e:
        run.note_limit(e)
        return CandidateScores([None] * len(candidates), "budget")
    found = dict(zip(texts, made, strict=False))
    scores: list[Score | None] = []
    for candidate in candidates:
        told = found.get(shown_text(candidate))
        key = None if told is None else evaluating.alpha + evaluating.beta * told.v
        scores.append(None if told is None or key is None else Score(key=key, value=told.q))
    if count < len(texts):
        run.note_limit(run.ledger.refuse("calls"))
        return CandidateScores(scores, "budget")
    return CandidateScores(scores)


def score_by_logprob(candidates: Sequence[Candidate]) -> CandidateScores:
    """Score by the mean log-probability of a candidate's tokens, in nats; as a probability, that of a typical token."""
    means = [None if c.logprob is None or c.tokens == 0 else c.logprob / c.tokens for c in candidates]
    return CandidateScores([None if m is None else Score(key=m, value=min(1.0, math.exp(m))) for m in means])


def _with_score(candidate: Candidate, score: Score) -> Candidate:
    changed: dict[str, object] = {"score": score.value}
    if score.steps and len(score.steps) == len(candidate.steps):
        changed["steps"] = tuple(
            Step(text=step.text, model=step.model, scores={**step.scores, "reward": p})
            for step, p in zip(candidate.steps, score.steps, strict=True)
        )
    return candidate.model_copy(update=changed)


By = Literal["auto", "reward", "self-evaluation", "logprob"]


class BestOfN:
    """Sample `n` chains and score each.

    `score` says by what: a reward model over each chain's steps, the model's own evaluation of the chain
    (`SelfEvaluator`), or the mean log-probability of its tokens; "auto" is a reward model if one is given, else the
    model's own evaluation. With `select="best"` the chain of the highest score wins, of equals the first; with
    "weighted" the class of equal answers with the largest sum of scores, in it the chain of the highest score.

    A chain that cannot be scored takes no other along: it ranks last, and the answer says so. If none can be scored,
    the answer that most chains reach is taken.

    Model calls: 1 for the samples (more under a token budget), and 2 for each different chain and 2 more for the
    model's own evaluation. A reward model takes a pass for each different chain, or one for each of its steps.

    Confidence is the score of the best as a probability, or the winning class's share of the sum of all scores. It is
    as calibrated as the scorer is.

    Differs: the papers train verifiers; here any reward model scores, and where there is none the model itself.
    """

    name: ClassVar[str] = "best-of-n"
    summary: ClassVar[str] = "many sampled chains, the one that scores highest"
    paper: ClassVar[str] = "Cobbe et al. 2021, arXiv:2110.14168"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "reward")
    takes_tools: ClassVar[bool] = True

    class Config(SampledChains):
        """Parameters of `best-of-n`."""

        score: Annotated[By, Field(description="what scores: auto, reward, self-evaluation or logprob")] = "auto"
        aggregate: Annotated[
            Aggregation, Field(description="a reward model's steps as one number: last, min, prod, mean or model")
        ] = "last"
        select: Annotated[
            Literal["best", "weighted"], Field(description="the best chain, or the answer with most score")
        ] = "best"
        alpha: Annotated[
            float, Field(allow_inf_nan=False, description="self-evaluation is sigmoid(alpha + beta v); fitted or 0")
        ] = 0.0
        beta: Annotated[float, Field(gt=0, allow_inf_nan=False, description="its slope; fitted or 1")] = 1.0

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`.

        Raises:
            UserError: A reward model is to score and none was given.
        """
        config = self.config
        by = config.score
        if by == "auto":
            by = "reward" if models.has("reward") else "self-evaluation"
        if by == "reward":
            models.reward  # noqa: B018 (missing, it is told before anything is paid for)
        drawn = await config.draw(question, models, run)
        if not drawn.candidates:
            return Solution(chosen=None, stopped=drawn.stopped)
        scored = await self._score(by, drawn, question, models, run)
        return await self._choose(by, drawn, scored, question, run)

    async def _score(self, by: By, drawn: Drawn, question: Question, models: Models, run: Run) -> CandidateScores:
        config = self.config
        if by == "reward":
            return await score_by_reward(drawn.candidates, question, models.reward, config.aggregate, run)
        if by == "logprob":
            return score_by_logprob(drawn.candidates)
        evaluating = Evaluating(alpha=config.alpha, beta=config.beta, system=config.system)
        return await score_by_self_evaluation(drawn.candidates, question, models.main, evaluating, run)

    async def _choose(self, by: By, drawn: Drawn, scored: CandidateScores, question: Question, run: Run) -> Solution:
        stopped: Stopped = "budget" if "budget" in (drawn.stopped, scored.stopped) else "done"
        scores = scored.scores
        candidates = scored.put_on(drawn.candidates)
        missing = sum(score is None for score in scores)
        notes: dict[str, JsonValue] = {"score": by, "unscored": missing}
        if missing == len(candidates):
            run.degrade("no sample could be scored; the answer that most samples reach was taken")
            chosen, confidence = await most_reached(candidates, question) or (0, 0.0)
        else:
            if missing:
                run.degrade(f"{missing} of {len(candidates)} samples could not be scored and ranked last")
            chosen = best_of(scores, range(len(scores)))
            best = scores[chosen]
            confidence = best.value if best is not None else 0.0
            if self.config.select == "weighted":
                classes = await answer_classes([candidate.answer for candidate in candidates], question)
                weights = [math.fsum(s.value for i in c if (s := scores[i]) is not None) for c in classes]
                total = math.fsum(s.value for s in scores if s is not None)
                if classes and total > 0:
                    heaviest = max(range(len(classes)), key=weights.__getitem__)
                    chosen, confidence = best_of(scores, classes[heaviest]), min(1.0, weights[heaviest] / total)
                    notes["weights"] = {str(candidates[c[0]].answer): w for c, w in zip(classes, weights, strict=True)}
        run.emit(StrategyNote(strategy=run.config.strategy, name="samples.scored", data=notes))
        return Solution(chosen=chosen, candidates=candidates, confidence=confidence, stopped=stopped, notes=notes)


def best_of(scores: list[Score | None], among: range | list[int]) -> int:
    """Position of the highest score, of equals the first; of positions without any score the first."""
    return max(among, key=lambda i: (s.key if (s := scores[i]) is not None else -math.inf, -i))


class WeightedVote(BestOfN):
    """`best-of-n` with `select="weighted"`: the answer with the largest sum of scores wins."""

    name: ClassVar[str] = "weighted-vote"
    summary: ClassVar[str] = "many sampled chains, votes weighed by their scores"
    paper: ClassVar[str] = "Li et al. 2023, arXiv:2206.02336"

    class Config(BestOfN.Config):
        """Parameters of `weighted-vote`."""

        select: Annotated[Literal["weighted"], Field(description="always weighted")] = "weighted"
