"""`reason mcp`: the tools ask, verify and vote for MCP clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from .command import is_default, option_model
from .options import EngineOptions, MainModel, Store, Strategy
from .serve import SERVER, ServerOptions, start_server

EXAMPLES = """
[b]Examples[/b]

reason mcp --model local/smollm2-135m
reason mcp --http --no-auth
claude mcp add reason -- reason mcp --model local/smollm2-135m

Over standard streams, the client starts the command. Over HTTP, the endpoint is /mcp of the server that
[b]reason serve[/b] starts, whose other routes are there too.
"""


@dataclass(frozen=True, kw_only=True)
class McpOptions:
    """Options of `reason mcp`."""

    model: MainModel = None
    strategy: Strategy = None
    http: Annotated[
        bool, typer.Option("--http", help="Streamable HTTP instead of standard streams.", rich_help_panel=SERVER)
    ] = False
    server: ServerOptions
    store: Store = None
    engine: EngineOptions


@option_model
def mcp(options: McpOptions) -> None:
    """Serve the tools ask, verify and vote to MCP clients, over standard streams or streamable HTTP.

    Progress notifications tell what a run does; a cancelled request cancels its run.
    """
    from ..core.errors import UserError
    from ..core.extras import missing_package
    from ..core.settings import load_settings

    settings = load_settings(
        model=options.model,
        strategy=options.strategy,
        store=options.store,
        local=options.engine.local,
        serve={**(options.server.settings or {}), "mcp": True},
    )
    if not (options.http or is_default(options.server)):
        raise UserError("options of the server are used over HTTP", hint="add --http, or leave them out")
    try:
        from ..sidecar.mcp import serve_stdio
    except ModuleNotFoundError as e:
        raise missing_package("the MCP server", e.name, "mcp") from e
    if options.http:
        start_server(settings)
        return
    from ..sidecar.logs import configure_logging
    from .interrupts import run_interruptible

    configure_logging(content=settings.serve.log_content, errors=settings.serve.log_errors)
    run_interruptible(serve_stdio(settings))
