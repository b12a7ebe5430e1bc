"""`McpSource`: a tool of an MCP server as a brain (Model Context Protocol, by its official SDK).

`McpConnection`: a session with an MCP server, a program beside this one or a web service.

The SDK's client must be entered and left by one task; the connection has one of its own, which holds it open.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shlex
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TextIO

from ....core.errors import BackendError, BackendTimeout, BackendUnavailable, InvalidResponse, UnknownName, UserError
from ....core.registry import nearest
from .protocol import Snippet, parse_snippets, valid_snippets

if TYPE_CHECKING:
    from mcp import Client


CONNECT_TIMEOUT_S = 30.0
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
        cls,
        name: str,
        server: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        patience_s: float = CONNECT_TIMEOUT_S,
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


_QUERY = ("query", "q", "question", "text", "search", "search_query", "input", "prompt")
_COUNT = ("k", "top_k", "limit", "n", "max_results", "num_results", "count")
_CONTEXT = ("context",)
_MOST_PAGES = 20


@dataclass(frozen=True)
class QueryTool:
    """How a tool is asked.

    Attributes:
        name: The tool.
        query: The argument that takes the text.
        count: The one that takes the number of snippets; empty if there is none.
        context: The one that takes the context; empty if there is none.
    """

    name: str
    query: str
    count: str = ""
    context: str = ""


class McpSource:
    """A tool of an MCP server; open it with `McpSource.open`.

    A server that has died is started again by the next query, which fails if that does not help.

    Attributes:
        name: The string it was opened by.
        kind: "mcp".
        identity: Of the server's command or address and the tool's name and form.
        tool: The tool and its arguments.
    """

    kind = "mcp"

    def __init__(
        self,
        name: str,
        server: str | Sequence[str],
        env: Mapping[str, str] | None,
        patience_s: float,
        connection: McpConnection,
        tool: QueryTool,
        form: Mapping[str, Any],
    ) -> None:
        self.name, self.tool = name, tool
        where = server if isinstance(server, str) else shlex.join(server)
        digest = hashlib.sha256(json.dumps([where, tool.name, form], sort_keys=True, default=str).encode()).hexdigest()
        self.identity = f"mcp:{digest}"
        self._server, self._env, self._patience_s = server, env, patience_s
        self._connection: McpConnection | None = connection
        self._connecting = asyncio.Lock()
        self._closed = False

    @classmethod
    async def open(
        cls,
        server: str | Sequence[str],
        *,
        tool: str | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        patience_s: float = CONNECT_TIMEOUT_S,
    ) -> Self:
        """Start or reach a server and find its tool.

        Args:
            server: An address (streamable HTTP), or a command and its arguments (standard input and output).
            tool: The tool to ask; None is the one tool that takes a text under a usual name (`query`, `q`, `question`,
                `text`, …).
            env: Environment variables of the command, beside the few that any program needs: ours are not handed on.
            name: What it is called; None is `mcp:` and the address or command.
            patience_s: Longest time for starting it, in seconds.

        Raises:
            UnknownName: It has no tool of that name.
            UserError: No tool or several take a text, the tool takes no text, or the package `mcp` is missing.
            BackendUnavailable: It cannot be started or reached.
            BackendTimeout: It does not answer in time.
        """
        where = server if isinstance(server, str) else shlex.join(server)
        name = name or f"mcp:{where}"
        connection = await McpConnection.open(name, server, env=env, patience_s=patience_s)
        try:
            async with asyncio.timeout(patience_s):
                forms = await _tools(name, connection)
            chosen = select_tool(name, forms, tool)
        except TimeoutError as e:
            await connection.aclose()
            raise BackendUnavailable(f"{name} did not say what tools it has") from e
        except BaseException:
            await connection.aclose()
            raise
        return cls(name, server, env, patience_s, connection, chosen, forms[chosen.name])

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """What the tool finds (see `KnowledgeSource`).

        Structured content of the form `{"snippets": [...]}`, or a list of texts or of objects with `text`, is read as
        such, and so is text that is JSON of that form; other text is a snippet, with the tool as its source.

        Raises:
            BackendUnavailable: The server broke off, or cannot be started again.
            BackendError: The tool failed.
            BadReply: Its answer cannot be read.
        """
        arguments: dict[str, Any] = {self.tool.query: text}
        if self.tool.count:
            arguments[self.tool.count] = k
        if self.tool.context:
            arguments[self.tool.context] = context
        connection = await self._connected()
        try:
            result = await connection.client.call_tool(self.tool.name, arguments)
        except Exception as e:  # whatever the SDK, its transport or the checking of the tool's schema raises
            error = connection_error(self.name, e)
            if isinstance(error, BackendUnavailable) and self._connection is connection:
                self._connection = None
                await connection.aclose()
            raise error from e
        return self._read(result)[:k]

    async def aclose(self) -> None:
        """End the session and the server's program; idempotent."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def _connected(self) -> McpConnection:
        async with self._connecting:
            if self._closed:
                raise BackendUnavailable(f"{self.name} is closed")
            if self._connection is None:
                self._connection = await McpConnection.open(
                    self.name, self._server, env=self._env, patience_s=self._patience_s
                )
            return self._connection

    def _read(self, result: Any) -> list[Snippet]:
        where = f"{self.name}#{self.tool.name}"
        texts = [block.text for block in result.content if block.type == "text"]
        if result.is_error:
            said = " ".join((texts or ["it does not say why"])[0].split())[:300]
            raise BackendError(f"the tool {self.tool.name!r} of {self.name} failed: {said}")
        structured = result.structured_content
        if isinstance(structured, dict):
            found = structured.get("snippets", structured.get("result"))
            if isinstance(found, list):
                return parse_snippets(found, where)
        snippets: list[Snippet] = []
        for text in texts:
            snippets += _of_text(text, where)
        return valid_snippets(snippets)


