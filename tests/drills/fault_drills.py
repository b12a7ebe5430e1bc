"""Fault drills: something breaks while background runs are in flight; is a run lost, or paid twice?

    python tests/drills/fault_drills.py [--times 20] [--runs 50] [--only kill,backend,disk,clients,postgres] [--out DIR]

    kill      `reason serve` is killed (SIGKILL) and started again
    backend   the model server is killed and comes back at the same address
    disk      the disk of the run store is full for a while
    clients   clients disconnect in every phase of a request; the model server must be idle soon after
    postgres  the database is killed and comes back

Only the model is fake: `benchmarks/sidecar_backend.py`, which counts. `benchmarks/sidecar_ledger.py` defines "lost",
"doubled", "paid twice" and "lost on the way". In the drills of a series the fault comes earlier or later, so that it
falls into every phase. The exit code is 1 if a drill failed.

`test_fault_drills.py` runs one short drill of each kind. They start real servers and kill them, take a minute and
depend on timing, so pytest runs them with `-m nightly` only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import resource
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS), str(TESTS.parent / "benchmarks")]

from load_tables import write_report  # noqa: E402
from reason.sidecar.run_manager import PROBE_INTERVAL_S  # noqa: E402
from reporting import made_here, table  # noqa: E402 (found by the path above)
from sidecar_backend import Pace  # noqa: E402
from sidecar_ledger import Outcome, Snapshot, all_finished, read_journal, settle, snapshot  # noqa: E402
from sidecar_servers import (  # noqa: E402
    Backend,
    Process,
    ServerFailed,
    exit_on_sigterm,
    fetch,
    free_port,
    started,
    write_settings,
)
from support.postgres_server import CannotStart, PostgresServer  # noqa: E402

SAMPLES = 4
"""Chains of a run; each is a request of its own, as the model server knows no `n` in drills (`Pace.single`)."""
AT_START = Pace(single=True)
"""How the model server answers while a sidecar starts, which asks it what it can do."""
AT_ONCE = 8
"""Connections over which runs are sent."""


def question(tag: str) -> str:
    """The question of a tag."""
    return f"What is 6 times 7? ({tag})"


def run_body(tag: str) -> dict[str, Any]:
    """A run of several calls."""
    return {"question": question(tag), "strategy": "self-consistency", "parameters": {"n": SAMPLES}}


class Sender:
    """Sends runs from threads, and knows which were accepted.

    Args:
        root: Address of the sidecar.

    Attributes:
        accepted: Names of runs by tag.
        refusals: Statuses of those that were not, by how often.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.accepted: dict[str, str] = {}
        self.refusals: Counter[int] = Counter()
        self._lock = threading.Lock()

    def send(self, tags: Sequence[str], *, again: bool = False) -> None:
        """Send those that have not been accepted, each once; with `again` until the server is not too busy for it.

        Raises:
            HTTPError: The server refuses the request as invalid.
        """

        def one(tag: str) -> None:
            while tag not in self.accepted:
                try:
                    verdict = fetch(f"{self.root}/v1/runs", run_body(tag), {"Idempotency-Key": tag})
                except urllib.error.HTTPError as e:
                    with self._lock:
                        self.refusals[e.code] += 1
                    if e.code < 500 and e.code != 429:
                        raise
                    if e.code not in (429, 503) or not again:
                        return
                    time.sleep(0.2)
                except (OSError, json.JSONDecodeError):
                    return
                else:
                    with self._lock:
                        self.accepted[tag] = verdict["id"]

        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(one, tags))


