r"""EdgeJury (reviews and a chair) next to its best juror, a plain vote, and self-consistency, on TruthfulQA's MC1.

    python benchmarks/edgejury_table.py plan --jurors A B C --one-model B --data FILE --limit 100 --out plans
    for name in jury single ablations one-model; do
        reason eval sweep plans/$name.toml --out runs/$name --store runs/store.sqlite3 --concurrency 32
    done
    reason eval sweep plans/timed.toml --out runs/timed --concurrency 1 --reuse none
    python benchmarks/edgejury_table.py table runs/jury runs/single runs/ablations runs/one-model \
        --timed runs/timed --plans plans > table.md

The last juror is the chair and the model of self-consistency, unless `--chair` is given. A stopped sweep
continues with `--resume`; the table lists what is missing.

All sweeps share one run store and reuse its calls, so equal requests are made once: the vote, early exit, ranking rules
without a chair, self-consistency with fewer samples and the best model's one sample need no calls of their own. The
column "Written again" has what a run paid itself; costs are those of each method alone.

Seconds are only of runs with one question at a time and nothing from the run store (`--timed`).

Every method gets the same rows: options in the data's fixed order, with the right one not always first. The answer is
one letter; no letter is wrong. Chains get the words of jurors without a role (`--step-by-step` keeps their own) and as
many tokens. Jurors without a letter are asked for it once more, chains are not: so each juror has a row of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from pydantic import JsonValue
from reason.core.errors import UserError
from reason.core.events import (
    ClaimLabelled,
    Event,
    JuryStageEnded,
    OpinionAdded,
    OpinionsMerged,
    ReviewAdded,
    StageStarted,
)
from reason.core.settings import jurors_of
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.evals.results import ResultRow, RowLedger, RowTiming
from reason.evals.run_directory import EvalRun, SolutionNotes, final_notes, load_run, run_store_path
from reason.evals.statistics.calibration import auroc, calibration_metrics
from reason.evals.statistics.intervals import bootstrap_means, percentiles, resample_groups, wilson
from reason.evals.statistics.outcomes import Array, number_groups
from reason.evals.statistics.paired import PairedComparison, compare_paired
from reason.evals.summary import latency, outcomes_of
from reason.evals.sweep import SweepRun, expand_sweep, read_sweep
from reason.reasoning.prompts import LETTERS
from reason.reasoning.strategy import create_strategy
from reason.verify.edgejury.answering import answer_prompt
from reason.verify.edgejury.jurors import MIN_JURORS
from reason.verify.edgejury.jury import JuryConfig
from reason.verify.edgejury.ranking import borda_of, marks_of
from reason.verify.edgejury.types import ClaimLabel, Opinion, Review, StageCost, Synthesis
from reporting import difference_cells, made_here, strategy_blocks, table
from rlot_table import accuracy, mean_of_rows, sampling_cell

JURY = "edgejury"


@dataclass(frozen=True)
class JuryTranscript:
    """The notes of one jury run.

    Attributes:
        opinions: By juror, failed ones included.
        reviews: By reviewer, likewise; empty without reviews.
        synthesis: The chair's answer; None without a chair.
        labels: Those of the answer's claims.
        stages: The cost of each stage.
        notes: The solution's notes.
    """

    opinions: tuple[Opinion, ...]
    reviews: tuple[Review, ...]
    synthesis: Synthesis | None
    labels: tuple[ClaimLabel, ...]
    stages: tuple[StageCost, ...]
    notes: SolutionNotes

    @property
    def path(self) -> str:
        """The path through the stages, one of `PATHS`."""
        return str(self.notes.get("path", ""))

    def position(self, juror: int) -> int | None:
        """Position of a juror's choice among the options as the juror saw them, from 0; None without a choice."""
        jurors = self.notes.get("jurors")
        note = jurors[juror] if isinstance(jurors, list) and juror < len(jurors) else None
        result = note.get("position") if isinstance(note, dict) else None
        return result if isinstance(result, int) else None


@dataclass(frozen=True)
class TranscribedRun:
    """A run with the notes of its juries.

    Attributes:
        run: The run.
        transcripts: One for each row; None without a jury, an answer or the store.
    """

    run: EvalRun
    transcripts: tuple[JuryTranscript | None, ...]

    @property
    def rows(self) -> list[ResultRow]:
        """The rows."""
        return self.run.rows

    @property
    def answered(self) -> Iterator[tuple[ResultRow, JuryTranscript]]:
        """The rows that a jury answered, with its notes."""
        return ((row, one) for row, one in zip(self.rows, self.transcripts, strict=True) if one is not None)


async def read_transcripts(runs: Sequence[EvalRun], store: Path | None = None) -> list[TranscribedRun]:
    """Runs with the notes from the run store, where there is one."""
    results: list[TranscribedRun] = []
    for run in runs:
        path = run_store_path(run, store)
        if run.manifest.plan.strategy != JURY or not path.exists():
            results.append(TranscribedRun(run, (None,) * len(run.rows)))
            continue
        opened = await SqliteStore.open(path)
        try:
            events = [await opened.list_events(row.run_id) for row in run.rows]
        finally:
            await opened.aclose()
        results.append(TranscribedRun(run, tuple(map(transcript_of, events))))
    return results


def transcript_of(events: Sequence[Event]) -> JuryTranscript | None:
    """The notes of a run's jury; of an interrupted run, those since it was resumed."""
    notes = final_notes(events)
    if notes is None:
        return None
    began = [i for i, event in enumerate(events) if isinstance(event, StageStarted) and event.stage == "jury: answer"]
    opinions: dict[int, Opinion] = {}
    reviews: dict[int, Review] = {}
    labels: dict[int, ClaimLabel] = {}
    stages: list[StageCost] = []
    synthesis: Synthesis | None = None
    for event in events[began[-1] if began else 0 :]:
        match event:
            case OpinionAdded():
                opinions[event.juror] = Opinion.model_validate(event.report)
            case ReviewAdded():
                reviews[event.reviewer] = Review.model_validate(event.report)
            case OpinionsMerged():
                synthesis = Synthesis.model_validate(event.report)
            case ClaimLabelled():
                labels[event.index] = ClaimLabel.model_validate(event.report)
            case JuryStageEnded():
                stages.append(StageCost.model_validate(event.report))
    return JuryTranscript(
        opinions=tuple(opinions[juror] for juror in sorted(opinions)),
        reviews=tuple(reviews[reviewer] for reviewer in sorted(reviews)),
        synthesis=synthesis,
        labels=tuple(labels[index] for index in sorted(labels)),
        stages=tuple(stages),
        notes=notes,
    )


def right_letter(row: ResultRow) -> str:
    """The letter of the right option."""
    correct = row.gold.get("correct") if isinstance(row.gold, dict) else None
    if not isinstance(correct, list) or not correct or not isinstance(correct[0], int):
        raise SystemExit(f"{row.id} is no question with one right option")
    return LETTERS[correct[0]]


def answer_position(row: ResultRow) -> int | None:
    """Position of the answer among the question's options, from 0; None if it names none of them."""
    letter = (row.prediction or "").strip()
    position = LETTERS.find(letter) if len(letter) == 1 else -1
    return position if 0 <= position < len(row.choices) else None


