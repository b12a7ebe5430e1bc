"""A model server that costs next to nothing: OpenAI's chat API over one fixed response, with counts of its requests.

    python benchmarks/sidecar_backend.py [--host ADDRESS] [--port N] [--pace JSON] [--journal FILE]

It writes `ready PORT` to its output. Without pauses the response is made beforehand and sent in one piece. With pauses
every token is an event, and a client that leaves ends its request at once, as on model servers.

`GET /stats` returns the requests and completed responses in all and by tag: a word like `tag-soak-17` anywhere in a
request. A response is completed when its last bytes went to an open connection. With a journal each completed tag is a
line of that file, written before those last bytes, so that the count survives the process. `POST /pace` takes the
fields of a `Pace`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

END = "The answer is 42."
"""How the response ends, so that a strategy finds an answer in it and a load generator its end."""
GOLDEN = 0.6180339887498949
_TAG = re.compile(rb"\btag-[0-9a-z-]+")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_STREAM = re.compile(rb'"stream" *: *true')
_N = re.compile(rb'"n" *: *(\d+)')
_MODEL = re.compile(rb'"model" *: *"([^"\\]*)"')


@dataclass(frozen=True)
class Pace:
    """How a response comes.

    Attributes:
        tokens: Tokens of it.
        first_s: Seconds before the first.
        token_s: Seconds between two.
        jitter: Share by which the times of one response are longer or shorter, the next response's otherwise than this
            one's.
        single: Whether `n` is ignored, as some servers do: each sample is then a request of its own.
    """

    tokens: int = 8
    first_s: float = 0.0
    token_s: float = 0.0
    jitter: float = 0.0
    single: bool = False

    @property
    def seconds(self) -> float:
        """Time of a response, without jitter."""
        return self.first_s + self.token_s * (self.tokens - 1)

    def factor(self, number: int) -> float:
        """What the times of the response of this number are multiplied by; spread evenly over the responses."""
        return 1.0 + self.jitter * (2.0 * (number * GOLDEN % 1.0) - 1.0)

    def pieces(self) -> list[str]:
        """The texts of the tokens; the last is `END`."""
        return ["word "] * (self.tokens - 1) + [END]


@dataclass
class Counts:
    """What was posed: `received` requests for text, `completed` ones, those `left` by their clients, and `open` now."""

    received: int = 0
    completed: int = 0
    left: int = 0
    open: int = 0


class RequestCounter:
    """What all connections of the server share."""

    def __init__(self, pace: Pace, journal: Path | None) -> None:
        self.pace = pace
        self.counts = Counts()
        self.tags: Counter[str] = Counter()
        self.started: Counter[str] = Counter()
        self._journal = None if journal is None else os.open(journal, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        self._made: dict[tuple[Pace, bool, int], list[bytes]] = {}

    def complete(self, tag: str) -> None:
        """Count a response whose last bytes go out now."""
        self.counts.completed += 1
        if tag:
            self.tags[tag] += 1
            if self._journal is not None:
                os.write(self._journal, f"{tag}\n".encode())

    def stats(self) -> dict[str, Any]:
        """See the module."""
        return {**vars(self.counts), "tags": dict(self.tags), "started": dict(self.started)}

    def pieces(self, streamed: bool, n: int) -> list[bytes]:
        """The bytes of a response in the parts in which they are sent: one part for each token, and one for the end."""
        key = (self.pace, streamed, n)
        if key not in self._made:
            self._made[key] = _stream(self.pace, n) if streamed else [_complete_body(self.pace, n)]
        return self._made[key]


def _usage(pace: Pace, n: int) -> dict[str, int]:
    return {"prompt_tokens": 14, "completion_tokens": n * pace.tokens, "total_tokens": 14 + n * pace.tokens}


def _stream(pace: Pace, n: int) -> list[bytes]:
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "fake"}
    parts = []
    for position, text in enumerate(pace.pieces()):
        last = position == pace.tokens - 1
        delta = {"role": "assistant", "content": text} if position == 0 else {"content": text}
        events: Iterable[dict[str, Any]] = (
            {**frame, "choices": [{"index": i, "delta": delta, "finish_reason": "stop" if last else None}]}
            for i in range(n)
        )
        parts.append(b"".join(_chunk(_event(e)) for e in events))
    end = _event({**frame, "choices": [], "usage": _usage(pace, n)}) + b"data: [DONE]\n\n"
    return [_head("text/event-stream", "Transfer-Encoding: chunked") + parts[0], *parts[1:], _chunk(end) + b"0\r\n\r\n"]


def _complete_body(pace: Pace, n: int) -> bytes:
    message = {"role": "assistant", "content": "".join(pace.pieces())}
    choices = [{"index": i, "message": message, "finish_reason": "stop"} for i in range(n)]
    frame = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "fake"}
    return answered({**frame, "choices": choices, "usage": _usage(pace, n)})


def answered(value: Any, status: str = "200 OK") -> bytes:
    """A response of JSON."""
    body = json.dumps(value).encode()
    return _head("application/json", f"Content-Length: {len(body)}", status) + body


def _head(kind: str, more: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}\r\n\r\n".encode()


def _event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Connection(asyncio.Protocol):
    """One client. Requests of a connection are answered one after the other."""

    def __init__(self, counter: RequestCounter) -> None:
        self._counter = counter
        self._data = b""
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`: what is being written for this client ends."""
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._data += data
        self._next()

    def _next(self) -> None:
        while self._task is None and (request := self._request()) is not None:
            head, body = request
            method, path, _ = head.split(b" ", 2)
            if method == b"POST" and path.endswith(b"/chat/completions"):
                self._complete(body)
            else:
                self._transport.write(self._page(method, path, body))

    def _request(self) -> tuple[bytes, bytes] | None:
        """The next complete request: its head and its body; None if more must arrive."""
        head, result, rest = self._data.partition(b"\r\n\r\n")
        if not result:
            return None
        if _CHUNKED.search(head):
            end = rest.find(b"0\r\n\r\n")
            if end < 0:
                return None
            self._data = rest[end + 5 :]
            return head, _unchunked(rest[: end + 5])
        length = int(values[1]) if (values := _LENGTH.search(head)) else 0
        if len(rest) < length:
            return None
        self._data = rest[length:]
        return head, rest[:length]

    def _page(self, method: bytes, path: bytes, body: bytes) -> bytes:
        if path == b"/stats":
            return answered(self._counter.stats())
        if path == b"/pace" and method == b"POST":
            self._counter.pace = Pace(**json.loads(body))
            return answered({})
        if path.endswith(b"/models"):
            return answered({"object": "list", "data": [{"id": "fake", "object": "model", "owned_by": "nobody"}]})
        if path == b"/health":
            return answered({})
        return answered({"error": {"message": "no such page", "type": "not_found", "code": 404}}, "404 Not Found")

    def _complete(self, body: bytes) -> None:
        counter, counts = self._counter, self._counter.counts
        named = _MODEL.search(body)
        if named is None or named[1] != b"fake":  # a peer that lost the model's name in transit
            self._transport.write(answered({"error": {"message": "no such model", "code": 404}}, "404 Not Found"))
            return
        counts.received += 1
        tag = result[0].decode() if (result := _TAG.search(body)) else ""
        if tag:
            counter.started[tag] += 1
        n = int(values[1]) if (values := _N.search(body)) and not counter.pace.single else 1
        parts = counter.pieces(_STREAM.search(body) is not None, n)
        if counter.pace.seconds == 0.0:
            counter.complete(tag)
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))
            return
        self._task = asyncio.get_running_loop().create_task(self._slowly(parts, tag, counter.pace))

    async def _slowly(self, parts: list[bytes], tag: str, pace: Pace) -> None:
        counts = self._counter.counts
        counts.open += 1
        try:
            loop = asyncio.get_running_loop()
            factor = pace.factor(counts.received)
            due = loop.time() + pace.first_s * factor
            if len(parts) == 1:  # all tokens, then all text
                await asyncio.sleep(pace.seconds * factor)
            for part in parts[:-1]:
                await asyncio.sleep(due - loop.time())
                self._transport.write(part)
                due += pace.token_s * factor
            self._counter.complete(tag)
            self._transport.write(parts[-1])
        except asyncio.CancelledError:
            counts.left += 1
            raise
        finally:
            counts.open -= 1
            self._task = None
        self._next()


def _unchunked(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body += data[:length]
        data = data[length + 2 :]
        if length == 0:
            break
    return body


async def serve(host: str, port: int, counter: RequestCounter) -> None:
    """Serve until a signal to end."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server = await loop.create_server(lambda: Connection(counter), host, port, backlog=2048)
    print(f"ready {server.sockets[0].getsockname()[1]}", flush=True)
    await ended.wait()
    server.close()


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pace", type=json.loads, default={}, help="fields of a Pace")
    parser.add_argument("--journal", type=Path)
    args = parser.parse_args()
    asyncio.run(serve(args.host, args.port, RequestCounter(Pace(**args.pace), args.journal)))


if __name__ == "__main__":
    main()
