"""`reason models`: what models are here, and to fetch, show and remove them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import Cancelled, UserError
from .console import err, moving_parts, out, say, write_line
from .interrupts import run_interruptible
from .options import Json

if TYPE_CHECKING:
    from ..core.settings import Settings

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
    from ..serving.files import list_models

    settings = load_settings()
    listed = list_models(settings.cache_dir)
    if as_json:
        _write_json(
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
    table = _table("name", "state", "size", "source", "where")
    for m in listed:
        size = "" if m.size_bytes is None else megabytes(m.size_bytes)
        table.add_row(m.name, m.state, size, m.source, "" if m.folder is None else str(m.folder))
    out().print(table)


@models_app.command("pull")
def pull_command(name: Name, as_json: Json = False) -> None:
    """Fetch a model and convert it where needed. Ctrl-C stops and removes the partial files."""
    from ..core.settings import load_settings
    from ..serving.files import find_model, folder_bytes
    from ..serving.pulling import run_pull

    settings = load_settings()

    async def pull() -> Any:
        with _bar() as progress:
            return await run_pull(
                lambda cancel: find_model(name, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
            )

    try:
        files = run_interruptible(pull())
    except asyncio.CancelledError:
        raise Cancelled("the pull was cancelled; its partial files are removed") from None
    size = folder_bytes(files.folder)
    if as_json:
        _write_json(
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


@models_app.command("show")
def show_command(name: Name, as_json: Json = False) -> None:
    """Show what a model on this machine is and can do. Loads it."""
    from ..core.settings import load_settings
    from ..serving.files import find_model

    settings = load_settings()
    files = find_model(name, cache_dir=settings.cache_dir, pull=False)
    try:
        facts = run_interruptible(_facts(name, files.folder, settings))
    except asyncio.CancelledError:
        raise Cancelled("cancelled") from None
    facts = {"name": files.name, "source": files.source, "folder": str(files.folder), **facts}
    facts["fingerprint"] = files.fingerprint
    if as_json:
        _write_json(facts)
        return
    table = _table("fact", "value")
    for fact, value in facts.items():
        if fact != "capabilities":
            table.add_row(fact, f"{value:,}" if isinstance(value, int) else str(value))
    out().print(table)
    table = _table("capability", "value")
    for capability, value in facts["capabilities"].items():
        table.add_row(capability, _shown(value))
    out().print(table)


@models_app.command("rm")
def remove_command(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a model's files from this machine."""
    from ..core.settings import load_settings
    from ..serving.files import remove_model

    settings = load_settings()
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"remove {name}? Nobody is there to ask", hint="say --yes")
        if not typer.confirm(f"Remove the files of {name}?", err=True):
            say("nothing was removed")
            return
    freed = remove_model(name, settings.cache_dir)
    if as_json:
        _write_json({"name": name, "freed_bytes": freed})
    else:
        say(f"{name} is removed; {megabytes(freed)} are free again")


def megabytes(size_bytes: int) -> str:
    """A size for people, in powers of ten as disks are sold."""
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


async def _facts(name: str, folder: Path, settings: Settings) -> dict[str, Any]:
    from ..serving.files import folder_bytes
    from ..serving.model_folder import read_config, weight_types
    from ..serving.open import open_model

    config = read_config(folder)
    types = weight_types(folder)
    model = await open_model(name, settings)
    try:
        capabilities = model.capabilities.model_dump(mode="json")
        identity = model.identity
    finally:
        await model.aclose()
    return {
        "family": config["model_type"],
        "layers": config.get("num_hidden_layers"),
        "hidden_size": config.get("hidden_size"),
        "attention_heads": config.get("num_attention_heads"),
        "key_value_heads": config.get("num_key_value_heads"),
        "vocabulary": config.get("vocab_size"),
        "context_tokens": config.get("max_position_embeddings"),
        "parameters": sum(types.values()),
        "weights": " + ".join(sorted(types)),
        "size_bytes": folder_bytes(folder),
        "identity": identity,
        "capabilities": capabilities,
    }


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int | None], None] | None]:
    """A progress bar on standard error; where nothing can move there, one line at the start of each stage."""
    if not moving_parts():
        yield _lines()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True) as bar:
        shown = bar.add_task("starting", total=None)
        last = ""

        def draw(stage: str, done: int, total: int | None) -> None:
            nonlocal last
            if stage != last:
                last = stage
                bar.reset(shown, description=stage, total=total)
            bar.update(shown, completed=done, total=total)

        yield draw


def _lines() -> Callable[[str, int, int | None], None]:
    last = ""

    def tell(stage: str, done: int, total: int | None) -> None:
        nonlocal last
        if stage != last:
            last = stage
            say(f"{stage} {megabytes(total)}" if total else stage)

    return tell


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i == 0, overflow="fold", justify="right" if column == "size" else "left")
    return table


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(sorted(map(str, value))) or "none"
    return "unknown" if value is None else f"{value:,}"


def _write_json(value: dict[str, Any]) -> None:
    write_line(json.dumps(value, ensure_ascii=False))
