"""Votes over sampled paths: from paths and the classes of their answers to one answer, by count or by probability.

Reasoning pruning (`prune`) decides by the mixture of the paths' probabilities which are too improbable to vote: those
that more probably belong to the lower component than to the higher one and are below the mean; both comparisons are
strict. So a path above the mean is never pruned, whatever the mixture is.

Source: Zhou et al., "A Theoretical Study on Bridging Internal Probability and Self-Consistency for LLM Reasoning"
(NeurIPS 2025, arXiv:2510.15444).

The mixture is of two Weibull distributions of density W(x; k, λ) = (k/λ)(x/λ)^(k-1) exp(-(x/λ)^k) and mean λΓ(1 +
1/k): f = w·W(x; k₁, λ₁) + (1-w)·W(x; k₂, λ₂). With z = k(ln x - ln λ), ln W = ln k - ln x + z - e^z: everything is
computed in log space, the mixture by log-sum-exp, so that sharp components neither overflow nor underflow. The
gradient is analytic, where the authors' program takes finite differences; it leads to the same optimum.

Differs, unless `parity="reference"`: nothing is pruned if the fit carries no information, and the most probable path is
never pruned. The authors' program can prune all paths of equal probability, since their mean in floating point can
exceed each of them; it then divides 0 by 0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from ...core.blas_threads import one_blas_thread
from ...core.errors import DataError, UnknownName, UserError
from ...core.registry import nearest

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


ROUNDING = 1e-4
"""Tolerance above 0 of a log-probability, in nats: engines sum in 32 bits, so a certain token may exceed 1."""


@dataclass(frozen=True, slots=True)
class Path:
    """One sampled solution of a question.

    Attributes:
        text: The generated text, thoughts included; paths of the same text are duplicates.
        answer: The answer it states; None without one.
        mean_logprob: Mean log-probability of its tokens, in nats, from -inf to 0; None if unknown. A value above 0 by
            no more than `ROUNDING` becomes 0.

    Raises:
        DataError: `mean_logprob` is not a number, or above 0.
    """

    text: str
    answer: str | None
    mean_logprob: float | None = None

    def __post_init__(self) -> None:
        if self.mean_logprob is not None:
            object.__setattr__(self, "mean_logprob", _validate_logprob(self.mean_logprob))

    @property
    def probability(self) -> float | None:
        """Geometric mean of the tokens' probabilities, p = exp(s), in [0, 1]; None if unknown."""
        return None if self.mean_logprob is None else math.exp(self.mean_logprob)


def _validate_logprob(value: float) -> float:
    what = "the mean log-probability"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{what} is {value!r}, not a number")
    if math.isnan(value):
        raise DataError(f"{what} is NaN", hint="leave it out if it is unknown")
    if value > ROUNDING:
        raise DataError(f"{what} is {value:g}, above 0", hint="give natural logarithms of probabilities")
    return min(float(value), 0.0)


MIN_DISTINCT = 3
"""Minimum number of distinct probabilities for a fit."""
MIN_PATHS = 4
"""Minimum number of paths for a fit; below it, "rpc" counts as "pc"."""

Parity = Literal["none", "reference"]
"""Whether votes are counted as the authors' program does.

"reference": a text that was sampled again counts once for each of its distinct probabilities; paths without an answer
are a class, which can win; the last path represents its class; a mixture is fitted to any number of paths, by the
authors' arithmetic, under which all paths can be pruned and all confidences are NaN.
"""


@dataclass(frozen=True, slots=True)
class Pruning:
    """The paths that do not vote, and why.

    Attributes:
        pruned: Their positions, ascending.
        posterior: For each path the probability of the higher component, `[paths]`; empty if nothing was fitted. NaN,
            under `parity="reference"`, if both components vanish; such a path is not pruned.
        fit: The mixture; None if none was fitted.
        skipped: Why nothing could be pruned; empty if the rule was applied.
    """

    pruned: tuple[int, ...]
    posterior: tuple[float, ...]
    mean: float
    fit: Fit | None
    skipped: str = ""


