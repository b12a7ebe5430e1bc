"""DAVinCI: baselines, ablations, calibration and evidence on labelled claims.

    python benchmarks/davinci_table.py judge --data DIRECTORY --entailment embedded --work runs/davinci
    python benchmarks/davinci_table.py table --data DIRECTORY --entailment embedded --work runs/davinci > tables.md

`judge` fills the store of verdicts on pairs, `runs/davinci/verdicts.sqlite`, and can be resumed. `table` prints
Markdown and judges what is not yet stored. DIRECTORY has a subdirectory for each dataset, and `corpus`.

Only claims that the embedded judge was not trained on are measured (evals/verification/claims.py). Fusion, temperature
and gate are cross-fitted over five folds, split by a hash of the claims' group. Intervals: 95 %, bootstrap over groups.
Differences are to verification by the best sentence only; p is McNemar's exact test.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import platform
import random
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from reason.core.calibration_fit import reliability
from reason.core.settings import Settings, load_settings
from reason.core.version import __version__
from reason.evals.statistics.intervals import bootstrap
from reason.evals.statistics.outcomes import number_groups
from reason.evals.verification.claims import (
    FOLDS,
    LabelledClaim,
    first_passages,
    fold_of,
    merge_pages,
    oracle_padded,
    oracle_two,
    random_sentences,
    read_claims,
    read_passages,
    replace_passages,
    retrieve_passages,
    unseen_claims,
)
from reason.evals.verification.judging import (
    EvidenceForm,
    JudgedClaim,
    StoredEntailment,
    VerdictStore,
    every_pair,
    judge_pairs,
    judge_rows,
)
from reason.evals.verification.methods import (
    ClaimVerdict,
    FittedMethod,
    Memo,
    Method,
    cross_validated_verdicts,
    examples_of,
    fit_method,
    verdicts_by_fold,
)
from reason.evals.verification.metrics import (
    RESAMPLES,
    MetricDifference,
    VerdictMetrics,
    difference,
    mean_attribution_of,
    named_ids,
    recall_at,
    verdict_metrics,
)
from reason.reasoning.retrieval.index.saved_index import load_index
from reason.reasoning.retrieval.retriever import HybridRetriever
from reason.serving.encoders.factory import load_embedding_model
from reason.verify.entailment.factory import load_entailment
from reason.verify.fusion import EvidenceItem, FusedVerdict, FusionParameters, fuse_evidence
from reason.verify.fusion_fitting import FusionExample
from reason.verify.metrics import LABELS, evidence_scores, reliability_lines, top_label_hits
from reason.verify.types import Label, Support, support
from reporting import p_value, processor, table

SCORES = ("accuracy", "macro_f1", "weighted_f1", "ece", "brier", "nll", "aurc")
HEAD = (
    *("method", "n", "accuracy", "macro F1", "weighted F1", "ECE", "Brier", "NLL", "AURC"),
    *("evidence P / R / F1", "Δ accuracy (p)", "Δ macro F1", "Δ ECE"),
)


def metric_cells(
    judged: Sequence[JudgedClaim], reported: Sequence[ClaimVerdict], *, stated: bool = True, seed: int = 0
) -> VerdictMetrics:
    """Metrics of verdicts."""
    return verdict_metrics(
        [one.row.gold for one in judged],
        [one.label for one in reported],
        [one.probs for one in reported] if stated else None,
        [one.row.group or one.row.name for one in judged],
        seed=seed,
    )


def scores(result: VerdictMetrics, names: Sequence[str] = SCORES) -> list[str]:
    """Each metric with its interval."""
    return [interval(result, name) for name in names]


def interval(result: VerdictMetrics, name: str) -> str:
    """A metric with its interval; empty if there is none."""
    e = result.estimate(name)
    return "" if e is None else f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"


def difference_cells(result: VerdictMetrics, other: VerdictMetrics | None) -> list[str]:
    """What a method is better or worse by than another."""
    if other is None or other is result:
        return ["", "", ""]
    d = difference(result, other)
    return [f"{signed(d, 'accuracy')} ({p_value(d.p)})", signed(d, "macro_f1"), signed(d, "ece")]


def signed(d: MetricDifference, name: str) -> str:
    """A difference with its interval."""
    e = d.metrics.get(name)
    return "" if e is None else f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"


def evidence_cell(judged: Sequence[JudgedClaim], reported: Sequence[ClaimVerdict], seed: int = 0) -> str:
    """Precision, recall and F1 of the named passages, the last with its interval."""
    rows = [one.row for one in judged]
    means, count = mean_attribution_of(rows, reported)
    if means is None:
        return ""
    each = [evidence_scores(named_ids(r, t.named), r.right_ids) for r, t in zip(rows, reported, strict=True)]
    kept = [(a.f1, r.group or r.name) for a, r in zip(each, rows, strict=True) if a is not None]
    groups = number_groups([name for _, name in kept])
    values = np.array([f1 for f1, _ in kept])
    between = bootstrap(values, groups, resamples=RESAMPLES, seed=seed)
    ends = "" if between is None else f" [{between.low:.3f}, {between.high:.3f}]"
    return f"{means.precision:.3f} / {means.recall:.3f} / {means.f1:.3f}{ends} (n = {count})"


def two_labels(reported: Sequence[ClaimVerdict]) -> list[ClaimVerdict]:
    """The same where "not enough evidence" is no answer: the more likely of the other two, among equals refutes."""
    return [
        t._replace(label="supports" if t.probs.supports > t.probs.refutes else "refutes", downgraded=False)
        for t in reported
    ]


def recall_cells(judged: Sequence[JudgedClaim]) -> list[str]:
    """Share of claims with a complete sufficient set, and with any decisive sentence, among the first 1, 3 and 5."""
    cells = []
    for k in (1, 3, 5):
        at = recall_at([one.row for one in judged], k)
        full = "" if at.enough is None else f"{at.enough:.3f}"
        cells.append(f"{full} / {'' if at.any is None else f'{at.any:.3f}'}")
    return cells


def answered_cells(judged: Sequence[JudgedClaim], reported: Sequence[ClaimVerdict]) -> list[str]:
    """Share of claims with a decisive verdict, share wrong among them, and verdicts that the gate took back."""
    decisive = [
        (t.label, j.row.gold) for j, t in zip(judged, reported, strict=True) if t.label in ("supports", "refutes")
    ]
    wrong = sum(text != gold for text, gold in decisive) / len(decisive) if decisive else None
    return [
        f"{len(decisive) / len(reported):.3f}",
        "" if wrong is None else f"{wrong:.3f}",
        str(sum(t.downgraded for t in reported)),
    ]


TOP = Method("verification only: the best sentence", aggregation="top", calibration=None, gate=0.0)
FULL = Method("DAVinCI, full")
CLAIM_ONLY = Method("the judge without evidence", form="claim", calibration=None, gate=0.0)
CONCAT = Method("verification only: all as one text", form="concat", aggregation="concat", calibration=None, gate=0.0)

MAIN = (
    CLAIM_ONLY,
    TOP,
    CONCAT,
    FULL,
    replace(FULL, name="… judged by spans", form="span"),
    replace(FULL, name="… without calibration and gate", calibration=None, gate=0.0),
    replace(FULL, name="… without gate", gate=0.0),
    replace(FULL, name="… without anything fitted, gate 0.6", fitted=False, calibration=None, gate=0.6),
    replace(FULL, name='… that may say "disputed"', disputed=True),
)
RAW_PRODUCT = FusionParameters(mode="product", beta=1.0, temperature=1.0, delta=0.0)
AGGREGATIONS = (
    *(Method(mode, aggregation=mode, fitted=False) for mode in ("mean", "max", "vote")),  # type: ignore[arg-type]
    Method("concat", form="concat", aggregation="concat"),
    Method("product, β = 1", aggregation="product", fitted=False, start=RAW_PRODUCT),
    Method("product, fitted", aggregation="product"),
    Method("witness, defaults", fitted=False),
    replace(FULL, name="witness, fitted (DAVinCI, full)"),
)
GATES = tuple(replace(FULL, name=f"gate {gate:g}", gate=gate) for gate in (0.0, 0.6, 0.7, 0.8, 0.9))
LPF = (
    Method("mean", aggregation="mean", fitted=False, calibration=None, gate=0.0),
    Method("max", aggregation="max", fitted=False, calibration=None, gate=0.0),
    Method("product, β = 1", aggregation="product", fitted=False, start=RAW_PRODUCT, calibration=None, gate=0.0),
    Method("product, fitted", aggregation="product", calibration=None, gate=0.0),
    Method("witness, fitted", calibration=None, gate=0.0),
)


def majority(judged: Sequence[JudgedClaim]) -> list[ClaimVerdict]:
    """The most common label of the other folds, with its shares there as probabilities."""
    parts = [fold_of(one.row.group or one.row.name) for one in judged]
    reported = {}
    for part in range(FOLDS):
        counts = Counter(one.row.gold for one, p in zip(judged, parts, strict=True) if p != part)
        if counts:
            best = max(sorted(counts), key=lambda label: counts[label])
            reported[part] = ClaimVerdict(best, support(counts[label] + 0.5 for label in LABELS))
    return [reported[part] for part in parts]


def always(judged: Sequence[JudgedClaim], label: Label) -> list[ClaimVerdict]:
    """One label for all, which states no probabilities worth scoring."""
    sure = support(float(label == other) for other in LABELS)
    return [ClaimVerdict(label, sure) for _ in judged]


SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of the evidence that are replaced by evidence of other claims."""
RETRIEVAL = ("random", "bm25@1", "bm25@3", "bm25", "own", "oracle")


