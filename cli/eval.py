"""`reason eval`: measure strategies on datasets, compare and report runs."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import shlex
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar

import typer
from typer.core import TyperGroup

from .command import is_default, option_model
from .completion import complete_dataset
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .options import (
    DATA,
    ENGINE,
    OUTPUT,
    REASONING,
    BudgetOptions,
    Concurrency,
    FieldMap,
    FileStore,
    Json,
    Limit,
    ReasoningOptions,
    RunStore,
    Select,
    Trajectories,
)
from .render.console import out, plural, print_facts, say, write_json

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from ..core.settings import Settings
    from ..evals.datasets.items import Dataset
    from ..evals.plan import DatasetSource, EvalPlan
    from ..evals.results import ResultRow
    from .render.evaluations import EvalView

T = TypeVar("T")
RUNS = Path("eval-runs")
MIN_USEFUL_AUROC = 0.6
"""Area under the ROC curve within questions below which selecting and pruning are hardly better than chance."""

EXAMPLES = """
[b]Examples[/b]

reason eval gsm8k --limit 50 --out runs/cot
reason eval gsm8k --limit 50 -s self-consistency --set n=8 --out runs/sc8
reason eval compare runs/cot runs/sc8
reason eval report runs/cot runs/sc8 --out report.html
reason eval my.jsonl --map question=q,answer=a
reason eval --resume --out runs/sc8
reason eval sweep sweep.toml --out runs/sweep
reason eval calibrate runs/sc8 --method platt --out sc8.json
reason eval agents shop:Environment --trials 4 -m openai/gpt-5-mini

[b]Exit status[/b]

0 finished   1 internal error   2 usage error   3 failure of a model or store
130 interrupted; finished items are saved, and the command that resumes is printed
"""


class RunByDefault(TyperGroup):
    """A command group that runs `run DATASET` for `DATASET`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert `run` if the first argument is no command."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete the dataset of `run` too."""
        (dataset,) = (p for p in self.commands["run"].params if p.name == "dataset")
        return [*dataset.shell_complete(ctx, incomplete), *super().shell_complete(ctx, incomplete)]


eval_app = typer.Typer(cls=RunByDefault, help="Measure strategies on datasets; compare and report runs.")


@eval_app.callback(invoke_without_command=True, epilog=EXAMPLES)
def eval_(context: typer.Context) -> None:
    """Measure strategies on datasets; compare and report runs.

    reason eval DATASET is short for reason eval run DATASET.
    """
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")


Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Continue the run in --out; finished items are not repeated.", rich_help_panel=OUTPUT
    ),
]
Reuse = Annotated[
    str | None,
    typer.Option(
        metavar="run|store|none",
        help="Reuse stored completions of the item, of any run, or none. (default: store)",
        rich_help_panel=ENGINE,
    ),
]


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """How a dataset is loaded."""

    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read this local file, or directory of datasets, instead of the hub.",
            rich_help_panel=DATA,
        ),
    ] = None
    map: FieldMap = None
    dataset_options: Annotated[
        list[str],
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="Set an option of the dataset. Repeatable.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = field(default_factory=list)
    limit: Limit = None


@dataclass(frozen=True, kw_only=True)
class EvalRunOptions:
    """Options of `reason eval run`."""

    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATASET]",
            help="Name of a dataset, or a JSONL or CSV file; left out with --resume.",
            autocompletion=complete_dataset,
        ),
    ] = None
    reasoning: ReasoningOptions
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="K",
            help="Run each item under this many seeds. (default: 3 if the strategy samples, else 1)",
            rich_help_panel=REASONING,
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Start at this seed. (default: 0)", rich_help_panel=REASONING),
    ] = None
    trajectories: Trajectories = None
    select: Select = None
    source: DatasetOptions
    budget: BudgetOptions
    concurrency: Concurrency = None
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the run to this directory. (default: eval-runs/, under a name derived from the settings)",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    resume: Resume = False
    as_json: Json = False
    store: RunStore = None
    reuse: Reuse = None

    @property
    def decides_run(self) -> bool:
        """Whether an option is set that decides the results of the run, apart from the dataset."""
        groups = (self.reasoning, self.source, self.budget)
        others = (self.seeds, self.seed, self.reuse, self.trajectories, self.select)
        return not all(map(is_default, groups)) or any(value is not None for value in others)


