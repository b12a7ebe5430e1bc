"""Overhead of a run: `Reasoner.aask` with `cot`, or a vote of n samples, over a model that answers at once.

    python benchmarks/run_overhead.py [--runs 400] [--at-once 1 64] [--samples 8]
        [--store FILE|URL] [--profile] [--http]

Prints, for each number of concurrent runs, runs per second, CPU milliseconds a run (all threads of this process),
transactions a run, and the median and 99th percentile of a run's latency. It measures the pipeline, the meters, the
events and the run store, without network and weights.

`--http` also measures the path of a chat request: `reason serve` with keys, LiteLLM's provider path and a model server
that answers at once (`sidecar_backend.py`), each in a process of its own; CPU time is that of the serving process.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import reason.agents.reasoner as reasoner_module
from reason import Reasoner
from reason.core.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.instant_model import InstantModel  # noqa: E402

MODEL = "instant/echo"
TEXT = "Six times seven is forty-two.\nAnswer: 42"


async def measure(store: Path | str, at_once: int, args: argparse.Namespace) -> str:
    """One row of the table."""
    runs, profile = args.runs, args.profile

    async def instant(*_: Any) -> InstantModel:
        return InstantModel(lambda prompt, index: TEXT, logprobs=True)

    reasoner_module.load_model = instant  # type: ignore[assignment]  # no model string opens it
    strategy = "self-consistency" if args.samples else "cot"
    settings = load_settings(store=store, model=MODEL, strategy=strategy)
    async with Reasoner(settings=settings, parameters={"n": args.samples} if args.samples else None) as reasoner:
        took: list[float] = []

        async def ask(i: int) -> None:
            began = time.perf_counter()
            answer = await reasoner.aask(f"What is six times seven? ({i})")
            took.append(time.perf_counter() - began)
            assert answer.answer == "42", answer

        for i in range(20):
            await ask(-i)
        took.clear()
        opened = reasoner._store
        before = getattr(opened, "transactions", 0)
        waiting = iter(range(runs))
        profiler = cProfile.Profile()

        async def worker() -> None:
            for i in waiting:
                await ask(i)

        if profile:
            profiler.enable()
        wall, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if profile:
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
        transactions = getattr(opened, "transactions", 0) - before
    percentiles = statistics.quantiles(took, n=100)
    return (
        f"{at_once:>8} {runs / wall:>9.0f} {1000 * cpu / runs:>11.2f} {transactions / runs:>13.1f} "
        f"{1000 * percentiles[49]:>10.1f} {1000 * percentiles[98]:>8.1f}"
    )


def measure_http(runs: int, at_once: Sequence[int]) -> Iterator[str]:
    """Rows of the table of chat requests: responses and streams, for each number of concurrent requests."""
    from sidecar_backend import Pace
    from sidecar_load_client import Job, LoadGenerator
    from sidecar_servers import Backend, reason_server

    with tempfile.TemporaryDirectory() as scratch, Backend(Path(scratch), Pace()) as backend:
        server, generator = reason_server(Path(scratch), backend), LoadGenerator()
        try:
            for streams in at_once:
                for streamed in (False, True):
                    job = Job(server.url, server.body(streamed), streams, runs, server.headers)
                    generator.run(job)  # code and connections are warm
                    before = server.process.cpu_seconds()
                    metrics = generator.run(job)
                    assert not metrics.failures, metrics.failures
                    cpu = (server.process.cpu_seconds() - before) / (runs + streams)
                    percentiles = statistics.quantiles(metrics.latencies, n=100)
                    yield (
                        f"{streams:>8} {'stream' if streamed else 'whole':>7} {runs / metrics.seconds:>11.0f} "
                        f"{1000 * cpu:>15.2f} {1000 * percentiles[49]:>10.1f} {1000 * percentiles[98]:>8.1f}"
                    )
        finally:
            generator.close()
            server.process.kill()


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--samples", type=int, help="samples of a vote; by default one chain of thought")
    parser.add_argument("--store", help="a database; else a new file")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--http", action="store_true", help="measure the path of a chat request as well")
    args = parser.parse_args()
    print(f"{'at once':>8} {'runs/s':>9} {'cpu ms/run':>11} {'transactions':>13} {'median ms':>10} {'p99 ms':>8}")
    for at_once in args.at_once:
        with tempfile.TemporaryDirectory() as scratch:
            store = args.store or Path(scratch) / "runs.sqlite3"
            print(asyncio.run(measure(store, at_once, args)), flush=True)
    if args.http:
        print(
            f"\n{'at once':>8} {'reply':>7} {'requests/s':>11} {'cpu ms/request':>15} {'median ms':>10} {'p99 ms':>8}"
        )
        for row in measure_http(args.runs, args.at_once):
            print(row, flush=True)


if __name__ == "__main__":
    main()
