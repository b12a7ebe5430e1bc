"""`witness`: each piece of evidence is either informative of a claim that holds or does not, or tells nothing.

"Neutral" is the absence of evidence here and no state of the world: irrelevant pieces leave a decisive one nearly alone
instead of outvoting it. A sum node over "informative or not" for each piece stands under one product node, so that the
sum over all combinations is exact in one pass.

Source: our form of the sum-product combination of Alege 2026, arXiv:2603.15670; the noisy-or of Pearl 1988,
"Probabilistic Reasoning in Intelligent Systems", section 4.3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..support import Support
from .items import EPS
from .weighing import Weighed

IRRELEVANT: Final = 0.1
"""Probability of a decisive label below which a piece may be left out where there are many."""


class Testimony(NamedTuple):
    """What one piece of evidence testifies.

    Attributes:
        informative: q, the probability that it tells of the claim at all, in [0, 1).
        leaning: 2d - 1, d being the probability that it supports the claim if it does; in [-1, 1]. So written, pieces
            that say the opposite cancel to the last digit.
    """

    informative: float
    leaning: float

    @property
    def log_odds(self) -> float:
        """log(φ(1)/φ(0)): what it adds to the log-odds of the claim, in nats; at most log((1 + q)/(1 - q)) in size."""
        lean = self.informative * self.leaning
        return math.log1p(lean) - math.log1p(-lean)


def testimony(piece: Weighed, a: float) -> Testimony:
    """What a piece testifies: q = a · w · (p_S + p_R), below 1, and d = p_S / (p_S + p_R).

    Args:
        piece: The piece.
        a: How far pieces are informative, in (0, 1].
    """
    supports, refutes, _ = piece.probs
    decisive = supports + refutes
    leaning = (supports - refutes) / decisive if decisive > 0 else 0.0
    return Testimony(min(a * piece.weight * decisive, 1 - EPS), leaning)


def relevant(pieces: Sequence[Weighed], cap: int | None) -> list[bool]:
    """Which pieces are heard: all, or, where there are more than `cap`, those that may be decisive.

    Many pieces of a little relevance each would let "neutral" vanish. The step from `cap` to one more piece may
    therefore raise "neutral"; within either side it never rises with a piece more.
    """
    if cap is None or len(pieces) <= cap:
        return [True] * len(pieces)
    return [p.probs.supports + p.probs.refutes >= IRRELEVANT for p in pieces]


def witness(testimonies: Sequence[Testimony], pi: float = 0.5) -> Support:
    """The verdict that testimonies amount to; of none it is "neutral" for certain.

    `neutral` is Π(1 - q), before the pieces are conditioned on their agreement, on purpose: afterwards it would be more
    confident. The rest is shared by the posterior of the claim.

    Args:
        testimonies: In any order.
        pi: Probability that the claim holds, before evidence; in (0, 1).
    """
    odds = math.log(pi) - math.log1p(-pi) + math.fsum(t.log_odds for t in testimonies)
    holds = 1 / (1 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1 + math.exp(odds))
    fails = 1 / (1 + math.exp(odds)) if odds <= 0 else math.exp(-odds) / (1 + math.exp(-odds))
    silent = math.fsum(math.log1p(-t.informative) for t in testimonies)
    told = -math.expm1(silent)
    return Support(told * holds, told * fails, math.exp(silent))


class Conflict(NamedTuple):
    """How far testimonies contradict one another.

    Attributes:
        supporting: Informative pieces on the claim's side, Σ q d.
        refuting: Those against it, Σ q (1 - d).
    """

    supporting: float
    refuting: float

    @property
    def degree(self) -> float:
        """4AB/(A + B)², in [0, 1]: 1 if both sides are equally strong, 0 if one or both are empty."""
        both = self.supporting + self.refuting
        if both <= 0:
            return 0.0
        share = self.supporting / both
        return 4 * share * (1 - share)


def conflict(testimonies: Sequence[Testimony]) -> Conflict:
    """The two sides."""
    return Conflict(
        math.fsum(t.informative * (1 + t.leaning) / 2 for t in testimonies),
        math.fsum(t.informative * (1 - t.leaning) / 2 for t in testimonies),
    )