@dataclass(frozen=True)
class Setting:
    """Claims with what is shown for them.

    Attributes:
        key: Its name.
        title: Title of its table.
        rows: The claims.
        forms: What has to be judged of them.
    """

    key: str
    title: str
    rows: tuple[LabelledClaim, ...]
    forms: tuple[EvidenceForm, ...] = ("full",)


@dataclass(frozen=True)
class MeasuredClaims:
    """All settings, and how FEVER's own retriever was made.

    Attributes:
        settings: By key.
        retriever: Retriever of the setting "own".
    """

    settings: dict[str, Setting]
    retriever: str


async def read_measured_claims(
    data: Path, settings: Settings, *, limit: int | None = None, index: Path | None = None, seed: int = 0
) -> MeasuredClaims:
    """Read the data sets and retrieve; only claims that the embedded judge was not trained on are kept."""
    corpus = read_passages(data / "corpus")
    read = {
        name: read_claims(name, data / name, corpus)
        for name in ("fever", "climate_fever", "fever_symmetric", "vitaminc", "sufficient_facts")
    }
    everything = [row for rows in read.values() for row in rows]
    kept = {name: unseen_claims(rows, other_rows=everything)[:limit] for name, rows in read.items()}
    fever, climate = kept["fever"], kept["climate_fever"]
    if index is None:
        retriever = await HybridRetriever.build(list(corpus.values()), name="corpus by words and titles")
    else:
        retriever = await load_index(index, lambda name: load_embedding_model(name, settings))
    try:
        own = await retrieve_passages(fever, retriever)
    finally:
        await retriever.aclose()
    all_forms: tuple[EvidenceForm, ...] = ("full", "span", "concat", "claim")
    made = [
        Setting(
            "oracle2", "FEVER, decisive sentences only, supported and refuted", tuple(oracle_two(fever)), all_forms
        ),
        Setting(
            "oracle", "FEVER, decisive sentences among five", tuple(oracle_padded(fever, corpus, seed=seed)), all_forms
        ),
        Setting("bm25", "FEVER, five retrieved by BM25", tuple(fever), all_forms),
        Setting("bm25@1", "FEVER, one retrieved by BM25", tuple(first_passages(fever, 1))),
        Setting("bm25@3", "FEVER, three retrieved by BM25", tuple(first_passages(fever, 3))),
        Setting("own", "FEVER, five by the hybrid retriever", tuple(own)),
        Setting("random", "FEVER, five random sentences", tuple(random_sentences(fever, corpus, seed=seed))),
        Setting("pages", "FEVER, what BM25 found, a text for each page", tuple(merge_pages(fever)), ("full", "span")),
        Setting("climate", "CLIMATE-FEVER, its five sentences", tuple(climate), all_forms),
        Setting("symmetric", "FEVER Symmetric", tuple(kept["fever_symmetric"]), ("full", "claim")),
        Setting("vitaminc", "VitaminC", tuple(kept["vitaminc"]), ("full", "claim")),
        Setting("sufficient", "SufficientFacts", tuple(kept["sufficient_facts"]), ("full", "concat", "claim")),
        *replaced_settings("bm25", fever, seed),
        *replaced_settings("climate", climate, seed),
    ]
    return MeasuredClaims({one.key: one for one in made}, retriever.name)


