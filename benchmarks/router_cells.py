"""What the runs of two models noted and took, as `router_table.py` prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import JsonValue
from reason.core.sqlite_store import SqliteStore
from reason.evals.comparison import StoredRun
from reason.evals.rows import Row
from reason.evals.solution_notes import Notes, last_notes, store_of
from reason.evals.statistics.intervals import bootstrap_means, percentiles
from reason.evals.statistics.latency import latency
from reason.routers.latency import Observation, fit, observations

UNKNOWN = ""
LOOPS = ("glimp", "specreason")
ORDER = ("cot", "large", "small", "glimp", "random", "specreason", "cascade", "question-router")


@dataclass(frozen=True)
class Watched:
    """A run with what its items noted.

    Attributes:
        run: The run.
        notes: What each row's solution noted; None for a row without one, or where there is no store.
        timed: The calls that took time.
    """

    run: StoredRun
    notes: tuple[Notes | None, ...]
    timed: tuple[Observation, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """The rows."""
        return self.run.rows

    @property
    def intervention_rate(self) -> float | None:
        """The share of all steps that the large model wrote; None without steps."""
        writers = [w for noted in self.notes for w in _list(noted, "writers")]
        return writers.count("large") / len(writers) if writers else None


async def watch(runs: Sequence[StoredRun], store: Path | None) -> list[Watched]:
    """Runs with what the run store knows of them; a store that is gone leaves it out."""
    found: list[Watched] = []
    for run in runs:
        place = store_of(run, store)
        if not place.exists():
            found.append(Watched(run, (None,) * len(run.rows)))
            continue
        opened = await SqliteStore.open(place)
        try:
            told = [await opened.events(row.run_id) for row in run.rows]
        finally:
            await opened.aclose()
        timed = [one for events in told for one in observations(events)]
        found.append(Watched(run, tuple(map(last_notes, told)), tuple(timed)))
    return found


# -- methods


def kind_of(run: StoredRun) -> str:
    """The strategy, or the policy of a step loop that is no router."""
    plan = run.manifest.plan
    policy = str(plan.parameters.get("policy", "")) if plan.strategy == "glimp" else ""
    return policy if policy in ("large", "small", "random") else plan.strategy


def order_of(run: StoredRun) -> tuple[int, str, float, str]:
    """Baselines first, then routers, each by what it varies."""
    plan, kind = run.manifest.plan, kind_of(run)
    varied = next((p for n in ("threshold", "rate", "accept") if _is_number(p := plan.parameters.get(n))), 0)
    probe = str(plan.parameters.get("probe", ""))
    at = ORDER.index(kind) if kind in ORDER else len(ORDER)
    return at, "" if "small" in plan.models else "alone", float(str(varied)), probe


def method_of(run: StoredRun, large: str) -> str:
    """A method in a few words."""
    plan, kind = run.manifest.plan, kind_of(run)
    given: Mapping[str, JsonValue] = plan.parameters
    match kind:
        case "cot":
            return f"{'large' if plan.models['main'] == large or not large else 'small'}, one request"
        case "large" | "small":
            return f"{kind}, step by step"
        case "random":
            return f"by chance, rate {given['rate']}"
        case "specreason":
            return f"specreason, accept {given['accept']}"
        case "cascade":
            first = given.get("first_parameters")
            samples = f", n = {first['n']}" if isinstance(first, dict) and "n" in first else ""
            return f"cascade, {given['first']}{samples}, threshold {given['threshold']}"
        case "question-router":
            return "question-router" + ("" if given.get("rate") is None else f", rate {given['rate']}")
        case "glimp":
            at = f"threshold {float(str(given['threshold'])):.4g}"
            rate = "" if given.get("rate") is None else f", rate {given['rate']}"
            router = f", {Path(str(given['router'])).stem}" if given.get("router") else ""
            return f"glimp, {at}{router}{rate}, {given['probe']}"
    return plan.strategy


def is_baseline(run: StoredRun, kind: str, large: str) -> bool:
    """Whether the large model does everything in a run, in one request ("cot") or in steps ("large")."""
    return kind_of(run) == kind and run.manifest.plan.models["main"] == large


# -- cells


def seconds(rows: Sequence[Row]) -> str:
    """Median and 95th percentile of the rows that were answered in one go, and how many those were."""
    found = latency(whole_seconds(rows))
    return UNKNOWN if found is None else f"{found.p50:.2f} / {found.p95:.2f} ({found.n})"


def whole_seconds(rows: Sequence[Row]) -> list[float]:
    """Seconds of the rows that were answered in one go."""
    return [row.timing.wall_s for row in rows if row.timing.whole and row.error is None]


def tokens_of(watched: Watched, writer: str, large: str) -> str:
    """Generated tokens of one of the models, a mean a question."""
    plan = watched.run.manifest.plan
    role = "small" if writer == "small" and "small" in plan.models else "main"
    if role == "main" and (plan.models["main"] == large or not large) != (writer == "large"):
        return f"{0:,.0f}"
    spent = [
        sum(n for key, n in row.ledger.tokens_by_role.items() if key.startswith(f"{role}:")) for row in watched.rows
    ]
    return f"{np.mean(spent):,.0f}"


def share_cells(watched: Watched) -> list[str]:
    """Tokens thrown away, steps, and the large model's shares of steps (or questions) and of text."""
    notes = [noted for noted in watched.notes if noted is not None]
    kind = kind_of(watched.run)
    if watched.run.manifest.plan.strategy in LOOPS and notes:
        steps = [len(_list(noted, "writers")) for noted in notes]
        rate, text = watched.intervention_rate, text_share(notes)
        return [
            f"{np.mean([thrown_away(noted) for noted in notes]):,.0f}",
            f"{np.mean(steps):.1f}",
            UNKNOWN if rate is None else f"{100 * rate:.1f}",
            UNKNOWN if text is None else f"{100 * text:.1f}",
        ]
    asked = [a for noted in notes if (a := _asked_large(kind, noted)) is not None]
    return [UNKNOWN, UNKNOWN, f"{100 * np.mean(asked):.1f}" if asked else UNKNOWN, UNKNOWN]


