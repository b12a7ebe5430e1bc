"""What verification by DAVinCI is worth: baselines, ablations, calibration and evidence on labelled claims.

    python benchmarks/davinci_table.py judge --data FOLDER --entailment embedded --work runs/davinci
    python benchmarks/davinci_table.py table --data FOLDER --entailment embedded --work runs/davinci > tables.md

`judge` fills the store of verdicts on pairs, `runs/davinci/verdicts.sqlite`; stopped, it goes on where it was. `table`
prints Markdown; what is not stored yet is judged. FOLDER holds a folder for each data set and `corpus`.

Only claims that the embedded judge was not trained on are measured (evals/verifying/unseen.py). Fusion, then
temperature, then gate are fitted to four fifths of the claims, by a hash of their group, and measured on the fifth,
five times over, so that every claim is measured once. Intervals are of 95 %, by resampling whole groups; differences
are to verification by the best sentence alone, p by McNemar's exact test.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from davinci_cells import (
    HEAD,
    SCORES,
    against,
    answered_cells,
    evidence_cell,
    figures,
    recall_cells,
    scores,
    table,
    two_labels,
)
from davinci_desk import Desk, Measured, chosen
from davinci_lpf import acceptance, copying, replacing
from davinci_methods import AGGREGATIONS, CLAIM_ONLY, FULL, GATES, MAIN, TOP, always, majority
from davinci_settings import RETRIEVAL, read_world
from machine import processor
from reason.core.settings import load_settings
from reason.core.version import __version__
from reason.evals.verifying.figures import RESAMPLES, Figures
from reason.evals.verifying.judging import StoredEntailment
from reason.evals.verifying.methods import Method, fit, told_by
from reason.evals.verifying.unseen import FOLDS
from reason.evals.verifying.verdict_store import VerdictStore
from reason.verify.calibration.diagram import reliability_lines
from reason.verify.calibration.scores import hits, reliability
from reason.verify.entailment.opening import open_entailment

MAIN_KEYS = ("oracle2", "oracle", "bm25", "climate")
STRESS_KEYS = ("symmetric", "vitaminc", "sufficient")
TWO_LABELS = ("oracle2", "symmetric")
"""Settings without claims that nothing is said of: the likelier of two labels is scored there too."""


async def main_table(desk: Desk, key: str) -> str:
    """Baselines, the method, and the method less one part each."""
    top = (await desk.measure(key, TOP)).figures
    judged = (await desk.measure(key, TOP)).judged
    rows = []
    for name, told, stated in (
        ("the commonest label", majority(judged), True),
        ("always not enough evidence", always(judged, "neutral"), False),
    ):
        found = figures(judged, told, stated=stated, seed=desk.seed)
        rows.append([name, str(found.n), *scores(found), "", *against(found, top)])
    for method in MAIN:
        rows.append(_row(method, await desk.measure(key, method), top, desk.seed))
    if key in TWO_LABELS:
        rows += [await two_row(desk, key, method) for method in (CLAIM_ONLY, TOP, FULL)]
    return table(HEAD, rows)


async def methods_table(desk: Desk, key: str, methods: Sequence[Method], *, disputed: bool = False) -> str:
    """Some methods on one setting."""
    top = (await desk.measure(key, TOP, disputed=disputed)).figures
    measured = [(m, await desk.measure(key, m, disputed=disputed)) for m in methods]
    return table(HEAD, [_row(m, found, top, desk.seed) for m, found in measured])


async def gate_table(desk: Desk, key: str) -> str:
    """What gates do; the probabilities are the same in all rows."""
    rows = []
    for method in (*GATES, replace(FULL, name="gate chosen on other folds")):
        found = await desk.measure(key, method)
        labels = scores(found.figures, ("accuracy", "macro_f1", "weighted_f1"))
        used = sorted({f"{f.deciding.least_confidence:g}" for f in found.fits.values()})
        rows.append([f"{method.name} ({', '.join(used)})", *labels, *answered_cells(found.judged, found.told)])
    head = ("gate", "accuracy", "macro F1", "weighted F1", "answered", "wrong among them", "taken back")
    return table(head, rows)


async def retrieval_table(desk: Desk) -> str:
    """The method as what it looks at gets better; fitted anew in each setting."""
    rows = []
    for setting in chosen(desk.world, RETRIEVAL):
        found = await desk.measure(setting.key, FULL)
        shown = scores(found.figures, ("accuracy", "macro_f1", "ece", "nll"))
        rows.append([setting.title, *recall_cells(found.judged), *shown, evidence_cell(found.judged, found.told)])
    recalls = tuple(f"recall@{k}: whole set / any" for k in (1, 3, 5))
    return table(("evidence", *recalls, "accuracy", "macro F1", "ECE", "NLL", "evidence P / R / F1"), rows)


async def stress_table(desk: Desk) -> str:
    """Other data with what was fitted to FEVER's retrieved sentences; nothing is fitted to them."""
    fitted = fit((await desk.measure("bm25", FULL)).judged, FULL, backend=desk.backend, source="bm25", memo={})
    fits = dict.fromkeys(range(FOLDS), fitted)
    rows = []
    for setting in chosen(desk.world, STRESS_KEYS):
        base = (await desk.measure(setting.key, TOP)).figures
        for method in (CLAIM_ONLY, TOP):
            found = await desk.measure(setting.key, method)
            rows.append([f"{setting.title}: {method.name}", str(found.figures.n), *scores(found.figures)])
            rows[-1] += against(found.figures, base)
        judged = await desk.judged(setting, "full")
        found_full = figures(judged, told_by(judged, fits, FULL), seed=desk.seed)
        rows.append([f"{setting.title}: DAVinCI as fitted to FEVER", str(found_full.n), *scores(found_full)])
        rows[-1] += against(found_full, base)
        if setting.key in TWO_LABELS:
            for method in (CLAIM_ONLY, TOP):
                row = await two_row(desk, setting.key, method)
                rows.append([f"{setting.title}: {row[0]}", *row[1:9], *row[10:]])
    return table((*HEAD[:9], *HEAD[10:]), rows)


