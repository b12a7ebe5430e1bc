"""A small client of the native API for tests of server processes; an event stream reconnects where it breaks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
from reason.core.events import EVENT_ADAPTER, RUN_ENDS, Event


def parse_events(lines: Iterable[str]) -> list[Event]:
    """The run events in the lines of an event stream; an error at its end is left out."""
    data = (line.removeprefix("data: ") for line in lines if line.startswith("data: "))
    return [EVENT_ADAPTER.validate_json(one) for one in data if not one.startswith('{"error"')]


class NativeClient(httpx.Client):
    """Requests as the tests send them; errors raise `httpx.HTTPStatusError`."""

    def __init__(self, url: str) -> None:
        super().__init__(
            base_url=url, timeout=60, event_hooks={"response": [lambda r: r.read() and r.raise_for_status()]}
        )

    def start(self, question: str, **options: Any) -> str:
        return str(self.post("/v1/runs", json={"question": question, **options}).json()["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        return dict(self.get(f"/v1/runs/{run_id}").json())

    def wait(self, run_id: str) -> dict[str, Any]:
        """The run once it has ended; outlives a restart of the server."""
        while True:
            try:
                run = self.run(run_id)
            except httpx.TransportError:
                run = {"status": "unknown"}
            if run["status"] in ("finished", "failed", "interrupted"):
                return run
            time.sleep(0.05)

    def events(self, run_id: str) -> Iterator[Event]:
        after = 0
        while True:
            try:
                with httpx.stream(
                    "GET", f"{self.base_url}/v1/runs/{run_id}/events", params={"after": after}, timeout=60
                ) as response:
                    for line in response.iter_lines():
                        for event in parse_events([line]):
                            after = event.number
                            yield event
                            if isinstance(event, RUN_ENDS):
                                return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
