"""`auto`: the arm that is worth most for the question, according to runs of similar ones.

    arm = argmax P(right | question) - price * expected tokens / 1000        over arms that are available and affordable

An arm is a model, how much it thinks, a strategy and its parameters, the samples among them.

Sources of the idea: Ding et al., "Hybrid LLM: Cost-Efficient and Quality-Aware Query Routing" (ICLR 2024,
arXiv:2404.14618); Snell et al., "Scaling LLM Test-Time Compute Optimally" (2024, arXiv:2408.03314), which chooses
the amount of computation by the question's difficulty for the model. The arms, features and fits are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from pydantic import Field, JsonValue, model_validator

from ..core.errors import BudgetExceeded, CapabilityMissing, UserError
from ..core.events import StrategyNote
from ..core.messages import Effort
from ..core.run import Run
from ..core.types import Question, Solution
from ..reasoning.strategy import Models, Parameters, Stability, Strategy, create_strategy, supports_tools
from ..serving.metered.model import load_decision, save_decision
from ..serving.model import Feature
from ..serving.profiles.profile import check_effort
from .features import FeatureSpace, top_contributions, with_contributions
from .nested_strategy import inner_strategy, require_suitable, solve_within
from .router_files import (
    Arm,
    AutoRouterFile,
    file_of_digest,
    load_auto_router_file,
    probability_of,
    question_signals,
    router_path,
    with_digest,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FALLBACK = "cot"
NOTE: Final = "auto.chosen"


class Auto:
    """`auto`: one of several arms, chosen for the question.

    Requests: one for the first token of a chain of thought, if the file uses it, and those of the chosen arm.

    The chosen strategy's solution is returned unchanged, with notes on the choice. An arm is not available if a model,
    a role or a file that it needs is missing, if the model does not accept its effort, or if the run has another
    effort; and not affordable if its mean cost exceeds the remaining tokens, calls or reward calls. Without a file,
    with the file of another model, and if no arm is left, `cot` answers, and `degraded` states why.

    With tools, the arm is chosen once, at the first turn: the features and the estimates are of the question, so
    another turn tells nothing new. Only arms whose strategies take tools are available, and without any the run is
    refused. The estimates are of runs with tools only if the router was trained on such.

    Differs from Hybrid LLM: any number of arms instead of two models, their cost is predicted and not fixed, and the
    router is a regularised linear one, so that its choice can be explained.
    """

    name: ClassVar[str] = "auto"
    summary: ClassVar[str] = (
        "choose the model, effort, strategy and samples that are worth most, from what past runs have shown"
    )
    paper: ClassVar[str] = "after Ding et al. 2024, arXiv:2404.14618"
    confidence: ClassVar[str] = "That of the strategy that it chose for the question."
    family: ClassVar[str] = "routing"
    when_to_use: ClassVar[str] = "Many kinds of questions, and evaluation runs of your own to train on."
    stability: ClassVar[Stability] = "experimental"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "small", "judge", "reward", "embedding")
    supports_tools: ClassVar[bool] = True

    class Config(Parameters):
        """Parameters of `auto`."""

        router: Annotated[
            str,
            Field(description="file of `train_router.py auto`; by default the main model's; without one, cot answers"),
        ] = ""
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
            UserError: It is another file than the run started with; or there are tools, which no arm supports.
        """
        file = await self._file(models, run)
        run.effort = run.config.effort  # when the answer is repaired, it is that of the previous arm
        if file is None:
            return await self._fall_back("no auto-router file", question, models, run)
        other = file.trained.difference(identities_of(models))
        if other:
            return await self._fall_back(f"the router {file} is for another model: {other}", question, models, run)
        if question.needs_tools and not any(supports_tools(arm.strategy) for arm in file.arms):
            raise UserError(
                f"no arm of the router {file} supports tools",
                hint="train one on runs of cot, self-consistency or best-of-n, or use one of these strategies",
                param="tools",
            )
        key: dict[str, JsonValue] = {"arm_of_turns": file.digest}
        chosen = await load_decision(run, models.main, key) if question.continuation else None
        if chosen is not None:
            arm = next(arm for arm in file.arms if arm.label == chosen["selected_strategy"])
            return _with_notes(await self._solve_arm(arm, question, models, run), arm.label, chosen)
        try:
            choice = await estimate_arms(question, models, run, file, self.config.price)
        except BudgetExceeded as e:
            run.record_limit(e)
            return Solution(chosen=None, stopped="budget")
        for report in choice.reports:
            run.degrade(report)
        refused: dict[str, str] = {}
        for estimate in choice.estimates:
            why = unavailable(estimate, file, question, models, run, run.config.effort)
            if why:
                refused[estimate.arm.label] = why
                continue
            notes = choice.notes(estimate, refused)
            run.emit(StrategyNote(strategy=run.config.strategy, name=NOTE, data=notes))
            try:
                solution = await self._solve_arm(estimate.arm, question, models, run)
            except CapabilityMissing as e:  # some can only report while they run
                refused[estimate.arm.label] = e.message
                run.degrade(f"{estimate.arm.label} was chosen and could not run: {e.message}")
                continue
            if question.needs_tools:
                await save_decision(run, models.main, key, notes)
            return _with_notes(solution, estimate.arm.label, notes)
        run.effort = run.config.effort
        why = "; ".join(f"{label}: {reason}" for label, reason in refused.items())
        return await self._fall_back(f"no arm of the router {file} could be taken ({why})", question, models, run)

    async def _file(self, models: Models, run: Run) -> AutoRouterFile | None:
        """The file, the same when the run is resumed; None without one."""
        config = self.config
        if config.router:
            return file_of_digest(config.router, config.router_digest, load_auto_router_file)
        path = router_path(models.main.name)
        if not path.is_file():
            return None
        key: dict[str, JsonValue] = {"router": str(path)}
        saved = await load_decision(run, models.main, key)
        file = file_of_digest(str(path), "" if saved is None else str(saved["digest"]), load_auto_router_file)
        if saved is None:
            await save_decision(run, models.main, key, {"digest": file.digest})
        return file

    async def _solve_arm(self, arm: Arm, question: Question, models: Models, run: Run) -> Solution:
        strategy, acting = _prepared(arm, models)
        run.effort = arm.effort
        return await solve_within(strategy, question, acting, run)

    async def _fall_back(self, why: str, question: Question, models: Models, run: Run) -> Solution:
        run.degrade(f"{FALLBACK} was taken: {why}")
        strategy, _ = create_strategy(FALLBACK, {})
        notes: dict[str, JsonValue] = {"selected_strategy": FALLBACK, "why": why, "chosen": FALLBACK}
        run.emit(StrategyNote(strategy=run.config.strategy, name=NOTE, data=notes))
        return _with_notes(await strategy.solve(question, models, run), FALLBACK, notes)


