"""`reason serve`: reasoning and verification over HTTP; `reason mcp`: as tools for one MCP client."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .command import option_model
from .options import MainModel, Store, Strategy, without_none
from .render.console import say
from .render.status import StatusLine

if TYPE_CHECKING:
    from ..core.settings import Settings

EXAMPLES = """
[b]Examples[/b]

reason serve --model local/smollm2-135m --no-auth
reason keys create me && reason serve --host 0.0.0.0
curl http://127.0.0.1:8080/v1/reason -H 'Content-Type: application/json' -d '{"question": "What is 17 * 23?"}'

OpenAI clients use http://127.0.0.1:8080/v1 as base URL, Anthropic's use http://127.0.0.1:8080; the model is
reason/STRATEGY.
The table [b]serve[/b] of reason.toml has all settings: see [b]reason config show[/b].
"""

MCP_EXAMPLES = """
[b]Examples[/b]

reason mcp --model local/smollm2-135m
claude mcp add reason -- reason mcp --model local/smollm2-135m

The client starts the command. [b]reason serve --mcp[/b] serves the same tools over HTTP, at /mcp.
"""

SERVER = "Server"
IN_PROCESS = ("local/", "gguf/", "vllm/")


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Options of `reason serve`."""

    model: MainModel = None
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Listen on this address; a public one needs API keys. (default: 127.0.0.1)",
            rich_help_panel=SERVER,
        ),
    ] = None
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="N",
            help="Listen on this port; 0 chooses a free one. (default: 8080)",
            rich_help_panel=SERVER,
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            metavar="N",
            help="Serve with N processes, each of which loads its own models. (default: 1)",
            rich_help_panel=SERVER,
        ),
    ] = None
    no_auth: Annotated[
        bool,
        typer.Option(
            "--no-auth", help="Accept requests without API keys; for loopback addresses only.", rich_help_panel=SERVER
        ),
    ] = False
    mcp: Annotated[
        bool,
        typer.Option(
            "--mcp", help="Also serve the tools ask and verify to MCP clients, at /mcp.", rich_help_panel=SERVER
        ),
    ] = False
    store: Store = None


@option_model
def serve(options: ServeOptions) -> None:
    """Serve reasoning and verification over HTTP: in the formats of OpenAI's and Anthropic's APIs, and a native one.

    The first Ctrl-C or SIGTERM refuses new runs and lets those in flight finish; the second stops them. Stopped runs
    are saved, and background runs resume when the server starts again.
    """
    from ..core.settings import load_settings

    settings = load_settings(
        model=options.model,
        store=options.store,
        serve=without_none(
            host=options.host,
            port=options.port,
            workers=options.workers,
            auth=False if options.no_auth else None,
            mcp=options.mcp or None,
        ),
    )
    start_server(settings)


def start_server(settings: Settings) -> None:
    """Serve until a signal ends it.

    Raises:
        UserError: A library is missing, the address cannot be used, or a public one would have no keys.
    """
    from ..core.extras import missing_package

    try:
        from ..sidecar.logs import configure_logging
        from ..sidecar.server import bind
    except ModuleNotFoundError as e:
        raise missing_package("the server", e.name, "sidecar") from e

    asyncio.run(_check_auth(settings))
    sock = bind(settings.serve.host, settings.serve.port)
    address = f"http://{_url_host(settings.serve.host)}:{sock.getsockname()[1]}"
    configure_logging(content=settings.serve.log_content)
    try:
        if settings.serve.workers > 1:
            _serve_workers(settings, sock, address)
        else:
            _serve_process(settings, sock, address)
    finally:
        sock.close()
    say("stopped")


def _serve_process(settings: Settings, sock: Any, address: str) -> None:
    from ..sidecar.server import new_event_loop, serve_here
    from .interrupts import run_interruptible

    with ExitStack() as loading:
        progress = loading.enter_context(StatusLine(f"loading {settings.model}")).pulled

        def ready() -> None:
            loading.close()
            _say_ready(settings, address)

        serving = serve_here(settings, sock, progress=progress, ready=ready)
        run_interruptible(serving, loop_factory=new_event_loop)


def _serve_workers(settings: Settings, sock: Any, address: str) -> None:
    from ..sidecar.server import WorkerProcesses

    if settings.model.startswith(IN_PROCESS):
        say(
            f"each of the {settings.serve.workers} workers loads the weights of {settings.model}",
            label="warning",
            style="yellow",
        )
    _say_ready(settings, address)
    WorkerProcesses(settings, sock).run()


async def _check_auth(settings: Settings) -> None:
    """Refuse a public address without API keys."""
    from ..core.errors import UserError
    from ..core.store import open_store
    from ..sidecar.auth import is_loopback
    from ..sidecar.key_store import KeyStore

    serve = settings.serve
    public = not is_loopback(serve.host)
    if public and not serve.auth:
        raise UserError(
            f"{serve.host} is a public address, and authentication is off",
            hint="leave out --no-auth, or listen on 127.0.0.1",
        )
    if not serve.auth:
        say(
            f"authentication is off: every user and every program of this machine can do everything at {serve.host}",
            label="warning",
            style="yellow",
        )
        return
    store = await open_store(settings.store)
    try:
        now = time.time()
        keys = [key for key in await (await KeyStore.open(store)).keys() if key.is_valid(now)]
    finally:
        await store.aclose()
    if keys:
        return
    hint = "create one with `reason keys create NAME`"
    if public:
        raise UserError(f"{serve.host} is a public address, and there is no API key", hint=hint)
    say(
        f"there is no API key yet, so every request is refused: {hint}, or use --no-auth",
        label="warning",
        style="yellow",
    )


def _say_ready(settings: Settings, address: str) -> None:
    say(f"serving {settings.model} at {address}, in the browser at {address}/ui, documented at {address}/docs")


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def mcp(model: MainModel = None, strategy: Strategy = None, store: Store = None) -> None:
    """Serve the tools ask and verify to an MCP client, over standard streams.

    Progress notifications report the steps of a run; a cancelled request cancels its run.
    """
    from ..core.extras import missing_package
    from ..core.settings import load_settings
    from .interrupts import run_interruptible

    settings = load_settings(model=model, strategy=strategy, store=store)
    try:
        from ..sidecar.logs import configure_logging
        from ..sidecar.mcp import serve_stdio
    except ModuleNotFoundError as e:
        raise missing_package("the MCP server", e.name, "mcp") from e
    configure_logging(content=settings.serve.log_content)
    run_interruptible(serve_stdio(settings))
