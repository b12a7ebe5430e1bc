"""`Budget`, `Ledger` and `BudgetView`: what a run may spend, what it has spent, and what a part of it may still spend.

A limit is checked before spending, on the maximum that the next step could cost; the actual cost is charged afterwards.
Until then the maximum is reserved, so that two concurrent calls cannot both spend the last of it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field

from .clock import monotonic
from .errors import BudgetExceeded, UserError
from .messages import Frozen, Usage
from .types import RoleUsage, RunUsage

LimitKind = Literal[
    "tokens",
    "thinking_tokens",
    "prompt_tokens",
    "calls",
    "reward_calls",
    "seconds",
    "usd",
    "turns",
    "tool_calls",
    "user",
]
"""What ended a run's spending: one of its limits, or the user, who wants the answer now."""


class Budget(Frozen):
    """Limits of one run; None is no limit.

    Attributes:
        tokens: Generated tokens over all models, discarded samples and verifiers included. Prompt tokens do not count.
        thinking_tokens: Part of them that are thoughts.
        prompt_tokens: Tokens of the prompts over all models, read from a cache or not. Before a call, the bytes of a
            prompt are reserved where a model cannot count its tokens, so that the last calls may be refused early.
        calls: Model calls; a request for n samples is one call.
        reward_calls: Forward passes of reward models.
        seconds: Wall-clock time, waiting included.
        usd: US dollars. A model without a known price is refused when this is set.
        turns: Model turns of a run that executes tools.
        tool_calls: Executed tool calls.
    """

    tokens: Annotated[int, Field(gt=0)] | None = None
    thinking_tokens: Annotated[int, Field(gt=0)] | None = Field(default=None, exclude_if=lambda value: value is None)
    prompt_tokens: Annotated[int, Field(gt=0)] | None = Field(default=None, exclude_if=lambda value: value is None)
    calls: Annotated[int, Field(gt=0)] | None = None
    reward_calls: Annotated[int, Field(ge=0)] | None = None
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    turns: Annotated[int, Field(gt=0)] | None = Field(default=None, exclude_if=lambda value: value is None)
    tool_calls: Annotated[int, Field(ge=0)] | None = Field(default=None, exclude_if=lambda value: value is None)


@dataclass(frozen=True)
class CostBound:
    """An upper bound on what a step spends; `tokens` includes `thinking_tokens`."""

    tokens: int = 0
    calls: int = 0
    reward_calls: int = 0
    usd: float = 0.0
    thinking_tokens: int = 0
    prompt_tokens: int = 0

    def __add__(self, other: CostBound) -> CostBound:
        return CostBound(**{kind: amount + getattr(other, kind) for kind, amount in vars(self).items()})

    def __sub__(self, other: CostBound) -> CostBound:
        return CostBound(**{kind: amount - getattr(other, kind) for kind, amount in vars(self).items()})

    def first_shortfall(self, remaining: Callable[[LimitKind], float]) -> LimitKind | None:
        """The first limit with less remaining than this bound; None if it fits."""
        return next((kind for kind in AMOUNTS if getattr(self, kind) > remaining(kind)), None)


AMOUNTS: Mapping[LimitKind, str] = MappingProxyType(
    {
        "tokens": "completion_tokens",
        "thinking_tokens": "thinking_tokens",
        "prompt_tokens": "prompt_tokens",
        "calls": "model_calls",
        "reward_calls": "reward_calls",
        "usd": "cost_usd",
    }
)
"""Limits of amounts, each with the field of `RoleUsage` that it bounds."""


