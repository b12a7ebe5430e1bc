"""Best of n: sample many chains, score each, take the best; or let the scores be the weights of a vote.

Source: Cobbe et al., "Training Verifiers to Solve Math Word Problems" (2021, arXiv:2110.14168), section 4, for the
best; Li et al., "Making Language Models Better Reasoners with Step-Aware Verifier" (ACL 2023, arXiv:2206.02336) for the
vote.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from ..core.answer import Solution, Stopped
from ..core.events import StrategyNote
from ..core.question import Question
from ..core.run import Run
from ..serving.model import Feature
from ..serving.rewards import Aggregation
from .answer_classes import answer_classes, most_reached
from .candidate_scores import (
    CandidateScores,
    Score,
    score_by_logprob,
    score_by_reward,
    score_by_self_evaluation,
)
from .sampled_chains import SampledChains
from .sampler import Drawn
from .self_evaluation import Evaluating
from .strategy import Models, Stability

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