@eval_app.command(epilog=EXAMPLES)
@option_model
def run(options: EvalRunOptions) -> None:
    """Run every item of a dataset and score the answers. Budget limits apply to each item."""
    from ..core.store.location import parse_location
    from ..evals.runner import evaluate, stored_location
    from .render.evaluations import EvalView, say_data, say_default_seeds

    settings = _settings(options)
    store = None if options.store is None else parse_location(options.store)
    prepared = _prepare(options, settings)
    say_data(prepared.dataset)
    if options.dataset is not None and options.seeds is None and len(prepared.plan.seeds) > 1:
        say_default_seeds(len(prepared.dataset.items[: prepared.plan.limit]), len(prepared.plan.seeds))
    if prepared.plan.parameters.get("temperature") == 0 and len(prepared.plan.seeds) > 1:
        say("temperature is 0, so every seed gives the same answer", label="note", style="cyan")
    resume = shlex.join(
        ["reason", "eval", "--resume", "--out", str(prepared.out)]
        + (["--store", stored_location(store)] if store is not None else [])
    )
    view = EvalView(prepared.label or f"{prepared.dataset.name} {prepared.plan.strategy}")
    work = evaluate(
        prepared.plan,
        prepared.dataset,
        prepared.source,
        prepared.out,
        settings,
        label=prepared.label,
        resume=options.resume,
        concurrency=options.concurrency,
        store=store,
        observer=view,
        progress=view.pulled,
    )
    rows = _run_resumable(view, work, resume)
    _print_result(prepared, rows, as_json=options.as_json)


