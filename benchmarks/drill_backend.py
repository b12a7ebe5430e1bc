"""The model server is killed amid background runs, is away for a while, and comes back at the same address."""

from __future__ import annotations

import time
from pathlib import Path

from drill_kill import CALLS_AT_ONCE, PACE
from drill_ledger import Outcome, all_over, journalled, settle, snapshot
from drill_requests import AT_START, SAMPLES, Sender, wait_for_replies, wait_until
from sidecar_load_servers import started, write_settings
from sidecar_processes import Backend, free_port

AWAY_S = 1.0
SETTLE_S = 1.0
"""Until the sidecar has stored what it had received when the model server died, in seconds."""


def drill(folder: Path, number: int, times: int, runs: int, *, seconds: float = 120.0) -> Outcome:
    """One drill; the kill falls as in `drill_kill.drill`.

    The model server's count is its journal, as it dies itself: a reply is in it before its last bytes are sent, so what
    was lost on the way was at most those.
    """
    outcome = Outcome()
    tags = [f"tag-backend-{number}-{i}" for i in range(runs)]
    place, journal = folder / "runs.sqlite3", folder / "journal"
    port = free_port()
    with Backend(folder, AT_START, journal=journal) as first:
        write_settings(folder, first.root, calls=CALLS_AT_ONCE)
        server = started(folder, port)
        first.set_pace(PACE)
        with server.process:
            sender = Sender(f"http://127.0.0.1:{port}")
            sender.send(tags, again=True)
            wait_for_replies(runs * SAMPLES * (number + 0.5) / times, first, server.process, outcome, seconds)
            first.kill()
            time.sleep(SETTLE_S)
            broken = snapshot(place, journalled(journal))
            time.sleep(AWAY_S)
            with Backend(folder, PACE, first.port, journal):
                began = time.monotonic()
                done = wait_until(lambda: all_over(place, tags), seconds, every=0.5)
                outcome.notes["seconds to the end"] = time.monotonic() - began
                outcome.demand(done, f"not all runs ended within {seconds:.0f} s\n{server.process.tail()}")
                outcome.demand(server.process.end() == 0, f"the sidecar ended badly\n{server.process.tail()}")
        settle(outcome, tags, SAMPLES, broken, snapshot(place, journalled(journal)))
    return outcome
