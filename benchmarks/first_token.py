"""First token from a server of one's own: `reason` with a strategy of one call, and the bare `openai` client.

    python benchmarks/first_token.py [--rounds 41] [--processes 9] [--kind plain]

The server (`tests/support/wires`) runs in a process of its own and writes a token each 10 ms, so that the figures are
what a client adds. It was measured once before, as it is after the first use (`serving/servers/measurements`).
Both clients ask the same question in turns, in alternating order, and stop at the first text:

- kept: the client is open, and so are its connections.
- opened: the client is created, and then asks: `AsyncOpenAI(…)`, and `Reasoner(…)` with its run store on disk.
- process: a new Python process, until the first text on its standard output: `reason ask`, and a script of five lines.

Printed are medians and the difference. Target: at most 50 ms later.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

from reporting import processor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

TARGET_MS = 50.0
QUESTION = "How many kinds of fruit are 5 kinds of apples and 7 kinds of pears?"
MAX_TOKENS = 256
SCRIPT = """
import sys
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1], api_key="none")
messages = [{"role": "user", "content": sys.argv[3]}]
for chunk in client.chat.completions.create(model=sys.argv[2], messages=messages, stream=True, max_tokens=256):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
"""
Ask = Callable[[], Awaitable[float]]


def serve(name: str, pipe: Connection) -> None:
    """Serve a kind of model; sends its address and its model string through the pipe."""
    from support.wires.kinds import KINDS, OTHER_KINDS
    from support.wires.server import WireServer

    async def main() -> None:
        kind = next(kind for kind in (*KINDS, *OTHER_KINDS) if kind.name == name)
        async with WireServer(kind, pause_s=0.01).run() as address:
            pipe.send((address, kind.model))
            await asyncio.Event().wait()

    asyncio.run(main())


def bare(address: str, served: str) -> tuple[Ask, Ask]:
    """The `openai` client, kept and opened; each call gives the seconds to its first text."""
    import openai

    def create() -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(api_key="none", base_url=address, max_retries=0)

    async def first(client: openai.AsyncOpenAI, began: float) -> float:
        stream = await client.chat.completions.create(
            model=served, messages=[{"role": "user", "content": QUESTION}], stream=True, max_tokens=MAX_TOKENS
        )
        async with stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    return time.perf_counter() - began
        raise AssertionError("no text")

    client = create()

    async def kept() -> float:
        return await first(client, time.perf_counter())

    async def opened() -> float:
        began = time.perf_counter()
        async with create() as fresh:
            return await first(fresh, began)

    return kept, opened


async def ours(model: str, store: Path) -> tuple[Ask, Ask, Callable[[], Awaitable[None]]]:
    """`Reasoner.astream` with `cot`, kept and opened, and what closes the kept one."""
    from reason import Reasoner
    from reason.core.events import TextDelta
    from reason.core.settings import load_settings

    settings = load_settings(model=model, store=store, strategy="cot")

    async def first(reasoner: Reasoner, began: float) -> float:
        async with aclosing(reasoner.astream(QUESTION)) as events:
            async for event in events:
                if isinstance(event, TextDelta) and event.text:
                    return time.perf_counter() - began
        raise AssertionError("no text")

    reasoner = Reasoner(settings=settings)
    await reasoner.aask(QUESTION)  # measures the server

    async def kept() -> float:
        return await first(reasoner, time.perf_counter())

    async def opened() -> float:
        began = time.perf_counter()
        async with Reasoner(settings=settings) as fresh:
            return await first(fresh, began)

    return kept, opened, reasoner.aclose


def process(*command: str) -> tuple[float, float]:
    """Seconds from the start of a process to its first output, and those of processor time in it (Linux)."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        text = running.stdout.read(1)
        took = time.perf_counter() - began
        fields = Path(f"/proc/{running.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        worked = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        running.stdout.read()
    assert text, f"{command} printed nothing, and ended with {running.returncode}"
    return took, worked


async def compare(
    address: str, model: str, directory: Path, args: argparse.Namespace
) -> list[tuple[str, float, float]]:
    """Medians in milliseconds by way of asking: the bare client's, and ours."""
    served = model.partition("/")[2]
    named = f"{model}@{address}"
    store = directory / "runs.sqlite3"
    their_kept, their_opened = bare(address, served)
    our_kept, our_opened, close = await ours(named, store)
    script = (sys.executable, "-c", SCRIPT, address, served, QUESTION)
    command = (
        sys.executable,
        "-c",
        "from reason.cli.main import main; main()",
        "ask",
        QUESTION,
        "-m",
        named,
        "--stream",
    )

    worked: dict[str, list[float]] = {"openai": [], "reason": []}

    async def new(client: str, *started: str) -> float:
        took, processor_s = await asyncio.to_thread(process, *started)
        worked[client].append(processor_s)
        return took

    ways: list[tuple[str, int, Ask, Ask]] = [
        ("kept", args.rounds, their_kept, our_kept),
        ("opened", args.rounds, their_opened, our_opened),
        ("process", args.processes, lambda: new("openai", *script), lambda: new("reason", *command)),
    ]
    rows = []

    def add(name: str, taken: dict[str, list[float]]) -> None:
        """A row without the first two rounds."""
        theirs, mine = (statistics.median(taken[client][2:]) * 1e3 for client in ("openai", "reason"))
        rows.append((name, theirs, mine))

    for name, rounds, their, our in ways:
        taken: dict[str, list[float]] = {"openai": [], "reason": []}
        for i in range(rounds + 2):
            for client, ask in sorted((("openai", their), ("reason", our)), reverse=bool(i % 2)):
                taken[client].append(await ask())
        add(name, taken)
    add("process, its processor time", worked)
    await close()
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--processes", type=int, default=9)
    parser.add_argument("--kind", default="plain", help="a kind of model of tests/support/wires/kinds.py")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(args.kind, there), daemon=True)
    server.start()
    try:
        with tempfile.TemporaryDirectory() as directory:
            for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):  # nothing of this machine's user
                os.environ[variable] = directory
            address, model = here.recv()
            rows = asyncio.run(compare(address, model, Path(directory), args))
    finally:
        server.terminate()
        server.join()
    versions = ", ".join(f"{package} {version(package)}" for package in ("openai", "httpx", "aiohttp"))
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; {processor()}, {os.cpu_count()} cores, ", end="")
    print(f"load {load:.1f} before; Python {platform.python_version()}; {versions}; server: {args.kind}\n")
    print("| client | openai, ms | reason, ms | later, ms | |\n| --- | ---: | ---: | ---: | --- |")
    for name, their, our in rows:
        verdict = "" if our - their <= TARGET_MS else f"above {TARGET_MS:g}"
        print(f"| {name} | {their:.1f} | {our:.1f} | {our - their:+.1f} | {verdict} |")


if __name__ == "__main__":
    main()
