import asyncio

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from reason.agents.checkpoints import open_checkpoints
from reason.core.sqlite_store import SqliteStore

CONFIG = {"configurable": {"thread_id": "r", "checkpoint_ns": "", "checkpoint_id": "c"}}


@pytest.mark.parametrize("what", ["checkpoint", "writes"])
async def test_a_cancelled_write_does_not_leave_the_file_locked(tmp_path, monkeypatch, what):
    path = tmp_path / "runs.sqlite3"
    store = await SqliteStore.open(path, busy_timeout_s=0.05, patience_s=0.05)
    async with open_checkpoints(path) as saver:
        await saver.setup()
        commit, begun = saver.conn.commit, asyncio.Event()

        async def late() -> None:
            begun.set()
            await asyncio.sleep(0.02)
            await commit()

        monkeypatch.setattr(saver.conn, "commit", late)
        if what == "checkpoint":
            writing = asyncio.ensure_future(saver.aput(CONFIG, empty_checkpoint(), {"source": "loop", "step": 1}, {}))
        else:
            writing = asyncio.ensure_future(saver.aput_writes(CONFIG, [("state", 1), ("other", 2)], "t"))
        await begun.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await store.create_run("r", {})  # while the checkpoints' connection is still open
    await store.aclose()