class Ledger:
    """What one run has spent, by model and role.

    Used from one event loop; every method is atomic there.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._started = monotonic()
        self._stopped: float | None = None
        self._by_role: dict[str, RoleUsage] = {}
        self._reserved = CostBound()
        self._counts: dict[LimitKind, int] = {"turns": 0, "tool_calls": 0}
        self.exhausted: LimitKind | None = None
        """The limit that stopped something; None if none did."""
        self.is_closed = False
        """Whether the user wants the answer now: no step may begin."""

    # -- remaining budget

    @property
    def elapsed_s(self) -> float:
        """Wall-clock seconds since the run began (until it ended)."""
        return (self._stopped if self._stopped is not None else monotonic()) - self._started

    def remaining_seconds(self) -> float | None:
        """Seconds until the time limit, not negative; None without a limit."""
        return None if self.budget.seconds is None else max(0.0, self.budget.seconds - self.elapsed_s)

    def used(self, kind: LimitKind) -> float:
        """Amount spent and reserved, in the limit's unit."""
        if kind == "seconds":
            return self.elapsed_s
        if kind == "user":
            return 0.0
        if kind in self._counts:
            return self._counts[kind]
        name = AMOUNTS[kind]
        amounts = [getattr(row, name) or 0 for row in self._by_role.values()]
        reserved: float = getattr(self._reserved, kind)
        return reserved + (math.fsum(amounts) if kind == "usd" else sum(amounts))

    def remaining(self, kind: LimitKind) -> float:
        """Amount that may still be spent; infinite without a limit, never negative."""
        limit = getattr(self.budget, kind, None)
        return math.inf if limit is None else max(0.0, limit - self.used(kind))

    def view(self, reserve: CostBound | None = None, *, max_tokens: int | None = None) -> BudgetView:
        """What a part of the run may spend.

        Args:
            reserve: Amounts kept back for what follows, such as the final answer.
            max_tokens: The part's own limit of generated tokens, counted from now on; None is no limit.
        """
        return BudgetView(self, reserve or CostBound(), max_tokens=max_tokens)

    # -- spending

    @contextmanager
    def reserve(self, cost: CostBound, *, even_closed: bool = False) -> Iterator[Callable[[], None]]:
        """Hold the maximum cost of a step while it is in flight.

        Gives a function that releases the reservation before the block is left: call it together with `charge`, so that
        nothing is counted twice while the block still waits for something.

        Args:
            even_closed: Whether the step concludes the run, and so may begin after the user wanted the answer.

        Raises:
            BudgetExceeded: The step could exceed a limit; nothing is held then.
        """
        if self.is_closed and not even_closed:
            raise self.exceeded("user")
        if self.remaining_seconds() == 0.0:
            raise self.exceeded("seconds")
        kind = cost.first_shortfall(self.remaining)
        if kind is not None:
            raise self.exceeded(kind)
        self._reserved += cost
        is_held = True

        def release() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._reserved -= cost

        try:
            yield release
        finally:
            release()

    def exceeded(self, kind: LimitKind) -> BudgetExceeded:
        """Record that a limit stopped something; returns the error to raise or to record (`Run.record_limit`)."""
        self.exhausted = kind
        return BudgetExceeded(kind, self.used(kind), getattr(self.budget, kind, None) or 0)

    def charge(
        self,
        role: str,
        model: str,
        usage: Usage,
        *,
        calls: int = 0,
        reward_calls: int = 0,
        replayed_calls: int = 0,
        replayed_tokens: int = 0,
        lost_tokens: int = 0,
        working_s: float = 0.0,
    ) -> RoleUsage:
        """Charge the actual cost of a step; returns the role's total so far.

        Args:
            role: Role of the model: "main", "small", "judge", …
            replayed_calls: Part of `calls` that the run store answered completely.
            replayed_tokens: Part of the completion tokens that the run store answered.
            lost_tokens: Tokens of samples that an interruption discards.
            working_s: Seconds the model worked, queues excluded.
        """
        key = f"{role}:{model}"
        row = self._by_role.get(key, RoleUsage(model=model))
        is_priced = row.cost_usd is not None and usage.cost_usd is not None
        amounts = {
            **{name: getattr(usage, name) for name in _TOKENS},
            "model_calls": calls,
            "reward_calls": reward_calls,
            "replayed_calls": replayed_calls,
            "replayed_tokens": replayed_tokens,
            "lost_tokens": lost_tokens,
        }
        row = RoleUsage(
            model=model,
            **{name: getattr(row, name) + amount for name, amount in amounts.items()},
            cost_usd=(row.cost_usd or 0.0) + (usage.cost_usd or 0.0) if is_priced else None,
            working_s=row.working_s + working_s,
            waited_s=row.waited_s + usage.waited_s,
        )
        self._by_role[key] = row
        return row

    def count(self, kind: Literal["turns", "tool_calls"]) -> None:
        """Count a turn or a tool call, which the caller has compared with its limit."""
        self._counts[kind] += 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the wall clock while the block waits for a person."""
        began = monotonic()
        try:
            yield
        finally:
            self._started += monotonic() - began

    def restore(self, usage: RunUsage, *, is_replayed: bool = True) -> None:
        """Take over what a run had spent up to its last checkpoint; none of it is paid again.

        Args:
            is_replayed: Whether it counts as replayed, since the run was interrupted.
        """
        carried = self.usage()
        self._by_role = dict(usage.by_role)
        if is_replayed:
            self._by_role = {
                key: row.model_copy(
                    update={
                        "replayed_calls": row.model_calls,
                        "replayed_tokens": row.completion_tokens,
                        "working_s": 0.0,
                    }
                )
                for key, row in usage.by_role.items()
            }
        self.carry_lost(carried)
        self._counts = {"turns": usage.turns, "tool_calls": usage.tool_calls}
        self._started = monotonic() - usage.wall_seconds

    def carry_lost(self, usage: RunUsage) -> None:
        """Take over lost tokens of an interrupted run. They count in no limit, so that it makes the same requests."""
        for key, row in usage.by_role.items():
            known = self._by_role.get(key, RoleUsage(model=row.model))
            if row.lost_tokens > known.lost_tokens:
                self._by_role[key] = known.model_copy(update={"lost_tokens": row.lost_tokens})

    def stop(self) -> None:
        """Stop the wall clock; later charges still count."""
        if self._stopped is None:
            self._stopped = monotonic()

    def usage(self) -> RunUsage:
        """Everything spent so far."""
        rows = [row.__dict__ for row in self._by_role.values()]
        amounts = rows[0] if len(rows) == 1 else {name: sum(row[name] for row in rows) for name in _AMOUNTS}
        costs = [row["cost_usd"] for row in rows]
        return RunUsage(
            **{name: amounts[name] for name in _AMOUNTS},
            cost_usd=None if None in costs else math.fsum(costs),
            wall_seconds=self.elapsed_s,
            turns=self._counts["turns"],
            tool_calls=self._counts["tool_calls"],
            by_role=dict(self._by_role),
        )


_TOKENS = ("prompt_tokens", "cached_tokens", "cache_write_tokens", "completion_tokens", "thinking_tokens")
"""Amounts that a step's `Usage` has."""
_AMOUNTS = (*_TOKENS, "model_calls", "reward_calls", "replayed_calls", "replayed_tokens", "lost_tokens")
"""Amounts of a `RoleUsage` that are added up."""


