"""Three replicas behind a proxy: each serves any run, a killed one loses nothing, a restart fails no request."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("psycopg")
pytest.importorskip("redis")

from cluster.cluster_drills import SLOW_KILL_PACE, kill_drill, kill_primary, kill_replica, restart_drill
from sidecar_backend import Pace
from sidecar_ledger import snapshot
from support.replicas import Cluster, read_events, run_body, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.nightly]

SLOW = Pace(tokens=60, first_s=0.2, token_s=0.1, single=True)
"""Six seconds for a response."""
QUICK = Pace(tokens=6, first_s=0.1, token_s=0.05, single=True)
WAVE = Pace(tokens=6, first_s=1.0, token_s=0.2, single=True)
AT_ONCE = 64
"""Requests that a replica sends at once."""
MANY = 100
"""Samples of a run whose requests come in two waves."""

_numbers = itertools.count()


@pytest.fixture
def tag() -> str:
    return f"tag-replicas-{next(_numbers)}"


PAIRS = [(0, 1), (1, 2), (2, 0)]


def ended(client: httpx.Client, run_id: str) -> dict[str, Any]:
    """The record of a run once it has ended."""
    record: dict[str, Any] = {}

    def has_ended() -> bool:
        record.update(client.get(f"/v1/runs/{run_id}").json())
        return record["status"] not in ("queued", "running")

    wait_until(has_ended, f"{run_id} ends")
    return record


def start(client: httpx.Client, tag: str, n: int = 4) -> str:
    response = client.post("/v1/runs", json=run_body(tag, n))
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def in_flight(cluster: Cluster, tag: str, count: int = 1) -> Callable[[], bool]:
    return lambda: cluster.backend.stats()["started"].get(tag, 0) >= count


def wait_for_second_wave(cluster: Cluster, tag: str) -> None:
    """Wait until the responses of the first wave are stored; those of the second take six seconds."""
    wait_until(in_flight(cluster, tag, AT_ONCE), "the first wave is in flight")
    cluster.backend.set_pace(SLOW)
    wait_until(lambda: snapshot(cluster.store, {}).stored(tag) >= AT_ONCE, "the first wave is stored")


@pytest.mark.parametrize("accepting", [0, 1, 2])
def test_background_run_is_followed_through_every_replica(replicas, tag, accepting):
    replicas.backend.set_pace(QUICK)
    with replicas.client(replicas.replicas[accepting].url) as client:
        run_id = start(client, tag)

    def follow(url: str) -> list[dict[str, Any]]:
        with replicas.client(url) as client:
            return read_events(client, run_id)

    with ThreadPoolExecutor(4) as threads:
        streams = list(threads.map(follow, [*(r.url for r in replicas.replicas), replicas.proxy.url]))
    for events in streams:
        stored = [event for event in events if event["number"]]
        assert [event["number"] for event in stored] == list(range(1, len(stored) + 1))
        assert stored[-1]["type"] == "run.finished"
        assert stored[-1]["answer"]["answer"] == "42"
    numbers = {tuple(event["number"] for event in events if event["number"]) for events in streams}
    assert len(numbers) == 1


@pytest.mark.parametrize(("accepting", "other"), PAIRS)
def test_run_is_cancelled_through_another_replica(replicas, tag, accepting, other):
    replicas.backend.set_pace(SLOW)
    with replicas.client(replicas.replicas[accepting].url) as one, replicas.client(replicas.replicas[other].url) as two:
        run_id = start(one, tag)
        wait_until(in_flight(replicas, tag), "the run is in flight")
        assert two.post(f"/v1/runs/{run_id}/cancel").status_code in (200, 202)
        assert ended(two, run_id)["status"] == "interrupted"
        assert ended(one, run_id)["status"] == "interrupted"
    wait_until(lambda: replicas.backend.stats()["open"] == 0, "the model server is idle")


def test_repeated_request_gets_the_same_run_through_another_replica(replicas, tag):
    replicas.backend.set_pace(QUICK)
    headers = {"Idempotency-Key": tag}
    responses = []

    def ask(url: str) -> None:
        with replicas.client(url) as client:
            responses.append(client.post("/v1/reason", json=run_body(tag), headers=headers))

    threads = [threading.Thread(target=ask, args=(r.url,)) for r in replicas.replicas for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [response.status_code for response in responses] == [200] * 9
    assert len({response.json()["run_id"] for response in responses}) == 1
    assert replicas.backend.stats()["tags"][tag] == 4


def test_request_of_a_killed_replica_is_repeated_through_another(replicas, tag):
    """With an idempotency key, a client that lost its connection gets the same run, and nothing is paid again."""
    replicas.backend.set_pace(WAVE)
    victim = replicas.replicas[0]
    headers = {"Idempotency-Key": tag}

    def ask() -> None:
        with replicas.client(victim.url) as client, pytest.raises(httpx.TransportError):
            client.post("/v1/reason", json=run_body(tag, MANY), headers=headers)

    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(ask)
        wait_for_second_wave(replicas, tag)
        killed = kill_replica(replicas, victim=0)
        asked.result()
    wait_until(lambda: replicas.backend.stats()["open"] == 0, "the model server is idle")
    replicas.backend.set_pace(QUICK)
    with replicas.client() as client:
        while (response := client.post("/v1/reason", json=run_body(tag, MANY), headers=headers)).status_code != 200:
            assert response.status_code in (499, 502, 503), response.text
            with suppress(ValueError):
                time.sleep(float(response.headers.get("retry-after", 0.2)))
        assert response.json()["answer"] == "42"
        assert response.headers["idempotent-replayed"] == "true"
    paid = replicas.backend.stats()["tags"][tag]
    assert MANY <= paid <= MANY + killed.on_the_way(tag)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8])
def test_killed_replica_loses_nothing(replicas, share, tag):
    outcome = kill_drill(replicas, tag, share, partial(kill_replica, victim=0))
    assert outcome.faults == []
    assert (outcome.lost, outcome.doubled, outcome.paid_twice) == ([], [], 0)
    sys.stdout.write(f"{outcome.notes}\n")


def test_killed_primary_of_postgres_loses_nothing_when_its_standby_is_promoted(replicas, tag):
    outcome = kill_drill(replicas, tag, 0.4, kill_primary, pace=SLOW_KILL_PACE)
    assert outcome.faults == []
    assert (outcome.lost, outcome.doubled, outcome.paid_twice) == ([], [], 0)
    assert outcome.notes["unfinished after the kill"] > 0
    sys.stdout.write(f"{outcome.notes}\n")


def test_rolling_restart_under_load_fails_no_request(replicas, tag):
    outcome = restart_drill(replicas, tag)
    assert outcome.faults == []
    assert outcome.lost == []
    sys.stdout.write(f"{outcome.notes}\n")
