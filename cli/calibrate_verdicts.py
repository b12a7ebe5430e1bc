"""`reason calibrate verdicts`: fit the verdict model of a judge to labelled claims of several datasets."""

from __future__ import annotations

import asyncio
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from .command import option_model
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .options import DATA, Json
from .render.console import out, plain_table, say, write_json

if TYPE_CHECKING:
    from ..core.settings import Settings
    from ..evals.verification.judging import VerdictStore
    from ..evals.verification.sets import EvaluationSet
    from ..verify.davinci.verdict_model import FittedVerdicts, VerdictExample, VerdictModel
    from .render.train_view import CountView

FITTING = "Fitting"
RUN = "Calibration run"
MIN_CLAIMS: Final = 400
"""Claims below which thresholds follow noise."""

EXAMPLES = """
[b]Examples[/b]

reason calibrate verdicts --data fever=DIR vitaminc=DIR wice=DIR --corpus sentences.jsonl --judge small --out fitted
reason ask "…" --verify davinci --verify-set davinci.verdicts=fitted/verdicts-small.json

[b]Exit status[/b]

0 finished   1 internal error   2 usage error   3 judge failure
130 interrupted; the verdicts so far are saved, and the same command continues
"""


@dataclass(frozen=True, kw_only=True)
class CalibrateVerdictsOptions:
    """Options of `reason calibrate verdicts`."""

    out: Annotated[Path, typer.Option(metavar="DIR", help="Output directory.")]
    corpus: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="JSON Lines of the sentences that FEVER's evidence names.", rich_help_panel=DATA
        ),
    ]
    more_data: Annotated[
        list[str], typer.Argument(metavar="NAME=PATH...", help="More datasets, as with --data.", show_default=False)
    ] = field(default_factory=list)
    data: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=PATH",
            help="Labelled claims with evidence, file or directory; several datasets, of which each is left out once. "
            "Not those on which verification is evaluated. Repeatable.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = field(default_factory=list)
    trained: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=PATH",
            help="Datasets that the judge was trained on a share of; claims of that share are left out. Repeatable.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = field(default_factory=list)
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Maximum claims of each set. (default: 1500)", rich_help_panel=DATA),
    ] = None
    judge: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Judge: base, small, lexical, nli/…, minicheck/… or cross/….", rich_help_panel=FITTING
        ),
    ] = "small"
    max_false_supported: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Maximum share of a set's unsupported claims that are called supported; twice it is that of those not "
            "refuted that are called refuted.",
            rich_help_panel=FITTING,
        ),
    ] = 0.05
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="File name after verdicts-. (default: the judge's name)", rich_help_panel=RUN
        ),
    ] = None
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="SQLite file that caches verdicts on pairs. (default: DIR/verdicts.sqlite)",
            rich_help_panel=RUN,
        ),
    ] = None
    as_json: Json = False