def jurors_count(run: EvalRun) -> int:
    """The number of jurors."""
    plan = run.manifest.plan
    n = plan.parameters.get("n")
    return n if isinstance(n, int) else max(MIN_JURORS, len(jurors_of(plan.models)))


def juror_run(jury_run: TranscribedRun, juror: int) -> EvalRun:
    """One juror of a jury as a method of its own: its opinion is the answer, and costs what the opinion cost.

    Its tokens are those of the opinion, with the answer that was requested after it where it stated none; its calls
    and its prompt are not known apart from the others'.
    """
    rows = []
    for row, transcript in jury_run.answered:
        opinion = next((one for one in transcript.opinions if one.juror == juror), None)
        choice = None if opinion is None else opinion.choice
        right = choice == right_letter(row)
        rows.append(
            row.model_copy(
                update={
                    "answer": choice,
                    "prediction": choice,
                    "parsed": choice is not None,
                    "value": float(right),
                    "correct": right,
                    "confidence": None,
                    "error": None,
                    "ledger": RowLedger(completion_tokens=0 if opinion is None else opinion.tokens),
                    "timing": RowTiming(uninterrupted=False),
                }
            )
        )
    return replace(jury_run.run, rows=rows)


PATHS = ("full", "early_exit", "no_review", "fallback")
MAJORITY = "majority vote of the jurors"
COMPLETE = "edgejury"
ONE_ORDER = "minus shuffled orders"
SWITCHES = {"review": "minus review", "roles": "minus roles", "shuffle": ONE_ORDER, "anonymise": "minus anonymity"}
"""Names of juries without one of their parts."""
PARTS = (*SWITCHES, "decision", "parity")
"""Parameters that remove or replace a part."""
LIMITS = ("max_tokens",)
DEFAULTS: Mapping[str, JsonValue] = JuryConfig().model_dump(mode="json")


def short(model: str) -> str:
    """The last part of a model's string."""
    return model.rstrip("/").rpartition("/")[2]


def method_of(run: EvalRun) -> str:
    """A short name of a method; of a jury, with its missing parts."""
    plan = run.manifest.plan
    args = plan.parameters
    match plan.strategy:
        case "cot":
            return f"{short(plan.models['main'])}, one sample"
        case "self-consistency":
            return f"{short(plan.models['main'])}, self-consistency, n = {args['n']}"
        case "logprob":
            return f"{short(plan.models['main'])}, by log-probability"
        case "edgejury":
            base = MAJORITY if is_majority(run) else COMPLETE
            return ", ".join([base, *_changes(run)])
    return plan.strategy


def names_of(runs: Sequence[EvalRun]) -> list[str]:
    """A name of each run; equal names get the directory's name as well."""
    names = [method_of(run) for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} ({run.path.name})" for name, run in zip(names, runs, strict=True)
    ]


def is_majority(run: EvalRun) -> bool:
    """Whether a run is the plain majority of its jurors, whatever its roles and orders."""
    args = run.manifest.plan.parameters
    return run.manifest.plan.strategy == JURY and not args["review"] and args["decision"] != "chair"


def is_complete_jury(run: EvalRun) -> bool:
    """Whether a run is a jury with all its parts, with early exit or not."""
    args = run.manifest.plan.parameters
    return run.manifest.plan.strategy == JURY and all(args[name] == DEFAULTS[name] for name in PARTS)


def other_parameters(run: EvalRun) -> dict[str, JsonValue]:
    """Parameters that differ from the defaults, without parts, limits and the number of jurors."""
    named = {*PARTS, *LIMITS, "n", "early_exit"}
    return {k: v for k, v in run.manifest.plan.parameters.items() if k not in named and v != DEFAULTS[k]}


def has_named_jurors(run: EvalRun) -> bool:
    """Whether its jurors are named models rather than one model in several roles."""
    return bool(jurors_of(run.manifest.plan.models))


def find_variant(run: EvalRun, runs: Sequence[EvalRun], **changed: JsonValue) -> EvalRun | None:
    """The run of the same jury that differs in these parameters only; None if there is none."""
    plan = run.manifest.plan
    expected = {**plan.parameters, **changed}
    return next(
        (
            other
            for other in runs
            if (p := other.manifest.plan).strategy == plan.strategy
            and p.models == plan.models
            and p.parameters == expected
        ),
        None,
    )


def less_cells(runs: Sequence[EvalRun], other: EvalRun | None) -> list[str]:
    """Right answers of runs less another's over the rows of both, in points, with interval and p-values."""
    pairs = [None if other is None or other is run else paired(run.rows, other.rows) for run in runs]
    cells = difference_cells(pairs, "no row in common")
    return ["" if other is None or other is run else cell for run, cell in zip(runs, cells, strict=True)]


def paired(mine: Sequence[ResultRow], others: Sequence[ResultRow]) -> PairedComparison | None:
    """Right answers compared over the rows (question and seed) that both have; None if there are none."""
    keys = {row.key for row in mine} & {row.key for row in others}
    if not keys:
        return None
    a, b = (outcomes_of([row for row in rows if row.key in keys]) for rows in (mine, others))
    return compare_paired(a, b)


def seconds(rows: Sequence[ResultRow]) -> str:
    """Median and 95th percentile of the uninterrupted rows, and their number."""
    result = latency([row.timing.wall_s for row in rows if row.timing.uninterrupted and row.error is None])
    return "" if result is None else f"{result.p50:.1f} / {result.p95:.1f} ({result.n})"


def tokens_of(run: EvalRun, model: str) -> float:
    """Mean generated tokens of one model for each question, in all its roles."""
    models = run.manifest.plan.models
    spent = [
        sum(n for key, n in row.ledger.tokens_by_role.items() if models.get(key.partition(":")[0]) == model)
        for row in run.rows
    ]
    return float(np.mean(spent))


def jury_cells(jury_run: TranscribedRun) -> list[str] | None:
    """Shares of the paths, and of readable reviews and chairs; None without a jury.

    Returns:
        Shares in per cent of the four paths; of reviews that could be read, of their number; of the chair's answers
        likewise; of the chair's choices that the vote overruled.
    """
    transcripts = [transcript for _, transcript in jury_run.answered]
    if not transcripts:
        return None
    paths = Counter(transcript.path for transcript in transcripts)
    reviews = [review.ok for transcript in transcripts for review in transcript.reviews]
    chairs = [s.notes["source"] == "chair" for s in transcripts if s.notes.get("source") is not None]
    overruled = [s.notes["overruled"] is True for s in transcripts if s.notes.get("source") == "chair"]
    return [
        *(f"{100 * paths[path] / len(transcripts):.0f}" for path in PATHS),
        _share_of(reviews),
        _share_of(chairs),
        _share_of(overruled),
    ]


def _share_of(hits: Sequence[bool]) -> str:
    return f"{100 * np.mean(hits):.1f} of {len(hits)}" if hits else ""


def _changes(run: EvalRun) -> list[str]:
    """The differences from the complete jury, as text."""
    args = run.manifest.plan.parameters
    majority = is_majority(run)
    changes: list[str] = []
    if not has_named_jurors(run):
        changes.append(f"n = {jurors_count(run)}")
    changes += [name for key, name in SWITCHES.items() if not args[key] and not (majority and key == "review")]
    if args["decision"] != "chair" and not majority:
        changes.append("minus chair: vote" if args["decision"] == "vote" else "minus chair: the best ranked")
    if args["parity"]:
        changes.append("as the reference ranks")
    if not args["early_exit"] and not majority:
        changes.append("without early exit")
    return changes


