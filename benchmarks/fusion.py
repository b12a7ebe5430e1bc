"""How soon `fusion` streams after its last draft, and how soon they stop when the client leaves.

    python benchmarks/fusion.py [--runs 40] [--write]      --write writes docs/results/fusion.md

`reason serve` in a process of its own, before a model server in another one that streams a token every `TOKEN_S`
seconds and notes when it has sent the last byte of a response and when a connection of one broke. All processes share
one monotonic clock. Ends with status 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import httpx
from reporting import made_here, table, write_section
from sidecar_servers import free_port, started

TOKEN_S: Final = 0.005
DRAFTS: Final = {"first": 12, "second": 20, "long": 4000}
"""Tokens of each draft by the name of its model; all end with the same answer."""
SHORT_TOKENS: Final = 30
CHAIR: Final = "chair"
CHAIR_TOKENS: Final = 40
MAX_FIRST_S: Final = 0.05
MAX_STOP_S: Final = 1.0
MAX_STOPPED_S: Final = 15.0
"""Time after which a draft that goes on is an error; the long draft takes longer."""
PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "results" / "fusion.md"
BODY: Final = {"model": "reason/fusion", "messages": [{"role": "user", "content": "What is 6 times 7?"}]}

Note = tuple[str, str, float]
"""What happened ("sent" or "left"), the model, and when."""


class PacedServer:
    """Streams a token every `TOKEN_S` seconds, as many as the model's name says."""

    def __init__(self) -> None:
        self.notes: list[Note] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, whatever number of requests it has."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = head.partition("content-length:")[2].split("\r\n")[0].strip()
                body = json.loads(await reader.readexactly(int(length))) if length else {}
                if "/chat/completions" not in head:
                    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"data":[]}')
                    continue
                await self._stream(reader, writer, body["model"], int(body.get("max_tokens") or 5000))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, model: str, max_tokens: int
    ) -> None:
        sending = asyncio.ensure_future(self._send(writer, model, max_tokens))
        leaving = asyncio.ensure_future(reader.read(1))  # a client that waits for a response sends nothing
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        is_sent = sending.done() and sending.exception() is None
        self.notes.append(("sent" if is_sent else "left", model, time.monotonic()))
        sending.cancel()
        leaving.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
        if not is_sent:
            raise ConnectionResetError

    async def _send(self, writer: asyncio.StreamWriter, model: str, max_tokens: int) -> None:
        count = min(max_tokens, CHAIR_TOKENS if model == CHAIR else DRAFTS[model])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        frame = {"id": "r", "object": "chat.completion.chunk", "created": 1, "model": model}
        for position in range(count):
            last = position == count - 1
            text = "The answer is 42." if last else "word "
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop" if last else None}
            _write_event(writer, {**frame, "choices": [choice]})
            await writer.drain()
            if not last:
                await asyncio.sleep(TOKEN_S)
        usage = {"prompt_tokens": 20, "completion_tokens": count, "total_tokens": 20 + count}
        _write_event(writer, {**frame, "choices": [], "usage": usage})
        data = b"data: [DONE]\n\n"
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
        await writer.drain()


def _write_event(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    data = f"data: {json.dumps(event)}\n\n".encode()
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


def serve(port: int, pipe: Connection) -> None:
    """The model server of a process; answers anything that comes through the pipe with its notes so far."""

    async def run() -> None:
        paced = PacedServer()
        server = await asyncio.start_server(paced.answer, "127.0.0.1", port)

        def tell() -> None:
            pipe.recv()
            pipe.send(paced.notes)
            paced.notes.clear()

        asyncio.get_running_loop().add_reader(pipe.fileno(), tell)
        pipe.send("ready")
        await server.serve_forever()

    asyncio.run(run())


def notes_of(pipe: Connection) -> list[Note]:
    """The model server's notes since they were read last."""
    pipe.send("notes")
    notes: list[Note] = pipe.recv()
    return notes


def first_token(client: httpx.Client, url: str, pipe: Connection) -> float:
    """Seconds from the last byte of the last draft to the first piece of content that the client has."""
    notes_of(pipe)
    first = 0.0
    content = ""
    body = {**BODY, "stream": True, "reason": {"parameters": {"max_tokens": SHORT_TOKENS}}}
    with client.stream("POST", url, json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                piece = choice["delta"].get("content") or ""
                if piece and not content:
                    first = time.monotonic()
                content += piece
    assert content.endswith("The answer is 42."), content[-80:]
    notes = notes_of(pipe)
    return first - max(at for what, model, at in notes if what == "sent" and model in DRAFTS)


def stop(client: httpx.Client, url: str, pipe: Connection) -> float:
    """Seconds from the moment at which a client leaves to the end of the last draft."""
    notes_of(pipe)
    with client.stream("POST", url, json={**BODY, "stream": True}) as response:
        response.raise_for_status()
        lines = response.iter_lines()
        while "word word" not in next(lines):  # of the second draft, after the first one has ended
            pass
        left = time.monotonic()
        response.close()
    notes: list[Note] = []
    while ("left", "long") not in [note[:2] for note in notes]:
        notes += notes_of(pipe)
        assert time.monotonic() - left < MAX_STOPPED_S, f"the drafts go on: {notes}"
        time.sleep(0.002)
    return max(at for what, _, at in notes if what == "left") - left


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    options = parser.parse_args()
    port = free_port()
    ours, theirs = multiprocessing.Pipe()
    model_server = multiprocessing.get_context("spawn").Process(target=serve, args=(port, theirs), daemon=True)
    model_server.start()
    assert ours.recv() == "ready"
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        jurors = ", ".join(f'"openai/{name}"' for name in DRAFTS)
        (directory / "reason.toml").write_text(
            f'model = "openai/{CHAIR}"\nstrategy = "fusion"\nstore = "{directory / "runs.sqlite3"}"\n'
            f"jurors = [{jurors}]\n[strategies.fusion]\nmax_tokens = 5000\n"
            f'[providers.openai]\napi_base = "http://127.0.0.1:{port}/v1"\n',
            encoding="utf-8",
        )
        server = started(directory, free_port(), keys=False)
        with server.process:
            with httpx.Client(timeout=60) as client:
                for _ in range(3):
                    first_token(client, server.url, ours)  # the first runs import and open what later ones use
                firsts = sorted(first_token(client, server.url, ours) for _ in range(options.runs))
            stops = sorted(stop(httpx.Client(timeout=60), server.url, ours) for _ in range(max(5, options.runs // 4)))
    model_server.terminate()
    rows = [
        ("first token of the synthesis after the last byte of the last draft", *_row(firsts, MAX_FIRST_S)),
        ("end of all drafts after the client has left", *_row(stops, MAX_STOP_S)),
    ]
    text = f"{table(('milliseconds', 'runs', 'median', '95th percentile', 'largest', 'goal'), rows)}\n\n{made_here()}"
    print(text)
    if options.write:
        write_section(PAGE, "fusion", text)
    return int(statistics.median(firsts) > MAX_FIRST_S or stops[-1] > MAX_STOP_S)


def _row(seconds: list[float], goal: float) -> tuple[str, str, str, str, str]:
    high = seconds[min(len(seconds) - 1, round(0.95 * len(seconds)))]
    values = (statistics.median(seconds), high, seconds[-1], goal)
    median, percentile, largest, limit = (f"{1000 * value:.0f}" for value in values)
    return str(len(seconds)), median, percentile, largest, limit


if __name__ == "__main__":
    sys.exit(main())
