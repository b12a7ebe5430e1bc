"""`McpSource`: a tool of an MCP server as a knowledge source (Model Context Protocol, by its official SDK)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from ....core.concurrency import OneLoop
from ....core.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    InvalidResponse,
    UnknownName,
    UserError,
)
from ....core.extras import missing_package
from ....core.registry import nearest
from ...knowledge import Snippet
from .client import parse_snippets, valid_snippets

if TYPE_CHECKING:
    from mcp import Client
    from mcp.shared.dispatcher import ProgressFnT
    from mcp_types import CallToolResult, ListToolsResult
    from mcp_types import Tool as McpTool

CONNECT_TIMEOUT_S = 30.0
"""Maximum seconds for a server to start and list its tools."""

_CLOSE_TIMEOUT_S = 10.0
_QUERY_ARGUMENTS = ("query", "q", "question", "text", "search", "search_query", "input", "prompt")
_COUNT_ARGUMENTS = ("k", "top_k", "limit", "n", "max_results", "num_results", "count")
_MAX_PAGES = 20
_MAX_EVENT = 1 << 26
"""Maximum size of a message over HTTP, in bytes."""

_UNKNOWN_SESSION = re.compile(r"session (id|not found|terminated|expired)", re.IGNORECASE)

T = TypeVar("T")


@dataclass(frozen=True)
class QueryTool:
    """A tool and the names of its arguments.

    Attributes:
        name: The tool.
        query: The argument for the text.
        count: The argument for the number of snippets; empty if there is none.
        context: The argument for the context; empty if there is none.
    """

    name: str
    query: str
    count: str = ""
    context: str = ""


class McpSource:
    """A tool of an MCP server; create it with `McpSource.connect`.

    A server that has exited is restarted by the next query, which fails if that does not help.

    Attributes:
        name: The string it was created from.
        kind: "mcp".
        identity: Hash of the server's command or URL, and the tool's name and schema.
        tool: The tool and its arguments.
    """

    kind = "mcp"

    tool: QueryTool
    identity: str

    def __init__(self, server: McpServer) -> None:
        self.name = server.name
        self._server = server

    @classmethod
    async def connect(
        cls,
        server: str | Sequence[str],
        *,
        tool: str | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> Self:
        """Start a server or connect to it, and select its tool.

        Args:
            server: A URL (streamable HTTP), or a command and its arguments (standard input and output).
            tool: The tool; None is the only tool that takes a text under a usual name (`query`, `q`, `text`, …).
            env: Environment variables of the command, in addition to the few that any program needs; the environment
                of this process is not inherited.
            name: Name of the source; None is `mcp:` and the URL or command.

        Raises:
            UnknownName: It has no tool of that name.
            UserError: No tool or several take a text, the tool takes no text, or the package `mcp` is not installed.
            BackendUnavailable: It cannot be started or reached.
            BackendTimeout: It did not respond in time.
        """
        where = server if isinstance(server, str) else shlex.join(server)
        source = cls(McpServer(name or f"mcp:{where}", server, env=env))
        try:
            schemas = {tool.name: tool.input_schema for tool in await source._server.list_tools()}
            source.tool = select_tool(source.name, schemas, tool)
        except BaseException:
            await source.aclose()
            raise
        content = json.dumps([where, source.tool.name, schemas[source.tool.name]], sort_keys=True, default=str)
        source.identity = f"mcp:{hashlib.sha256(content.encode()).hexdigest()}"
        return source

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """The snippets that the tool returns (see `KnowledgeSource`).

        Structured content of the form `{"snippets": [...]}`, or a list of texts or of objects with `text`, is parsed,
        and so is text that is JSON of that form; other text is a snippet with the tool as its source.

        Raises:
            BackendUnavailable: The connection was lost, or the server cannot be restarted.
            BackendError: The tool failed.
            InvalidResponse: Its result cannot be read.
        """
        arguments: dict[str, Any] = {self.tool.query: text}
        if self.tool.count:
            arguments[self.tool.count] = k
        if self.tool.context:
            arguments[self.tool.context] = context
        return self._snippets(await self._server.call_tool(self.tool.name, arguments))[:k]

    async def aclose(self) -> None:
        """End the session and the server's process; idempotent."""
        await self._server.aclose()

    def _snippets(self, result: Any) -> list[Snippet]:
        source_name = f"{self.name}#{self.tool.name}"
        texts = [block.text for block in result.content if block.type == "text"]
        if result.is_error:
            message = " ".join((texts or ["no message"])[0].split())[:300]
            raise BackendError(f"the tool {self.tool.name!r} of {self.name} failed: {message}")
        structured = result.structured_content
        if isinstance(structured, dict):
            value = structured.get("snippets", structured.get("result"))
            if isinstance(value, list):
                return parse_snippets(value, source_name)
        return valid_snippets([snippet for text in texts for snippet in _text_snippets(text, source_name)])


