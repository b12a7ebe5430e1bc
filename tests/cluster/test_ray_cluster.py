"""`reason eval --ray` on three nodes with addresses, host names and disks of their own, of which one is killed.

The model server holds its responses when something is killed, so that nothing is on the way: every sample must
have been sent exactly once in the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from reason.core.settings import Settings
from reason.evals.plan import DatasetSource
from reason.evals.results import ResultRow
from reason.evals.run_directory import STORE, read_manifest, read_rows
from reason.evals.runner import evaluate
from reason.evals.task import open_task
from support import network, postgres_server, ray_cluster
from support.postgres_server import PostgresServer
from support.ray_cluster import Node, RayCluster, documented, finished
from support.ray_model_server import RayModelServer
from support.replicas import wait_until

ITEMS, SAMPLES = 18, 4
MODEL = "openai/sums"
STORE_URL = "postgresql://db.internal/reason"
pytestmark = [pytest.mark.cluster, pytest.mark.nightly]
CANNOT = (network.CannotCreate, postgres_server.CannotStart, ray_cluster.CannotStart)


@pytest.fixture(scope="module")
def started() -> Iterator[RayCluster]:
    """A cluster of which the nodes n2 and n3 have the model."""
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(
                ray_cluster.ray_cluster({name: json.dumps({MODEL: 1}) for name in ("n2", "n3")})
            )
        except CANNOT as e:
            pytest.skip(f"no Ray cluster: {e}")
        yield cluster


@pytest.fixture(scope="module")
def database(started: RayCluster) -> Iterator[PostgresServer]:
    try:
        server = PostgresServer(started.network.address)
    except postgres_server.CannotStart as e:
        pytest.skip(f"no Postgres: {e}")
    yield server
    server.remove()


@pytest.fixture
def model(started: RayCluster) -> Iterator[RayModelServer]:
    server = RayModelServer(started.network.address)
    server.await_clients({started.nodes[name].address for name in ("n2", "n3")})
    for node in started.nodes.values():
        (node.disk / "reason.toml").write_text(
            f'model = "{MODEL}"\nstrategy = "self-consistency"\n[providers.openai]\napi_base = "{server.url}"\n',
            encoding="utf-8",
        )
    yield server
    server.close()


@pytest.fixture
def cluster(started: RayCluster) -> RayCluster:
    """The cluster with all nodes, whatever an earlier test has killed."""
    started.start()
    return started


@pytest.fixture
def questions(started: RayCluster) -> Path:
    path = started.shared / "questions.jsonl"
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(ITEMS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def on_one_machine(out: Path, model: RayModelServer, folder: Path) -> list[ResultRow]:
    """The rows of the same run, executed in this process."""
    manifest = read_manifest(out)
    settings = Settings(model=MODEL, providers={"openai": {"api_base": model.url}}, store=folder / "unused")
    source = DatasetSource(dataset=manifest.task.dataset)
    return asyncio.run(evaluate(manifest.plan, open_task(source), source, folder / "alone", settings))


def settled(out: Path, model: RayModelServer, tmp_path: Path, clients: set[str]) -> None:
    """Check that nothing was lost, that nothing was paid twice, and that the rows are those of one machine."""
    assert set(model.sent.values()) == {1}
    assert len(model.sent) == ITEMS * SAMPLES
    assert set(model.clients) == clients
    rows = read_rows(out)
    assert read_manifest(out).complete
    assert [r.without_times() for r in rows] == [r.without_times() for r in on_one_machine(out, model, tmp_path)]
    assert len({c.text for r in rows for c in r.candidates}) > ITEMS


def start(
    cluster: RayCluster, node: Node, questions: Path, out: Path, store: str | None = None
) -> tuple[subprocess.Popen[bytes], Path]:
    """Start the documented command, with a store or without; returns its process and the file of what it writes."""
    command = documented("reason eval questions", {"questions.jsonl": questions, "whole": out, STORE_URL: store})
    if store is None:
        position = command.index("--store")
        del command[position : position + 2]
    log = cluster.folder / f"{out.name}.log"
    return node.popen(*command, "--seeds", "1", "--concurrency", "4", log=log), log


def resume(cluster: RayCluster, node: Node, out: Path) -> tuple[subprocess.Popen[bytes], Path]:
    log = cluster.folder / f"{out.name}-resumed.log"
    return node.popen(*documented("reason eval --resume", {"whole": out}), log=log), log


def stored_samples(url: str) -> int:
    import psycopg

    with psycopg.connect(url) as db:
        (row,) = db.execute("SELECT count(*) FROM calls").fetchall()
    return int(row[0])


def test_shards_are_placed_where_the_model_is(cluster, model, questions, tmp_path) -> None:
    out = cluster.shared / "placed"
    driver, log = start(cluster, cluster.nodes["n1"], questions, out)
    assert any(f"{ITEMS} rows in {out}" in line for line in finished(driver, log))
    settled(out, model, tmp_path, {cluster.nodes[name].address for name in ("n2", "n3")})


def test_a_shard_goes_to_the_node_of_its_endpoint(cluster) -> None:
    code = """
import socket, sys, ray
from reason.evals.ray_executor import _connect, _placement
assert _connect(ray, sys.argv[1]) and not _connect(ray, sys.argv[1])
endpoints = ["http://n3:8000/v1", f"http://{sys.argv[2]}:8000/v1", "http://elsewhere:8000/v1"]
placed = _placement(ray, "openai/other", endpoints, 5)
hosts = ray.get([ray.remote(lambda: socket.gethostname()).options(**options).remote() for options in placed])
print(hosts[:2] + hosts[3:], placed[2]["scheduling_strategy"])
"""
    said = cluster.nodes["n1"].run(sys.executable, "-c", code, "n1:6379", cluster.nodes["n1"].address)
    assert said.splitlines()[-1] == "['n3', 'n1', 'n3', 'n1'] SPREAD"


def test_a_node_is_killed_while_each_node_has_its_own_disk(cluster, database, model, questions, tmp_path) -> None:
    store, out = database.new_database(), Path("whole")
    model.hold_after(30)
    driver, log = start(cluster, cluster.nodes["n1"], questions, out, store)
    wait_until(lambda: driver.poll() is not None or model.is_holding, "30 samples are sent")
    wait_until(lambda: driver.poll() is not None or stored_samples(store) == model.total, "all of them are stored")
    cluster.nodes["n2"].kill()
    model.release()
    finished(driver, log)
    settled(cluster.nodes["n1"].disk / out, model, tmp_path, {cluster.nodes[name].address for name in ("n2", "n3")})
    assert not (cluster.nodes["n1"].disk / out / "shards").exists()


def test_the_driver_and_a_node_are_killed_and_the_run_resumed_from_another_node(
    cluster, model, questions, tmp_path
) -> None:
    out = cluster.shared / "resumed"
    model.hold_after(30)
    driver, log = start(cluster, cluster.nodes["n1"], questions, out)
    wait_until(lambda: driver.poll() is not None or model.is_holding, "30 samples are sent")

    def stored() -> int:
        total = 0
        for path in out.glob(f"shards/*/{STORE}"):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                total += db.execute("SELECT count(*) FROM calls").fetchone()[0]
        return total

    wait_until(lambda: driver.poll() is not None or stored() == model.total, "all of them are stored")
    os.killpg(driver.pid, signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL, log.read_text(encoding="utf-8")
    cluster.nodes["n3"].kill()
    resumed, log = resume(cluster, cluster.nodes["n2"], out)
    model.release()
    finished(resumed, log)
    settled(out, model, tmp_path, {cluster.nodes[name].address for name in ("n2", "n3")})
