"""`weigh`: items made ready to be combined: cleaned, copies merged, each with its weight.

Steps 1 to 4 of Latent Posterior Factors as this project has it; the weight by spread follows the published one in
falling with the uncertainty of a piece of evidence.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..support import Support
from .duplicates import Clusters, clusters
from .items import Item, clean
from .parameters import FusionParameters
from .uncertainty import mean_of, split


class Weighed(NamedTuple):
    """One piece of evidence, ready to be combined.

    Attributes:
        probs: What it says of the claim: the mean of its draws, cleaned; a likelihood where the base is known.
        weight: How far it counts, in (0, 1].
        places: Places of the items that it stands for; the first is the one that speaks for them.
    """

    probs: Support
    weight: float
    places: tuple[int, ...]


class Weighing(NamedTuple):
    """All pieces, and whether the search for copies came to its end."""

    pieces: tuple[Weighed, ...]
    complete: bool


def weigh(items: Sequence[Item], parameters: FusionParameters) -> Weighing:
    """The pieces that items amount to. Items that weigh nothing are left out before anything else.

    A group of copies is one piece: its draws are those of all, its weight the largest, its document that of the item
    with the largest weight. h pieces of one document then weigh h^-delta of their weight each.

    Args:
        items: What there is, in any order; the pieces do not depend on it but for their `places`.
        parameters: How it is weighed.
    """
    cleaned = [tuple(clean(draw) for draw in item.draws) for item in items]
    weights = [
        item.credibility * item.relevance * item.rank**-parameters.rank * _of_spread(draws, parameters)
        for item, draws in zip(items, cleaned, strict=True)
    ]
    kept = [i for i, w in enumerate(weights) if w > 0]
    if parameters.merge:
        found = clusters([items[i] for i in kept], jaccard=parameters.jaccard, pairs=parameters.pairs)
    else:
        found = Clusters(tuple((i,) for i in range(len(kept))), True)

    def rank(i: int) -> tuple[float, str, str, str]:
        return -weights[i], items[i].document, items[i].id, items[i].text

    groups = [sorted((kept[i] for i in group), key=lambda i: (*rank(i), i)) for group in found.groups]
    crowd = Counter(items[group[0]].document for group in groups)
    pieces = []
    for group in groups:
        draws = [draw for i in group for draw in cleaned[i]]
        probs = mean_of(draws)
        if parameters.base is not None:
            probs = clean(Support(*(p / b for p, b in zip(probs, parameters.base, strict=True))))
        document = items[group[0]].document
        shared = crowd[document] if document else 1
        pieces.append(Weighed(probs, weights[group[0]] * shared**-parameters.delta, tuple(group)))
    return Weighing(tuple(pieces), found.complete)


def paper_weight(sigma: float, alpha: float) -> float:
    """The published weight of a piece of evidence: clip(1/(1 + sigma) · sigmoid(-alpha · sigma), 0, 1); at most 0.5.

    Source: the implementation of Alege 2026, "Latent Posterior Factor Models", arXiv:2603.15670.

    Args:
        sigma: Mean standard deviation of what it says, at least 0.
        alpha: Penalty on it, at least 0.
    """
    return min(1 / (1 + sigma) / (1 + math.exp(min(alpha * sigma, 700.0))), 1.0)


def _of_spread(draws: Sequence[Support], parameters: FusionParameters) -> float:
    """The part of the weight that the draws decide."""
    if parameters.weighting == "paper":
        middle = mean_of(draws)
        variances = (math.fsum((d[y] - middle[y]) ** 2 for d in draws) / len(draws) for y in range(3))
        return paper_weight(math.fsum(math.sqrt(v) for v in variances) / 3, parameters.alpha)
    if len(draws) == 1:
        return 1.0
    return math.exp(-parameters.alpha * split(draws).between)
