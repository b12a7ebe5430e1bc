"""`reason eval --batch` and `reason eval cancel-batches` as a user types them."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import reason.serving.litellm.batches as batches_module
from reason.core.store.protocol import StoredBatch
from reason.core.store.sqlite import SqliteStore
from support.batch_server import BatchServer, last_text

ASKED = ("--map", "question=q", "-s", "self-consistency", "--set", "n=2", "-m", "openai/gpt-4o-mini", "--seeds", "1")


@pytest.fixture
def sums(home: Path) -> Path:
    path = home / "sums.jsonl"
    rows = [{"id": f"s{i}", "q": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1)} for i in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def served(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    """A server on a loop of its own, and settings that lead to it."""

    def text(params: dict, position: int) -> str:
        found = re.search(r"What is (\d+) \+ (\d+)", last_text(params))
        assert found is not None
        return f"The answer is {int(found[1]) + int(found[2])}."

    timing = batches_module.BatchTiming(quiet_s=0.2, first_poll_s=0.01, max_poll_s=0.05)
    monkeypatch.setattr(batches_module, "batched", partial(batches_module.batched, timing=timing))
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    server, started, ended = BatchServer(text), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    bases: list[str] = []

    async def serve() -> None:
        async with server.run() as base:
            bases.append(base)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(20)
    settings = f'[providers.openai]\napi_base = "{bases[0]}/v1"\nprobe = false\ntimeout_s = 10.0\n'
    Path("reason.toml").write_text(settings)
    yield server
    loop.call_soon_threadsafe(ended.set)
    thread.join()
    loop.close()


def test_an_evaluation_in_batches_and_the_cancelling_of_one(cli, served: BatchServer, sums: Path) -> None:
    status, out, err = cli("eval", str(sums), *ASKED, "--batch", "--out", "votes", "--json")
    assert status == 0, err
    assert json.loads(out)["rows"] == 4
    assert [len(batch.requests) for batch in served.batches] == [4]
    assert served.direct == []

    async def submit() -> None:
        store = await SqliteStore.open(Path("votes/store.sqlite3"))
        [before] = await store.list_batches("eval-")
        lines = {"line": ("key",)}
        late = StoredBatch(name="late", scope=before.scope, created=before.created + 1, lines=lines)
        await store.add_batch(late.model_copy(update={"provider_id": "batch_0", "status": "submitted"}))
        await store.aclose()

    asyncio.run(submit())
    status, out, err = cli("eval", "--resume", "--out", "votes")
    assert status == 2
    assert "1 batches of this run are in flight" in err
    assert "cancel-batches" in err
    status, out, err = cli("eval", "cancel-batches", "votes")
    assert (status, out) == (0, "")
    assert "1 batch cancelled" in err
    assert served.batches[0].is_cancelled
    status, out, err = cli("eval", "--resume", "--out", "votes")
    assert status == 0, err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--budget", "seconds=5"], "--budget seconds=5 cannot be combined with --batch"),
        (["-m", "local/smollm2-135m"], "model 'local/smollm2-135m' has no batch API"),
    ],
)
def test_what_batches_exclude_is_refused(cli, served: BatchServer, sums: Path, flags: list[str], message: str) -> None:
    status, _, err = cli("eval", str(sums), *ASKED, "--batch", "--out", "votes", *flags)
    assert status == 2
    assert message in err
    assert "saved" not in err  # nothing was
    assert not served.batches
    assert not Path("votes").exists()
