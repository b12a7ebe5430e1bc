"""Limits of keys hold over three replicas: a real Redis counts, which is killed and started again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("psycopg")
pytest.importorskip("redis")

from sidecar_backend import Pace
from support.replicas import Cluster, question, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.nightly]

QUICK = Pace(single=True)


def ask(cluster: Cluster, key: str, count: int, urls: list[str]) -> list[httpx.Response]:
    """Send requests at once, to each address in turn."""

    def one(number: int) -> httpx.Response:
        with cluster.client(urls[number % len(urls)], key) as client:
            messages = [{"role": "user", "content": question(f"tag-limits-{number}")}]
            return client.post("/v1/chat/completions", json={"model": "reason/cot", "messages": messages})

    with ThreadPoolExecutor(12) as threads:
        return list(threads.map(one, range(count)))


def statuses(responses: list[httpx.Response]) -> dict[int, int]:
    codes = [response.status_code for response in responses]
    return {code: codes.count(code) for code in sorted(set(codes))}


def test_requests_per_minute_hold_over_replicas(replicas):
    replicas.backend.set_pace(QUICK)
    key = replicas.new_key(requests_per_minute=10)
    responses = ask(replicas, key, 30, [replicas.proxy.url])
    assert statuses(responses) == {200: 10, 429: 20}
    assert all(int(r.headers["retry-after"]) <= 60 for r in responses if r.status_code == 429)
    remaining = sorted(int(r.headers["x-ratelimit-remaining-requests"]) for r in responses if r.status_code == 200)
    assert remaining[0] == 0


def test_replicas_count_for_themselves_while_redis_is_gone(replicas):
    replicas.backend.set_pace(QUICK)
    urls = [replica.url for replica in replicas.replicas]
    before, during = (replicas.new_key(requests_per_minute=5) for _ in range(2))
    assert statuses(ask(replicas, before, 18, urls)) == {200: 5, 429: 13}
    replicas.redis.kill()
    assert statuses(ask(replicas, during, 18, urls)) == {200: 15, 429: 3}
    replicas.redis.start()

    def count_together() -> bool:
        key = replicas.new_key(requests_per_minute=5)
        return statuses(ask(replicas, key, 18, urls)) == {200: 5, 429: 13}

    wait_until(count_together, "the replicas count together again")  # each tries once a second


def test_redis_that_is_killed_and_started_again_fails_no_request(replicas):
    replicas.backend.set_pace(Pace(tokens=4, first_s=0.02, token_s=0.02, single=True))
    key = replicas.new_key(requests_per_minute=100_000, concurrency=1000)
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(ask, replicas, key, 300, [replicas.proxy.url])
        for _ in range(3):
            time.sleep(0.3)
            replicas.redis.kill()
            time.sleep(0.3)
            replicas.redis.start()
        assert statuses(asking.result()) == {200: 300}
