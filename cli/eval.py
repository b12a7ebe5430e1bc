"""`reason eval`: strategies measured on datasets, compared and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import options
from .ask import limit_option
from .completions import complete_dataset

SCALE = "Scale"

EXAMPLES = """
[b]Examples[/b]

reason eval gsm8k --limit 50
reason eval math500 -s self-consistency --set n=8 --seeds 4 --out runs/sc8
reason eval my.jsonl --map question=q,answer=a
reason eval --resume --out runs/sc8
reason eval sweep sweep.toml --out runs/sweep
reason eval compare runs/sc8 runs/cot
reason eval report runs/sc8 runs/cot --out report.html
reason eval calibrate runs/sc8 --method platt --out sc8.json

[b]Exit status[/b]

0 finished   1 internal error   2 wrong usage   3 the model failed
130 interrupted: what there is is saved, and the command that goes on is said
"""


class RunByDefault(TyperGroup):
    """Takes what is no command's name for the dataset of `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `run` in front where it was left out."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


eval_app = typer.Typer(cls=RunByDefault, help="Measure strategies on datasets; compare and report runs.")


@eval_app.callback(invoke_without_command=True, epilog=EXAMPLES)
def eval_(context: typer.Context) -> None:
    """Measure strategies on datasets; compare and report runs.

    reason eval DATASET is short for reason eval run DATASET.
    """
    if context.invoked_subcommand is None:
        import sys

        sys.stdout.write(context.get_help() + "\n")


Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Folder of the run. (default: eval-runs/, under a name that follows from the settings)",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with the run in --out; nothing is paid twice.", rich_help_panel=options.OUTPUT
    ),
]
Reuse = Annotated[
    str | None,
    typer.Option(
        metavar="run|store|none",
        help="Whose stored replies may answer a call: the item's own, any run's, nobody's. (default: store)",
        show_default=False,
        rich_help_panel=options.ENGINE,
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="C",
        help="Most items under way at a time. (default: 16)",
        show_default=False,
        rich_help_panel=SCALE,
    ),
]


@eval_app.command(epilog=EXAMPLES)
def run(
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATASET]",
            help="Name of a dataset, or a JSONL or CSV file; left out to --resume a run.",
            autocompletion=complete_dataset,
            show_default=False,
        ),
    ] = None,
    strategy: options.Strategy = None,
    model: options.MainModel = None,
    small_model: options.SmallModel = None,
    judge_model: options.JudgeModel = None,
    reward_model: options.RewardModel = None,
    jurors: options.Jurors = None,
    chair_model: options.ChairModel = None,
    parameters: options.Parameters = None,
    calibration: options.Calibration = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="K",
            help="Ask every item under K seeds. (default: 1)",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="The first seed; the others follow. (default: 0)",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help="Local file, or folder of datasets, instead of the hub.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    map_: options.FieldMap = None,
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Which reading of the dataset.", show_default=False, rich_help_panel=options.DATA
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Another split of the hub's.", show_default=False, rich_help_panel=options.DATA
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(
            metavar="COMMIT", help="Another commit of the hub's.", show_default=False, rich_help_panel=options.DATA
        ),
    ] = None,
    dataset_options: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="The dataset's own option; may be repeated.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    choice_seed: Annotated[
        int | None,
        typer.Option(
            min=-1,
            metavar="N",
            help="Seed of the order of choices; -1 leaves the source's. (default: 0)",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Only the first N items.", show_default=False, rich_help_panel=options.DATA
        ),
    ] = None,
    budget_tokens: Annotated[int | None, limit_option("--budget-tokens", "N", "Most tokens of an item.")] = None,
    budget_calls: Annotated[int | None, limit_option("--budget-calls", "N", "Most model calls of an item.")] = None,
    budget_seconds: Annotated[float | None, limit_option("--budget-seconds", "S", "Most seconds of an item.")] = None,
    budget_usd: Annotated[float | None, limit_option("--budget-usd", "X", "Most US dollars of an item.")] = None,
    concurrency: Concurrency = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Only the I-th of N shards, from 1; [b]reason eval merge[/b] puts them together.",
            show_default=False,
            rich_help_panel=SCALE,
        ),
    ] = None,
    executor: Annotated[
        str, typer.Option(metavar="local|ray", help="Where items are asked.", rich_help_panel=SCALE)
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Workers of the executor ray, each with an engine of its own. (default: 2)",
            show_default=False,
            rich_help_panel=SCALE,
        ),
    ] = None,
    endpoints: Annotated[
        list[str] | None,
        typer.Option(
            "--endpoint",
            metavar="URL",
            help="Server of one worker's model; may be repeated.",
            show_default=False,
            rich_help_panel=SCALE,
        ),
    ] = None,
    out: Out = None,
    resume: Resume = False,
    label: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What reports call the run.", rich_help_panel=options.OUTPUT),
    ] = None,
    as_json: options.Json = False,
    store: options.FileStore = None,
    reuse: Reuse = None,
    weight_format: options.WeightFormat = None,
    threads: options.Threads = None,
) -> None:
    """Ask every item of a dataset and score the answers."""
    from ..agents.chosen_models import refuse_idle_models
    from ..core.settings import load_settings
    from .eval_here import Request, Scale, run_here
    from .eval_inputs import parse_shard, parse_texts
    from .inputs import parse_parameters

    given = {
        "strategy": strategy,
        "model": model,
        "small_model": small_model,
        "judge_model": judge_model,
        "reward_model": reward_model,
        "jurors": tuple(jurors) if jurors else None,
        "chair_model": chair_model,
        "budget": options.given(tokens=budget_tokens, calls=budget_calls, seconds=budget_seconds, usd=budget_usd),
        "local": options.given(weight_format=weight_format, threads=threads),
    }
    settings = load_settings(**given, reuse=reuse or "store")
    refuse_idle_models(settings, settings.verifiers, given)
    if calibration is not None:
        settings = settings.model_copy(update={"calibration": {**settings.calibration, settings.strategy: calibration}})
    data_flags = (data, map_, variant, split, revision, dataset_options, choice_seed, limit)
    asked = (*given.values(), parameters, calibration, seeds, seed, reuse, *data_flags)
    run_here(
        Request(
            dataset=dataset,
            data=data,
            map=map_ or "",
            variant=variant or "",
            split=split or "",
            revision=revision or "",
            options=parse_texts(dataset_options or (), "--option"),
            choice_seed=0 if choice_seed is None else None if choice_seed < 0 else choice_seed,
            limit=limit,
            parameters=parse_parameters(parameters or ()),
            seeds=seeds or 1,
            first_seed=seed or 0,
            settings=settings,
            label=label or "",
            out=out,
            resume=resume,
            store=store,
            as_json=as_json,
            fresh_flags=any(said is not None and said != [] for said in asked),
        ),
        Scale(
            concurrency=concurrency,
            shard=parse_shard(shard),
            executor=executor,
            workers=workers or 2,
            endpoints=tuple(endpoints or ()),
        ),
    )


