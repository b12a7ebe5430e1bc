"""The sidecar under load for a long time: memory, and every request's run in the store exactly once.

    python benchmarks/sidecar_soak.py [--minutes 30] [--streams 64] [--response-s 0.5] [--out DIR]

`reason serve` with a key runs before `sidecar_backend.py`, whose responses take `--response-s` seconds. In slices, by
turns streamed and not, the load generator keeps the given number of requests in flight, each with a number of its own.
Between slices nothing is in flight and the resident memory is read.

At the end each answered request must have one finished run with one response in the store, and the model server the
same number of finished responses. Memory is flat if after a fifth of the time no reading is further than 5 % from their
median. The exit code is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from load_tables import write_report
from reporting import made_here, table
from sidecar_backend import Pace
from sidecar_ledger import snapshot
from sidecar_load_client import Job, LoadGenerator
from sidecar_servers import Backend, Server, exit_on_sigterm, reason_server

FLAT = 0.05
WARM = 0.2
"""Share of the time after which memory must be flat."""


@dataclass
class Soak:
    """What was seen.

    Attributes:
        memory: Minutes since the beginning and MiB of resident memory, between slices.
        answered_by_slice: Successful requests.
        failures: Those that were not, by what they were.
        latencies: 99th percentile of each slice, in seconds.
    """

    memory: list[tuple[float, float]] = field(default_factory=list)
    answered_by_slice: dict[str, int] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)


def main() -> int:
    """Load and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--reply-s", type=float, default=0.5)
    parser.add_argument("--slice-s", type=float, default=20.0, help="seconds of a slice, about")
    parser.add_argument("--out", type=Path, help="directory for sidecar_soak.md and .json")
    args = parser.parse_args()
    exit_on_sigterm()
    pace = Pace(tokens=16, first_s=args.reply_s / 16, token_s=args.reply_s / 16)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        with Backend(directory, pace) as backend:
            server = reason_server(directory, backend)
            with server.process:
                seen = load(server, args.minutes, args.streams, args.reply_s, args.slice_s)
                ended = server.process.end()
            counted = backend.stats()
            faults, rows = compare(seen, directory / "runs.sqlite3", counted)
    if ended != 0:
        faults.append(f"the sidecar ended with {ended}")
    spread, slope = flatness(seen.memory)
    if spread > FLAT:
        faults.append(f"memory is not flat: readings up to {100 * spread:.1f} % from their median")
    rows += [
        ["resident memory at first, MiB", f"{seen.memory[0][1]:.0f}"],
        ["at the end, MiB", f"{seen.memory[-1][1]:.0f}"],
    ]
    rows += [["furthest reading from the median, after a fifth of the time", f"{100 * spread:.1f} %"]]
    rows += [["growth by a straight line, MiB an hour", f"{slope:+.1f}"]]
    rows += [["p99 of slices, ms: median", f"{1e3 * statistics.median(seen.latencies):.0f}"]]
    rows += [["p99 of slices, ms: largest", f"{1e3 * max(seen.latencies):.0f}"]]
    head = f"{made_here()} {args.minutes:g} minutes, {args.streams} streams, replies of {args.reply_s:g} s."
    report = "\n\n".join([head, table(["", "value"], rows), "; ".join(faults) or "As it must be."])
    record = {
        "head": head,
        "faults": faults,
        "memory": seen.memory,
        "answered_by_slice": seen.answered_by_slice,
        "p99": seen.latencies,
    }
    write_report(report, record, args.out, "sidecar_soak")
    return int(bool(faults))


def load(server: Server, minutes: float, streams: int, reply_s: float, slice_s: float) -> Soak:
    """Keep the streams going."""
    seen = Soak()
    requests = max(streams, round(streams * slice_s / reply_s))
    generator = LoadGenerator()
    began = time.monotonic()
    try:
        while time.monotonic() - began < 60 * minutes:
            name = f"tag-soak-{len(seen.answered_by_slice)}"
            body = server.body(stream=len(seen.answered_by_slice) % 2 == 0)
            body["messages"] = [{"role": "user", "content": f"{body['messages'][0]['content']} ({name})"}]
            job = Job(server.url, body, streams, requests, server.headers, reply_s, numbered=name)
            metrics = generator.run(job)
            seen.answered_by_slice[name] = len(metrics.latencies)
            seen.failures.update(metrics.failures)
            if metrics.latencies:
                seen.latencies.append(float(np.quantile(metrics.latencies, 0.99)))
            seen.memory.append(((time.monotonic() - began) / 60, server.process.resident() / 2**20))
            print(f"{seen.memory[-1][0]:.1f} min, {seen.memory[-1][1]:.0f} MiB", file=sys.stderr, flush=True)
    finally:
        generator.close()
    return seen


def compare(seen: Soak, store: Path, counted: dict[str, object]) -> tuple[list[str], list[list[str]]]:
    """What the store and the model server have of the requests that were answered: faults, and rows of the table."""
    tags = counted["tags"]
    assert isinstance(tags, dict)
    runs = snapshot(store, {}).runs
    numbered = {tag: result for tag, result in runs.items() if tag.count("-") == 3}
    answered = sum(seen.answered_by_slice.values())
    doubled = [tag for tag, result in numbered.items() if len(result) > 1]
    full = sum(
        len(result) == 1 and result[0].status == "finished" and result[0].calls == 1 for result in numbered.values()
    )
    asked_twice = [tag for tag, times in tags.items() if tag.count("-") == 3 and times != 1]
    faults = [f"{failed} requests failed: {what}" for what, failed in seen.failures.items()]
    if full != answered or len(numbered) != answered:
        faults.append(f"{answered} requests were answered; {len(numbered)} runs are in the store, {full} complete")
    if doubled:
        faults.append(f"{len(doubled)} requests have several runs: {doubled[:3]}")
    if asked_twice:
        faults.append(f"{len(asked_twice)} replies were made several times: {asked_twice[:3]}")
    made = sum(tag.count("-") == 3 for tag in tags)
    if made != answered:
        faults.append(f"{answered} requests were answered, and the model server made {made} replies")
    rows = [["requests answered", str(answered)], ["failed", str(sum(seen.failures.values()))]]
    rows += [["runs in the store, complete", str(full)], ["several runs", str(len(doubled))]]
    return faults, [*rows, ["replies of the model server", str(made)], ["made several times", str(len(asked_twice))]]


def flatness(memory: list[tuple[float, float]]) -> tuple[float, float]:
    """Largest share by which a reading differs from their median, and MiB an hour; both after the first fifth."""
    late = [one for one in memory if one[0] >= WARM * memory[-1][0]]
    values = np.array([mib for _, mib in late])
    spread = float(np.max(np.abs(values / np.median(values) - 1.0)))
    slope = float(np.polyfit([minute for minute, _ in late], values, 1)[0]) * 60 if len(late) > 2 else 0.0
    return spread, slope


if __name__ == "__main__":
    raise SystemExit(main())
