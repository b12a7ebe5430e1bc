"""The mixture of two Weibull distributions over path probabilities: its likelihood, gradient, and fit.

Density W(x; k, λ) = (k/λ)(x/λ)^(k-1) exp(-(x/λ)^k), mean λΓ(1 + 1/k); f = w·W(x; k₁, λ₁) + (1-w)·W(x; k₂, λ₂). With z =
k(ln x - ln λ), ln W = ln k - ln x + z - e^z: everything is computed in log space, the mixture by log-sum-exp, so that
sharp components neither overflow nor underflow.

Source: Zhou et al. 2025, arXiv:2510.15444, "reasoning pruning". Differs: the analytic gradient, for which
the authors' program takes finite differences; it leads to the same optimum.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ...core.blas_threads import one_blas_thread
from ...core.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydantic import JsonValue

    Array: TypeAlias = NDArray[np.float64]

Parameters: TypeAlias = tuple[float, float, float, float, float]
"""w, k₁, λ₁, k₂, λ₂."""

START: Parameters = (0.5, 1.0, 1.0, 1.5, 2.0)
"""The authors' start."""

BOUNDS: tuple[tuple[float, float | None], ...] = ((0.2, 0.8), *(((0.01, None),) * 4))
"""Of w, and of each shape and scale."""

FLOOR = 1e-12
"""Lower probabilities count as this: their logarithm must be finite."""

_MAX_EXPONENT = 300.0
_MAX_ITERATIONS = 1000
_MAX_DESCENTS = 5
_FLAT = 1e-3  # largest slope at an optimum, per nat


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted mixture; component 1 is the one of the higher mean.

    Attributes:
        w: Weight of component 1.
        k1: Its shape.
        lam1: Its scale.
        k2: Shape of the lower component.
        lam2: Its scale.
        nll: Negative log-likelihood at the solution, in nats, summed over the paths.
        start_nll: The same at the start.
        iterations: Of the solver.
        converged: Whether the solver reports it and the slope confirms it; the solution is used either way.
        swapped: Whether the solver's first component was the lower one, so that the two were swapped.
    """

    w: float
    k1: float
    lam1: float
    k2: float
    lam2: float
    nll: float
    start_nll: float
    iterations: int
    converged: bool
    swapped: bool

    @property
    def parameters(self) -> Parameters:
        """w, k1, lam1, k2, lam2."""
        return self.w, self.k1, self.lam1, self.k2, self.lam2

    @property
    def finite(self) -> bool:
        """Whether all values are finite."""
        return all(map(math.isfinite, (*self.parameters, self.nll)))

    @property
    def means(self) -> tuple[float, float]:
        """Means of the two components, the higher one first."""
        return weibull_mean(self.k1, self.lam1), weibull_mean(self.k2, self.lam2)

    def diagnostics(self) -> dict[str, JsonValue]:
        """All values and the components' means, for a JSON record; null for a number that is not finite."""
        high, low = self.means
        values = {**dataclasses.asdict(self), "mean1": high, "mean2": low}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


def weibull_mean(k: float, lam: float) -> float:
    """Mean of a Weibull distribution, λΓ(1 + 1/k)."""
    return lam * math.gamma(1 + 1 / k)


def log_posterior(ln_x: Array, parameters: Parameters) -> tuple[Array, Array]:
    """Logarithms of the posterior probabilities of component 1 and of component 2 at each point; `[points]` each."""
    import numpy as np

    one, two = _weighted_log_densities(ln_x, parameters)
    total = np.logaddexp(one, two)
    return one - total, two - total


def density(x: Array, k: float, lam: float) -> Array:
    """W(x; k, λ) as it is written above, elementwise; overflows and underflows with sharp components."""
    import numpy as np

    value: Array = (k / lam) * (x / lam) ** (k - 1) * np.exp(-((x / lam) ** k))
    return value


def nll_and_gradient(parameters: Sequence[float] | Array, ln_x: Array) -> tuple[float, Array]:
    """Negative log-likelihood of the mixture and its gradient by (w, k1, lam1, k2, lam2).

    With r the posterior probabilities of a component, e = 1 - e^z, and s those of the other component:
    ∂/∂w = -Σ r/w + Σ s/(1-w), ∂/∂k = -Σ r(1 + z·e)/k, ∂/∂λ = (k/λ) Σ r·e.

    Args:
        parameters: w in (0, 1), shapes and scales above 0; `[5]`.
        ln_x: Logarithms of the points, `[points]`.

    Returns:
        Nats, summed over the points; the gradient, `[5]`.
    """
    import numpy as np

    w, k1, lam1, k2, lam2 = (float(value) for value in parameters)
    z1, e1 = _exponents(ln_x, k1, lam1)
    z2, e2 = _exponents(ln_x, k2, lam2)
    # both less -ln x, which they share and which is added at the end
    one = z1 - e1 + math.log(w * k1)
    two = z2 - e2 + math.log((1 - w) * k2)
    total = np.maximum(one, two)
    total += np.log1p(np.exp(-np.abs(one - two)))
    r1, r2 = np.exp(one - total), np.exp(two - total)
    sum1, sum2 = float(r1.sum()), float(r2.sum())
    slope1, slope2 = r1 * (1 - e1), r2 * (1 - e2)
    gradient = np.array(
        [
            sum2 / (1 - w) - sum1 / w,
            -(sum1 + float(slope1 @ z1)) / k1,
            float(slope1.sum()) * k1 / lam1,
            -(sum2 + float(slope2 @ z2)) / k2,
            float(slope2.sum()) * k2 / lam2,
        ]
    )
    return float(ln_x.sum() - total.sum()), gradient


