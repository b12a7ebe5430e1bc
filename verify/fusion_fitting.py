"""Fitting the parameters of fusion to labelled claims on a grid, and the file of fitted parameters.

Parameters fitted to gold evidence are wrong for retrieved evidence, of which more is irrelevant: fit to the evidence
that will be used.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat

from ..core.errors import DataError, UserError
from ..core.files import FittedFile, read_fitted_file, write_fitted_file
from ..core.version import __version__
from .calibration import tempered_logs
from .fusion import (
    EvidenceItem,
    FusionParameters,
    WeightedItem,
    clip_probabilities,
    combine,
    conflict,
    fuse_evidence,
    mean_of,
    relevant_items,
    weigh_items,
    witness_factors,
)
from .metrics import LABELS, MIN_PROBABILITY, GoldLabel
from .types import NOTHING, Support

KIND: Final = "reason evidence fusion"
FORMAT: Final = 1
_FIT_HINT: Final = "fit one to this verifier's verdicts on development data with evidence of this source"


class FittedFusion(FittedFile):
    """Parameters with what they apply to.

    Attributes:
        kind: What the file is.
        format: Version of the file format.
        name: The file's stem; empty before it is saved.
        verifier: Identity of what judged the pairs, with its prompt.
        source: Source of the evidence, such as "gold" or "bm25@5": the share of irrelevant items, which `a` accounts
            for, depends on it.
        parameters: The fitted parameters.
        data: Hash of the examples.
        examples: Number of undisputed examples.
        disputed: Number of disputed examples, by which the threshold of conflict was chosen; 0 leaves it unchanged.
        nll_before: Mean negative log-likelihood with the initial parameters, in nats.
        nll: The same with the fitted ones, on the same data; never more.
        version: Version of `reason`.
    """

    kind: Literal["reason evidence fusion"] = KIND
    format: Literal[1] = FORMAT
    name: str = ""
    verifier: str
    source: str
    parameters: FusionParameters
    data: str
    examples: Annotated[int, Field(ge=1)]
    disputed: Annotated[int, Field(ge=0)]
    nll_before: FiniteFloat
    nll: FiniteFloat
    version: str

    def __str__(self) -> str:
        return f"{self.name} ({self.parameters.mode}, {self.examples} examples)".lstrip()

    def parameters_for(self, *, verifier: str, source: str) -> FusionParameters:
        """The parameters, with the file's digest, for the verifier and source that they were fitted to.

        Args:
            verifier: Identity of what judges the pairs now.
            source: Where the evidence comes from now.

        Raises:
            DataError: One of them differs; the message names both.
        """
        for field, fitted_value, value in (("verifier", self.verifier, verifier), ("evidence", self.source, source)):
            if fitted_value != value:
                raise DataError(
                    f"the fusion {self} was fitted to the {field} {fitted_value!r}, not to {value!r}", hint=_FIT_HINT
                )
        return self.parameters.model_copy(update={"fitted": self.digest})


def save_fusion(fitted: FittedFusion, path: Path) -> None:
    """Write fitted parameters as JSON, atomically; they are named after the file.

    Raises:
        StoreError: It cannot be written; the previous content stays.
    """
    write_fitted_file(fitted, path)


def load_fusion(path: Path) -> FittedFusion:
    """Read fitted parameters from their file.

    Raises:
        DataError: The file does not exist, cannot be read, or is not a valid file of this kind and version.
    """
    return read_fitted_file(path, FittedFusion, kind=KIND, format=FORMAT, label="evidence fusion", hint=_FIT_HINT)


Array = NDArray[np.float64]

MIN_EXAMPLES: Final = 20
"""Fewer examples would fit noise."""
A_GRID: Final = (0.1, *(n / 100 for n in range(15, 101, 5)))
BETA_GRID: Final = tuple(n / 100 for n in range(5, 101, 5))
TEMPERATURE_GRID: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 3.0)
RANK_GRID: Final = (0.5, 1.0)
CONFLICT_GRID: Final = tuple(n / 20 for n in range(1, 21))


@dataclass(frozen=True, slots=True)
class FusionExample:
    """A claim's evidence and its gold label; "disputed" examples only choose the threshold of conflict."""

    items: tuple[EvidenceItem, ...]
    gold: GoldLabel