def prune(p: Sequence[float], parity: Parity = "none") -> Pruning:
    """Apply the rule.

    Args:
        p: Probability of each path in [0, 1], duplicates included, at least one.
        parity: "none" prunes nothing if fewer than `MIN_DISTINCT` probabilities differ or the fit is not finite, and
            never the most probable path; the result does not depend on the order of the paths. "reference" is the
            authors' arithmetic, all paths pruned included.

    Raises:
        UserError: There is no probability, or one is outside [0, 1].
    """
    import numpy as np

    points = np.asarray(p, dtype=float)
    if not len(p):
        raise UserError("there is no probability of a path to prune")
    if parity == "reference":
        fit = fit_mixture(points, formula="reference")
        mean = float(points.mean())
        r = _posterior_as_written(points, fit)
        low = (r < 1 - r) & (points < mean)
    else:
        mean = math.fsum(p) / len(p)
        if len(set(p)) < MIN_DISTINCT:
            return Pruning((), (), mean, None, f"fewer than {MIN_DISTINCT} distinct probabilities")
        fit = fit_mixture(np.sort(points))
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


Method = Literal["rpc", "pc", "ppl", "sc"]

METHODS: Final[tuple[Method, ...]] = get_args(Method)

_TIE = 1e-12  # two masses that differ by less, relatively, are the same up to rounding
_UNDERFLOW = 1e-200


@dataclass(frozen=True, slots=True)
class AnswerClass:
    """A class of equal answers.

    Attributes:
        answer: The representative's answer; None for the class of paths without one.
        confidence: Its share of the mass, in [0, 1]; for "ppl" the probability of its most probable path.
        members: Positions of its paths, pruned ones included, ascending.
        representative: Position of the path that represents it.
        credit: Its share of the first rank: 1/T for each of T tied ones, 0 for all others.
    """

    answer: str | None
    confidence: float
    members: tuple[int, ...]
    representative: int
    credit: float


@dataclass(frozen=True, slots=True)
class Vote:
    """The outcome of a vote.

    Attributes:
        classes: By decreasing confidence; of equals, the one whose first path came first.
        pruned: Positions of the paths that did not count, ascending.
        unparsed: Number of paths without an answer.
        fit: The mixture of the pruning; None if none was fitted.
        degraded: Deviations from the requested method, one sentence each.
    """

    classes: tuple[AnswerClass, ...]
    method: Method
    method_used: Method
    pruned: tuple[int, ...]
    unparsed: int
    fit: Fit | None
    degraded: tuple[str, ...]

    @property
    def answer(self) -> str | None:
        """The winner's answer; None if no path has one."""
        return self.classes[0].answer if self.classes else None

    @property
    def confidence(self) -> float:
        """The winner's confidence; 0 if there is none."""
        return self.classes[0].confidence if self.classes else 0.0


def vote(
    paths: Sequence[Path],
    classes: Sequence[Sequence[int]],
    method: Method = "rpc",
    parity: Parity = "none",
) -> Vote:
    """Count the votes.

    - "rpc", reasoning-pruned perplexity consistency: improbable paths are pruned, then as "pc".
    - "pc", perplexity consistency: a class weighs the sum of its paths' probabilities, each distinct text once.
    - "ppl": the single most probable path wins; a class's confidence is the probability of its most probable path, so
      confidences do not sum to 1. Of T paths that tie, each gets 1/T of the credit.
    - "sc", self-consistency: a class weighs the number of its paths, duplicates included.

    Except for "ppl", confidence is a class's weight over the weight of all. If a path that votes has no
    log-probability, "rpc", "pc" and "ppl" count as "sc" and report it.

    Args:
        classes: Positions of equal answers, as from `Equivalence.group`: each path with an answer in
            exactly one class, no path without one in any.

    Raises:
        UnknownName: There is no such method.
        UserError: The classes do not match the paths.
    """
    method = parse_method(method)
    groups = _checked(paths, classes)
    unparsed = tuple(i for i, path in enumerate(paths) if path.answer is None)
    if unparsed and parity == "reference":
        groups.append(unparsed)
    voters = sorted(i for group in groups for i in group)
    used, degraded = _possible(method, [paths[i] for i in voters], parity)
    if not voters:
        return Vote((), method, used, (), len(unparsed), None, degraded)

    p = {i: paths[i].probability or 0.0 for i in voters}
    pruning: Pruning | None = None
    if used == "rpc":
        pruning = prune([p[i] for i in voters], parity)
        if pruning.skipped:
            degraded = (*degraded, f"rpc: {pruning.skipped}, nothing pruned")
    pruned = tuple(voters[i] for i in pruning.pruned) if pruning else ()
    return Vote(
        classes=_count(paths, groups, used, parity, frozenset(pruned)),
        method=method,
        method_used=used,
        pruned=pruned,
        unparsed=len(unparsed),
        fit=pruning.fit if pruning else None,
        degraded=degraded,
    )


