"""`reason models`: list, pull, show, probe and remove models."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .completion import complete_model, completed
from .interrupts import run_interruptible
from .options import Json
from .render.console import byte_size, confirm_removal, out, plain_table, say, write_json
from .render.status import StatusLine

if TYPE_CHECKING:
    from ..core.settings import Settings
    from ..serving.model import LanguageModel
    from ..serving.model_files.find import ModelListing
    from ..serving.profiles.profile import ModelProfile

LOCAL_PREFIXES = ("local/", "vllm/")

models_app = typer.Typer(
    help="List, pull, show, probe and remove models.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@models_app.command("list")
def list_(as_json: Json = False) -> None:
    """List the downloaded models, and the known ones that can be downloaded."""
    from ..core.settings import load_settings

    settings = load_settings()
    listed = all_models(settings.cache_dir)
    if as_json:
        models = [asdict(m) | {"directory": m.directory and str(m.directory)} for m in listed]
        write_json({"cache_dir": str(settings.cache_dir), "models": models})
        return
    table = plain_table("name", "state", "size", "what")
    for m in listed:
        size = "" if m.size_bytes is None else byte_size(m.size_bytes)
        table.add_row(m.name, m.state, size, m.about or m.source)
    out().print(table)


def all_models(cache_dir: Path) -> list[ModelListing]:
    """The models and encoders that are here, those with a short name, and the recommended ones; by name."""
    from ..serving.encoders.files import list_encoders
    from ..serving.model_files.catalogue import RECOMMENDED_MODELS
    from ..serving.model_files.find import ModelListing, list_models

    listed = {m.name: m for m in (*list_models(cache_dir), *list_encoders(cache_dir))}
    for name, model in RECOMMENDED_MODELS.items():
        here = listed.get(name)
        source = f"hub {name.partition('/')[2]}"
        listed[name] = (
            ModelListing(name, source, None, model.download_bytes, None, "not pulled", model.about)
            if here is None
            else replace(here, about=model.about)
        )
    return sorted(listed.values(), key=lambda m: m.name)


def complete_kept_model(prefix: str) -> list[str]:
    """Models and encoders whose files are on this machine."""
    return completed(prefix, lambda: _model_files(kept=True))


def complete_pullable_model(prefix: str) -> list[str]:
    """Models and encoders that can be pulled by name and are not on this machine."""
    return completed(prefix, lambda: ["recommended", *_model_files(kept=False)])


def _model_files(*, kept: bool) -> list[str]:
    from ..core.settings import load_settings

    return [model.name for model in all_models(load_settings().cache_dir) if (model.directory is not None) is kept]


@models_app.command()
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="local/<short name>, local/<hub id>, local/<directory>, local/<file.gguf>, or recommended.",
            autocompletion=complete_pullable_model,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Download recommended models without confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Download a model and convert it if needed. Ctrl-C cancels and removes partial files.

    Encoders with a short name are downloaded too: local/all-mpnet-base-v2 is what the judge base needs. "recommended"
    offers two models of the Hugging Face hub that are better than the default one, and downloads those you confirm.
    """
    from ..core.settings import load_settings
    from ..serving.model_files.catalogue import RECOMMENDED, RECOMMENDED_MODELS

    settings = load_settings()
    if name != RECOMMENDED:
        pulled = _pull(name, settings)
        if as_json:
            write_json(pulled)
        return
    results = []
    for one, model in RECOMMENDED_MODELS.items():
        what = f"{one} ({model.about.removeprefix('recommended: ')}; about {byte_size(model.download_bytes)})"
        if not yes and sys.stdin.isatty() and not typer.confirm(f"Download {what}?", default=True, err=True):
            continue
        say(f"downloading {what}")
        results.append(_pull(one, settings))
    if as_json:
        write_json({"models": results})
    elif results:
        say(f'try it: reason ask "What is 17 * 23?" -m {results[0]["name"]}')


def _pull(name: str, settings: Settings) -> dict[str, Any]:
    """Download a model and say so; its description as JSON."""
    from ..core.errors import Cancelled
    from ..serving.encoders.files import find_encoder
    from ..serving.model_files.catalogue import KNOWN_ENCODERS
    from ..serving.model_files.downloads import run_pull
    from ..serving.model_files.find import ModelFiles, directory_bytes, find_model

    find = partial(find_encoder, sentence=True) if name in KNOWN_ENCODERS else find_model

    async def run() -> ModelFiles:
        with StatusLine(f"preparing {name}") as status:
            return await run_pull(
                lambda cancel: find(name, cache_dir=settings.cache_dir, progress=status.pulled, cancel=cancel)
            )

    try:
        files = run_interruptible(run())
    except asyncio.CancelledError:
        raise Cancelled("the download was cancelled, its partial files are removed") from None
    size = directory_bytes(files.directory)
    say(f"{files.name} is ready ({byte_size(size)}, {files.directory})")
    return {
        "name": files.name,
        "directory": str(files.directory),
        "size_bytes": size,
        "source": files.source,
        "fingerprint": files.fingerprint,
    }


