r"""`reason` beside its peers, in one run on this machine: the tables of docs/comparison.md.

    benchmarks/peers/install /tmp/peers
    python benchmarks/peers_compare.py footprint overhead serving --peers /tmp/peers --out runs/peers
    python benchmarks/peers_compare.py accuracy --peers /tmp/peers --out runs/peers --data DATA \
        --vllm-python VLLM/bin/python --weights FOLDER [--sizes 4,8] [--limit 40]
    python benchmarks/peers_compare.py tables --out runs/peers

Each part writes `PART.md` and what it was made of into `--out`, and prints the table; `all` does every part, and
`tables` prints what is there. What could not be measured is said. Accuracy can be stopped and started again: cells that
are there are not run again. `--server URL` takes a model server that runs already instead of starting one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import peers_accuracy
import peers_accuracy_table
import peers_footprint
import peers_overhead
import peers_serving
from machine import made_here
from peers_methods import Cell, cells
from reason.evals.datasets.loading import load_dataset
from reason.evals.items import Item
from reason.reasoning.equivalence import Equivalence
from sidecar_backend import Pace
from sidecar_load_table import tell
from sidecar_processes import Failed

PARTS = ("footprint", "overhead", "serving", "accuracy")


def main() -> int:
    """Do the parts that are asked for."""
    given = arguments().parse_args()
    chosen = PARTS if "all" in given.parts else tuple(part for part in PARTS if part in given.parts)
    parts: dict[str, Callable[[argparse.Namespace, Path], tuple[str, Any]]] = {
        "footprint": footprint,
        "overhead": overhead,
        "serving": serving,
        "accuracy": accuracy,
    }
    for part in chosen:
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            body, record = parts[part](given, Path(scratch))
        head = f"{made_here()} {datetime.now(UTC):%H:%M} UTC, load {load:.1f} before."
        tell(f"## {part}\n\n{head}\n\n{body}", record, given.out, part)
    if "tables" in given.parts:
        print("\n\n".join((given.out / f"{p}.md").read_text() for p in PARTS if (given.out / f"{p}.md").exists()))
    return 0


def arguments() -> argparse.ArgumentParser:
    """What can be asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=(*PARTS, "all", "tables"))
    parser.add_argument("--peers", type=Path, help="folder with their virtual environments (benchmarks/peers/install)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of footprint, overhead and serving")
    parser.add_argument("--questions", type=int, default=50, help="questions of a round of overhead")
    parser.add_argument("--size", type=int, default=8, help="samples of the vote of overhead")
    parser.add_argument("--reply-s", type=float, default=2.0, help="seconds of a reply of the model of serving")
    parser.add_argument("--reply-tokens", type=int, default=40, help="tokens of one")
    parser.add_argument("--servers", default="", help="for serving: of reason,optillm,its_hub,litellm")
    parser.add_argument("--data", type=Path, help="folder that holds gsm8k/dev.jsonl, or that file")
    parser.add_argument("--limit", type=int, default=40, help="questions of accuracy, the first ones")
    parser.add_argument("--sizes", default="4,8", help="sizes: about so many whole solutions a question")
    parser.add_argument("--only", default="", help="names of peers for accuracy, with commas; empty is all")
    parser.add_argument("--methods", default="", help="names of methods likewise")
    parser.add_argument("--skip", default="", help="cells of accuracy that are left out: PEER:METHOD, with commas")
    parser.add_argument("--concurrency", type=int, default=8, help="questions of accuracy under way at once")
    parser.add_argument("--server", help="address of a running model server, without /v1; its model is called `model`")
    parser.add_argument("--vllm-python", type=Path, help="interpreter of the environment that vLLM is in")
    parser.add_argument("--weights", type=Path, help="folder of the model")
    return parser


def footprint(given: argparse.Namespace, folder: Path) -> tuple[str, Any]:
    """Size and import time."""
    found, missing = peers_footprint.measure(given.peers, given.rounds)
    return _said(peers_footprint.footprint_table(found), missing), {n: asdict(one) for n, one in found.items()}