Position = tuple[int, int]
"""A chosen position, from 0, and the number of options."""
Positions = Mapping[tuple[str, int], Position]
"""Positions by question and seed."""

SHOWN_POSITIONS = 5
ALL = "all"
"""Reviewers of every model."""


# -- options


def positions_table(jurors: Sequence[tuple[str, Positions]], finals: Sequence[tuple[str, Positions]]) -> str:
    """Positions of the chosen options, next to chance."""
    head = [
        *(
            "who",
            "options as",
            "answers",
            "first position %",
            "by chance %",
            "more than chance [95 %]",
            "p",
            "distance",
        ),
        *(f"{position} chosen / expected" for position in range(1, SHOWN_POSITIONS + 1)),
    ]
    rows = []
    for seen, several in (("it saw them", jurors), ("the question has them", finals)):
        for name, positions in several:
            if not positions:
                continue
            counts, expected, p, distance = position_bias(list(positions.values()))
            n = len(positions)
            each = [
                f"{counts[at]:.0f} / {expected[at]:.1f}" if at < len(counts) else "" for at in range(SHOWN_POSITIONS)
            ]
            rows.append(
                [
                    *(
                        name,
                        seen,
                        str(n),
                        f"{100 * counts[0] / n:.1f}",
                        f"{100 * expected[0] / n:.1f}",
                    ),
                    *(
                        points(*_mean(list(positions), excess(positions))),
                        f"{p:.3f}",
                        f"{distance:.3f}",
                        *each,
                    ),
                ]
            )
    return table(head, rows)


def position_bias(chosen: Sequence[tuple[int, int]]) -> tuple[Array, Array, float, float]:
    """How often each position was chosen, and would be by chance; the two-sided p-value of the first; total variation.

    Args:
        chosen: For each answer the chosen position, from 0, and the number of options.
    """
    options = np.array([count for _, count in chosen])
    counts = np.bincount([position for position, _ in chosen], minlength=options.max()).astype(np.float64)
    expected = np.array([(1 / options[options > at]).sum() for at in range(options.max())])
    z = (counts[0] - expected[0]) / math.sqrt(((1 - 1 / options) / options).sum())
    distance = float(np.abs(counts - expected).sum()) / (2 * len(chosen))
    return counts, expected, math.erfc(abs(z) / math.sqrt(2)), distance


def debiased(with_orders: Positions, without: Positions) -> str:
    """How far beyond chance the first option is answered with shuffled orders, less without, in points."""
    shared = [key for key in with_orders if key in without]
    if not shared:
        return "no row in common"
    apart = excess({key: with_orders[key] for key in shared}) - excess({key: without[key] for key in shared})
    return f"{points(*_mean(shared, apart))} ({len(shared)} rows)"


def excess(positions: Positions) -> Array:
    """For each answer whether it is the first option, less the chance of that: 0 in the mean without a bias."""
    return np.array([(position == 0) - 1 / options for position, options in positions.values()], dtype=float)


def juror_positions(jury_run: TranscribedRun, juror: int) -> dict[tuple[str, int], Position]:
    """The positions that a juror chose, as it saw the options."""
    return {
        row.key: (position, len(row.choices))
        for row, transcript in jury_run.answered
        if (position := transcript.position(juror)) is not None
    }


def final_positions(run: EvalRun) -> dict[tuple[str, int], Position]:
    """The positions of the answers, as the questions have the options."""
    return {row.key: (position, len(row.choices)) for row in run.rows if (position := answer_position(row)) is not None}


# -- answers under review


def marks_table(several: Sequence[tuple[str, TranscribedRun]]) -> str:
    """Mean B within a review by the position of the text, of reviews with marks for every text."""
    head = (
        "jury",
        "reviewer",
        "texts shown",
        "reviews",
        "marks missing",
        "mean B by position [95 %]",
        "first less last",
    )
    rows = []
    for number, (name, jury_run) in enumerate(several):
        for (model, shown), (keys, values, missing) in sorted(borda_by_position(jury_run).items()):
            if number and model != ALL:
                continue
            cells = ["", ""]
            if keys:
                rounds = bootstrap_means(values, number_groups([key[0] for key in keys]))
                low, high = percentiles(rounds)
                averages = values.mean(axis=0)
                each = [f"{m:.2f} [{a:.2f}, {b:.2f}]" for m, a, b in zip(averages, low, high, strict=True)]
                apart = percentiles(rounds[:, 0] - rounds[:, -1])
                ends = f"[{float(apart[0]):+.2f}, {float(apart[1]):+.2f}]"
                cells = [" · ".join(each), f"{averages[0] - averages[-1]:+.2f} {ends}"]
            rows.append([name, model, str(shown), str(len(keys)), str(missing), *cells])
    return table(head, rows)


def borda_by_position(jury_run: TranscribedRun) -> dict[tuple[str, int], tuple[list[tuple[str, int]], Array, int]]:
    """B by position of each review, by the reviewer's model ("all" for all of them) and the number of texts.

    Returns:
        The questions of the reviews; B, `[reviews, positions]`; and the number of reviews with a text without marks.
    """
    results: dict[tuple[str, int], tuple[list[tuple[str, int]], list[list[float]], list[int]]] = {}
    for row, transcript in jury_run.answered:
        models = {opinion.juror: short(opinion.model) for opinion in transcript.opinions}
        for review in transcript.reviews:
            if not review.ok or len(review.order) < 2:
                continue
            marks = marks_of(review)
            full = all(juror in marks for juror in review.order)
            borda = borda_of(marks)
            for model in (ALL, models.get(review.reviewer, "")):
                keys, values, missing = results.setdefault((model, len(review.order)), ([], [], []))
                if full:
                    keys.append(row.key)
                    values.append([float(borda[juror]) for juror in review.order])
                else:
                    missing.append(1)
    return {
        key: (keys, np.array(values, dtype=float), len(missing)) for key, (keys, values, missing) in results.items()
    }


# -- errors


def errors_table(several: Sequence[tuple[str, TranscribedRun]]) -> str:
    """How far every two jurors err on the same questions, and choose the same wrong option there."""
    head = (
        *("jury", "jurors", "questions", "wrong %", "both wrong %", "if independent %"),
        *("both wrong, the same option %", "correlation of errors [95 %]"),
    )
    rows = []
    for name, jury_run in several:
        for a, b in combinations(sorted({o.juror for _, s in jury_run.answered for o in s.opinions}), 2):
            rows.append([name, *_together(jury_run, a, b)])
    return table(head, rows)


def correlation(wrong_a: Array, wrong_b: Array, groups: Sequence[str]) -> tuple[float, float, float] | None:
    """The correlation (phi) of two jurors' errors with its interval; None where one is always right or always wrong."""
    columns = np.stack([wrong_a, wrong_b, wrong_a * wrong_b], axis=1)
    value = _phi(columns.mean(axis=0))
    if np.isnan(value):
        return None
    drawn = _phi(bootstrap_means(columns, number_groups(groups)).T)
    low, high = percentiles(drawn[~np.isnan(drawn)])
    return float(value), float(low), float(high)


