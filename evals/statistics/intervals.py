"""Confidence intervals of a mean: Wilson for a share, Student's t over clusters, bootstrap over clusters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ...core.errors import UserError
from .outcomes import Array, Index

RESAMPLES = 10_000
LEVEL = 0.95
_CHUNK = 2_000_000
"""Maximum number of indices generated at once: bounds memory, and does not change what is sampled."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval; `method` states how it was made."""

    low: float
    high: float
    method: str


def wilson(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a share, for independent trials.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Raises:
        UserError: There is no trial.
    """
    if trials < 1:
        raise UserError("an interval of a share needs at least one trial")
    result = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    return Interval(float(result.low), float(result.high), "wilson")


def standard_error(values: Array, clusters: Index) -> float | None:
    """Standard error of the mean, clustered.

    SE² = G/(G-1) · Σ_g (Σ_{i in g} (x_i - mean))² / I², for G clusters of I values in all. With every value its own
    cluster this is the sample variance over I.

    Source: Liang and Zeger 1986 for a mean, with the usual correction for few clusters; Miller 2024, "Adding Error Bars
    to Evals", section 2.2.

    Args:
        values: `[items]`.
        clusters: Group of each value, numbered from 0, `[items]`.

    Returns:
        None where it is not estimable: fewer than two clusters.
    """
    groups = int(clusters.max()) + 1
    if groups < 2:
        return None
    residuals = np.bincount(clusters, weights=values - values.mean(), minlength=groups)
    return float(np.sqrt(groups / (groups - 1) * np.sum(residuals**2)) / len(values))


def t_interval(values: Array, clusters: Index, level: float = LEVEL) -> Interval | None:
    """Mean ± t · SE with the clustered standard error and one degree of freedom less than there are clusters.

    Not cut to a range: a mean of scores is in [0, 1], a mean of differences does not.

    Returns:
        None where the standard error is not estimable.
    """
    se = standard_error(values, clusters)
    if se is None:
        return None
    reach = float(stats.t.ppf((1 + level) / 2, int(clusters.max()))) * se
    mean = float(values.mean())
    return Interval(mean - reach, mean + reach, "t")


def bootstrap_means(values: Array, clusters: Index, *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Means of resamples; clusters are sampled with replacement.

    Args:
        values: `[items]`, or `[items, columns]` for several means over the same resamples.
        clusters: Group of each item, `[items]`.

    Returns:
        `[resamples]` or `[resamples, columns]`.
    """
    groups = int(clusters.max()) + 1
    columns = values.reshape(len(values), -1)
    sums = np.stack([np.bincount(clusters, weights=c, minlength=groups) for c in columns.T], axis=1)
    sizes = np.bincount(clusters, minlength=groups).astype(float)
    means = np.concatenate(
        [
            sums[sampled].sum(axis=1) / sizes[sampled].sum(axis=1, keepdims=True)
            for sampled in resample_groups(groups, resamples, seed)
        ]
    )
    return means.reshape(resamples, *values.shape[1:])


def bootstrap(
    values: Array, clusters: Index, level: float = LEVEL, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """Percentile interval of the mean over resamples of clusters.

    Source: Efron and Tibshirani 1993, chapter 13.

    Returns:
        None with fewer than two clusters, where every resample is the same.
    """
    if int(clusters.max()) < 1:
        return None
    low, high = percentiles(bootstrap_means(values, clusters, resamples=resamples, seed=seed), level)
    return Interval(float(low), float(high), "bootstrap")


def percentiles(replicates: Array, level: float = LEVEL) -> tuple[Array, Array]:
    """The two ends of the central share `level` of the replicates, along the first axis."""
    ends: Array = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return ends[0], ends[1]


def resample_groups(groups: int, resamples: int, seed: int) -> Iterator[Index]:
    """Indices of sampled groups, `[some, groups]` at a time; what is sampled depends on the arguments only."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // groups)
    for start in range(0, resamples, rows):
        yield rng.integers(0, groups, (min(rows, resamples - start), groups))
