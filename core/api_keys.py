"""`ApiKey` and `KeyLimits`: who may call the REST sidecar, and how much. The key itself is nowhere stored."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .messages import Frozen


class KeyLimits(Frozen):
    """What may be done with one key; None is no limit.

    Attributes:
        requests_per_minute: Requests, counted by each process.
        concurrency: Runs under way at once, counted by each process.
        tokens_per_day: Generated tokens that the key's tenant may pay for, by UTC day.
        usd_per_day: US dollars likewise.
    """

    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    concurrency: Annotated[int, Field(ge=1)] | None = None
    tokens_per_day: Annotated[int, Field(ge=1)] | None = None
    usd_per_day: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class ApiKey(Frozen):
    """A key as the store has it.

    Attributes:
        id: The part of the key that is no secret, by which it is found.
        name: What people call it.
        tenant: Whose runs it sees and makes; several keys may have the same.
        digest: Hash of the secret part.
        scopes: What it may do: "ask", "read", "admin".
        limits: How much.
        created: Seconds since the epoch.
        expires: From when on it is refused; None is never.
        revoked: When it was revoked; None if it was not.
    """

    id: str
    name: str
    tenant: str
    digest: str
    scopes: frozenset[str]
    limits: KeyLimits = KeyLimits()
    created: float
    expires: float | None = None
    revoked: float | None = None

    def is_good(self, at: float) -> bool:
        """Whether it opens the door at that time: neither revoked nor expired."""
        return self.revoked is None and (self.expires is None or self.expires > at)