def _prepared(arm: Arm, models: Models) -> tuple[Strategy, Models]:
    """An arm's strategy, and the models as it sees them."""
    strategy, _ = inner_strategy(arm.strategy, arm.parameters, Auto.name)
    return strategy, models.with_main("small") if arm.role == "small" else models


# -- the choice


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


@dataclass(frozen=True)
class ArmChoice:
    """The arms of a file for one question.

    Attributes:
        price: Of 1000 tokens.
        reports: What a reader should know of them.
        estimates: The arms, the one worth most first.
    """

    price: float
    reports: tuple[str, ...]
    estimates: list[ArmEstimate]

    def notes(self, best: ArmEstimate, refused: dict[str, str]) -> dict[str, JsonValue]:
        """A choice and its reasons, for trace and notes; `why` is one line."""
        others = [one for one in self.estimates if one is not best and one.arm.label not in refused]
        contributions = top_contributions(best.shares)
        why = f"{best.right:.2f} right for {best.tokens:,.0f} tokens, worth {best.worth:.3f}"
        if others:
            why += f"; next {others[0].arm.label}, worth {others[0].worth:.3f}"
        arms: list[JsonValue] = [
            {
                "arm": one.arm.label,
                "right": round(one.right, 4),
                "tokens": round(one.tokens, 1),
                "worth": round(one.worth, 4),
                "refused": refused.get(one.arm.label, ""),
                "most_telling": dict(top_contributions(one.shares)),
            }
            for one in self.estimates
        ]
        return {
            "selected_strategy": best.arm.label,
            "why": with_contributions(why, contributions),
            "chosen": best.arm.strategy,
            "price": self.price,
            "arms": arms,
        }


