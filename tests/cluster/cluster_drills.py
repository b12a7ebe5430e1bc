"""Drills on a cluster of three replicas: a server is killed under load, or all replicas are restarted, one by one.

    python tests/cluster/cluster_drills.py [--kill replica|redis|postgres|cut] [--kills 20] [--restarts 3] [--runs 24]
        [--lease S]

"postgres" kills the primary and promotes its synchronous standby; "cut" takes the primary's host off the network
instead, and needs the lease of production. Prints the counts. `benchmarks/sidecar_ledger.py` defines "lost", "doubled"
and "paid twice". The lease is that of a replica in the store (6 s, or 0 for production's 30 s). The exit code is 1 if a
drill failed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS), str(TESTS.parent / "benchmarks")]

from sidecar_backend import Pace  # noqa: E402 (found by the path above)
from sidecar_ledger import Outcome, Snapshot, all_finished, settle, snapshot  # noqa: E402
from support.replicas import (  # noqa: E402
    DATABASES,
    LEASE_S,
    Cluster,
    cluster,
    hold_processes,
    question,
    read_events,
    run_body,
    wait_until,
)

SAMPLES = 4
RUNS = 24
KILL_PACE = Pace(tokens=8, first_s=0.1, token_s=0.1, jitter=0.5, single=True)
SLOW_KILL_PACE = Pace(tokens=8, first_s=0.5, token_s=0.5, jitter=0.5, single=True)
"""Seconds lie between two fifths of the responses and the last: time to count what is unfinished, on a busy machine."""
LOAD_PACE = Pace(tokens=4, first_s=0.05, token_s=0.05, jitter=0.5, single=True)
CLIENTS = 6


def send(cluster: Cluster, key: str, tags: list[str], accepted: dict[str, str]) -> None:
    """Start a background run for each tag through the proxy; a client without an answer sends again, as clients do."""

    def one(tag: str) -> None:
        with cluster.client(key=key) as client:
            while tag not in accepted:
                with suppress(httpx.TransportError):
                    response = client.post("/v1/runs", json=run_body(tag, SAMPLES), headers={"Idempotency-Key": tag})
                    if response.status_code == 202:
                        accepted[tag] = response.json()["id"]
                        return
                    assert response.status_code in (429, 502, 503, 504), response.text
                time.sleep(0.1)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(one, tags))


def kill_replica(cluster: Cluster, victim: int) -> Snapshot:
    """Kill a replica; returns what the store and the model server had then."""
    replica = cluster.replicas[victim]
    resume = hold_processes([other for other in cluster.replicas if other is not replica])
    replica.kill()
    killed = time.monotonic()
    try:  # nothing is written meanwhile, so that both counts are of one moment
        wait_until(lambda: cluster.backend.stats()["open"] == 0 or time.monotonic() - killed > 2.0, "a moment")
        return snapshot(cluster.store, cluster.backend.stats()["tags"])
    finally:
        resume()


def kill_redis(cluster: Cluster) -> Snapshot:
    """Kill Redis and start it again; all replicas live on, so that no response is lost on the way."""
    cluster.redis.kill()
    time.sleep(0.3)
    cluster.redis.start()
    return Snapshot({}, {})


def kill_primary(cluster: Cluster) -> Snapshot:
    """Kill the primary of Postgres and promote its standby; all replicas live on, likewise."""
    cluster.postgres.fail_over()
    return Snapshot({}, {})


def cut_off_primary(cluster: Cluster) -> Snapshot:
    """Take the primary's host off the network and promote the standby; the old primary lives on, unheard."""
    cluster.hosts[DATABASES[cluster.postgres.index]].cut_off()
    cluster.postgres.fail_over(kill=False)
    return Snapshot({}, {})


def kill_drill(
    cluster: Cluster,
    name: str,
    share: float,
    kill: Callable[[Cluster], Snapshot],
    runs: int = RUNS,
    pace: Pace = KILL_PACE,
) -> Outcome:
    """Kill something while runs are accepted and executed; all must end, and no stored response is requested again.

    Args:
        cluster: The cluster; what was killed is replaced at the end.
        name: Beginning of the tags.
        share: When the kill comes: the share of all responses that are finished then.
        kill: What kills; returns both counts at the kill.
        runs: Background runs.
        pace: The pace of the model server.
    """
    outcome = Outcome()
    tags = [f"{name}-{i}" for i in range(runs)]
    cluster.backend.set_pace(pace)
    before = cluster.backend.stats()["completed"]
    accepted: dict[str, str] = {}
    key = cluster.new_key(requests_per_minute=100_000, concurrency=1000)  # which Redis counts
    sending = threading.Thread(target=send, args=(cluster, key, tags, accepted))
    sending.start()
    wait_until(
        lambda: cluster.backend.stats()["completed"] - before >= share * runs * SAMPLES, "responses are finished", 60
    )
    outcome.notes["accepted before the kill"] = len(accepted)
    killed = time.monotonic()
    broken = kill(cluster)
    outcome.notes["seconds of the kill"] = round(time.monotonic() - killed, 2)
    found = snapshot(cluster.store, {}).runs
    outcome.notes["unfinished after the kill"] = sum(
        any(run.status != "finished" for run in found.get(tag, [])) for tag in tags
    )
    sending.join()
    wait_until(lambda: all_finished(cluster.store, tags), "all runs end", 120)
    outcome.notes["seconds to the end"] = round(time.monotonic() - killed, 2)
    settle(outcome, tags, SAMPLES, broken, snapshot(cluster.store, cluster.backend.stats()["tags"]))
    for tag in tags:
        outcome.demand(tag in accepted, f"{tag} was never accepted")
    cluster.repair()
    return outcome


