"""The fit of RPC's Weibull mixture next to the same solver with finite differences and the formula as published.

    python benchmarks/rpc_fit.py [--pools 40]

All fit the same pools, interleaved: probabilities of two overlapping Weibull distributions. "By differences" is
`scipy.optimize.minimize` from the published start, first on one BLAS thread as ours, then on BLAS's default number (so
do not set OMP_NUM_THREADS). Times are medians of wall and CPU milliseconds. The last columns have the number of pools
on which the two reach the same negative log-likelihood, to 1e-4 nats, and on which ours is lower or higher.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
from reason.core.blas_threads import one_blas_thread
from reason.reasoning.voting.path_votes import BOUNDS, START, fit_mixture
from reporting import processor
from scipy.optimize import minimize

SIZES = (16, 64, 128, 256)


def pool(paths: int, seed: int) -> np.ndarray:
    """Probabilities of as many paths, some 40% of them of a lower component."""
    rng = np.random.default_rng(seed)
    low = rng.random(paths) < 0.4
    p = np.where(low, 0.55 * rng.weibull(7, paths), 0.85 * rng.weibull(12, paths))
    return np.clip(p, 1e-6, 1)


def by_differences(p: np.ndarray) -> float:
    """The formula as it is written, without a gradient; the likelihood reached."""

    def weibull(k: float, lam: float) -> np.ndarray:
        value: np.ndarray = (k / lam) * (p / lam) ** (k - 1) * np.exp(-((p / lam) ** k))
        return value

    def nll(q: np.ndarray) -> float:
        return -float(np.sum(np.log(q[0] * weibull(q[1], q[2]) + (1 - q[0]) * weibull(q[3], q[4]))))

    with np.errstate(all="ignore"):
        return float(minimize(nll, np.array(START), bounds=BOUNDS).fun)


def by_differences_on_one_thread(p: np.ndarray) -> float:
    """The same with BLAS on one thread."""
    with one_blas_thread():
        return by_differences(p)


def timed(work: Callable[[np.ndarray], Any], p: np.ndarray) -> tuple[tuple[float, float], Any]:
    """Milliseconds that pass and of the processor, and the outcome."""
    began, busy = time.perf_counter(), time.process_time()
    outcome = work(p)
    return ((time.perf_counter() - began) * 1e3, (time.process_time() - busy) * 1e3), outcome


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=int, default=40, help="pools of each size")
    count = parser.parse_args().pools
    print(
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; {processor()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} before; Python {platform.python_version()}, numpy {np.__version__}, "
        f"scipy {scipy.__version__}; {count} pools of each size\n"
    )
    print(
        "| paths | our fit | processor | by differences, one thread | processor | by differences | processor "
        "| same likelihood | ours lower | ours higher |"
    )
    print("|" + " ---: |" * 10)
    fit_mixture(pool(SIZES[0], 0))  # loads what has to be loaded
    for paths in SIZES:
        ours, one_thread, many_threads, gaps = [], [], [], []
        for seed in range(count):
            p = pool(paths, seed)
            passed, fit = timed(fit_mixture, p)
            ours.append(passed)
            passed, nll = timed(by_differences_on_one_thread, p)
            one_thread.append(passed)
            many_threads.append(timed(by_differences, p)[0])
            gaps.append(fit.nll - nll)
        medians = " | ".join(
            f"{statistics.median(column):.2f} ms"
            for times in (ours, one_thread, many_threads)
            for column in zip(*times, strict=True)
        )
        same = sum(abs(gap) <= 1e-4 for gap in gaps)
        print(f"| {paths} | {medians} | {same} | {sum(g < -1e-4 for g in gaps)} | {sum(g > 1e-4 for g in gaps)} |")


if __name__ == "__main__":
    main()
