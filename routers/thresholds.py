"""`RouterFile`: what a small model's first-token entropies looked like on other problems, and the threshold to take.

`evals/routing/calibrating.py` makes one from a run of `glimp`; `glimp` takes its threshold from it. The quantiles are
kept, and not the threshold alone, since entropies differ from model to model and another rate may be wanted.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110, which recommends to send 20 to 30 per cent of the steps to
the large model. Taking the threshold as a quantile of other problems' entropies is ours.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, FiniteFloat, JsonValue, model_validator

from ..core.errors import UserError
from ..core.fitted_files import FittedFile, read_fitted

EntropyKind = Literal["full", "top_k", "sampled"]
"""Over the whole vocabulary; over the k likeliest tokens, renormalised; or estimated from k samples of one token."""

KIND: Final = "reason router"
FORMAT: Final = 1
PARTS: Final = 100
"""The quantiles are those of 0, 1/100, …, 1."""
MADE_BY: Final = "reason calibrate router --data DATA -m LARGE --small-model SMALL --out FILE makes one"
STEPS_APART: Final = ("granularity", "max_step_tokens", "steps", "system", "temperature", "think", "top_p")
"""Parameters of the step loop that change what a step is, and so how uncertain its first token is."""

Entropy = Annotated[FiniteFloat, Field(ge=0)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]


class RouterFile(FittedFile):
    """Entropies of the first tokens of steps, as quantiles, with where they come from.

    Attributes:
        kind: What the file is.
        format: Version of the file's form.
        name: The file's name without its ending; empty before it lies in one.
        small: Model string of the small model, whose entropies these are.
        large: Model string of the large model.
        engines: Identity of each by role, "small" and "main": weights, number format, engine and its version.
        entropy: Over what the entropies were taken. Another kind is another scale: no threshold carries over.
        k: Tokens looked at of "top_k", samples of "sampled"; 0 of "full".
        quantiles: The 0, 1/100, …, 1 quantiles of the entropy of a step's first token, in nats, pooled over all steps
            (see `quantiles_of`).
        steps: How many steps were pooled.
        questions: How many questions they are of.
        rate: The share of steps that was to go to the large model.
        threshold: The entropy from which a step goes there at this rate, in nats.
        measured_rate: The share of the pooled steps that this threshold really sends there; other than `rate` where
            many steps have the same entropy.
        strict: Whether only steps above the threshold go there, and not those at it.
        dataset: The dataset, with its variant.
        fingerprint: The dataset's fingerprint.
        parameters: Those of the step loop, complete: what a step is depends on them.
        version: Version of `reason`.
        made: The day it was made, in UTC.
    """

    kind: Literal["reason router"] = KIND
    format: Literal[1] = FORMAT
    name: str = ""
    small: str
    large: str
    engines: dict[str, str]
    entropy: EntropyKind
    k: Annotated[int, Field(ge=0)]
    quantiles: Annotated[tuple[Entropy, ...], Field(min_length=PARTS + 1, max_length=PARTS + 1)]
    steps: Annotated[int, Field(ge=1)]
    questions: Annotated[int, Field(ge=1)]
    rate: Share
    threshold: Entropy
    measured_rate: Share
    strict: bool = False
    dataset: str
    fingerprint: str
    parameters: dict[str, JsonValue]
    version: str
    made: date

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if not {"small", "main"} <= set(self.engines):
            raise ValueError("a router file must name the identities of both models")
        if any(b < a for a, b in pairwise(self.quantiles)):
            raise ValueError("the quantiles must not fall")
        if (self.k == 0) != (self.entropy == "full"):
            raise ValueError("k is 0 for entropies over the whole vocabulary, and above 0 for all others")
        return self

    def __str__(self) -> str:
        return f"{self.name} ({scale(self.entropy, self.k)}, {self.dataset})".lstrip()

    def threshold_for(self, rate: float) -> float:
        """The threshold that sends this share of the steps to the large model, in nats: the (1 - rate) quantile.

        Between two quantiles that the file has, it is on the line through them. At a rate of 0 it is just above every
        entropy seen.

        Args:
            rate: The share wanted, in [0, 1].

        Raises:
            UserError: It is outside.
        """
        if not 0 <= rate <= 1:
            raise UserError(f"a rate of {rate:g} is no share of steps", hint="between 0 and 1")
        if rate == 0:
            return math.nextafter(self.quantiles[-1], math.inf)
        at = round((1 - rate) * PARTS, 9)
        below = int(at)
        if below == at:
            return self.quantiles[below]
        low, high = self.quantiles[below], self.quantiles[below + 1]
        return min(low + (high - low) * (at - below), high)

    def rate_at(self, threshold: float, *, strict: bool = False) -> float:
        """The share of the calibration's steps that a threshold sends to the large model, to about a hundredth.

        Args:
            threshold: In nats.
            strict: Whether only steps above it are sent.
        """
        parts = self.quantiles[:-1]  # each the least entropy of its hundredth of the steps
        return 1 - (bisect_right if strict else bisect_left)(parts, threshold) / PARTS

    def refuse_other(self, *, small: str, large: str, entropy: EntropyKind, k: int) -> None:
        """Refuse to route by this file what it was not made for, before anything is spent on it.

        Args:
            small: Identity of the small model as it was opened.
            large: Identity of the large model likewise.
            entropy: The kind of entropy that is to be compared with the threshold.
            k: Its tokens or samples; 0 of the whole vocabulary.

        Raises:
            UserError: Another pair of models, or another entropy; names both.
        """
        for role, own, other in (("small", self.engines["small"], small), ("large", self.engines["main"], large)):
            if own != other:
                raise UserError(
                    f"the router file {self} was made with the {role} model {own}, not with {other}",
                    hint=f"{MADE_BY} for these two",
                )
        if (self.entropy, self.k) != (entropy, k):
            raise UserError(
                f"the thresholds of the router file {self} are of {scale(self.entropy, self.k)} entropies, and those "
                f"compared with them would be of {scale(entropy, k)} ones: another scale",
                hint=f"say entropy={self.entropy}, or calibrate anew",
            )

    def doubts(self, parameters: Mapping[str, JsonValue]) -> str:
        """In what a step loop differs from the one that the file was made with, as a note; empty if in nothing.

        Args:
            parameters: The parameters of the loop.
        """
        differing = [
            f"{name} was {self.parameters[name]} and is {parameters[name]}"
            for name in STEPS_APART
            if name in self.parameters and name in parameters and self.parameters[name] != parameters[name]
        ]
        return f"the router file {self} was made under other settings: {'; '.join(differing)}" if differing else ""


def scale(entropy: EntropyKind, k: int) -> str:
    """A kind of entropy in a few words."""
    return {"full": "full-vocabulary", "top_k": f"top-{k}", "sampled": f"{k}-sample"}[entropy]


def quantiles_of(entropies: Sequence[float]) -> tuple[float, ...]:
    """The 0, 1/100, …, 1 quantiles of entropies, as `RouterFile` has them.

    The q quantile of n entropies is the (floor(n q) + 1)-th smallest, and the largest for q = 1. It is one that
    occurred, and n (1 - q) of n different ones, rounded up, are at or above it.

    Args:
        entropies: In nats, in any order; at least one.
    """
    ranked = sorted(entropies)
    n = len(ranked)
    return tuple(ranked[min(i * n // PARTS, n - 1)] for i in range(PARTS + 1))


def load_router(path: Path) -> RouterFile:
    """Read a router file.

    Raises:
        DataError: There is no such file, it cannot be read, it is cut short, it is no router file, or one of another
            version or with impossible values; names the file.
    """
    return read_fitted(path, RouterFile, kind=KIND, format=FORMAT, called="router file", made_by=MADE_BY)
