"""`reason train auto-router` and `reason train question-router`: routers of whole questions, from evaluation runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options

LEARNING = "Learning"

AUTO_EXAMPLES = """
[b]Examples[/b]

reason eval sweep sweep.toml --out runs/gsm8k
reason train auto-router runs/gsm8k/*/ --price 0.1 --out auto.json
reason train auto-router runs/cot runs/votes --holdout 0.3 --no-entropy --out auto.json
reason ask "…" -s auto --set router=auto.json

[b]Exit status[/b]

0 finished   1 internal error   2 wrong usage, or the runs allow no router   3 the model failed
130 interrupted: what was looked at is in the run store, and the same command goes on
"""

QUESTION_EXAMPLES = """
[b]Examples[/b]

reason eval gsm8k -s cot -m SMALL --out runs/small
reason eval gsm8k -s cot -m LARGE --out runs/large
reason train question-router runs/small runs/large --rate 0.3 --out router.json
reason ask "…" -s question-router --set router=router.json -m LARGE --small-model SMALL

[b]Exit status[/b]

0 finished   1 internal error   2 wrong usage, or the runs allow no router   3 the model failed
130 interrupted: what was looked at is in the run store, and the same command goes on
"""

Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The router's file.", show_default=False)]
Holdout = Annotated[
    float,
    typer.Option(
        min=0,
        max=0.9,
        metavar="SHARE",
        help="Share of the questions that are kept back, by a digest of their text, and told of apart.",
        rich_help_panel=LEARNING,
    ),
]
Folds = Annotated[
    int, typer.Option(min=2, max=20, metavar="N", help="Folds of the cross-validation.", rich_help_panel=LEARNING)
]
NoEntropy = Annotated[
    bool,
    typer.Option(
        "--no-entropy",
        help="Look at no model's first token, neither now nor when questions are routed; none is opened.",
        rich_help_panel=LEARNING,
    ),
]


def auto_router(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN…", help="Folders of evaluation runs of the same questions.", show_default=False),
    ],
    out: Out,
    price: Annotated[
        float,
        typer.Option(
            min=0,
            max=1000,
            metavar="X",
            help="What 1000 generated tokens are worth in chance of being right.",
            rich_help_panel=LEARNING,
        ),
    ] = 0.05,
    holdout: Holdout = 0.0,
    folds: Folds = 5,
    no_entropy: NoEntropy = False,
    small_cost: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="X",
            help="What a token of the small model counts, one of the main model counting 1.",
            rich_help_panel=LEARNING,
        ),
    ] = 1.0,
    model: options.MainModel = None,
    small_model: options.SmallModel = None,
    as_json: options.Json = False,
    store: options.Store = None,
    weight_format: options.WeightFormat = None,
    threads: options.Threads = None,
) -> None:
    """Train the router of the strategy auto: which strategy is worth most for a question.

    Each strategy with its parameters is an arm; the runs of different arms must have at least 40 questions in common.
    What choosing is worth is told by cross-validation, beside each arm at equal average tokens.
    """
    from .train_routers_here import Asked, auto_here

    auto_here(
        Asked(
            runs=tuple(runs),
            out=out,
            holdout=holdout,
            folds=folds,
            entropy=not no_entropy,
            model=model,
            small_model=small_model,
            as_json=as_json,
            store=store,
            local=options.given(weight_format=weight_format, threads=threads) or {},
        ),
        price=price,
        small_cost=small_cost,
    )


def question_router(
    small_run: Annotated[
        Path, typer.Argument(metavar="SMALL_RUN", help="Folder of a run of the small model.", show_default=False)
    ],
    large_run: Annotated[
        Path,
        typer.Argument(metavar="LARGE_RUN", help="Folder of a run of the large model, as main.", show_default=False),
    ],
    out: Out,
    rate: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="X",
            help="Share of the questions that is to go to the large model.",
            rich_help_panel=LEARNING,
        ),
    ] = 0.3,
    holdout: Holdout = 0.0,
    folds: Folds = 5,
    no_entropy: NoEntropy = False,
    as_json: options.Json = False,
    store: options.Store = None,
    weight_format: options.WeightFormat = None,
    threads: options.Threads = None,
) -> None:
    """Train the router of the strategy question-router: which questions need the large model.

    What routing is worth is told by cross-validation, beside sending as many questions there by lot.
    """
    from .train_routers_here import Asked, question_here

    question_here(
        Asked(
            runs=(small_run, large_run),
            out=out,
            holdout=holdout,
            folds=folds,
            entropy=not no_entropy,
            as_json=as_json,
            store=store,
            local=options.given(weight_format=weight_format, threads=threads) or {},
        ),
        rate=rate,
    )
