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
from reason.core.store.protocol import RunRecord
from reason.core.store.sqlite import SqliteStore
from support.example_modules import FOLDER

pytestmark = pytest.mark.real


def parts_of(said: str) -> dict[str, str]:
    """What was printed under each heading, by the heading's first words."""
    parts = re.split(r"^== ([^:]+):.*\n", said, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


async def stored(path: Path) -> tuple[list[RunRecord], dict[str, list[Any]]]:
    """The runs, newest first, and the events of each."""
    store = await SqliteStore.open(path)
    try:
        runs = await store.list_runs()
        return runs, {run.id: list(await store.list_events(run.id)) for run in runs}
    finally:
        await store.aclose()


def test_command_line_session(home: Path) -> None:
    done = subprocess.run(
        ["bash", FOLDER / "command_line.sh", "here"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "160", "LC_ALL": "C.UTF-8"},
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    said = parts_of(done.stdout)
    assert list(said) == ["ask", "the trace", "replay", "interrupt", "resume", "verify"]

    (checked, broken, asked), events = asyncio.run(stored(Path("here/runs.sqlite3")))
    ends = [e for run in (asked, broken) for e in events[run.id] if isinstance(e, RunFinished)]
    first, interrupted, resumed = (end.answer for end in ends)

    # How the model goes on after "Paris" differs from processor to processor: it may say so in fewer than 40 tokens.
    spent = first.usage.completion_tokens
    assert (first.stopped, first.answer) == ("budget" if spent == 40 else "done", "Paris")
    assert 0 < spent <= 40
    assert said["ask"].strip() == first.text.strip() == Path("here/asked.txt").read_text(encoding="utf-8").strip()
    told = [line.split()[1] for line in said["the trace"].splitlines()]  # after how many there are of each
    assert told == sorted({e.type for e in events[asked.id]})
    assert first.text.split()[0] in Path("here/trace.html").read_text(encoding="utf-8")
    assert said["replay"].strip() == "the same text"
    replayed = rf"^answer: Paris  tokens {spent} \({spent} from the store\) .* run {asked.id}$"
    assert re.search(replayed, done.stderr, re.M)

    text, _, listed = said["interrupt"].partition("…\n")
    assert len(text.encode()) == 60
    assert (interrupted.stopped, resumed.stopped) == ("cancelled", "done")
    assert interrupted.text.startswith(text.rstrip("…"))
    assert re.search(rf"^{broken.id} .* interrupted .* Why is the sky blue\?", listed, re.M)
    assert 0 < interrupted.usage.completion_tokens < resumed.usage.completion_tokens == 120
    assert said["resume"].strip() == resumed.text.strip()

    assert [broken.status, asked.status, checked.status] == ["finished"] * 3
    assert re.search(r"^\[1\] supported .* The capital of France is Paris\.$", said["verify"], re.M)
    assert re.search(r"^\[2\] refuted .* The capital of France is Lyon\.$", said["verify"], re.M)
    assert said["verify"].endswith("exit status 5\n")
