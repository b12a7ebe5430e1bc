"""Time and memory to verify claims with retrieved passages, end to end: pairs, decision, spans.

    taskset -c 0,1 python benchmarks/verify_speed.py --data DIRECTORY --judges small base --threads 2

Claims are FEVER's with the sentences that a plain retriever listed for them, in the order of the file. Each judge has a
process of its own, one after the other. The first claim is timed separately, since it opens the judge.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "training" / "judge"))

from labelled_claims import LabelledClaim, first_passages, read_claims, read_passages
from reason.core.settings import load_settings
from reason.core.version import __version__
from reason.reasoning.knowledge import Passage
from reason.verify.davinci.decision import DavinciConfig
from reason.verify.entailment.factory import load_entailment
from reason.verify.types import ClaimReport
from reporting import processor, table
from verdicts import check_claims

MAX_SECONDS = {"small": 60.0, "base": 300.0}
"""Goals for 1,000 claims with five passages on two cores."""
MAX_GB = 1.5
"""Goal for the peak of resident memory."""


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


async def verify(rows: Sequence[LabelledClaim], entailment: Any, k: int) -> tuple[list[ClaimReport], float]:
    """Verify claims.

    Returns:
        Their reports, and the seconds that took.
    """
    config = DavinciConfig(judge=entailment.name, k=k, internal=())
    context: Any = SimpleNamespace(entailment=entailment, run=None)  # all that bare claims need
    listed = Listed(rows)
    began = time.perf_counter()
    reports = await check_claims([row.claim for row in rows], listed, context, config)
    return reports, time.perf_counter() - began


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time and memory of one judge in this process."""
    rows = first_passages(
        read_claims("fever", options.data / "fever", read_passages(options.data / "corpus")), options.k
    )[: options.claims]
    began = time.perf_counter()
    entailment = await load_entailment(options.judge, load_settings())
    try:
        await verify(rows[:1], entailment, options.k)
        opened = time.perf_counter() - began
        reports, seconds = await verify(rows, entailment, options.k)
    finally:
        await entailment.aclose()
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "judge": options.judge,
        "identity": entailment.identity,
        "claims": len(reports),
        "pairs": sum(len(report.pairs) for report in reports),
        "opened": opened,
        "seconds": seconds,
        "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9,
        "verdicts": dict(Counter(report.verdict for report in reports).most_common()),
        "torch": version("torch"),
    }


def in_a_process(options: argparse.Namespace, judge: str) -> dict[str, Any]:
    """`measure` in a process of its own, whose memory is that of this judge only."""
    command = [sys.executable, __file__, "--data", str(options.data), "--judge", judge, "-k", str(options.k)]
    command += ["--claims", str(options.claims)]
    if options.threads is not None:
        command += ["--threads", str(options.threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def report(results: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    """The table, and the machine it was measured on."""
    head = ["judge", "opened, s", "claims", "passages", "seconds", "passages a second", "peak memory, GB", "goals"]
    rows = []
    for one in results:
        limit = MAX_SECONDS.get(one["judge"]) if (one["claims"], options.k) == (1000, 5) else None
        goals = [f"{limit:.0f} s: {'kept' if one['seconds'] <= limit else 'missed'}"] if limit else []
        goals.append(f"{MAX_GB} GB: {'kept' if one['gb'] <= MAX_GB else 'missed'}")
        rate = one["pairs"] / one["seconds"]
        cells = [one["judge"], f"{one['opened']:.1f}", f"{one['claims']:,}", f"{one['pairs']:,}"]
        rows.append([*cells, f"{one['seconds']:.1f}", f"{rate:,.0f}", f"{one['gb']:.2f}", "; ".join(goals)])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        table(head, rows),
        "",
        f"{processor()}, {cores} cores, threads {options.threads or 'as they come'}, load {os.getloadavg()[0]:.1f}; "
        f"reason {__version__}, Python {platform.python_version()}, torch {results[0]['torch']}.",
        *(f"{one['judge']}: `{one['identity']}`; {_counts(one['verdicts'])}." for one in results),
    ]
    if len(results) > 1:
        first, last = results[0], results[-1]
        lines.append(
            f"{last['judge']} takes {last['seconds'] / first['seconds']:.1f} times as long as {first['judge']}."
        )
    return "\n".join(lines)


def _counts(verdicts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in verdicts.items())


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory with fever and corpus")
    parser.add_argument("--judges", nargs="+", default=["small", "base"], help="judges to compare, the fastest first")
    parser.add_argument("--judge", help="measure one judge in this process, and print JSON")
    parser.add_argument("--claims", type=int, default=1000)
    parser.add_argument("-k", type=int, default=5, help="passages of a claim")
    parser.add_argument("--threads", type=int, help="threads of torch")
    args = parser.parse_args()
    if args.judge is None:
        print(report([in_a_process(args, judge) for judge in args.judges], args))
        return
    if args.threads is not None:
        import torch

        torch.set_num_threads(args.threads)
    print(json.dumps(asyncio.run(measure(args))))


if __name__ == "__main__":
    main()
