"""`serve run reason.sidecar.ray_app:app`: three replicas on a Ray cluster of three nodes, with one Postgres."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import psycopg
import pytest
from reason.core.store.location import open_store
from reason.core.store.protocol import ApiKey
from reason.sidecar.api_keys import new_key
from support import network, postgres_server, ray_cluster
from support.ray_cluster import RayCluster, documented, is_running
from support.ray_model_server import RayModelServer
from support.replicas import read_events, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.nightly]
CANNOT = (network.CannotCreate, postgres_server.CannotStart, ray_cluster.CannotStart)


class Service:
    """The running service."""

    def __init__(self, cluster: RayCluster, model: RayModelServer, store: str) -> None:
        self.cluster, self.model, self.store = cluster, model, store
        self.key = asyncio.run(self._new_key())
        settings = f'model = "openai/sums"\nstore = "{store}"\n[providers.openai]\napi_base = "{model.url}"\n'
        head = cluster.nodes["n1"]
        (head.disk / "reason.toml").write_text(settings, encoding="utf-8")
        own = ("env", "RAY_ADDRESS=n1:6379")  # not that of another cluster of this machine
        head.run(*own, *documented("serve start"))
        program, run, *words = documented("serve run")
        head.run(*own, program, run, "--non-blocking", *words)
        self.wait_ready()

    async def _new_key(self) -> str:
        text, key_id, digest = new_key()
        store = await open_store(self.store)
        scopes = frozenset({"ask", "read"})
        await store.add_key(
            ApiKey(id=key_id, name="me", tenant="me", digest=digest, scopes=scopes, created=time.time())
        )
        await store.aclose()
        return text

    def client(self, node: str) -> httpx.Client:
        """A client of the proxy on a node."""
        url = f"http://{self.cluster.nodes[node].address}:8000"
        return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)

    def wait_ready(self) -> None:
        """Wait until each node has a proxy, and there are three replicas."""

        def ready() -> bool:
            try:
                for name in self.cluster.nodes:
                    with self.client(name) as client:
                        if client.get("/readyz").status_code != 200:
                            return False
            except httpx.TransportError:
                return False
            return len(self.owners()) == 3

        wait_until(ready, "three replicas are ready", 90)

    def owners(self) -> dict[int, str]:
        """Nodes of the replicas by process id, from their leases in the store."""
        with psycopg.connect(self.store) as db:
            rows = db.execute(
                "SELECT id FROM owners WHERE lease_until > extract(epoch FROM clock_timestamp())"
            ).fetchall()
        return {int(pid): host for host, pid, _ in (row[0].rsplit(":", 2) for row in rows)}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    pytest.importorskip("ray.serve", reason="ray[serve] is not installed")
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(ray_cluster.ray_cluster(cpus=2))
            postgres = postgres_server.PostgresServer(cluster.network.address)
        except CANNOT as e:
            pytest.skip(f"no Ray cluster: {e}")
        stack.callback(postgres.remove)
        model = RayModelServer(cluster.network.address)
        stack.callback(model.close)
        yield Service(cluster, model, postgres.new_database())


def test_every_node_answers_requests_and_streams(service) -> None:
    assert sorted(service.owners().values()) == ["n1", "n2", "n3"]
    body = {"model": "reason/cot", "messages": [{"role": "user", "content": "What is 2 + 2?"}], "seed": 1}
    answers = set()
    for name in service.cluster.nodes:
        with service.client(name) as client:
            response = client.post("/v1/chat/completions", json=body)
            assert response.status_code == 200, response.text
            text = response.json()["choices"][0]["message"]["content"]
            with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as streamed:
                lines = [line.removeprefix("data: ") for line in streamed.iter_lines() if line.startswith("data: ")]
            assert streamed.headers["content-type"].startswith("text/event-stream")
            assert lines.pop() == "[DONE]"
            deltas = [choice["delta"].get("content") or "" for line in lines for choice in json.loads(line)["choices"]]
            assert "".join(deltas) == text
            answers.add(text)
            assert httpx.get(client.base_url.join("/v1/runs"), timeout=60).status_code == 401
    assert len(answers) == 1


def test_a_run_is_followed_elsewhere_when_its_replica_is_killed(service) -> None:
    service.model.hold_after(2)
    before = service.model.total
    body = {"question": "What is 6 + 7?", "strategy": "self-consistency", "parameters": {"n": 4}, "seed": 1}
    with service.client("n1") as client:
        response = client.post("/v1/runs", json=body)
    assert response.status_code == 202, response.text
    run_id = response.json()["id"]

    def rows(sql: str) -> list[tuple[object, ...]]:
        with psycopg.connect(service.store) as db:
            return db.execute(sql.encode(), (run_id,)).fetchall()

    wait_until(lambda: service.model.is_holding, "two samples are sent")
    wait_until(lambda: rows("SELECT count(*) FROM calls WHERE run_id = %s") == [(2,)], "both are stored")
    ((owner,),) = rows("SELECT owner FROM runs WHERE id = %s")
    host, pid, _ = str(owner).rsplit(":", 2)
    others = [name for name in service.cluster.nodes if name != host]
    os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: not is_running(int(pid)), "its connections are closed")
    service.model.release()
    with service.client(others[0]) as client:
        events = read_events(client, run_id)
    assert events[-1]["type"] == "run.finished"
    numbers = [e["number"] for e in events if e["number"]]
    assert numbers == sorted(set(numbers))  # none is sent twice; who adopts a run leaves a gap
    with service.client(others[1]) as client:
        answer = client.get(f"/v1/runs/{run_id}").json()
    assert answer["status"] == "finished"
    assert service.model.total - before == 4  # those that were in flight are sent elsewhere; what was stored, once
    assert set(service.model.sent.values()) <= {1, 2, 6}  # the first test sends one sample six times
    service.wait_ready()
    assert int(pid) not in service.owners()
