"""What drills send: background runs, each with a tag and an idempotency key of its own."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from drill_ledger import Outcome, snapshot
from sidecar_backend import Pace
from sidecar_processes import Backend, Process, fetch

SAMPLES = 4
"""Chains of a run; each is a request of its own, as the model server knows no `n` in drills (`Pace.single`)."""
AT_START = Pace(single=True)
"""How the model server answers while a sidecar starts, which asks it what it can do."""
AT_ONCE = 8
"""Connections over which runs are sent."""


def question(tag: str) -> str:
    """What is asked under a tag."""
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
            HTTPError: The server says that a request is wrong.
        """

        def one(tag: str) -> None:
            while tag not in self.accepted:
                try:
                    told = fetch(f"{self.root}/v1/runs", run_body(tag), {"Idempotency-Key": tag})
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
                        self.accepted[tag] = told["id"]

        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(one, tags))


def wait_until(happened: Callable[[], bool], seconds: float, every: float = 0.05) -> bool:
    """Wait for something, so long at most; gives whether it happened."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True


def wait_for_replies(about: float, backend: Backend, process: Process, outcome: Outcome, seconds: float) -> None:
    """Wait until the model server has finished about so many replies, which is when a drill breaks something."""
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


def go_on(sender: Sender, store: Path | str, tags: Sequence[str]) -> bool:
    """Whether all runs have finished; those that broke off or failed are asked to go on, others are sent again."""
    if len(sender.accepted) < len(tags):
        sender.send(tags, again=True)
    runs = snapshot(store, {}).runs
    found = [run for tag in tags for run in runs.get(tag, [])]
    for run in found:
        if run.status in ("interrupted", "failed"):
            with contextlib.suppress(urllib.error.HTTPError):  # another is at it already, or it has just finished
                fetch(f"{sender.root}/v1/runs/{run.run_id}/resume", {})
    return all(runs.get(tag) for tag in tags) and all(run.status == "finished" for run in found)
