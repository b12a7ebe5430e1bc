"""Reasoning pruning: which paths are too improbable to vote, by the mixture of their probabilities.

A path is pruned if it more probably belongs to the lower component than to the higher one, and lies below the mean;
both comparisons are strict. So a path above the mean is never pruned, whatever the mixture says.

Source: Zhou et al. 2025, arXiv:2510.15444, "reasoning pruning". Departure, unless `guards="reference"`: nothing is
pruned where the fit can mean nothing, and the likeliest path always stays. The authors' program can prune all paths of
equal probability, since their mean in floating point can exceed each of them; it then divides 0 by 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .weibull import FLOOR, Fit, density, fit_mixture, log_posterior

if TYPE_CHECKING:
    from .weibull import Array

MIN_DISTINCT = 3
"""Fewest distinct probabilities that a mixture is fitted to."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """Which paths do not vote, and why.

    Attributes:
        pruned: Their positions, ascending.
        posterior: For each path the probability of the higher component, `[paths]`; empty where nothing was fitted.
            NaN, under `guards="reference"`, where both components vanish; such a path stays.
        mean: Mean probability of all paths.
        fit: The mixture; None where none was fitted.
        skipped: Why nothing could be pruned; empty if the rule was applied.
    """

    pruned: tuple[int, ...]
    posterior: tuple[float, ...]
    mean: float
    fit: Fit | None
    skipped: str = ""


def prune(
    p: Sequence[float],
    init: Literal["reference", "multistart"] = "reference",
    guards: Literal["full", "reference"] = "full",
) -> Pruning:
    """Apply the rule.

    Args:
        p: Probability of each path in [0, 1], duplicates included, at least one.
        init: Start of the fit, as in `fit_mixture`.
        guards: "full" prunes nothing where fewer than `MIN_DISTINCT` probabilities differ or the fit is not finite, and
            never the likeliest path. Its outcome does not depend on the order of the paths. "reference" is the authors'
            arithmetic, all paths pruned included.

    Raises:
        UserError: There is no probability, or one is outside [0, 1].
    """
    import numpy as np

    points = np.asarray(p, dtype=float)
    if guards == "reference":
        fit = fit_mixture(points, init, "reference")
        mean = float(points.mean())
        r = _posterior_as_written(points, fit)
        low = (r < 1 - r) & (points < mean)
    else:
        mean = math.fsum(p) / max(len(p), 1)
        if len(set(p)) < MIN_DISTINCT:
            return Pruning((), (), mean, None, f"fewer than {MIN_DISTINCT} distinct probabilities")
        fit = fit_mixture(np.sort(points), init)
        if not fit.finite:
            return Pruning((), (), mean, fit, "the fit is not finite")
        high, other = log_posterior(np.log(np.maximum(points, FLOOR)), fit.parameters)
        r = np.exp(high)
        # the last condition cannot fail but by rounding of the mean; with it, a survivor is certain
        low = (high < other) & (points < mean) & (points < points.max())
    return Pruning(tuple(np.flatnonzero(low).tolist()), tuple(r.tolist()), mean, fit)


def _posterior_as_written(points: Array, fit: Fit) -> Array:
    import numpy as np

    with np.errstate(all="ignore"):
        one = fit.w * density(points, fit.k1, fit.lam1)
        r: Array = one / (one + (1 - fit.w) * density(points, fit.k2, fit.lam2))
    return r
