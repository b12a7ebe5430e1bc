"""Which runs are one method at several budgets: the points of one curve."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import JsonValue

from ..comparison import StoredRun, settings_of

SAMPLING = frozenset({"parameters.temperature", "parameters.top_p", "parameters.top_k", "parameters.min_p"})
"""Numbers that shape a sample and buy nothing."""


def families_of(runs: Sequence[StoredRun]) -> list[str]:
    """A name for each run, the same for runs that may stand on one curve.

    They share dataset, strategy and models, and differ in budgets and in the strategy's numbers alone (samples, rounds,
    tokens, thresholds): what an effort is made of. Runs that differ in how they sample, in a word, a switch or their
    seeds are different methods, and their names say in what.
    """
    named = [_method(run) for run in runs]
    settings = [{n: v for n, v in settings_of(run).items() if not _may_differ(n, v)} for run in runs]
    found = []
    for run, (method, mine) in zip(runs, zip(named, settings, strict=True), strict=True):
        alike = [
            s
            for r, m, s in zip(runs, named, settings, strict=True)
            if m == method and r.manifest.plan.dataset.fingerprint == run.manifest.plan.dataset.fingerprint
        ]
        own = [n for n in mine if any(s.get(n) != mine[n] for s in alike)]
        found.append(", ".join([method, *(f"{n.rpartition('.')[2]} {_shown(mine[n])}" for n in own)]))
    return found


def _method(run: StoredRun) -> str:
    plan = run.manifest.plan
    return f"{plan.strategy}, " + " + ".join(re.sub(r"^.*/", "", name) for name in plan.models.values())


def _may_differ(name: str, value: JsonValue) -> bool:
    """Whether runs that differ in a setting can still be one method."""
    if name in SAMPLING or name in ("seeds", "local.weight_format"):
        return False
    if name.startswith("parameters."):
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    return not name.startswith("verify")


def _shown(value: JsonValue) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 24 else text[:23] + "…"