class BudgetView:
    """What a part of a run may still spend: the run's budget less a reserve, and less its own token limit.

    Everything but the time is a function of what was charged, so a replay decides as the run did.

    Made by `Ledger.view`.

    Attributes:
        reserve: Amounts kept back.
    """

    def __init__(self, ledger: Ledger, reserve: CostBound, *, max_tokens: int | None = None) -> None:
        self.reserve = reserve
        self._ledger = ledger
        self._max_tokens = max_tokens
        self._tokens_before = ledger.used("tokens")
        self._slowest_call_s = 0.0

    @property
    def spent_tokens(self) -> int:
        """Tokens generated or reserved since the view was made."""
        return int(self._ledger.used("tokens") - self._tokens_before)

    def remaining(self, kind: LimitKind) -> float:
        """Amount that may still be spent with the reserve kept; infinite without a limit, never negative."""
        left = self._ledger.remaining(kind)
        if kind == "tokens" and self._max_tokens is not None:
            left = min(left, self._max_tokens - (self._ledger.used("tokens") - self._tokens_before))
        kept = self.reserved_seconds if kind == "seconds" else getattr(self.reserve, kind, 0)
        return max(0.0, left - kept)

    def shortfall(self, cost: CostBound) -> LimitKind | None:
        """The first limit that a step of this maximum cost could exceed; None if it fits."""
        return cost.first_shortfall(self.remaining)

    def require(self, cost: CostBound) -> None:
        """Raise unless a step of this maximum cost fits.

        Raises:
            BudgetExceeded: It does not.
        """
        kind = self.shortfall(cost)
        if kind is not None:
            raise self._ledger.exceeded(kind)

    def tokens_per_sample(self, samples: int) -> float:
        """Equal share of the remaining tokens; infinite without a limit."""
        return self.remaining("tokens") / samples

    @property
    def is_unlimited(self) -> bool:
        """Whether nothing but time limits the run: then concurrent steps cannot affect one another's share."""
        budget = self._ledger.budget
        return not budget.model_dump(exclude_none=True, exclude={"seconds"})

    # -- time

    @property
    def reserved_seconds(self) -> float:
        """Seconds kept for the final answer: a tenth of the time limit, or the slowest observed call if longer."""
        return max(self._slowest_call_s, (self._ledger.budget.seconds or 0.0) / 10)

    def observe_call(self, seconds: float) -> None:
        """Report the duration of a call, from which `reserved_seconds` follows."""
        self._slowest_call_s = max(self._slowest_call_s, seconds)

    @contextmanager
    def cutoff(self) -> Iterator[asyncio.Event | None]:
        """An event that is set when only the time reserved for the final answer is left; None without a time limit.

        Raises:
            BudgetExceeded: No more time is left already.
        """
        left = self._ledger.remaining_seconds()
        if left is None:
            yield None
            return
        if left <= self.reserved_seconds:
            raise self._ledger.exceeded("seconds")
        event = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(left - self.reserved_seconds, event.set)
        try:
            yield event
        finally:
            timer.cancel()


def require_known_price(budget: Budget, model: str, price_known: bool) -> None:
    """Refuse a money limit that could not be enforced.

    Raises:
        UserError: The budget limits US dollars and the model's price is unknown.
    """
    if budget.usd is not None and not price_known:
        raise UserError(
            f"the price of model {model!r} is unknown, so a budget of {budget.usd:g} USD cannot be enforced",
            hint="limit tokens or calls instead, or choose a model with a known price",
        )
