"""Tables on combining evidence (LPF): methods without calibration and gate, replaced evidence, near copies."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace

from davinci_cells import against, interval, scores, table
from davinci_desk import Desk, Measured
from davinci_methods import LPF
from davinci_settings import SHARES
from lpf_table import CHANGES, COPIES, MOST_RISE, risen, with_copies
from reason.evals.verifying.figures import figures_of
from reason.evals.verifying.methods import Method, examples_of, told_by
from reason.evals.verifying.unseen import fold_of
from reason.verify.fusion.fusing import fuse

_COPIED = 300
"""Claims that near copies are added to."""


async def acceptance(desk: Desk, key: str, *, disputed: bool = False) -> str:
    """Each way of combining, with differences to the mean."""
    methods = [replace(m, disputed=disputed and m.aggregation not in ("concat", "top")) for m in LPF]
    rows = []
    base = (await desk.measure(key, methods[0], disputed=disputed)).figures
    for method in methods:
        found = await desk.measure(key, method, disputed=disputed)
        names = ("accuracy", "macro_f1", "nll", "brier", "ece")
        rows.append(
            [
                method.name,
                str(found.figures.n),
                *scores(found.figures, names),
                *against(found.figures, base),
                _own(found),
            ]
        )
    head = ("method", "n", "accuracy", "macro F1", "NLL", "Brier", "ECE")
    return table((*head, "Δ accuracy (p)", "Δ macro F1", "Δ ECE", "fitted, by fold"), rows)


async def replacing(desk: Desk, key: str) -> str:
    """Accuracy, macro F1 and ECE as evidence is replaced by that of other claims; fitted without."""
    rows = []
    for method in LPF:
        clean = await desk.measure(key, method)
        cells = []
        for share in SHARES:
            judged = clean.judged
            if share:
                judged = await desk.judged(desk.world.settings[f"{key}~{share:g}"], method.form)
            told = told_by(judged, clean.fits, method)
            found = figures_of(
                [one.row.gold for one in judged],
                [one.label for one in told],
                [one.probs for one in told],
                [one.row.group or one.row.name for one in judged],
                seed=desk.seed,
            )
            cells.append(f"{interval(found, 'macro_f1')}; ECE {found.values['ece']:.3f}")
        rows.append([method.name, *cells])
    return table(("method", *(f"{100 * share:.0f} %" for share in SHARES)), rows)


async def copying(desk: Desk, key: str) -> str:
    """How far near copies of the most decisive passage raise the probability of the verdict."""
    rows = []
    methods = [m for m in LPF if m.name in ("mean", "product, fitted", "witness, fitted")]
    for method, merge in ((m, True) for m in methods):
        rows += await _copied(desk, key, method, merge=merge)
    rows += await _copied(desk, key, methods[-1], merge=False)
    return table(("method", "words changed", *(f"{n} copies" for n in COPIES)), rows)


async def _copied(desk: Desk, key: str, method: Method, *, merge: bool) -> list[list[str]]:
    measured = await desk.measure(key, method)
    examples = examples_of(measured.judged)
    words = [word for e in examples for item in e.items for word in item.text.split()]
    taken = [i for i, e in enumerate(examples) if e.items][:_COPIED]
    rows = []
    for changes in CHANGES:
        cells = []
        for copies in COPIES:
            rng = random.Random(f"{desk.seed} {changes} {copies}")
            rises = []
            for i in taken:
                row = measured.judged[i].row
                fusion = measured.fits[fold_of(row.group or row.name)].deciding.fusion
                fusion = fusion.model_copy(update={"merge": merge})
                more = with_copies(examples[i], copies, changes, rng, words)
                rises.append(risen(fuse(examples[i].items, fusion), fuse(more.items, fusion)))
            over = sum(rise > MOST_RISE for rise in rises) / len(rises)
            cells.append(f"{statistics.mean(rises):+.4f} ({100 * over:.1f} %)")
        rows.append([method.name if merge else f"{method.name}, nothing merged", str(changes), *cells])
    return rows


def _own(found: Measured) -> str:
    """What was fitted in each fold."""
    told = []
    for one in found.fits.values():
        p = one.deciding.fusion
        if one.fusion is None:
            continue
        own = f"β {p.beta:g}" if p.mode == "product" else f"a {p.a:g} π {p.pi:.2f}"
        told.append(f"{own} δ {p.delta:g} T {p.final_temperature:g}")
    return "; ".join(told)