def fit_mixture(
    p: Sequence[float] | Array, start: Parameters = START, *, formula: Literal["log", "reference"] = "log"
) -> Fit:
    """Fit the mixture by maximum likelihood within `BOUNDS` (L-BFGS-B), from one start.

    Args:
        p: Path probabilities in [0, 1], at least one; below `FLOOR` they count as `FLOOR`.
        start: Start of the solver, within the bounds.
        formula: "log" evaluates in log space with the analytic gradient. "reference" evaluates as the authors' program
            does, with differences for a gradient, some four times slower; its solver stops where a trial step meets a
            mixture that underflows, at times far from the optimum.

    Raises:
        UserError: There is no probability, or one is outside [0, 1].
    """
    import numpy as np

    points = np.asarray(p, dtype=float)
    if points.ndim != 1 or not points.size or not ((points >= 0) & (points <= 1)).all():
        raise UserError("a mixture is fitted to one or more probabilities in [0, 1]")
    ln_x = np.log(np.maximum(points, FLOOR))
    with np.errstate(all="ignore"), one_blas_thread():
        return _solve(points, ln_x, start, formula)


def _solve(points: Array, ln_x: Array, start: Parameters, formula: Literal["log", "reference"]) -> Fit:
    import numpy as np
    from scipy.optimize import minimize

    if formula == "reference":
        solution = minimize(_nll_as_written, np.array(start), args=(points,), method="L-BFGS-B", bounds=BOUNDS)
        iterations, converged = int(solution.nit), bool(solution.success)
    else:
        solution, iterations, converged = _descend(ln_x, start)
    w, k1, lam1, k2, lam2 = (float(value) for value in solution.x)
    swapped = weibull_mean(k1, lam1) < weibull_mean(k2, lam2)
    if swapped:
        w, k1, lam1, k2, lam2 = 1 - w, k2, lam2, k1, lam1
    return Fit(
        w=w,
        k1=k1,
        lam1=lam1,
        k2=k2,
        lam2=lam2,
        nll=float(solution.fun),
        start_nll=nll_and_gradient(start, ln_x)[0],
        iterations=iterations,
        converged=converged,
        swapped=swapped,
    )


def _descend(ln_x: Array, start: Parameters) -> tuple[Any, int, bool]:
    """Solve with the analytic gradient; restart, without memory, where the solver stopped on a slope.

    A step far out at steep shapes makes the solver believe that nothing improves any more.
    """
    import numpy as np
    from scipy.optimize import minimize

    lowest = np.array([low for low, _ in BOUNDS])
    highest = np.array([math.inf if high is None else high for _, high in BOUNDS])
    at, iterations = np.array(start), 0
    for _ in range(_MAX_DESCENTS):
        solution = minimize(
            nll_and_gradient,
            at,
            args=(ln_x,),
            jac=True,
            method="L-BFGS-B",
            bounds=BOUNDS,
            options={"maxiter": _MAX_ITERATIONS},
        )
        at, iterations = solution.x, iterations + int(solution.nit)
        slope = nll_and_gradient(at, ln_x)[1]
        slope[((at <= lowest) & (slope > 0)) | ((at >= highest) & (slope < 0))] = 0.0
        flat = bool(np.abs(slope).max() <= _FLAT * max(1.0, abs(solution.fun)))
        if flat or not np.isfinite(at).all():
            break
    return solution, iterations, bool(solution.success) and flat


def _nll_as_written(parameters: Array, points: Array) -> float:
    import numpy as np

    w, k1, lam1, k2, lam2 = parameters
    return -float(np.sum(np.log(w * density(points, k1, lam1) + (1 - w) * density(points, k2, lam2))))


def _exponents(ln_x: Array, k: float, lam: float) -> tuple[Array, Array]:
    """Z = k(ln x - ln λ), and e^z; bounded so that products of a few of them overflow nowhere."""
    import numpy as np

    z = np.minimum(k * (ln_x - math.log(lam)), _MAX_EXPONENT)
    return z, np.exp(z)


def _weighted_log_densities(ln_x: Array, parameters: Parameters) -> tuple[Array, Array]:
    """Logarithms of w·W(x; k1, λ1) and of (1-w)·W(x; k2, λ2)."""
    w, k1, lam1, k2, lam2 = parameters
    return math.log(w) + log_density(ln_x, k1, lam1), math.log1p(-w) + log_density(ln_x, k2, lam2)


def log_density(ln_x: Array, k: float, lam: float) -> Array:
    """Logarithm of W(x; k, λ) from ln x, elementwise; `[points]`. Far out it is about -1e130 and never infinite."""
    z, e = _exponents(ln_x, k, lam)
    value: Array = math.log(k) - ln_x + z - e
    return value
