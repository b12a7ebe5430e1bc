"""An HTTP server on a real socket that knows when its client has gone."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

Headers = Mapping[str, str]


class Reader(asyncio.StreamReader):
    """Notes the end of a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.ended.set()

    def set_exception(self, exc: BaseException) -> None:
        super().set_exception(exc)
        self.ended.set()


class Reply:
    """The response to one request."""

    def __init__(self, reader: Reader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @property
    def has_gone(self) -> bool:
        """Whether the client has closed the connection."""
        return self._reader.at_eof() or self._writer.is_closing()

    async def gone(self) -> None:
        """Returns when the client has closed the connection."""
        await self._reader.ended.wait()

    async def raw(self, status: int, kind: str, content: bytes, headers: Headers | None = None) -> None:
        """A complete response."""
        lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(content)}"]
        lines += [f"{k}: {v}" for k, v in (headers or {}).items()]
        self._writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        await self._writer.drain()

    async def json(self, status: int, value: Any, headers: Headers | None = None) -> None:
        """A complete response of JSON."""
        await self.raw(status, "application/json", json.dumps(value).encode(), headers)

    async def error(
        self, status: int, message: str, *, code: Any = None, param: str | None = None, headers: Headers | None = None
    ) -> None:
        """An error as in OpenAI's format."""
        error = {"message": message, "type": "error", "param": param, "code": code or status}
        await self.json(status, {"error": error}, headers)

    async def start(self, kind: str) -> None:
        """The head of a streamed response."""
        self._writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())

    async def send(self, data: bytes) -> None:
        """Some bytes of it."""
        self._writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self._writer.drain()

    async def event(self, value: Any) -> None:
        """An event of it; anything but a text as JSON."""
        await self.send(f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n".encode())

    async def end(self) -> None:
        """Its end."""
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()


class HttpServer(ABC):
    """Serves what `_answer` gives, and text by `_write` and `_text`.

    Attributes:
        requests: Path and body of the requests, in order.
        open: Requests for text under way.
        most_open: Maximum of `open`.
        disconnects: Requests for text whose client went away.
        count: Requests for text.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.open = self.most_open = self.disconnects = self.count = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def run(self, port: int = 0) -> AsyncIterator[str]:
        """Serve at a port, or a free one; gives the address ending in `/v1`."""
        server = await asyncio.get_running_loop().create_server(
            lambda: asyncio.StreamReaderProtocol(Reader(), self._connection), "127.0.0.1", port, backlog=1024
        )
        try:
            port = server.sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.close()
            for writer in tuple(self._writers):
                writer.transport.abort()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader: Reader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                method, path, _ = lines[0].split(" ")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:]) if k}
                length = int(headers.get("content-length", 0))
                body = json.loads(await reader.readexactly(length)) if length else {}
                await self._answer(Reply(reader, writer), method, path, headers, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    @abstractmethod
    async def _answer(self, reply: Reply, method: str, path: str, headers: Headers, body: Any) -> None:
        """Answer a request."""

    async def _write(self, reply: Reply, path: str, body: Any) -> None:
        """Answer a request for text; ends when the client goes away."""
        number, self.count = self.count, self.count + 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        gone = asyncio.ensure_future(reply.gone())
        work = asyncio.ensure_future(self._text(reply, path, body, number))
        try:
            await asyncio.wait([gone, work], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.disconnects += 1
                raise ConnectionResetError
            await work
        finally:
            # before anything is awaited: a client may act on the last bytes at once
            self.open -= 1
            for task in (gone, work):
                task.cancel()
            await asyncio.gather(gone, work, return_exceptions=True)

    @abstractmethod
    async def _text(self, reply: Reply, path: str, body: Any, number: int) -> None:
        """Generate the text of a request."""
