"""`auto`: the strategy that is worth most for this question, chosen by what evaluation runs have shown.

    arm = argmax P(right | question) - price * expected tokens / 1000        over arms that can run and can be paid

Sources of the idea: Ding et al., "Hybrid LLM: Cost-Efficient and Quality-Aware Query Routing" (ICLR 2024,
arXiv:2404.14618), and Snell et al., "Scaling LLM Test-Time Compute Optimally" (2024, arXiv:2408.03314), which chooses
how much to compute by how hard a question is for the model. The arms, signals and fits are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, JsonValue, model_validator

from ..core.errors import CapabilityMissing, LimitExceeded, UserError
from ..core.events import StrategyNote
from ..core.run import Run
from ..core.types import Question, Solution
from ..reasoning.strategy import Models, Parameters, Stability, Strategy, create_strategy, require_features
from ..serving.model import Feature
from .features import most_telling, with_telling
from .nested_strategy import inner_strategy
from .router_files import (
    Arm,
    AutoRouterFile,
    Estimate,
    file_of_digest,
    load_auto_router_file,
    question_row,
    ranked,
    with_digest,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

FALLBACK = "cot"
NOTE = "auto.chosen"


@dataclass(frozen=True)
class _Ready:
    """An arm that can run."""

    estimate: Estimate
    strategy: Strategy
    models: Models


class Auto:
    """`auto`: one of several strategies, chosen for the question.

    Requests: one for the first token of a chain of thought, where the file looks at it, and those of the chosen
    strategy.

    The chosen strategy's solution comes back as it is, with notes of who was chosen and why. An arm cannot run if a
    model, a role or a file that it needs is not there, and cannot be paid if what it takes on average is more than what
    is left of tokens, calls or reward calls. Without a file, with the file of another model, and where no arm is left,
    `cot` answers, and `degraded` says why.

    Differs from Hybrid LLM: any number of strategies instead of two models, what they cost is expected and not fixed,
    and the router is a regularised linear one, so that why it chose can be told.
    """

    name: ClassVar[str] = "auto"
    summary: ClassVar[str] = "the strategy that is worth most for the question, by what evaluation runs have shown"
    paper: ClassVar[str] = "after Ding et al. 2024, arXiv:2404.14618"
    stability: ClassVar[Stability] = "experimental"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "small", "judge", "reward", "embedding")

    class Config(Parameters):
        """Parameters of `auto`."""

        router: Annotated[str, Field(description="file of `reason train auto-router`; without one, cot answers")] = ""
        router_digest: Annotated[
            str, Field(description="digest of the file, noted by itself: a run goes on with no other")
        ] = ""
        price: Annotated[
            float | None,
            Field(
                ge=0,
                le=1000,
                description="what 1000 generated tokens are worth in chance of being right; by default the file's",
            ),
        ] = None

        @model_validator(mode="before")
        @classmethod
        def _note_digest(cls, given: Any) -> Any:
            return with_digest(given, load_auto_router_file)

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`.

        Raises:
            DataError: The file cannot be read.
            UserError: It is another file than the run began with.
        """
        config = self.config
        if not config.router:
            return await self._fall_back("no auto-router file was given", question, models, run)
        file = file_of_digest(config.router, config.router_digest, load_auto_router_file)
        other = file.trained.other_model(identities_of(models))
        if other:
            return await self._fall_back(f"the router {file} is for another model: {other}", question, models, run)
        try:
            row = await question_row(question, models, run, file, models.main)
        except LimitExceeded as e:
            run.note_limit(e)
            return Solution(chosen=None, stopped="budget")
        price = file.price if config.price is None else config.price
        estimates = ranked(file.arms, file.space, row, price)
        refused: dict[str, str] = {}
        for one in estimates:
            ready = self._ready(one, file, models, run)
            if isinstance(ready, str):
                refused[one.arm.label] = ready
                continue
            notes = _told(one, estimates, refused, price)
            run.emit(StrategyNote(strategy=run.config.strategy, name=NOTE, data=notes))
            try:
                solution = await ready.strategy.solve(question, ready.models, run)
            except CapabilityMissing as e:  # some can only tell while they run
                refused[one.arm.label] = e.message
                run.degrade(f"{one.arm.label} was chosen and could not run: {e.message}")
                continue
            return _with_notes(solution, one.arm.label, notes)
        why = "; ".join(f"{label}: {reason}" for label, reason in refused.items())
        return await self._fall_back(f"no arm of the router {file} could be taken ({why})", question, models, run)

    def _ready(self, one: Estimate, file: AutoRouterFile, models: Models, run: Run) -> _Ready | str:
        """An arm ready to run; a text says why it is not."""
        arm, identities = one.arm, identities_of(models)
        for role in dict.fromkeys([*(["small"] if arm.role == "small" else []), *arm.needs]):
            if not models.has(role):
                return f"there is no {role} model"
            other = file.trained.other_model(identities, role)
            if other:
                return other
        dear = _too_dear(arm, one.tokens, run)
        if dear:
            return dear
        led = models.led_by("small") if arm.role == "small" else models
        try:
            strategy, _ = inner_strategy(arm.strategy, arm.parameters, self.name)
            require_features(strategy, led)
        except (CapabilityMissing, UserError) as e:
            return e.message
        return _Ready(one, strategy, led)

    async def _fall_back(self, why: str, question: Question, models: Models, run: Run) -> Solution:
        run.degrade(f"{FALLBACK} was taken: {why}")
        strategy, _ = create_strategy(FALLBACK, {})
        notes: dict[str, JsonValue] = {"ran": FALLBACK, "why": why, "chosen": FALLBACK}
        run.emit(StrategyNote(strategy=run.config.strategy, name=NOTE, data=notes))
        return _with_notes(await strategy.solve(question, models, run), FALLBACK, notes)


