"""`JuryReliability`: how often each juror turned out to be right, in a file, and what its voice counts for by that.

Source: the weight of an independent voter who is right with probability p among k options is ln(p (k - 1) / (1 - p)):
Nitzan, Paroush, "Optimal Decision Rules in Uncertain Dichotomous Choice Situations" (International Economic Review 23,
1982), for two; Shapley, Grofman, "Optimizing Group Judgmental Accuracy in the Presence of Interdependencies" (Public
Choice 43, 1984) treat what is lost where jurors err together, which no weight of one juror can make up for. Shrinking
towards the pool, so that a few lucky answers make no oracle, is ours.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from ...core.errors import DataError, UserError
from ...core.fitted_files import FittedFile, read_fitted, write_fitted
from ...core.messages import Frozen
from ...core.version import __version__

KIND: Final = "reason jury reliability"
FORMAT: Final = 1
MADE_BY: Final = "fit one to these jurors' answers on development data"

STRENGTH: Final = 10.0
"""How many answers of the pool stand beside a juror's own."""
LEAST, MOST = 0.1, 3.0
"""Clip of the weights: nobody is silenced, and nobody outvotes a jury of equals alone."""

Inside = Annotated[FiniteFloat, Field(gt=0, lt=1)]


class JurorReliability(Frozen):
    """One juror's record.

    Attributes:
        juror: Who, as `juror_key` names it.
        right: How many of its answers were right.
        asked: How many questions it answered.
        estimate: Probability that it is right: (right + strength pooled) / (asked + strength).
    """

    juror: Annotated[str, Field(min_length=1)]
    right: Annotated[int, Field(ge=0)]
    asked: Annotated[int, Field(ge=1)]
    estimate: Inside

    @model_validator(mode="after")
    def _is_a_share(self) -> Self:
        if self.right > self.asked:
            raise ValueError(f"{self.right} right answers of {self.asked}")
        return self


class JuryReliability(FittedFile):
    """How reliable jurors are.

    Attributes:
        kind: What the file is.
        format: Version of the file's form.
        name: The file's name without its ending; empty before it lies in one.
        jurors: Their records, by name.
        pooled: Probability that a juror of whom nothing is known is right.
        chance: Probability of being right by guessing: 1/k with k options.
        strength: How many answers of the pool stand beside a juror's own.
        dataset: What the answers were to.
        data: Hash of the records.
        version: Version of `reason`.
    """

    kind: Literal["reason jury reliability"] = KIND
    format: Literal[1] = FORMAT
    name: str = ""
    jurors: Annotated[tuple[JurorReliability, ...], Field(min_length=1)]
    pooled: Inside
    chance: Inside
    strength: Annotated[FiniteFloat, Field(ge=0)]
    dataset: str
    data: str
    version: str

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if len({one.juror for one in self.jurors}) < len(self.jurors):
            raise ValueError("a juror has one record")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({len(self.jurors)} jurors, {self.dataset})".lstrip()

    def weight(self, juror: str) -> float:
        """What a juror's voice counts for: ln(p / (1 - p)) - ln(c / (1 - c)), with c by chance, clipped to [0.1, 3].

        Args:
            juror: Who, as `juror_key` names it; of one that is not known p is the pooled one.
        """
        p = next((one.estimate for one in self.jurors if one.juror == juror), self.pooled)
        return min(MOST, max(LEAST, _log_odds(p) - _log_odds(self.chance)))

    def weights_for(self, jurors: Mapping[int, str]) -> dict[int, float]:
        """The weights of a jury.

        Args:
            jurors: Name by juror.

        Raises:
            DataError: None of them is known: the file belongs to another jury.
        """
        known = {one.juror for one in self.jurors}
        if jurors and not known & set(jurors.values()):
            raise DataError(
                f"the jury reliability {self} knows none of these jurors: {', '.join(sorted(set(jurors.values())))}",
                hint=MADE_BY,
            )
        return {juror: self.weight(name) for juror, name in jurors.items()}


def juror_key(identity: str, role: str = "") -> str:
    """What a juror is called in a reliability file: its model's identity, and the role that it plays."""
    return f"{identity} as {role}" if role else identity


def fit_reliability(
    records: Iterable[tuple[str, bool]], *, chance: float, dataset: str, strength: float = STRENGTH
) -> JuryReliability:
    """Estimate how reliable jurors are.

    Args:
        records: For each answer who gave it (see `juror_key`) and whether it was right; in any order.
        chance: Probability of being right by guessing; with different numbers of options the mean of 1/k.
        dataset: What the answers were to.
        strength: How many answers of the pool stand beside a juror's own.

    Raises:
        UserError: There are no records, chance is no probability inside (0, 1), or strength is negative.
    """
    if not 0 < chance < 1 or not (math.isfinite(strength) and strength >= 0):
        raise UserError(
            f"no reliability at chance={chance:g} and strength={strength:g}",
            hint="chance is between 0 and 1, strength 0 or more",
        )
    told = sorted(Counter(records).items())
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for (juror, was_right), count in told:
        asked[juror] += count
        right[juror] += count * was_right
    if not asked:
        raise UserError("no records, so no reliability", hint=MADE_BY)
    pooled = (right.total() + 1) / (asked.total() + 2)
    jurors = tuple(
        JurorReliability(
            juror=juror,
            right=right[juror],
            asked=asked[juror],
            estimate=_inside((right[juror] + strength * pooled) / (asked[juror] + strength)),
        )
        for juror in sorted(asked)
    )
    return JuryReliability(
        jurors=jurors,
        pooled=pooled,
        chance=chance,
        strength=strength,
        dataset=dataset,
        data=hashlib.sha256(repr(told).encode()).hexdigest(),
        version=__version__,
    )


def save_reliability(reliability: JuryReliability, path: Path) -> None:
    """Write it as JSON, whole or not at all; its name is the file's.

    Raises:
        StoreError: It cannot be written; what was there stays.
    """
    write_fitted(reliability, path)


def load_reliability(path: Path) -> JuryReliability:
    """Read it from its file.

    Raises:
        DataError: There is no such file, it cannot be read, it is cut short, it holds something else, or it is of
            another version or has impossible values; names the file.
    """
    return read_fitted(path, JuryReliability, kind=KIND, format=FORMAT, called="jury reliability", made_by=MADE_BY)


def _log_odds(p: float) -> float:
    return math.log(p / (1 - p))


def _inside(p: float) -> float:
    """Without a pool beside it, a juror that was always right or always wrong is not sure to be so again."""
    return min(1 - 1e-6, max(1e-6, p))
