"""`reason mcp`: the tools ask and verify for MCP clients."""

from __future__ import annotations

from dataclasses import dataclass

from .command import option_model
from .options import MainModel, Store, Strategy

EXAMPLES = """
[b]Examples[/b]

reason mcp --model local/smollm2-135m
claude mcp add reason -- reason mcp --model local/smollm2-135m

The client starts the command. [b]reason serve --mcp[/b] serves the same tools over HTTP, at /mcp.
"""


@dataclass(frozen=True, kw_only=True)
class McpOptions:
    """Options of `reason mcp`."""

    model: MainModel = None
    strategy: Strategy = None
    store: Store = None


@option_model
def mcp(options: McpOptions) -> None:
    """Serve the tools ask and verify to an MCP client, over standard streams.

    Progress notifications report the steps of a run; a cancelled request cancels its run.
    """
    from ..core.extras import missing_package
    from ..core.settings import load_settings
    from .interrupts import run_interruptible

    settings = load_settings(model=options.model, strategy=options.strategy, store=options.store)
    try:
        from ..sidecar.logs import configure_logging
        from ..sidecar.mcp import serve_stdio
    except ModuleNotFoundError as e:
        raise missing_package("the MCP server", e.name, "mcp") from e
    configure_logging(content=settings.serve.log_content)
    run_interruptible(serve_stdio(settings))
