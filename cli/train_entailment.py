"""`reason train entailment`: the embedded judge of text and claim, trained on labelled claims."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options

LEARNING = "Learning"
WORK = "Work"

EXAMPLES = """
[b]Examples[/b]

reason train entailment --data fever=DIR vitaminc=DIR --corpus sentences.jsonl --out judge.safetensors
reason train entailment --data fever=DIR --stress fever_symmetric=DIR --corpus DIR --out judge.safetensors --epochs 2
reason train entailment --data fever=DIR --corpus DIR --out judge.safetensors --work runs/judge --resume

[b]Exit status[/b]

0 finished   1 internal error   2 wrong usage, or damaged data   3 the encoder cannot be had
130 interrupted: what there is is saved, and --resume goes on with it
"""


def entailment(
    corpus: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Sentences that FEVER's retrieved names, a line each.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The judge's file.", show_default=False)],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=PATH]…", help="More datasets, as in --data.", show_default=False),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="NAME=PATH",
            help="Dataset to train on: fever, vitaminc or sufficient_facts, with file or folder. Several may follow.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    stress: Annotated[
        list[str] | None,
        typer.Option(
            "--stress",
            metavar="NAME=PATH",
            help="Test that is scored, never trained on: fever_symmetric (its claims are left out of the training) or "
            "climate_fever. May be repeated.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    held_out: Annotated[
        float,
        typer.Option(
            "--held-out",
            min=0.01,
            max=0.89,
            metavar="SHARE",
            help="Share of the claims that are never trained on, by a digest of their text.",
            rich_help_panel=options.DATA,
        ),
    ] = 0.2,
    epochs: Annotated[
        int, typer.Option(min=1, metavar="N", help="How often each claim is seen.", rich_help_panel=LEARNING)
    ] = 3,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Seed of everything that is drawn.", rich_help_panel=LEARNING)
    ] = 0,
    batch: Annotated[int, typer.Option(min=2, metavar="N", help="Pairs of a step.", rich_help_panel=LEARNING)] = 32,
    rate: Annotated[
        float, typer.Option(min=1e-7, metavar="X", help="Largest learning rate.", rich_help_panel=LEARNING)
    ] = 2e-4,
    bits: Annotated[
        int, typer.Option(min=2, max=8, metavar="N", help="Bits of a weight in the file.", rich_help_panel=LEARNING)
    ] = 6,
    mixed: Annotated[
        bool,
        typer.Option(
            "--bf16",
            help="Multiply in bf16: faster where the processor can, slower elsewhere.",
            rich_help_panel=LEARNING,
        ),
    ] = False,
    card: Annotated[
        Path | None,
        typer.Option(
            "--card", metavar="FILE", help="Where to write the card.", show_default=False, rich_help_panel=WORK
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            metavar="DIR",
            help="Folder of checkpoint and learning curve. (default: the judge's file, with .work)",
            show_default=False,
            rich_help_panel=WORK,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training in --work.", rich_help_panel=WORK)
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            metavar="X",
            help="Stop, to be resumed, after so many minutes of steps.",
            show_default=False,
            rich_help_panel=WORK,
        ),
    ] = None,
    note_every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Steps between two points of the curve.", rich_help_panel=WORK)
    ] = 100,
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Processor threads.", show_default=False, rich_help_panel=WORK),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Train the embedded judge: whether a text supports or refutes a claim, or says nothing of it.

    A fifth of the claims is kept back by a digest of their text, and the judge is scored on them in the end.
    """
    from .train_entailment_here import entailment_here, named_paths

    entailment_here(
        data=named_paths("--data", [*(data or ()), *(more or ())]),
        stress=named_paths("--stress", stress or ()),
        corpus=corpus,
        out=out,
        card=card,
        work=work,
        resume=resume,
        minutes=minutes,
        note_every=note_every,
        held=held_out,
        choices={"epochs": epochs, "seed": seed, "batch": batch, "rate": rate, "bits": bits, "mixed": mixed},
        threads=threads,
        as_json=as_json,
    )
