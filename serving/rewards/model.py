"""`RewardModel`: the protocol of models that score steps, the values they give, and `load_reward_model`.

A score is kept as log-odds `x` (nats) that a step is right; the probability is `1 / (1 + exp(-x))`. Models that come
with probabilities of two classes give the difference of the two logits, so nothing is lost where a probability rounds
to 0 or 1. An outcome model's single number is its own scale: the same transformation puts it into [0, 1].
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, Self, get_args, runtime_checkable

from pydantic import model_validator

from ...core.errors import BackendError, UserError
from ...core.messages import Failure, Frozen, Usage

if TYPE_CHECKING:
    from ...core.settings import Settings
    from ..model import LanguageModel
    from ..model_files.downloads import Progress


Aggregation = Literal["last", "min", "prod", "mean", "model"]
"""How the scores of a solution's steps become one: the last step's, the worst, the product of the probabilities, their
mean; "model" gives the whole prefix to the model as one step."""

Which = Literal["all", "last"]
"""Whether every step's score is wanted, or the last one's alone."""


class RewardCapabilities(Frozen):
    """What a reward model is.

    Attributes:
        kind: "process" (trained to score steps), "outcome" (trained to score whole answers; a step's score is that of
            the text up to it), "judge" (a language model that is asked; not calibrated).
        one_pass: Whether one pass scores all steps of a solution; else each step wanted takes a pass.
        context_tokens: Longest input; None if unknown.
        price_known: Whether `most_usd` can tell.
    """

    kind: Literal["process", "outcome", "judge"]
    one_pass: bool
    context_tokens: int | None = None
    price_known: bool = True


class StepScores(Frozen):
    """Scores of one solution's steps.

    Attributes:
        log_odds: Log-odds that each step is right given those before it, in nats, in order; a single one if only the
            last step's was wanted. Empty if it failed.
        passes: Passes of the model that it took.
        usage: Tokens.
        failure: Why there are no scores (for example an input that is too long). Its siblings are not touched.
    """

    log_odds: tuple[float, ...] = ()
    passes: int = 1
    usage: Usage = Usage()
    failure: Failure | None = None

    @model_validator(mode="after")
    def _scores_or_a_reason(self) -> Self:
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
        chosen = self._chosen(how)
        logs = [log_sigmoid(x) for x in chosen]
        if how != "mean":
            return math.fsum(logs)
        most = max(logs)
        return most + math.log(math.fsum(math.exp(v - most) for v in logs) / len(logs)) if most > -math.inf else most

    def _chosen(self, how: Aggregation) -> tuple[float, ...]:
        if self.failure is not None:
            raise BackendError(f"the steps could not be scored: {self.failure.message}")
        if how not in get_args(Aggregation):
            raise UserError(f"no aggregation of step scores is called {how!r}", hint=", ".join(get_args(Aggregation)))
        if how == "model" and len(self.log_odds) != 1:
            raise UserError("'model' takes the prefix scored as one step", hint="ask score_solutions for it")
        if how == "min":
            return (min(self.log_odds),)
        return self.log_odds if how in ("prod", "mean") else self.log_odds[-1:]


@runtime_checkable
class RewardModel(Protocol):
    """A model that scores the steps of solutions.

    All methods may be called concurrently from one event loop. Cancelling the awaiting task stops the work between two
    batches.

    Attributes:
        name: The string it was opened by.
        identity: What the run store keys on: changes whenever a score could be another.
    """

    name: str
    identity: str

    @property
    def capabilities(self) -> RewardCapabilities:
        """What this model is."""

    async def score_steps(
        self, problem: str, solutions: Sequence[Sequence[str]], which: Which = "all"
    ) -> list[StepScores]:
        """Score the steps of solutions to one problem, batched.

        Args:
            problem: The problem's text.
            solutions: Per solution its steps, at least one each.
            which: Whether all scores are wanted, or those of the last steps alone.

        Returns:
            One value per solution, in order. A solution that failed alone has `failure` set.

        Raises:
            UserError: A solution has no steps.
            CapabilityMissing: The model behind cannot give scores.
            BackendError: Nothing could be scored at all.
        """

    def most_usd(self, problem: str, solutions: Sequence[Sequence[str]], which: Which = "all") -> float:
        """The most dollars that scoring could cost; 0 for models that run here, and where the price is unknown."""

    async def aclose(self) -> None:
        """Release everything; idempotent."""


@runtime_checkable
class ReusesPrefixes(Protocol):
    """A reward model that may take keys and values over from what was asked before."""

    def salted(self, salt: str) -> RewardModel:
        """The same model, sharing them under a salt alone (`Prompt.cache_salt`)."""


async def load_reward_model(
    name: str,
    settings: Settings,
    progress: Progress | None = None,
    language_model: Callable[[str], Awaitable[LanguageModel]] | None = None,
) -> RewardModel:
    """Open a reward model by its string, off the event loop.

    | string | model |
    | --- | --- |
    | `local/<folder>`, `local/<hub id>` | a process or outcome reward model through transformers, in this process |
    | `vllm-pooling/<folder>`, `vllm-pooling/<hub id>` | the same on a vLLM engine in this program |
    | `hosted_vllm_pooling/<served name>` | on a vLLM server started with `--runner pooling` |
    | `judge/<model string>` | any language model, asked after each step whether it is right |

    Args:
        name: One of these strings.
        settings: Where files are kept; the section `rewards` for this name; providers.
        progress: Told of a fetch, from another thread.
        language_model: Gives the language model behind a judge, by its string, and goes on owning it; None opens one
            that is closed with the judge.

    Raises:
        UnknownName: No reward model has that name.
        UserError: A setting is wrong or an extra is missing.
        DataError: The model's files are damaged, or are no reward model.
        BackendUnavailable: It cannot be had here, or its server cannot be reached.
    """
    from .factory import open_by_name

    return await open_by_name(name, settings, progress, language_model)


def own_judge(model: LanguageModel) -> RewardModel:
    """A language model as the judge of its own steps: `judge/<model string>`, which closing leaves open.

    Raises:
        CapabilityMissing: It shows neither likely tokens nor scores of given text.
    """
    from .judge import JudgeReward

    return JudgeReward(f"judge/{model.name}", model, owns=False)


async def score_solutions(
    model: RewardModel, problem: str, solutions: Sequence[Sequence[str]], how: Aggregation = "last"
) -> list[StepScores]:
    """Score what an aggregation needs and no more; `scores.value(how)` is then one number per solution.

    Args:
        model: The reward model.
        problem: The problem's text.
        solutions: Per solution its steps.
        how: The aggregation that will be asked for.
    """
    if how == "model":
        solutions = [(as_one_step(steps),) for steps in solutions]
    return await model.score_steps(problem, solutions, "last" if how in ("last", "model") else "all")


def as_one_step(steps: Sequence[str]) -> str:
    """Steps as one block without blank lines, for a single score of the whole.

    Source: particle filtering (Puri et al. 2025), aggregation "model".
    """
    return re.sub(r"\n[^\S\n]*(?:\n[^\S\n]*)+", "\n", "\n".join(steps)).strip("\n")


def count_passes(one_pass: bool, solutions: Sequence[Sequence[str]], which: Which) -> int:
    """Passes that scoring takes: one per solution, or one per wanted step."""
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