def replaced_settings(key: str, rows: Sequence[LabelledClaim], seed: int) -> Iterator[Setting]:
    """A setting for each share of evidence that is replaced."""
    for share in SHARES:
        if share:
            title = f"{key}, {100 * share:.0f} % replaced"
            yield Setting(f"{key}~{share:g}", title, tuple(replace_passages(rows, share, seed)))


@dataclass(frozen=True)
class Measured:
    """A method on a setting, cross-fitted."""

    judged: list[JudgedClaim]
    reported: list[ClaimVerdict]
    fits: dict[int, FittedMethod]
    metrics: VerdictMetrics


@dataclass
class VerdictTables:
    """Measurements for the tables, each made once.

    Attributes:
        world: The claims and settings.
        entailment: The judge, with stored verdicts.
        backend: Its identity as fusion and calibration know it.
        seed: Of the bootstrap.
    """

    world: MeasuredClaims
    entailment: StoredEntailment
    backend: str
    seed: int = 0
    _judged: dict[tuple[str, EvidenceForm, bool], list[JudgedClaim]] = field(default_factory=dict)
    _memos: dict[tuple[str, bool], Memo] = field(default_factory=dict)
    _done: dict[tuple[str, bool, str], Measured] = field(default_factory=dict)

    async def fill(self) -> None:
        """Judge every pair of every setting that the store does not have."""
        for setting in self.world.settings.values():
            for form in setting.forms:
                count = await judge_pairs(every_pair(setting.rows, form), self.entailment)
                log(f"{setting.key}, {form}: {count:,} pairs; {self.entailment.num_judged:,} judged so far")

    async def judged(self, setting: Setting, form: EvidenceForm, disputed: bool = False) -> list[JudgedClaim]:
        """Claims with verdicts, disputed ones only on request."""
        key = (setting.key, form, disputed)
        if key not in self._judged:
            rows = [row for row in setting.rows if disputed or row.gold != "disputed"]
            self._judged[key] = await judge_rows(rows, form, self.entailment)
        return self._judged[key]

    async def measure(self, key: str, method: Method, *, disputed: bool = False) -> Measured:
        """A method on a setting; repeated calls return the first result."""
        named = replace(method, name="").__repr__()
        if (key, disputed, named) not in self._done:
            setting = self.world.settings[key]
            judged = await self.judged(setting, method.form, disputed)
            memo = self._memos.setdefault((key, disputed), {})
            reported, fits = cross_validated_verdicts(judged, method, backend=self.backend, source=key, memo=memo)
            result = Measured(judged, reported, fits, metric_cells(judged, reported, seed=self.seed))
            self._done[key, disputed, named] = result
            log(f"{key}: {method.name}: accuracy {result.metrics.values['accuracy']:.3f}")
        return self._done[key, disputed, named]


