"""What breaks, on purpose and again and again: is a run lost, or paid for twice?

    python tests/drills/fault_drill.py [--times 20] [--runs 50] [--only kill,backend,disk,clients,postgres] [--out DIR]

    kill      `reason serve` is killed (SIGKILL) amid background runs and started again: `drill_kill.py`
    backend   the model server is killed and comes back: `drill_backend.py`
    disk      the disk of the run store is full for a while: `drill_disk.py`
    clients   clients go away in every phase of a request: `drill_clients.py`
    postgres  the database is killed and comes back: `drill_postgres.py`

Everything is real but the model, `sidecar_backend.py`, which counts. `drill_ledger.py` says what "lost", "doubled",
"paid twice" and "lost on the way" mean. In the drills of a series the fault comes earlier or later, so that it falls
into every phase. It ends with 1 if anything was not as it must be.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import drills.drills as drill_backend
import drills.drills as drill_clients
import drills.drills as drill_disk
import drills.drills as drill_kill
import drills.drills as drill_postgres
from common import made_here
from load_tables import table, tell
from sidecar_ledger import Outcome
from sidecar_servers import Failed, exit_on_sigterm
from support.postgres_server import CannotStart

DRILLS: dict[str, Callable[[Path, int, int, int], Outcome]] = {
    "kill": drill_kill.drill_sidecar_kill,
    "backend": drill_backend.drill_model_server_kill,
    "disk": drill_disk.drill_full_disk,
    "clients": lambda folder, number, times, runs: drill_clients.drill_client_disconnects(folder, number),
    "postgres": drill_postgres.drill_postgres_kill,
}


def main() -> int:
    """Break things and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--only", default=",".join(DRILLS))
    parser.add_argument("--out", type=Path, help="folder for fault_drill.md and .json")
    given = parser.parse_args()
    exit_on_sigterm()
    found: dict[str, list[Outcome]] = {name: [] for name in given.only.split(",")}
    for name, outcomes in found.items():
        for number in range(given.times):
            outcomes.append(once(name, number, given.times, given.runs))
            told = "; ".join(outcomes[-1].faults) or "as it must be"
            print(f"{name} {number + 1} of {given.times}: {told}", file=sys.stderr, flush=True)
    report = f"{made_here()} {given.times} times each, {given.runs} runs.\n\n{summary(found)}\n\n{notes(found)}"
    records = {name: [asdict(outcome) for outcome in outcomes] for name, outcomes in found.items()}
    tell(report, records, given.out, "fault_drill")
    return int(any(outcome.faults for outcomes in found.values() for outcome in outcomes))


def once(name: str, number: int, times: int, runs: int) -> Outcome:
    """One drill in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix=f"drill-{name}-") as folder:
        try:
            return DRILLS[name](Path(folder), number, times, runs)
        except (Failed, CannotStart) as e:
            return Outcome(runs=runs, faults=[str(e)])


def summary(found: dict[str, list[Outcome]]) -> str:
    """A row for each kind of drill."""
    head = ["drill", "times", "as it must be", "runs", "lost", "doubled", "replies paid twice"]
    head += ["replies lost on the way, asked for again"]
    rows = []
    for name, outcomes in found.items():
        good = sum(not o.faults for o in outcomes)
        row = [name, len(outcomes), good, sum(o.runs for o in outcomes), sum(len(o.lost) for o in outcomes)]
        row += [sum(len(o.doubled) for o in outcomes), sum(o.paid_twice for o in outcomes)]
        row += [sum(o.lost_on_the_way for o in outcomes)]
        rows.append([str(cell) for cell in row])
    return table(head, rows)


def notes(found: dict[str, list[Outcome]]) -> str:
    """The further figures of each kind: median and largest over its drills."""
    rows = []
    for name, outcomes in found.items():
        for what in dict.fromkeys(key for o in outcomes for key in o.notes):
            values = [o.notes[what] for o in outcomes if what in o.notes]
            rows.append([f"{name}: {what}", f"{statistics.median(values):.3g}", f"{max(values):.3g}"])
    return table(["figure", "median", "largest"], rows)


if __name__ == "__main__":
    raise SystemExit(main())
