"""`reason models show`: what a model is, what it says it can do, and what it really does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import Cancelled
from .interrupts import run_interruptible
from .options import Json
from .render.console import megabytes, out, plain_table, say, write_json
from .render.status import StatusLine, status_line

if TYPE_CHECKING:
    from ..core.settings import Settings
    from ..serving.measuring import Finding
    from ..serving.model import LanguageModel

EXIT_DIFFERS = 3
"""Exit status if a model lacks what it declares: the model's side failed, as elsewhere."""

ON_DISK = ("local/", "vllm/")
_STYLES = {"ok": "green", "differs": "bold red", "more": "yellow", "declared": "dim"}


def show(
    name: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Any model string: local/…, vllm/…, openai/….", show_default=False),
    ],
    measured: Annotated[
        bool | None,
        typer.Option(
            "--measure/--no-measure",
            help="Whether to measure what the model declares. Unless said, only what costs nothing is measured.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="Most time for measuring.")] = 120.0,
    as_json: Json = False,
) -> None:
    """Show what a model is and can do. Opens it, and measures what it declares.

    A capability that is declared and not there is shown in red, and makes the exit status 3. Nothing is fetched, and
    where requests cost money, or their price is unknown, nothing is measured without --measure.
    """
    from ..core.settings import load_settings

    settings = load_settings()
    try:
        with status_line() as tell:
            facts = run_interruptible(_look(name, settings, measured, seconds, tell))
    except asyncio.CancelledError:
        raise Cancelled("cancelled") from None
    findings: list[Finding] = facts.pop("findings")
    wrong = [f.feature for f in findings if f.state == "differs"]
    if as_json:
        write_json(facts | {"findings": [f.model_dump(mode="json") for f in findings], "ok": not wrong})
    else:
        _print(facts, findings)
    if wrong:
        say(f"{name} declares and does not have: {', '.join(wrong)}", label="error", style="bold red")
        raise typer.Exit(EXIT_DIFFERS)


async def _look(
    name: str, settings: Settings, measured: bool | None, seconds: float, tell: StatusLine
) -> dict[str, Any]:
    from ..serving.measuring import measure, measure_speed, resident_bytes, worst_cost_usd
    from ..serving.open import open_model

    facts: dict[str, Any] = {"name": name}
    if name.startswith(ON_DISK):
        facts |= await asyncio.to_thread(_files, name, settings)
    tell(f"opening {name}")
    model: LanguageModel = await open_model(name, settings)
    try:
        cost = worst_cost_usd(model.capabilities)
        wanted = cost == 0 if measured is None else measured
        facts |= {"identity": model.identity, "capabilities": model.capabilities.model_dump(mode="json")}

        def trying(feature: str, done: int, total: int) -> None:
            tell(f"measuring {feature} ({done + 1} of {total})")

        found = measure(model, only_declared=not wanted, seconds=seconds, tell=trying)
        facts["findings"] = [finding async for finding in found]
        facts["measured"] = wanted
        if wanted:
            tell("measuring the speed")
            facts["speed"] = (await measure_speed(model)).model_dump(mode="json")
        elif measured is None:
            most = "at a price that is unknown" if cost is None else f"for ${cost:.4f} at most"
            facts["not_measured"] = f"say --measure to measure it, {most}"
        facts["memory_bytes"] = resident_bytes()
    finally:
        await model.aclose()
    return facts


def _files(name: str, settings: Settings) -> dict[str, Any]:
    """What the files of a model that runs here say of it. They are not fetched."""
    from ..serving.model_files.checkpoint import read_config, weight_types
    from ..serving.model_files.find import find_model, folder_bytes

    files = find_model("local/" + name.partition("/")[2], cache_dir=settings.cache_dir, pull=False)
    config, types = read_config(files.folder), weight_types(files.folder)
    shown = {
        "source": files.source,
        "folder": str(files.folder),
        "family": config.get("model_type"),
        "layers": config.get("num_hidden_layers"),
        "hidden_size": config.get("hidden_size"),
        "attention_heads": config.get("num_attention_heads"),
        "key_value_heads": config.get("num_key_value_heads"),
        "vocabulary": config.get("vocab_size"),
        "context_tokens": config.get("max_position_embeddings"),
        "parameters": sum(types.values()),
        "weights": " + ".join(sorted(types)),
        "size_bytes": folder_bytes(files.folder),
        "fingerprint": files.fingerprint,
    }
    return {k: v for k, v in shown.items() if v not in (None, "")}


def _print(facts: dict[str, Any], findings: list[Finding]) -> None:
    from rich.markup import escape
    from rich.text import Text

    table = plain_table("fact", "value")
    for fact, value in facts.items():
        if fact in ("capabilities", "speed", "measured", "not_measured"):
            continue
        if fact.endswith("_bytes"):
            table.add_row(fact.removesuffix("_bytes"), "unknown" if value is None else megabytes(value))
        else:
            table.add_row(fact, f"{value:,}" if isinstance(value, int) else escape(str(value)))
    console = out()
    console.print(table)
    console.print()
    table = plain_table("capability", "declared", "measured", "")
    for f in findings:
        style = _STYLES[f.state]
        measured = "not measured" if f.state == "declared" else _shown(f.measured)
        note = {"differs": "DIFFERS ", "more": "not declared "}.get(f.state, "") + f.note
        table.add_row(
            f.feature,
            _shown(f.declared),
            Text(measured, style),
            Text(note.strip(), style if f.state in ("differs", "more") else "dim"),
        )
    console.print(table)
    if facts.get("speed"):
        console.print()
        table = plain_table("speed, one short look", "tokens/s")
        speed = facts["speed"]
        rows = (("prompt", "prompt_tokens_per_s"), ("decode", "decode_tokens_per_s"))
        for label, key in (*rows, (f"decode, batch of {speed['batch']}", "batch_tokens_per_s")):
            table.add_row(label, "unknown" if speed[key] is None else f"{speed[key]:,.0f}")
        console.print(table)
    if facts.get("not_measured"):
        say(facts["not_measured"], label="not measured", style="yellow")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " / ".join(_price(v) for v in value)
    if isinstance(value, float):
        return _price(value)
    return "unknown" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _price(usd: float | None) -> str:
    return "unknown" if usd is None else "$0" if usd == 0 else f"${usd:.3g}"
