"""Train a navigator for `rlot` on one model and its datasets. See docs/training-a-navigator.md."""

from __future__ import annotations

import asyncio
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import typer
from navigator_training import (
    HELD_OUT,
    EpisodeRecord,
    TrainedNavigator,
    TrainingPlan,
    ValidationResult,
    split_problems,
    train_navigator,
)
from pydantic import ValidationError
from reason.cli.command import option_model
from reason.cli.inputs import parse_parameters, parse_texts
from reason.cli.interrupts import EXIT_INTERRUPTED, run_interruptible
from reason.cli.main import main
from reason.cli.options import DATA, FieldMap, Json, Limit, MainModel, Parameters, RewardModel
from reason.cli.render.console import out, plain_table, say, write_json
from reason.cli.render.evaluations import say_data
from reason.cli.render.status import CountView
from reason.core.errors import UserError
from reason.core.settings import load_settings, user_error_of
from reason.evals.datasets.loading import open_dataset, parse_source
from reason.reasoning.rlot.attempts import MAX_MISSING_SHARE

LEARNING = "Learning"
RUN = "Training run"

EXAMPLES = """
[b]Examples[/b]

python training/navigator/train_navigator.py --data gsm8k -m local/smollm2-135m --episodes 300 --out nav.safetensors
python training/navigator/train_navigator.py --data gpqa=gpqa.csv --reward prm --reward-model local/DIR
python training/routers/train_router.py show nav.safetensors
reason eval runs/nav/held_out.jsonl -s rlot --set navigator=nav.safetensors

An interrupted training continues when the same command is run again.

[b]Exit status[/b]

0 finished, or ended by --max-tokens   1 internal error   2 usage error   3 failure of a model or store
4 --max-tokens was exhausted before the first episode
130 interrupted
"""

app = typer.Typer(
    name="train_navigator.py", add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False
)


@dataclass(frozen=True, kw_only=True)
class TrainNavigatorOptions:
    """The options of the command."""

    data: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[=FILE]",
            help="Train on this dataset: its name, optionally with a local file or directory, or a JSONL or CSV file. "
            "Repeatable.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = field(default_factory=list)
    map: FieldMap = None
    limit: Limit = None
    problems: Annotated[
        Literal["hard", "all"],
        typer.Option(help="Train on the questions that a direct answer gets wrong, or on all.", rich_help_panel=DATA),
    ] = "hard"
    holdout: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Hold this share of the questions out of the training.", rich_help_panel=DATA
        ),
    ] = 0.5
    model: MainModel = None
    reward: Annotated[
        Literal["outcome", "prm", "potential"],
        typer.Option(
            help="Reward a block with nothing before the answer, the reward model's score of its step, or the increase "
            "of that score.",
            rich_help_panel=LEARNING,
        ),
    ] = "outcome"
    reward_model: RewardModel = None
    parameters: Parameters = field(default_factory=list)
    episodes: Annotated[int, typer.Option(metavar="N", help="Run this many episodes.", rich_help_panel=LEARNING)] = 3000
    parallel: Annotated[
        int,
        typer.Option(
            metavar="K", help="Run this many episodes at a time; affects the result.", rich_help_panel=LEARNING
        ),
    ] = 8
    seed: Annotated[
        int, typer.Option(metavar="N", help="Seed weights, exploration and order.", rich_help_panel=LEARNING)
    ] = 0
    learning: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="Set a hyperparameter: lr=0.01, gamma=0.9, batch=64, capacity=500, learning_starts=500, "
            "gradient_steps=1, sync_every=50, eps_decay=0.9995, eps_min=0. Repeatable.",
            show_default=False,
            rich_help_panel=LEARNING,
        ),
    ] = field(default_factory=list)
    validation: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Validate on this many held-out questions, every 250 episodes; 0 for none.",
            rich_help_panel=LEARNING,
        ),
    ] = 32
    max_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", help="Stop once this many tokens are generated.", rich_help_panel=RUN),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the navigator to this file. (default: navigator.safetensors in --run-dir)",
            rich_help_panel=RUN,
        ),
    ] = None
    run_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Keep completions and logs in this directory.", rich_help_panel=RUN)
    ] = Path("navigator-training")
    as_json: Json = False


