"""What the methods of `edgejury_table.py` are called, and the cells of its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from davinci_cells import p_value
from edgejury_sittings import JURY, Heard, jurors_count
from pydantic import JsonValue
from reason.core.model_roles import jurors_of
from reason.evals.comparison import StoredRun
from reason.evals.rows import Row
from reason.evals.statistics.latency import latency
from reason.evals.statistics.paired import Paired, compare
from reason.evals.summary import outcomes_of
from reason.verify.edgejury.config import JuryConfig

PATHS = ("full", "early_exit", "no_review", "fallback")
MAJORITY = "majority vote of the jurors"
EVERYTHING = "edgejury"
ONE_ORDER = "minus permuted options"
SWITCHES = {
    "review": "minus review",
    "roles": "minus roles",
    "shuffle": "minus shuffled answers",
    "permute_choices": ONE_ORDER,
    "label": "minus labels",
    "exclude_self": "with reviews of oneself",
}
"""What a jury without one of its parts is called."""
PARTS = (*SWITCHES, "chair", "without_chair", "anonymise", "blind_chair", "aggregate")
"""Parameters that take a part away or put another in its place."""
LIMITS = ("answer_tokens", "review_tokens", "chair_tokens", "form")
DEFAULTS: Mapping[str, JsonValue] = JuryConfig().model_dump(mode="json")


def short(model: str) -> str:
    """The last part of a model's string."""
    return model.rstrip("/").rpartition("/")[2]


def method_of(run: StoredRun) -> str:
    """A method in a few words: of a jury, which of its parts it lacks."""
    plan = run.manifest.plan
    given = plan.parameters
    match plan.strategy:
        case "cot":
            return f"{short(plan.models['main'])} alone, one sample"
        case "self-consistency":
            return f"{short(plan.models['main'])}, self-consistency, n = {given['n']}"
        case "logprob":
            return f"{short(plan.models['main'])}, by log-probability"
        case "edgejury":
            words = [MAJORITY] if is_majority(run) else [EVERYTHING]
            return ", ".join([*words, *_changes(run)])
    return plan.strategy


def names_of(runs: Sequence[StoredRun]) -> list[str]:
    """What each run is called; those that would have the same name get that of their folder as well."""
    names = [method_of(run) for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} ({run.path.name})" for name, run in zip(names, runs, strict=True)
    ]


def is_majority(run: StoredRun) -> bool:
    """Whether a run is the plain majority of its jurors, whatever its roles and orders."""
    given = run.manifest.plan.parameters
    return run.manifest.plan.strategy == JURY and not given["review"] and not given["chair"]


def is_whole(run: StoredRun) -> bool:
    """Whether a run is a jury with all its parts, whether it may leave early or not."""
    given = run.manifest.plan.parameters
    return run.manifest.plan.strategy == JURY and all(given[name] == DEFAULTS[name] for name in PARTS)


def others_of(run: StoredRun) -> dict[str, JsonValue]:
    """What sets a jury apart from one by default, but for its parts, limits and number of jurors."""
    named = {*PARTS, *LIMITS, "n", "early_exit"}
    return {k: v for k, v in run.manifest.plan.parameters.items() if k not in named and v != DEFAULTS[k]}


def has_names(run: StoredRun) -> bool:
    """Whether its jurors are models that were named, in place of one model in several roles."""
    return bool(jurors_of(run.manifest.plan.models))


def like(run: StoredRun, runs: Sequence[StoredRun], **changed: JsonValue) -> StoredRun | None:
    """The run of the same jury that differs in these parameters alone; None if there is none."""
    plan = run.manifest.plan
    wanted = {**plan.parameters, **changed}
    return next(
        (
            other
            for other in runs
            if (p := other.manifest.plan).strategy == plan.strategy
            and p.models == plan.models
            and p.parameters == wanted
        ),
        None,
    )


def beside(run: StoredRun, other: StoredRun | None) -> str:
    """A run's right answers less another's over the rows of both, in points, with interval and exact p-value."""
    if other is None or other is run:
        return ""
    found = paired(run.rows, other.rows)
    if found is None:
        return "no row in common"
    span = found.bootstrap
    between = "" if span is None else f" [{100 * span.low:+.1f}, {100 * span.high:+.1f}]"
    return f"{100 * found.difference:+.1f}{between}, {p_value(found.p)}"


def paired(mine: Sequence[Row], others: Sequence[Row]) -> Paired | None:
    """Right answers compared over the rows (question and seed) that both have; None if there are none."""
    keys = {row.key for row in mine} & {row.key for row in others}
    if not keys:
        return None
    a, b = (outcomes_of([row for row in rows if row.key in keys]) for rows in (mine, others))
    return compare(a, b)


def seconds(rows: Sequence[Row]) -> str:
    """Median and 95th percentile of the rows that were answered in one go, and how many those were."""
    found = latency([row.timing.wall_s for row in rows if row.timing.whole and row.error is None])
    return "" if found is None else f"{found.p50:.1f} / {found.p95:.1f} ({found.n})"


def tokens_of(run: StoredRun, model: str) -> float:
    """Generated tokens of one model, a mean a question, in whatever roles it was asked."""
    models = run.manifest.plan.models
    spent = [
        sum(n for key, n in row.ledger.tokens_by_role.items() if models.get(key.partition(":")[0]) == model)
        for row in run.rows
    ]
    return float(np.mean(spent))


def jury_cells(heard: Heard) -> list[str] | None:
    """Ways taken, and how much of what was written could be read; None where no jury sat.

    Returns:
        Shares in per cent of the four ways; of reviews that could be read, of their number; of the chair's answers
        likewise; of the chair's choices that the vote overruled.
    """
    sat = [sitting for _, sitting in heard.sat]
    if not sat:
        return None
    ways = Counter(sitting.path for sitting in sat)
    reviews = [review.ok for sitting in sat for review in sitting.reviews]
    chairs = [s.notes["source"] == "chair" for s in sat if s.notes.get("source") is not None]
    overruled = [s.notes["overruled"] is True for s in sat if s.notes.get("source") == "chair"]
    return [
        *(f"{100 * ways[way] / len(sat):.0f}" for way in PATHS),
        _share_of(reviews),
        _share_of(chairs),
        _share_of(overruled),
    ]


def _share_of(hits: Sequence[bool]) -> str:
    return f"{100 * np.mean(hits):.1f} of {len(hits)}" if hits else ""


def _changes(run: StoredRun) -> list[str]:
    """What sets a jury apart from the one with all its parts, in words."""
    given = run.manifest.plan.parameters
    majority = is_majority(run)
    words: list[str] = []
    if not has_names(run):
        words.append(f"n = {jurors_count(run)}")
    hidden = {"review", "label"} if majority else set()
    words += [name for key, name in SWITCHES.items() if not given[key] and key not in hidden]
    if not given["chair"] and not majority:
        words.append("minus chair: vote" if given["without_chair"] == "vote" else "minus chair: the best ranked")
    if not given["anonymise"]:
        words.append("minus anonymity" if not given["blind_chair"] else "minus anonymity before reviewers")
    elif not given["blind_chair"]:
        words.append("minus anonymity before the chair")
    if given["aggregate"] != DEFAULTS["aggregate"] or given["without_chair"] == "top":
        words.append(str(given["aggregate"]))
    if given["early_exit"] == "never" and not majority:
        words.append("never leaving early")
    return words
