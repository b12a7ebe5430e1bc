"""Tools of MCP servers: listed once, called over a connection that is opened again after it was lost."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from ..agents.loop.tool import (
    CALL_S,
    KEY_PARAMETER,
    RESULT_CHARS,
    ExecutableTool,
    OutcomeUnknown,
    ToolCallContext,
    ToolResult,
)
from ..core.errors import BackendTimeout, BackendUnavailable, UnknownName, UserError
from ..core.messages import Effect, Tool
from ..core.registry import nearest
from ..reasoning.retrieval.sources.mcp import McpServer, validate_url

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_.:-]")


class McpServerSettings(BaseModel):
    """An MCP server (`[tools.mcp.NAME]` in reason.toml).

    Attributes:
        command: Command and its arguments, for a server on standard streams.
        url: Address of a streamable HTTP server.
        env: Environment variables of the command, which inherits none of this process.
        token_env: Environment variable that has the bearer token for `url`.
        prefix: Text before the name of each tool, for servers that share names.
        allow: Tools that may be called; empty allows all.
        effects: Effects by tool, which override the server's hints.
        trust_hints: Whether the server's hints state effects; otherwise every tool is a write.
        seconds: Time limit of one call.
        result_chars: Maximum length of a result in the prompt.
        concurrency: Maximum number of calls of one tool at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str | tuple[str, ...] | None = None
    url: str | None = None
    env: dict[str, str] = Field(default_factory=dict)
    token_env: str | None = None
    prefix: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]*$")] = ""
    allow: tuple[str, ...] = ()
    effects: dict[str, Effect] = Field(default_factory=dict)
    trust_hints: bool = True
    seconds: Annotated[float, Field(gt=0, le=86_400)] = CALL_S
    result_chars: Annotated[int, Field(ge=100)] = RESULT_CHARS
    concurrency: Annotated[int, Field(ge=1, le=1_000)] = 8

    @model_validator(mode="after")
    def _has_one_address(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("give either command or url")
        return self

    @classmethod
    def of(cls, address: str) -> Self:
        """The settings of a command or a URL."""
        return cls(url=address) if address.startswith(("http://", "https://")) else cls(command=address)

    def server(self, name: str) -> McpServer:
        """The server, which is not started yet.

        Raises:
            UserError: The command or URL is not valid, or the token is not set.
        """
        if self.url is None:
            return McpServer(f"mcp:{name}", self._words, env=self.env)
        headers = {}
        if self.token_env is not None:
            token = os.environ.get(self.token_env)
            if not token:
                raise UserError(
                    f"{self.token_env}, which has the token of the MCP server {name}, is not set", hint="export it"
                )
            headers["Authorization"] = f"Bearer {token}"
        return McpServer(f"mcp:{name}", validate_url(self.url), headers=headers)

    @property
    def _words(self) -> list[str]:
        """The command and its arguments; empty for a URL."""
        if not isinstance(self.command, str):
            return list(self.command or ())
        try:
            return shlex.split(self.command)
        except ValueError as e:
            raise UserError(f"the command {self.command!r} cannot be parsed: {e}", hint="close the quotes") from e


async def server_tools(server: McpServer, settings: McpServerSettings) -> list[ExecutableTool]:
    """The tools of a server.

    Raises:
        UnknownName: The settings name a tool that the server does not have.
        BackendError: The server cannot be started or reached.
    """
    listed = {tool.name: tool for tool in await server.list_tools()}
    for name in (*settings.allow, *settings.effects):
        if name not in listed:
            known = ", ".join(listed) or "none"
            raise UnknownName("tool", name, nearest(name, listed), hint=f"{server.name} has {known}")
    return [_tool(server, tool, settings) for name, tool in listed.items() if name in (settings.allow or listed)]


def _tool(server: McpServer, tool: Any, settings: McpServerSettings) -> ExecutableTool:
    schema = dict(tool.input_schema)
    hints = tool.annotations if settings.trust_hints else None
    effect = settings.effects.get(tool.name) or effect_of(hints)
    return ExecutableTool(
        declaration=Tool(
            name=settings.prefix + _NOT_IN_NAMES.sub("_", tool.name)[:100],
            description=tool.description or "",
            parameters=_without_key(schema),
        ),
        call=_caller(server, tool.name, effect, takes_key=KEY_PARAMETER in (schema.get("properties") or {})),
        effect=effect,
        seconds=settings.seconds,
        result_chars=settings.result_chars,
        concurrency=settings.concurrency,
        source=server.name,
    )


def _caller(
    server: McpServer, tool: str, effect: Effect, *, takes_key: bool
) -> Callable[[Mapping[str, JsonValue], ToolCallContext], Awaitable[ToolResult]]:
    async def call(arguments: Mapping[str, JsonValue], context: ToolCallContext) -> ToolResult:
        async def report(progress: float, total: float | None, message: str | None) -> None:
            context.progress(message or (f"{progress:g}" if total is None else f"{progress:g} of {total:g}"))

        values = {**arguments, KEY_PARAMETER: context.idempotency_key} if takes_key else arguments
        if effect == "write":  # over a connection that works: only what is lost from now on has an unknown outcome
            await _with_reconnection(server.list_tools)
            try:
                return result_of_call(await server.call_tool(tool, values, report))
            except (BackendUnavailable, BackendTimeout) as e:
                raise OutcomeUnknown(f"the connection to {server.name} was lost during the call") from e
        return result_of_call(await _with_reconnection(lambda: server.call_tool(tool, values, report)))

    return call


async def _with_reconnection(request: Callable[[], Awaitable[Any]]) -> Any:
    """The response to a request that may be repeated: once more if the connection was lost."""
    try:
        return await request()
    except BackendUnavailable:
        return await request()


def effect_of(annotations: Any) -> Effect:
    """The effect that a server's hints state; without a hint "write"."""
    if annotations is None:
        return "write"
    if annotations.read_only_hint:
        return "read"
    return "idempotent" if annotations.idempotent_hint else "write"


def result_of_call(result: Any) -> ToolResult:
    """A result's texts; content of another type is named instead."""
    parts: list[str] = []
    for block in result.content:
        if block.type == "text":
            parts.append(block.text)
        elif block.type == "resource" and hasattr(block.resource, "text"):
            parts.append(block.resource.text)
        else:
            parts.append(f"[{getattr(block, 'mime_type', None) or block.type}, not shown]")
    text = "\n".join(parts)
    is_marked = not result.is_error or text.lower().startswith("error")
    return ToolResult(text=text if is_marked else f"Error: {text}", is_error=bool(result.is_error))


def _without_key(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without the parameter of the idempotency key."""
    properties = {n: s for n, s in (schema.get("properties") or {}).items() if n != KEY_PARAMETER}
    required = [n for n in schema.get("required") or () if n != KEY_PARAMETER]
    return {**{k: v for k, v in schema.items() if k != "required"}, "properties": properties} | (
        {"required": required} if required else {}
    )
