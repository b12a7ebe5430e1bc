"""`Budget` and `Ledger`: what a run may spend and what it has spent.

A limit is checked before spending, on the most that the next step could cost, and what was really spent is charged
afterwards. Between the two the amount is reserved, so that two calls at once cannot both spend the last of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from .answer import RoleUsage, RunUsage
from .errors import LimitExceeded, UserError
from .messages import Frozen, Usage

LimitKind = Literal["tokens", "calls", "reward_calls", "seconds", "usd"]


class Budget(Frozen):
    """Limits of one run; None is no limit.

    Attributes:
        tokens: Generated tokens over all models, discarded samples and verifiers included. Prompt tokens are not
            counted here: with prefix reuse most cost nothing, and where they cost money, `usd` bounds them.
        calls: Model calls; a request for n samples is one call.
        reward_calls: Passes of reward models.
        seconds: Wall-clock time, waiting included.
        usd: US dollars. A model without a known price is refused when this is set.
    """

    tokens: Annotated[int, Field(gt=0)] | None = None
    calls: Annotated[int, Field(gt=0)] | None = None
    reward_calls: Annotated[int, Field(ge=0)] | None = None
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


@dataclass(frozen=True)
class Need:
    """The most that a step could spend."""

    tokens: int = 0
    calls: int = 0
    reward_calls: int = 0
    usd: float = 0.0


class Ledger:
    """What one run has spent, by model and role, and what it may still spend.

    Used from one event loop; every method is atomic there.

    Args:
        budget: The limits.
        clock: Monotonic seconds; replaced in tests.
    """

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self._clock = clock
        self._started = clock()
        self._stopped: float | None = None
        self._by_role: dict[str, RoleUsage] = {}
        self._reserved = Need()
        self.exhausted: LimitKind | None = None
        """The limit that stopped something, if one did."""

    # -- what is left

    @property
    def elapsed_s(self) -> float:
        """Wall-clock seconds since the run began (until it ended)."""
        return (self._stopped if self._stopped is not None else self._clock()) - self._started

    def seconds_left(self) -> float | None:
        """Seconds until the time limit, at least 0; None without a limit."""
        return None if self.budget.seconds is None else max(0.0, self.budget.seconds - self.elapsed_s)

    def used(self, kind: LimitKind) -> float:
        """Amount spent and reserved, in the limit's unit."""
        if kind == "seconds":
            return self.elapsed_s
        rows = self._by_role.values()
        if kind == "tokens":
            return sum(r.completion_tokens for r in rows) + self._reserved.tokens
        if kind == "calls":
            return sum(r.model_calls for r in rows) + self._reserved.calls
        if kind == "reward_calls":
            return sum(r.reward_calls for r in rows) + self._reserved.reward_calls
        return math.fsum(r.cost_usd or 0.0 for r in rows) + self._reserved.usd

    def left(self, kind: LimitKind) -> float:
        """Amount that may still be spent; infinite without a limit, never negative."""
        limit = getattr(self.budget, kind)
        return math.inf if limit is None else max(0.0, limit - self.used(kind))

    def affordable_samples(self, wanted: int, max_tokens: int) -> int:
        """How many samples of up to `max_tokens` fit, between 1 and `wanted`.

        A batch of this many cannot overspend and no sample in it is cut short, unless it is a single one.
        """
        left = self.left("tokens")
        return wanted if left == math.inf else max(1, min(wanted, int(left // max_tokens)))

    # -- spending

    @contextmanager
    def reserve(self, need: Need) -> Iterator[None]:
        """Hold the most that a step could spend while it is under way.

        Raises:
            LimitExceeded: The step could exceed a limit; nothing is held then.
        """
        wanted: dict[LimitKind, float] = {
            "tokens": need.tokens,
            "calls": need.calls,
            "reward_calls": need.reward_calls,
            "usd": need.usd,
        }
        if self.seconds_left() == 0.0:
            self._refuse("seconds")
        for kind, amount in wanted.items():
            if amount > self.left(kind):
                self._refuse(kind)
        self._reserved = _plus(self._reserved, need)
        try:
            yield
        finally:
            self._reserved = _plus(self._reserved, need, sign=-1)

    def refuse(self, kind: LimitKind) -> LimitExceeded:
        """Note that a limit stopped something, and make the error that says so."""
        self.exhausted = kind
        return LimitExceeded(kind, self.used(kind), getattr(self.budget, kind) or 0)

    def _refuse(self, kind: LimitKind) -> None:
        raise self.refuse(kind)

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
        working_s: float = 0.0,
    ) -> RoleUsage:
        """Book what a step has spent.

        Args:
            role: Part the model played: "main", "small", "judge", …
            model: The model's name.
            usage: Its tokens, waiting time and price.
            calls: Model calls.
            reward_calls: Passes of a reward model.
            replayed_calls: Part of `calls` that the run store answered whole.
            replayed_tokens: Part of the completion tokens that the run store answered.
            working_s: Seconds the model worked.

        Returns:
            The role's total so far.
        """
        key = f"{role}:{model}"
        row = self._by_role.get(key, RoleUsage(model=model))
        known = row.cost_usd is not None and usage.cost_usd is not None
        row = RoleUsage(
            model=model,
            prompt_tokens=row.prompt_tokens + usage.prompt_tokens,
            cached_tokens=row.cached_tokens + usage.cached_tokens,
            completion_tokens=row.completion_tokens + usage.completion_tokens,
            model_calls=row.model_calls + calls,
            reward_calls=row.reward_calls + reward_calls,
            replayed_calls=row.replayed_calls + replayed_calls,
            replayed_tokens=row.replayed_tokens + replayed_tokens,
            cost_usd=(row.cost_usd or 0.0) + (usage.cost_usd or 0.0) if known else None,
            working_s=row.working_s + working_s,
            waited_s=row.waited_s + usage.waited_s,
        )
        self._by_role[key] = row
        return row

    def restore(self, usage: RunUsage) -> None:
        """Take over what an interrupted run had spent up to its last checkpoint; none of it is paid again."""
        self._by_role = {
            key: row.model_copy(
                update={"replayed_calls": row.model_calls, "replayed_tokens": row.completion_tokens, "working_s": 0.0}
            )
            for key, row in usage.by_role.items()
        }
        self._started = self._clock() - usage.wall_seconds

    def stop(self) -> None:
        """End the wall clock; what is charged afterwards still counts."""
        if self._stopped is None:
            self._stopped = self._clock()

    def usage(self) -> RunUsage:
        """Everything spent so far."""
        rows = list(self._by_role.values())
        return RunUsage(
            prompt_tokens=sum(r.prompt_tokens for r in rows),
            cached_tokens=sum(r.cached_tokens for r in rows),
            completion_tokens=sum(r.completion_tokens for r in rows),
            model_calls=sum(r.model_calls for r in rows),
            reward_calls=sum(r.reward_calls for r in rows),
            replayed_calls=sum(r.replayed_calls for r in rows),
            replayed_tokens=sum(r.replayed_tokens for r in rows),
            cost_usd=None if any(r.cost_usd is None for r in rows) else math.fsum(r.cost_usd or 0.0 for r in rows),
            wall_seconds=self.elapsed_s,
            by_role=dict(self._by_role),
        )


def refuse_unpriced(budget: Budget, model: str, price_known: bool) -> None:
    """Refuse a money limit that could not be kept.

    Raises:
        UserError: The budget limits US dollars and the model's price is unknown.
    """
    if budget.usd is not None and not price_known:
        raise UserError(
            f"the price of model {model!r} is unknown, so a budget of {budget.usd:g} USD cannot be kept",
            hint="limit tokens or calls instead, or choose a model with a known price",
        )


def _plus(a: Need, b: Need, sign: int = 1) -> Need:
    return Need(
        a.tokens + sign * b.tokens,
        a.calls + sign * b.calls,
        a.reward_calls + sign * b.reward_calls,
        a.usd + sign * b.usd,
    )
