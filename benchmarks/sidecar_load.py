"""Requests per second and latency of the sidecar next to OptiLLM, its-hub and LiteLLM's proxy, before the same model.

    benchmarks/peers/install /tmp/peers
    python benchmarks/sidecar_load.py --peers /tmp/peers [--before DIR] [--rounds 5] [--streams 1,16,64] [--out DIR]

The model is `sidecar_backend.py`: one fixed response, in a process of its own. One load generator in a process of its
own (`sidecar_load_client.py`) sends all of them the same chat request, streamed and not:

    a model that answers at once      each stream sends the next request after the response to the last one: requests
                                      per second are the server's capacity
    a model that takes its time       each response takes `--response-s` seconds, token by token, as in practice: the
                                      latency that a server adds to the model's own

Every cell is measured on all servers, in rotating order, before the next cell, so that other load affects all alike.
The model without a server is one of them: the ceiling of the generator, and the baseline of "added". Ratios are of
rounds side by side, with 95 % t intervals of their logarithms over the rounds.

`sidecar_servers.py` starts the servers; all run all the time, one at a time is measured. A server that is not installed
or does not start is left out and listed.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from load_tables import (
    DIRECT,
    Cell,
    Round,
    Rounds,
    as_json,
    cell_table,
    median,
    memory_table,
    round_of,
    write_report,
)
from reporting import made_here, table
from sidecar_backend import Pace
from sidecar_load_client import Job, LoadGenerator
from sidecar_servers import PEERS, Backend, Server, direct, exit_on_sigterm, reason_server, start_all

AT_ONCE = Pace(tokens=8)


def main() -> int:
    """Measure and print."""
    args = arguments().parse_args()
    exit_on_sigterm()
    tokens = args.reply_tokens
    pace = Pace(tokens=tokens, first_s=args.reply_s / tokens, token_s=args.reply_s / tokens)
    cells = list(chosen_cells(args))
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        directory = Path(scratch)
        backend = stack.enter_context(Backend(directory, AT_ONCE))
        expected = [name for name in PEERS if not args.only or name in args.only.split(",")]
        running, missing = start_all(directory, backend, args.peers, ["reason", *expected], stack)
        if args.before is not None:
            name = "reason before"
            place = directory / name.replace(" ", "-")
            place.mkdir()
            running[name] = reason_server(place, backend, name=name, package=args.before)
            stack.callback(running[name].process.kill)
        servers = [direct(backend), *running.values()]
        before = {s.name: s.process.resident() for s in servers if s.name != DIRECT}
        to_start = {s.name: s.process.cpu_seconds() for s in servers if s.name != DIRECT}
        generator = LoadGenerator()
        stack.callback(generator.close)
        measured: Rounds = {cell: {s.name: [] for s in servers} for cell in cells}
        order = list(servers)
        load = os.getloadavg()[0]
        for number in range(args.rounds):
            for cell in cells:
                backend.set_pace(pace if cell.paced else AT_ONCE)
                for server in order:
                    measured[cell][server.name].append(ask(server, cell, backend, generator, pace))
            order.append(order.pop(0))
            print(f"round {number + 1} of {args.rounds} done", file=sys.stderr, flush=True)
        after = {s.name: s.process.resident() for s in servers if s.name != DIRECT}
        memory = {name: (to_start[name], before[name], after[name]) for name in before}
    head = [
        f"{made_here()} {datetime.now(UTC):%H:%M} UTC, load {load:.1f} before; Python {platform.python_version()}; "
    ]
    head += [", ".join(f"{s.name} {s.version}" for s in servers if s.version) + ", one worker each. "]
    head += [f"{args.rounds} rounds in turns, medians over them; a paced reply is {tokens} tokens in "]
    head += [f"{pace.seconds:.2f} s."]
    parts = ["".join(head), *(f"Not measured: {line}" for line in missing), ceiling(measured)]
    parts += [cell_table(cell, rows) for cell, rows in measured.items()]
    parts += ["### Start and memory", memory_table(memory)]
    report = "\n\n".join(parts)
    results = {"head": "".join(head), "missing": missing, "cells": as_json(measured), "memory": memory}
    write_report(report, results, args.out, "sidecar_load")
    return 0


def arguments() -> argparse.ArgumentParser:
    """What can be requested."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peers", type=Path, help="directory with their virtual environments (benchmarks/peers/install)"
    )
    parser.add_argument(
        "--before", type=Path, help="directory that holds an earlier version as the package `reason`, measured as well"
    )
    parser.add_argument("--only", default="", help="names of peers, with commas; empty is all")
    parser.add_argument("--streams", default="1,16,64", help="streams at once, for the model that answers at once")
    parser.add_argument(
        "--paced-streams", default="64", help="the same for the model that takes its time; empty is none"
    )
    parser.add_argument("--requests", type=int, default=256, help="requests of a cell; at least twice its streams")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reply-s", type=float, default=2.0, help="seconds of a paced reply")
    parser.add_argument("--reply-tokens", type=int, default=40, help="tokens of a paced reply")
    parser.add_argument("--out", type=Path, help="directory for sidecar_load.md and .json")
    return parser


def chosen_cells(options: argparse.Namespace) -> Iterator[Cell]:
    """The cells, paced ones last."""
    for paced, values in ((False, options.streams), (True, options.paced_streams)):
        for streams in map(int, filter(None, values.split(","))):
            for streamed in (True, False):
                yield Cell(
                    streams,
                    max(options.requests, 2 * streams) if streams > 1 else options.requests // 4,
                    streamed,
                    paced,
                )


def ask(server: Server, cell: Cell, backend: Backend, generator: LoadGenerator, pace: Pace) -> Round:
    """One server in one cell of one round."""
    spread = pace.seconds if cell.paced else 0.0
    job = Job(server.url, server.body(cell.streamed), cell.streams, cell.requests, server.headers, spread)
    calls, cpu = backend.stats()["received"], server.process.cpu_seconds()
    metrics = generator.run(job)
    calls, cpu = backend.stats()["received"] - calls, server.process.cpu_seconds() - cpu
    return round_of(metrics, cell.requests + cell.streams, calls, cpu)


def ceiling(measured: Rounds) -> str:
    """What the load generator can do, and how busy it was up to with a server before it."""
    rows = []
    for cell, servers in measured.items():
        if cell.paced:
            continue
        single = servers[DIRECT]
        best = max((median(r.rate for r in rounds), name) for name, rounds in servers.items() if name != DIRECT)
        busy = max(median(r.busy for r in rounds) for name, rounds in servers.items() if name != DIRECT)
        rows.append(
            [cell.label, f"{median(r.rate for r in single):.0f}", f"{best[0]:.0f} ({best[1]})", f"{100 * busy:.0f} %"]
        )
    head = ["", "generator and model, requests/s", "fastest server", "core used by the generator, at most"]
    return f"### The ceiling\n\n{table(head, rows)}"


if __name__ == "__main__":
    raise SystemExit(main())