def fit_fusion(
    examples: Sequence[FusionExample],
    *,
    verifier: str,
    source: str,
    start: FusionParameters | None = None,
) -> FittedFusion:
    """Fit `a` and the temperature ("witness"), `beta` and the temperature ("product"), or only the temperature.

    The result is the grid point with the lowest negative log-likelihood, or the start if none is better. Three more
    parameters change only if that lowers the loss by more than a standard error of the paired difference, since they
    gain little and may be worse on other claims: `pi` to the share of supported among the verifiable claims, with half
    a claim added on each side, `delta` to 0, and `rank` to 0.5 or 1. `theta_c` has the best F1 of "disputed", among
    equals the nearest to the current one.

    Args:
        examples: Development data, in any order; at least 20 that are not disputed.
        verifier: Identity of what judged the pairs, with its prompt.
        source: Source of the evidence.
        start: The mode and all parameters that are not fitted; None is the defaults of "witness".

    Raises:
        UserError: There are too few examples.
    """
    begin = (FusionParameters() if start is None else start).model_copy(update={"fitted": ""})
    undisputed = [e for e in examples if e.gold != "disputed"]
    if len(undisputed) < MIN_EXAMPLES:
        raise UserError(
            f"fusion needs at least {MIN_EXAMPLES} claims that are not disputed, got {len(undisputed)}",
            hint="use more development data",
        )
    # in a canonical order, so that the result is bitwise reproducible
    undisputed.sort(key=lambda e: data_hash([e]))
    before = _losses(_weigh(undisputed, begin), begin, (begin.final_temperature,))[0]
    best, losses = begin, before
    for variant in _variants(begin, undisputed):
        candidate, candidate_losses = _best(undisputed, variant)
        gains = losses - candidate_losses
        is_same = (variant.pi, variant.delta, variant.rank) == (begin.pi, begin.delta, begin.rank)
        if gains.mean() > (0.0 if is_same else gains.std(ddof=1) / math.sqrt(len(undisputed))):
            best, losses = candidate, candidate_losses
    disputed = len(examples) - len(undisputed)
    if disputed:
        best = best.model_copy(update={"theta_c": _threshold(_weigh(examples, best), best)})
    return FittedFusion(
        verifier=verifier,
        source=source,
        parameters=best,
        data=data_hash(examples),
        examples=len(undisputed),
        disputed=disputed,
        nll_before=float(before.mean()),
        nll=float(losses.mean()),
        version=__version__,
    )


def average_prediction(examples: Sequence[FusionExample]) -> Support:
    """The verifier's mean prediction over all items, clipped, for `FusionParameters.base`.

    Raises:
        UserError: There is no evidence.
    """
    means = [mean_of([clip_probabilities(sample) for sample in item.samples]) for e in examples for item in e.items]
    if not means:
        raise UserError("the examples have no evidence")
    return clip_probabilities(mean_of(means))