def _together(jury_run: TranscribedRun, a: int, b: int) -> list[str]:
    reported: list[tuple[str, bool, bool, bool]] = []
    names: dict[int, str] = {}
    for row, transcript in jury_run.answered:
        by_juror: dict[int, Opinion] = {opinion.juror: opinion for opinion in transcript.opinions}
        if a not in by_juror or b not in by_juror:
            continue
        names = {i: f"{i + 1} ({short(by_juror[i].model)})" for i in (a, b)}
        first, second, right = by_juror[a].choice, by_juror[b].choice, right_letter(row)
        same = first == second and first is not None and first != right
        reported.append((row.id, first != right, second != right, same))
    if not reported:
        return [f"{a + 1}, {b + 1}", "0", "", "", "", "", ""]
    wrong_a, wrong_b, same_wrong = (np.array([one[i] for one in reported], dtype=float) for i in (1, 2, 3))
    both = float((wrong_a * wrong_b).mean())
    result = correlation(wrong_a, wrong_b, [one[0] for one in reported])
    return [
        f"{names[a]}, {names[b]}",
        str(len(reported)),
        f"{100 * wrong_a.mean():.1f}, {100 * wrong_b.mean():.1f}",
        f"{100 * both:.1f}",
        f"{100 * wrong_a.mean() * wrong_b.mean():.1f}",
        f"{100 * same_wrong.mean():.1f}",
        "one never varies" if result is None else f"{result[0]:+.2f} [{result[1]:+.2f}, {result[2]:+.2f}]",
    ]


def _phi(products: Array) -> Array:
    """The correlation from the means of a, b and ab, along the first axis."""
    a, b, ab = products
    spread = np.sqrt(a * (1 - a) * b * (1 - b))
    value: Array = np.where(spread > 0, (ab - a * b) / np.where(spread > 0, spread, 1.0), np.nan)
    return value


def _mean(keys: Sequence[tuple[str, int]], values: Array) -> tuple[float, float, float]:
    """A mean with its interval over questions."""
    low, high = percentiles(bootstrap_means(values, number_groups([key[0] for key in keys])))
    return float(values.mean()), float(low), float(high)


def points(value: float, low: float, high: float) -> str:
    """A share in points with its interval."""
    return f"{100 * value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def missing_lines(runs: Sequence[EvalRun], plans: Path | None = None) -> list[str]:
    """A line for each run that is not complete: missing rows, rows with errors, or not started."""
    lines = []
    for run in runs:
        expected, failed = len(run.manifest.keys), sum(row.error is not None for row in run.rows)
        if len(run.rows) < expected:
            lines.append(f"{method_of(run)} ({run.path.name}): {len(run.rows)} of {expected} rows.")
        if failed:
            lines.append(f"{method_of(run)} ({run.path.name}): {failed} rows ended with an error and count as wrong.")
    if plans is None:
        return [*lines, "What was planned and not begun is not known: no --plans."]
    begun = {identity(run) for run in runs}
    for path in sorted(plans.glob("*.toml")):
        sweep = read_sweep(path)
        lines += [
            f"{path.name}: {describe_planned(one)}: no row."
            for one in expand_sweep(sweep)
            if planned_identity(one, sweep.seeds) not in begun
        ]
    return lines


def identity(run: EvalRun) -> str:
    """The identity of a run: method, models, seeds, and number of questions."""
    plan = run.manifest.plan
    jury = jurors_of(plan.models) if plan.strategy == JURY else ()
    return json.dumps(
        [plan.strategy, plan.parameters, plan.models["main"], jury, plan.limit, plan.seeds], sort_keys=True
    )


def planned_identity(planned: SweepRun, seeds: Sequence[int]) -> str:
    """The same of a run that a sweep plans."""
    models = planned.models
    if models is None:
        raise SystemExit("the sweep names no models, so nobody knows whose runs it plans")
    complete = create_strategy(planned.strategy, planned.parameters)[1]
    jury = models.jurors if planned.strategy == JURY else ()
    known = [planned.strategy, complete, models.main, jury, planned.dataset.limit, tuple(seeds)]
    return json.dumps(known, sort_keys=True)


def describe_planned(planned: SweepRun) -> str:
    """A short description of a planned run."""
    main = "" if planned.models is None else planned.models.main
    parameters = ", ".join(f"{key} = {value}" for key, value in planned.parameters.items() if key != "instruction")
    return f"{planned.strategy} of {main}" + (f" ({parameters})" if parameters else "")


Method = tuple[str, dict[str, object]]
"""A strategy with its parameters as they stand in TOML."""

VOTE: dict[str, JsonValue] = {"review": False, "decision": "vote", "early_exit": False}
"""What is left of a jury is then a plain majority vote."""


def add_plan(plan: argparse.ArgumentParser) -> None:
    """The options of `plan`."""
    plan.add_argument("--jurors", nargs="+", required=True, metavar="MODEL", help="one for each juror")
    plan.add_argument(
        "--chair", metavar="MODEL", help="chairs, and samples self-consistency; default: the last juror's"
    )
    plan.add_argument("--one-model", metavar="MODEL", help="plays several roles; without it that sweep is left out")
    plan.add_argument("--sizes", type=int, nargs="+", default=[2, 3, 4, 5], help="jurors of the one model")
    plan.add_argument("--data", type=Path, metavar="FILE", help="TruthfulQA's rows; without it the hub's")
    plan.add_argument("--choice-seed", type=int, default=0, help="another order of all options")
    plan.add_argument("--limit", type=int, help="only so many questions")
    plan.add_argument("--one-model-limit", type=int, help="for the jury of one model; default: --limit")
    plan.add_argument("--ablations-limit", type=int, help="for what guards against biases, and rules; default: --limit")
    plan.add_argument("--timed-limit", type=int, default=6, help="questions whose seconds are taken")
    plan.add_argument("--seeds", type=int, nargs="+", default=[0])
    plan.add_argument("--samples", type=int, nargs="+", help="of self-consistency; default: 1 2 4 and 2n + 2")
    plan.add_argument("--tokens", type=int, default=256, help="limit of a chain and of each call of a jury")
    plan.add_argument("--step-by-step", action="store_true", help="chains keep their strategies' own instructions")
    plan.add_argument("--likelihood", action="store_true", help="each model by log-probability as well")
    plan.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of every jury, in TOML")
    plan.add_argument("--out", type=Path, required=True)


