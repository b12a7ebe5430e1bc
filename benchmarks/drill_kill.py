"""The sidecar is killed without a warning amid background runs, and started again."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from drill_ledger import Outcome, all_over, settle, snapshot
from drill_requests import AT_START, SAMPLES, Sender, wait_for_replies, wait_until
from sidecar_backend import Pace
from sidecar_load_servers import started, write_settings
from sidecar_processes import Backend, free_port

PACE = Pace(tokens=8, first_s=0.1, token_s=0.05, jitter=0.5, single=True)
CALLS_AT_ONCE = 48
"""Calls at once that the sidecar may have, so that runs wait for one another and all phases are there at the kill."""


def drill(folder: Path, number: int, times: int, runs: int, *, seconds: float = 120.0, store: str = "") -> Outcome:
    """One drill.

    The kill comes when so many of all replies are finished: from 0 in the first drill to all but a few in the last, so
    that it falls into every phase, the acceptance of runs included. Whoever had no acceptance sends again with the same
    idempotency key, as clients do.

    Args:
        folder: Where everything runs.
        number: Which of the drills this is, from 0.
        times: How many there are.
        runs: Background runs.
        seconds: Longest time until all have ended.
        store: Address of a Postgres database; empty is a file.
    """
    outcome = Outcome()
    tags = [f"tag-kill-{number}-{i}" for i in range(runs)]
    place = store or folder / "runs.sqlite3"
    port = free_port()
    with Backend(folder, AT_START) as backend:
        write_settings(folder, backend.root, store=store, calls=CALLS_AT_ONCE)
        server = started(folder, port)
        backend.set_pace(PACE)
        with server.process:
            sender = Sender(f"http://127.0.0.1:{port}")
            sending = threading.Thread(target=sender.send, args=(tags,))
            sending.start()
            wait_for_replies(runs * SAMPLES * (number + 0.5) / times, backend, server.process, outcome, seconds)
            server.process.kill()
            sending.join()
        outcome.demand(
            wait_until(lambda: backend.stats()["open"] == 0, 10.0), "the model server went on without a client"
        )
        stats = backend.stats()
        broken = snapshot(place, stats["tags"])
        outcome.notes["accepted"] = len(sender.accepted)
        outcome.notes["ended before"] = sum(r.status == "finished" for found in broken.runs.values() for r in found)
        outcome.notes["cut in mid reply"] = stats["left"]
        began = time.monotonic()
        backend.set_pace(AT_START)
        server = started(folder, port)
        backend.set_pace(PACE)
        with server.process:
            sender.send(tags, again=True)
            done = wait_until(lambda: all_over(place, tags), seconds, every=0.5)
            outcome.notes["seconds to the end"] = time.monotonic() - began
            outcome.demand(done, f"not all runs ended within {seconds:.0f} s\n{server.process.tail()}")
            outcome.demand(server.process.end() == 0, f"the second process ended badly\n{server.process.tail()}")
        settle(outcome, tags, SAMPLES, broken, snapshot(place, backend.stats()["tags"]))
    return outcome
