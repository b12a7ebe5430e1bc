"""`KeyStore`: API keys, and the spending of their tenants, in the run store's database."""

from __future__ import annotations

import json
import math
import time
from typing import Annotated, Any, Self

from pydantic import Field

from ..core.budget import Budget
from ..core.errors import UnknownName, UserError
from ..core.messages import Frozen
from ..core.store.group_commit import Connection
from ..core.store.sql import RunStore, spending_day

MAX_RESERVATION_S = 86_400
"""Age at which a reservation no longer counts, whatever its process does, in seconds."""
_TABLES = """
CREATE TABLE IF NOT EXISTS reservations (
    name {name} PRIMARY KEY,
    tenant TEXT NOT NULL,
    owner TEXT NOT NULL,
    created DOUBLE PRECISION NOT NULL,
    tokens BIGINT NOT NULL,
    usd DOUBLE PRECISION NOT NULL
){end};
CREATE INDEX IF NOT EXISTS reservations_of_tenant ON reservations (tenant, owner);
CREATE TABLE IF NOT EXISTS api_keys (
    id {name} PRIMARY KEY,
    name TEXT NOT NULL,
    tenant TEXT NOT NULL,
    digest TEXT NOT NULL,
    scopes TEXT NOT NULL,
    limits TEXT NOT NULL,
    created DOUBLE PRECISION NOT NULL,
    expires DOUBLE PRECISION,
    revoked DOUBLE PRECISION
){end}"""


class Spending(Frozen):
    """What a tenant has paid for.

    Attributes:
        tokens: Generated tokens; those answered by the store were not paid again.
        usd: US dollars, as far as prices are known.
        runs: Runs that have ended.
        reserved_tokens: What runs in flight may still spend (`KeyStore.reserve_spending`), in any process.
        reserved_usd: The same in dollars.
    """

    tokens: int = 0
    usd: float = 0.0
    runs: int = 0
    reserved_tokens: int = 0
    reserved_usd: float = 0.0


class KeyLimits(Frozen):
    """Limits of one API key; None is no limit.

    Attributes:
        requests_per_minute: Counted by each process.
        concurrency: Runs in flight, counted by each process.
        tokens_per_day: Generated tokens that the key's tenant may pay for, by UTC day.
        usd_per_day: US dollars that the key's tenant may pay, by UTC day.
    """

    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    concurrency: Annotated[int, Field(ge=1)] | None = None
    tokens_per_day: Annotated[int, Field(ge=1)] | None = None
    usd_per_day: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    def left_for(self, budget: Budget, spending: Spending) -> Budget | None:
        """A run's budget, capped by what the daily limits leave; None if one of them leaves nothing."""
        tokens, usd = budget.tokens, budget.usd
        if self.tokens_per_day is not None:
            left = self.tokens_per_day - spending.tokens - spending.reserved_tokens
            tokens = left if tokens is None else min(tokens, left)
        if self.usd_per_day is not None:
            left_usd = self.usd_per_day - spending.usd - spending.reserved_usd
            usd = left_usd if usd is None else min(usd, left_usd)
        if (tokens is not None and tokens < 1) or (usd is not None and usd <= 0):
            return None
        return budget.model_copy(update={"tokens": tokens, "usd": usd})