def sweep_files(args: argparse.Namespace) -> dict[Path, str]:
    """The sweeps as TOML, by file, in the order in which to run them: later ones reuse requests of earlier ones."""
    chair = args.chair or args.jurors[-1]
    jury = f"[[models]]\nmain = {json.dumps(chair)}\njurors = {json.dumps(args.jurors)}\n"
    singles = [chair, *args.jurors, *([args.one_model] if args.one_model is not None else [])]
    only = [f"[[models]]\nmain = {json.dumps(name)}\n" for name in dict.fromkeys(singles)]
    parts: dict[str, tuple[Sequence[str], int | None, list[Method]]] = {
        "jury": ([jury], args.limit, jury_methods(args)),
        "single": (only, args.limit, [chain(args), *([("logprob", {})] if args.likelihood else [])]),
        "ablations": ([jury], args.ablations_limit or args.limit, ablations(args)),
    }
    if args.one_model is not None:
        model = f"[[models]]\nmain = {json.dumps(args.one_model)}\n"
        parts["one-model"] = ([model], args.one_model_limit or args.limit, one_model(args))
    parts["timed"] = ([jury], args.timed_limit, timed(args))
    files: dict[Path, str] = {}
    for name, (models, limit, methods) in parts.items():
        blocks = [f"seeds = {args.seeds}\n", *models, _dataset(args, limit), *strategy_blocks(methods)]
        files[args.out / f"{name}.toml"] = "\n".join(blocks)
    return files


def jury_methods(args: argparse.Namespace) -> list[Method]:
    """The jury, its baselines, and variants that cost nothing after them.

    The jury without early exit comes first: that with early exit makes part of the same requests.
    """
    results = [samples(args, n) for n in _samples(args)]
    results += [jury(args, early_exit=False), jury(args), jury(args, **VOTE)]
    results += [jury(args, decision="vote"), jury(args, decision="top"), jury(args, decision="top", parity="reference")]
    results += [jury(args, review=False)]
    results += [jury(args, roles=False), jury(args, roles=False, **VOTE)]
    return results


def ablations(args: argparse.Namespace) -> list[Method]:
    """The jury without what guards it against bias, and ranked as in the reference."""
    return [
        jury(args, shuffle=False),
        jury(args, shuffle=False, **VOTE),
        jury(args, anonymise=False),
        jury(args, parity="reference"),
    ]


def one_model(args: argparse.Namespace) -> list[Method]:
    """One model as several jurors, and their majority, which makes no requests of its own."""
    each = [(jury(args, n=n), jury(args, n=n, **VOTE)) for n in args.sizes]
    return [method for pair in each for method in pair]


def timed(args: argparse.Namespace) -> list[Method]:
    """Methods that run again one question at a time, for their seconds."""
    return [
        samples(args, equal_calls(len(args.jurors))),
        chain(args),
        jury(args, **VOTE),
        jury(args, review=False),
        jury(args),
    ]


def equal_calls(jurors: int) -> int:
    """Samples of self-consistency at as many calls as a jury makes: 2n + 2 by the published count."""
    return 2 * max(MIN_JURORS, jurors) + 2


def chain(args: argparse.Namespace) -> Method:
    """One sample; the same as the first of self-consistency, so that it is reused."""
    settings: dict[str, object] = {"temperature": 0.7, "max_tokens": args.tokens, **_instruction(args)}
    return "cot", settings


def samples(args: argparse.Namespace, n: int) -> Method:
    """Self-consistency."""
    return "self-consistency", {"n": n, "max_tokens": args.tokens, **_instruction(args)}


def jury(args: argparse.Namespace, **own: object) -> Method:
    """A jury; what is not named is as it is by default."""
    limits = {"max_tokens": args.tokens}
    shared: dict[str, object] = dict(pair.split("=", 1) for pair in args.set)
    return "edgejury", {**{name: json.dumps(value) for name, value in {**limits, **own}.items()}, **shared}


def juror_instruction() -> str:
    """The instruction of a juror without a role after a question with options."""
    prompt = answer_prompt(None, Question(text="?", choices=("one", "another")))
    return prompt.messages[-1].content.rpartition("\n\n")[2]


def _instruction(args: argparse.Namespace) -> dict[str, object]:
    return {} if args.step_by_step else {"instruction": json.dumps(juror_instruction())}


def _samples(args: argparse.Namespace) -> list[int]:
    return sorted(set(args.samples or [1, 2, 4, equal_calls(len(args.jurors))]), reverse=True)


def _dataset(args: argparse.Namespace, limit: int | None) -> str:
    lines = ["[[dataset]]", 'name = "truthfulqa:mc1"']
    lines += [f"data = {json.dumps(str(args.data.absolute()))}"] if args.data is not None else []
    lines += [f"limit = {limit}"] if limit else []
    lines += [f"choice_seed = {args.choice_seed}"] if args.choice_seed else []
    return "\n".join(lines) + "\n"


RESAMPLES = 2000
LABELS = ("consistent", "uncertain", "contradicted")
STAGES = ("answer", "review", "chair", "agreement")


def confidence_table(several: Sequence[tuple[str, EvalRun]]) -> str:
    """AUROC and calibration of the stated confidences; methods that state none are left out."""
    head = ("method", "answers with a confidence", "values that it takes", "AUROC [95 %]", "ECE", "Brier")
    rows = []
    for name, run in several:
        stated = [
            (row.id, row.confidence, row.correct)
            for row in run.rows
            if row.confidence is not None and row.correct is not None
        ]
        if not stated:
            continue
        conf = np.array([one[1] for one in stated], dtype=float)
        right = np.array([one[2] for one in stated], dtype=float)
        result = calibration_metrics(conf, right)
        rows.append(
            [
                *(name, str(len(stated)), str(len(np.unique(conf)))),
                auroc_cell(conf, right, [one[0] for one in stated]),
                *(f"{result.ece:.3f}", f"{result.brier:.3f}"),
            ]
        )
    return table(head, rows)


def auroc_cell(conf: Array, right: Array, questions: Sequence[str], resamples: int = RESAMPLES) -> str:
    """AUROC with its interval over resampled questions.

    Resamples in which all answers are right, or all wrong, have none and are left out.
    """
    value = auroc(conf, right)
    if value is None:
        return "all right or all wrong"
    groups = number_groups(questions)
    members = [np.flatnonzero(groups == g) for g in range(int(groups.max()) + 1)]
    drawn = []
    for some in resample_groups(len(members), resamples, 0):
        for chosen in some:
            at = np.concatenate([members[g] for g in chosen])
            once = auroc(conf[at], right[at])
            if once is not None:
                drawn.append(once)
    low, high = percentiles(np.array(drawn))
    return f"{value:.3f} [{float(low):.3f}, {float(high):.3f}]"


def labels_table(several: Sequence[tuple[str, TranscribedRun]]) -> str:
    """The label of each answer (the one claim of a closed question) next to whether it is right."""
    head = ("method", "label", "answers", "right % [95 %]", "wrong %")
    rows = []
    for name, jury_run in several:
        reported = [
            (transcript.labels[0].label, row.value)
            for row, transcript in jury_run.answered
            if len(transcript.labels) == 1
        ]
        for label in LABELS:
            rights = [value for found, value in reported if found == label]
            if not rights:
                rows.append([name, label, "0", "", ""])
                continue
            ends = wilson(round(sum(rights)), len(rights))
            share = float(np.mean(rights))
            rows.append(
                [
                    *(name, label, str(len(rights))),
                    f"{100 * share:.1f} [{100 * ends.low:.0f}, {100 * ends.high:.0f}]",
                    f"{100 * (1 - share):.1f}",
                ]
            )
    return table(head, rows)