async def estimate_arms(
    question: Question,
    models: Models,
    run: Run,
    file: AutoRouterFile,
    price: float | None = None,
) -> ArmChoice:
    """Estimate arms for a question.

    Args:
        price: Of 1000 tokens; None is the file's.

    Raises:
        BudgetExceeded: The budget is spent.
        BackendError: The model failed.
    """
    signals, reports = await question_signals(question, models, run, file, models.main)
    price = file.price if price is None else price
    row = file.space.row(signals)
    estimates = rank_arms(file.arms, file.space, row, price)
    return ArmChoice(price, reports, estimates)


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
    estimates = [estimate_arm(arm, space, row, price) for arm in arms]
    return sorted(estimates, key=lambda one: (-one.worth, one.arm.cost * one.tokens))


def unavailable(
    estimate: ArmEstimate,
    file: AutoRouterFile,
    question: Question,
    models: Models,
    run: Run,
    fixed_effort: Effort | None,
) -> str:
    """Why an arm cannot be taken; empty if it can.

    Args:
        fixed_effort: The effort that the caller demands of the run; None leaves it to the arm.
    """
    arm, identities = estimate.arm, identities_of(models)
    if fixed_effort is not None and arm.effort != fixed_effort:
        return f"it was evaluated with effort={arm.effort or 'default'}, and this run has {fixed_effort}"
    for role in dict.fromkeys([*(["small"] if arm.role == "small" else []), *arm.needs]):
        if not models.has(role):
            return f"there is no {role} model"
        other = file.trained.difference(identities, role)
        if other:
            return other
    exceeded = exceeded_limit(arm, estimate.tokens, run)
    if exceeded:
        return exceeded
    try:
        strategy, acting = _prepared(arm, models)
        check_effort(acting.main.profile, acting.main.name, arm.effort, None)
        with _effort(run, arm.effort):
            require_suitable(strategy, question, acting, run)
    except (CapabilityMissing, UserError) as e:
        return e.message
    return ""


def exceeded_limit(arm: Arm, tokens: float, run: Run) -> str:
    """The limit that an arm is expected to exceed, as text; empty if it fits."""
    left = run.ledger.remaining
    for kind, expected in (("tokens", tokens), ("calls", arm.calls), ("reward_calls", arm.reward_calls)):
        if expected > left(kind):  # type: ignore[arg-type]
            return f"it needs about {expected:,.0f} {kind.replace('_', ' ')}, and {left(kind):,.0f} are left"  # type: ignore[arg-type]
    return ""


def identities_of(models: Models) -> dict[str, str]:
    """Identity of each model by role."""
    identities = {"main": models.main.identity}
    for role in ("small", "judge", "reward"):
        if models.has(role):
            identities[role] = getattr(models, role).identity
    return identities


@contextmanager
def _effort(run: Run, effort: Effort | None) -> Iterator[None]:
    before, run.effort = run.effort, effort
    try:
        yield
    finally:
        run.effort = before


def _with_notes(solution: Solution, ran: str, notes: dict[str, JsonValue]) -> Solution:
    return solution.model_copy(update={"notes": {**solution.notes, "selected_strategy": ran, "auto": dict(notes)}})
