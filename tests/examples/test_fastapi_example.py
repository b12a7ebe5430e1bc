"""The FastAPI application of the examples, on a real socket with the default model behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from reason.core.events import EVENT_ADAPTER, Event, RunFinished, TextDelta
from reason.core.store.records import RunRecord
from reason.core.store.sqlite import SqliteStore
from support.example_modules import wait_until_idle
from support.sidecar_server import Server, serving_app
from support.waiting import wait_until

pytestmark = pytest.mark.real


@pytest.fixture
def server(example: Callable[[str], ModuleType], opened: list[Any]) -> Iterator[Server]:
    with serving_app(example("fastapi_app").app) as server:
        yield server


def events(lines: Iterator[str]) -> Iterator[Event]:
    for line in lines:
        if line.startswith("data: "):
            yield EVENT_ADAPTER.validate_python(json.loads(line.removeprefix("data: ")))


async def only_run(home: Path) -> RunRecord:
    """The one run in the store, once it has ended."""
    store = await SqliteStore.open(home / "runs.sqlite3")
    try:

        async def ended() -> list[Any]:
            return [run for run in await store.list_runs() if run.status != "running"]

        (run,) = await wait_until(ended)
        return await store.get_run(run.id)
    finally:
        await store.aclose()


def test_disconnected_client_cancels_its_run(server, opened, home):
    requested = {"question": "Why is the sky blue? Explain it at length."}
    with httpx.stream("GET", f"{server.url}/ask", params=requested, timeout=120) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        next(event for event in events(response.iter_lines()) if isinstance(event, TextDelta))
    record = asyncio.run(only_run(home))
    assert record.status == "interrupted"
    assert record.answer is not None
    assert 0 < record.answer["usage"]["completion_tokens"] < 256  # of as many as it would have written
    asyncio.run(wait_until_idle(opened))


def test_valid_question_is_answered_and_invalid_one_refused(server, opened, home):
    with httpx.Client(base_url=server.url, timeout=120) as client:
        refused = client.get("/ask", params={"question": " "})
        assert (refused.status_code, refused.json()["code"]) == (400, "user_error")
        assert client.get("/ask").status_code == 422
        requested = {"question": "What is the capital of France? Answer with one word."}
        with client.stream("GET", "/ask", params=requested) as response:
            received = list(events(response.iter_lines()))
    finished = received[-1]
    assert isinstance(finished, RunFinished)
    assert finished.answer.answer == "Paris"
    assert "".join(e.text for e in received if isinstance(e, TextDelta)) == finished.answer.text
    assert [e.number for e in received] == list(range(1, len(received) + 1))
    assert asyncio.run(only_run(home)).id == finished.run_id
    assert len(opened) == 1  # at the start, and for all requests
