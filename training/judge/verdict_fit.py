"""The fit of a verdict model: a multinomial logistic regression with L2 whose weights have the signs of their features.

It is fitted on several datasets of equal weight and with classes of equal weight, so that neither a large dataset nor a
common label becomes a prior. The thresholds bound the share of claims that are wrongly called supported (and refuted)
on each dataset, by models that were fitted without it.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", for calibration by a fitted map of logits; weights of
datasets and the choice of thresholds are ours.
"""  # noqa: E501

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from reason.core.errors import UserError
from reason.evals.statistics.calibration import ece
from reason.verify.davinci.decision import HeldOutScores, VerdictModel, decided_label
from reason.verify.davinci.features import FEATURE_NAMES
from reason.verify.types import Label, Support
from scipy.optimize import minimize
from scipy.special import logsumexp

Array = NDArray[np.float64]

LABELS: Final[tuple[Label, ...]] = ("supports", "refutes", "neutral")
GoldLabel = Literal["supports", "refutes", "neutral", "disputed"]
"""The relation of the evidence to a claim; "disputed": some of it supports the claim and some refutes it."""

SIGNS: Final = ((1, -1, 1, -1, -1, -1, -1), (-1, 1, 1, -1, 1, -1, 1))
"""What each feature may do to the log-odds of "supports" and of "refutes" to neutral: raise (1) or lower (-1) them. Its
meaning fixes the direction. A fit that is free to choose learns how datasets were made, for example that the false
claims of one share more words with their evidence than those of another."""
MIN_EXAMPLES: Final = 40
"""Fewer examples would fit noise."""
PENALTY: Final = 1e-2
"""L2 penalty on the weights of standardised features; the total weight of the examples is 1."""
REFUTED_FACTOR: Final = 2
"""The bound on false "refuted" verdicts, in units of the one on false "supported" verdicts: a false "refuted" makes the
reader check a claim, a false "supported" keeps them from it."""
MIN_THRESHOLD: Final = 0.5
"""No verdict is decisive that is not more probable than both others together."""
MAX_THRESHOLD: Final = 0.99
"""Where a dataset has more wrong verdicts even above it, no threshold keeps the bound, and the scores show it."""


@dataclass(frozen=True, slots=True)
class VerdictExample:
    """A claim as the model sees it; the claims of a `part` of a dataset keep the bound by themselves."""

    features: tuple[float, ...]
    gold: GoldLabel
    dataset: str
    group: str = ""
    part: str = ""

    @property
    def key(self) -> str:
        """All of it as text, by which examples are ordered."""
        return json.dumps([self.dataset, self.part, self.group, self.gold, [float(x).hex() for x in self.features]])


class FittedVerdicts(NamedTuple):
    """The model, fitted to all examples, and the probabilities of each example by a fit without its dataset."""

    model: VerdictModel
    held_out: tuple[Support, ...]


def fit_verdict_model(
    examples: Sequence[VerdictExample], *, judge: str, max_false_supported: float = 0.05
) -> FittedVerdicts:
    """Fit a model and choose its thresholds; deterministic and independent of the order of the examples.

    For each dataset, a model is fitted to the others. The threshold of "supported" is the smallest with which, on each
    part of a dataset by such a model, at most the given share of the claims that are not supported are called so;
    that of "refuted" likewise, with twice the share. With a single dataset the parts are fifths of its groups.
    """
    if not 0 < max_false_supported < 1 / REFUTED_FACTOR:
        raise UserError(
            f"the bound on false verdicts must be in (0, {1 / REFUTED_FACTOR:g}), got {max_false_supported:g}"
        )
    plain = sum(example.gold != "disputed" for example in examples)
    if plain < MIN_EXAMPLES:
        raise UserError(
            f"a verdict model needs at least {MIN_EXAMPLES} claims that are not disputed, got {plain}",
            hint="use more development data",
        )
    order = sorted(range(len(examples)), key=lambda i: examples[i].key)
    ordered = [examples[i] for i in order]
    left_out = _left_out_with(ordered)
    probs: list[Support] = [Support(0.0, 0.0, 1.0)] * len(ordered)
    for part in dict.fromkeys(left_out):
        without = _model(judge, _fit([e for e, p in zip(ordered, left_out, strict=True) if p != part]))
        probs = [
            without.probabilities(e.features) if p == part else known
            for e, p, known in zip(ordered, left_out, probs, strict=True)
        ]
    supported = choose_threshold(ordered, probs, "supports", max_false_supported)
    refuted = choose_threshold(ordered, probs, "refutes", REFUTED_FACTOR * max_false_supported)
    names = sorted(set(map(part_of, ordered)))
    model = _model(
        judge,
        _fit(ordered),
        supported=supported,
        refuted=refuted,
        data=hashlib.sha256("\n".join(example.key for example in ordered).encode()).hexdigest()[:16],
        scores=tuple(_scores(name, ordered, probs, supported, refuted) for name in names),
    )
    held_out = dict(zip(order, probs, strict=True))
    return FittedVerdicts(model, tuple(held_out[i] for i in range(len(examples))))


