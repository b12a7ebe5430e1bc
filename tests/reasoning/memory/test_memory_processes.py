"""Named memories under several processes, and under kill -9."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from reason.core.settings import Settings
from reason.reasoning.knowledge import MemoryItem
from reason.reasoning.memory.named_memory import load_memory
from reason.reasoning.retrieval.deduplication import text_hash
from support.word_vectors import WordVectors

TESTS = Path(__file__).parents[2]
PRELUDE = f"""
import asyncio, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
from reason.core.settings import Settings
from reason.reasoning.memory import named_memory
from reason.reasoning.retrieval.deduplication import text_hash
from reason.reasoning.knowledge import MemoryItem
from reason.reasoning.memory.named_memory import load_memory
from support.word_vectors import WordVectors

def item(text):
    return MemoryItem(text=text, hash=text_hash(text))

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

settings = Settings(store=Path(sys.argv[1]))
"""
ADDER = """
async def main():
    memory = await load_memory("facts", settings, WordVectors())
    await memory.add([item("first")])
    named_memory.NamedMemory._set_changed = die  # within the transaction
    await memory.add([item("second"), item("third")])

asyncio.run(main())
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def item(text: str) -> MemoryItem:
    return MemoryItem(text=text, hash=text_hash(text))


async def test_each_sees_what_others_have_written(tmp_path):
    settings = Settings(store=tmp_path / "runs.sqlite3")
    one, other = [await load_memory("facts", settings, WordVectors()) for _ in range(2)]
    words = await load_memory("facts", settings)
    assert (await one.add([item("red wine")])) == (1,)
    assert (await other.add([item("Red wine!"), item("white wine")])) == (2,)
    assert (await words.add([item("white WINE"), item("rose wine")])) == (3,)
    for memory in (one, other):
        assert [hit.stored.id for hit in await memory.recall("rose", 1)] == [3]  # which another wrote without a vector
    await words.remove([1])
    assert [hit.stored.id for hit in await one.recall("red", 1)] == []
    assert (await one.add([item("red wine")])) == (4,)
    assert one.identity != other.identity
    await other.recall("red", 1)
    assert one.identity == other.identity
    for memory in (one, other, words):
        await memory.aclose()


async def test_killed_while_adding(tmp_path):
    store = tmp_path / "runs.sqlite3"
    child = start(ADDER, str(store))
    _, told = child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL, told
    embedding = WordVectors()
    memory = await load_memory("facts", Settings(store=store), embedding)
    assert [one.item.text for one in await memory.items()] == ["first"]
    assert embedding.asked == []  # the vectors came with the rows
    assert [hit.stored.item.text for hit in await memory.recall("first", 1)] == ["first"]
    assert len(await memory.add([item("second"), item("fourth")])) == 2
    await memory.aclose()
