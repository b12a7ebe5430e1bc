"""`find_runs`: pages of runs by filters and in an order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..core.errors import UnknownName
from ..core.store.group_commit import Connection
from ..core.store.records import ListedRun, RunStatus
from ..core.store.run_list import LISTED_COLUMNS, pair_json, plain_text
from ..core.store.sql import RunStore

RunSort = Literal["created", "cost", "tokens", "seconds"]
"""What a list of runs is sorted by."""
MAX_SEARCHED_RUNS = 10_000
"""Runs that a list with a filter, or in another order than that of creation, looks at."""
_SORT_COLUMNS: Mapping[RunSort, str] = {
    "created": "created",
    "cost": "cost_usd",
    "tokens": "tokens",
    "seconds": "seconds",
}
_WINDOW_COLUMNS = f"{LISTED_COLUMNS}, model, search"


async def find_runs(
    store: RunStore,
    limit: int = 50,
    *,
    tenant: str | None = None,
    after: str | None = None,
    status: RunStatus | None = None,
    strategy: str | None = None,
    model: str | None = None,
    search: str = "",
    tag: tuple[str, str] | None = None,
    sort: RunSort = "created",
    ascending: bool = False,
) -> list[ListedRun]:
    """A page of runs, the newest first unless requested otherwise.

    With a filter or another order, it looks at `MAX_SEARCHED_RUNS` runs of the tenant: the newest, or in the order
    of creation those from `after` on.

    Args:
        after: Name of the last run of the preceding page, in the same order.
        model: The main model.
        search: A text that name, question (its first 2,000 characters) or metadata contain, ignoring case.
        tag: Key and value of a metadata pair.
        sort: Runs without a value come last.

    Raises:
        UnknownName: There is no run `after`.
    """
    query = RunQuery(tenant, status, strategy, model, search, tag, sort, ascending)

    def listed(db: Connection) -> list[ListedRun]:
        position: Sequence[Any] | None = None
        if after is not None:
            rows = db.execute(*query.find(after))
            if not rows:
                raise UnknownName("run", after, hint="`reason runs list` shows all runs")
            position = rows[0]
        runs: list[ListedRun] = []
        while len(runs) < limit:
            rows = db.execute(*query.select(store.listed_columns, position, limit))
            runs += [run for run in map(store.listed, rows) if status in (None, run.status)]
            if len(rows) < limit:
                break
            position = rows[-1][-1], rows[-1][0]
        return runs[:limit]

    return await store.commits.read(listed)


@dataclass(frozen=True)
class RunQuery:
    """The query of `find_runs`; None and empty texts select all runs."""

    tenant: str | None
    status: RunStatus | None
    strategy: str | None
    model: str | None
    search: str
    tag: tuple[str, str] | None
    sort: RunSort
    ascending: bool

    @property
    def sort_key(self) -> str:
        """The expression that sorts; runs without a value come last."""
        if self.sort == "created":
            return "created"
        missing = "1e300" if self.ascending else "-1"
        return f"CAST(COALESCE({_SORT_COLUMNS[self.sort]}, {missing}) AS DOUBLE PRECISION)"

    def find(self, run_id: str) -> tuple[str, list[Any]]:
        """The statement that gives sort key and id of a run."""
        conditions, values = self._of_tenant()
        return f"SELECT {self.sort_key}, id FROM runs {_where([*conditions, 'id = ?'])}", [*values, run_id]  # noqa: S608

    def select(self, columns: str, position: Sequence[Any] | None, limit: int) -> tuple[str, list[Any]]:
        """The statement of a page.

        A search reads the short columns of `MAX_SEARCHED_RUNS` runs at most. In the order of creation these are the
        runs from the position on; otherwise, the newest ones.
        """
        direction, comparison = ("ASC", ">") if self.ascending else ("DESC", "<")
        after = ([f"({self.sort_key}, id) {comparison} (?, ?)"], list(position)) if position is not None else ([], [])
        tenant, filters = self._of_tenant(), self._filters()
        if self.sort == "created":
            inner, outer, window_direction = _both(tenant, after), filters, direction
        else:
            inner, outer, window_direction = tenant, _both(filters, after), "DESC"
        order = f"ORDER BY {self.sort_key} {direction}, id {direction} LIMIT ?"
        if self.sort == "created" and not filters[0]:
            return f"SELECT {columns}, {self.sort_key} FROM runs {_where(inner[0])}{order}", [*inner[1], limit]  # noqa: S608
        window = (
            f"SELECT {_WINDOW_COLUMNS} FROM runs {_where(inner[0])}"  # noqa: S608
            f"ORDER BY created {window_direction}, id {window_direction} LIMIT {MAX_SEARCHED_RUNS}"
        )
        return (
            f"SELECT {columns}, {self.sort_key} FROM ({window}) AS runs {_where(outer[0])}{order}",  # noqa: S608
            [*inner[1], *outer[1], limit],
        )

    def _of_tenant(self) -> tuple[list[str], list[Any]]:
        return ([], []) if self.tenant is None else (["tenant = ?"], [self.tenant])

    def _filters(self) -> tuple[list[str], list[Any]]:
        conditions: list[str] = []
        values: list[Any] = []
        if self.status is not None:
            # a run recorded as running counts as interrupted if its process is gone
            stored = ("queued", "running", "interrupted") if self.status == "interrupted" else (self.status,)
            conditions.append(f"status IN ({','.join('?' * len(stored))})")
            values += stored
        for column, value in (("strategy", self.strategy), ("model", self.model)):
            if value is not None:
                conditions.append(f"{column} = ?")
                values.append(plain_text(value))
        # a text changes without another one exactly if it contains it; LIKE would need escapes, and databases differ
        if self.search:
            conditions.append("REPLACE(search, ?, '') <> search")
            values.append(plain_text(self.search).casefold())
        if self.tag is not None:
            conditions.append("REPLACE(metadata, ?, '') <> metadata")
            values.append(pair_json(*self.tag))
        return conditions, values


def _both(first: tuple[list[str], list[Any]], second: tuple[list[str], list[Any]]) -> tuple[list[str], list[Any]]:
    return [*first[0], *second[0]], [*first[1], *second[1]]


def _where(conditions: list[str]) -> str:
    return f"WHERE {' AND '.join(conditions)} " if conditions else ""
