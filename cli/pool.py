"""`reason pool`: import and show pools of recorded samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command import option_model
from .completion import complete_dataset
from .options import DATA, OUTPUT, Json
from .render.console import out, plain_table, plural, printable, say, write_json

if TYPE_CHECKING:
    from ..serving.recorded.pool import Pool

DEFAULT_MAX_TOKENS = 512
"""Default `max_tokens` of the sampling strategies."""

EXAMPLES = """
[b]Examples[/b]

reason pool import runs.jsonl --map answer=prediction,model={name}-{temperature} --out pool.jsonl.gz
reason pool import samples.jsonl --dataset gsm8k --questions gsm8k --out pool.jsonl.gz
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
class PoolImportOptions:
    """Options of `reason pool import`."""

    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="JSON Lines or CSV files.",
        ),
    ]
    out: Annotated[
        Path,
        typer.Option("--out", metavar="POOL", help="Write the pool to this file.", rich_help_panel=OUTPUT),
    ]
    map: Annotated[
        str,
        typer.Option(
            metavar="NAME=FIELD,…",
            help="Rename fields: answer=prediction; a text with fields in braces composes them.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = ""
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Use this name of the model. (default: the source's)",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = ""
    dataset: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Use this name of the dataset. (default: the source's)",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = ""
    questions: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET[=FILE]",
            help="Take missing texts and right answers from this dataset, by question ID.",
            autocompletion=complete_dataset,
            rich_help_panel=DATA,
        ),
    ] = None
    as_json: Json = False


@pool_app.command("import", epilog=EXAMPLES)
@option_model
def import_(options: PoolImportOptions) -> None:
    """Make a pool of recorded samples from other formats."""
    from ..evals.datasets.loading import open_dataset, parse_source
    from ..evals.pools import import_pool, parse_pool_map
    from ..serving.recorded.pool import read_pool, require_pool_name, write_pool

    require_pool_name(str(options.out))
    questions = None
    if options.questions is not None:
        source = parse_source(options.questions)
        questions = open_dataset(source.model_copy(update={"choice_seed": None}))
    samples = import_pool(
        options.sources,
        mapping=parse_pool_map(options.map),
        model=options.model,
        dataset=options.dataset,
        questions=questions,
    )
    write_pool(options.out, samples)
    _print_pool(read_pool(options.out), as_json=options.as_json)


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """Options of `reason pool show`."""

    pool: PoolFile
    as_json: Json = False


@pool_app.command()
@option_model
def show(options: ShowOptions) -> None:
    """Show a pool: models, datasets, questions, samples, accuracy, tokens, and what is recorded."""
    from ..serving.recorded.pool import read_pool

    _print_pool(read_pool(options.pool), as_json=options.as_json)


def _print_pool(pool: Pool, *, as_json: bool) -> None:
    from ..evals.pools import summarize

    summaries = summarize(pool)
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
        "model", "dataset", "questions", "samples", "each", "accuracy", "unparsed", "cut", "tokens", "longest"
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
            f"{one.unparsed:,}",
            f"{one.cut:,}",
            "-" if one.mean_tokens is None else f"{one.mean_tokens:,.0f}",
            "-" if one.max_tokens is None else f"{one.max_tokens:,}",
        )
    out().print(table)
    for one in summaries:
        say(f"{one.model} on {one.dataset}: {', '.join(one.recorded) or 'answers only'}", label="recorded")
    say(f"{plural(len(pool.samples), 'sample')}, fingerprint {pool.fingerprint}")
    longest = max((one.max_tokens or 0 for one in summaries), default=0)
    if longest > DEFAULT_MAX_TOKENS:
        say(
            f"the longest sample has {longest:,} tokens; strategies cut samples at {DEFAULT_MAX_TOKENS} unless "
            f"--set max_tokens={longest}",
            label="note",
            style="cyan",
        )