def select_settings(world: MeasuredClaims, keys: Sequence[str]) -> list[Setting]:
    """The settings of these names that have claims."""
    return [world.settings[key] for key in keys if world.settings[key].rows]


def log(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


COPIES = (1, 2, 3, 4, 5)
CHANGES = (1, 2, 3)
MOST_RISE = 0.02
"""How much near copies of a sentence may raise the confidence."""


def with_copies(
    example: FusionExample, copies: int, changes: int, rng: random.Random, words: Sequence[str]
) -> FusionExample:
    """The example with copies of its most decisive sentence with words replaced, added or removed."""
    chosen = max(example.items, key=lambda item: max(item.samples[0][:2]))
    made = []
    for n in range(copies):
        text = chosen.text.split()
        for _ in range(changes):
            at, how = rng.randrange(len(text)), rng.choice(("replace", "add", "leave out"))
            if how == "add":
                text.insert(at, rng.choice(words))
            elif how == "replace" or len(text) == 1:
                text[at] = rng.choice(words)
            else:
                del text[at]
        made.append(
            EvidenceItem(chosen.samples, text=" ".join(text), id=f"{chosen.id}-copy{n}", document=chosen.document)
        )
    return FusionExample((*example.items, *made), example.gold)


def confidence_rise(before: FusedVerdict, after: FusedVerdict) -> float:
    """By how much the probability of the now most likely label has risen."""
    label: Callable[[Support], float] = lambda p: getattr(p, after.probs.label)  # noqa: E731 (read twice)
    return label(after.probs) - label(before.probs)


_COPIED = 300
"""Claims that near copies are added to."""


async def acceptance(tables: VerdictTables, key: str, *, disputed: bool = False) -> str:
    """Each method of combining, with differences to the mean."""
    methods = [replace(m, disputed=disputed and m.aggregation not in ("concat", "top")) for m in LPF]
    rows = []
    base = (await tables.measure(key, methods[0], disputed=disputed)).metrics
    for method in methods:
        result = await tables.measure(key, method, disputed=disputed)
        names = ("accuracy", "macro_f1", "nll", "brier", "ece")
        rows.append(
            [
                method.name,
                str(result.metrics.n),
                *scores(result.metrics, names),
                *difference_cells(result.metrics, base),
                _own(result),
            ]
        )
    head = ("method", "n", "accuracy", "macro F1", "NLL", "Brier", "ECE")
    return table((*head, "Δ accuracy (p)", "Δ macro F1", "Δ ECE", "fitted, by fold"), rows)


async def replacement_table(tables: VerdictTables, key: str) -> str:
    """Accuracy, macro F1 and ECE as evidence is replaced by that of other claims; fitted without."""
    rows = []
    for method in LPF:
        clean = await tables.measure(key, method)
        cells = []
        for share in SHARES:
            judged = clean.judged
            if share:
                judged = await tables.judged(tables.world.settings[f"{key}~{share:g}"], method.form)
            reported = verdicts_by_fold(judged, clean.fits, method)
            result = verdict_metrics(
                [one.row.gold for one in judged],
                [one.label for one in reported],
                [one.probs for one in reported],
                [one.row.group or one.row.name for one in judged],
                seed=tables.seed,
            )
            cells.append(f"{interval(result, 'macro_f1')}; ECE {result.values['ece']:.3f}")
        rows.append([method.name, *cells])
    return table(("method", *(f"{100 * share:.0f} %" for share in SHARES)), rows)


async def copying(tables: VerdictTables, key: str) -> str:
    """By how much near copies of the most decisive passage raise the probability of the verdict."""
    rows = []
    methods = [m for m in LPF if m.name in ("mean", "product, fitted", "witness, fitted")]
    for method, merge in ((m, True) for m in methods):
        rows += await _copied(tables, key, method, merge=merge)
    rows += await _copied(tables, key, methods[-1], merge=False)
    return table(("method", "words changed", *(f"{n} copies" for n in COPIES)), rows)


async def _copied(tables: VerdictTables, key: str, method: Method, *, merge: bool) -> list[list[str]]:
    measured = await tables.measure(key, method)
    examples = examples_of(measured.judged)
    words = [word for e in examples for item in e.items for word in item.text.split()]
    taken = [i for i, e in enumerate(examples) if e.items][:_COPIED]
    rows = []
    for changes in CHANGES:
        cells = []
        for copies in COPIES:
            rng = random.Random(f"{tables.seed} {changes} {copies}")
            rises = []
            for i in taken:
                row = measured.judged[i].row
                fusion = measured.fits[fold_of(row.group or row.name)].rule.fusion
                fusion = fusion.model_copy(update={"merge": merge})
                more = with_copies(examples[i], copies, changes, rng, words)
                rises.append(
                    confidence_rise(fuse_evidence(examples[i].items, fusion), fuse_evidence(more.items, fusion))
                )
            over = sum(rise > MOST_RISE for rise in rises) / len(rises)
            cells.append(f"{statistics.mean(rises):+.4f} ({100 * over:.1f} %)")
        rows.append([method.name if merge else f"{method.name}, nothing merged", str(changes), *cells])
    return rows


def _own(result: Measured) -> str:
    """What was fitted in each fold."""
    reported = []
    for one in result.fits.values():
        p = one.rule.fusion
        if one.fusion is None:
            continue
        own = f"β {p.beta:g}" if p.mode == "product" else f"a {p.a:g} π {p.pi:.2f}"
        reported.append(f"{own} δ {p.delta:g} T {p.final_temperature:g}")
    return "; ".join(reported)


MAIN_KEYS = ("oracle2", "oracle", "bm25", "climate")
STRESS_KEYS = ("symmetric", "vitaminc", "sufficient")
TWO_LABELS = ("oracle2", "symmetric")
"""Settings without neutral claims: the more likely of two labels is scored there too."""


async def main_table(tables: VerdictTables, key: str) -> str:
    """Baselines, the method, and the method less one part each."""
    top = (await tables.measure(key, TOP)).metrics
    judged = (await tables.measure(key, TOP)).judged
    rows = []
    for name, reported, stated in (
        ("the commonest label", majority(judged), True),
        ("always not enough evidence", always(judged, "neutral"), False),
    ):
        result = metric_cells(judged, reported, stated=stated, seed=tables.seed)
        rows.append([name, str(result.n), *scores(result), "", *difference_cells(result, top)])
    for method in MAIN:
        rows.append(_row(method, await tables.measure(key, method), top, tables.seed))
    if key in TWO_LABELS:
        rows += [await two_row(tables, key, method) for method in (CLAIM_ONLY, TOP, FULL)]
    return table(HEAD, rows)


async def methods_table(tables: VerdictTables, key: str, methods: Sequence[Method], *, disputed: bool = False) -> str:
    """Some methods on one setting."""
    top = (await tables.measure(key, TOP, disputed=disputed)).metrics
    measured = [(m, await tables.measure(key, m, disputed=disputed)) for m in methods]
    return table(HEAD, [_row(m, result, top, tables.seed) for m, result in measured])


async def gate_table(tables: VerdictTables, key: str) -> str:
    """What gates do; the probabilities are the same in all rows."""
    rows = []
    for method in (*GATES, replace(FULL, name="gate chosen on other folds")):
        result = await tables.measure(key, method)
        labels = scores(result.metrics, ("accuracy", "macro_f1", "weighted_f1"))
        used = sorted({f"{f.rule.min_confidence:g}" for f in result.fits.values()})
        rows.append([f"{method.name} ({', '.join(used)})", *labels, *answered_cells(result.judged, result.reported)])
    head = ("gate", "accuracy", "macro F1", "weighted F1", "answered", "wrong among them", "taken back")
    return table(head, rows)


async def retrieval_table(tables: VerdictTables) -> str:
    """The method as what it looks at gets better; fitted again in each setting."""
    rows = []
    for setting in select_settings(tables.world, RETRIEVAL):
        result = await tables.measure(setting.key, FULL)
        shown = scores(result.metrics, ("accuracy", "macro_f1", "ece", "nll"))
        rows.append(
            [setting.title, *recall_cells(result.judged), *shown, evidence_cell(result.judged, result.reported)]
        )
    recalls = tuple(f"recall@{k}: complete set / any" for k in (1, 3, 5))
    return table(("evidence", *recalls, "accuracy", "macro F1", "ECE", "NLL", "evidence P / R / F1"), rows)


async def stress_table(tables: VerdictTables) -> str:
    """Other data with what was fitted to FEVER's retrieved sentences; nothing is fitted to them."""
    fitted = fit_method(
        (await tables.measure("bm25", FULL)).judged, FULL, backend=tables.backend, source="bm25", memo={}
    )
    fits = dict.fromkeys(range(FOLDS), fitted)
    rows = []
    for setting in select_settings(tables.world, STRESS_KEYS):
        base = (await tables.measure(setting.key, TOP)).metrics
        for method in (CLAIM_ONLY, TOP):
            result = await tables.measure(setting.key, method)
            rows.append([f"{setting.title}: {method.name}", str(result.metrics.n), *scores(result.metrics)])
            rows[-1] += difference_cells(result.metrics, base)
        judged = await tables.judged(setting, "full")
        full = metric_cells(judged, verdicts_by_fold(judged, fits, FULL), seed=tables.seed)
        rows.append([f"{setting.title}: DAVinCI as fitted to FEVER", str(full.n), *scores(full)])
        rows[-1] += difference_cells(full, base)
        if setting.key in TWO_LABELS:
            for method in (CLAIM_ONLY, TOP):
                row = await two_row(tables, setting.key, method)
                rows.append([f"{setting.title}: {row[0]}", *row[1:9], *row[10:]])
    return table((*HEAD[:9], *HEAD[10:]), rows)


async def two_row(tables: VerdictTables, key: str, method: Method) -> list[str]:
    """A method that has to say supports or refutes, whichever is more likely; among equals refutes."""
    measured = await tables.measure(key, method)
    result = metric_cells(measured.judged, two_labels(measured.reported), stated=False, seed=tables.seed)
    base = metric_cells(
        measured.judged, two_labels((await tables.measure(key, TOP)).reported), stated=False, seed=tables.seed
    )
    against_top = difference_cells(result, None if method == TOP else base)
    return [f"two labels: {method.name}", str(result.n), *scores(result), "", *against_top]


async def reliability_text(tables: VerdictTables, key: str) -> str:
    """Stated confidence against the share that is right, without calibration and with it."""
    parts = []
    for name, method in (("best sentence, as it comes", TOP), ("DAVinCI, full", FULL)):
        result = await tables.measure(key, method)
        confidences, correct = top_label_hits([t.probs for t in result.reported], [j.row.gold for j in result.judged])
        parts.append("\n".join(reliability_lines(reliability([min(c, 1.0) for c in confidences], correct), name)))
    return "```text\n" + "\n\n".join(parts) + "\n```"


def _row(method: Method, result: Measured, top: VerdictMetrics, seed: int) -> list[str]:
    f = result.metrics
    other = None if method == TOP else top
    return [
        method.name,
        str(f.n),
        *scores(f, SCORES),
        evidence_cell(result.judged, result.reported, seed),
        *difference_cells(f, other),
    ]


async def print_tables(tables: VerdictTables, about: str) -> None:
    """All tables, in Markdown."""
    print(about)
    titles = {key: one.title for key, one in tables.world.settings.items()}
    for key in MAIN_KEYS:
        print(f"\n## {titles[key]}\n\n{await main_table(tables, key)}", flush=True)
    print("\n## CLIMATE-FEVER with disputed claims, four labels\n")
    fourth = [TOP, AGGREGATIONS[0], replace(AGGREGATIONS[0], name='mean that may say "disputed"', disputed=True)]
    fourth += [FULL, replace(FULL, name=f'{FULL.name}, that may say "disputed"', disputed=True)]
    print(await methods_table(tables, "climate", fourth, disputed=True), flush=True)
    print("\n## Spans: what BM25 found, a text for each page\n")
    spans = [FULL, replace(FULL, name="… judged by spans", form="span")]
    print(await methods_table(tables, "pages", spans), flush=True)
    for key in ("oracle", "bm25", "climate"):
        print(f"\n## Aggregation: {titles[key]}\n\n{await methods_table(tables, key, AGGREGATIONS)}", flush=True)
    for key in ("oracle", "bm25", "climate"):
        print(f"\n## Gate: {titles[key]}\n\n{await gate_table(tables, key)}", flush=True)
    print(
        f"\n## Retrieval\n\nFEVER's own retriever: {tables.world.retriever}.\n\n{await retrieval_table(tables)}",
        flush=True,
    )
    print(f"\n## Stress tests\n\n{await stress_table(tables)}", flush=True)
    for key in ("bm25", "climate"):
        print(f"\n## Reliability: {titles[key]}\n\n{await reliability_text(tables, key)}", flush=True)
    for key in ("bm25", "climate"):
        print(f"\n## Combining evidence (LPF): {titles[key]}\n\n{await acceptance(tables, key)}", flush=True)
        print(
            f"\nEvidence replaced by that of other claims, macro F1:\n\n{await replacement_table(tables, key)}",
            flush=True,
        )
        print(
            f"\nNear copies of the most decisive passage: mean rise of the probability of the verdict, and share of "
            f"claims where it is more than 0.02:\n\n{await copying(tables, key)}",
            flush=True,
        )
    print("\n## Combining evidence (LPF): CLIMATE-FEVER with disputed claims\n")
    print(await acceptance(tables, "climate", disputed=True))


async def work(args: argparse.Namespace) -> None:
    """Judge, and print the tables if they are requested."""
    settings = load_settings()
    world = await read_measured_claims(args.data, settings, limit=args.limit, index=args.index, seed=args.seed)
    entailment = await load_entailment(args.entailment, settings)
    with VerdictStore(args.work / "verdicts.sqlite") as store:
        stored = StoredEntailment(entailment, store)
        try:
            tables = VerdictTables(world, stored, entailment.identity, args.seed)
            await tables.fill()
            if args.step == "table":
                now = datetime.datetime.now(datetime.UTC)
                counts = ", ".join(
                    f"{one.key} {len(one.rows):,}" for one in world.settings.values() if "~" not in one.key
                )
                about = (
                    f"{now:%Y-%m-%d %H:%M} UTC; reason {__version__}, Python {platform.python_version()}, numpy "
                    f"{np.__version__}; {processor()}.\n\nJudge: {args.entailment} (`{entailment.identity}`). Seed "
                    f"{args.seed}, {RESAMPLES:,} resamples, {FOLDS} folds. Claims: {counts}."
                )
                await print_tables(tables, about)
        finally:
            await stored.aclose()


def main() -> None:
    """Do a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("judge", "table"))
    parser.add_argument("--data", type=Path, required=True, help="directory of the data sets")
    parser.add_argument("--entailment", default="embedded", help="what judges")
    parser.add_argument("--work", type=Path, required=True, help="directory of the stored verdicts")
    parser.add_argument("--index", type=Path, help="index for FEVER's own retriever; by default BM25 over the corpus")
    parser.add_argument("--limit", type=int, help="most claims of each data set")
    parser.add_argument("--seed", type=int, default=0)
    asyncio.run(work(parser.parse_args()))


if __name__ == "__main__":
    main()