def _text_snippets(text: str, source_name: str) -> list[Snippet]:
    """The snippets of a text block: JSON of the known form, which servers without structured content send, or text."""
    if text.lstrip()[:1] in ("{", "["):
        with suppress(ValueError, RecursionError, InvalidResponse):
            value = json.loads(text)
            if isinstance(value, dict) and isinstance(value.get("text"), str):
                value = [value]  # some servers send each member of a list in a block of its own
            if isinstance(value, list) or "snippets" in value:
                return parse_snippets(value, source_name)
    return [Snippet(text=text, source_id=source_name)]


def select_tool(name: str, schemas: Mapping[str, Mapping[str, Any]], requested: str | None) -> QueryTool:
    """The tool to call, and its arguments.

    Args:
        name: The server, for errors.
        schemas: JSON schema of the arguments by tool.
        requested: The tool; None selects the only suitable one.

    Raises:
        UnknownName: There is no tool of that name.
        UserError: It takes no text, or the choice is ambiguous.
    """
    if requested is not None and requested not in schemas:
        near = nearest(requested, schemas)
        raise UnknownName("tool", requested, near, hint=f"{name} has {', '.join(sorted(schemas)) or 'none'}")
    if requested is not None:
        tool = _query_tool(requested, schemas[requested], is_named=True)
        if tool is None:
            raise UserError(f"the tool {requested!r} of {name} takes no text, or has other required arguments")
        return tool
    candidates = [t for each, schema in schemas.items() if (t := _query_tool(each, schema)) is not None]
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(sorted(t.name for t in candidates) or sorted(schemas)) or "none"
    problem = f"{len(candidates)} tools of {name} take a text" if candidates else f"no tool of {name} takes a text"
    raise UserError(f"{problem}: {names}", hint=f"name the tool: {name}#TOOL")


def _query_tool(name: str, schema: Mapping[str, Any], *, is_named: bool = False) -> QueryTool | None:
    """The arguments of a tool; None if it takes no text, or requires more than text, number and context.

    The text is an argument with a usual name or, of a tool that is named, the only other required one.
    """
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    query, count, context = (
        next((argument for argument in usual if argument in properties), "")
        for usual in (_QUERY_ARGUMENTS, _COUNT_ARGUMENTS, ("context",))
    )
    others = [argument for argument in required if argument not in (count, context)]
    if not query and is_named and len(others) == 1:
        query = others[0]
    return QueryTool(name, query, count, context) if query and {query, count, context}.issuperset(required) else None


def validate_url(url: str) -> str:
    """The URL, if it is an HTTP URL without credentials.

    Raises:
        UserError: It is not.
    """
    try:
        parts = urlsplit(url)
        is_port_valid = parts.port is None or parts.port > 0
    except ValueError:
        parts, is_port_valid = urlsplit(""), False
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_port_valid or not url.isprintable():
        raise UserError(f"{url!r} is not an HTTP URL", hint="expected: https://host:port/path")
    if parts.username is not None or parts.password is not None:
        raise UserError(
            f"the URL of {parts.hostname} contains a password, which traces would show",
            hint="start a local proxy server that adds it",
        )
    return url


# -- connection


