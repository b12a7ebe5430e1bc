"""`reason calibrate verdicts`: fit fusion and calibration of an entailment model's verdicts to labelled claims."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast, get_args

import typer

from .command import option_model
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .options import DATA, Json
from .render.console import out, plain_table, printable, say, write_json

if TYPE_CHECKING:
    from ..core.calibration import CalibrationMethod
    from ..core.settings import Settings
    from ..evals.verification.calibration import CalibratedVerdicts
    from ..evals.verification.claims import LabelledClaim
    from ..evals.verification.judging import EvidenceForm, JudgedClaim, VerdictStore
    from ..reasoning.retrieval.protocol import Retriever
    from .render.train_view import CountView

FITTING = "Fitting"
RUN = "Calibration run"
RETRIEVED_DATA: Final = ("fever", "climate_fever")
"""Datasets whose evidence was retrieved."""
TITLES: Final = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "ece": "ECE",
    "brier": "Brier",
    "nll": "NLL",
    "aurc": "AURC",
}

EXAMPLES = """
[b]Examples[/b]

reason calibrate verdicts --data fever=fever/dev.jsonl --corpus sentences.jsonl --entailment embedded --out fitted
reason calibrate verdicts --data fever=DIR climate_fever=DIR --index wiki --entailment nli/local/MODEL --out fitted
reason ask "…" --verify davinci --verify-set davinci.fusion=fitted/fusion-embedded.json

[b]Exit status[/b]