def data_hash(examples: Sequence[FusionExample]) -> str:
    """Sixteen hexadecimal digits over the examples, independent of the order of examples and items."""
    records = sorted(
        json.dumps([sorted(json.dumps(asdict(item), sort_keys=True) for item in e.items), e.gold]) for e in examples
    )
    return hashlib.sha256("\n".join(records).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _WeightedExample:
    """An example with its weighted items, which do not depend on the fitted parameters."""

    items: tuple[WeightedItem, ...]
    is_used: tuple[bool, ...]
    gold: GoldLabel


def _weigh(examples: Sequence[FusionExample], parameters: FusionParameters) -> list[_WeightedExample]:
    weighted = []
    for example in examples:
        items = weigh_items(example.items, parameters).items
        is_used = relevant_items(items, parameters.cap) if parameters.mode == "witness" else [True] * len(items)
        weighted.append(_WeightedExample(items, tuple(is_used), example.gold))
    return weighted


def _variants(begin: FusionParameters, undisputed: Sequence[FusionExample]) -> list[FusionParameters]:
    """Starting points of the grid search: the caller's parameters, then with other `pi`, `delta` and `rank`."""
    supported, refuted = (sum(e.gold == side for e in undisputed) for side in ("supports", "refutes"))
    share = (supported + 0.5) / (supported + refuted + 1)
    priors = dict.fromkeys((begin.pi, share)) if begin.mode == "witness" else {begin.pi: None}
    deltas = dict.fromkeys((begin.delta, 0.0))
    has_ranks = any(item.rank > 1 for e in undisputed for item in e.items)
    ranks = dict.fromkeys((begin.rank, *(RANK_GRID if has_ranks else ())))
    return [
        begin.model_copy(update={"pi": pi, "delta": delta, "rank": rank})
        for rank in ranks
        for delta in deltas
        for pi in priors
    ]


def _best(undisputed: Sequence[FusionExample], variant: FusionParameters) -> tuple[FusionParameters, Array]:
    """The best point of the grid, the first among equals, and the loss of each example there."""
    weighted = _weigh(undisputed, variant)
    name, grid = {"witness": ("a", A_GRID), "product": ("beta", BETA_GRID)}.get(variant.mode, ("pi", (variant.pi,)))
    best, losses = variant, np.full(len(undisputed), np.inf)
    for value in grid:
        candidate = variant.model_copy(update={name: value})
        for temperature, of_one in zip(TEMPERATURE_GRID, _losses(weighted, candidate, TEMPERATURE_GRID), strict=True):
            if of_one.mean() < losses.mean():
                best, losses = candidate.model_copy(update={"temperature": temperature}), of_one
    return best, losses


def _losses(
    weighted: Sequence[_WeightedExample], parameters: FusionParameters, temperatures: Sequence[float]
) -> list[Array]:
    """Negative log-likelihood of each example at each temperature; probabilities below 1e-12 count as 1e-12."""
    indices = np.array([LABELS.index(p.gold) for p in weighted], dtype=np.intp)
    with np.errstate(divide="ignore"):
        logs = np.log(np.array([_verdict(p, parameters) for p in weighted], dtype=np.float64))
    rows = np.arange(len(indices))
    floor = math.log(MIN_PROBABILITY)
    return [-np.maximum(tempered_logs(logs, t)[rows, indices], floor) for t in temperatures]


def _verdict(example: _WeightedExample, parameters: FusionParameters) -> Support:
    if not example.items:
        return NOTHING
    return combine(example.items, witness_factors(example.items, example.is_used, parameters), parameters)


def _threshold(weighted: Sequence[_WeightedExample], parameters: FusionParameters) -> float:
    """The threshold of conflict with the best F1 of "disputed"."""
    sides = [conflict(witness_factors(p.items, p.is_used, parameters)) for p in weighted]
    is_disputed = [p.gold == "disputed" for p in weighted]
    candidates: list[tuple[float, float, float]] = []
    for theta in CONFLICT_GRID:
        predicted = [s.degree >= theta and min(s) >= parameters.least_side for s in sides]
        both = sum(c and d for c, d in zip(predicted, is_disputed, strict=True))
        f1 = 2 * both / (sum(predicted) + sum(is_disputed))
        candidates.append((-f1, abs(theta - parameters.theta_c), theta))
    return min(candidates)[2]


def mean_loss(examples: Sequence[FusionExample], parameters: FusionParameters) -> float:
    """Mean negative log-likelihood of the undisputed examples, in nats, by `fuse_evidence`.

    Raises:
        UserError: There are none.
    """
    undisputed = [e for e in examples if e.gold != "disputed"]
    if not undisputed:
        raise UserError("all examples are disputed")
    losses = (
        -math.log(max(fuse_evidence(e.items, parameters).probs[LABELS.index(e.gold)], MIN_PROBABILITY))
        for e in undisputed
    )
    return math.fsum(losses) / len(undisputed)