def _run_resumable(view: EvalView, work: Coroutine[Any, Any, T], resume: str) -> T:
    """Run an evaluation or a sweep under its view; name the command that resumes it if it ends early."""
    from ..core.errors import ReasonError

    try:
        with view:
            return run_interruptible(work, on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        saved = "the finished items are saved" if view.has_stored else "nothing is finished yet"
        say(f"interrupted; {saved}: {resume}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except ReasonError:
        if view.has_stored:
            say(f"the work so far is saved: {resume}", label="note", style="cyan")
        raise


class _Prepared(NamedTuple):
    plan: EvalPlan
    dataset: Dataset
    source: DatasetSource
    out: Path
    label: str


def _settings(options: EvalRunOptions) -> Settings:
    from ..agents.planner import refuse_unused_models, used_roles
    from ..core.settings import load_settings

    reasoning = options.reasoning
    flags = {
        **reasoning.settings,
        "small_model": reasoning.small_model,
        "judge_model": reasoning.judge_model,
        "reward_model": reasoning.reward_model,
        "jurors": tuple(reasoning.jurors) or None,
        "budget": options.budget.limits,
    }
    settings = load_settings(**flags, reuse=options.reuse or "store")
    roles = used_roles(settings.strategy, settings.verify, settings.verifiers) | ({options.select or ""} & {"judge"})
    refuse_unused_models(settings, roles, flags)
    chosen = {"trajectories": options.trajectories, "select": options.select}
    update = {name: value for name, value in chosen.items() if value is not None}
    settings = settings.model_copy(update={"tools": settings.tools.model_copy(update=update)})
    if reasoning.calibration is None:
        return settings
    maps = {**settings.calibration, settings.strategy: reasoning.calibration}
    return settings.model_copy(update={"calibration": maps})


def _prepare(options: EvalRunOptions, settings: Settings) -> _Prepared:
    """Load the data and make the plan; a resumed run keeps its own."""
    from ..core.errors import UserError
    from ..evals import plan as eval_plan
    from ..evals.datasets.custom import parse_map
    from ..evals.datasets.loading import open_dataset
    from ..evals.run_directory import read_manifest
    from ..evals.runner import make_plan, run_directory_name
    from .inputs import parse_parameters, parse_texts

    data = options.source
    dataset_options = parse_texts(data.dataset_options, "--option")
    parameters = parse_parameters(options.reasoning.parameters)
    if options.dataset is None:
        if not options.resume or options.out is None:
            raise UserError("no dataset is named", hint="reason eval DATASET; or --resume --out DIR")
        if options.decides_run:
            raise UserError("a resumed run keeps its own options", hint="leave out everything but --resume and --out")
        manifest = read_manifest(options.out)
        dataset = open_dataset(manifest.source)
        return _Prepared(manifest.plan, dataset, manifest.source, options.out, manifest.label)
    source = eval_plan.DatasetSource(
        dataset=options.dataset, data=data.data, map=parse_map(data.map or ""), options=dataset_options
    ).absolute()
    dataset = open_dataset(source)
    if (options.trajectories, options.select) != (None, None) and not any(item.tools for item in dataset.items):
        raise UserError(
            "several trajectories need tools, and no item of the dataset has some",
            hint="name a pool of recorded runs, or try the tasks of an environment with reason eval agents",
        )
    first_seed = options.seed or 0
    seeds = None if options.seeds is None else range(options.seeds)
    plan = make_plan(dataset, settings, parameters=parameters, limit=data.limit, seeds=seeds)
    plan = plan.model_copy(update={"seeds": tuple(first_seed + seed for seed in plan.seeds)})
    return _Prepared(plan, dataset, source, options.out or RUNS / run_directory_name(plan), "")


def _print_result(prepared: _Prepared, rows: Sequence[ResultRow], *, as_json: bool) -> None:
    from ..evals.plan import IN_SAMPLE_WARNING
    from ..evals.run_directory import read_manifest
    from ..evals.summary import summarize
    from .render.evaluations import print_details, print_runs, say_warnings

    summary, directory = summarize(rows), prepared.out
    label = prepared.label or read_manifest(directory).label
    if as_json:
        plan, tokens = prepared.plan, Counter[str]()
        for row in rows:
            tokens.update(row.ledger.tokens_by_role)
        record = {
            "run": str(directory),
            "label": label,
            "dataset": plan.dataset.full_name,
            "strategy": plan.strategy,
            "parameters": plan.parameters,
            "models": plan.models,
            "limits": plan.budget.model_dump(exclude_none=True),
            "tokens_by_role": tokens,
            **summary.model_dump(mode="json"),
        }
        write_json(record)
    else:
        print_runs([(label, summary)])
        print_details(summary)
    say_warnings(label, summary)
    plan = read_manifest(directory).plan
    if plan.in_sample:
        say(f"{label}: {IN_SAMPLE_WARNING.format(plan.calibration)}", label="warning", style="yellow")
    say(f"{summary.rows} rows in {directory}; reason eval report {shlex.quote(str(directory))} --out report.html")


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Options of `reason eval sweep`."""

    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="Definition of the sweep.")]
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the runs to this directory. (default: eval-runs/, under the file's name)",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Use this main model instead of the file's.",
            rich_help_panel=REASONING,
        ),
    ] = None
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read the datasets for which the sweep names no file from this file or directory.",
            rich_help_panel=DATA,
        ),
    ] = None
    resume: Resume = False
    concurrency: Concurrency = None
    as_json: Json = False
    store: FileStore = None
    reuse: Reuse = None


@eval_app.command()
@option_model
def sweep(options: SweepOptions) -> None:
    """Run strategies over parameters, budgets and models from a TOML file; all runs share recorded samples."""
    from ..core.settings import load_settings
    from ..evals.run_directory import STORE
    from ..evals.runner import DEFAULT_CONCURRENCY
    from ..evals.summary import summarize
    from ..evals.sweep import SweepModels, plan_sweep, read_sweep, run_sweep
    from .render.evaluations import EvalView, print_runs, say_data, say_default_seeds, say_warnings

    settings = load_settings(reuse=options.reuse or "store")
    directory = options.out or RUNS / options.file.stem
    definition = read_sweep(options.file)
    if options.model is not None:
        definition = definition.model_copy(update={"models": [SweepModels(main=options.model)]})
    if options.data is not None:
        datasets = [
            d if d.data is not None else d.model_copy(update={"data": options.data}) for d in definition.dataset
        ]
        definition = definition.model_copy(update={"dataset": datasets})
    jobs = plan_sweep(definition, settings, directory)
    for dataset in {job.dataset.fingerprint: job.dataset for job in jobs}.values():
        say_data(dataset)
    if definition.seeds is None and any(len(job.plan.seeds) > 1 for job in jobs):
        sampled = max(jobs, key=lambda job: len(job.plan.seeds)).plan.seeds
        items = sum(len(job.dataset.items[: job.plan.limit]) for job in jobs if len(job.plan.seeds) > 1)
        say_default_seeds(items, len(sampled))
    command = ["reason", "eval", "sweep", str(options.file), "--resume", "--out", str(directory)]
    for flag, value in (
        ("--model", options.model),
        ("--data", options.data),
        ("--concurrency", options.concurrency),
        ("--store", options.store),
    ):
        if value is not None:
            command += [flag, str(value)]
    resume = shlex.join(command)
    view = EvalView("reason eval sweep")
    work = run_sweep(
        jobs,
        settings,
        options.store or directory / STORE,
        resume=options.resume,
        concurrency=options.concurrency or DEFAULT_CONCURRENCY,
        watch=view.watch,
        progress=view.pulled,
    )
    rows = _run_resumable(view, work, resume)
    summaries = [(job, summarize(job_rows)) for job, job_rows in zip(jobs, rows, strict=True)]
    if options.as_json:
        records = [{"run": str(j.out), "label": j.label, "summary": s.model_dump(mode="json")} for j, s in summaries]
        write_json(records)
    else:
        print_runs([(job.label, summary) for job, summary in summaries])
    for job, summary in summaries:
        say_warnings(job.label, summary)
    say(f"{len(jobs)} runs in {directory}; reason eval report {shlex.quote(str(directory))} --out report.html")


@dataclass(frozen=True, kw_only=True)
class AgentOptions:
    """Options of `reason eval agents`."""

    environment: Annotated[
        str,
        typer.Argument(metavar="MODULE:ENVIRONMENT", help="Environment, as reason.evals.environments describes it."),
    ]
    reasoning: ReasoningOptions
    trials: Annotated[int, typer.Option(min=1, metavar="K", help="Try each task this many times.")] = 1
    limit: Limit = None
    budget: BudgetOptions
    concurrency: Annotated[
        int, typer.Option(min=1, metavar="N", help="Try at most N tasks at once.", rich_help_panel="Scale")
    ] = 1
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a line of JSON for each trial to this file. (default: in eval-runs/, named after the "
            "environment)",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep the finished trials of --out.", rich_help_panel=OUTPUT),
    ] = False
    as_json: Json = False
    store: RunStore = None


@eval_app.command()
@option_model
def agents(options: AgentOptions) -> None:
    """Let an agent try the tasks of an environment with tools; prints pass@1, pass^k and cost."""
    from ..agents.reasoner import Reasoner
    from ..core.errors import UserError
    from ..core.settings import load_settings
    from ..evals.environments import Trial, evaluate_environment, load_environment, read_trials, summarize

    environment = load_environment(options.environment)
    reasoning = options.reasoning
    settings = load_settings(**reasoning.settings, budget=options.budget.limits, store=options.store)
    out = options.out or RUNS / f"{options.environment.replace(':', '-')}.jsonl"
    if out.exists() and not options.resume:
        raise UserError(f"{out} exists", hint="add --resume to keep its trials, or choose another --out")
    done = read_trials(out) if out.exists() else []
    tasks = list(environment.tasks)[: options.limit]

    async def work() -> list[Trial]:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w", encoding="utf-8") as file:

            def write(trial: Trial) -> None:
                file.write(trial.model_dump_json() + "\n")
                file.flush()
                say(
                    f"{trial.task} {trial.trial}: {trial.error or format(trial.score, 'g')}",
                    label="trial",
                    style="cyan",
                )

            for trial in done:
                file.write(trial.model_dump_json() + "\n")
            file.flush()
            async with Reasoner(**reasoning.arguments, settings=settings) as reasoner:
                return await evaluate_environment(
                    reasoner,
                    environment,
                    tasks=tasks,
                    name=options.environment,
                    trials=options.trials,
                    concurrency=options.concurrency,
                    done=done,
                    write=write,
                )

    try:
        trials = run_interruptible(work())
    except asyncio.CancelledError:
        say(f"interrupted; the finished trials are in {out}: repeat the command with --resume")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    summary = summarize(trials)
    if options.as_json:
        write_json(summary.model_dump(mode="json"))
        return
    print_facts(
        {
            "tasks": f"{summary.tasks}",
            "trials": f"{summary.trials}",
            **{("pass@1" if k == 1 else f"pass^{k}"): f"{value:.3f}" for k, value in summary.pass_hat.items()},
            "mean score": f"{summary.mean_score:.3f}",
            "per trial": f"{summary.tokens_per_trial:,.0f} tokens, {summary.turns_per_trial:.1f} turns, "
            f"{summary.tool_calls_per_trial:.1f} tool calls",
            "USD per trial": "" if summary.usd_per_trial is None else f"{summary.usd_per_trial:.4f}",
            "errors": f"{summary.errors}" if summary.errors else "",
        }
    )
    say(f"{len(trials)} trials in {out}")


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Options of `reason eval compare`."""

    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Directories of runs; the first is the baseline.")
    ]
    as_json: Json = False


@eval_app.command()
@option_model
def compare(options: CompareOptions) -> None:
    """Compare runs item by item: difference with confidence interval, exact test, detectable difference.

    The p-values of several comparisons are adjusted by Holm's method. The settings in which two runs differ are listed.
    Runs on other data, or without a common item, are refused.
    """
    from ..core.errors import UserError
    from ..evals.comparison import compare_all
    from ..evals.run_directory import load_runs, run_folders
    from .render.evaluations import print_comparison

    runs = load_runs(run_folders(options.runs))
    if len(runs) < 2:
        raise UserError("a comparison needs two runs, got one", hint="reason eval compare RUN RUN")
    comparisons = compare_all((run, runs[0]) for run in runs[1:])
    if options.as_json:
        write_json([comparison.model_dump(mode="json") for comparison in comparisons])
        return
    for comparison in comparisons:
        print_comparison(comparison, several=len(comparisons) > 1)
        out().print()


@dataclass(frozen=True, kw_only=True)
class CalibrateOptions:
    """Options of `reason eval calibrate`."""

    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run on development data.")]
    out: Annotated[Path, typer.Option(metavar="FILE", help="Write the calibration map to this JSON file.")]
    method: Annotated[
        Literal["temperature", "platt", "isotonic"],
        typer.Option(
            help="Fit a scaling of the log-odds, a scaling and shift, or any non-decreasing function.",
        ),
    ] = "temperature"
    as_json: Json = False


SCORES = {"ece": "ECE", "brier": "Brier", "nll": "NLL"}


@eval_app.command()
@option_model
def calibrate(options: CalibrateOptions) -> None:
    """Fit a map from a strategy's stated confidence to its accuracy, and score the map out of sample.

    The map is used with --calibration FILE of ask and eval, or with the setting calibration.STRATEGY = "FILE".
    """
    from rich.text import Text

    from ..evals.calibration import fit_calibration_map, save_calibration_map
    from ..evals.run_directory import load_run
    from .render.console import plain_table, printable

    stored = load_run(options.run)
    fitted, answers = fit_calibration_map(stored, options.method)
    save_calibration_map(fitted, options.out)
    fitted = fitted.model_copy(update={"name": options.out.stem})
    if options.as_json:
        record = {
            "file": str(options.out),
            "worse": list(fitted.regressed_scores),
            "map": fitted.model_dump(mode="json"),
            "rows_without_confidence": answers.unstated,
            "rows_neither_right_nor_wrong": answers.undecided,
        }
        write_json(record)
    else:
        calibrated = f"calibrated, out of sample ({fitted.folds} folds)"
        table = plain_table("score", "stated", calibrated, right=f"stated|{calibrated}")
        for name, title in SCORES.items():
            table.add_row(title, f"{getattr(fitted.before, name):.4f}", f"{getattr(fitted.after, name):.4f}")
        curve = fitted.curve
        shape = (
            f"isotonic, {len(curve.knots)} knots"
            if curve.method == "isotonic"
            else f"{curve.method}: sigmoid({curve.intercept:.4f} + {curve.slope:.4f} * logit(c))"
        )
        data = f"{fitted.strategy}, {fitted.answers} answers to {fitted.items} items of {fitted.dataset}"
        out().print(table)
        out().print()
        out().print(Text(printable(f"{shape}; {data}")))
    if not stored.manifest.complete:
        say(
            f"the run is not finished: the map is fitted to its {fitted.answers} answers so far",
            label="warning",
            style="yellow",
        )
    if answers.unstated:
        say(f"{answers.unstated} rows without a confidence are left out", label="note", style="cyan")
    if answers.undecided:
        say(f"{answers.undecided} rows that are neither right nor wrong are left out", label="note", style="cyan")
    if fitted.regressed_scores:
        regressed = ", ".join(SCORES[name] for name in fitted.regressed_scores)
        say(
            f"out of sample the map made {regressed} worse; the stated confidence may be the better one",
            label="warning",
            style="bold red" if "ece" in fitted.regressed_scores else "yellow",
        )
    if fitted.curve.constant:
        say(
            "the map is constant: the stated confidences do not separate right from wrong answers",
            label="warning",
            style="yellow",
        )
    use = shlex.join(["reason", "ask", "QUESTION", "-s", fitted.strategy, "--calibration", str(options.out)])
    say(f"the map is in {options.out}; {use}")


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of `reason eval report`."""

    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Directories of runs or sweeps.")]
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the report to this .html, .md or .json file. (default: print a table)"
        ),
    ] = None


@eval_app.command()
@option_model
def report(options: ReportOptions) -> None:
    """Report runs: table, curves, calibration, subjects, disagreements."""
    from ..core.errors import UserError
    from ..evals.report.content import build_content
    from ..evals.report.page import FORMS, write_report
    from ..evals.run_directory import load_runs, run_folders
    from ..evals.summary import summarize
    from .render.evaluations import print_runs, say_warnings

    if options.out is not None and options.out.suffix.lower() not in FORMS:
        raise UserError(f"--out {options.out} is not a report format", hint="use the suffix .html, .md or .json")
    runs = load_runs(run_folders(options.runs))
    if options.out is None:
        summaries = [(run.label, summarize(run.rows)) for run in runs]
        print_runs(summaries)
        for label, summary in summaries:
            say_warnings(label, summary)
        return
    write_report(build_content(runs, "Evaluation"), options.out)
    say(f"{plural(len(runs), 'run')} reported in {options.out}")


@dataclass(frozen=True, kw_only=True)
class SignalOptions:
    """Options of `reason eval signal`."""

    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run with self-evaluated samples.")]
    as_json: Json = False


@eval_app.command()
@option_model
def signal(options: SignalOptions) -> None:
    """Measure a model's self-evaluation of its samples: how well it ranks them, and how to calibrate it.

    RUN is a run of adaptive, or of best-of-n with --set score=self-evaluation. One of adaptive with --set prune_at=[…]
    and keep=1 measures it on partial samples, too, which pruning needs.
    """
    from ..evals.calibration import SignalQuality, SignalRanking, measure_self_evaluation
    from ..evals.run_directory import load_run, read_solution_notes, run_store_path
    from .render.console import plain_table

    async def measure() -> SignalQuality:
        run = load_run(options.run)
        is_partial = bool(run.manifest.plan.parameters.get("prune_at"))
        notes = await read_solution_notes(run.rows, run_store_path(run)) if is_partial else None
        return await measure_self_evaluation(run, notes)

    measured = asyncio.run(measure())
    if options.as_json:
        write_json(dataclasses.asdict(measured))
    else:
        table = plain_table("", "AUROC", "95% interval", "pairs", right="AUROC|95% interval|pairs")

        def add_row(name: str, auroc: float | None, ranking: SignalRanking | None = None) -> None:
            ends = None if ranking is None else ranking.interval
            table.add_row(
                name,
                "not estimable" if auroc is None else f"{auroc:.3f}",
                "" if ends is None else f"[{ends.low:.3f}, {ends.high:.3f}]",
                "" if ranking is None else f"{ranking.pairs:,}",
            )

        add_row("within questions", measured.within.auroc, measured.within)
        add_row("across questions", measured.across)
        for at, ranking in measured.checkpoints.items():
            add_row(f"at {at} tokens", ranking.auroc, ranking)
        out().print(table)
        length = "not estimable" if measured.length is None else f"{measured.length:.3f}"
        out().print(
            f"\n{measured.samples} samples of {measured.items} questions, {measured.silent} without a signal; rank "
            f"correlation with length {length}; Brier score {measured.brier[0]:.4f}, {measured.brier[1]:.4f} calibrated"
        )
    if measured.within.auroc is None or measured.within.auroc < MIN_USEFUL_AUROC:
        say(
            "within a question the signal hardly separates right from wrong samples: do not select or prune by it",
            label="warning",
            style="yellow",
        )
    auroc = measured.pruning_auroc
    pruning = "" if auroc is None else f" --set auroc={math.floor(1000 * auroc) / 1000:g}"
    say(f"use it with --set alpha={measured.alpha:.4g} --set beta={measured.beta:.4g}{pruning}")