@models_app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Any model string: local/…, vllm/…, openai/…, and others.",
            autocompletion=complete_model,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Load a model and show its capabilities and its profile: how it thinks, and what it accepts.

    Nothing is downloaded. A server of your own is measured with a few short requests.
    """
    from ..core.settings import load_settings

    _show(name, load_settings(), as_json=as_json)


@models_app.command()
def probe(
    name: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A model at a server of your own.", autocompletion=complete_model),
    ],
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what is remembered.")] = False,
    as_json: Json = False,
) -> None:
    """Measure what the server of a model supports, and show it.

    What was measured is remembered in the data directory for a week, without tools or schemas for an hour.
    """
    from ..core.settings import load_settings
    from ..serving.servers.measurements import forget_measurements

    settings = load_settings()
    if fresh:
        forget_measurements(settings.data_dir, name)
    _show(name, settings, as_json=as_json)


def _show(name: str, settings: Settings, *, as_json: bool) -> None:
    from ..core.errors import Cancelled

    try:
        with StatusLine(f"loading {name}"):
            facts = run_interruptible(_inspect(name, settings))
    except asyncio.CancelledError:
        raise Cancelled("cancelled") from None
    if as_json:
        rows = {field: {"value": value, "source": source} for field, (value, source) in facts["profile"].items()}
        write_json(facts | {"profile": rows})
    else:
        _print(facts)


@models_app.command()
def rm(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A name of [b]reason models list[/b].", autocompletion=complete_kept_model),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a model's files from this machine."""
    from ..core.settings import load_settings
    from ..serving.encoders.files import remove_encoder
    from ..serving.model_files.catalogue import KNOWN_ENCODERS
    from ..serving.model_files.find import remove_model

    settings = load_settings()
    if not confirm_removal(f"the files of {name}", yes=yes):
        return
    remove = remove_encoder if name in KNOWN_ENCODERS else remove_model
    freed = remove(name, settings.cache_dir)
    if as_json:
        write_json({"name": name, "freed_bytes": freed})
    else:
        say(f"removed {name}, freed {byte_size(freed)}")


async def _inspect(name: str, settings: Settings) -> dict[str, Any]:
    from ..serving.factory import load_model

    facts: dict[str, Any] = {"name": name}
    if name.startswith(LOCAL_PREFIXES):
        facts |= await asyncio.to_thread(_file_facts, name, settings)
    model: LanguageModel = await load_model(name, settings)
    try:
        return facts | {
            "identity": model.identity,
            "capabilities": model.capabilities.model_dump(mode="json", exclude={"profile"}),
            "profile": _profile_rows(model.capabilities.profile),
        }
    finally:
        await model.aclose()


def _profile_rows(profile: ModelProfile) -> dict[str, tuple[Any, str]]:
    """Each field of a profile with its value as JSON and its source."""
    values = profile.model_dump(mode="json")
    sorted_lists = {name: sorted(value) if isinstance(value, list) else value for name, value in values.items()}
    return {name: (value, profile.sources.get(name, "default")) for name, value in sorted_lists.items()}


def _file_facts(name: str, settings: Settings) -> dict[str, Any]:
    """Facts from the files of a model that runs on this machine; they are not downloaded."""
    from ..serving.model_files.checkpoint import read_config, weight_types
    from ..serving.model_files.find import directory_bytes, find_model

    files = find_model("local/" + name.partition("/")[2], cache_dir=settings.cache_dir, pull=False)
    config, types = read_config(files.directory), weight_types(files.directory)
    facts = {
        "source": files.source,
        "directory": str(files.directory),
        "family": config.get("model_type"),
        "layers": config.get("num_hidden_layers"),
        "hidden_size": config.get("hidden_size"),
        "attention_heads": config.get("num_attention_heads"),
        "key_value_heads": config.get("num_key_value_heads"),
        "vocabulary": config.get("vocab_size"),
        "context_tokens": config.get("max_position_embeddings"),
        "parameters": sum(types.values()),
        "weights": " + ".join(sorted(types)),
        "size_bytes": directory_bytes(files.directory),
        "fingerprint": files.fingerprint,
    }
    return {k: v for k, v in facts.items() if v not in (None, "")}


def _print(facts: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.text import Text

    table = plain_table("field", "value")
    for name, value in facts.items():
        if name in ("capabilities", "profile"):
            continue
        if name.endswith("_bytes"):
            table.add_row(name.removesuffix("_bytes"), byte_size(value))
        else:
            table.add_row(name, f"{value:,}" if isinstance(value, int) else escape(str(value)))
    console = out()
    console.print(table)
    console.print()
    table = plain_table("capability", "value")
    for name, value in facts["capabilities"].items():
        table.add_row(name, _format_value(value))
    console.print(table)
    console.print()
    table = plain_table("profile", "value", "source")
    for name, (value, source) in facts["profile"].items():
        shown = value if isinstance(value, str) and value.isprintable() else json.dumps(value, ensure_ascii=False)
        table.add_row(Text(name), Text(shown), Text(source, "dim" if source == "default" else "green"))
    console.print(table)


def _format_value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(sorted(value)) or "none"
    if isinstance(value, float):
        return f"${value:.3g}" if value else "$0"
    return "unknown" if value is None else f"{value:,}"
