"""What a peer itself costs a question: a vote of n samples before a model that answers at once.

One question after the other. Seconds and processor time are those of the peer's own process without its start, where
it is a library (`reason`'s SDK, its-hub); where it is a server (OptiLLM), the server's time and the client's, which is
part of the way. `(direct)` sends n calls without any peer: the floor. Rounds go through all of them in turn, so that
whatever else the machine does falls on all alike.

its-hub and `(direct)` make n calls for a question; `reason` and OptiLLM make one call for n samples.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from peers_accuracy import Asked, job_of, optillm_server, run_job
from peers_methods import OURS, Cell, peer_named
from sidecar_backend import Pace
from sidecar_load_table import ratio_text, spread, table
from sidecar_processes import Backend, Failed, Process

DIRECT = "(direct)"
MEASURED = (DIRECT, OURS, "its-hub", "OptiLLM")
WARM = 5


@dataclass(frozen=True)
class Spent:
    """What one round of a peer took, a question: wall and processor time in seconds, calls and samples."""

    wall: float
    cpu: float
    calls: float


def measure(
    peers: Path, folder: Path, size: int, questions: int, rounds: int
) -> tuple[dict[str, list[Spent]], list[str]]:
    """All rounds of all peers, and what could not be measured.

    Args:
        peers: Folder of the virtual environments.
        folder: For logs.
        size: Samples of a vote.
        questions: Questions of a round that count.
        rounds: Rounds.
    """
    found: dict[str, list[Spent]] = {}
    missing: list[str] = []
    with ExitStack() as stack:
        backend = stack.enter_context(Backend(folder, Pace(tokens=8)))
        base_url = f"{backend.root}/v1"
        there = [name for name in MEASURED if name in (DIRECT, OURS) or _installed(peers, name, missing)]
        server: Process | None = None
        address = ""
        if "OptiLLM" in there:
            try:
                server, address = optillm_server(folder, base_url, "fake", peers.resolve() / "optillm", size)
                stack.callback(server.kill)
            except Failed as e:
                there.remove("OptiLLM")
                missing.append(f"OptiLLM, which did not start: {e}")
        for _ in range(rounds):
            for name in there:
                through = server if name == "OptiLLM" else None
                url = f"{address}/v1" if through is not None else base_url
                try:
                    spent = _round(name, url, peers, folder, size, questions, backend, through)
                except Failed as e:
                    missing.append(f"{name}: {e}")
                    continue
                found.setdefault(name, []).append(spent)
            there.append(there.pop(0))
    return found, missing


def _round(
    name: str, url: str, peers: Path, folder: Path, size: int, questions: int, backend: Backend, server: Process | None
) -> Spent:
    asked = tuple(_asked(number) for number in range(WARM + questions))
    job = job_of(Cell(name, "self-consistency", size), url, "fake", asked, concurrency=1, warm=WARM, max_tokens=64)
    before = server.cpu_seconds() if server is not None else 0.0
    calls = _calls(backend)
    told = run_job(job, name, peers, folder, {"REASON_MODEL": "openai/fake", "OPENAI_API_KEY": "none"})
    calls = _calls(backend) - calls
    end = told[-1]
    failed = [line["error"] for line in told[:-1] if line["error"]]
    if failed:
        raise Failed(f"{len(failed)} of {questions} questions failed: {failed[0]}")
    cpu = end["cpu"] / questions
    if server is not None:  # its server worked for the first questions too
        cpu += (server.cpu_seconds() - before) / (WARM + questions)
    return Spent(end["seconds"] / questions, cpu, calls / (WARM + questions))


def _calls(backend: Backend) -> int:
    """Calls that belong to a question; what a client asks when it is opened does not."""
    return sum(backend.stats()["started"].values())


def _asked(number: int) -> Asked:
    text = f"What is {number} times 7? (tag-q{number})"  # by the tag the model counts; no proxy takes a mark away here
    return Asked(f"q{number}", text, text, "")


def _installed(peers: Path, name: str, missing: list[str]) -> bool:
    if (peers / peer_named(name).venv / "bin" / "python").exists():
        return True
    missing.append(f"{name}, which is not installed (benchmarks/peers/install)")
    return False


def overhead_table(found: dict[str, list[Spent]], size: int) -> str:
    """A row for each peer: medians over the rounds with their range, and ratios of rounds side by side."""
    head = ["", f"ms a question (vote of {size})", "range", "CPU ms a question", "range", "calls of the model"]
    head += [f"time, as a multiple of {OURS}'s [95 %]"]
    lines = []
    for name, rounds in found.items():
        walls, cpus = [r.wall * 1e3 for r in rounds], [r.cpu * 1e3 for r in rounds]
        line = [name, *spread(walls, 1), *spread(cpus, 1)]
        line += [f"{statistics.median(r.calls for r in rounds):.1f}"]
        beside = name not in (DIRECT, OURS) and len(found.get(OURS, ())) == len(rounds)
        lines.append([*line, ratio_text(walls, [r.wall * 1e3 for r in found[OURS]]) if beside else ""])
    return table(head, lines)
