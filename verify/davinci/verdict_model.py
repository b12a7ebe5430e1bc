"""`VerdictModel`: the calibrated verdict on a claim from its features, and the thresholds of a decisive one.

A multinomial logistic regression with L2 whose weights have the signs that the features mean. It is fitted on several
datasets of equal weight and with classes of equal weight, so that neither a large dataset nor a common label becomes a
prior. The thresholds bound the share of claims that are wrongly called supported (and refuted) on each dataset, by
models that were fitted without it: what holds on data that a model has not seen may hold for a user's documents.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", for calibration by a fitted map of logits; Rawte et
al. 2026, arXiv:2604.21193, for the gate. Features, weights of datasets and the choice of thresholds are ours.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, model_validator

from ...core.calibration_fit import ece
from ...core.errors import UserError
from ...core.files import FittedFile, read_fitted_file, write_fitted_file
from ...core.messages import Frozen
from ...core.types import Probability
from ...core.version import __version__
from ..metrics import LABELS, MIN_PROBABILITY, GoldLabel, macro_f1, top_label_hits
from ..types import Support
from .features import FEATURE_NAMES, FEATURES

Array = NDArray[np.float64]

KIND: Final = "reason verdict model"
FORMAT: Final = 1
_FIT_HINT: Final = "fit one with training/judge/calibrate_verdicts.py"

# -- the model and its file


class HeldOutScores(Frozen):
    """How a model does on a dataset that it was not fitted on, with the thresholds that ship.

    Attributes:
        part: The dataset, or the set of it.
        claims: Its claims.
        accuracy: Share of right verdicts of three; a disputed claim is right as not enough evidence.
        macro_f1: Mean F1 of the labels that occur.
        ece: Expected calibration error of the top label's probability, ten bins.
        false_supported: Share of supported ones among the claims whose gold label is another.
        false_refuted: Share of refuted ones among the claims whose gold label is another.
        wrong_supported: Share of wrong ones among the supported; None if none is.
        decided: Share of supported and refuted ones.
    """

    part: str
    claims: int
    accuracy: Probability
    macro_f1: Probability
    ece: Probability
    false_supported: Probability
    false_refuted: Probability
    wrong_supported: Probability | None
    decided: Probability


class VerdictModel(FittedFile):
    """Weights of the features, and thresholds, for one judge.

    Attributes:
        kind: What the file is.
        format: Version of the file format.
        name: The file's stem; empty before it is saved.
        judge: Identity of what judged the pairs.
        supports: Weight of each feature for the log-odds of "supports" to "neutral".
        refutes: The same of "refutes".
        intercepts: Their constants.
        supported: Minimum probability of "supported".
        refuted: Minimum probability of "refuted".
        data: Hash of the examples; empty if there were none.
        scores: How it does on each dataset, fitted without it.
        version: Version of `reason`.
    """

    kind: Literal["reason verdict model"] = KIND
    format: Literal[1] = FORMAT
    name: str = ""
    judge: str
    supports: dict[str, FiniteFloat]
    refutes: dict[str, FiniteFloat]
    intercepts: tuple[FiniteFloat, FiniteFloat]
    supported: Annotated[FiniteFloat, Field(gt=0)]
    refuted: Annotated[FiniteFloat, Field(gt=0)]
    data: str = ""
    scores: tuple[HeldOutScores, ...] = ()
    version: str = __version__

    @model_validator(mode="after")
    def _has_all_features(self) -> Self:
        for side in (self.supports, self.refutes):
            if tuple(side) != FEATURE_NAMES:
                wrong = sorted({*side} ^ {*FEATURE_NAMES}) or ["their order"]
                raise ValueError(f"the features differ from those of this version: {', '.join(wrong)}")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({sum(s.claims for s in self.scores)} claims)".lstrip()

    def probabilities(self, features: Sequence[float]) -> Support:
        """The calibrated probabilities of a claim by its features (`FEATURES`)."""
        logits = (
            self.intercepts[0] + math.fsum(w * x for w, x in zip(self.supports.values(), features, strict=True)),
            self.intercepts[1] + math.fsum(w * x for w, x in zip(self.refutes.values(), features, strict=True)),
            0.0,
        )
        top = max(logits)
        powers = [math.exp(logit - top) for logit in logits]
        total = math.fsum(powers)
        return Support(*(power / total for power in powers))


def save_verdict_model(model: VerdictModel, path: Path) -> None:
    """Write a model as JSON, atomically; its name is the file's stem.

    Raises:
        StoreError: It cannot be written; the previous content stays.
    """
    write_fitted_file(model, path)


def load_verdict_model(path: Path) -> VerdictModel:
    """Read a model.

    Raises:
        DataError: The file does not exist, cannot be read, or is not a valid verdict model of this version.
    """
    return read_fitted_file(path, VerdictModel, kind=KIND, format=FORMAT, label="verdict model", hint=_FIT_HINT)


# -- fitting

MIN_EXAMPLES: Final = 40
"""Fewer examples would fit noise."""
PENALTY: Final = 1e-2
"""L2 penalty on the weights of standardised features; the total weight of the examples is 1."""
REFUTED_FACTOR: Final = 2
"""The bound on false "refuted" verdicts, in units of the one on false "supported" verdicts."""
MIN_THRESHOLD: Final = 0.5
"""No verdict is decisive that is not more probable than both others together."""
MAX_THRESHOLD: Final = 0.99
"""Where a dataset has more wrong verdicts even above it, no threshold keeps the bound, and the scores show it."""
_NEWTON_STEPS: Final = 100
_LINE_SEARCH_STEPS: Final = 30


@dataclass(frozen=True, slots=True)
class VerdictExample:
    """A claim as the model sees it.

    Attributes:
        features: Its features (`FEATURES`).
        gold: The right label; "disputed" ones are not fitted to, but must not be called supported.
        dataset: Where it is from.
        group: Claims of one group are not independent.
        part: The set of the dataset that it belongs to, which keeps the bound by itself; the dataset by default. A
            dataset may be shown with gold and with retrieved evidence.
    """

    features: tuple[float, ...]
    gold: GoldLabel
    dataset: str
    group: str = ""
    part: str = ""


class FittedVerdicts(NamedTuple):
    """What was fitted.

    Attributes:
        model: The model, fitted to all examples, with the thresholds.
        held_out: The probabilities of each example, in order, by a model fitted without its dataset.
    """

    model: VerdictModel
    held_out: tuple[Support, ...]


def fit_verdict_model(
    examples: Sequence[VerdictExample], *, judge: str, max_false_supported: float = 0.05
) -> FittedVerdicts:
    """Fit a model and choose its thresholds; deterministic and independent of the order of the examples.

    For each dataset, a model is fitted to the others. The threshold of "supported" is the smallest with which, on each
    part of a dataset by such a model, at most the given share of the claims that are not supported are called so;
    the threshold of "refuted" likewise, with twice the share: a false "refuted" makes the reader check a claim, a false
    "supported" keeps them from it. With a single dataset the parts are fifths of its groups.

    Args:
        examples: Development data.
        judge: Identity of what judged the pairs.
        max_false_supported: The bound, in (0, 0.5).

    Raises:
        UserError: There are fewer than 40 examples, a label is missing altogether, or the bound is not in (0, 0.5).
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
    keys = [_key(example) for example in examples]
    order = sorted(range(len(examples)), key=keys.__getitem__)
    ordered = [examples[i] for i in order]
    parts = _left_out_with(ordered)
    probs: list[Support] = [Support(0.0, 0.0, 1.0)] * len(ordered)
    for part in dict.fromkeys(parts):
        weights = _fit([e for e, p in zip(ordered, parts, strict=True) if p != part])
        for i in (i for i, p in enumerate(parts) if p == part):
            probs[i] = _apply(weights, ordered[i].features)
    supported = choose_threshold(ordered, probs, "supports", max_false_supported)
    refuted = choose_threshold(ordered, probs, "refutes", REFUTED_FACTOR * max_false_supported)
    final = _fit(ordered)
    model = VerdictModel(
        judge=judge,
        supports=dict(zip(FEATURE_NAMES, map(float, final[0, 1:]), strict=True)),
        refutes=dict(zip(FEATURE_NAMES, map(float, final[1, 1:]), strict=True)),
        intercepts=(float(final[0, 0]), float(final[1, 0])),
        supported=supported,
        refuted=refuted,
        data=hashlib.sha256("\n".join(keys[i] for i in order).encode()).hexdigest()[:16],
        scores=tuple(_scores(name, ordered, probs, supported, refuted) for name in sorted(set(map(part_of, ordered)))),
    )
    held_out: list[Support] = list(probs)
    for position, i in enumerate(order):
        held_out[i] = probs[position]
    return FittedVerdicts(model, tuple(held_out))