def restart_drill(cluster: Cluster, name: str) -> Outcome:
    """Restart all replicas, one after the other, while clients send requests and streams and follow background runs."""
    outcome = Outcome()
    cluster.backend.set_pace(LOAD_PACE)
    stop = threading.Event()
    statuses: Counter[str] = Counter()
    lock = threading.Lock()
    background: dict[str, str] = {}

    def count(what: str, fault: str = "") -> None:
        with lock:
            statuses[what] += 1
            outcome.demand(not fault, fault)

    def work(number: int) -> None:
        sent = 0
        with cluster.client() as client:
            while not stop.is_set():
                sent += 1
                tag = f"{name}-{number}-{sent}"
                kind = ("request", "stream", "background")[(sent + number) % 3]
                try:
                    fault = load_request(client, kind, tag, background)
                except httpx.HTTPError as e:
                    fault = repr(e)
                count(kind, f"{kind} {tag}: {fault}" if fault else "")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1.0)
        for replica in cluster.replicas:
            code = replica.drain()
            outcome.demand(code == 0, f"{replica.name} ended with {code}\n{replica.tail()}")
            cluster.wait_ready()
            time.sleep(0.5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    wait_until(lambda: all_finished(cluster.store, list(background)), "all background runs end", 60)
    runs = snapshot(cluster.store, {}).runs
    outcome.lost = [tag for tag in background if [run.status for run in runs.get(tag, [])] != ["finished"]]
    outcome.runs = sum(statuses.values())
    outcome.notes.update(statuses)
    return outcome


def load_request(client: httpx.Client, kind: str, tag: str, background: dict[str, str]) -> str:
    """Send a request of a kind; returns what is wrong with its response."""
    if kind == "background":
        response = client.post("/v1/runs", json=run_body(tag, 2))
        if response.status_code != 202:
            return f"{response.status_code} {response.text}"
        background[tag] = run_id = response.json()["id"]
        events = read_events(client, run_id)
        while not events or events[-1]["type"] != "run.finished":  # its server ended: a client reads on
            after = max((event["number"] for event in events), default=0)
            events += read_events(client, run_id, after)
        numbers = [event["number"] for event in events if event["number"]]
        return "" if numbers == list(range(1, len(numbers) + 1)) else f"events {numbers}"
    body: dict[str, Any] = {"model": "reason/cot", "messages": [{"role": "user", "content": question(tag)}]}
    if kind == "request":
        response = client.post("/v1/chat/completions", json=body)
        return (
            "" if response.status_code == 200 and "42" in response.text else f"{response.status_code} {response.text}"
        )
    with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as streamed:
        lines = [line for line in streamed.iter_lines() if line.startswith("data: ")]
    is_right = streamed.status_code == 200 and lines[-1] == "data: [DONE]" and not any('"error"' in x for x in lines)
    return "" if is_right else f"{streamed.status_code} {lines[-2:]}"


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


KINDS: dict[str, Sequence[Callable[[Cluster], Snapshot]]] = {
    "replica": [partial(kill_replica, victim=victim) for victim in range(3)],
    "redis": [kill_redis],
    "postgres": [kill_primary],
    "cut": [cut_off_primary],
}


def main() -> int:
    """Run drills and print their counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kill", choices=KINDS, default="replica")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--lease", type=float, default=LEASE_S)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the cluster is removed
    outcomes: list[Outcome] = []
    with cluster(lease_s=args.lease) as replicas:
        for number in range(args.kills):
            share = (number + 0.5) / args.kills
            kill = KINDS[args.kill][number % len(KINDS[args.kill])]
            outcome = kill_drill(replicas, f"tag-{args.kill}-{number}", share, kill, args.runs)
            outcomes.append(outcome)
            say(f"kill {number + 1} at {share:.0%}: {outcome.faults or 'passed'} {outcome.notes}")
        kills = outcomes[:]
        for number in range(args.restarts):
            outcomes.append(restart_drill(replicas, f"tag-restart-{number}"))
            say(f"restart {number + 1}: {outcomes[-1].faults or 'passed'} {outcomes[-1].notes}")
    if kills:
        say(
            f"{len(kills)} kills ({args.kill}), {sum(o.runs for o in kills)} runs: {sum(len(o.lost) for o in kills)} "
            f"lost, {sum(len(o.doubled) for o in kills)} doubled, {sum(o.paid_twice for o in kills)} responses paid "
            f"twice, {sum(o.lost_on_the_way for o in kills)} on the way at a kill; seconds to the end of all runs: "
            f"{sorted(o.notes['seconds to the end'] for o in kills)}"
        )
    restarts = outcomes[len(kills) :]
    if restarts:
        say(
            f"{len(restarts)} rolling restarts under load, {sum(o.runs for o in restarts)} requests: "
            f"{sum(len(o.faults) for o in restarts)} failed, {sum(len(o.lost) for o in restarts)} runs lost"
        )
    return int(any(outcome.faults or outcome.lost for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