def identities_of(models: Models) -> dict[str, str]:
    """Identity of each model that is there, by role."""
    found = {"main": models.main.identity}
    for role in ("small", "judge", "reward"):
        if models.has(role):
            found[role] = getattr(models, role).identity
    return found


def _too_dear(arm: Arm, tokens: float, run: Run) -> str:
    """Which limit an arm does not fit into, as far as can be expected; empty if it fits."""
    left = run.ledger.left
    for kind, expected in (("tokens", tokens), ("calls", arm.calls), ("reward_calls", arm.reward_calls)):
        if expected > left(kind):  # type: ignore[arg-type]
            return f"it takes about {expected:,.0f} {kind.replace('_', ' ')}, and {left(kind):,.0f} are left"  # type: ignore[arg-type]
    return ""


def _told(
    chosen: Estimate, estimates: Sequence[Estimate], refused: dict[str, str], price: float
) -> dict[str, JsonValue]:
    """Who was chosen and why, for trace and notes; `why` is one line."""
    others = [one for one in estimates if one is not chosen and one.arm.label not in refused]
    telling = most_telling(chosen.shares)
    why = f"{chosen.right:.2f} right for {chosen.tokens:,.0f} tokens, worth {chosen.worth:.3f}"
    if others:
        why += f"; next {others[0].arm.label}, worth {others[0].worth:.3f}"
    arms: list[JsonValue] = [
        {
            "arm": one.arm.label,
            "right": round(one.right, 4),
            "tokens": round(one.tokens, 1),
            "worth": round(one.worth, 4),
            "refused": refused.get(one.arm.label, ""),
            "most_telling": dict(most_telling(one.shares)),
        }
        for one in estimates
    ]
    return {
        "ran": chosen.arm.label,
        "why": with_telling(why, telling),
        "chosen": chosen.arm.strategy,
        "price": price,
        "arms": arms,
    }


def _with_notes(solution: Solution, ran: str, notes: dict[str, JsonValue]) -> Solution:
    return solution.model_copy(update={"notes": {**solution.notes, "ran": ran, "auto": dict(notes)}})