def choose_threshold(
    examples: Sequence[VerdictExample],
    probs: Sequence[Support],
    label: Literal["supports", "refutes"],
    max_false: float,
) -> float:
    """The smallest threshold of a label with which no part of a dataset has more than a share of false verdicts.

    The share is of the claims whose gold label is another; a verdict is the top label with at least the threshold.
    At least 0.5; at most 0.99, where a part keeps the bound with no threshold.
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
    """The set that keeps the bound by itself."""
    return example.part or example.dataset


def _left_out_with(examples: Sequence[VerdictExample]) -> list[str]:
    """What each example is left out with: its dataset or, if there is only one, a fifth of its groups."""
    if len({example.dataset for example in examples}) > 1:
        return [example.dataset for example in examples]
    return [
        str(int.from_bytes(hashlib.sha256((example.group or _key(example)).encode()).digest()[:8], "big") % 5)
        for example in examples
    ]


def _key(example: VerdictExample) -> str:
    return json.dumps(
        [example.dataset, example.part, example.group, example.gold, [float(x).hex() for x in example.features]]
    )


def _fit(examples: Sequence[VerdictExample]) -> Array:
    """Weights `[2, 1 + features]` (constant first) of "supports" and "refutes"."""
    plain = [example for example in examples if example.gold != "disputed"]
    golds = np.array([LABELS.index(example.gold) for example in plain], dtype=np.intp)
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
    theta = _minimize(design, np.eye(3)[golds][:, :2], weights)
    slopes = theta[:, 1:] / scale
    result: Array = np.column_stack([theta[:, 0] - slopes @ mean, slopes])
    return result


def _minimize(design: Array, hot: Array, weights: Array) -> Array:
    """Weights `[2, 1 + features]` with the lowest penalised loss, each of its feature's sign or 0.

    Source: Bertsekas 1982, "Projected Newton methods for optimization problems with simple constraints": a Newton step
    in the weights that are not held at 0, projected, with a line search.
    """
    size = design.shape[1]
    signs = np.array([[0, *(f.supports for f in FEATURES)], [0, *(f.refutes for f in FEATURES)]]).ravel()
    penalty = np.tile(np.r_[0.0, np.full(size - 1, PENALTY)], 2)

    def project(theta: Array) -> Array:
        return np.where(signs > 0, np.maximum(theta, 0), np.where(signs < 0, np.minimum(theta, 0), theta))

    def evaluate(theta: Array) -> tuple[float, Array]:
        logits = np.column_stack([design @ theta[:size], design @ theta[size:], np.zeros(len(design))])
        logits -= logits.max(axis=1, keepdims=True)
        p = np.exp(logits)
        p /= p.sum(axis=1, keepdims=True)
        gold = np.where(hot.any(axis=1), (p[:, :2] * hot).sum(axis=1), p[:, 2])
        loss = float(-weights @ np.log(np.maximum(gold, MIN_PROBABILITY)) + 0.5 * penalty @ theta**2)
        return loss, p[:, :2]

    theta = np.zeros(2 * size)
    loss, p = evaluate(theta)
    for _ in range(_NEWTON_STEPS):
        gradient = (design.T @ (weights[:, None] * (p - hot))).T.ravel() + penalty * theta
        free = (theta != 0) | (signs == 0) | (signs * gradient < 0)
        hessian = np.diag(penalty + 1e-9)
        for a in range(2):
            for b in range(2):
                curvature = weights * p[:, a] * ((a == b) - p[:, b])
                hessian[a * size : (a + 1) * size, b * size : (b + 1) * size] += (design.T * curvature) @ design
        step = np.zeros(2 * size)
        step[free] = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        for halving in range(_LINE_SEARCH_STEPS):
            candidate = project(theta - step / 2**halving)
            candidate_loss, candidate_p = evaluate(candidate)
            if candidate_loss < loss:
                break
        else:
            break
        is_done = loss - candidate_loss < 1e-12
        theta, loss, p = candidate, candidate_loss, candidate_p
        if is_done:
            break
    return theta.reshape(2, size)


def _apply(weights: Array, features: Sequence[float]) -> Support:
    logits = np.r_[weights[:, 0] + weights[:, 1:] @ np.array(features), 0.0]
    powers = np.exp(logits - logits.max())
    return Support(*(float(power) for power in powers / powers.sum()))


def decided_label(probs: Support, supported: float, refuted: float) -> Literal["supports", "refutes", "neutral"]:
    """The top label, if it is decisive with at least its threshold; else neutral."""
    threshold = {"supports": supported, "refutes": refuted, "neutral": 0.0}[probs.label]
    return probs.label if probs.confidence >= threshold else "neutral"


def _scores(
    part: str, examples: Sequence[VerdictExample], probs: Sequence[Support], supported: float, refuted: float
) -> HeldOutScores:
    own = [(e, p) for e, p in zip(examples, probs, strict=True) if part_of(e) == part]
    golds = ["neutral" if e.gold == "disputed" else e.gold for e, _ in own]
    labels = [decided_label(p, supported, refuted) for _, p in own]
    plain = [(e.gold, p) for e, p in own if e.gold != "disputed"]
    confidences, correct = top_label_hits([p for _, p in plain], [g for g, _ in plain])

    def false_share(label: str) -> float:
        others = [x for x, gold in zip(labels, golds, strict=True) if gold != label]
        return others.count(label) / len(others) if others else 0.0  # type: ignore[arg-type]

    right = [gold for x, gold in zip(labels, golds, strict=True) if x == "supports"]
    return HeldOutScores(
        part=part,
        claims=len(own),
        accuracy=sum(x == gold for x, gold in zip(labels, golds, strict=True)) / len(own),
        macro_f1=macro_f1(labels, golds, sorted({*golds})),
        ece=ece([min(c, 1.0) for c in confidences], correct) if confidences else 0.0,
        false_supported=false_share("supports"),
        false_refuted=false_share("refutes"),
        wrong_supported=sum(gold != "supports" for gold in right) / len(right) if right else None,
        decided=sum(x != "neutral" for x in labels) / len(own),
    )