def parse_method(name: str) -> Method:
    """The method of a name; raises `UnknownName` if there is none."""
    for method in METHODS:
        if method == name:
            return method
    raise UnknownName("voting method", str(name), nearest(str(name), METHODS), hint="one of " + ", ".join(METHODS))


def _checked(paths: Sequence[Path], classes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """The classes with ascending members, if they are a partition of the paths with an answer."""
    groups = [tuple(sorted(members)) for members in classes]
    members = sorted(i for group in groups for i in group)
    answered = [i for i, path in enumerate(paths) if path.answer is not None]
    if members != answered or not all(groups):
        raise UserError(
            f"the classes hold the positions {_some(members)}, the paths with an answer are {_some(answered)}",
            hint="each path with an answer belongs to exactly one class, and no class is empty",
        )
    return groups


def _some(positions: Sequence[int]) -> str:
    return ", ".join(map(str, positions[:20])) + (", …" if len(positions) > 20 else "") if positions else "none"


def _possible(method: Method, voters: Sequence[Path], parity: Parity) -> tuple[Method, tuple[str, ...]]:
    """The method that these paths allow, and the deviation if it is not the requested one."""
    if method != "sc" and any(path.mean_logprob is None for path in voters):
        return "sc", (f"{method}: no logprobs, used self-consistency",)
    if method == "rpc" and parity == "none" and len(voters) < MIN_PATHS:
        return "pc", (f"rpc: {len(voters)} paths, fewer than {MIN_PATHS}, used pc",)
    return method, ()


def _count(
    paths: Sequence[Path],
    groups: Sequence[tuple[int, ...]],
    method: Method,
    parity: Parity,
    pruned: frozenset[int],
) -> tuple[AnswerClass, ...]:
    """The classes with their confidences, in order."""
    if method == "ppl":
        masses, shares = _most_probable(paths, groups)
        confidences = [max(paths[i].probability or 0.0 for i in group) for group in groups]
    else:
        if method == "sc":
            masses = [float(len(group)) for group in groups]
        else:
            weights = _weights(paths, groups, parity)
            masses = [_mass(paths, [i for i in group if i not in pruned], weights, parity) for group in groups]
        total = math.fsum(masses)
        confidences = [mass / total if total else math.nan for mass in masses]
        top = max(masses)
        tied = [math.isclose(mass, top, rel_tol=_TIE) for mass in masses]
        shares = [1 / sum(tied) if tie else 0.0 for tie in tied]
    order = sorted(range(len(groups)), key=lambda g: (shares[g] == 0, -masses[g] if not shares[g] else 0, groups[g][0]))
    last = parity == "reference" and method != "ppl"
    ranked = []
    for g in order:
        representative = groups[g][-1] if last else max(groups[g], key=lambda i: (_logprob(paths[i]), -i))
        ranked.append(AnswerClass(paths[representative].answer, confidences[g], groups[g], representative, shares[g]))
    return tuple(ranked)


def _most_probable(paths: Sequence[Path], groups: Sequence[tuple[int, ...]]) -> tuple[list[float], list[float]]:
    """For each class the log-probability of its most probable path, and its share of the paths that tie for it."""
    best = [max(_logprob(paths[i]) for i in group) for group in groups]
    top = max(best)
    winners = [sum(_logprob(paths[i]) == top for i in group) for group in groups]
    return best, [count / sum(winners) for count in winners]


def _weights(paths: Sequence[Path], groups: Sequence[tuple[int, ...]], parity: Parity) -> Mapping[int, float]:
    """Weight of each path: its probability, up to a factor if all of them underflow."""
    voters = [i for group in groups for i in group]
    p = {i: paths[i].probability or 0.0 for i in voters}
    if parity == "reference" or max(p.values()) > _UNDERFLOW:
        return p
    top = max(_logprob(paths[i]) for i in voters)
    return {i: 1.0 if top == -math.inf else math.exp(_logprob(paths[i]) - top) for i in voters}


def _mass(paths: Sequence[Path], survivors: Sequence[int], weights: Mapping[int, float], parity: Parity) -> float:
    """Weight of a class: each distinct text once, or under `parity="reference"` once for each distinct probability."""
    by_text: dict[str, set[float]] = {}
    for i in survivors:
        by_text.setdefault(paths[i].text, set()).add(weights[i])
    # exactly rounded, so that the order of the paths changes nothing
    if parity == "none":
        return math.fsum(max(values) for values in by_text.values())
    return math.fsum(value for values in by_text.values() for value in values)


def _logprob(path: Path) -> float:
    return -math.inf if path.mean_logprob is None else path.mean_logprob
