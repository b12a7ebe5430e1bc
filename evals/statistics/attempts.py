"""Several attempts at an item: pass@k, and the chance of at least one failure."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from ...core.errors import UserError
from .outcomes import Array, Outcomes


def pass_at_k(outcomes: Outcomes, k: int) -> float | None:
    """Chance that at least one of k attempts succeeds, averaged over items.

    (1/I) Σ [1 - C(n - c_i, k) / C(n, k)] with c_i successes in n_i attempts: unbiased for k ≤ n.

    Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1.

    Returns:
        None if an item has fewer than k attempts, or scores are not 0 or 1: then it is not estimable.
    """
    each = attempts_by_item(outcomes, k, failures=False)
    return None if each is None else float(each.mean())


def fail_at_k(outcomes: Outcomes, k: int) -> float | None:
    """Chance that at least one of k attempts fails, averaged over items (R_k). None as in `pass_at_k`."""
    each = attempts_by_item(outcomes, k, failures=True)
    return None if each is None else float(each.mean())


def attempts_by_item(outcomes: Outcomes, k: int, *, failures: bool) -> Array | None:
    """For each item the chance that k attempts hold at least one success (or failure), `[items]`.

    Raises:
        UserError: k is less than 1.
    """
    if k < 1:
        raise UserError(f"k must be at least 1, not {k}")
    n = outcomes.seeds_per_item
    if not outcomes.binary or n.min() < k:
        return None
    hits = np.nansum(1 - outcomes.scores if failures else outcomes.scores, axis=1)
    misses = n - hits
    none = np.where(misses >= k, np.exp(_log_ways(np.maximum(misses, k), k) - _log_ways(n.astype(float), k)), 0.0)
    each: Array = 1.0 - none
    return each


def _log_ways(n: Array, k: int) -> Array:
    """Logarithm of k! times C(n, k): in a ratio of two of them, k! cancels out."""
    value: Array = gammaln(n + 1) - gammaln(n - k + 1)
    return value
