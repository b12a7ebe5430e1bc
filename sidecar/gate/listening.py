"""How connections are served: by uvicorn, with limits on what a client may do before there is a request."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ...core.serve_settings import ServeSettings
from .doorkeeper import HEADER_BYTES

HEADERS_S = 10.0
"""Longest time that the headers of a request may take to come, in seconds."""
IDLE_S = 30
"""How long an idle connection is kept, in seconds."""
SPARE_CONNECTIONS = 512
"""Connections beyond those that run or wait: readers of events, health checks, idle ones."""


class NoRequest(ValueError):
    """What came is no request, although the parser takes it for one."""


class Bounded(HttpToolsProtocol):
    """uvicorn's protocol over llhttp, which by itself takes headers, trailers and extensions of any length.

    A request names one host, as HTTP/1.1 wants it (RFC 9112, section 3.2). What is no request is refused behind the
    answers to those before it.
    """

    _loose = 0
    """Bytes since the last that were a whole head, a body's part or a message's end."""
    _refused = ""

    def data_received(self, data: bytes) -> None:
        """Parse what came; behind what was refused, nothing is."""
        if self._refused:
            return
        self._loose += len(data)
        super().data_received(data)
        if self._loose > HEADER_BYTES and not self._refused:
            self.send_400_response("Headers or trailers too long.")

    def on_headers_complete(self) -> None:
        """The head of a request is there."""
        self._loose = 0
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise NoRequest("a request names one host")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body is there."""
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is there."""
        self._loose = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what came and close the connection, once earlier requests are answered."""
        self._refused = msg
        cycle = self.cycle
        if cycle is None or cycle.response_complete or (cycle.more_body and not cycle.response_started):
            super().send_400_response(msg)
        elif cycle.more_body:  # its answer has begun, and its body will never be whole
            self.transport.close()

    def on_response_complete(self) -> None:
        """Answer the next request, or else what was refused behind it."""
        super().on_response_complete()
        if self._refused and self.cycle.response_complete and not self.transport.is_closing():
            super().send_400_response(self._refused)


class Hurried(Bounded):
    """A protocol which closes a connection on which a request begins and its headers do not come in time.

    Between requests uvicorn's own timeout holds, which ends with the first byte: a client that sends one byte at a time
    would keep the connection for ever.
    """

    headers_s: float = HEADERS_S
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Go on waiting, unless a request's headers are there."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._deadline is None:
            self._wait()

    def on_response_complete(self) -> None:
        """Stop the clock for a client that has sent nothing yet; uvicorn's own runs then."""
        super().on_response_complete()
        self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(self.headers_s, self._close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        self._deadline = None
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


def hurried(headers_s: float = HEADERS_S) -> type[Hurried]:
    """The protocol with another limit."""
    return cast(type[Hurried], type("Hurried", (Hurried,), {"headers_s": headers_s}))


def uvicorn_options(serve: ServeSettings) -> dict[str, Any]:
    """What `uvicorn.Config` is to be given beside the application.

    It tells nobody which server this is, logs nothing by itself (see `log_lines`), bounds connections and headers, and
    trusts no proxy's word on who calls.
    """
    return {
        "http": Hurried,
        "ws": "none",
        "server_header": False,
        "access_log": False,
        "log_config": None,
        "proxy_headers": False,
        "timeout_keep_alive": IDLE_S,
        "limit_concurrency": serve.max_runs + serve.max_waiting + SPARE_CONNECTIONS,
    }
