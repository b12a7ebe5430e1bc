"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RUNNING = "What runs"
BUDGET = "Budget"
OUTPUT = "Output"
ENGINE = "Store and engine"

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.", rich_help_panel=OUTPUT)]
Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FILE",
        help="Run store (an SQLite file). (default: from the settings)",
        show_default=False,
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
