"""The database is killed amid background runs, is away for a while, and comes back."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from drill_kill import CALLS_AT_ONCE, PACE
from drill_ledger import Outcome, settle, snapshot
from drill_requests import AT_START, SAMPLES, Sender, go_on, status, wait_for_replies, wait_until
from sidecar_load_servers import started, write_settings
from sidecar_processes import Backend, free_port

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from support.postgres_server import PostgresServer

AWAY_S = 2.0


def drill(folder: Path, number: int, times: int, runs: int, *, seconds: float = 120.0) -> Outcome:
    """One drill; the kill falls as in `drill_kill.drill`.

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
        place = postgres.new_database()
        with Backend(folder, AT_START) as backend:
            write_settings(folder, backend.root, store=place, calls=CALLS_AT_ONCE)
            server = started(folder, port)
            backend.set_pace(PACE)
            with server.process:
                sender = Sender(root)
                sender.send(tags, again=True)
                wait_for_replies(runs * SAMPLES * (number + 0.5) / times, backend, server.process, outcome, seconds)
                postgres.crash()
                ready = status(root, "/readyz")  # no answer in time is a no as well, to whoever asks with a time limit
                outcome.notes["/readyz while it was away (0: no answer)"] = ready
                outcome.demand(ready != 200, "the sidecar says that it is ready without its database")
                outcome.demand(status(root, "/healthz") == 200, "the sidecar does not answer without its database")
                time.sleep(AWAY_S)
                # what goes on without its store would be paid for without a trace: all of it must have stopped or wait
                idle = wait_until(lambda: backend.stats()["open"] == 0, seconds)
                outcome.demand(idle, "runs go on without end while the database is away")
                finished = backend.stats()["tags"]
                server.process.child.send_signal(signal.SIGSTOP)  # so that it writes nothing before the store is read
                postgres.start()
                broken = snapshot(place, finished)
                server.process.child.send_signal(signal.SIGCONT)
                began = time.monotonic()
                done = wait_until(lambda: go_on(sender, place, tags), seconds, every=0.5)
                outcome.notes["seconds to the end"] = time.monotonic() - began
                outcome.demand(done, f"not all runs ended within {seconds:.0f} s\n{server.process.tail()}")
                outcome.demand(server.process.end() == 0, f"the sidecar ended badly\n{server.process.tail()}")
            settle(outcome, tags, SAMPLES, broken, snapshot(place, backend.stats()["tags"]))
    finally:
        postgres.remove()
    return outcome
