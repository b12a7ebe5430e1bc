"""Two runs side by side: whether they can be compared at all, what differs, and by how much they differ in the score.

A difference in accuracy says something about a method only if nothing else differs. Two runs may differ in one thing
without being asked: the strategy, with the parameters that only one of the two strategies has; or else a single setting
(a parameter, a model with its identity, a budget, the seeds). Anything more is refused unless it is allowed by name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from ..core.errors import UserError
from .folder import Manifest, flat_settings, read_manifest, read_rows
from .rows import Row
from .statistics.paired import Paired, compare
from .summary import outcomes_of

NOT_SETTINGS = frozenset(
    {"limit", "reuse", "calibration", "dataset.source", "dataset.licence", "dataset.warning", "dataset.sha256"}
)
"""What a plan notes that cannot move a score."""


@dataclass(frozen=True)
class StoredRun:
    """A run as it lies in its folder."""

    path: Path
    manifest: Manifest
    rows: list[Row]

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.manifest.label


@dataclass(frozen=True)
class Difference:
    """A setting in which two runs differ."""

    name: str
    left: JsonValue
    right: JsonValue

    def __str__(self) -> str:
        return f"{self.name}: {_shown(self.left)} and {_shown(self.right)}"


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same items; differences in score are the first's less the second's.

    Attributes:
        compared: What the comparison is of: the one thing in which they differ.
        allowed: What differs besides, because it was allowed to.
        missing: Rows that one of the two has and the other has not; they do not count.
        score: The paired comparison.
        by_metric: The same for the other scores that both have.
    """

    a: StoredRun
    b: StoredRun
    compared: tuple[Difference, ...]
    allowed: tuple[Difference, ...]
    missing: int
    score: Paired
    by_metric: dict[str, Paired]


def load_run(path: Path) -> StoredRun:
    """Read a run.

    Raises:
        DataError: The folder holds none, or it is damaged.
        UserError: It holds no rows yet.
    """
    manifest = read_manifest(path)
    rows = read_rows(path, torn_end=not manifest.complete)
    if not rows:
        raise UserError(f"the run in {path} has no rows yet", hint="let it run first")
    return StoredRun(path, manifest, rows)


def compare_runs(a: StoredRun, b: StoredRun, allow: Collection[str] = (), *, force: bool = False) -> Comparison:
    """Compare two runs on the rows that both have.

    Args:
        a: One run.
        b: The other.
        allow: Names of settings that may differ besides the one compared, whole or as their last part.
        force: Whether anything may differ.

    Raises:
        UserError: They differ in more than one thing; names all of it. Or they have no row in common.
    """
    compared, besides = split_differences(settings_of(a), settings_of(b))
    refused = [d for d in besides if not force and not _is_allowed(d.name, allow)]
    if refused:
        flags = " ".join(f"--allow-different {d.name}" for d in refused)
        raise UserError(
            f"{a.label} and {b.label} cannot be compared: they differ in " + "; ".join(map(str, refused)),
            hint=f"make them alike, or say {flags} (or --force)",
        )
    keys = {r.key for r in a.rows} & {r.key for r in b.rows}
    same_seeds = a.manifest.plan.seeds == b.manifest.plan.seeds
    names = {r.id for r in a.rows} & {r.id for r in b.rows}

    def of(run: StoredRun) -> list[Row]:
        return [r for r in run.rows if (r.key in keys if same_seeds else r.id in names)]

    left, right = of(a), of(b)
    if not left or not right:
        raise UserError(f"{a.label} and {b.label} have no item in common")
    # not every row has every metric: those count that some item has in both runs
    metrics = sorted({m for m, _ in _measured(left) & _measured(right)})
    return Comparison(
        a=a,
        b=b,
        compared=tuple(compared),
        allowed=tuple(besides),
        missing=len(a.rows) + len(b.rows) - len(left) - len(right),
        score=compare(outcomes_of(left), outcomes_of(right)),
        by_metric={m: compare(outcomes_of(left, m), outcomes_of(right, m)) for m in metrics},
    )


def _measured(rows: Sequence[Row]) -> set[tuple[str, str]]:
    """(metric, item) of every score there is."""
    return {(m, r.id) for r in rows for m in r.metrics}


def settings_of(run: StoredRun) -> dict[str, JsonValue]:
    """What can move a run's score, by dotted name: the plan, the identity of each model, the version of `reason`."""
    plan = {n: v for n, v in flat_settings(run.manifest.plan).items() if n not in NOT_SETTINGS}
    engines: dict[str, set[str]] = {}
    versions: set[str] = set()
    for row in run.rows:
        versions.add(row.version)
        for role, identity in row.engines.items():
            engines.setdefault(role, set()).add(identity)
    # identities and versions of all rows: a run that was resumed on another version shows it here
    plan |= {f"engine.{role}": ", ".join(sorted(found)) for role, found in engines.items()}
    return plan | {"version": ", ".join(sorted(versions))}


def split_differences(
    left: dict[str, JsonValue], right: dict[str, JsonValue]
) -> tuple[list[Difference], list[Difference]]:
    """What a comparison of two runs is of, and in what they differ besides."""
    differences = [
        Difference(n, left.get(n), right.get(n)) for n in dict.fromkeys([*left, *right]) if left.get(n) != right.get(n)
    ]
    names = {d.name for d in differences}

    def goes_with(name: str) -> bool:
        """Whether a difference is part of the one thing compared."""
        if "strategy" in names:
            own = name.startswith("parameters.") and (name not in left or name not in right)
            return name == "strategy" or own
        role = name.removeprefix("engine.") if name.startswith("engine.") else name.removeprefix("models.")
        return f"models.{role}" in names and len([n for n in names if n.startswith("models.")]) == 1

    compared = [d for d in differences if goes_with(d.name)]
    besides = [d for d in differences if not goes_with(d.name)]
    if not compared and len(besides) == 1 and _may_be_compared(besides[0].name):
        compared, besides = besides, []
    return compared, besides


def _may_be_compared(name: str) -> bool:
    """Whether a lone difference can be what a comparison is of: never the data, nor what runs the model."""
    return name.split(".")[0] in ("parameters", "budget", "seeds", "verify", "local")


def _is_allowed(name: str, allow: Collection[str]) -> bool:
    return any(name == a or name.endswith(f".{a}") or name.startswith(f"{a}.") for a in allow)


def _shown(value: JsonValue) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def load_runs(paths: Sequence[Path]) -> list[StoredRun]:
    """Read several runs; those that share a label get their folders' names.

    Raises:
        DataError: A folder holds none, or it is damaged.
        UserError: A run has no rows yet, or a folder was named twice.
    """
    runs = [load_run(path) for path in paths]
    if len({r.path.resolve() for r in runs}) < len(runs):
        raise UserError("a run was named twice")
    labels = [r.label for r in runs]
    return [
        r
        if labels.count(r.label) == 1
        else StoredRun(r.path, r.manifest.model_copy(update={"label": f"{r.label} ({r.path.name})"}), r.rows)
        for r in runs
    ]
