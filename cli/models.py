"""`reason models`: what models are here, and to fetch, show and remove them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..core.errors import Cancelled, UserError
from .interrupts import run_interruptible
from .model_show import show
from .options import Json
from .render.console import megabytes, out, plain_table, say, write_json
from .render.status import stage_bar

models_app = typer.Typer(
    help="Models: list, pull, show, remove.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="local/<short name>, local/<hub id>, local/<folder> or local/<file.gguf>.",
        show_default=False,
    ),
]


@models_app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the models that are here, and the known ones that are not."""
    from ..core.settings import load_settings
    from ..serving.model_files.find import list_models

    settings = load_settings()
    listed = list_models(settings.cache_dir)
    if as_json:
        write_json(
            {
                "cache_dir": str(settings.cache_dir),
                "models": [
                    {
                        "name": m.name,
                        "state": m.state,
                        "size_bytes": m.size_bytes,
                        "source": m.source,
                        "folder": None if m.folder is None else str(m.folder),
                        "fingerprint": m.fingerprint,
                    }
                    for m in listed
                ],
            }
        )
        return
    table = plain_table("name", "state", "size", "source", "where")
    for m in listed:
        size = "" if m.size_bytes is None else megabytes(m.size_bytes)
        table.add_row(m.name, m.state, size, m.source, "" if m.folder is None else str(m.folder))
    out().print(table)


@models_app.command("pull")
def pull_command(name: Name, as_json: Json = False) -> None:
    """Fetch a model and convert it where needed. Ctrl-C stops and removes the partial files."""
    from ..core.settings import load_settings
    from ..serving.model_files.downloads import run_pull
    from ..serving.model_files.find import find_model, folder_bytes

    settings = load_settings()

    async def pull() -> Any:
        with stage_bar(_lines(), of_bytes=True) as progress:
            return await run_pull(
                lambda cancel: find_model(name, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
            )

    try:
        files = run_interruptible(pull())
    except asyncio.CancelledError:
        raise Cancelled("the pull was cancelled; its partial files are removed") from None
    size = folder_bytes(files.folder)
    if as_json:
        write_json(
            {
                "name": files.name,
                "folder": str(files.folder),
                "size_bytes": size,
                "source": files.source,
                "fingerprint": files.fingerprint,
            }
        )
    else:
        say(f"{files.name} is ready ({megabytes(size)}, {files.folder})")


models_app.command("show")(show)


@models_app.command("rm")
def remove_command(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a model's files from this machine."""
    from ..core.settings import load_settings
    from ..serving.model_files.find import remove_model

    settings = load_settings()
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"remove {name}? Nobody is there to ask", hint="say --yes")
        if not typer.confirm(f"Remove the files of {name}?", err=True):
            say("nothing was removed")
            return
    freed = remove_model(name, settings.cache_dir)
    if as_json:
        write_json({"name": name, "freed_bytes": freed})
    else:
        say(f"{name} is removed; {megabytes(freed)} are free again")


def _lines() -> Callable[[str, int, int | None], None]:
    last = ""

    def tell(stage: str, done: int, total: int | None) -> None:
        nonlocal last
        if stage != last:
            last = stage
            say(f"{stage} {megabytes(total)}" if total else stage)

    return tell
