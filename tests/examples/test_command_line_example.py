"""The session at the command line, as bash runs it, on the default model."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from reason.core.events import RunFinished
from reason.core.store.records import RunRecord
from reason.core.store.sqlite import SqliteStore
from support.example_modules import EXAMPLES

pytestmark = pytest.mark.real


def parts_of(message: str) -> dict[str, str]:
    """The output under each heading, by the heading's first words."""
    parts = re.split(r"^== ([^:]+):.*\n", message, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


async def stored(path: Path) -> tuple[list[RunRecord], dict[str, list[Any]]]:
    """The runs, newest first, and the events of each."""
    store = await SqliteStore.open(path)
    try:
        runs = [await store.get_run(run.id) for run in await store.list_runs()]
        return runs, {run.id: list(await store.list_events(run.id)) for run in runs}
    finally:
        await store.aclose()


@pytest.mark.nightly
def test_command_line_session(home):
    done = subprocess.run(
        ["bash", EXAMPLES / "command_line.sh", "here"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "160", "LC_ALL": "C.UTF-8"},
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    message = parts_of(done.stdout)
    assert list(message) == ["ask", "the trace", "replay", "interrupt", "resume", "verify"]

    (checked, broken, requested), events = asyncio.run(stored(Path("here/runs.sqlite3")))
    ends = [e for run in (requested, broken) for e in events[run.id] if isinstance(e, RunFinished)]
    first, interrupted, resumed = (end.answer for end in ends)

    # How the model goes on after "Paris" differs from processor to processor: it may say so in fewer than 40 tokens.
    spent = first.usage.completion_tokens
    assert (first.stopped, first.answer) in (("budget", "Paris"), ("done", "Paris"))
    assert 0 < spent <= 40
    assert message["ask"].strip() == first.text.strip() == Path("here/asked.txt").read_text(encoding="utf-8").strip()
    payload = [line.split()[1] for line in message["the trace"].splitlines()]  # after how many there are of each
    assert payload == sorted({e.type for e in events[requested.id]})
    assert first.text.split()[0] in Path("here/trace.html").read_text(encoding="utf-8")
    assert message["replay"].strip() == "the same text"
    replayed = rf"^answer: Paris  tokens {spent} \({spent} from the store\) .* run {requested.id}$"
    assert re.search(replayed, done.stderr, re.M)

    text, _, listed = message["interrupt"].partition("…\n")
    assert len(text.encode()) == 60
    assert (interrupted.stopped, resumed.stopped) == ("cancelled", "done")
    assert interrupted.text.startswith(text.rstrip("…"))
    assert re.search(rf"^{broken.id} .* interrupted .* Why is the sky blue\?", listed, re.M)
    assert 0 < interrupted.usage.completion_tokens < resumed.usage.completion_tokens <= 120
    assert message["resume"].strip() == resumed.text.strip()

    assert [broken.status, requested.status, checked.status] == ["finished"] * 3
    assert re.search(r"^\[1\] supported .* The capital of France is Paris\.$", message["verify"], re.M)
    assert re.search(r"^\[2\] not enough evidence .* The capital of France is Lyon\.$", message["verify"], re.M)
    assert message["verify"].endswith("exit status 5\n")
