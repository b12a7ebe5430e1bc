"""`reason tools`: list tools, and call one without a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from .completion import complete_tool
from .inputs import STDIN
from .options import Json, McpServers, ToolNames
from .render.console import one_line, out, plain_table, say, truncate, write_json, write_line

if TYPE_CHECKING:
    from ..agents.loop.tool import ExecutableTool, ToolResult
    from ..core.settings import Settings
    from ..tools.factory import ToolPool

T = TypeVar("T")

MAX_SUMMARY_CHARS = 100
MAX_SOURCE_CHARS = 40
EXIT_FAILED = 3
Context = Annotated[
    list[str],
    typer.Option("--context", metavar="FILE|DIR", help="Let documents search these. Repeatable.", show_default=False),
]

tools_app = typer.Typer(help="List tools, and call one without a model.")


@tools_app.callback(invoke_without_command=True)
def tools(context: typer.Context) -> None:
    """List tools, and call one without a model."""
    if context.invoked_subcommand is None:
        list_()


@tools_app.command("list")
def list_(names: ToolNames = [], mcp: McpServers = [], as_json: Json = False) -> None:  # noqa: B006 (typer copies it)
    """List tools with their effects and limits: those named, or else all that this machine and the settings have.

    A read may be repeated; an idempotent call changes nothing more when it is repeated; a write is never repeated, and
    needs an approval by default.
    """
    specs = [*names, *(f"mcp:{server}" for server in mcp)]

    async def work(pool: ToolPool, settings: Settings) -> list[ExecutableTool]:
        from ..core.errors import ReasonError
        from ..reasoning.retrieval.retriever import CombinedRetriever
        from ..tools.builtin import documents_tool

        listed: list[ExecutableTool] = []
        for spec in specs or _known(settings):
            try:
                listed += (
                    [documents_tool(CombinedRetriever(()))] if spec == "documents" else await pool.open(spec, settings)
                )
            except ReasonError as e:
                if specs:
                    raise
                say(f"{spec}: {e}", label="note", style="cyan")
        return listed

    listed = _with_pool(work)
    if as_json:
        write_line(json.dumps([_row(tool) for tool in listed], indent=2, ensure_ascii=False))
        return
    table = plain_table("name", "effect", "seconds", "characters", "source", "description", right="seconds|characters")
    for tool in listed:
        summary = truncate(one_line(tool.declaration.description), MAX_SUMMARY_CHARS)
        limits = f"{tool.seconds:g}", f"{tool.result_chars:,}"
        table.add_row(tool.name, tool.effect, *limits, truncate(one_line(tool.source), MAX_SOURCE_CHARS), summary)
    out().print(table)


@tools_app.command()
def call(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of the tool, or MODULE:FUNCTION.", autocompletion=complete_tool),
    ],
    arguments: Annotated[
        str, typer.Argument(metavar="[JSON]", help="Arguments as a JSON object; - reads standard input.")
    ] = "{}",
    mcp: McpServers = [],  # noqa: B006
    context: Context = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Call a tool once, without a model, and print its result.

    It is called as a model would, within its time limit, but never asks for an approval. The exit status of a call that
    fails is 3.
    """
    text = sys.stdin.read() if arguments == STDIN else arguments

    async def work(pool: ToolPool, settings: Settings) -> ToolResult:
        tool = await _find(pool, settings, name, mcp, context)
        return await _call(tool, text)

    result = _with_pool(work)
    if as_json:
        write_json({"tool": name, **result.model_dump()})
    else:
        write_line(result.text)
    if result.is_error:
        raise typer.Exit(EXIT_FAILED)


async def _find(
    pool: ToolPool, settings: Settings, name: str, mcp: Sequence[str], context: Sequence[str]
) -> ExecutableTool:
    from ..core.errors import UnknownName
    from ..core.registry import nearest
    from ..tools.factory import BUILTIN, PLUGINS

    if name in (*BUILTIN, *PLUGINS.names()) or ":" in name:
        found = {tool.name: tool for tool in await pool.open(name, settings, context)}
        if len(found) == 1:
            return next(iter(found.values()))
        raise UnknownName("tool", name, hint=f"it has {', '.join(found) or 'none'}: name the server with --mcp")
    servers = [f"mcp:{server}" for server in mcp or settings.tools.mcp]
    tools = {tool.name: tool for server in servers for tool in await pool.open(server, settings)}
    if name not in tools:
        known = (*BUILTIN, *PLUGINS.names(), *tools)
        raise UnknownName("tool", name, nearest(name, known), hint=f"tools are {', '.join(known)}")
    return tools[name]


async def _call(tool: ExecutableTool, arguments: str) -> ToolResult:
    import asyncio

    from ..agents.loop.tool import InvalidArguments, ToolCallContext, error_result, result_of
    from ..core.errors import UserError
    from ..core.messages import parse_json

    if fault := tool.fault(arguments):
        raise UserError(
            f"invalid arguments of {tool.name}: {fault}", hint=f"see reason tools list --json for {tool.name}"
        )
    parsed = parse_json(arguments or "{}")
    assert isinstance(parsed, dict)
    context = ToolCallContext(run_id="", intent="", progress=lambda line: say(line, label=tool.name))
    try:
        async with asyncio.timeout(tool.seconds):
            return result_of(await tool.call(parsed, context))
    except InvalidArguments as e:
        raise UserError(f"invalid arguments of {tool.name}: {e}") from e
    except TimeoutError:
        return error_result(f"no result within {tool.seconds:g} seconds")
    except Exception as e:  # noqa: BLE001 (a tool may raise anything)
        return error_result(e)


def _with_pool(work: Callable[[ToolPool, Settings], Awaitable[T]]) -> T:
    from ..core.settings import load_settings
    from ..tools.factory import ToolPool
    from .interrupts import run_interruptible

    async def run() -> T:
        pool = ToolPool()
        try:
            return await work(pool, load_settings())
        finally:
            await pool.aclose()

    return run_interruptible(run())


def _known(settings: Settings) -> list[str]:
    """Tools and servers that this machine and the settings have."""
    from ..tools.factory import BUILTIN, PLUGINS

    servers = (f"mcp:{name}" for name in settings.tools.mcp)
    return list(dict.fromkeys([*BUILTIN, *PLUGINS.names(), *settings.tools.use, *servers]))


def _row(tool: ExecutableTool) -> dict[str, object]:
    return {
        "name": tool.name,
        "effect": tool.effect,
        "seconds": tool.seconds,
        "result_chars": tool.result_chars,
        "concurrency": tool.concurrency,
        "source": tool.source,
        "description": tool.declaration.description,
        "parameters": tool.declaration.parameters,
    }
