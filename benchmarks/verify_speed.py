"""Time to verify claims with retrieved passages, end to end: pairs, fusion, gate, spans.

    taskset -c 0,1 python benchmarks/verify_speed.py --data DIRECTORY --entailment embedded --threads 2

Claims are FEVER's with the sentences that a plain retriever listed for them, in the order of the file. The first claim
is timed separately, since it opens the judge.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from reason.core.settings import load_settings
from reason.core.version import __version__
from reason.evals.verification.claims import LabelledClaim, first_passages, read_claims, read_passages
from reason.reasoning.retrieval.protocol import Passage
from reason.verify.davinci.config import DavinciConfig
from reason.verify.davinci.davinci import check_claims
from reason.verify.entailment.factory import load_entailment
from reason.verify.types import ClaimReport
from reporting import processor


class Listed:
    """A retriever over what is listed for each claim."""

    name = identity = "listed"

    def __init__(self, rows: Sequence[LabelledClaim]) -> None:
        self._listed = {row.claim: list(row.passages or ()) for row in rows}

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """See `Retriever`."""
        return [self._listed[claim][:k] for claim in claims]

    async def aclose(self) -> None:
        """Do nothing."""


async def measure(rows: Sequence[LabelledClaim], entailment: Any, k: int) -> tuple[list[ClaimReport], float]:
    """Verify claims.

    Returns:
        Their reports, and the seconds that took.
    """
    config = DavinciConfig(entailment=entailment.name, k=k, internal=())
    means: Any = SimpleNamespace(entailment=entailment)  # all that bare claims need
    listed = Listed(rows)
    began = time.perf_counter()
    reports = await check_claims([row.claim for row in rows], listed, means, config)
    return reports, time.perf_counter() - began


async def work(options: argparse.Namespace) -> None:
    """Measure and print."""
    rows = first_passages(
        read_claims("fever", options.data / "fever", read_passages(options.data / "corpus")), options.k
    )[: options.claims]
    began = time.perf_counter()
    entailment = await load_entailment(options.entailment, load_settings())
    try:
        await measure(rows[:1], entailment, options.k)
        opened = time.perf_counter() - began
        reports, seconds = await measure(rows, entailment, options.k)
    finally:
        await entailment.aclose()
    pairs = sum(len(report.pairs) for report in reports)
    verdicts = ", ".join(
        f"{name} {count}" for name, count in Counter(report.verdict for report in reports).most_common()
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{options.entailment} (`{entailment.identity}`), reason {__version__}, Python {platform.python_version()}")
    print(f"{processor()}, {cores} cores, threads {options.threads or 'as they come'}, load {os.getloadavg()[0]:.1f}")
    print(f"opened and warm in {opened:.1f} s")
    print(f"{len(reports):,} claims, {pairs:,} passages: {seconds:.1f} s, {pairs / seconds:,.0f} passages a second")
    print(verdicts)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory with fever and corpus")
    parser.add_argument("--entailment", default="embedded", help="what judges")
    parser.add_argument("--claims", type=int, default=1000)
    parser.add_argument("-k", type=int, default=5, help="passages of a claim")
    parser.add_argument("--threads", type=int, help="threads of torch")
    args = parser.parse_args()
    if args.threads is not None:
        import torch

        torch.set_num_threads(args.threads)
    asyncio.run(work(args))


if __name__ == "__main__":
    main()
