"""`reason calibrate verdicts`: what a judge's verdicts on evidence are worth, fitted to labelled claims."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options

FITTING = "Fitting"
WORK = "Work"

EXAMPLES = """
[b]Examples[/b]

reason calibrate verdicts --data fever=fever/dev.jsonl --corpus sentences.jsonl --entailment embedded --out fitted
reason calibrate verdicts --data fever=DIR climate_fever=DIR --index wiki --entailment nli/local/MODEL --out fitted
reason ask "…" --verify davinci --verify-set davinci.fusion=fitted/fusion-embedded.json

[b]Exit status[/b]

0 finished   1 internal error   2 wrong usage   3 the judge failed
130 interrupted: the verdicts so far are saved, and the same command goes on
"""


def verdicts(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder that the files are written to.", show_default=False)
    ],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=PATH]…", help="More datasets, as in --data.", show_default=False),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="NAME=PATH",
            help="Labelled claims: fever or climate_fever, with file or folder. Several may follow. Not those that "
            "verification is to be measured on.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Sentences, a line each: those that FEVER's retrieved names; where a claim has no such list, they are "
            "searched by words.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Index that FEVER's evidence is looked for in, instead of what it lists; from [b]reason index "
            "build[/b].",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Only the first N claims of each dataset.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    all_claims: Annotated[
        bool | None,
        typer.Option(
            "--all-claims/--unseen",
            help="Whether claims that the embedded judge was trained on are taken. (default: only for other judges)",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    entailment: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What judges: embedded, lexical, nli/… or minicheck/….",
            rich_help_panel=FITTING,
        ),
    ] = "embedded",
    aggregation: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How passages become one verdict: witness, product, mean, vote, max or concat.",
            rich_help_panel=FITTING,
        ),
    ] = "witness",
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="How it is calibrated: temperature, platt or isotonic.", rich_help_panel=FITTING
        ),
    ] = "temperature",
    form: Annotated[
        str,
        typer.Option(
            "--evidence-form",
            metavar="FORM",
            help="What is judged: full passages, or the best span of each.",
            rich_help_panel=FITTING,
        ),
    ] = "full",
    k: Annotated[int, typer.Option("-k", min=1, max=20, help="Passages of a claim.", rich_help_panel=FITTING)] = 5,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the intervals.", rich_help_panel=FITTING)] = 0,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the files are called after fusion- and calibration-. (default: the judge's name)",
            show_default=False,
            rich_help_panel=WORK,
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            metavar="FILE",
            help="SQLite file of verdicts on pairs, where they are found again. (default: DIR/verdicts.sqlite)",
            show_default=False,
            rich_help_panel=WORK,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Fit how verdicts on passages are combined, what their probabilities are worth, and when to stand by one.

    The files are for this judge and for evidence that a retriever found. What is printed of them is out of sample: each
    claim is told of by what was fitted to others.
    """
    from .calibrate_verdicts_here import Asked, calibrate_verdicts_here

    calibrate_verdicts_here(
        Asked(
            data=(*(data or []), *(more or [])),
            corpus=corpus,
            index=index,
            limit=limit,
            all_claims=all_claims,
            entailment=entailment,
            aggregation=aggregation,
            method=method,
            form=form,
            k=k,
            seed=seed,
        ),
        out=out,
        name=name,
        store=store,
        as_json=as_json,
    )
