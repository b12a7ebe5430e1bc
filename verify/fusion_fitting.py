"""`FittedFusion`: parameters of fusion in a file, with whose verdicts they were fitted to; it refuses others.

`fit_fusion`: the few numbers of fusion from claims whose labels are known, by a grid; deterministic.

What is fitted on gold evidence is wrong for retrieved evidence, of which more is irrelevant: fit on what is used.
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
from .calibration import log_rows
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
from .metrics import LABELS, LEAST, GoldLabel
from .types import NOTHING, Support

KIND: Final = "reason evidence fusion"
FORMAT: Final = 1
MADE_BY: Final = "fit one to this verifier's verdicts on development data with evidence of this source"


class FittedFusion(FittedFile):
    """Parameters with what they may be used for.

    Attributes:
        kind: What the file is.
        format: Version of the file's form.
        name: The file's name without its ending; empty before it lies in one.
        verifier: Identity of what judged the pairs, with its prompt.
        source: Where the evidence came from, such as "gold" or "bm25@5": the share of irrelevant pieces, which `a`
            makes up for, depends on it.
        parameters: What was fitted.
        data: Hash of the examples.
        examples: Examples whose likelihood was looked at.
        disputed: Disputed examples, by which the threshold of conflict was chosen; 0 leaves it as it was.
        nll_before: Mean negative log-likelihood with the parameters it began from, in nats.
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
            DataError: One of them is another; names both.
        """
        for called, own, other in (("verifier", self.verifier, verifier), ("evidence", self.source, source)):
            if own != other:
                raise DataError(f"the fusion {self} was fitted to the {called} {own!r}, not to {other!r}", hint=MADE_BY)
        return self.parameters.model_copy(update={"fitted": self.digest})


def save_fusion(fitted: FittedFusion, path: Path) -> None:
    """Write fitted parameters as JSON, whole or not at all; their name is the file's.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    write_fitted_file(fitted, path)


def load_fusion(path: Path) -> FittedFusion:
    """Read fitted parameters from their file.

    Raises:
        DataError: There is no such file, it cannot be read, it is cut short, it holds something else, or it is of
            another version or has impossible values; names the file.
    """
    return read_fitted_file(path, FittedFusion, kind=KIND, format=FORMAT, called="evidence fusion", made_by=MADE_BY)


Array = NDArray[np.float64]

MIN_EXAMPLES: Final = 20
"""Examples below which nothing is fitted: it would follow the noise."""
A_GRID: Final = (0.1, *(n / 100 for n in range(15, 101, 5)))
BETA_GRID: Final = tuple(n / 100 for n in range(5, 101, 5))
TEMPERATURE_GRID: Final = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 3.0)
RANK_GRID: Final = (0.5, 1.0)
CONFLICT_GRID: Final = tuple(n / 20 for n in range(1, 21))


@dataclass(frozen=True, slots=True)
class FusionExample:
    """A claim's evidence and its right label; one of the label "disputed" tells of conflict alone."""

    items: tuple[EvidenceItem, ...]
    gold: GoldLabel


def fit_fusion(
    examples: Sequence[FusionExample],
    *,
    verifier: str,
    source: str,
    start: FusionParameters | None = None,
) -> FittedFusion:
    """Fit `a` and the temperature ("witness"), `beta` and the temperature ("product"), or the temperature alone.

    The parameters of the least negative log-likelihood on the grid are taken, or the ones it begins from where none is
    better. Three more are changed only where that lowers the loss by more than a standard error of the paired
    difference, since they gain little and may cost on other claims: `pi` to the share of supported among the verifiable
    claims, half a claim added on each side, `delta` to 0, and `rank` to 0.5 or 1. `theta_c` is that of the best F1 of
    "disputed", the nearest to the present one among equals.

    Args:
        examples: Development data, in any order; at least 20 that are not disputed.
        verifier: Identity of what judged the pairs, with its prompt.
        source: Where the evidence came from.
        start: The mode, and all that is not fitted; the defaults of "witness" by default.

    Raises:
        UserError: There are too few examples.
    """
    begin = (FusionParameters() if start is None else start).model_copy(update={"fitted": ""})
    plain = [e for e in examples if e.gold != "disputed"]
    if len(plain) < MIN_EXAMPLES:
        raise UserError(
            f"fusion is fitted to at least {MIN_EXAMPLES} claims that are not disputed; there are {len(plain)}",
            hint="use more development data",
        )
    # in an order of their own, so that the same examples give the same bits
    plain.sort(key=lambda e: data_hash([e]))
    before = _losses(_prepared(plain, begin), begin, (begin.final_temperature,))[0]
    best, losses = begin, before
    for variant in _variants(begin, plain):
        found, its_losses = _best(plain, variant)
        gains = losses - its_losses
        same = (variant.pi, variant.delta, variant.rank) == (begin.pi, begin.delta, begin.rank)
        if gains.mean() > (0.0 if same else gains.std(ddof=1) / math.sqrt(len(plain))):
            best, losses = found, its_losses
    disputed = len(examples) - len(plain)
    if disputed:
        best = best.model_copy(update={"theta_c": _threshold(_prepared(examples, best), best)})
    return FittedFusion(
        verifier=verifier,
        source=source,
        parameters=best,
        data=data_hash(examples),
        examples=len(plain),
        disputed=disputed,
        nll_before=float(before.mean()),
        nll=float(losses.mean()),
        version=__version__,
    )