def overhead(given: argparse.Namespace, folder: Path) -> tuple[str, Any]:
    """Own work of a question."""
    found, missing = peers_overhead.measure(given.peers, folder, given.size, given.questions, given.rounds)
    record = {name: [asdict(spent) for spent in rounds] for name, rounds in found.items()}
    head = f"{given.questions} questions a round, {given.rounds} rounds in turns; medians over the rounds.\n\n"
    return _said(head + peers_overhead.overhead_table(found, given.size), missing), record


def serving(given: argparse.Namespace, folder: Path) -> tuple[str, Any]:
    """First text, and what goes on for a client that left."""
    each = given.reply_s / given.reply_tokens
    pace = Pace(tokens=given.reply_tokens, first_s=each, token_s=each)
    found, missing = peers_serving.measure(given.peers, folder, pace, given.rounds, given.servers)
    record = [
        {"server": name, "samples": samples, "rounds": [[asdict(one) for one in made] for made in rounds]}
        for (name, samples), rounds in found.items()
    ]
    head = f"A reply is {pace.tokens} tokens in {pace.seconds:.2f} s; {given.rounds} rounds in turns, medians.\n\n"
    return _said(head + peers_serving.serving_table(found), missing), record


def accuracy(given: argparse.Namespace, folder: Path) -> tuple[str, Any]:
    """Accuracy at counted tokens."""
    items = load_dataset("gsm8k", data=given.data, limit=given.limit).items
    skipped = given.skip.split(",") if given.skip else []
    chosen = cells(sorted(map(int, given.sizes.split(","))), given.only, given.methods)
    wanted = [cell for cell in chosen if f"{cell.peer}:{cell.method}" not in skipped]
    place = given.out / "answers"
    place.mkdir(parents=True, exist_ok=True)
    missing = run_cells([cell for cell in wanted if not (place / cell.file).exists()], items, given, folder, place)
    measured = asyncio.run(_read(place, wanted, items))
    weights = given.weights.name if given.weights else "the model of the server that was given"
    parts = [f"gsm8k, {len(items)} questions, {weights} on vLLM, {given.concurrency} questions at once."]
    parts += [peers_accuracy_table.accuracy_table(measured)]
    if equal := peers_accuracy_table.equal_tokens_table(measured):
        parts += ["### At equal tokens, between the sizes", equal]
    record = [{**asdict(cell), "rows": [asdict(row) for row in rows]} for cell, rows in measured.items()]
    return _said("\n\n".join(parts), [*missing, *(f"{name} (left out)" for name in skipped)]), record


def run_cells(
    wanted: list[Cell], items: tuple[Item, ...], given: argparse.Namespace, folder: Path, place: Path
) -> list[str]:
    """Run what is not there yet; gives what could not be run."""
    missing: list[str] = []
    if not wanted:
        return missing
    with ExitStack() as stack:
        upstream = given.server
        if upstream is None:
            model, upstream = peers_accuracy.model_server(folder, given.vllm_python, given.weights)
            stack.callback(model.kill)
        process, root = peers_accuracy.proxy(folder, upstream)
        stack.callback(process.kill)
        for number, cell in enumerate(wanted):
            began = datetime.now(UTC)
            try:
                peers_accuracy.measure(cell, items, root, given.peers, folder, place, concurrency=given.concurrency)
            except (Failed, OSError) as e:
                missing.append(f"{cell.peer}, {cell.method}, size {cell.size}: {e}")
            took = (datetime.now(UTC) - began).total_seconds()
            print(f"{number + 1} of {len(wanted)}: {cell.file}, {took:.0f} s", file=sys.stderr, flush=True)
    return missing


async def _read(place: Path, wanted: list[Cell], items: tuple[Item, ...]) -> dict[Cell, list[Any]]:
    async with Equivalence() as same:
        found = {cell: await peers_accuracy_table.read_cell(place, cell, items, same) for cell in wanted}
    return {cell: rows for cell, rows in found.items() if rows}


def _said(body: str, missing: list[str]) -> str:
    return "\n\n".join([body, *(f"Not measured: {line}" for line in missing)])


if __name__ == "__main__":
    raise SystemExit(main())