async def two_row(desk: Desk, key: str, method: Method) -> list[str]:
    """A method that has to say supports or refutes, whichever is likelier; among equals refutes."""
    measured = await desk.measure(key, method)
    found = figures(measured.judged, two_labels(measured.told), stated=False, seed=desk.seed)
    base = figures(measured.judged, two_labels((await desk.measure(key, TOP)).told), stated=False, seed=desk.seed)
    against_top = against(found, None if method == TOP else base)
    return [f"two labels: {method.name}", str(found.n), *scores(found), "", *against_top]


async def reliability_text(desk: Desk, key: str) -> str:
    """Stated confidence against the share that is right, without calibration and with it."""
    parts = []
    for name, method in (("best sentence, as it comes", TOP), ("DAVinCI, full", FULL)):
        found = await desk.measure(key, method)
        confidences, correct = hits([t.probs for t in found.told], [j.row.gold for j in found.judged])
        parts.append("\n".join(reliability_lines(reliability([min(c, 1.0) for c in confidences], correct), name)))
    return "```text\n" + "\n\n".join(parts) + "\n```"


def _row(method: Method, found: Measured, top: Figures, seed: int) -> list[str]:
    f = found.figures
    other = None if method == TOP else top
    return [
        method.name,
        str(f.n),
        *scores(f, SCORES),
        evidence_cell(found.judged, found.told, seed),
        *against(f, other),
    ]


async def print_tables(desk: Desk, about: str) -> None:
    """All tables, in Markdown."""
    print(about)
    titles = {key: one.title for key, one in desk.world.settings.items()}
    for key in MAIN_KEYS:
        print(f"\n## {titles[key]}\n\n{await main_table(desk, key)}", flush=True)
    print("\n## CLIMATE-FEVER with disputed claims, four labels\n")
    fourth = [TOP, AGGREGATIONS[0], replace(AGGREGATIONS[0], name='mean that may say "disputed"', disputed=True)]
    fourth += [FULL, replace(FULL, name=f'{FULL.name}, that may say "disputed"', disputed=True)]
    print(await methods_table(desk, "climate", fourth, disputed=True), flush=True)
    print("\n## Spans: what BM25 found, a text for each page\n")
    spans = [FULL, replace(FULL, name="… judged by spans", form="span")]
    print(await methods_table(desk, "pages", spans), flush=True)
    for key in ("oracle", "bm25", "climate"):
        print(f"\n## Aggregation: {titles[key]}\n\n{await methods_table(desk, key, AGGREGATIONS)}", flush=True)
    for key in ("oracle", "bm25", "climate"):
        print(f"\n## Gate: {titles[key]}\n\n{await gate_table(desk, key)}", flush=True)
    print(
        f"\n## Retrieval\n\nFEVER's own retriever: {desk.world.retriever}.\n\n{await retrieval_table(desk)}", flush=True
    )
    print(f"\n## Stress tests\n\n{await stress_table(desk)}", flush=True)
    for key in ("bm25", "climate"):
        print(f"\n## Reliability: {titles[key]}\n\n{await reliability_text(desk, key)}", flush=True)
    for key in ("bm25", "climate"):
        print(f"\n## Combining evidence alone (LPF): {titles[key]}\n\n{await acceptance(desk, key)}", flush=True)
        print(f"\nEvidence replaced by that of other claims, macro F1:\n\n{await replacing(desk, key)}", flush=True)
        print(
            f"\nNear copies of the most decisive passage: mean rise of the probability of the verdict, and share of "
            f"claims where it is more than 0.02:\n\n{await copying(desk, key)}",
            flush=True,
        )
    print("\n## Combining evidence alone (LPF): CLIMATE-FEVER with disputed claims\n")
    print(await acceptance(desk, "climate", disputed=True))


async def work(given: argparse.Namespace) -> None:
    """Judge, and print the tables if they are wanted."""
    settings = load_settings()
    world = await read_world(given.data, settings, limit=given.limit, index=given.index, seed=given.seed)
    entailment = await open_entailment(given.entailment, settings)
    with VerdictStore(given.work / "verdicts.sqlite") as store:
        stored = StoredEntailment(entailment, store)
        try:
            desk = Desk(world, stored, entailment.identity, given.seed)
            await desk.fill()
            if given.step == "table":
                now = datetime.datetime.now(datetime.UTC)
                counts = ", ".join(
                    f"{one.key} {len(one.rows):,}" for one in world.settings.values() if "~" not in one.key
                )
                about = (
                    f"{now:%Y-%m-%d %H:%M} UTC; reason {__version__}, Python {platform.python_version()}, numpy "
                    f"{np.__version__}; {processor()}.\n\nJudge: {given.entailment} (`{entailment.identity}`). Seed "
                    f"{given.seed}, {RESAMPLES:,} resamples, {FOLDS} folds. Claims: {counts}."
                )
                await print_tables(desk, about)
        finally:
            await stored.aclose()


def main() -> None:
    """Do a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("judge", "table"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--entailment", default="embedded", help="what judges")
    parser.add_argument("--work", type=Path, required=True, help="folder of the stored verdicts")
    parser.add_argument("--index", type=Path, help="index for FEVER's own retriever; by default the corpus by words")
    parser.add_argument("--limit", type=int, help="most claims of each data set")
    parser.add_argument("--seed", type=int, default=0)
    asyncio.run(work(parser.parse_args()))


if __name__ == "__main__":
    main()