def _of_text(text: str, where: str) -> list[Snippet]:
    """A text block: JSON of the known form, or a snippet as it is."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(text)
            if isinstance(value, list) or (isinstance(value, dict) and "snippets" in value):
                return parse_snippets(value, where)
            if isinstance(value, dict) and isinstance(value.get("text"), str):
                return parse_snippets([value], where)
        except (ValueError, RecursionError, InvalidResponse):
            pass
    return [Snippet(text=text, source_id=where)]


async def _tools(name: str, connection: McpConnection) -> dict[str, Mapping[str, Any]]:
    """The tools and the schemas of their arguments."""
    forms: dict[str, Mapping[str, Any]] = {}
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        try:
            page = await connection.client.list_tools(cursor=cursor)
        except Exception as e:  # see `McpSource.query`
            raise connection_error(name, e) from e
        forms |= {tool.name: tool.input_schema for tool in page.tools}
        cursor = page.next_cursor
        if not cursor:
            break
    return forms


def select_tool(name: str, forms: Mapping[str, Mapping[str, Any]], wanted: str | None) -> QueryTool:
    """The tool to ask, and its arguments.

    Args:
        name: The server, for errors.
        forms: JSON schema of the arguments by tool.
        wanted: The tool; None finds it.

    Raises:
        UnknownName: There is none of that name.
        UserError: It takes no text, or which one is meant cannot be told.
    """
    if wanted is not None:
        if wanted not in forms:
            near = nearest(wanted, forms)
            raise UnknownName("tool", wanted, near, hint=f"{name} has {', '.join(sorted(forms)) or 'none'}")
        tool = _asked_by(wanted, forms[wanted], anything=True)
        if tool is None:
            raise UserError(f"the tool {wanted!r} of {name} takes no text, or more than can be given")
        return tool
    fitting = [tool for each, form in forms.items() if (tool := _asked_by(each, form, anything=False)) is not None]
    if len(fitting) == 1:
        return fitting[0]
    have = ", ".join(sorted(t.name for t in fitting) or sorted(forms)) or "none"
    which = f"{len(fitting)} tools of {name} take a text" if fitting else f"no tool of {name} takes a text"
    raise UserError(f"{which}: {have}", hint=f"name the tool: {name}#TOOL")


def _asked_by(name: str, form: Mapping[str, Any], *, anything: bool) -> QueryTool | None:
    """How a tool is asked; None if it cannot be: what it needs is more than text, number and context.

    Args:
        name: The tool.
        form: JSON schema of its arguments.
        anything: Whether the argument for the text may have an unusual name.
    """
    properties, required = form.get("properties"), form.get("required")
    fields = properties if isinstance(properties, dict) else {}
    needed = {n for n in required if isinstance(n, str)} if isinstance(required, list) else set()
    texts = [n for n, about in fields.items() if _takes(about, "string")]
    query = next((n for n in _QUERY if n in texts), "")
    if not query and anything:
        others = [n for n in texts if n not in _CONTEXT] or texts
        others = [n for n in others if n in needed] or others
        query = others[0] if len(others) == 1 else ""
    if not query:
        return None
    count = next((n for n in _COUNT if _takes(fields.get(n), "integer") or _takes(fields.get(n), "number")), "")
    context = next((n for n in _CONTEXT if n != query and n in texts), "")
    return QueryTool(name, query, count, context) if needed <= {query, count, context} else None


def _takes(about: Any, kind: str) -> bool:
    """Whether a schema allows a type, also as one of several."""
    if not isinstance(about, dict):
        return False
    types = about.get("type")
    several = about.get("anyOf") or about.get("oneOf")
    if isinstance(several, list) and any(_takes(one, kind) for one in several if isinstance(one, dict)):
        return True
    return types == kind or (isinstance(types, list) and kind in types)
