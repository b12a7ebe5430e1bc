"""`RewardModel`: the protocol of models that score the steps of solutions, and the scores they give.

A score is kept as the log-odds `x` (nats) that a step is right; the probability is `1 / (1 + exp(-x))`. Models with
probabilities of two classes give the difference of the two logits, so nothing is lost where a probability rounds to 0
or 1. The single number of an outcome model has its own scale: the same transformation maps it into [0, 1].
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal, Protocol, Self, get_args, runtime_checkable

from pydantic import model_validator

from ...core.errors import BackendError, UserError
from ...core.messages import Failure, Frozen, Usage

Aggregation = Literal["last", "min", "prod", "mean", "model"]
"""How the scores of a solution's steps become one: the last step's, the minimum, the product of the probabilities,
their mean; "model" gives the complete prefix to the model as one step."""

StepSelection = Literal["all", "last"]
"""Whether to score every step, or only the last one."""


class RewardCapabilities(Frozen):
    """What a reward model is.

    Attributes:
        kind: "process" (trained to score steps), "outcome" (trained to score complete answers; a step's score is
            that of the text up to it), "judge" (a prompted language model; not calibrated).
        one_pass: Whether one pass scores all steps of a solution; otherwise each requested step takes a pass.
        context_tokens: Maximum input length; None if unknown.
        price_known: Whether `max_usd` is known.
    """

    kind: Literal["process", "outcome", "judge"]
    one_pass: bool
    context_tokens: int | None = None
    price_known: bool = True


class StepScores(Frozen):
    """Scores of one solution's steps.

    Attributes:
        log_odds: Log-odds that each step is right given those before it, in nats, in order; a single one if only the
            last step's was requested. Empty if it failed.
        passes: Passes of the model that it took.
        usage: Tokens.
        failure: Why there are no scores (for example an input that is too long); other solutions are not affected.
    """

    log_odds: tuple[float, ...] = ()
    passes: int = 1
    usage: Usage = Usage()
    failure: Failure | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.log_odds) == (self.failure is not None):
            raise ValueError("step scores are either scores or a failure")
        return self

    @property
    def ok(self) -> bool:
        """Whether there are scores."""
        return self.failure is None

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Probability of each step being right."""
        return tuple(sigmoid(x) for x in self.log_odds)

    def value(self, how: Aggregation = "last") -> float:
        """One probability for the solution (see `Aggregation`).

        Raises:
            BackendError: There are no scores.
            UserError: There is no such aggregation, or "model" was scored step by step.
        """
        return math.exp(self.log_value(how))

    def log_value(self, how: Aggregation = "last") -> float:
        """Natural logarithm of `value`, exact where that rounds to 0 or 1."""
        logs = [log_sigmoid(x) for x in self._selected(how)]
        if how != "mean":
            return math.fsum(logs)
        top = max(logs)
        return top + math.log(math.fsum(math.exp(v - top) for v in logs) / len(logs)) if top > -math.inf else top

    def _selected(self, how: Aggregation) -> tuple[float, ...]:
        if self.failure is not None:
            raise BackendError(f"the steps could not be scored: {self.failure.message}")
        if how not in get_args(Aggregation):
            raise UserError(f"unknown aggregation of step scores: {how!r}", hint=", ".join(get_args(Aggregation)))
        if how == "model" and len(self.log_odds) != 1:
            raise UserError("aggregation 'model' needs the prefix scored as one step", hint="use score_solutions")
        if how == "min":
            return (min(self.log_odds),)
        return self.log_odds if how in ("prod", "mean") else self.log_odds[-1:]


@runtime_checkable
class RewardModel(Protocol):
    """A model that scores the steps of solutions.

    All methods may be called concurrently from one event loop. Cancelling the awaiting task stops the work between two
    batches.

    Attributes:
        name: Model string.
        identity: Part of every key in the run store: changes whenever a score could change.
    """

    name: str
    identity: str

    @property
    def capabilities(self) -> RewardCapabilities: ...

    async def score_steps(
        self, problem: str, solutions: Sequence[Sequence[str]], which: StepSelection = "all"
    ) -> list[StepScores]:
        """Score the steps of solutions to one problem, batched; each solution has at least one step.

        Returns:
            One value per solution, in order. A solution that failed has `failure` set.

        Raises:
            UserError: A solution has no steps.
            CapabilityMissing: The language model of a judge cannot give scores.
            BackendError: Nothing could be scored at all.
        """

    def max_usd(self, problem: str, solutions: Sequence[Sequence[str]], which: StepSelection = "all") -> float:
        """Maximum dollars that scoring costs; 0 for local models, and where the price is unknown."""

    async def aclose(self) -> None:
        """Release everything; idempotent."""


@runtime_checkable
class CachesPrefixes(Protocol):
    """A reward model that may reuse keys and values of earlier prompts."""

    def with_cache_salt(self, salt: str) -> RewardModel:
        """The same model, sharing them only under a salt (`Prompt.cache_salt`)."""


async def score_solutions(
    model: RewardModel, problem: str, solutions: Sequence[Sequence[str]], how: Aggregation = "last"
) -> list[StepScores]:
    """Score exactly what an aggregation needs; `scores.value(how)` is then one number per solution."""
    if how == "model":
        solutions = [(as_one_step(steps),) for steps in solutions]
    return await model.score_steps(problem, solutions, "last" if how in ("last", "model") else "all")


def as_one_step(steps: Sequence[str]) -> str:
    """Steps as one block without blank lines, for a single score.

    Source: particle filtering (Puri et al. 2025), aggregation "model".
    """
    return re.sub(r"\n[^\S\n]*(?:\n[^\S\n]*)+", "\n", "\n".join(steps)).strip("\n")


def count_passes(one_pass: bool, solutions: Sequence[Sequence[str]], which: StepSelection) -> int:
    """Passes that scoring takes: one per solution, or one per requested step."""
    return sum(1 if one_pass or which == "last" else len(steps) for steps in solutions)


def check_solutions(solutions: Sequence[Sequence[str]]) -> None:
    """Raises `UserError` if a solution has no steps."""
    for i, steps in enumerate(solutions):
        if isinstance(steps, str) or not steps:
            raise UserError(f"solution {i} has no steps to score", hint="a solution is a list of at least one step")


def sigmoid(x: float) -> float:
    """`1 / (1 + exp(-x))` without overflow."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else (e := math.exp(x)) / (1.0 + e)


def log_sigmoid(x: float) -> float:
    """Logarithm of `sigmoid(x)`, exact in both tails."""
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))