def wait_until(happened: Callable[[], bool], seconds: float, every: float = 0.05) -> bool:
    """Wait for something with a time limit; returns whether it happened."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True


def wait_for_responses(about: float, backend: Backend, process: Process, outcome: Outcome, seconds: float) -> None:
    """Wait until the model server has finished about as many responses, the time of the fault."""
    enough = round(about)
    reached = wait_until(lambda: backend.stats()["completed"] >= enough, seconds)
    outcome.demand(reached, f"{enough} replies were not finished within {seconds:.0f} s\n{process.tail()}")


def status(root: str, page: str) -> int:
    """The status of a page; 0 where there is no answer."""
    try:
        fetch(f"{root}{page}", timeout=5.0)
    except urllib.error.HTTPError as e:
        return e.code
    except OSError:
        return 0
    return 200


def resume_runs(sender: Sender, store: Path | str, tags: Sequence[str]) -> bool:
    """Whether all runs have finished; interrupted and failed ones are resumed, unknown ones are sent again."""
    if len(sender.accepted) < len(tags):
        sender.send(tags, again=True)
    runs = snapshot(store, {}).runs
    results = [run for tag in tags for run in runs.get(tag, [])]
    for run in results:
        if run.status in ("interrupted", "failed"):
            with contextlib.suppress(urllib.error.HTTPError):  # another is at it already, or it has just finished
                fetch(f"{sender.root}/v1/runs/{run.run_id}/resume", {})
    return all(runs.get(tag) for tag in tags) and all(run.status == "finished" for run in results)


SLOW_PACE = Pace(tokens=120, first_s=1.0, token_s=0.5)
"""A minute for a response: a model server that is idle earlier was stopped and did not just finish."""
QUICK = Pace(tokens=4, first_s=0.05, token_s=0.05)
IDLE_S = 1.0
"""How soon the model server must be idle, in seconds."""
LONGEST_S = 20.0
PHASES = ("before the first token", "in mid stream", "waiting for a whole reply", "queued", "verifying")


def drill_client_disconnects(directory: Path, number: int) -> Outcome:
    """One drill: each phase once, on a sidecar that has one turn, so that a second request waits."""
    outcome = Outcome()
    with Backend(directory, QUICK) as backend:  # the sidecar asks it what it can do first
        write_settings(directory, backend.root, turns=1)
        server = started(directory, free_port())
        with server.process:
            for position, phase in enumerate(PHASES):
                backend.set_pace(SLOW_PACE)
                tag = f"tag-clients-{number}-{position}"
                asyncio.run(_phase(phase, tag, server.url, backend, outcome))
            outcome.demand(server.process.end() == 0, f"the sidecar ended badly\n{server.process.tail()}")
    runs = snapshot(directory / "runs.sqlite3", {}).runs
    for position, phase in enumerate(PHASES):
        statuses = [run.status for run in runs.get(f"tag-clients-{number}-{position}", [])]
        # a request that never had a turn may have left no run
        allowed = ([], ["interrupted"]) if phase == "queued" else (["interrupted"],)
        outcome.demand(statuses in allowed, f"{phase}: the run is {statuses}")
    outcome.runs = len(PHASES)
    return outcome


async def _phase(phase: str, tag: str, url: str, backend: Backend, outcome: Outcome) -> None:
    """One phase: reach it, disconnect, and measure how long the model server continues."""
    async with aiohttp.ClientSession() as session:
        if phase == "queued":
            first = asyncio.create_task(_ask(session, url, f"{tag}-first", stream=True))
            await _until(lambda: backend.stats()["open"] == 1, outcome, phase)
            second = asyncio.create_task(_ask(session, url, tag, stream=True))
            await asyncio.sleep(0.5)  # waiting is not visible from outside
            await _leave(second)
            await _leave(first)
        else:
            verify = phase == "verifying"
            if verify:
                backend.set_pace(QUICK)
            before = backend.stats()
            asked = asyncio.create_task(_ask(session, url, tag, stream=phase != PHASES[2], verify=verify))
            if verify:  # the answer is there, and the jurors are running
                await _until(lambda: backend.stats()["received"] > before["received"], outcome, phase)
                backend.set_pace(SLOW_PACE)
                await _until(
                    lambda: backend.stats()["completed"] > before["completed"] and backend.stats()["open"] > 0,
                    outcome,
                    phase,
                )
            else:
                await _until(lambda: backend.stats()["open"] == 1, outcome, phase)
                await asyncio.sleep(2.5 if phase == "in mid stream" else 0.2)
            await _leave(asked)
        began = time.monotonic()
        idle = await asyncio.to_thread(wait_until, lambda: backend.stats()["open"] == 0, LONGEST_S)
        outcome.notes[f"{phase}: idle after s"] = time.monotonic() - began
        outcome.demand(idle, f"{phase}: the model server still worked {LONGEST_S:.0f} s later")
        began_anyway = phase == "queued" and tag in backend.stats()["started"]
        outcome.demand(not began_anyway, "a queued run began without a client")


async def _until(happened: Callable[[], bool], outcome: Outcome, phase: str) -> None:
    there = await asyncio.to_thread(wait_until, happened, LONGEST_S)
    outcome.demand(there, f"{phase}: it was not reached")


async def _ask(session: aiohttp.ClientSession, url: str, tag: str, *, stream: bool, verify: bool = False) -> None:
    body: dict[str, Any] = {"model": "reason/cot", "messages": [{"role": "user", "content": question(tag)}]}
    body |= {"stream": stream}
    if verify:
        body["reason"] = {"verify": ["edgejury"]}
    async with session.post(url, json=body) as reply:
        async for _ in reply.content.iter_any():
            pass


async def _leave(request: asyncio.Task[None]) -> None:
    """Close the connection of a request."""
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)


DISK_PACE = Pace(tokens=8, first_s=0.2, token_s=0.1, jitter=0.5, single=True)
MOUNT = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs"]


class SmallDisk:
    """A file system in memory that is filled by a file of its own; needs the right to mount."""

    kind = "a full file system"

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fill(self, server: Process) -> None:
        """Leave no byte."""
        with (self.directory / "ballast").open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def free(self, server: Process) -> None:
        """Give the room back."""
        (self.directory / "ballast").unlink()


class SmallFiles:
    """A limit on the size of the files that the sidecar writes; needs no rights. SQLite sees another error by it."""

    kind = "a limit on file sizes"

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fill(self, server: Process) -> None:
        """Let no file of the store grow."""
        largest = max(path.stat().st_size for path in self.directory.iterdir() if path.is_file())
        resource.prlimit(server.child.pid, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))

    def free(self, server: Process) -> None:
        """Lift the limit."""
        resource.prlimit(server.child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextmanager
def small_disk(directory: Path) -> Iterator[SmallDisk | SmallFiles]:
    """What can be full: a file system of our own where one may be mounted, else files of limited size."""
    disk = directory / "disk"
    disk.mkdir()
    try:
        mounted = subprocess.run([*MOUNT, str(disk)], capture_output=True).returncode == 0
    except OSError as e:
        if e.errno != errno.ENOENT:
            raise
        mounted = False
    try:
        yield SmallDisk(disk) if mounted else SmallFiles(disk)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


def drill_full_disk(directory: Path, number: int, times: int, runs: int, *, seconds: float = 120.0) -> Outcome:
    """One drill.

    The disk fills up when a share of all responses is finished (see `drill_sidecar_kill`), while runs are under way,
    and half as many are sent while it is full: each of those must be refused by an error, or be there in the end. Then
    there is room again; clients send again what was refused and go on with what broke off.
    """
    outcome = Outcome()
    before = [f"tag-disk-{number}-{i}" for i in range(runs)]
    during = [f"tag-disk-{number}-full-{i}" for i in range(runs // 2)]
    port = free_port()
    root = f"http://127.0.0.1:{port}"
    with small_disk(directory) as disk, Backend(directory, AT_START) as backend:
        store = disk.directory / "runs.sqlite3"
        write_settings(directory, backend.root, store=str(store))
        server = started(directory, port)
        backend.set_pace(DISK_PACE)
        with server.process:
            sender = Sender(root)
            sender.send(before, again=True)
            wait_for_responses(runs * SAMPLES * (number + 0.5) / times, backend, server.process, outcome, seconds)
            disk.fill(server.process)
            sender.send(during)
            outcome.notes["refused while full"] = len(before) + len(during) - len(sender.accepted)
            outcome.demand(status(root, "/healthz") == 200, "the sidecar does not answer while the disk is full")
            idle = wait_until(lambda: backend.stats()["open"] == 0, seconds)
            outcome.demand(idle, "runs go on without end while the disk is full")
            broken = copied(store, directory / "copy", backend.stats()["tags"])
            disk.free(server.process)
            began = time.monotonic()
            sender.send([*before, *during], again=True)
            done = wait_until(lambda: resume_runs(sender, store, [*before, *during]), seconds, every=0.5)
            outcome.notes["seconds to the end"] = time.monotonic() - began
            outcome.demand(done, f"not all runs ended within {seconds:.0f} s\n{server.process.tail()}")
            outcome.demand(server.process.end() == 0, f"the sidecar ended badly\n{server.process.tail()}")
        settle(outcome, [*before, *during], SAMPLES, broken, snapshot(store, backend.stats()["tags"]))
        with contextlib.closing(sqlite3.connect(store)) as db:
            [whole] = db.execute("PRAGMA integrity_check").fetchone()
        outcome.demand(whole == "ok", f"the store is damaged: {whole}")
        outcome.notes[disk.kind] = 1
    return outcome


def copied(store: Path, directory: Path, finished: dict[str, int]) -> Snapshot:
    """The store as it is on a full disk, read from a copy elsewhere, since even readers may have to write."""
    directory.mkdir()
    for path in (store, store.with_name(f"{store.name}-wal")):
        if path.exists():
            shutil.copy(path, directory)
    return snapshot(directory / store.name, finished)


KILL_PACE = Pace(tokens=8, first_s=0.1, token_s=0.05, jitter=0.5, single=True)
CALLS_AT_ONCE = 48
"""Calls at once that the sidecar may have, so that runs wait for one another and all phases are there at the kill."""


def drill_sidecar_kill(
    directory: Path, number: int, times: int, runs: int, *, seconds: float = 120.0, store: str = ""
) -> Outcome:
    """One drill.

    The kill comes when a share of all responses is finished: from 0 in the first drill to all but a few in the last, so
    that it falls into every phase, the acceptance of runs included. A client without acceptance sends again with the
    same idempotency key, as clients do.

    Args:
        directory: The working directory.
        number: Which of the drills this is, from 0.
        times: How many there are.
        runs: Background runs.
        seconds: Longest time until all have ended.
        store: Address of a Postgres database; empty is a file.
    """
    outcome = Outcome()
    tags = [f"tag-kill-{number}-{i}" for i in range(runs)]
    store_path = store or directory / "runs.sqlite3"
    port = free_port()
    with Backend(directory, AT_START) as backend:
        write_settings(directory, backend.root, store=store, calls=CALLS_AT_ONCE)
        server = started(directory, port)
        backend.set_pace(KILL_PACE)
        with server.process:
            sender = Sender(f"http://127.0.0.1:{port}")
            sending = threading.Thread(target=sender.send, args=(tags,))
            sending.start()
            wait_for_responses(runs * SAMPLES * (number + 0.5) / times, backend, server.process, outcome, seconds)
            server.process.kill()
            sending.join()
        outcome.demand(
            wait_until(lambda: backend.stats()["open"] == 0, 10.0), "the model server went on without a client"
        )
        stats = backend.stats()
        broken = snapshot(store_path, stats["tags"])
        outcome.notes["accepted"] = len(sender.accepted)
        outcome.notes["ended before"] = sum(r.status == "finished" for results in broken.runs.values() for r in results)
        outcome.notes["cut in mid reply"] = stats["left"]
        began = time.monotonic()
        backend.set_pace(AT_START)
        server = started(directory, port)
        backend.set_pace(KILL_PACE)
        with server.process:
            sender.send(tags, again=True)
            done = wait_until(lambda: all_finished(store_path, tags), seconds, every=0.5)
            outcome.notes["seconds to the end"] = time.monotonic() - began
            outcome.demand(done, f"not all runs ended within {seconds:.0f} s\n{server.process.tail()}")
            outcome.demand(server.process.end() == 0, f"the second process ended badly\n{server.process.tail()}")
        settle(outcome, tags, SAMPLES, broken, snapshot(store_path, backend.stats()["tags"]))
    return outcome


BACKEND_AWAY_S = 1.0
SETTLE_S = 1.0
"""Until the sidecar has stored what it had received when the model server died, in seconds."""


def drill_model_server_kill(directory: Path, number: int, times: int, runs: int, *, seconds: float = 120.0) -> Outcome:
    """One drill; the kill falls as in `drill_sidecar_kill`.

    The model server's count is its journal, as it dies itself: a response is in it before its last bytes are sent, so
    what was lost on the way was at most those.
    """
    outcome = Outcome()
    tags = [f"tag-backend-{number}-{i}" for i in range(runs)]
    store_path, journal = directory / "runs.sqlite3", directory / "journal"
    port = free_port()
    with Backend(directory, AT_START, journal=journal) as first:
        write_settings(directory, first.root, calls=CALLS_AT_ONCE)
        server = started(directory, port)
        first.set_pace(KILL_PACE)
        with server.process:
            sender = Sender(f"http://127.0.0.1:{port}")
            sender.send(tags, again=True)
            wait_for_responses(runs * SAMPLES * (number + 0.5) / times, first, server.process, outcome, seconds)
            first.kill()
            time.sleep(SETTLE_S)
            broken = snapshot(store_path, read_journal(journal))
            time.sleep(BACKEND_AWAY_S)
            with Backend(directory, KILL_PACE, first.port, journal):
                began = time.monotonic()
                done = wait_until(lambda: all_finished(store_path, tags), seconds, every=0.5)
                outcome.notes["seconds to the end"] = time.monotonic() - began
                outcome.demand(done, f"not all runs ended within {seconds:.0f} s\n{server.process.tail()}")
                outcome.demand(server.process.end() == 0, f"the sidecar ended badly\n{server.process.tail()}")
        settle(outcome, tags, SAMPLES, broken, snapshot(store_path, read_journal(journal)))
    return outcome


POSTGRES_AWAY_S = 2.0


def drill_postgres_kill(directory: Path, number: int, times: int, runs: int, *, seconds: float = 120.0) -> Outcome:
    """One drill; the kill falls as in `drill_sidecar_kill`.

    The database dies as by a power cut; what it had committed stays. While it is away the sidecar must answer, and say
    that it is not ready. Then clients send again what was not accepted and go on with what broke off.

    Raises:
        CannotStart: There is no Postgres here.
    """
    outcome = Outcome()
    tags = [f"tag-postgres-{number}-{i}" for i in range(runs)]
    port = free_port()
    root = f"http://127.0.0.1:{port}"
    postgres = PostgresServer()
    try:
        store_path = postgres.new_database()
        with Backend(directory, AT_START) as backend:
            write_settings(directory, backend.root, store=store_path, calls=CALLS_AT_ONCE)
            server = started(directory, port)
            backend.set_pace(KILL_PACE)
            with server.process:
                sender = Sender(root)
                sender.send(tags, again=True)
                wait_for_responses(runs * SAMPLES * (number + 0.5) / times, backend, server.process, outcome, seconds)
                postgres.crash()
                ready = status(root, "/readyz")  # no answer in time counts as no
                if ready == 200:  # health checks within a second share one probe of the store
                    time.sleep(PROBE_INTERVAL_S)
                    ready = status(root, "/readyz")
                outcome.notes["/readyz while it was away (0: no answer)"] = ready
                outcome.demand(ready != 200, "the sidecar says that it is ready without its database")
                outcome.demand(status(root, "/healthz") == 200, "the sidecar does not answer without its database")
                time.sleep(POSTGRES_AWAY_S)
                # without the store nothing may continue unrecorded: all must have stopped or wait
                idle = wait_until(lambda: backend.stats()["open"] == 0, seconds)
                outcome.demand(idle, "runs go on without end while the database is away")
                finished = backend.stats()["tags"]
                server.process.child.send_signal(signal.SIGSTOP)  # so that it writes nothing before the store is read
                postgres.start()
                broken = snapshot(store_path, finished)
                server.process.child.send_signal(signal.SIGCONT)
                began = time.monotonic()
                done = wait_until(lambda: resume_runs(sender, store_path, tags), seconds, every=0.5)
                outcome.notes["seconds to the end"] = time.monotonic() - began
                outcome.demand(done, f"not all runs ended within {seconds:.0f} s\n{server.process.tail()}")
                outcome.demand(server.process.end() == 0, f"the sidecar ended badly\n{server.process.tail()}")
            settle(outcome, tags, SAMPLES, broken, snapshot(store_path, backend.stats()["tags"]))
    finally:
        postgres.remove()
    return outcome


DRILLS: dict[str, Callable[[Path, int, int, int], Outcome]] = {
    "kill": drill_sidecar_kill,
    "backend": drill_model_server_kill,
    "disk": drill_full_disk,
    "clients": lambda directory, number, times, runs: drill_client_disconnects(directory, number),
    "postgres": drill_postgres_kill,
}


def main() -> int:
    """Break things and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--only", default=",".join(DRILLS))
    parser.add_argument("--out", type=Path, help="directory of fault_drill.md and .json")
    args = parser.parse_args()
    exit_on_sigterm()
    results: dict[str, list[Outcome]] = {name: [] for name in args.only.split(",")}
    for name, outcomes in results.items():
        for number in range(args.times):
            outcomes.append(once(name, number, args.times, args.runs))
            verdict = "; ".join(outcomes[-1].faults) or "passed"
            sys.stderr.write(f"{name} {number + 1} of {args.times}: {verdict}\n")
    report = f"{made_here()} {args.times} times each, {args.runs} runs.\n\n{summary(results)}\n\n{notes(results)}"
    records = {name: [asdict(outcome) for outcome in outcomes] for name, outcomes in results.items()}
    write_report(report, records, args.out, "fault_drill")
    return int(any(outcome.faults for outcomes in results.values() for outcome in outcomes))