def exits_table(pairs: Sequence[tuple[str, TranscribedRun, TranscribedRun]]) -> str:
    """What leaving early saves and costs, over the rows that both have."""
    head = (
        *("jury", "questions", "left early %", "right of those, leaving %", "right of those, staying %"),
        *("calls saved [95 %]", "tokens saved [95 %]", "right answers, leaving less staying [95 %]"),
    )
    rows = []
    for name, leaving, staying in pairs:
        stayed = {row.key: row for row in staying.rows}
        both = [(row, one, stayed[row.key]) for row, one in leaving.answered if row.key in stayed]
        if not both:
            rows.append([name, "0", *[""] * 6])
            continue
        left = [(row, other) for row, one, other in both if one.path == "early_exit"]
        groups = number_groups([row.id for row, _, _ in both])
        saved = [
            np.array([getattr(o.ledger, what) - getattr(r.ledger, what) for r, _, o in both], dtype=float)
            for what in ("model_calls", "completion_tokens")
        ]
        rows.append(
            [
                *(name, str(len(both)), f"{100 * len(left) / len(both):.1f}"),
                *(f"{100 * np.mean([pair[i].value for pair in left]):.1f}" if left else "" for i in (0, 1)),
                *(_amount(values, *percentiles(bootstrap_means(values, groups))) for values in saved),
                *less_cells([leaving.run], staying.run),
            ]
        )
    return table(head, rows)


def stages_table(several: Sequence[tuple[str, TranscribedRun]], *, timed: bool) -> str:
    """What each stage costs, a mean a question that came to it; with seconds, or without."""
    head = ["jury", "stage", "questions", "calls", "tokens read", "tokens written", *(["s p50 / p95"] if timed else [])]
    rows = []
    for name, jury_run in several:
        for stage in STAGES:
            costs = [
                cost
                for _, transcript in jury_run.answered
                for cost in transcript.stages
                if cost.stage == stage and cost.calls
            ]
            if not costs:
                continue
            averages = [np.mean([getattr(c, what) for c in costs]) for what in ("prompt_tokens", "completion_tokens")]
            p50, p95 = np.quantile([c.latency_ms / 1000 for c in costs], [0.5, 0.95])
            rows.append(
                [
                    *(name, stage, str(len(costs)), f"{np.mean([c.calls for c in costs]):.2f}"),
                    *(f"{mean:,.0f}" for mean in averages),
                    *([f"{p50:.1f} / {p95:.1f}"] if timed else []),
                ]
            )
    return table(head, rows)


def no_answer(run: EvalRun) -> str:
    """Share of answers that name no option, in per cent."""
    return f"{100 * np.mean([not row.parsed for row in run.rows]):.1f}"


def _amount(values: Array, low: Array, high: Array) -> str:
    return f"{values.mean():,.1f} [{float(low):,.1f}, {float(high):,.1f}]"


Named = tuple[str, EvalRun]
"""A method's name and its run."""


@dataclass(frozen=True)
class Jury:
    """One jury with its baselines on one dataset.

    Attributes:
        runs: The runs of its jurors by name: complete, without parts, and as a vote.
        only: Its jurors as methods of their own.
        chains: One sample of a model each.
        sampled: Self-consistency of its main model, by rising number of samples.
    """

    runs: tuple[tuple[str, TranscribedRun], ...]
    jurors: tuple[Named, ...]
    chains: tuple[Named, ...]
    sampled: tuple[Named, ...]

    @property
    def methods(self) -> list[Named]:
        """All of them, in the order of the tables."""
        return [*self.chains, *self.jurors, *self.sampled, *((name, jury_run.run) for name, jury_run in self.runs)]

    @property
    def best(self) -> Named | None:
        """The single model or juror with the highest accuracy on these rows; None if there is none."""
        single = [*self.chains, *self.jurors]
        return max(single, key=lambda named: mean_right(named[1]), default=None)

    def named(self, name: str) -> TranscribedRun | None:
        """The run of this jury with that name; None if there is none."""
        return next((jury_run for other, jury_run in self.runs if other == name), None)

    @property
    def equal_calls(self) -> Named | None:
        """Self-consistency with as many samples as the jury makes calls; None if it was not run."""
        expected = equal_calls(jurors_count(self.runs[0][1].run))
        return next((one for one in self.sampled if one[1].manifest.plan.parameters["n"] == expected), None)


def juries_of(jury_run: Sequence[TranscribedRun]) -> list[Jury]:
    """The juries of named models, each with what it is compared with."""
    by_models: dict[str, list[TranscribedRun]] = {}
    for one in jury_run:
        if one.run.manifest.plan.strategy == JURY and has_named_jurors(one.run):
            by_models.setdefault(str(sorted(one.run.manifest.plan.models.items())), []).append(one)
    runs = [one.run for one in jury_run]
    results = []
    for several in by_models.values():
        juries = sorted(several, key=lambda one: _order(one.run))
        models = juries[0].run.manifest.plan.models
        chains = [r for r in runs if (p := r.manifest.plan).strategy == "cot" and p.models["main"] in models.values()]
        sampled = [
            r
            for r in runs
            if (p := r.manifest.plan).strategy == "self-consistency" and p.models["main"] == models["main"]
        ]
        sampled.sort(key=lambda r: int(str(r.manifest.plan.parameters["n"])))
        results.append(
            Jury(
                runs=tuple(zip(names_of([one.run for one in juries]), juries, strict=True)),
                jurors=tuple(juror_methods(_shown(juries))),
                chains=tuple(zip(names_of(chains), chains, strict=True)),
                sampled=tuple(zip(names_of(sampled), sampled, strict=True)),
            )
        )
    return results


def juror_methods(jury_run: TranscribedRun) -> list[Named]:
    """The jurors of a run as methods of their own."""
    who = {o.juror: o for _, transcript in jury_run.answered for o in transcript.opinions}
    return [
        (f"juror {i + 1}: {short(o.model)}" + (f", {o.role}" if o.role else ""), juror_run(jury_run, i))
        for i, o in sorted(who.items())
    ]


def right_table(jury: Jury) -> str:
    """Accuracy of each method, next to the best single model, the majority and self-consistency."""
    best, calls, vote, full = jury.best, jury.equal_calls, jury.named(MAJORITY), jury.named(COMPLETE)
    head = (
        *("method", "rows", "right % [95 %]", "less the best single model", "less the majority"),
        *("less self-consistency at equal calls", "less self-consistency at its tokens [95 %]", f"less {COMPLETE}"),
    )
    sampled = [run for _, run in jury.sampled]
    runs = [run for _, run in jury.methods]
    others = (
        None if best is None else best[1],
        None if vote is None else vote.run,
        None if calls is None else calls[1],
        None if full is None else full.run,
    )
    differences = zip(*(less_cells(runs, other) for other in others), strict=True)
    rows = []
    for (name, run), (less_best, less_vote, less_calls, less_full) in zip(jury.methods, differences, strict=True):
        single = best is not None and run is best[1]
        rows.append(
            [
                f"{name} (the best single model)" if single else name,
                rows_cell(run),
                accuracy(run),
                *(less_best, less_vote, less_calls),
                "" if run in sampled else sampling_cell(run, sampled),
                less_full,
            ]
        )
    return table(head, rows)