def average_prediction(examples: Sequence[FusionExample]) -> Support:
    """The verifier's mean prediction over all pieces of evidence, cleaned: `FusionParameters.base`.

    Raises:
        UserError: There is no evidence at all.
    """
    means = [mean_of([clip_probabilities(draw) for draw in item.draws]) for e in examples for item in e.items]
    if not means:
        raise UserError("there is no evidence to average over")
    return clip_probabilities(mean_of(means))


def data_hash(examples: Sequence[FusionExample]) -> str:
    """Sixteen hexadecimal digits over the examples, whatever their order and that of their items."""
    ranked = sorted(
        json.dumps([sorted(json.dumps(asdict(item), sort_keys=True) for item in e.items), e.gold]) for e in examples
    )
    return hashlib.sha256("\n".join(ranked).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An example whose pieces are weighed: that does not depend on what is fitted."""

    pieces: tuple[WeightedItem, ...]
    heard: tuple[bool, ...]
    gold: GoldLabel


def _prepared(examples: Sequence[FusionExample], parameters: FusionParameters) -> list[_Prepared]:
    found = []
    for example in examples:
        pieces = weigh_items(example.items, parameters).pieces
        heard = relevant_items(pieces, parameters.cap) if parameters.mode == "witness" else [True] * len(pieces)
        found.append(_Prepared(pieces, tuple(heard), example.gold))
    return found


def _variants(begin: FusionParameters, plain: Sequence[FusionExample]) -> list[FusionParameters]:
    """What the grid is searched with: the parameters it begins from, then with other `pi`, `delta` and `rank`."""
    supported, refuted = (sum(e.gold == side for e in plain) for side in ("supports", "refutes"))
    share = (supported + 0.5) / (supported + refuted + 1)
    priors = dict.fromkeys((begin.pi, share)) if begin.mode == "witness" else {begin.pi: None}
    crowding = dict.fromkeys((begin.delta, 0.0))
    ranked = any(item.rank > 1 for e in plain for item in e.items)
    falling = dict.fromkeys((begin.rank, *(RANK_GRID if ranked else ())))
    return [
        begin.model_copy(update={"pi": pi, "delta": delta, "rank": rank})
        for rank in falling
        for delta in crowding
        for pi in priors
    ]


def _best(plain: Sequence[FusionExample], variant: FusionParameters) -> tuple[FusionParameters, Array]:
    """The best point of the grid, the first among equals, and the loss of each example there."""
    prepared = _prepared(plain, variant)
    name, grid = {"witness": ("a", A_GRID), "product": ("beta", BETA_GRID)}.get(variant.mode, ("pi", (variant.pi,)))
    best, losses = variant, np.full(len(plain), np.inf)
    for value in grid:
        candidate = variant.model_copy(update={name: value})
        for temperature, found in zip(TEMPERATURE_GRID, _losses(prepared, candidate, TEMPERATURE_GRID), strict=True):
            if found.mean() < losses.mean():
                best, losses = candidate.model_copy(update={"temperature": temperature}), found
    return best, losses


def _losses(prepared: Sequence[_Prepared], parameters: FusionParameters, temperatures: Sequence[float]) -> list[Array]:
    """Negative log-likelihood of each example at each temperature; probabilities below 1e-12 count as 1e-12."""
    right = np.array([LABELS.index(p.gold) for p in prepared], dtype=np.intp)
    with np.errstate(divide="ignore"):
        logs = np.log(np.array([_verdict(p, parameters) for p in prepared], dtype=np.float64))
    rows = np.arange(len(right))
    floor = math.log(LEAST)
    return [-np.maximum(log_rows(logs, t)[rows, right], floor) for t in temperatures]


def _verdict(prepared: _Prepared, parameters: FusionParameters) -> Support:
    if not prepared.pieces:
        return NOTHING
    return combine(prepared.pieces, witness_factors(prepared.pieces, prepared.heard, parameters), parameters)


def _threshold(prepared: Sequence[_Prepared], parameters: FusionParameters) -> float:
    """The threshold of conflict with the best F1 of "disputed"."""
    sides = [conflict(witness_factors(p.pieces, p.heard, parameters)) for p in prepared]
    is_disputed = [p.gold == "disputed" for p in prepared]
    found: list[tuple[float, float, float]] = []
    for theta in CONFLICT_GRID:
        called = [s.degree >= theta and min(s) >= parameters.least_side for s in sides]
        both = sum(c and d for c, d in zip(called, is_disputed, strict=True))
        f1 = 2 * both / (sum(called) + sum(is_disputed))
        found.append((-f1, abs(theta - parameters.theta_c), theta))
    return min(found)[2]


def mean_loss(examples: Sequence[FusionExample], parameters: FusionParameters) -> float:
    """Mean negative log-likelihood of the undisputed examples, in nats, by `fuse` itself.

    Raises:
        UserError: There are none.
    """
    plain = [e for e in examples if e.gold != "disputed"]
    if not plain:
        raise UserError("there are no claims that are not disputed")
    losses = (-math.log(max(fuse_evidence(e.items, parameters).probs[LABELS.index(e.gold)], LEAST)) for e in plain)
    return math.fsum(losses) / len(plain)