0 finished   1 internal error   2 usage error   3 judge failure
130 interrupted; the verdicts so far are saved, and the same command continues
"""


@dataclass(frozen=True, kw_only=True)
class CalibrateVerdictsOptions:
    """Options of `reason calibrate verdicts`."""

    out: Annotated[Path, typer.Option(metavar="DIR", help="Output directory.")]
    more_data: Annotated[
        list[str], typer.Argument(metavar="NAME=PATH...", help="More datasets, as with --data.", show_default=False)
    ] = field(default_factory=list)
    data: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=PATH",
            help="Labelled claims: fever or climate_fever, with file or directory. Not those on which verification is "
            "evaluated. Repeatable.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = field(default_factory=list)
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON Lines of the sentences that FEVER's retrieval names; searched lexically for claims without "
            "such a list.",
            rich_help_panel=DATA,
        ),
    ] = None
    index: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Index searched for FEVER's evidence instead of its lists, from [b]reason index build[/b].",
            rich_help_panel=DATA,
        ),
    ] = None
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Maximum number of claims of each dataset.", rich_help_panel=DATA),
    ] = None
    all_claims: Annotated[
        bool | None,
        typer.Option(
            "--all-claims/--unseen",
            help="All claims, or only those outside the embedded model's training data. (default: --unseen for the "
            "embedded model, --all-claims for others)",
            rich_help_panel=DATA,
        ),
    ] = None
    entailment: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Entailment model: embedded, lexical, nli/… or minicheck/….", rich_help_panel=FITTING
        ),
    ] = "embedded"
    aggregation: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Aggregation of passages: witness, product, mean, vote, max or concat.",
            rich_help_panel=FITTING,
        ),
    ] = "witness"
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Calibration method: temperature, platt or isotonic.", rich_help_panel=FITTING
        ),
    ] = "temperature"
    evidence_form: Annotated[
        str,
        typer.Option(
            metavar="FORM", help="Judged text: full passages, or the best span of each.", rich_help_panel=FITTING
        ),
    ] = "full"
    k: Annotated[
        int, typer.Option("-k", min=1, max=20, metavar="N", help="Passages per claim.", rich_help_panel=FITTING)
    ] = 5
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Seed of the confidence intervals.", rich_help_panel=FITTING)
    ] = 0
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="File name after fusion- and calibration-. (default: the entailment model's name)",
            rich_help_panel=RUN,
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
    """Fit how verdicts on passages are combined, calibrate their probabilities, and find the threshold of a verdict.

    The files are valid for this entailment model and for retrieved evidence. The printed scores are out of sample: each
    claim is scored by a fit to other claims.
    """
    from ..core.errors import UserError
    from ..core.settings import load_settings
    from ..evals.verification.calibration import calibrate_verdicts, save_verdict_calibration
    from ..evals.verification.judging import VerdictStore
    from .render.train_view import CountView

    _check(options)
    name = options.name or re.sub(r"[^A-Za-z0-9._]+", "-", options.entailment).strip("-") or "judge"
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise UserError(f"--name {name!r} cannot be part of a file name", hint="use letters, digits, . _ and -")
    settings = load_settings()
    rows, passages = _read(options)
    path = options.store or options.out / "verdicts.sqlite"
    view = CountView("reason calibrate verdicts", "pair")

    async def run() -> tuple[list[JudgedClaim], str]:
        with VerdictStore(path) as store:
            return await _judge(rows, passages, options, settings, store, view)

    try:
        with view:
            judged, backend = run_interruptible(run(), on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        say(f"interrupted; the verdicts so far are in {path}, and the same command continues")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    fitted = calibrate_verdicts(
        judged,
        backend=backend,
        aggregation=options.aggregation,
        kind=cast("CalibrationMethod", options.method),
        form=options.evidence_form,
        seed=options.seed,
    )
    files = save_verdict_calibration(fitted, options.out, name)
    if options.as_json:
        write_json(_record(fitted, files, backend))
    else:
        _print(fitted)
    _say_warnings(fitted, len(judged))
    parameters = [f"davinci.{'fusion' if file.name.startswith('fusion-') else 'calibration'}={file}" for file in files]
    if options.evidence_form != "full":
        parameters.insert(0, f"davinci.evidence_form={options.evidence_form}")
    if options.aggregation != "witness":
        parameters.insert(0, f"davinci.aggregation={options.aggregation}")
    use = shlex.join([word for parameter in parameters for word in ("--verify-set", parameter)])
    say(f"written: {', '.join(map(str, files))}; use: {use}")


def _record(fitted: CalibratedVerdicts, files: Sequence[Path], backend: str) -> dict[str, Any]:
    from ..evals.verification.metrics import NAMES

    def scores(of: Any) -> dict[str, Any]:
        estimates = {name: of.estimate(name) for name in NAMES}
        return {"n": of.n, **{name: list(e) for name, e in estimates.items() if e is not None}}

    return {
        "files": [str(file) for file in files],
        "backend": backend,
        "fusion": None if fitted.fusion is None else fitted.fusion.model_dump(mode="json"),
        "calibration": fitted.calibration.model_dump(mode="json"),
        "before": scores(fitted.before),
        "after": scores(fitted.after),
        "bins_before": [list(b) for b in fitted.bins_before],
        "bins_after": [list(b) for b in fitted.bins_after],
        "disputed": fitted.disputed,
    }


def _print(fitted: CalibratedVerdicts) -> None:
    """Print the scores before and after, and both reliability diagrams."""
    from rich.text import Text

    from ..verify.metrics import reliability_lines

    table = plain_table("score", "unfitted [95 %]", "fitted, out of sample [95 %]")
    for name, title in TITLES.items():
        cells = []
        for scores in (fitted.before, fitted.after):
            e = scores.estimate(name)
            cells.append("" if e is None else f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]")
        table.add_row(title, *cells)
    console = out()
    console.print(table)
    fusion, curve = fitted.fusion, fitted.calibration
    summary = f"{curve.method}"
    if curve.method == "temperature":
        summary += f" {curve.temperature:.4f}"
    summary += f", gate {curve.threshold:g}, {curve.examples:,} claims" if curve.threshold is not None else ""
    if fusion is not None:
        p = fusion.parameters
        weights = f"beta {p.beta:g}" if p.mode == "product" else f"a {p.a:g}, pi {p.pi:.3f}"
        summary = f"{p.mode}: {weights}, delta {p.delta:g}, T_f {p.final_temperature:g}; {summary}"
    lines = ["", summary, ""]
    lines += [*reliability_lines(fitted.bins_before, "unfitted"), ""]
    lines += reliability_lines(fitted.bins_after, "fitted, out of sample")
    for line in lines:
        console.print(Text(printable(line)))


def _say_warnings(fitted: CalibratedVerdicts, num_claims: int) -> None:
    from ..evals.verification.calibration import MIN_CLAIMS
    from ..evals.verification.metrics import BY_PROBABILITIES

    if num_claims < MIN_CLAIMS:
        say(f"{num_claims} claims are few: the fit follows their noise", label="warning", style="yellow")
    worse = [TITLES[n] for n in BY_PROBABILITIES if fitted.after.values.get(n, 0) > fitted.before.values.get(n, 0)]
    if fitted.after.values["macro_f1"] < fitted.before.values["macro_f1"]:
        worse.insert(0, TITLES["macro_f1"])
    if worse:
        say(f"out of sample the fit made {', '.join(worse)} worse", label="warning", style="yellow")
    if fitted.disputed:
        say(f"{fitted.disputed} disputed claims only show a conflict", label="note", style="cyan")


def _check(options: CalibrateVerdictsOptions) -> None:
    from ..core.calibration import CalibrationMethod
    from ..core.errors import UserError
    from ..verify.fusion import Mode

    for what, value, known in (
        ("aggregation", options.aggregation, (*get_args(Mode), "concat")),
        ("method", options.method, get_args(CalibrationMethod)),
        ("evidence form", options.evidence_form, ("full", "span")),
    ):
        if value not in known:
            raise UserError(f"unknown {what} {value!r}", hint=f"use one of {', '.join(known)}")
    if not options.data:
        raise UserError("there are no calibration claims", hint="for example --data fever=PATH")
    if options.entailment == "judge":
        raise UserError(
            "verdicts of a language model cannot be calibrated", hint="use embedded, lexical, nli/… or minicheck/…"
        )


def _read(options: CalibrateVerdictsOptions) -> tuple[list[LabelledClaim], dict[str, Any]]:
    """The claims, and the passages of the corpus."""
    from ..core.errors import UserError
    from ..evals.training.entailment.data import TRAINABLE
    from ..evals.verification.claims import read_claims, read_passages, unseen_claims
    from .inputs import parse_paths

    paths = parse_paths([*options.data, *options.more_data], "--data")
    unknown = next((name for name in paths if name not in RETRIEVED_DATA), None)
    if unknown is not None:
        raise UserError(f"{unknown!r} has no retrieved evidence", hint=f"--data takes {', '.join(RETRIEVED_DATA)}")
    passages = read_passages(options.corpus.expanduser()) if options.corpus is not None else {}
    all_claims = options.entailment != "embedded" if options.all_claims is None else options.all_claims
    rows: list[LabelledClaim] = []
    for name, path in paths.items():
        claims = read_claims(name, path, passages)
        if not all_claims and name in TRAINABLE:
            held_out = unseen_claims(claims)
            say(f"{len(held_out):,} of {len(claims):,} claims of {name} are outside the model's training data")
            claims = held_out
        rows += claims[: options.limit]
    return rows, passages


async def _judge(
    rows: list[LabelledClaim],
    passages: dict[str, Any],
    options: CalibrateVerdictsOptions,
    settings: Settings,
    store: VerdictStore,
    view: CountView,
) -> tuple[list[JudgedClaim], str]:
    from ..evals.verification.judging import StoredEntailment, every_pair, judge_pairs, judge_rows, pairs_of
    from ..verify.entailment.factory import load_entailment

    entailment = await load_entailment(options.entailment, settings, progress=view.pulled)
    stored = StoredEntailment(entailment, store)
    try:
        view.note("retrieving evidence")
        claims = await _with_passages(rows, passages, options, settings)
        form = cast("EvidenceForm", "concat" if options.aggregation == "concat" else options.evidence_form)
        total = sum(len(pairs_of(row, form)) for row in claims)
        view.count(0, total)
        await judge_pairs(every_pair(claims, form), stored, lambda done: view.count(done, total))
        return await judge_rows(claims, form, stored), entailment.identity
    finally:
        await stored.aclose()


async def _with_passages(
    rows: list[LabelledClaim], passages: dict[str, Any], options: CalibrateVerdictsOptions, settings: Settings
) -> list[LabelledClaim]:
    """FEVER's claims with passages of the index, their own list, or the corpus; others unchanged."""
    from ..evals.verification.claims import first_passages, retrieve_passages

    missing = [r for r in rows if r.source == "fever" and (options.index is not None or r.passages is None)]
    retrieved: dict[str, LabelledClaim] = {}
    if missing:
        retriever = await _retriever(passages, options, settings)
        try:
            retrieved = {row.name: row for row in await retrieve_passages(missing, retriever, options.k)}
        finally:
            await retriever.aclose()
    return first_passages([retrieved.get(r.name, r) if r.source == "fever" else r for r in rows], options.k)


async def _retriever(passages: dict[str, Any], options: CalibrateVerdictsOptions, settings: Settings) -> Retriever:
    from ..core.errors import UserError
    from ..reasoning.retrieval.index.saved_index import load_index
    from ..reasoning.retrieval.retriever import HybridRetriever
    from ..serving.encoders.factory import load_embedding_model

    if options.index is not None:
        retriever = await load_index(options.index.expanduser(), lambda named: load_embedding_model(named, settings))
        for sentence in retriever.degraded:
            say(sentence, label="note", style="cyan")
        return retriever
    if not passages:
        raise UserError("claims without evidence need passages to search", hint="pass --corpus FILE or --index DIR")
    return await HybridRetriever.build(list(passages.values()), name="corpus")
