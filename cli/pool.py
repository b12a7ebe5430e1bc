"""`reason pool`: import and show pools of recorded samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command import option_model
from .completion import complete_dataset
from .options import DATA, OUTPUT, Json
from .render.console import out, plain_table, plural, printable, say, write_json

if TYPE_CHECKING:
    from ..evals.pools import PoolSummary
    from ..serving.recorded.pool import Pool

DEFAULT_MAX_TOKENS = 512
"""Default `max_tokens` of the sampling strategies."""

EXAMPLES = """
[b]Examples[/b]

reason pool import runs.jsonl --map answer=prediction,model={name}-{temperature} --out pool.jsonl.gz
reason pool import eval-runs/sc8 --out pool.jsonl.gz
reason pool show pool.jsonl.gz
reason eval gsm8k -m recorded/pool.jsonl.gz:my-model -s self-consistency --set n=40
"""

pool_app = typer.Typer(
    help="Use recorded samples as models.",
    no_args_is_help=True,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PoolFile = Annotated[Path, typer.Argument(metavar="POOL", help="Pool, a .jsonl or .jsonl.gz file.")]


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of `reason pool import`."""

    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="JSON Lines or CSV files, or directories of [b]reason eval[/b].",
        ),
    ]
    out: Annotated[
        Path,
        typer.Option("--out", metavar="POOL", help="File of the pool: .jsonl or .jsonl.gz.", rich_help_panel=OUTPUT),
    ]
    map: Annotated[
        str,
        typer.Option(
            metavar="NAME=FIELD,…",
            help="Fields of the source: answer=prediction, or a text with fields in braces.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = ""
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Name of the model. (default: the source's)",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = ""
    dataset: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Name of the dataset. (default: the source's)",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = ""
    only: Annotated[
        list[str],
        typer.Option(
            metavar="FIELD=VALUE",
            help="Samples whose field has this value. Repeatable.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = field(default_factory=list)
    questions: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="Dataset with the texts and right answers that the source lacks, by question ID.",
            autocompletion=complete_dataset,
            rich_help_panel=DATA,
        ),
    ] = None
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Local file or directory of --questions, instead of the hub.", rich_help_panel=DATA
        ),
    ] = None
    as_json: Json = False


@pool_app.command("import", epilog=EXAMPLES)
@option_model
def import_(options: ImportOptions) -> None:
    """Make a pool of recorded samples from other formats."""
    from ..core.errors import UserError
    from ..evals.datasets.loading import load_dataset
    from ..evals.pools import ImportOptions as Reading
    from ..evals.pools import import_pool, parse_pool_map, summarize
    from ..serving.recorded.pool import read_pool, require_pool_name, write_pool
    from .interrupts import run_interruptible

    require_pool_name(str(options.out))
    if options.data is not None and options.questions is None:
        raise UserError("--data is the file of --questions, which is missing", hint="--questions DATASET")
    questions = None
    if options.questions is not None:
        questions = load_dataset(options.questions, data=options.data, seed=None)
    reading = Reading(
        mapping=parse_pool_map(options.map),
        model=options.model,
        dataset=options.dataset,
        only=_conditions(options.only),
        questions=questions,
    )
    write_pool(options.out, run_interruptible(import_pool(options.sources, reading)))
    pool = read_pool(options.out)
    _print_summary(pool, summarize(pool), as_json=options.as_json)


def _conditions(values: list[str]) -> dict[str, str]:
    from ..core.errors import UserError

    for value in values:
        if "=" not in value:
            raise UserError(f"--only {value!r} is no FIELD=VALUE", hint="for example --only dataset=gsm8k")
    return dict(value.split("=", 1) for value in values)


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """Options of `reason pool show`."""

    pool: PoolFile
    as_json: Json = False


@pool_app.command()
@option_model
def show(options: ShowOptions) -> None:
    """Show a pool: models, datasets, questions, samples, accuracy, tokens, and what is recorded."""
    from ..evals.pools import summarize
    from ..serving.recorded.pool import read_pool

    pool = read_pool(options.pool)
    _print_summary(pool, summarize(pool), as_json=options.as_json)


def _print_summary(pool: Pool, summaries: list[PoolSummary], *, as_json: bool) -> None:
    if as_json:
        write_json(
            {
                "pool": str(pool.path),
                "fingerprint": pool.fingerprint,
                "samples": len(pool.samples),
                "models": [asdict(summary) for summary in summaries],
            }
        )
        return
    table = plain_table(
        "model", "dataset", "questions", "samples", "each", "accuracy", "unread", "cut", "tokens", "longest"
    )
    for one in summaries:
        each = str(one.min_samples) if one.min_samples == one.max_samples else f"{one.min_samples}-{one.max_samples}"
        table.add_row(
            printable(one.model),
            printable(one.dataset),
            f"{one.questions:,}",
            f"{one.samples:,}",
            each,
            "-" if one.accuracy is None else f"{100 * one.accuracy:.1f} %",
            f"{one.unread:,}",
            f"{one.cut:,}",
            "-" if one.mean_tokens is None else f"{one.mean_tokens:,.0f}",
            "-" if one.max_tokens is None else f"{one.max_tokens:,}",
        )
    out().print(table)
    for one in summaries:
        recorded = ", ".join(one.recorded) + (
            f"; in part {', '.join(one.partly_recorded)}" if one.partly_recorded else ""
        )
        say(f"{one.model} on {one.dataset}: {recorded or 'answers alone'}", label="recorded")
    say(f"{plural(len(pool.samples), 'sample')}, fingerprint {pool.fingerprint}")
    longest = max((one.max_tokens or 0 for one in summaries), default=0)
    if longest > DEFAULT_MAX_TOKENS:
        say(
            f"the longest sample has {longest:,} tokens; strategies cut samples at {DEFAULT_MAX_TOKENS} unless "
            f"--set max_tokens={longest}",
            label="note",
            style="cyan",
        )