def choose_threshold(
    examples: Sequence[VerdictExample],
    probs: Sequence[Support],
    label: Literal["supports", "refutes"],
    max_false: float,
) -> float:
    """The smallest threshold of a label with which no part of a dataset has more than a share of false verdicts.

    The share is of the claims whose gold label is another; a verdict is the top label with at least the threshold.
    """
    threshold = MIN_THRESHOLD
    for part in {part_of(example) for example in examples}:
        others = sorted(
            (
                getattr(p, label) if p.label == label else 0.0
                for example, p in zip(examples, probs, strict=True)
                if part_of(example) == part and example.gold != label
            ),
            reverse=True,
        )
        allowed = int(max_false * len(others))
        if len(others) > allowed:
            # just above the first one that would be too many
            threshold = max(threshold, math.nextafter(others[allowed], 2.0))
    return min(threshold, MAX_THRESHOLD)


def part_of(example: VerdictExample) -> str:
    return example.part or example.dataset


def _left_out_with(examples: Sequence[VerdictExample]) -> list[str]:
    """What each example is left out with: its dataset or, if there is only one, a fifth of its groups."""
    if len({example.dataset for example in examples}) > 1:
        return [example.dataset for example in examples]
    return [
        str(int.from_bytes(hashlib.sha256((example.group or example.key).encode()).digest()[:8], "big") % 5)
        for example in examples
    ]


def _model(judge: str, weights: Array, supported: float = 0.5, refuted: float = 0.5, **values: object) -> VerdictModel:
    sides = [dict(zip(FEATURE_NAMES, map(float, row[1:]), strict=True)) for row in weights]
    return VerdictModel.model_validate(
        {
            "judge": judge,
            "supports": sides[0],
            "refutes": sides[1],
            "intercepts": tuple(map(float, weights[:, 0])),
            "supported": supported,
            "refuted": refuted,
            **values,
        }
    )


def _fit(examples: Sequence[VerdictExample]) -> Array:
    """Weights `[2, 1 + features]` (constant first) of "supports" and "refutes" with the least penalised loss."""
    plain = [example for example in examples if example.gold != "disputed"]
    golds = np.array([LABELS.index(example.gold) for example in plain if example.gold != "disputed"], dtype=np.intp)
    missing = [label for i, label in enumerate(LABELS) if not (golds == i).any()]
    if missing:
        raise UserError(
            f"no example has the gold label {missing[0]!r}" + (" in a part of the data" if len(examples) else ""),
            hint="use datasets with all three labels, at least two of them with each",
        )
    raw = np.array([example.features for example in plain], dtype=np.float64)
    sizes = {d: sum(e.dataset == d for e in plain) for d in {e.dataset for e in plain}}
    weights = np.array([1 / sizes[example.dataset] for example in plain])
    for i in range(len(LABELS)):
        weights[golds == i] /= weights[golds == i].sum() * len(LABELS)
    mean = weights @ raw
    scale = np.sqrt(weights @ (raw - mean) ** 2)
    scale[scale < 1e-9] = 1.0
    design = np.column_stack([np.ones(len(raw)), (raw - mean) / scale])
    hot = np.eye(3)[golds]
    size = design.shape[1]
    penalty = np.tile(np.r_[0.0, np.full(size - 1, PENALTY)], 2)

    def loss(theta: Array) -> tuple[float, Array]:
        logits = np.column_stack([design @ theta[:size], design @ theta[size:], np.zeros(len(design))])
        logs = logits - logsumexp(logits, axis=1, keepdims=True)
        slopes = design.T @ (weights[:, None] * (np.exp(logs) - hot)[:, :2])
        value = float(-weights @ (logs * hot).sum(axis=1) + penalty @ theta**2 / 2)
        return value, slopes.T.ravel() + penalty * theta

    bounds: list[tuple[float | None, float | None]] = []
    for signs in SIGNS:
        bounds += [(None, None), *((0, None) if sign > 0 else (None, 0) for sign in signs)]
    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10}
    found = minimize(loss, np.zeros(2 * size), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    theta = found.x.reshape(2, size)
    slopes = theta[:, 1:] / scale
    return np.column_stack([theta[:, 0] - slopes @ mean, slopes])


def _scores(
    part: str, examples: Sequence[VerdictExample], probs: Sequence[Support], supported: float, refuted: float
) -> HeldOutScores:
    own = [(e, p) for e, p in zip(examples, probs, strict=True) if part_of(e) == part]
    rows = [("neutral" if e.gold == "disputed" else e.gold, decided_label(p, supported, refuted)) for e, p in own]
    plain = [(e.gold, p) for e, p in own if e.gold != "disputed"]

    def false_share(label: str) -> float:
        others = [told for gold, told in rows if gold != label]
        return others.count(label) / len(others) if others else 0.0

    supports = [gold for gold, told in rows if told == "supports"]
    return HeldOutScores(
        part=part,
        claims=len(own),
        accuracy=sum(gold == told for gold, told in rows) / len(own),
        macro_f1=_macro_f1(rows),
        ece=ece([min(p.confidence, 1.0) for _, p in plain], [p.label == gold for gold, p in plain]) if plain else 0.0,
        false_supported=false_share("supports"),
        false_refuted=false_share("refutes"),
        wrong_supported=sum(gold != "supports" for gold in supports) / len(supports) if supports else None,
        decided=sum(told != "neutral" for _, told in rows) / len(own),
    )


def _macro_f1(rows: Sequence[tuple[str, str]]) -> float:
    """Mean F1 of the gold labels that occur."""
    f1s = []
    for label in sorted({gold for gold, _ in rows}):
        counts = sum(gold == label for gold, _ in rows) + sum(told == label for _, told in rows)
        f1s.append(2 * sum(gold == told == label for gold, told in rows) / counts)
    return sum(f1s) / len(f1s)