class McpServer:
    """A server that is started, or connected to, at first use, and again after its connection was lost.

    Args:
        name: Its name, for errors.
        server: A URL (streamable HTTP), or a command and its arguments (standard input and output).
        env: Environment variables of the command (see `McpSource.connect`).
        headers: HTTP headers of requests to a URL.
    """

    def __init__(
        self,
        name: str,
        server: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._server, self._env, self._headers = server, env, headers
        self._connection: McpConnection | None = None
        self._connect_lock = asyncio.Lock()
        self._loop = OneLoop(f"the connection to {name}")
        self._closed = False

    async def list_tools(self) -> list[McpTool]:
        """The server's tools.

        Raises:
            BackendUnavailable: It cannot be started or reached, or the connection was lost.
            BackendTimeout: It did not respond in time.
            BackendError: It returned an error.
        """
        tools: list[McpTool] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            page = await self._request(partial(_list_page, cursor=cursor), CONNECT_TIMEOUT_S)
            tools += page.tools
            cursor = page.next_cursor
            if not cursor:
                break
        return tools

    async def call_tool(
        self, tool: str, arguments: Mapping[str, Any], progress: ProgressFnT | None = None
    ) -> CallToolResult:
        """Call a tool once. Cancelling the task cancels the call in the server; the connection stays open.

        Args:
            progress: Called with the progress that the server reports: a number, the total, and a message.

        Raises:
            BackendUnavailable: The server cannot be reached, or the connection was lost during the call; the next call
                opens another connection.
            BackendError: The server returned an error; a tool that failed is a result with `is_error`.
        """
        return await self._request(
            lambda client: client.call_tool(tool, dict(arguments), progress_callback=progress), None
        )

    async def aclose(self) -> None:
        """End the session and the server's process; idempotent."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def _request(self, send: Callable[[Client], Awaitable[T]], timeout_s: float | None) -> T:
        self._loop.check()
        async with self._connect_lock:
            if self._closed:
                raise BackendUnavailable(f"{self.name} is closed")
            if self._connection is None:
                self._connection = await McpConnection.open(self.name, self._server, self._env, self._headers)
            connection = self._connection
        try:
            async with asyncio.timeout(timeout_s):
                return await send(connection.client)
        except Exception as e:  # errors of the SDK, its transport, or the validation of the tool's schema
            error = _connection_error(self.name, e)
            if isinstance(error, BackendUnavailable) and self._connection is connection:
                self._connection = None
                await connection.aclose()
            raise error from e


async def _list_page(client: Client, cursor: str | None) -> ListToolsResult:
    return await client.list_tools(cursor=cursor)


class McpConnection:
    """An open session; create it with `McpConnection.open`.

    The SDK's client must be entered and left by the same task, so a task of the connection holds it open. The server is
    offered no capabilities: no sampling from a model, no files, no questions to the user.

    Attributes:
        client: The SDK's client.
    """

    client: Client

    def __init__(self, name: str) -> None:
        self.name = name
        self._stop = asyncio.Event()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        name: str,
        server: str | Sequence[str],
        env: Mapping[str, str] | None,
        headers: Mapping[str, str] | None = None,
    ) -> McpConnection:
        """Start a server or connect to it (see `McpSource.connect`).

        Raises:
            BackendUnavailable: It cannot be started or reached, or does not speak the protocol.
            BackendTimeout: It did not respond in time.
            UserError: The package `mcp` is not installed.
        """
        try:
            import mcp  # noqa: F401
        except ModuleNotFoundError as e:
            raise missing_package("an MCP server", e.name, "mcp") from e
        connection = cls(name)
        connection._task = asyncio.create_task(connection._run(server, env, headers))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.shield(connection._ready)
        except TimeoutError as e:
            await connection.aclose()
            raise BackendTimeout(f"{name} did not respond within {CONNECT_TIMEOUT_S:g} seconds") from e
        except asyncio.CancelledError:
            await connection.aclose()
            raise
        except Exception as e:
            await connection.aclose()
            hint = f"is {shlex.join(server)!r} an MCP server?" if not isinstance(server, str) else "is it running?"
            raise BackendUnavailable(f"{name} cannot be used as an MCP server: {_first_line(e)}", hint=hint) from e
        return connection

    async def aclose(self) -> None:
        """End the session, and the process if there is one; idempotent."""
        self._stop.set()
        task = self._task
        if task is None:
            return
        try:
            if not self._ready.done():
                task.cancel()
            _, pending = await asyncio.wait((task,), timeout=_CLOSE_TIMEOUT_S)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if pending:
            task.cancel()

    async def _run(
        self, server: str | Sequence[str], env: Mapping[str, str] | None, headers: Mapping[str, str] | None
    ) -> None:
        import httpx2
        from mcp import Client, StdioServerParameters, stdio_client
        from mcp.client.streamable_http import streamable_http_client

        async with AsyncExitStack() as stack:
            try:
                if isinstance(server, str):
                    timeout = httpx2.Timeout(CONNECT_TIMEOUT_S, read=None)  # a call has a time limit of its own
                    http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=timeout))
                    transport: Any = streamable_http_client(server, http_client=http, max_sse_event_size=_MAX_EVENT)
                else:
                    command, *arguments = server
                    parameters = StdioServerParameters(command=command, args=arguments, env=dict(env or {}))
                    errlog = stack.enter_context(Path(os.devnull).open("w"))  # noqa: ASYNC230, SIM115 (does not block)
                    transport = stdio_client(parameters, errlog=errlog)
                async with Client(transport, cache=None) as self.client:
                    self._ready.set_result(None)
                    await self._stop.wait()
            except Exception as e:  # noqa: BLE001 (reported to the caller that waits for the session)
                if not self._ready.done():
                    self._ready.set_exception(e)
                # later errors are raised by the calls themselves
            finally:
                if not self._ready.done():
                    self._ready.cancel()
                elif not self._ready.cancelled():
                    self._ready.exception()


def _first_line(error: BaseException) -> str:
    """The first line of an error; of a group of errors, that of the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _connection_error(name: str, error: Exception) -> BackendError:
    """The error of a failed call; `BackendUnavailable` if the connection is lost."""
    from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

    code = getattr(error, "code", None)
    # servers have several codes for a session that they do not know, such as after a restart
    is_lost = code in (None, CONNECTION_CLOSED) or _UNKNOWN_SESSION.search(str(error)) is not None
    if isinstance(error, TimeoutError) or (code == REQUEST_TIMEOUT and not is_lost):
        return BackendTimeout(f"{name} did not respond in time")
    if is_lost:
        return BackendUnavailable(
            f"the connection to {name} was lost: {_first_line(error)}", hint="the next query restarts it"
        )
    return BackendError(f"{name} returned an error: {_first_line(error)}")