def thrown_away(notes: Notes) -> int:
    """Generated tokens of probes and of steps that were not kept."""
    return sum(_tokens(notes, writer, purpose) for writer in ("large", "small") for purpose in ("probes", "discarded"))


def text_share(notes: Sequence[Notes]) -> float | None:
    """The share of the kept steps' tokens that the large model wrote, over all questions."""
    large = sum(_tokens(noted, "large", "steps") for noted in notes)
    both = large + sum(_tokens(noted, "small", "steps") for noted in notes)
    return large / both if both else None


# -- probes and speeds


def probe_rows(runs: Sequence[Watched]) -> list[str]:
    """A row for each pair of runs of `glimp` that differ in the probe alone."""
    by_rest: dict[str, dict[str, Watched]] = {}
    for watched in runs:
        plan = watched.run.manifest.plan
        if kind_of(watched.run) == "glimp":
            rest = plan.model_copy(update={"parameters": {k: v for k, v in plan.parameters.items() if k != "probe"}})
            by_rest.setdefault(rest.model_dump_json(), {})[str(plan.parameters["probe"])] = watched
    rows: list[tuple[float, str]] = []
    for pair in by_rest.values():
        if {"speculative", "separate"} <= set(pair):
            fast, slow = pair["speculative"], pair["separate"]
            at = float(str(fast.run.manifest.plan.parameters["threshold"]))
            cells = [f"{at:.4g}", _median(fast), _median(slow), *_seconds_apart(fast, slow)]
            cells += [
                f"{np.mean([thrown_away(n) for n in w.notes if n is not None] or [0]):,.0f}" for w in (fast, slow)
            ]
            cells += [f"{np.mean([row.ledger.model_calls for row in w.rows]):.1f}" for w in (fast, slow)]
            rows.append((at, "| " + " | ".join(cells) + " |"))
    return [row for _, row in sorted(rows)]


def speeds(runs: Sequence[Watched]) -> list[str]:
    """A row for each model that was timed in step loops whose calls were not broken off."""
    timed: list[Observation] = []
    names: dict[str, str] = {}
    for watched in runs:
        plan = watched.run.manifest.plan
        broken_off = kind_of(watched.run) == "glimp" and plan.parameters["probe"] == "speculative"
        if plan.strategy not in LOOPS or "small" not in plan.models or broken_off:
            continue
        timed += watched.timed
        names = {"large": plan.models["main"], "small": plan.models["small"]}
    if not timed:
        return []
    found = fit(timed)
    return [
        f"| {names[w].rpartition('/')[2]} | {sum(one.writer == w for one in timed):,} "
        f"| {1000 * found.prefill_s[w]:.3f} | {1000 * found.token_s[w]:.2f} |"
        for w in ("large", "small")
        if w in found.token_s
    ]


def _median(watched: Watched) -> str:
    found = latency(whole_seconds(watched.rows))
    return UNKNOWN if found is None else f"{found.p50:.2f}"


def _seconds_apart(a: Watched, b: Watched) -> tuple[str, str]:
    """Mean difference in seconds with its interval over the rows that both answered in one go; and how many."""
    theirs = {row.key: row.timing.wall_s for row in b.rows if row.timing.whole and row.error is None}
    apart = [
        row.timing.wall_s - theirs[row.key]
        for row in a.rows
        if row.timing.whole and row.error is None and row.key in theirs
    ]
    if not apart:
        return UNKNOWN, "0"
    array = np.array(apart)
    low, high = percentiles(bootstrap_means(array, np.arange(len(array))))
    return f"{array.mean():+.3f} [{low:+.3f}, {high:+.3f}]", str(len(apart))


# -- reading notes


def _asked_large(kind: str, notes: Notes) -> bool | None:
    if kind == "cascade":
        asked = notes.get("asked_large")
        return asked if isinstance(asked, bool) else None
    routed = notes.get("question_router")
    if isinstance(routed, dict):
        return routed.get("answered") == "large"
    return None


def _tokens(notes: Notes, writer: str, purpose: str) -> int:
    table = notes.get("tokens")
    row = table.get(writer) if isinstance(table, dict) else None
    value = row.get(purpose, 0) if isinstance(row, dict) else 0
    return value if isinstance(value, int) else 0


def _list(notes: Notes | None, name: str) -> list[JsonValue]:
    found = None if notes is None else notes.get(name)
    return found if isinstance(found, list) else []


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
