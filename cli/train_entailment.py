"""`reason train entailment`: train an embedded entailment model on labelled claims."""

from __future__ import annotations

import asyncio
import shlex
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .command import option_model
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .options import DATA, Json
from .render.console import out, plain_table, say, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..evals.training.entailment.scoring import EntailmentScore
    from ..evals.training.entailment.training import TrainedEntailment

LEARNING = "Learning"
RUN = "Training run"

EXAMPLES = """
[b]Examples[/b]

reason train entailment --data fever=DIR vitaminc=DIR --corpus sentences.jsonl --out judge.safetensors
reason train entailment --model base --lora-rank 32 --bf16 --data fever=DIR --corpus DIR --out judge.safetensors
reason train entailment --data fever=DIR --corpus DIR --out judge.safetensors --run-dir runs/judge --resume

[b]Exit status[/b]

0 finished   1 internal error   2 usage error, or damaged data   3 the encoder is unavailable
130 interrupted; the training so far is saved, and --resume continues it
"""


@dataclass(frozen=True, kw_only=True)
class TrainEntailmentOptions:
    """Options of `reason train entailment`."""

    corpus: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="JSON Lines of the sentences that FEVER's retrieval names.", rich_help_panel=DATA
        ),
    ]
    out: Annotated[Path, typer.Option(metavar="FILE", help="File of the trained model.")]
    more_data: Annotated[
        list[str], typer.Argument(metavar="NAME=PATH...", help="More datasets, as with --data.", show_default=False)
    ] = field(default_factory=list)
    data: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=PATH",
            help="Dataset to train on, a share of which is held out: fever, vitaminc, sufficient_facts, "
            "fever_symmetric, climate_fever, or any file of rows with claim, evidence and label. Repeatable.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = field(default_factory=list)
    train_only: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=PATH",
            help="Dataset for training alone. Repeatable.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = field(default_factory=list)
    test_only: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=PATH",
            help="Dataset that is scored and never trained on. Repeatable.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = field(default_factory=list)
    rate: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=SHARE",
            help="Share of a dataset's claims that an epoch samples; 1 by default. Repeatable.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = field(default_factory=list)
    holdout: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=0.89,
            metavar="SHARE",
            help="Share of the claims held out from the training, by a digest of their text.",
            rich_help_panel=DATA,
        ),
    ] = 0.2
    model: Annotated[
        Literal["small", "base"],
        typer.Option(help="Encoder: all-MiniLM-L6-v2 or all-mpnet-base-v2.", rich_help_panel=LEARNING),
    ] = "small"
    lora_rank: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Rank of the change of a matrix; 0 trains the matrices themselves.",
            rich_help_panel=LEARNING,
        ),
    ] = 0
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Trained weights that the training continues. (default: the encoder alone)",
            rich_help_panel=LEARNING,
        ),
    ] = None
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Number of epochs.", rich_help_panel=LEARNING)] = 3
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Random seed.", rich_help_panel=LEARNING)] = 0
    batch_size: Annotated[int, typer.Option(min=2, metavar="N", help="Pairs per step.", rich_help_panel=LEARNING)] = 32
    lr: Annotated[
        float, typer.Option(min=1e-7, metavar="X", help="Maximum learning rate.", rich_help_panel=LEARNING)
    ] = 2e-4
    bits: Annotated[
        int, typer.Option(min=2, max=8, metavar="N", help="Bits per weight in the file.", rich_help_panel=LEARNING)
    ] = 6
    bf16: Annotated[
        bool,
        typer.Option(
            "--bf16",
            help="Matrix products in bf16: faster on CPUs with native bf16, slower on others.",
            rich_help_panel=LEARNING,
        ),
    ] = False
    card: Annotated[Path | None, typer.Option(metavar="FILE", help="File of the model card.", rich_help_panel=RUN)] = (
        None
    )
    run_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Directory of the checkpoint and the learning curve. (default: the model's file, with suffix .work)",
            rich_help_panel=RUN,
        ),
    ] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Continuation of the training in --run-dir.", rich_help_panel=RUN)
    ] = False
    max_minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01, metavar="X", help="Maximum minutes of training; it can be resumed.", rich_help_panel=RUN
        ),
    ] = None
    log_every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Steps between points of the learning curve.", rich_help_panel=RUN)
    ] = 100
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="CPU threads.", rich_help_panel=RUN)] = None
    as_json: Json = False