class ApiKey(Frozen):
    """An API key, without the key itself, which is stored nowhere.

    Attributes:
        id: The public part of the key, by which it is looked up.
        name: A name for people.
        tenant: Whose runs it reads and creates; several keys may share one.
        digest: Hash of the secret part.
        scopes: What it allows: "ask", "read", "admin".
        created: Seconds since the epoch.
        expires: When it expires; None is never.
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

    def is_valid(self, at: float) -> bool:
        """Whether it is neither revoked nor expired at that time."""
        return self.revoked is None and (self.expires is None or self.expires > at)


_COLUMNS = ", ".join(ApiKey.model_fields)


class KeyStore:
    """API keys, and what their tenants have spent and reserved, in the database of a run store; `open` it.

    All methods raise `StoreError` if the store fails.
    """

    def __init__(self, runs: RunStore) -> None:
        self._database, self._ownership = runs.commits, runs.ownership

    @classmethod
    async def open(cls, runs: RunStore) -> Self:
        """Create the tables unless they exist: a server's role in the database need not be allowed to create any."""
        if not await runs.commits.read(lambda db: db.execute("SELECT key FROM meta WHERE key = 'keys'")):
            await runs.commits.write(_create_tables)
        return cls(runs)

    # -- keys

    async def add(self, key: ApiKey) -> None:
        """Store a new key.

        Raises:
            UserError: There is a key of that id.
        """
        values = {**dict(key), "scopes": json.dumps(sorted(key.scopes)), "limits": key.limits.model_dump_json()}
        sql = (
            f"INSERT INTO api_keys ({_COLUMNS}) VALUES ({', '.join('?' * len(values))}) "  # noqa: S608
            "ON CONFLICT DO NOTHING RETURNING id"
        )
        if not await self._database.write(lambda db: db.execute(sql, tuple(values.values()))):
            raise UserError(f"there is a key {key.id} already", hint="create another one")

    async def keys(self) -> list[ApiKey]:
        """All keys, revoked ones included, oldest first."""
        sql = f"SELECT {_COLUMNS} FROM api_keys ORDER BY created, id"  # noqa: S608
        return [_key(row) for row in await self._database.read(lambda db: db.execute(sql))]

    async def find(self, key_id: str) -> ApiKey | None:
        """The key of that id, revoked or not; None if there is none."""
        if "\0" in key_id:
            return None
        sql = f"SELECT {_COLUMNS} FROM api_keys WHERE id = ?"  # noqa: S608
        rows = await self._database.read(lambda db: db.execute(sql, (key_id,)))
        return _key(rows[0]) if rows else None

    async def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key and return it as it is now; a revoked one stays so.

        Raises:
            UnknownName: There is no such key.
        """
        sql = f"UPDATE api_keys SET revoked = COALESCE(revoked, ?) WHERE id = ? RETURNING {_COLUMNS}"  # noqa: S608
        rows = await self._database.write(lambda db: db.execute(sql, (time.time(), key_id)))
        if not rows:
            raise UnknownName("key", key_id, hint="`reason keys list` shows all keys")
        return _key(rows[0])

    # -- spending

    async def get_spending(self, tenant: str, since: float) -> Spending:
        """What a tenant has paid for since the beginning of a UTC day, and what its runs in flight reserve.

        Args:
            since: A time of that day, in seconds since the epoch.
        """
        return await self._database.read(lambda db: self._spending(db, tenant, since))

    def _spending(self, db: Connection, tenant: str, since: float) -> Spending:
        ((tokens, usd, runs),) = db.execute(
            "SELECT SUM(tokens), SUM(usd), SUM(runs) FROM spending WHERE tenant = ? AND day >= ?",
            (tenant, spending_day(since)),
        )
        reserved = [
            (tokens, usd)
            for tokens, usd, owner, liveness in db.execute(
                f"SELECT SUM(tokens), SUM(usd), owner, {self._ownership.liveness} FROM reservations "  # noqa: S608
                "WHERE tenant = ? AND created > ? GROUP BY owner",
                (tenant, since - MAX_RESERVATION_S),
            )
            if not self._ownership.is_free(owner, liveness)
        ]
        return Spending(
            tokens=int(tokens or 0),
            usd=float(usd or 0.0),
            runs=int(runs or 0),
            reserved_tokens=int(sum(tokens for tokens, _ in reserved)),
            reserved_usd=math.fsum(usd for _, usd in reserved),
        )

    async def reserve_spending(
        self, name: str, tenant: str, budget: Budget, limits: KeyLimits, at: float
    ) -> tuple[Budget | None, Spending]:
        """Reserve a run's budget out of what daily limits leave its tenant, atomically among all processes.

        The reservation counts until it is released, or its process has died.

        Args:
            name: A new name, for `release_spending`.
            at: A time of the UTC day, in seconds since the epoch.

        Returns:
            The budget, capped by what was left (`KeyLimits.left_for`), None if nothing was left and so nothing is
            reserved; and what had been spent and reserved before.
        """

        def reserve(db: Connection) -> tuple[Budget | None, Spending]:
            day = (tenant, spending_day(at))
            # the row of the day is locked first: reservations of one tenant happen one after the other
            db.write(
                "INSERT INTO spending (tenant, day, tokens, usd, runs) VALUES (?, ?, 0, 0, 0) ON CONFLICT DO NOTHING",
                day,
            )
            db.execute(f"SELECT tokens FROM spending WHERE tenant = ? AND day = ?{self._ownership.lock}", day)  # noqa: S608
            before = self._spending(db, tenant, at)
            reserved = limits.left_for(budget, before)
            if reserved is not None:
                db.write("DELETE FROM reservations WHERE tenant = ? AND created <= ?", (tenant, at - MAX_RESERVATION_S))
                db.write(
                    "INSERT INTO reservations (name, tenant, owner, created, tokens, usd) VALUES (?, ?, ?, ?, ?, ?)",
                    (name, tenant, self._ownership.owner, at, reserved.tokens or 0, reserved.usd or 0.0),
                )
            return reserved, before

        return await self._database.write(reserve)

    async def release_spending(self, name: str) -> None:
        """Give back a reservation; its run has been charged for what it spent."""
        await self._database.write(lambda db: db.write("DELETE FROM reservations WHERE name = ?", (name,)))


def _create_tables(db: Connection) -> None:
    db.create_tables(_TABLES)
    db.write("INSERT INTO meta VALUES ('keys', '1') ON CONFLICT DO NOTHING", ())


def _key(row: tuple[Any, ...]) -> ApiKey:
    values = dict(zip(ApiKey.model_fields, row, strict=True))
    scopes, limits = frozenset(json.loads(values["scopes"])), KeyLimits.model_validate_json(values["limits"])
    return ApiKey(**{**values, "scopes": scopes, "limits": limits})
