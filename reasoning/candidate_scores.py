"""Scores of finished candidates: by a reward model, by the model's own evaluation, by their probability.

A candidate that cannot be scored takes no other along. Where the budget does not cover all of them, the first ones are
scored.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.answer import Candidate, Step, Stopped
from ..core.errors import LimitExceeded
from ..core.messages import Frozen
from ..core.question import Question
from ..core.run import Run
from ..serving.metered import MeteredModel
from ..serving.metered_rewards import MeteredReward
from ..serving.rewards import Aggregation, Which, as_one_step, count_passes, score_solutions
from .candidates import shown_text
from .prompts import as_problem
from .self_evaluation import Evaluating, SelfEvaluator, reads_verdicts


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
