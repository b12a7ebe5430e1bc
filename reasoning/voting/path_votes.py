"""Votes over sampled paths: from paths and the classes of their answers to one answer, by count or by probability.

Reasoning pruning (`prune`) decides by the mixture of the paths' probabilities which are too improbable to vote: those
that more probably belong to the lower component than to the higher one and are below the mean; both comparisons are
strict. So a path above the mean is never pruned, whatever the mixture is.

Source: Zhou et al., "A Theoretical Study on Bridging Internal Probability and Self-Consistency for LLM Reasoning"
(NeurIPS 2025, arXiv:2510.15444).

Differs, unless `parity="reference"`: nothing is pruned if the fit carries no information, and the most probable path is
never pruned. The authors' program can prune all paths of equal probability, since their mean in floating point can
exceed each of them; it then divides 0 by 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from ...core.errors import DataError, UnknownName, UserError
from ...core.registry import nearest
from .weibull import FLOOR, Fit, density, fit_mixture, log_posterior

if TYPE_CHECKING:
    from .weibull import Array


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
            object.__setattr__(self, "mean_logprob", _validate_logprob(self.mean_logprob, "the mean log-probability"))

    @classmethod
    def from_logprobs(cls, text: str, answer: str | None, logprobs: Sequence[float]) -> Path:
        """A path from the log-probabilities of its tokens: s = (1/T) Σ l_t.

        Args:
            text: The generated text.
            answer: The answer it states.
            logprobs: Log-probability of each sampled token in nats, `[tokens]`, of the raw distribution.

        Raises:
            DataError: There is no token, or a value is not a number or above 0; names its position.
        """
        if not len(logprobs):
            raise DataError("the list of log-probabilities is empty", hint="leave it out if there are none")
        values = [_validate_logprob(value, f"the log-probability of token {i}") for i, value in enumerate(logprobs, 1)]
        return cls(text, answer, math.fsum(values) / len(values))

    @property
    def probability(self) -> float | None:
        """Geometric mean of the tokens' probabilities, p = exp(s), in [0, 1]; None if unknown."""
        return None if self.mean_logprob is None else math.exp(self.mean_logprob)

    @property
    def perplexity(self) -> float | None:
        """1/p, 1 or more; infinite if p is 0, None if unknown."""
        if self.mean_logprob is None:
            return None
        return math.exp(-self.mean_logprob) if self.mean_logprob > -700 else math.inf


def _validate_logprob(value: float, what: str) -> float:
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
        mean: Mean probability of all paths.
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
PARITIES: Final[tuple[Parity, ...]] = get_args(Parity)

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
        method: The requested method.
        method_used: The method that was applied.
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
    def ties(self) -> tuple[int, ...]:
        """Positions in `classes` of those that share the first rank; one without a tie."""
        return tuple(i for i, voted in enumerate(self.classes) if voted.credit)

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
        paths: All samples of one question.
        classes: Positions of equal answers, as from `Equivalence.group`: each path with an answer in
            exactly one class, no path without one in any.
        method: The method.
        parity: Whether to count as the authors' program does.

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


def parse_parity(name: str) -> Parity:
    """The parity of a name; raises `UnknownName` if there is none."""
    for parity in PARITIES:
        if parity == name:
            return parity
    raise UnknownName("parity", name, nearest(name, PARITIES), hint="one of " + ", ".join(PARITIES))


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
