"""What a search over steps scores with: which sources a strategy's parameters name, and several of them as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from ..core.errors import CapabilityMissing, UserError
from ..core.messages import Prompt
from ..core.question import Question
from ..core.run import Run
from ..serving.rewards import Aggregation
from .exact_rewards import ByArithmetic
from .likelihood_rewards import ByLogprob
from .outcome_rewards import ByRollouts
from .process_rewards import ByRewardModel
from .rollouts import Finisher
from .step_rewards import StepReward
from .strategy import Models, Parameters

Source = Literal["reward", "judge", "arithmetic", "rollouts", "logprob"]
SOURCES: tuple[str, ...] = get_args(Source)


class StepScoring(Parameters):
    """Parameters of every strategy that scores steps."""

    score: Annotated[
        str,
        Field(description="what scores steps: auto, or reward, judge, arithmetic, rollouts, logprob, joined by +"),
    ] = "auto"
    aggregate: Annotated[
        Aggregation, Field(description="a prefix's step scores as one number: last, min, prod, mean or model")
    ] = "last"
    rollouts: Annotated[int, Field(ge=1, le=64, description="how often each prefix is finished, for rollouts")] = 4
    rollout_tokens: Annotated[int, Field(ge=1, description="most tokens of a rollout")] = 256

    @field_validator("score")
    @classmethod
    def _sources_exist(cls, score: str) -> str:
        unknown = [name for name in score.split("+") if name not in SOURCES]
        if score != "auto" and unknown:
            raise ValueError(f"{unknown[0]!r} scores nothing; give auto, or {', '.join(SOURCES)}, joined by +")
        return score

    def source(self, prompt: Prompt, question: Question, models: Models, run: Run) -> StepReward | None:
        """What scores.

        "auto" is the reward model, if one is given; else the model that reasons judges its own steps; else, if it
        cannot be asked so, the mean probability of its own words.

        Args:
            prompt: The question as it is put to the model.
            question: The question.
            models: The models.
            run: The run that pays.

        Returns:
            The source; None for "auto" where the model gives no signal at all.

        Raises:
            UserError: A reward model is to score, and none was given.
            CapabilityMissing: The model cannot do what a named source needs.
        """
        if self.score != "auto":
            wanted = list(dict.fromkeys(self.score.split("+")))
            sources = [self._named(name, prompt, question, models, run, alone=len(wanted) == 1) for name in wanted]
            return sources[0] if len(sources) == 1 else Joined(sources)
        try:
            name = "reward" if models.has("reward") else "judge"
            return self._named(name, prompt, question, models, run, alone=True)
        except CapabilityMissing:
            if not models.main.capabilities.logprobs:
                return None
        run.degrade(
            f"{models.main.name} cannot judge its steps; they were scored by the probability of their words, "
            "which says how sure the model is and not how right"
        )
        return ByLogprob(run)

    def _named(
        self, name: str, prompt: Prompt, question: Question, models: Models, run: Run, *, alone: bool
    ) -> StepReward:
        if name in ("reward", "judge"):
            reward = models.reward if name == "reward" else models.own_judge()
            return ByRewardModel(reward, run, prompt.messages[-1].content)
        if name == "arithmetic":
            return ByArithmetic(run) if alone else ByArithmetic(run, unknown=None)  # no opinion is no factor
        if name == "rollouts":
            finisher = Finisher(models.main, prompt, question, run, max_tokens=self.rollout_tokens)
            return ByRollouts(finisher, question, run, times=self.rollouts)
        if not models.main.capabilities.logprobs:
            raise CapabilityMissing("logprobs", models.main.name)
        return ByLogprob(run)


class Joined:
    """Several sources as one: the product of their scores, so that each can turn a step down.

    Where one cannot score, the others do; a prefix that none can score has no score.

    Args:
        sources: At least two.
    """

    def __init__(self, sources: Sequence[StepReward]) -> None:
        if len(sources) < 2:
            raise UserError("sources are joined where there are two or more")
        self.name = " and ".join(source.name for source in sources)
        self._sources = tuple(sources)

    @property
    def spent(self) -> bool:
        """Whether a budget kept one of them from scoring."""
        return any(source.spent for source in self._sources)

    @property
    def passes(self) -> int:
        """Prefixes that were scored anew, by each source."""
        return sum(source.passes for source in self._sources)

    async def score(
        self, problem: str, prefixes: Sequence[Sequence[str]], aggregate: Aggregation = "last"
    ) -> list[float | None]:
        """See `StepReward.score`."""
        told = [await source.score(problem, prefixes, aggregate) for source in self._sources]
        return [_product(scores) for scores in zip(*told, strict=True)]


def _product(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return math.prod(known) if known else None
