"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.store_place import file_of, read_place, shown_store
from .completions import complete_strategy

RUNNING = "What runs"
DATA = "Data"
BUDGET = "Budget"
OUTPUT = "Output"
ENGINE = "Store and engine"


def file_store(given: str) -> Path:
    """A run store that must be a file."""
    return file_of(read_place(given), "evaluations and trainings")


Strategy = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        "-s",
        metavar="NAME",
        help="How to reason: see [b]reason strategies[/b].",
        autocompletion=complete_strategy,
        show_default=False,
        rich_help_panel=RUNNING,
    ),
]
MainModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="Main model: local/…, vllm/…, or any model string of LiteLLM.",
        show_default=False,
        rich_help_panel=RUNNING,
    ),
]
SmallModel = Annotated[str | None, typer.Option(metavar="NAME", help="Model for small steps.", rich_help_panel=RUNNING)]
JudgeModel = Annotated[str | None, typer.Option(metavar="NAME", help="Model that judges.", rich_help_panel=RUNNING)]
RewardModel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Model that scores steps, as in judge/local/smollm2-135m.", rich_help_panel=RUNNING
    ),
]
Jurors = Annotated[
    list[str] | None,
    typer.Option(
        "--juror",
        metavar="NAME",
        help="Model of one juror of [b]edgejury[/b]; may be repeated. (default: the main model in several roles)",
        show_default=False,
        rich_help_panel=RUNNING,
    ),
]
ChairModel = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Model that makes one answer of the jurors'.", rich_help_panel=RUNNING),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Parameter of the strategy; may be repeated. VALUE is JSON where it can be, else text.",
        show_default=False,
        rich_help_panel=RUNNING,
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        help="Map that calibrates the strategy's confidence, from [b]reason eval calibrate[/b]; none is no map. "
        "(default: from the settings)",
        show_default=False,
        rich_help_panel=RUNNING,
    ),
]
FieldMap = Annotated[
    str | None,
    typer.Option(
        "--map",
        metavar="NAME=FIELD,…",
        help="Which field of the file is what: question=…,answer=…",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=OUTPUT)]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="FILE|URL",
        help="Run store: an SQLite file, or postgresql://HOST/DATABASE. (default: from the settings)",
        show_default=False,
        rich_help_panel=ENGINE,
    ),
]
FileStore = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FILE",
        help="Run store: an SQLite file, no database. (default: one in the run's folder)",
        show_default=False,
        parser=file_store,
        rich_help_panel=ENGINE,
    ),
]
Stream = Annotated[
    bool | None,
    typer.Option(
        "--stream/--no-stream",
        help="Print the text while it is generated, where a single sample is. (default: on a terminal)",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
Trace = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        metavar="FILE",
        help="Write everything that happens to FILE: [b].jsonl[/b] one event a line, [b].html[/b] a page to look at.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run, or its beginning.", show_default=False)]
WeightFormat = Annotated[
    str | None,
    typer.Option(
        "--weight-format",
        metavar="auto|fp32|bf16|int4",
        help="Number format of a local model's weights. (default: auto)",
        show_default=False,
        rich_help_panel=ENGINE,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        metavar="N",
        help="Processor threads of a local model. (default: the engine's choice)",
        show_default=False,
        rich_help_panel=ENGINE,
    ),
]


def given(**values: Any) -> dict[str, Any] | None:
    """The values that were given; None if none was."""
    return {name: value for name, value in values.items() if value is not None} or None


def resume_flags(store: str | None) -> tuple[str, ...]:
    """The flags of a run without which it cannot be gone on with; a password is left out."""
    return () if store is None else ("--store", shown_store(read_place(store)))
