"""`auto`: the strategy that is worth most for the question, according to evaluation runs.

    arm = argmax P(right | question) - price * expected tokens / 1000        over arms that are available and affordable

Sources of the idea: Ding et al., "Hybrid LLM: Cost-Efficient and Quality-Aware Query Routing" (ICLR 2024,
arXiv:2404.14618), and Snell et al., "Scaling LLM Test-Time Compute Optimally" (2024, arXiv:2408.03314), which chooses
the amount of computation by the question's difficulty for the model. The arms, features and fits are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, JsonValue, model_validator

from ..core.errors import BudgetExceeded, CapabilityMissing, UserError
from ..core.events import StrategyNote
from ..core.run import Run
from ..core.types import Question, Solution
from ..reasoning.strategy import Models, Parameters, Stability, Strategy, create_strategy
from ..serving.model import Feature
from .features import FeatureSpace, top_contributions, with_contributions
from .nested_strategy import inner_strategy, require_suitable, solve_within
from .router_files import (
    Arm,
    AutoRouterFile,
    file_of_digest,
    load_auto_router_file,
    probability_of,
    question_row,
    with_digest,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FALLBACK = "cot"
NOTE = "auto.chosen"


@dataclass(frozen=True)
class _Ready:
    """An arm that can run."""

    estimate: ArmEstimate
    strategy: Strategy
    models: Models


class Auto:
    """`auto`: one of several strategies, chosen for the question.

    Requests: one for the first token of a chain of thought, if the file uses it, and those of the chosen strategy.

    The chosen strategy's solution is returned unchanged, with notes on the choice. An arm is not available if a model,
    a role or a file that it needs is missing, or if it was evaluated with another effort than the run's; and not
    affordable if its mean cost exceeds the remaining tokens, calls or reward calls. Without a file, with the file of
    another model, and if no arm is left, `cot` answers, and `degraded` states why.

    Differs from Hybrid LLM: any number of strategies instead of two models, their cost is predicted and not fixed, and
    the router is a regularised linear one, so that its choice can be explained.
    """

    name: ClassVar[str] = "auto"
    summary: ClassVar[str] = "the strategy that is worth most for the question, by what evaluation runs have shown"
    paper: ClassVar[str] = "after Ding et al. 2024, arXiv:2404.14618"
    confidence: ClassVar[str] = "That of the strategy that it chose for the question."
    stability: ClassVar[Stability] = "experimental"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "small", "judge", "reward", "embedding")

    class Config(Parameters):
        """Parameters of `auto`."""

        router: Annotated[str, Field(description="file of `reason train auto-router`; without one, cot answers")] = ""
        router_digest: Annotated[
            str, Field(description="digest of the file, set automatically: a run resumes with no other")
        ] = ""
        price: Annotated[
            float | None,
            Field(
                ge=0,
                le=1000,
                description="probability of being right that 1000 generated tokens are worth; by default the file's",
            ),
        ] = None

        @model_validator(mode="before")
        @classmethod
        def _note_digest(cls, parameters: Any) -> Any:
            return with_digest(parameters, load_auto_router_file)

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """Choose an arm and run it.

        Raises:
            DataError: The file cannot be read.
            UserError: It is another file than the run started with.
        """
        config = self.config
        if not config.router:
            return await self._fall_back("no auto-router file", question, models, run)
        file = file_of_digest(config.router, config.router_digest, load_auto_router_file)
        other = file.trained.difference(identities_of(models))
        if other:
            return await self._fall_back(f"the router {file} is for another model: {other}", question, models, run)
        try:
            row = await question_row(question, models, run, file, models.main)
        except BudgetExceeded as e:
            run.record_limit(e)
            return Solution(chosen=None, stopped="budget")
        price = file.price if config.price is None else config.price
        estimates = rank_arms(file.arms, file.space, row, price)
        refused: dict[str, str] = {}
        for estimate in estimates:
            ready = self._ready(estimate, file, models, run)
            if isinstance(ready, str):
                refused[estimate.arm.label] = ready
                continue
            notes = _choice_notes(estimate, estimates, refused, price)
            run.emit(StrategyNote(strategy=run.config.strategy, name=NOTE, data=notes))
            try:
                solution = await solve_within(ready.strategy, question, ready.models, run)
            except CapabilityMissing as e:  # some can only report while they run
                refused[estimate.arm.label] = e.message
                run.degrade(f"{estimate.arm.label} was chosen and could not run: {e.message}")
                continue
            return _with_notes(solution, estimate.arm.label, notes)
        why = "; ".join(f"{label}: {reason}" for label, reason in refused.items())
        return await self._fall_back(f"no arm of the router {file} could be taken ({why})", question, models, run)

    def _ready(self, estimate: ArmEstimate, file: AutoRouterFile, models: Models, run: Run) -> _Ready | str:
        """An arm that can run, or the reason why it cannot."""
        arm, identities = estimate.arm, identities_of(models)
        if arm.effort != run.effort:
            return f"it was evaluated with effort={arm.effort or 'default'}, and this run has {run.effort or 'default'}"
        for role in dict.fromkeys([*(["small"] if arm.role == "small" else []), *arm.needs]):
            if not models.has(role):
                return f"there is no {role} model"
            other = file.trained.difference(identities, role)
            if other:
                return other
        exceeded = exceeded_limit(arm, estimate.tokens, run)
        if exceeded:
            return exceeded
        led = models.with_main("small") if arm.role == "small" else models
        try:
            strategy, _ = inner_strategy(arm.strategy, arm.parameters, self.name)
            require_suitable(strategy, led, run)
        except (CapabilityMissing, UserError) as e:
            return e.message
        return _Ready(estimate, strategy, led)

    async def _fall_back(self, why: str, question: Question, models: Models, run: Run) -> Solution:
        run.degrade(f"{FALLBACK} was taken: {why}")
        strategy, _ = create_strategy(FALLBACK, {})
        notes: dict[str, JsonValue] = {"selected_strategy": FALLBACK, "why": why, "chosen": FALLBACK}
        run.emit(StrategyNote(strategy=run.config.strategy, name=NOTE, data=notes))
        return _with_notes(await strategy.solve(question, models, run), FALLBACK, notes)


def identities_of(models: Models) -> dict[str, str]:
    """Identity of each model by role."""
    identities = {"main": models.main.identity}
    for role in ("small", "judge", "reward"):
        if models.has(role):
            identities[role] = getattr(models, role).identity
    return identities


def exceeded_limit(arm: Arm, tokens: float, run: Run) -> str:
    """The limit that an arm is expected to exceed, as text; empty if it fits."""
    left = run.ledger.remaining
    for kind, expected in (("tokens", tokens), ("calls", arm.calls), ("reward_calls", arm.reward_calls)):
        if expected > left(kind):  # type: ignore[arg-type]
            return f"it needs about {expected:,.0f} {kind.replace('_', ' ')}, and {left(kind):,.0f} are left"  # type: ignore[arg-type]
    return ""


def _choice_notes(
    best: ArmEstimate, estimates: Sequence[ArmEstimate], refused: dict[str, str], price: float
) -> dict[str, JsonValue]:
    """The choice and its reasons, for trace and notes; `why` is one line."""
    others = [estimate for estimate in estimates if estimate is not best and estimate.arm.label not in refused]
    contributions = top_contributions(best.shares)
    why = f"{best.right:.2f} right for {best.tokens:,.0f} tokens, worth {best.worth:.3f}"
    if others:
        why += f"; next {others[0].arm.label}, worth {others[0].worth:.3f}"
    arms: list[JsonValue] = [
        {
            "arm": estimate.arm.label,
            "right": round(estimate.right, 4),
            "tokens": round(estimate.tokens, 1),
            "worth": round(estimate.worth, 4),
            "refused": refused.get(estimate.arm.label, ""),
            "most_telling": dict(top_contributions(estimate.shares)),
        }
        for estimate in estimates
    ]
    return {
        "selected_strategy": best.arm.label,
        "why": with_contributions(why, contributions),
        "chosen": best.arm.strategy,
        "price": price,
        "arms": arms,
    }


def _with_notes(solution: Solution, ran: str, notes: dict[str, JsonValue]) -> Solution:
    return solution.model_copy(update={"notes": {**solution.notes, "selected_strategy": ran, "auto": dict(notes)}})


@dataclass(frozen=True)
class ArmEstimate:
    """Estimated worth of an arm for one question.

    Attributes:
        arm: The arm.
        right: P(right).
        tokens: Expected generated tokens.
        worth: P(right) minus the price of the tokens.
        shares: Contribution of each feature to the log-odds of the average question.
    """

    arm: Arm
    right: float
    tokens: float
    worth: float
    shares: dict[str, float]


def estimate_arm(arm: Arm, space: FeatureSpace, row: NDArray[np.float64], price: float) -> ArmEstimate:
    """Estimate the worth of an arm.

    Args:
        arm: The arm.
        space: The space of the row.
        row: The question's features.
        price: Probability of being right that 1000 tokens are worth.
    """
    right = probability_of(arm.right.value(space, row))
    tokens = arm.tokens.expected(space, row)
    return ArmEstimate(arm, right, tokens, right - price * arm.cost * tokens / 1000, arm.right.shares(space, row))


def rank_arms(arms: Sequence[Arm], space: FeatureSpace, row: NDArray[np.float64], price: float) -> list[ArmEstimate]:
    """All arms, the one worth most first; of equal ones that of fewer tokens, then the first one."""
    identities = [estimate_arm(arm, space, row, price) for arm in arms]
    return sorted(identities, key=lambda one: (-one.worth, one.arm.cost * one.tokens))