@option_model
def verdicts(options: CalibrateVerdictsOptions) -> None:
    """Fit the probabilities of a judge's verdicts on claims, and the thresholds of a decisive one.

    The file is valid for this judge. The printed scores of each dataset are by a model that was fitted to the others,
    with the thresholds of the file.
    """
    from ..core.settings import load_settings
    from ..evals.verification.judging import VerdictStore
    from ..verify.davinci.verdict_model import fit_verdict_model, save_verdict_model
    from .render.train_view import CountView

    name = _file_name(options)
    settings = load_settings()
    sets = _read(options)
    path = options.store or options.out / "verdicts.sqlite"
    view = CountView("reason calibrate verdicts", "claim")

    async def run() -> tuple[list[VerdictExample], str]:
        with VerdictStore(path) as store:
            return await _judge(sets, options.judge, settings, store, view)

    try:
        with view:
            examples, judge = run_interruptible(run(), on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        say(f"interrupted; the verdicts so far are in {path}, and the same command continues")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    fitted = fit_verdict_model(examples, judge=judge, max_false_supported=options.max_false_supported)
    file = options.out / f"verdicts-{name}.json"
    save_verdict_model(fitted.model, file)
    if options.as_json:
        write_json({"file": str(file), "model": fitted.model.model_dump(mode="json")})
    else:
        _print(fitted.model)
    _say_warnings(fitted, examples, options.max_false_supported)
    say(f"written: {file}; use: {shlex.join(['--verify-set', f'davinci.verdicts={file}'])}")


def _file_name(options: CalibrateVerdictsOptions) -> str:
    from ..core.errors import UserError
    from ..verify.entailment.factory import AUTO, MODEL

    if options.judge in (AUTO, MODEL):
        raise UserError(
            f"the judge {options.judge!r} cannot be calibrated",
            hint="use base, small, lexical, nli/…, minicheck/… or cross/…",
        )
    if not options.data:
        raise UserError("there are no calibration claims", hint="for example --data fever=PATH")
    if not 0 < options.max_false_supported < 0.5:
        raise UserError(f"--max-false-supported must be in (0, 0.5), got {options.max_false_supported:g}")
    name = options.name or re.sub(r"[^A-Za-z0-9._]+", "-", options.judge).strip("-") or "judge"
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise UserError(f"--name {name!r} cannot be part of a file name", hint="use letters, digits, . _ and -")
    return name


def _read(options: CalibrateVerdictsOptions) -> list[EvaluationSet]:
    from ..evals.verification.sets import MAX_CLAIMS, read_evaluation_sets
    from .inputs import parse_paths

    paths = parse_paths([*options.data, *options.more_data], "--data")
    trained = parse_paths(options.trained, "--trained")
    corpus, limit = options.corpus.expanduser(), options.limit or MAX_CLAIMS
    sets = asyncio.run(read_evaluation_sets(paths, corpus, trained=trained, limit=limit))
    return [one for one in sets if one.is_fitted]


async def _judge(
    sets: list[EvaluationSet], judge: str, settings: Settings, store: VerdictStore, view: CountView
) -> tuple[list[VerdictExample], str]:
    """The examples of all sets, and the judge's identity."""
    from dataclasses import replace

    from ..evals.verification.judging import StoredEntailment, judge_claims
    from ..evals.verification.methods import examples_of
    from ..verify.entailment.factory import load_entailment

    entailment = await load_entailment(judge, settings, progress=view.pulled)
    stored = StoredEntailment(entailment, store)
    total, done = sum(len(one.rows) for one in sets), 0
    examples: list[VerdictExample] = []
    try:
        view.count(0, total)
        for one in sets:

            def show(count: int, before: int = done) -> None:
                view.count(before + count, total)

            judged = await judge_claims(one.rows, stored, show)
            examples += [replace(example, part=one.key) for example in examples_of(judged)]
            done += len(one.rows)
        return examples, entailment.identity
    finally:
        await stored.aclose()


def _print(model: VerdictModel) -> None:
    """Print the scores of each set, left out, and the thresholds."""
    table = plain_table(
        "left out", "claims", "accuracy", "macro F1", "ECE", "false supported", "wrong of supported", "false refuted",
        "decided",
    )  # fmt: skip
    for s in model.scores:
        wrong = "" if s.wrong_supported is None else f"{s.wrong_supported:.3f}"
        table.add_row(
            s.part, f"{s.claims:,}", f"{s.accuracy:.3f}", f"{s.macro_f1:.3f}", f"{s.ece:.3f}",
            f"{s.false_supported:.3f}", wrong, f"{s.false_refuted:.3f}", f"{s.decided:.3f}",
        )  # fmt: skip
    console = out()
    console.print(table)
    console.print(f"\nsupported from {model.supported:.3f}, refuted from {model.refuted:.3f}")


def _say_warnings(fitted: FittedVerdicts, examples: list[VerdictExample], bound: float) -> None:
    from ..verify.davinci.verdict_model import REFUTED_FACTOR

    model = fitted.model
    if len(examples) < MIN_CLAIMS:
        say(f"{len(examples)} claims are few: the thresholds follow their noise", label="warning", style="yellow")
    if len({example.dataset for example in examples}) == 1:
        say("of a single dataset, its own fifths are left out, which says little about other data", label="note")
    for s in model.scores:
        for share, verdict, most in (
            (s.false_supported, "supported", bound),
            (s.false_refuted, "refuted", REFUTED_FACTOR * bound),
        ):
            if share > most:
                say(f"{share:.1%} of {s.part} are wrongly {verdict} at any threshold", label="warning", style="yellow")