@eval_app.command()
def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="What to run.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder of the runs. (default: eval-runs/, under the file's name)",
            show_default=False,
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Main model instead of the file's.",
            show_default=False,
            rich_help_panel=options.RUNNING,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help="Local file or folder of all datasets for which the file names none.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    resume: Resume = False,
    concurrency: Concurrency = None,
    at_once: Annotated[
        int,
        typer.Option(
            "--at-once",
            metavar="N",
            min=1,
            max=64,
            help="Datasets that are asked side by side; seconds are then those of a busy machine.",
            rich_help_panel=options.RUNNING,
        ),
    ] = 1,
    as_json: options.Json = False,
    store: options.FileStore = None,
    reuse: Reuse = None,
    weight_format: options.WeightFormat = None,
    threads: options.Threads = None,
) -> None:
    """Run strategies by parameters, budgets and models, from a TOML file; samples are recorded once for all of them."""
    from ..core.settings import load_settings
    from .eval_sweeping import sweep_here

    settings = load_settings(reuse=reuse or "store", local=options.given(weight_format=weight_format, threads=threads))
    sweep_here(
        file,
        settings,
        model=model,
        data=data,
        out=out or Path("eval-runs") / file.stem,
        resume=resume,
        concurrency=concurrency,
        at_once=at_once,
        store=store,
        as_json=as_json,
    )


@eval_app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of runs; the first is compared with.")
    ],
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-different",
            metavar="NAME",
            help="A setting that may differ besides the one compared; may be repeated.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare whatever differs, and say what does.")] = False,
    as_json: options.Json = False,
) -> None:
    """Compare runs item by item: difference with interval, exact test, what could have been seen.

    Runs that differ in more than one setting are refused, and told apart.
    """
    from .eval_reporting import compare_here

    compare_here(runs, allow or [], force=force, as_json=as_json)


@eval_app.command()
def calibrate(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run on development data.", show_default=False)
    ],
    to: Annotated[Path, typer.Option("--out", metavar="FILE", help="Map to write, a JSON file.", show_default=False)],
    method: Annotated[
        str,
        typer.Option(
            metavar="temperature|platt|isotonic",
            help="One number on the log-odds, two, or any function that never falls.",
        ),
    ] = "temperature",
    folds: Annotated[int, typer.Option(min=2, metavar="K", help="Folds of the cross-validation.")] = 5,
    as_json: options.Json = False,
) -> None:
    """Fit a map from a strategy's stated confidence to how often it is right, and say what it is worth out of sample.

    The map is used by --calibration FILE of ask and eval, or by the settings: calibration.STRATEGY = "FILE".
    """
    from .eval_calibrating import calibrate_here

    calibrate_here(run, method, to, folds=folds, as_json=as_json)


@eval_app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or of sweeps.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Report to write: .html, .md or .json.", show_default=False),
    ] = None,
    title: Annotated[str, typer.Option(metavar="TEXT", help="Title of the report.")] = "Evaluation",
) -> None:
    """Put runs into one report: table, curves, calibration, subjects, disagreements."""
    from .eval_reporting import report_here

    report_here(runs, out, title)


@eval_app.command()
def signal(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a run whose samples the model judged.", show_default=False),
    ],
    as_json: options.Json = False,
) -> None:
    """Measure a model's judgement of its own samples: does it rank them, and what calibrates it?

    RUN is one of adaptive, or of best-of-n with --set score=self-evaluation.
    """
    from .eval_signal import signal_here

    signal_here(run, as_json=as_json)


@eval_app.command()
def merge(
    shards: Annotated[list[Path], typer.Argument(metavar="SHARD...", help="Folders of all shards of one run.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the whole.", show_default=False)],
) -> None:
    """Put the shards of one run together: the same rows in the same order as the run in one piece."""
    from ..evals.run_directory import merge as merge_shards
    from .render.console import say

    rows = merge_shards(shards, out)
    say(f"merged {len(shards)} shards: {len(rows)} rows in {out}")