def once(name: str, number: int, times: int, runs: int) -> Outcome:
    """One drill in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix=f"drill-{name}-") as directory:
        try:
            return DRILLS[name](Path(directory), number, times, runs)
        except (ServerFailed, CannotStart) as e:
            return Outcome(runs=runs, faults=[str(e)])


def summary(results: dict[str, list[Outcome]]) -> str:
    """A row for each kind of drill."""
    head = ["drill", "times", "passed", "runs", "lost", "doubled", "replies paid twice"]
    head += ["replies lost on the way, requested again"]
    rows = []
    for name, outcomes in results.items():
        good = sum(not o.faults for o in outcomes)
        row = [name, len(outcomes), good, sum(o.runs for o in outcomes), sum(len(o.lost) for o in outcomes)]
        row += [sum(len(o.doubled) for o in outcomes), sum(o.paid_twice for o in outcomes)]
        row += [sum(o.lost_on_the_way for o in outcomes)]
        rows.append([str(cell) for cell in row])
    return table(head, rows)


def notes(results: dict[str, list[Outcome]]) -> str:
    """The further metrics of each kind: median and largest over its drills."""
    rows = []
    for name, outcomes in results.items():
        for what in dict.fromkeys(key for o in outcomes for key in o.notes):
            values = [o.notes[what] for o in outcomes if what in o.notes]
            rows.append([f"{name}: {what}", f"{statistics.median(values):.3g}", f"{max(values):.3g}"])
    return table(["figure", "median", "largest"], rows)


if __name__ == "__main__":
    raise SystemExit(main())