def costs_table(jury: Jury, timed: Sequence[EvalRun]) -> str:
    """Cost of each method for a question; seconds from the runs with one question at a time."""
    models = list(dict.fromkeys(m for _, jury_run in jury.runs for m in jury_run.run.manifest.plan.models.values()))
    clocked = dict(zip(names_of(timed), timed, strict=True))
    head = [
        *("method", "tokens written", "tokens read", "calls", "no option named %"),
        *(f"written by {short(model)}" for model in models),
        "written again",
        *(["s p50 / p95 (n)"] if timed else []),
    ]
    single = {id(run) for _, run in jury.jurors}
    rows = []
    for name, run in jury.methods:
        cells = [name, f"{mean_of_rows(run, 'completion_tokens'):,.0f}"]
        if id(run) in single:
            cells += ["", "", no_answer(run), *[""] * (len(models) + 1)]
        else:
            cells += [f"{mean_of_rows(run, 'prompt_tokens'):,.0f}", f"{mean_of_rows(run, 'model_calls'):.1f}"]
            cells += [no_answer(run), *(f"{tokens_of(run, model):,.0f}" for model in models)]
            cells.append(f"{mean_of_rows(run, 'paid_tokens'):,.0f}")
        if timed:
            clock = clocked.get(name) if id(run) not in single else None
            cells.append("" if clock is None else seconds(clock.rows))
        rows.append(cells)
    return table(head, rows)


def paths_table(several: Sequence[tuple[str, TranscribedRun]]) -> str:
    """The paths that juries took, and how much of what was written could be read."""
    head = ("method", *(f"{path} %" for path in PATHS), "reviews read %", "chair's answers read %", "chair overruled %")
    results = [(name, jury_cells(jury_run)) for name, jury_run in several]
    return table(head, [[name, *cells] for name, cells in results if cells is not None])


def one_model_table(jury_run: Sequence[TranscribedRun], chains: Sequence[EvalRun]) -> str:
    """Juries of one model in several roles, next to the model itself and to the vote of as many jurors."""
    head = (
        *("method", "rows", "right % [95 %]", "less the model, one sample", "less the majority of as many"),
        *("tokens written", "tokens read", "calls", "no option named %", *(f"{path} %" for path in PATHS)),
    )
    runs = [one.run for one in jury_run]
    rows = []
    for name, one in zip(names_of(runs), jury_run, strict=True):
        run, plan = one.run, one.run.manifest.plan
        chain = next((c for c in chains if c.manifest.plan.models["main"] == plan.models["main"]), None)
        vote = None if is_majority(run) else _vote(run, runs)
        paths = jury_cells(one)
        rows.append(
            [
                f"{short(plan.models['main'])}, {name}",
                *(rows_cell(run), accuracy(run), *less_cells([run], chain), *less_cells([run], vote)),
                *(f"{mean_of_rows(run, key):,.0f}" for key in ("completion_tokens", "prompt_tokens")),
                *(f"{mean_of_rows(run, 'model_calls'):.1f}", no_answer(run)),
                *([""] * len(PATHS) if paths is None else paths[: len(PATHS)]),
            ]
        )
    return table(head, rows)


def likelihood_table(runs: Sequence[EvalRun]) -> str:
    """Right answers by log-probability, where nothing is generated."""
    return table(
        ("model", "rows", "right % [95 %]"),
        [[short(run.manifest.plan.models["main"]), rows_cell(run), accuracy(run)] for run in runs],
    )


def rows_cell(run: EvalRun) -> str:
    """How many rows there are, of how many that were to be."""
    expected = len(run.manifest.keys)
    return str(len(run.rows)) if len(run.rows) == expected else f"{len(run.rows)} of {expected}"


def mean_right(run: EvalRun) -> float:
    """Share of right answers."""
    return float(np.mean([row.value for row in run.rows])) if run.rows else 0.0


def _vote(run: EvalRun, runs: Sequence[EvalRun]) -> EvalRun | None:
    """The plain majority of the same jurors."""
    return find_variant(run, runs, **VOTE)


def _shown(several: Sequence[TranscribedRun]) -> TranscribedRun:
    """The run whose jurors are shown as methods of their own: that of the complete jury, if there is one."""
    args = {id(one): one.run.manifest.plan.parameters for one in several}
    usual = [one for one in several if args[id(one)]["roles"] is True and args[id(one)]["shuffle"] is True]
    return max(usual or several, key=lambda one: len(one.rows))


def _order(run: EvalRun) -> tuple[int, int, str]:
    """Votes first, then the complete jury, then those without a part."""
    kind = 0 if is_majority(run) else 1 if is_complete_jury(run) else 2
    return kind, jurors_count(run), method_of(run)


RIGHT = """\
Differences are in points, over the rows of both, with a bootstrap interval over questions and McNemar's exact p. The
best single model is chosen by hindsight on these rows, among models and jurors, which favours it. At its tokens:
self-consistency is interpolated between its numbers of samples; tokens of all models count alike."""
COSTS = """\
Means for a question without reuse from the run store; "written again" is what was not reused. A single juror's prompt
tokens and calls are not known separately."""
PATH_NOTE = """\
A review or a chair's answer is read if it could be parsed, after one request for repair; otherwise the best ranked
opinion is the answer. Overruled: the jury's vote replaced the chair's letter."""
POSITION_NOTE = """\
Chance is for right options at random positions. Jurors show the bias of the models, answers what is left of it.
Distance is total variation, above 0 by chance too."""
MARKS = """\
B is the share of the other texts of the review that a text is marked above, so 0.50 at every position without a
bias. Where answers are not shuffled, position and juror coincide, and a slope is no bias."""
ERRORS = "Wrong is any letter but the right one, or none. 0 is best for a vote; 1 is one juror twice."
TRUST = """\
Confidence of a jury is its agreement on the answer, of a vote and of self-consistency the share of the votes. On
multiple choice an answer is one claim, "the answer is X", and its label says how many jurors chose X. So the
precision of "contradicted" is measured for answers: the share of them that is wrong. For claims within a text it
cannot be measured here, since no dataset labels them."""

LIKELIHOOD = """\
The benchmark's own MC1: the option of the highest log-probability. It differs from naming a letter."""