@option_model
def entailment(options: TrainEntailmentOptions) -> None:
    """Train an embedded entailment model: whether a text supports or refutes a claim, or neither.

    A share of the claims is held out by a digest of their text, and the trained model is scored on them.
    """
    from ..core.errors import Cancelled
    from ..core.settings import load_settings
    from ..evals.training.entailment.training import load_training_data, train_entailment
    from ..evals.training.loop import TrainerConfig
    from ..verify.entailment.embedded import load_delta
    from .inputs import parse_paths, parse_shares
    from .render.train_view import StepView

    settings = load_settings()
    data = load_training_data(
        parse_paths([*options.data, *options.more_data], "--data"),
        options.corpus.expanduser(),
        train_only=parse_paths(options.train_only, "--train-only"),
        test_only=parse_paths(options.test_only, "--test-only"),
        holdout=options.holdout,
    )
    splits = data.splits
    say(
        f"{len(splits.train):,} training claims, {len(splits.validation):,} for validation, "
        f"{len(splits.test):,} held out"
    )
    run_dir = options.run_dir or options.out.with_suffix(".work")
    max_seconds = None if options.max_minutes is None else 60 * options.max_minutes
    config = TrainerConfig(validate_every=options.log_every, max_seconds=max_seconds)
    hyperparameters = {
        "model": options.model,
        "lora_rank": options.lora_rank,
        "mix": {"rates": parse_shares(options.rate, "--rate")},
        "epochs": options.epochs,
        "seed": options.seed,
        "batch_size": options.batch_size,
        "lr": options.lr,
        "bits": options.bits,
        "bf16": options.bf16,
    }
    stop = threading.Event()
    view = StepView("reason train entailment", options.epochs)

    def train_in_thread() -> TrainedEntailment | None:
        if options.threads is not None:
            import torch

            torch.set_num_threads(options.threads)
        return train_entailment(
            data,
            settings,
            options.out,
            run_dir,
            config=config,
            hyperparameters=hyperparameters,
            resume=options.resume,
            start=None if options.start is None else load_delta(file=options.start),
            card=options.card,
            cancel=stop,
            on_point=view.noted,
            progress=view.pulled,
        )

    def on_first_signal() -> None:
        stop.set()
        view.note("stopping after this step")

    async def run() -> TrainedEntailment | None:
        training = asyncio.ensure_future(asyncio.to_thread(train_in_thread))
        try:
            return await asyncio.shield(training)
        except asyncio.CancelledError:
            await asyncio.wait([training])
            if not training.cancelled() and isinstance(training.exception(), Cancelled):
                raise
            return training.result()  # it ended, or failed, before it saw the signal

    resume = shlex.join(["--resume", "--run-dir", str(run_dir)])
    try:
        with view:
            trained = run_interruptible(run(), on_first=on_first_signal)
    except asyncio.CancelledError:
        say(f"interrupted; the training is saved, and the same command with {resume} continues it")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if trained is None:
        say(f"--max-minutes is reached; the training is saved, and the same command with {resume} continues it")
        raise typer.Exit(EXIT_INTERRUPTED)
    if options.as_json:
        write_json(
            {
                "file": str(options.out),
                "digest": trained.delta.digest,
                "bytes": trained.size,
                "scores": [score.model_dump(mode="json") for score in trained.scores],
                "curve": list(trained.curve),
            }
        )
    else:
        _print_scores(trained.scores)
    say(f"the model is in {options.out} ({trained.size / 1e6:.2f} MB)")


def _print_scores(scores: Sequence[EntailmentScore]) -> None:
    table = plain_table(
        "held out", "claims", "right", "95 %", "macro F1", "ECE", right="claims|right|95 %|macro F1|ECE"
    )
    for score in scores:
        interval = f"{100 * score.low:.1f} to {100 * score.high:.1f}"
        accuracy = f"{100 * score.accuracy:.1f}%"
        table.add_row(score.name, f"{score.claims:,}", accuracy, interval, f"{score.macro_f1:.3f}", f"{score.ece:.3f}")
    out().print(table)
