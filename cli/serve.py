"""`reason serve`: reasoning and verification over HTTP."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .render.console import say
from .render.status import stage_bar

if TYPE_CHECKING:
    from ..core.settings import Settings

EXAMPLES = """
[b]Examples[/b]

reason serve --model local/smollm2-135m --no-auth
reason keys create me && reason serve --host 0.0.0.0
curl http://127.0.0.1:8080/v1/reason -H 'Content-Type: application/json' -d '{"question": "What is 17 * 23?"}'

OpenAI's clients take http://127.0.0.1:8080/v1 as their address and reason/STRATEGY as a model.
What else there is to set is in the table [b]serve[/b] of reason.toml: see [b]reason config show[/b].
"""

LISTEN = "Where it listens"
IN_PROCESS = ("local/", "vllm/")


def serve(
    model: options.MainModel = None,
    strategy: options.Strategy = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; one that others reach needs keys. (default: 127.0.0.1)",
            show_default=False,
            rich_help_panel=LISTEN,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="N",
            help="Port; 0 takes a free one. (default: 8080)",
            show_default=False,
            rich_help_panel=LISTEN,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            metavar="N",
            help="Processes. Each opens its models itself. (default: 1)",
            show_default=False,
            rich_help_panel=LISTEN,
        ),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask callers for no key; on this machine alone.", rich_help_panel=LISTEN)
    ] = False,
    max_runs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Runs under way at once in each process; others wait. (default: 64)",
            show_default=False,
            rich_help_panel=LISTEN,
        ),
    ] = None,
    store: options.Store = None,
    weight_format: options.WeightFormat = None,
    threads: options.Threads = None,
) -> None:
    """Serve reasoning and verification over HTTP: OpenAI's format, and all of it natively.

    The first Ctrl-C or SIGTERM takes no new runs and lets those under way end; the second stops them. What is stopped
    is saved, and runs in the background go on when the server is started again.
    """
    from ..core.errors import UserError
    from ..core.settings import load_settings

    settings = load_settings(
        model=model,
        strategy=strategy,
        store=store,
        local=options.given(weight_format=weight_format, threads=threads),
        serve=options.given(host=host, port=port, workers=workers, auth=False if no_auth else None, max_runs=max_runs),
    )
    try:
        from ..sidecar.gate.log_lines import open_logs
        from ..sidecar.server import bind
    except ModuleNotFoundError as e:
        raise UserError(
            f"the server needs the library {e.name}", hint="pip install 'reason-orchestrator[sidecar]'"
        ) from e

    asyncio.run(_check_reach(settings))
    sock = bind(settings.serve.host, settings.serve.port)
    address = f"http://{_shown(settings.serve.host)}:{sock.getsockname()[1]}"
    open_logs(content=settings.serve.log_content)
    try:
        if settings.serve.workers > 1:
            _several(settings, sock, address)
        else:
            _one(settings, sock, address)
    finally:
        sock.close()
    say("stopped")


def _one(settings: Settings, sock: Any, address: str) -> None:
    from ..sidecar.event_loop import new_loop
    from ..sidecar.server import serve_here
    from .interrupts import run_interruptible

    with stage_bar(lambda *_: None, of_bytes=True) as progress:
        serving = serve_here(settings, sock, progress=progress, ready=lambda: _tell(settings, address))
        run_interruptible(serving, loop_factory=new_loop)


def _several(settings: Settings, sock: Any, address: str) -> None:
    from ..sidecar.workers import Workers

    if settings.model.startswith(IN_PROCESS):
        say(
            f"each of the {settings.serve.workers} workers loads the weights of {settings.model} itself",
            label="warning",
            style="yellow",
        )
    _tell(settings, address)
    Workers(settings, sock).run()


async def _check_reach(settings: Settings) -> None:
    """Refuse to be reached by others without keys.

    Raises:
        UserError: The address is not this machine's own, and no key is asked for or there is none.
    """
    from ..core.errors import UserError
    from ..core.open_store import open_store
    from ..sidecar.gate.doorkeeper import is_loopback

    serve = settings.serve
    public = not is_loopback(serve.host)
    if public and not serve.auth:
        raise UserError(
            f"{serve.host} can be reached by others, and no key would be asked for",
            hint="leave out --no-auth, or listen on 127.0.0.1",
        )
    if not serve.auth:
        return
    store = await open_store(settings.store)
    try:
        now = time.time()
        keys = [key for key in await store.list_keys() if key.is_good(now)]
    finally:
        await store.aclose()
    if keys:
        return
    make_one = "make one with `reason keys create NAME`"
    if public:
        raise UserError(f"{serve.host} can be reached by others, and there is no key", hint=make_one)
    say(
        f"there is no key yet, so nobody can call: {make_one}, or serve with --no-auth", label="warning", style="yellow"
    )


def _tell(settings: Settings, address: str) -> None:
    docs = f", described at {address}/docs" if settings.serve.docs else ""
    say(f"serving {settings.model} at {address}{docs}")


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
