"""`FusionParameters`: how pieces of evidence become one verdict; fitted by `fitting`, or the defaults of the method."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from ...core.answer import Probability
from ...core.messages import Frozen
from ..support import Support

Mode = Literal["witness", "product", "mean", "vote", "max"]
Weighting = Literal["spread", "paper"]

TEMPERATURES: Final[dict[Mode, float]] = {"witness": 0.5, "product": 1.2, "mean": 1.0, "vote": 1.0, "max": 1.0}
"""The final temperature of each mode where none is given."""
UNIFORM: Final = Support(1 / 3, 1 / 3, 1 / 3)

Positive = Annotated[FiniteFloat, Field(gt=0)]
Share = Annotated[FiniteFloat, Field(gt=0, le=1)]
Inner = Annotated[FiniteFloat, Field(gt=0, lt=1)]
NotNegative = Annotated[FiniteFloat, Field(ge=0)]


class FusionParameters(Frozen):
    """How pieces of evidence become one verdict. The letters are those of Latent Posterior Factors.

    Attributes:
        mode: "witness" (each piece either tells of the claim or does not), "product" (tempered product of
            distributions), or the baselines "mean", "vote" and "max".
        a: How far a piece of evidence is taken to be informative; of "witness".
        beta: Exponent of every factor: 1 takes the pieces to be independent; of "product".
        temperature: The result is raised to 1 over it; None is the mode's own (`TEMPERATURES`).
        pi: Probability that a claim holds, before evidence; of "witness".
        prior: Probabilities before evidence; of "product".
        base: The verifier's average prediction on development data, which factors are divided by; None leaves it out.
        weighting: "spread": weights fall with the spread of a piece's draws as exp(-alpha · spread); "paper": as the
            published method has it (`weighing.paper_weight`).
        alpha: How fast they fall.
        merge: Whether copies and near copies count as one.
        jaccard: Share of common three-word sequences from which two texts are near copies.
        pairs: The same of two-word sequences, from which they are, too; the method has none of it.
        delta: h pieces of one document count as h^-delta each.
        rank: The piece of rank r counts as r^-rank: what a retriever puts last is seldom what decides.
        cap: With more pieces than this, "witness" leaves out those with under 0.1 for a decisive label; None: never.
        disputed: Whether the label "disputed" can be given.
        theta_c: Conflict from which evidence is contradictory.
        least_side: Informative pieces that a dispute needs on each side.
        threshold: Confidence below which a verdict is weak.
        fitted: Digest of the file these come from; empty if they are defaults.
    """

    mode: Mode = "witness"
    a: Share = 0.4
    beta: Share = 0.3
    temperature: Positive | None = None
    pi: Inner = 0.5
    prior: Support = UNIFORM
    base: Support | None = None
    weighting: Weighting = "spread"
    alpha: NotNegative = 2.0
    merge: bool = True
    jaccard: Share = 0.6
    pairs: Share = 0.4
    delta: NotNegative = 0.5
    rank: NotNegative = 0.0
    cap: Annotated[int, Field(ge=1)] | None = 10
    disputed: bool = False
    theta_c: Probability = 0.6
    least_side: NotNegative = 0.5
    threshold: NotNegative = 0.6
    fitted: str = ""

    @model_validator(mode="after")
    def _distributions_sum_to_one(self) -> Self:
        for name, given in (("prior", self.prior), ("base", self.base)):
            if given is not None and not (all(p > 0 for p in given) and abs(sum(given) - 1) < 1e-6):
                raise ValueError(f"{name} must be three probabilities above 0 that sum to 1")
        return self

    @property
    def final_temperature(self) -> float:
        """The temperature that is used."""
        return TEMPERATURES[self.mode] if self.temperature is None else self.temperature
