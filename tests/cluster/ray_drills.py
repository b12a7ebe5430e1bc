"""Drills on a Ray cluster of three nodes: a node, the driver, both or the head are killed while an evaluation runs.

    python tests/cluster/ray_drills.py [--kills 16] [--items 24] [--lease S]

After each kill the run goes on: by itself if a node was killed, resumed by a new driver otherwise. In turn, the runs
are in a Postgres store while each node has a disk of its own, and in files on a disk that all nodes see. The lease is
that of a worker in Postgres (4 s, or 0 for production's 30 s).

Prints the counts. **Lost** are items without a row, or with another row than that of one machine. A sample that was
sent but not stored at the kill was on the way, and must be requested again. **Paid twice** is everything beyond that.
The exit code is 1 if a drill failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path.append(str(TESTS))

from reason.core.settings import Settings  # noqa: E402 (the support modules are found by the path above)
from reason.evals.run_directory import ITEMS, STORE, read_manifest, read_rows  # noqa: E402
from reason.evals.runner import evaluate  # noqa: E402
from reason.evals.task import open_task  # noqa: E402
from support.postgres_server import PostgresServer  # noqa: E402
from support.ray_cluster import LEASE_S, RayCluster, finished, ray_cluster  # noqa: E402
from support.ray_model_server import RayModelServer  # noqa: E402
from support.replicas import wait_until  # noqa: E402

KINDS = ("node", "driver", "node and driver", "head")
SAMPLES = 4
MODEL = "openai/sums"
SAMPLE_S = 0.05
QUIET_S = 1.5
"""Seconds without a new stored sample after which all that survivors had received is stored."""


@dataclass
class Outcome:
    """Counts of one drill."""

    lost: int
    on_the_way: int
    paid_twice: int
    seconds: float


class Drill:
    """One evaluation in which something is killed.

    Args:
        cluster: The cluster, with all nodes.
        model: The model server.
        database: The URL of a database; None puts the run into files on the shared disk.
        number: Number of the drill, which gives it questions of its own.
        items: Number of its items.
    """

    def __init__(
        self, cluster: RayCluster, model: RayModelServer, database: str | None, number: int, items: int
    ) -> None:
        self.cluster, self.model, self.database, self.items = cluster, model, database, items
        self.out = cluster.shared / f"drill-{number}"
        self.questions = cluster.shared / f"questions-{number}.jsonl"
        rows = [
            {"id": f"q{i}", "question": f"What is {1000 * number} + {i}?", "answer": str(1000 * number + i)}
            for i in range(items)
        ]
        self.questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        self.sent_before, self.stored_before = model.total, self.stored()
        settings = f'model = "{MODEL}"\nstrategy = "self-consistency"\n[providers.openai]\napi_base = "{model.url}"\n'
        for node in cluster.nodes.values():
            (node.disk / "reason.toml").write_text(settings, encoding="utf-8")

    def stored(self) -> int:
        """Number of samples in the run store."""
        if self.database is not None:
            import psycopg

            with psycopg.connect(self.database) as db:
                is_there = db.execute("SELECT to_regclass('calls') IS NOT NULL").fetchall()[0][0]
                return int(db.execute("SELECT count(*) FROM calls").fetchall()[0][0]) if is_there else 0
        total = 0
        for path in self.out.glob(f"shards/*/{STORE}"):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchall():
                    total += db.execute("SELECT count(*) FROM calls").fetchone()[0]
        return total

    def start(self, node: str, *arguments: object) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a driver on a node."""
        # a shard's directory is on the disk of its node if there is a database
        out = self.out.name if self.database is not None else self.out
        store = () if self.database is None else ("--store", self.database)
        log = self.cluster.folder / f"driver-{time.monotonic_ns()}.log"
        program = str(Path(sys.executable).parent / "reason")
        command = (program, "eval", *map(str, arguments), "--ray", "n1:6379", "--out", str(out), *store)
        return self.cluster.nodes[node].popen(*command, log=log), log

    def run(self, kind: str, share: float, victim: str) -> Outcome:
        """Kill when a share of all samples was sent, and let the run end."""
        options = ("--set", f"n={SAMPLES}", "--seeds", 1, "--workers", 3, "--concurrency", 4)
        began = time.monotonic()
        driver, log = self.start("n1", self.questions, *options)
        limit = self.sent_before + share * self.items * SAMPLES
        wait_until(lambda: driver.poll() is not None or self.model.total >= limit, "samples are sent")
        assert driver.poll() is None, log.read_text(encoding="utf-8")
        if kind != "node":
            os.killpg(driver.pid, signal.SIGKILL)
        if kind != "driver":
            self.cluster.nodes["n1" if kind == "head" else victim].kill()
        self.model.hold_after(0)
        on_the_way = self.quiet_difference()
        if kind == "head":
            for node in self.cluster.nodes.values():
                node.kill()
            self.cluster.start()
        self.model.release()
        if kind != "node":
            driver.wait()
            driver, log = self.start("n1", "--resume")
        finished(driver, log)
        seconds = time.monotonic() - began
        sent, stored = self.model.total - self.sent_before, self.stored() - self.stored_before
        lost = sum(row != other for row, other in zip(self.rows(), self.expected(), strict=True))
        assert stored == self.items * SAMPLES, stored
        self.cluster.start()
        return Outcome(lost, on_the_way, sent - stored - on_the_way, seconds)

    def quiet_difference(self) -> int:
        """Samples that were sent and not stored, when nothing is written any more."""
        stored, since = self.stored(), time.monotonic()
        while time.monotonic() - since < QUIET_S:
            time.sleep(0.1)
            if (now := self.stored()) != stored:
                stored, since = now, time.monotonic()
        return self.model.total - self.sent_before - (stored - self.stored_before)

    @property
    def directory(self) -> Path:
        """Where the driver's run is, as this program sees it."""
        return self.out if self.database is None else self.cluster.nodes["n1"].disk / self.out.name

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the run, without their times."""
        assert len((self.directory / ITEMS).read_bytes().splitlines()) == self.items
        return [row.without_times() for row in read_rows(self.directory)]

    def expected(self) -> list[dict[str, Any]]:
        """The same rows from this process alone."""
        manifest = read_manifest(self.directory)
        with tempfile.TemporaryDirectory() as folder:
            # the same server, as the rows name it
            providers = {"openai": {"api_base": self.model.url}}
            settings = Settings(model=MODEL, providers=providers, store=Path(folder) / "unused")
            task = open_task(manifest.task)
            rows = asyncio.run(evaluate(manifest.plan, task, manifest.task, Path(folder) / "alone", settings))
        return [row.without_times() for row in rows]


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run drills and print their counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=16)
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--lease", type=float, default=LEASE_S)
    args = parser.parse_args()
    os.environ.setdefault("OPENAI_API_KEY", "none")
    outcomes: list[Outcome] = []
    failed = 0
    with ray_cluster(lease_s=args.lease) as cluster:
        postgres = PostgresServer(cluster.network.address)
        model = RayModelServer(cluster.network.address, SAMPLE_S)
        try:
            database = postgres.new_database()
            for number in range(args.kills):
                kind, victim = KINDS[number % len(KINDS)], ("n2", "n3")[number % 2]
                where = database if number // len(KINDS) % 2 == 0 else None
                share = (number + 0.5) / args.kills
                drill = Drill(cluster, model, where, number + 1, args.items)
                name = f"kill {number + 1} ({kind}, {'Postgres' if where else 'shared disk'}) at {share:.0%}"
                outcome = drill.run(kind, share, victim)
                outcomes.append(outcome)
                is_right = outcome.lost == 0 and outcome.paid_twice <= 0
                failed += not is_right
                say(f"{name}: {'passed' if is_right else 'FAILED'} {outcome}")
        finally:
            model.close()
            postgres.remove()
    twice = sum(max(0, outcome.paid_twice) for outcome in outcomes)
    say(
        f"{len(outcomes)} kills, {len(outcomes) * args.items} items of {SAMPLES} samples: "
        f"{sum(o.lost for o in outcomes)} lost or different, {twice} samples paid twice, "
        f"{sum(o.on_the_way for o in outcomes)} on the way at a kill; {failed} drills failed"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
