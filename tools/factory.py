"""`ToolPool`: the tools of runs, from strings and objects; MCP servers and documents are opened once and shared.

| string | tools |
| --- | --- |
| `python`, `documents` | see `builtin` |
| `shell`, `shell:DIR` | see `worlds.directory` |
| `recorded/POOL#DATASET:QUESTION` | those of recorded runs on a question, with their results |
| `MODULE:FUNCTION` | a function, an `ExecutableTool`, or a sequence of them, of a module |
| `mcp:COMMAND`, `mcp:URL`, `mcp:NAME` | those of an MCP server; NAME is one of `[tools.mcp.NAME]` |
| another name | an entry point of the group `reason.tools` |
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from ..agents.loop.tool import READ_RESULT, ExecutableTool, tool_of
from ..core.concurrency import PerLoop, gather
from ..core.errors import UnknownName, UserError
from ..core.registry import Registry, nearest
from ..core.settings import Settings, user_error_of
from ..reasoning.knowledge import Retriever
from ..reasoning.retrieval.sources.mcp import McpServer
from ..serving.recorded.model import PREFIX
from ..worlds.directory import shell_world
from ..worlds.recorded import recorded_tools
from .builtin import READ_RESULT_TOOL, documents_retriever, documents_tool, python_tool
from .mcp import McpServerSettings, server_tools

BUILTIN = ("documents", "python", "shell")
MCP = "mcp:"
PLUGINS: Registry[Any] = Registry("reason.tools", "tool")


class ToolPool:
    """Opens tools, and keeps what they need for other runs."""

    def __init__(self) -> None:
        self._servers: PerLoop[dict[str, McpServer]] = PerLoop(dict, _close_all)
        self._retrievers: dict[tuple[tuple[str, ...], str], Retriever] = {}

    async def open(self, spec: str, settings: Settings, context: Sequence[str] = ()) -> list[ExecutableTool]:
        """The tools that a string names; see the module.

        Args:
            context: Knowledge sources of the run, which `documents` searches.

        Raises:
            UserError: There is no such tool or server, or it cannot be used here.
            BackendError: An MCP server cannot be started or reached.
        """
        if spec.startswith(MCP):
            return await self._server_tools(spec.removeprefix(MCP), settings)
        if spec == READ_RESULT:
            return [READ_RESULT_TOOL]
        if spec == "python":
            return [await python_tool()]
        if spec == "shell" or spec.startswith("shell:"):
            return list((await shell_world(spec.partition(":")[2], settings.data_dir)).tools.values())
        if spec == "documents":
            key = tuple(context), settings.embedding_model
            if key not in self._retrievers:
                self._retrievers[key] = await documents_retriever(context, settings)
            return [documents_tool(self._retrievers[key])]
        if spec.startswith(PREFIX):
            return recorded_tools(spec)
        if ":" in spec:
            return _as_tools(imported(spec.removeprefix("python:")), spec)
        if spec not in PLUGINS.names():
            names = (*BUILTIN, *PLUGINS.names())
            raise UnknownName("tool", spec, nearest(spec, names), hint=f"give {', '.join(names)}, or MODULE:FUNCTION")
        return _as_tools(PLUGINS.load(spec), spec)

    async def aclose(self) -> None:
        """Close everything; idempotent."""
        retrievers, self._retrievers = self._retrievers, {}
        await self._servers.aclose()
        for retriever in retrievers.values():
            await retriever.aclose()

    async def _server_tools(self, name: str, settings: Settings) -> list[ExecutableTool]:
        try:
            stored = settings.tools.mcp.get(name)
            server_settings = McpServerSettings.of(name) if stored is None else McpServerSettings.model_validate(stored)
        except ValidationError as e:
            raise user_error_of(e, f"[tools.mcp.{name}]", McpServerSettings.model_fields) from e
        servers = self._servers.get()
        if name not in servers:
            servers[name] = server_settings.server(name)
        return await server_tools(servers[name], server_settings)


def _as_tools(value: object, spec: str) -> list[ExecutableTool]:
    if isinstance(value, ExecutableTool):
        return [value]
    if isinstance(value, list | tuple):
        return [tool for one in value for tool in _as_tools(one, spec)]
    if not callable(value):
        raise UserError(f"{spec} is a {type(value).__name__}, not a tool", hint="give a function, or a list of them")
    return [tool_of(value)]


def imported(spec: str) -> object:
    """The object of a module; modules of the working directory can be named."""
    module_name, _, path = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        value: object = importlib.import_module(module_name)
    except Exception as e:  # a module may fail in any way at import
        hint = "give MODULE:FUNCTION, with the module as in an import"
        raise UserError(f"the module {module_name!r} cannot be imported: {type(e).__name__}: {e}", hint=hint) from e
    for name in path.split("."):
        if not hasattr(value, name):
            raise UnknownName(f"function of {module_name}", path, nearest(name, dir(value)))
        value = getattr(value, name)
    return value


async def _close_all(servers: dict[str, McpServer]) -> None:
    await gather(server.aclose() for server in servers.values())