def main() -> int:
    """Write the sweeps, or print the tables of those that were run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    add_plan(commands.add_parser("plan", help="write the sweeps"))
    printed = commands.add_parser("table", help="print the tables")
    printed.add_argument("runs", type=Path, nargs="+", help="folders that `reason eval sweep` wrote")
    printed.add_argument("--timed", type=Path, nargs="*", default=[], help="runs with one question at a time")
    printed.add_argument("--plans", type=Path, help="directory of the sweeps, to list runs that are missing")
    printed.add_argument("--store", type=Path, help="the run store, where it is not where the runs say")
    args = parser.parse_args()
    if args.command == "plan":
        for path, text in sweep_files(args).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(path)
        return 0
    runs, timed = load(args.runs), load(args.timed)
    if not runs:
        raise SystemExit("none of these folders holds a run with a row")
    jury_run = asyncio.run(read_transcripts(runs, args.store))
    clocked = asyncio.run(read_transcripts(timed))
    print(report(jury_run, clocked, missing_lines([*runs, *timed], args.plans)))
    return 0


def load(folders: Sequence[Path]) -> list[EvalRun]:
    """The runs in some directories that have rows."""
    results = []
    for path in [p for directory in folders for p in sorted(directory.iterdir()) if (p / "run.json").exists()]:
        try:
            results.append(load_run(path))
        except UserError:  # it has no row yet; `missing_lines` lists it if there are plans
            print(f"{path}: no row yet", file=sys.stderr)
    return results


def report(jury_run: Sequence[TranscribedRun], timed: Sequence[TranscribedRun], missing: Sequence[str]) -> str:
    """All tables of each dataset, in the order of their names, and what is missing."""
    by_dataset: dict[tuple[str, str], list[TranscribedRun]] = {}
    for one in jury_run:
        use = one.run.manifest.plan.dataset
        by_dataset.setdefault((use.full_name, use.fingerprint), []).append(one)
    parts = [made_here()]
    for (name, fingerprint), several in sorted(by_dataset.items(), key=lambda pair: pair[0]):
        clocked = [one for one in timed if one.run.manifest.plan.dataset.fingerprint == fingerprint]
        parts += dataset_sections(name, several, clocked)
    unfinished = "\n".join(f"- {line}" for line in missing) or "Everything that was begun is finished."
    return "\n\n".join([*parts, "## Not finished", unfinished])


def dataset_sections(name: str, jury_run: Sequence[TranscribedRun], timed: Sequence[TranscribedRun]) -> list[str]:
    """The tables of one dataset."""
    parts: list[str] = []
    for jury in juries_of(jury_run):
        plan = jury.runs[0][1].run.manifest.plan
        jurors = ", ".join(map(short, jurors_of(plan.models)))
        chair = short(plan.models["main"])
        seeds = ", ".join(map(str, plan.seeds))
        args = plan.parameters
        limits = f"Every call of a jury has at most {args['max_tokens']} tokens."
        more = "".join(f" {key} = {value}." for key, value in other_parameters(jury.runs[0][1].run).items())
        parts += [f"## {name}: {jurors}; chair {chair}", f"Seeds: {seeds}. {limits}{more}"]
        parts += jury_sections(jury, timed)
    chains = [one.run for one in jury_run if one.run.manifest.plan.strategy == "cot"]
    one_model = [one for one in jury_run if one.run.manifest.plan.strategy == JURY and not has_named_jurors(one.run)]
    if one_model:
        ordered = sorted(one_model, key=lambda one: (jurors_count(one.run), is_majority(one.run)))
        parts += [f"## {name}: one model in several roles", one_model_table(ordered, chains)]
    likelihood = [one.run for one in jury_run if one.run.manifest.plan.strategy == "logprob"]
    if likelihood:
        parts += [f"## {name}: by log-probability", LIKELIHOOD, likelihood_table(likelihood)]
    return parts


def jury_sections(jury: Jury, timed: Sequence[TranscribedRun]) -> list[str]:
    """The tables of one jury."""
    runs = [jury_run.run for _, jury_run in jury.runs]
    by_run = {id(jury_run.run): jury_run for _, jury_run in jury.runs}
    full = [(name, jury_run) for name, jury_run in jury.runs if jury_run.run.manifest.plan.parameters["review"]]
    parts = ["### Right answers", RIGHT, right_table(jury)]
    parts += ["### Costs", COSTS, costs_table(jury, [one.run for one in timed])]
    parts += ["### How it went", PATH_NOTE, paths_table(jury.runs)]
    pairs = [
        (name, jury_run, by_run[id(staying)])
        for name, jury_run in jury.runs
        if jury_run.run.manifest.plan.parameters["early_exit"]
        and (staying := find_variant(jury_run.run, runs, early_exit=False)) is not None
    ]
    if pairs:
        parts += ["### Leaving early", exits_table(pairs)]
    parts += ["### Stages", stages_table(full[:1], timed=False)] if full else []
    juries = [one for one in timed if one.run.manifest.plan.strategy == JURY]
    clocked = list(zip(names_of([one.run for one in juries]), juries, strict=True))
    if clocked:
        parts += ["Of the runs with one question at a time:", stages_table(clocked, timed=True)]
    parts += ["### Positions of the chosen options", POSITION_NOTE, *position_sections(jury)]
    if full:
        parts += ["### Marks by the position of the text", MARKS, marks_table(reviewed(full))]
    parts += ["### Errors in common", ERRORS, errors_table(distinct_opinions(jury))]
    reported = [(name, jury_run) for name, jury_run in jury.runs if is_complete_jury(jury_run.run)]
    votes = [(name, jury_run) for name, jury_run in jury.runs if name == MAJORITY]
    stated = [*jury.sampled, *((name, jury_run.run) for name, jury_run in [*votes, *reported])]
    return [*parts, "### Confidence", TRUST, confidence_table(stated), labels_table(reported)]


def position_sections(jury: Jury) -> list[str]:
    """Where chosen options stand: of jurors, of juries with and without shuffled orders, of the models only."""
    jurors = []
    for name, jury_run in distinct_opinions(jury):
        for i in sorted({o.juror for _, transcript in jury_run.answered for o in transcript.opinions}):
            model = next(o.model for _, transcript in jury_run.answered for o in transcript.opinions if o.juror == i)
            jurors.append((f"{name}: juror {i + 1} ({short(model)})", juror_positions(jury_run, i)))
    finals = [(name, final_positions(run)) for name, run in [*jury.chains, *jury.sampled[-1:]]]
    shown = [
        (name, jury_run) for name, jury_run in jury.runs if name.removesuffix(f", {ONE_ORDER}") in (MAJORITY, COMPLETE)
    ]
    finals += [(name, final_positions(jury_run.run)) for name, jury_run in shown]
    parts = [positions_table(jurors, finals)]
    runs = [jury_run.run for _, jury_run in shown]
    for name, jury_run in shown:
        other = None if name.endswith(ONE_ORDER) else find_variant(jury_run.run, runs, shuffle=False)
        if other is not None:
            apart = debiased(final_positions(jury_run.run), final_positions(other))
            parts.append(f"{name}: first options beyond chance, with shuffled orders less without: {apart}.")
    return parts


def reviewed(several: Sequence[tuple[str, TranscribedRun]]) -> list[tuple[str, TranscribedRun]]:
    """One of each set of juries with the same review requests, preferably without early exit."""
    staying = [(n, h) for n, h in several if not h.run.manifest.plan.parameters["early_exit"]]
    differs = ("roles", "shuffle", "anonymise", "parity")
    return _first_of_each([*staying, *several], differs)


def distinct_opinions(jury: Jury) -> list[tuple[str, TranscribedRun]]:
    """One of each set of runs with the same opinion requests: the vote, if there is one."""
    votes = [(name, jury_run) for name, jury_run in jury.runs if name.startswith(MAJORITY)]
    return _first_of_each([*votes, *jury.runs], ("roles", "shuffle"))


def _first_of_each(
    several: Sequence[tuple[str, TranscribedRun]], names: Sequence[str]
) -> list[tuple[str, TranscribedRun]]:
    results: dict[str, tuple[str, TranscribedRun]] = {}
    for name, jury_run in several:
        args = jury_run.run.manifest.plan.parameters
        results.setdefault(str([args[n] for n in names]), (name, jury_run))
    return list(results.values())


if __name__ == "__main__":
    sys.exit(main())
