"""Scripts of users with a provider's model: they end, whatever loops they ask on, and at Ctrl-C within a moment."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fault_server import FaultServer
from support.scripted_model import ScriptedModel, replies

START = """
import asyncio
from reason import Reasoner
question = "What is 40 + 2?"
r = Reasoner("openai/small")
"""
SCRIPTS = {
    "without close": "print(r.ask(question).answer)",
    "closed": "print(r.ask(question).answer)\nr.close()",
    "in a notebook": """
async def cell():
    print(r.ask(question).answer)
    print((await r.aask(question)).answer)
    print(r.ask(question).answer)
asyncio.run(cell())
""",
    "async with and ask": """
async def main():
    async with r:
        print((await r.aask(question)).answer)
        print(r.ask(question).answer)
        print((await r.aask(question)).answer)
asyncio.run(main())
""",
    "several loops": """
print(r.ask(question).answer)
for _ in range(2):
    print(asyncio.run(r.aask(question)).answer)
print(r.ask(question).answer)
""",
    "two threads": """
import threading
threads = [threading.Thread(target=lambda: print(f"{r.ask(question).answer}\\n", end="")) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
""",
    "closed on another loop": """
async def main():
    print((await r.aask(question)).answer)
    print(r.ask(question).answer)
    r.close()
    print((await r.aask(question)).answer)
    await r.aclose()
asyncio.run(main())
""",
}


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[FaultServer, str]]:
    """A server on a loop of its own, and its address."""
    fake = FaultServer(ScriptedModel(replies("The answer is 42.")), vllm=False)
    loop, started, ended = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    addresses: list[str] = []

    async def serve() -> None:
        async with fake.run() as base:
            addresses.append(base)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(20)
    yield fake, addresses[0]
    loop.call_soon_threadsafe(ended.set)
    thread.join()
    loop.close()


def start(script: str, base: str, directory: Path) -> subprocess.Popen[str]:
    text = f'store = "runs.sqlite3"\n[providers.openai]\napi_base = "{base}"\nprobe = false\n'
    (directory / "reason.toml").write_text(text)
    return subprocess.Popen(
        [sys.executable, "-W", "default::ResourceWarning", "-c", START + script],
        cwd=directory,
        env={**os.environ, "OPENAI_API_KEY": "key", "XDG_CONFIG_HOME": str(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, id=name, marks=() if name in ("in a notebook", "two threads") else pytest.mark.nightly)
        for name, script in SCRIPTS.items()
    ],
)
def test_a_script_ends_and_leaves_no_connection_open(script: str, server: tuple[FaultServer, str], tmp_path: Path):
    done = start(script, server[1], tmp_path)
    out, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, "")
    assert set(out.split()) == {"42"}


@pytest.mark.parametrize("call", [pytest.param("r.ask(question)", marks=pytest.mark.nightly), "asyncio.run(main())"])
def test_an_interrupt_ends_a_script(call: str, server: tuple[FaultServer, str], tmp_path: Path) -> None:
    """Also of a synchronous call on an event loop, where `asyncio.run` only cancels the task at the first Ctrl-C."""
    fake, base = server
    fake.pause_s, before = 5.0, fake.count
    try:
        script = start(f"async def main():\n    r.ask(question)\n{call}\n", base, tmp_path)
        for _ in range(1200):
            if fake.count > before or script.poll() is not None:
                break
            threading.Event().wait(0.05)
        script.send_signal(signal.SIGINT)
        _, err = script.communicate(timeout=60)
    finally:
        fake.pause_s = 0.0
    assert script.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "Task was destroyed" not in err
