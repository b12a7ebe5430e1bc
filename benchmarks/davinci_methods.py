"""The methods that the tables of verification compare, and the baselines that judge nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from reason.evals.verifying.judging import Judged
from reason.evals.verifying.methods import Method, Told
from reason.evals.verifying.unseen import FOLDS, fold_of
from reason.verify.calibration.scores import LABELS
from reason.verify.fusion.parameters import FusionParameters
from reason.verify.support import Label, support

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


def majority(judged: Sequence[Judged]) -> list[Told]:
    """The commonest label of the other folds, with its shares there as probabilities."""
    parts = [fold_of(one.row.group or one.row.name) for one in judged]
    told = {}
    for part in range(FOLDS):
        counts = Counter(one.row.gold for one, p in zip(judged, parts, strict=True) if p != part)
        if counts:
            best = max(sorted(counts), key=lambda label: counts[label])
            told[part] = Told(best, support(counts[label] + 0.5 for label in LABELS))
    return [told[part] for part in parts]


def always(judged: Sequence[Judged], label: Label) -> list[Told]:
    """One label for all, which states no probabilities worth scoring."""
    sure = support(float(label == other) for other in LABELS)
    return [Told(label, sure) for _ in judged]
