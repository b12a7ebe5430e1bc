"""`McpConnection`: a session with an MCP server, a program beside this one or a web service.

The SDK's client must be entered and left by one task; the connection has one of its own, which holds it open.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from ...core.errors import BackendError, BackendTimeout, BackendUnavailable, UserError

if TYPE_CHECKING:
    from mcp import Client

OPEN_S = 30.0
"""Longest time for a server to start and say what it can, in seconds."""

_CLOSE_S = 10.0


class McpConnection:
    """An open session; begin one with `McpConnection.open`.

    The server is offered nothing of ours: no sampling from a model, no files, no questions to the user.

    Attributes:
        client: The SDK's client.
    """

    client: Client

    def __init__(self, name: str) -> None:
        self.name = name
        self._end = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owner: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, name: str, server: str | Sequence[str], *, env: Mapping[str, str] | None = None, patience_s: float = OPEN_S
    ) -> McpConnection:
        """Start or reach a server.

        Args:
            name: What errors call it.
            server: Its address, or the command and its arguments.
            env: Environment variables of the command, beside the few that any program needs.
            patience_s: Longest time for it, in seconds.

        Raises:
            BackendUnavailable: It cannot be started or reached, or it speaks something else.
            BackendTimeout: It does not answer in time.
            UserError: The package `mcp` is not installed.
        """
        try:
            import mcp  # noqa: F401
        except ModuleNotFoundError as e:
            raise UserError(
                f"an MCP server needs the package {e.name!r}, which is not installed",
                hint="pip install 'reason-orchestrator[mcp]'",
            ) from e
        connection = cls(name)
        said = _LastWords() if not isinstance(server, str) else None
        connection._owner = asyncio.create_task(connection._hold(server, env, said))
        try:
            async with asyncio.timeout(patience_s):
                await asyncio.shield(connection._ready)
        except TimeoutError as e:
            await connection.aclose()
            raise BackendTimeout(f"{name} did not answer within {patience_s:g} seconds{_heard(said)}") from e
        except asyncio.CancelledError:
            await connection.aclose()
            raise
        except Exception as e:
            await connection.aclose()
            hint = f"is {shlex.join(server)!r} an MCP server?" if not isinstance(server, str) else "is it running?"
            raise BackendUnavailable(
                f"{name} cannot be used as an MCP server: {line_of(e)}{_heard(said)}", hint=hint
            ) from e
        return connection

    async def aclose(self) -> None:
        """End the session, and the program if it is one; idempotent."""
        self._end.set()
        owner = self._owner
        if owner is None:
            return
        try:
            if not self._ready.done():
                owner.cancel()
            _, late = await asyncio.wait((owner,), timeout=_CLOSE_S)
        except asyncio.CancelledError:
            owner.cancel()
            raise
        if late:
            owner.cancel()

    async def _hold(self, server: str | Sequence[str], env: Mapping[str, str] | None, said: _LastWords | None) -> None:
        from mcp import Client, StdioServerParameters, stdio_client

        with said or contextlib.nullcontext():
            transport: Any = server
            if said is not None and not isinstance(server, str):
                command, *arguments = server
                parameters = StdioServerParameters(command=command, args=arguments, env=dict(env or {}))
                transport = stdio_client(parameters, errlog=said.file)
            try:
                async with Client(transport, cache=None) as self.client:
                    self._ready.set_result(None)
                    await self._end.wait()
            except Exception as e:  # noqa: BLE001 (whatever it is, it is told to whoever waits for the session)
                if not self._ready.done():
                    self._ready.set_exception(e)
                # after that, whoever asks gets an error of their own
            finally:
                if not self._ready.done():
                    self._ready.cancel()
                elif not self._ready.cancelled():
                    self._ready.exception()


class _LastWords:
    """Takes what a program writes on its error stream, and keeps the end of it; a context manager."""

    def __init__(self, most: int = 4096) -> None:
        read, write = os.pipe()
        self.file: TextIO = os.fdopen(write, "w")
        self._most = most
        self._kept = b""
        # a thread of its own ends when the last writer is gone, however that ends
        self._thread = threading.Thread(target=self._listen, args=(read,), daemon=True, name="reason-mcp-stderr")
        self._thread.start()

    def __enter__(self) -> _LastWords:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @property
    def line(self) -> str:
        """The last line that is not empty."""
        lines = [line.strip() for line in self._kept.decode("utf-8", "replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")[:300]

    def _listen(self, read: int) -> None:
        with os.fdopen(read, "rb", buffering=0) as stream:
            while piece := stream.read(1 << 16):
                self._kept = (self._kept + piece)[-self._most :]


def _heard(said: _LastWords | None) -> str:
    return f"; it said: {said.line}" if said is not None and said.line else ""


def line_of(error: BaseException) -> str:
    """The first line of what went wrong; of a group of errors, in the first of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def connection_error(name: str, error: Exception) -> BackendError:
    """The error of a call that did not come through; `BackendUnavailable` if the connection is lost."""
    from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

    code = getattr(error, "code", None)
    if code == REQUEST_TIMEOUT:
        return BackendTimeout(f"{name} did not answer in time")
    if code is None or code == CONNECTION_CLOSED:
        return BackendUnavailable(f"{name} broke off: {line_of(error)}", hint="it is started again by the next query")
    return BackendError(f"{name} refused: {line_of(error)}")
