"""`reason calibrate`: what strategies must know of other problems before they can be used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .calibrate_verdicts import EXAMPLES as VERDICT_EXAMPLES
from .calibrate_verdicts import verdicts

WORK = "Work"

EXAMPLES = """
[b]Examples[/b]

reason calibrate router --data gsm8k --limit 50 -m LARGE --small-model SMALL --out pair.json
reason calibrate router --data gsm8k=gsm8k.jsonl --limit 50 -m LARGE --small-model SMALL --rate 0.3 --out pair.json
reason calibrate router --run runs/glimp-dev --rate 0.2 --out pair.json
reason ask "…" -s glimp --set router=pair.json -m LARGE --small-model SMALL

[b]Exit status[/b]

0 finished   1 internal error   2 wrong usage   3 the model failed
130 interrupted: what there is is saved, and the same command goes on
"""

calibrate_app = typer.Typer(help="Find thresholds on development data.", no_args_is_help=True)
calibrate_app.command("verdicts", epilog=VERDICT_EXAMPLES)(verdicts)


@calibrate_app.command(epilog=EXAMPLES)
def router(
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="Router file to write.", show_default=False),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME[=FILE]",
            help="Dataset to calibrate on, from the hub or a local file or folder; or a JSONL or CSV file of your own. "
            "Not the one that the router is to be measured on.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    map_: options.FieldMap = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Only the first N items.", show_default=False, rich_help_panel=options.DATA
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="DIR",
            help="Folder of a finished evaluation of glimp, instead of --data: no model is asked.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    rate: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="SHARE", help="Share of the steps that is to go to the large model, above 0."
        ),
    ] = 0.25,
    model: options.MainModel = None,
    small_model: options.SmallModel = None,
    parameters: options.Parameters = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Seed of the run. (default: 0)",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="C",
            help="Most items under way at a time. (default: 16)",
            show_default=False,
            rich_help_panel=WORK,
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            metavar="DIR",
            help="Folder of the run that is made. (default: calibration-runs/, a name that follows from the settings)",
            show_default=False,
            rich_help_panel=WORK,
        ),
    ] = None,
    as_json: options.Json = False,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            parser=options.file_store,
            metavar="FILE",
            help="Run store (an SQLite file), where replies are found again. (default: the one in the run's folder)",
            show_default=False,
            rich_help_panel=options.ENGINE,
        ),
    ] = None,
    weight_format: options.WeightFormat = None,
    threads: options.Threads = None,
) -> None:
    """Find the entropy from which glimp is to hand a step on to the large model, so that a share of them is.

    The small model answers the items alone, and the entropies of its steps' first tokens are pooled. The file is for
    this pair of models and this kind of entropy; thresholds of other rates can be had from it too.
    """
    from .calibrate_here import Asked, calibrate_router_here

    calibrate_router_here(
        Asked(
            data=data,
            map=map_,
            limit=limit,
            model=model,
            small_model=small_model,
            parameters=tuple(parameters or ()),
            seed=seed,
            weight_format=weight_format,
            threads=threads,
        ),
        run=run,
        rate=rate,
        out=out,
        work=work,
        store=store,
        concurrency=concurrency,
        as_json=as_json,
    )
