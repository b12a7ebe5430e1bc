"""`reason train`: navigators for the strategy `rlot`, routers, judges of entailment; and what is in a navigator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .train_entailment import EXAMPLES as ENTAILMENT_EXAMPLES
from .train_entailment import entailment
from .train_routers import AUTO_EXAMPLES, QUESTION_EXAMPLES, auto_router, question_router

LEARNING = "Learning"
WORK = "Work"

EXAMPLES = """
[b]Examples[/b]

reason train navigator --data gsm8k -m local/smollm2-135m --episodes 300 --out nav.safetensors
reason train navigator --data gpqa=gpqa.csv --reward prm --reward-model local/FOLDER --work runs/nav
reason train navigator --resume --work runs/nav
reason train show nav.safetensors
reason eval runs/nav/held_out.jsonl -s rlot --set navigator=nav.safetensors

[b]Exit status[/b]

0 finished, or ended by --tokens   1 internal error   2 wrong usage   3 the model failed
4 --tokens was spent before the first episode
130 interrupted: what there is is saved, and the command that goes on is said
"""

train_app = typer.Typer(
    help="Train navigators for the strategy rlot, routers for auto and question-router, and judges of entailment.",
    no_args_is_help=True,
)
train_app.command("auto-router", epilog=AUTO_EXAMPLES)(auto_router)
train_app.command("question-router", epilog=QUESTION_EXAMPLES)(question_router)
train_app.command("entailment", epilog=ENTAILMENT_EXAMPLES)(entailment)


@train_app.command(epilog=EXAMPLES)
def navigator(
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="NAME[=FILE]",
            help="Dataset to train on, from the hub or a local file or folder; or a JSONL or CSV file of your own. May "
            "be repeated.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    map_: options.FieldMap = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Only the first N items of each dataset.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    problems: Annotated[
        str | None,
        typer.Option(
            metavar="hard|all",
            help="Train on the questions that a direct answer gets wrong, or on all. (default: hard)",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            "--held-out",
            min=0,
            max=0.99,
            metavar="SHARE",
            help="Share of the questions that are never trained on. (default: 0.5)",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    model: options.MainModel = None,
    reward: Annotated[
        str | None,
        typer.Option(
            metavar="outcome|prm|potential",
            help="What a block earns: nothing before the answer; the reward model's opinion of its step; or how much "
            "it raises that. (default: outcome)",
            show_default=False,
            rich_help_panel=LEARNING,
        ),
    ] = None,
    reward_model: options.RewardModel = None,
    parameters: options.Parameters = None,
    episodes: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Episodes in all. (default: 3000)", show_default=False, rich_help_panel=LEARNING
        ),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            metavar="K",
            help="Episodes under way at a time; it changes the result. (default: 8)",
            show_default=False,
            rich_help_panel=LEARNING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Seed of weights, exploration and order. (default: 0)",
            show_default=False,
            rich_help_panel=LEARNING,
        ),
    ] = None,
    learning: Annotated[
        list[str] | None,
        typer.Option(
            "--learning",
            metavar="KEY=VALUE",
            help="Number of the learning, as lr=0.01, gamma=0.9, batch=64, capacity=500, begins_at=500, "
            "gradient_steps=1, sync_every=50, eps_decay=0.9995, eps_min=0; may be repeated.",
            show_default=False,
            rich_help_panel=LEARNING,
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr",
            metavar="X",
            help="Learning rate, as --learning lr=X. (default: 0.01)",
            show_default=False,
            rich_help_panel=LEARNING,
        ),
    ] = None,
    gamma: Annotated[
        float | None,
        typer.Option(
            "--gamma",
            metavar="X",
            help="Discount, as --learning gamma=X. (default: 0.9)",
            show_default=False,
            rich_help_panel=LEARNING,
        ),
    ] = None,
    validation: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Held-out questions that are asked from time to time. (default: 32)",
            show_default=False,
            rich_help_panel=LEARNING,
        ),
    ] = None,
    validate_every: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Episodes between two validations; 0 is never. (default: 250)",
            show_default=False,
            rich_help_panel=LEARNING,
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens",
            min=1,
            metavar="N",
            help="Most tokens that may be generated; the training ends, and can go on with more.",
            show_default=False,
            rich_help_panel=WORK,
        ),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Episodes between two checkpoints. (default: 10)",
            show_default=False,
            rich_help_panel=WORK,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The navigator's file. (default: navigator.safetensors in --work)",
            show_default=False,
            rich_help_panel=WORK,
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            metavar="DIR",
            help="Folder of checkpoints and logs. (default: training-runs/, a name that follows from the settings)",
            show_default=False,
            rich_help_panel=WORK,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training in --work.", rich_help_panel=WORK)
    ] = False,
    as_json: options.Json = False,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            parser=options.file_store,
            metavar="FILE",
            help="Run store (an SQLite file), where replies are found again. (default: one in --work)",
            show_default=False,
            rich_help_panel=options.ENGINE,
        ),
    ] = None,
    reuse: Annotated[
        str | None,
        typer.Option(
            metavar="run|store",
            help="Whose stored replies may answer a call: the problem's own, or any run's. (default: store)",
            show_default=False,
            rich_help_panel=options.ENGINE,
        ),
    ] = None,
    weight_format: options.WeightFormat = None,
    threads: options.Threads = None,
) -> None:
    """Train a navigator: which block comes next, learned on one model and dataset, for rlot.

    Half of the questions are held out, by a digest of their text; DIR/held_out.jsonl has them, to evaluate on.
    """
    from .train_here import Asked, train_here

    train_here(
        Asked(
            data=tuple(data or ()),
            map=map_,
            limit=limit,
            problems=problems,
            held_out=held_out,
            model=model,
            reward=reward,
            reward_model=reward_model,
            parameters=tuple(parameters or ()),
            parallel=parallel,
            seed=seed,
            learning=(
                *(learning or ()),
                *(() if lr is None else (f"lr={lr}",)),
                *(() if gamma is None else (f"gamma={gamma}",)),
            ),
            validation=validation,
            reuse=reuse,
            weight_format=weight_format,
            threads=threads,
        ),
        schedule=options.given(
            episodes=episodes, tokens=tokens, checkpoint_every=checkpoint_every, validate_every=validate_every
        )
        or {},
        out=out,
        work=work,
        resume=resume,
        store=store,
        as_json=as_json,
    )


@train_app.command()
def show(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help='A navigator\'s file, "default" is the one that comes along; or the file of a trained router.',
            show_default=False,
        ),
    ],
    as_json: options.Json = False,
) -> None:
    """Show a navigator (its card, and what it does in common states) or a router (its arms, signals and origin)."""
    from .train_show import show_here

    show_here(file, as_json=as_json)