@app.command(epilog=EXAMPLES)
@option_model
def train(options: TrainNavigatorOptions) -> None:
    """Train a navigator, which chooses the next block in rlot, on one model and its datasets.

    Questions are held out by a digest of their text; DIR/held_out.jsonl contains them, for the evaluation.
    """
    if not options.data:
        raise UserError("no dataset to train on is named", hint="name one with --data, for example --data gsm8k")
    plan = _plan(options)
    settings = load_settings(model=options.model, reward_model=options.reward_model)
    datasets = [open_dataset(parse_source(text, options.map)) for text in options.data]
    for dataset in datasets:
        say_data(dataset)
    trained_on, held_out = split_problems(datasets, plan)
    say(f"{len(trained_on)} training questions, {len(held_out)} held out")
    out_file = options.out or options.run_dir / "navigator.safetensors"
    view = CountView("train_navigator.py", "episode")

    def on_progress(result: EpisodeRecord | ValidationResult) -> None:
        if isinstance(result, ValidationResult):
            say(
                f"after {result.episode} episodes: {result.correct} of {result.problems} held-out answers right, "
                f"{result.length:.2f} blocks each"
            )
        else:
            view.count(result.episode, plan.episodes)

    work = train_navigator(plan, datasets, settings, options.run_dir, out_file, on_progress=on_progress)
    try:
        with view:
            trained = run_interruptible(work, on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        say("interrupted; run the same command again to continue")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if options.as_json:
        write_json(
            {
                "navigator": str(out_file.absolute()),
                "digest": trained.navigator.digest,
                "episodes": len(trained.records),
                "problems": trained.num_problems,
                "held_out": trained.num_held_out,
                "complete": trained.is_complete,
                "usage": vars(trained.usage),
                "validations": [validation.model_dump(mode="json") for validation in trained.validations],
                "card": trained.navigator.card.model_dump(mode="json", exclude={"trained_on"}),
            }
        )
    else:
        _print_validations(trained)
    _say_summary(trained)
    say(f"the navigator is in {out_file}")
    if held_out:
        use = ["reason", "eval", str(options.run_dir / HELD_OUT), "-s", "rlot"]
        say(shlex.join([*use, "--set", f"navigator={out_file}", "-m", settings.model]))


def _plan(options: TrainNavigatorOptions) -> TrainingPlan:
    names = ("episodes", "problems", "limit", "holdout", "reward", "parallel", "validation", "max_tokens", "seed")
    values = {name: getattr(options, name) for name in names}
    learning = parse_texts(options.learning, "--learning")
    try:
        return TrainingPlan.model_validate(
            {**values, "learning": learning, "parameters": parse_parameters(options.parameters)}
        )
    except ValidationError as e:
        raise user_error_of(e, "option", TrainingPlan.model_fields) from e


def _print_validations(trained: TrainedNavigator) -> None:
    """Print the validations, and the means of the last episodes."""
    table = plain_table("", "episodes", "right", "return", "blocks")
    last = trained.records[-100:]
    right = sum(r.correct for r in last) / len(last)
    mean_return, length = sum(r.episode_return for r in last) / len(last), sum(r.length for r in last) / len(last)
    span = f"{last[0].episode} to {last[-1].episode}"
    table.add_row("training, exploring", span, f"{100 * right:.1f}%", f"{mean_return:.3f}", f"{length:.2f}")
    for validation in trained.validations:
        table.add_row(
            "held out, greedy",
            str(validation.episode),
            f"{100 * validation.accuracy:.1f}% of {validation.problems}",
            f"{validation.episode_return:.3f}",
            f"{validation.length:.2f}",
        )
    out().print(table)


def _say_summary(trained: TrainedNavigator) -> None:
    usage = trained.usage
    say(
        f"{usage.tokens:,} tokens generated in {usage.completions:,} completions; {usage.reused_completions:,} "
        f"completions ({usage.reused_tokens:,} tokens) reused from the run store"
    )
    requested = sum(r.scores_requested for r in trained.records)
    missing = sum(r.scores_missing for r in trained.records)
    if requested and missing > MAX_MISSING_SHARE * requested:
        say(
            f"{100 * missing / requested:.1f}% of the self-assessment scores could not be parsed and count as 0: the "
            "navigator had too little information",
            label="warning",
            style="yellow",
        )
    if not trained.is_complete:
        say(f"ended by --max-tokens after {len(trained.records)} episodes; run it again to continue", label="note")


if __name__ == "__main__":
    sys.exit(main(app=app))
