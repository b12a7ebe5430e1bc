"""A judge's verdicts calibrated on the terminal: claims read, pairs judged, files written, and their worth."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast, get_args

import typer
from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..core.calibration import CalibrationMethod
from ..core.errors import UserError
from ..core.settings import Settings, load_settings
from ..evals.entailment.sources import TRAINABLE
from ..evals.verifying.calibrating import FEWEST, Calibrated, calibrate_verdicts, save
from ..evals.verifying.figures import BY_PROBABILITIES, NAMES
from ..evals.verifying.judging import Form, Judged, StoredEntailment, every_pair, judge_pairs, judged_rows, pairs_of
from ..evals.verifying.rows import ClaimRow, read_claims, read_passages
from ..evals.verifying.settings import first, retrieved_by
from ..evals.verifying.unseen import unseen
from ..evals.verifying.verdict_store import VerdictStore
from ..reasoning.retrieval.index.saved_index import open_index
from ..reasoning.retrieval.retriever import HybridRetriever, Retriever
from ..serving.embeddings import open_embedding
from ..verify.calibration.diagram import reliability_lines
from ..verify.entailment.opening import open_entailment
from ..verify.fusion.parameters import Mode
from .interrupts import EXIT_INTERRUPTED, run_interruptible
from .render.console import out as standard_output
from .render.console import plain_table, printable, say, write_json
from .render.status import BAR_WIDTH, MovingView
from .train_entailment_here import named_paths

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


@dataclass(frozen=True)
class Asked:
    """What was said on the command line; see `calibrate_verdicts.verdicts`."""

    data: tuple[str, ...]
    corpus: Path | None
    index: Path | None
    limit: int | None
    all_claims: bool | None
    entailment: str
    aggregation: str
    method: str
    form: str
    k: int
    seed: int


class PairView(MovingView):
    """How many pairs are judged."""

    def __init__(self) -> None:
        super().__init__()
        self._done = self._total = 0

    def begin(self, total: int) -> None:
        """The judging begins."""
        self._note, self._total = "", total

    def judged(self, done: int) -> None:
        """So many pairs are done."""
        self._done = done
        self._plain()

    def line(self) -> str:
        """See `MovingView`."""
        return f"{self._done:,} of {self._total:,} pairs judged" if self._total else self._note

    def render(self) -> RenderableType:
        """See `MovingView`."""
        grid = Table.grid(padding=(0, 1))
        grid.add_row(self._spinner, Text.assemble(("reason calibrate verdicts", "bold"), (f"  {self._note}", "dim")))
        bar = Bar(self._total or 1, 0, self._done, width=BAR_WIDTH, color="cyan")
        return Group(grid, bar, Text(self.line(), "dim"))


def calibrate_verdicts_here(asked: Asked, *, out: Path, name: str | None, store: Path | None, as_json: bool) -> None:
    """Calibrate, write the files and print what they are worth.

    Args:
        asked: What was said.
        out: Folder of the files.
        name: What they are called.
        store: File of verdicts on pairs.
        as_json: Whether to print one JSON object.

    Raises:
        typer.Exit: It was interrupted.
        ReasonError: It cannot be done; verdicts so far are stored.
    """
    _refuse(asked)
    called = name or _slug(asked.entailment)
    if not re.fullmatch(r"[A-Za-z0-9._-]+", called):
        raise UserError(f"the name {called!r} cannot be part of a file's name", hint="letters, digits, . _ and -")
    settings = load_settings()
    rows, retriever_of = _read(asked)
    path = store or out / "verdicts.sqlite"
    view = PairView()

    async def go() -> tuple[list[Judged], str]:
        with VerdictStore(path) as verdicts:
            return await _judge(rows, retriever_of, asked, settings, verdicts, view)

    try:
        with view:
            judged, backend = run_interruptible(go(), on_first=lambda: view.note("stopping"))
    except asyncio.CancelledError:
        say(f"interrupted; the verdicts so far are in {path}: the same command goes on")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    found = calibrate_verdicts(
        judged,
        backend=backend,
        aggregation=asked.aggregation,
        kind=cast(CalibrationMethod, asked.method),
        form=asked.form,
        seed=asked.seed,
    )
    files = save(found, out, called)
    if as_json:
        write_json(as_object(found, files, backend))
    else:
        show(found)
    _say_doubts(found, len(judged))
    sets = [f"davinci.{'fusion' if file.name.startswith('fusion-') else 'calibration'}={file}" for file in files]
    if asked.form != "full":
        sets.insert(0, f"davinci.evidence_form={asked.form}")
    if asked.aggregation != "witness":
        sets.insert(0, f"davinci.aggregation={asked.aggregation}")
    use = shlex.join([word for one in sets for word in ("--verify-set", one)])
    say(f"written: {', '.join(map(str, files))}; to use them: {use}")


def as_object(found: Calibrated, files: Sequence[Path], backend: str) -> dict[str, Any]:
    """What came of it, for JSON."""

    def figures(of: Any) -> dict[str, Any]:
        told = {one: of.estimate(one) for one in NAMES}
        return {"n": of.n, **{one: list(e) for one, e in told.items() if e is not None}}

    return {
        "files": [str(file) for file in files],
        "backend": backend,
        "fusion": None if found.fusion is None else found.fusion.model_dump(mode="json"),
        "calibration": found.calibration.model_dump(mode="json"),
        "before": figures(found.before),
        "after": figures(found.after),
        "bins_before": [list(b) for b in found.bins_before],
        "bins_after": [list(b) for b in found.bins_after],
        "disputed": found.disputed,
    }


def show(found: Calibrated) -> None:
    """Print figures before and after, and both reliability diagrams."""
    table = plain_table("figure", "as it comes [95 %]", "fitted, out of sample [95 %]")
    for one, title in TITLES.items():
        cells = []
        for figures in (found.before, found.after):
            e = figures.estimate(one)
            cells.append("" if e is None else f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]")
        table.add_row(title, *cells)
    printed = standard_output()
    printed.print(table)
    fitted, curve = found.fusion, found.calibration
    told = f"{curve.method}"
    if curve.method == "temperature":
        told += f" {curve.temperature:.4f}"
    told += f", gate {curve.threshold:g}, {curve.examples:,} claims" if curve.threshold is not None else ""
    if fitted is not None:
        p = fitted.parameters
        own = f"beta {p.beta:g}" if p.mode == "product" else f"a {p.a:g}, pi {p.pi:.3f}"
        told = f"{p.mode}: {own}, delta {p.delta:g}, T_f {p.final_temperature:g}; {told}"
    lines = ["", told, ""]
    lines += [*reliability_lines(found.bins_before, "as it comes"), ""]
    lines += reliability_lines(found.bins_after, "fitted, out of sample")
    for line in lines:
        printed.print(Text(printable(line)))


def _say_doubts(found: Calibrated, claims: int) -> None:
    """What a reader must know before using the files, on standard error."""
    if claims < FEWEST:
        say(f"{claims} claims are few: what was fitted follows their noise", label="warning", style="yellow")
    worse = [TITLES[n] for n in BY_PROBABILITIES if found.after.values.get(n, 0) > found.before.values.get(n, 0)]
    if found.after.values["macro_f1"] < found.before.values["macro_f1"]:
        worse.insert(0, TITLES["macro_f1"])
    if worse:
        say(f"out of sample the fit made {', '.join(worse)} worse", label="warning", style="yellow")
    if found.disputed:
        say(f"{found.disputed} disputed claims tell of conflict alone", label="note", style="cyan")


def _refuse(asked: Asked) -> None:
    for what, given, known in (
        ("aggregation", asked.aggregation, (*get_args(Mode), "concat")),
        ("method", asked.method, get_args(CalibrationMethod)),
        ("evidence form", asked.form, ("full", "span")),
    ):
        if given not in known:
            raise UserError(f"there is no {what} {given!r}", hint=f"one of {', '.join(known)}")
    if not asked.data:
        raise UserError("there are no claims to calibrate on", hint="for example --data fever=PATH")
    if asked.entailment == "judge":
        raise UserError(
            "verdicts of a language model are not calibrated here", hint="embedded, lexical, nli/… or minicheck/…"
        )


def _read(asked: Asked) -> tuple[list[ClaimRow], dict[str, Any]]:
    """The claims, and the corpus where it has to be searched."""
    paths = named_paths("--data", asked.data)
    strange = next((one for one in paths if one not in RETRIEVED_DATA), None)
    if strange is not None:
        raise UserError(
            f"{strange!r} has no evidence that a retriever found", hint=f"--data takes {', '.join(RETRIEVED_DATA)}"
        )
    passages = read_passages(asked.corpus.expanduser()) if asked.corpus is not None else {}
    embedded = asked.entailment == "embedded"
    seen_too = not embedded if asked.all_claims is None else asked.all_claims
    rows: list[ClaimRow] = []
    for one, path in paths.items():
        found = read_claims(one, path, passages)
        if not seen_too and one in TRAINABLE:
            kept = unseen(found)
            say(f"{len(kept):,} of {len(found):,} claims of {one} were kept back from the judge's training")
            found = kept
        rows += found[: asked.limit]
    return rows, passages


async def _judge(
    rows: list[ClaimRow],
    passages: dict[str, Any],
    asked: Asked,
    settings: Settings,
    verdicts: VerdictStore,
    view: PairView,
) -> tuple[list[Judged], str]:
    entailment = await open_entailment(asked.entailment, settings, progress=view.pulled)
    stored = StoredEntailment(entailment, verdicts)
    try:
        view.note("looking for evidence")
        shown = await _with_passages(rows, passages, asked, settings)
        form = cast(Form, "concat" if asked.aggregation == "concat" else asked.form)
        view.begin(sum(len(pairs_of(row, form)) for row in shown))
        await judge_pairs(every_pair(shown, form), stored, view.judged)
        return await judged_rows(shown, form, stored), entailment.identity
    finally:
        await stored.aclose()


async def _with_passages(
    rows: list[ClaimRow], passages: dict[str, Any], asked: Asked, settings: Settings
) -> list[ClaimRow]:
    """FEVER's claims with what the index has, what they list, or what the corpus has by words; others as they are."""
    wanting = [r for r in rows if r.source == "fever" and (asked.index is not None or r.passages is None)]
    found: dict[str, ClaimRow] = {}
    if wanting:
        retriever = await _retriever(passages, asked, settings)
        try:
            found = {row.name: row for row in await retrieved_by(wanting, retriever, asked.k)}
        finally:
            await retriever.aclose()
    return first([found.get(r.name, r) if r.source == "fever" else r for r in rows], asked.k)


async def _retriever(passages: dict[str, Any], asked: Asked, settings: Settings) -> Retriever:
    if asked.index is not None:
        retriever = await open_index(asked.index.expanduser(), lambda named: open_embedding(named, settings))
        for why in retriever.degraded:
            say(why, label="note", style="cyan")
        return retriever
    if not passages:
        raise UserError("claims without evidence need a place to look for it", hint="--corpus FILE or --index DIR")
    return await HybridRetriever.of(list(passages.values()), name="corpus")


def _slug(entailment: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", entailment).strip("-") or "judge"
