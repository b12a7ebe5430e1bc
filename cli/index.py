"""`reason index`: build and show saved indexes of passages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .command import option_model
from .interrupts import run_interruptible
from .options import Json
from .render.console import age, byte_size, out, plain_table, plural, say, write_json
from .render.status import StageReporter, StatusLine

if TYPE_CHECKING:
    from ..reasoning.retrieval.index.builder import IndexBuild

_MAX_NOTES = 5

index_app = typer.Typer(
    help="Build and show indexes of passages for verification.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the index.")]
Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH...",
        help="Files and directories of text, Markdown, HTML, JSON or PDF; each line of JSON Lines is a passage.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class BuildIndexOptions:
    """Options of `reason index build`."""

    directory: Directory
    paths: Paths
    no_vectors: Annotated[
        bool, typer.Option("--no-vectors", help="Search by words only; no embedding model is needed.")
    ] = False
    as_json: Json = False


@index_app.command()
@option_model
def build(options: BuildIndexOptions) -> None:
    """Build an index of documents. An interrupted build is resumed, a finished index is updated.

    An update reads and embeds changed documents only, and removes documents that are gone or not named.

    The setting embedding_model is the model of a new index.
    """
    from ..reasoning.retrieval.index.builder import build_index

    async def work(model: Any, report: StageReporter) -> IndexBuild:
        return await build_index(options.directory, options.paths, model, progress=report)

    built = _run(options.directory, work, vectors=not options.no_vectors)
    _print_changes(options.directory, built, options.as_json)


@dataclass(frozen=True, kw_only=True)
class ShowIndexOptions:
    """Options of `reason index show`."""

    directory: Directory
    as_json: Json = False


@index_app.command()
@option_model
def show(options: ShowIndexOptions) -> None:
    """Show the contents of an index."""
    from ..reasoning.retrieval.index.saved_index import summarize_index

    summary = summarize_index(options.directory)
    if options.as_json:
        write_json(summary.model_dump(mode="json"))
        return
    table = plain_table("field", "value")
    changed = "" if summary.created is None else f" {age(time.time() - summary.created)} ago"
    table.add_row("state", summary.state + changed)
    table.add_row("passages", f"{summary.num_passages:,}")
    table.add_row("documents", f"{summary.num_documents:,}")
    table.add_row("embedding model", summary.embedding or "none: lexical search only")
    table.add_row("vectors", summary.vectors)
    table.add_row("size", byte_size(summary.size_bytes))
    table.add_row("digest", summary.digest[:16])
    out().print(table)
    if summary.state == "outdated":
        say("documents are saved but not all indexed: run the last command again", label="note", style="cyan")


def _own_embedding_model(directory: Path) -> str | None:
    """The embedding model that made an index; None for a new one."""
    from ..reasoning.retrieval.index.saved_index import read_config

    plan = read_config(directory)
    return None if plan is None or plan.embedding is None else plan.embedding.name


def _run(directory: Path, work: Callable[[Any, StageReporter], Awaitable[IndexBuild]], *, vectors: bool) -> IndexBuild:
    from ..core.errors import Cancelled
    from ..core.settings import load_settings
    from ..reasoning.retrieval.index.builder import index_progress

    async def run() -> IndexBuild:
        with StatusLine("reading the index") as status:
            report = status.pulled
            model = None
            if vectors:
                from ..serving.encoders.embeddings import load_embedding_model

                report("loading the embedding model", 0, None)
                model = await load_embedding_model(_own_embedding_model(directory), load_settings())
            try:
                return await work(model, report)
            finally:
                if model is not None:
                    await model.aclose()

    try:
        return run_interruptible(run())
    except asyncio.CancelledError:
        saved = index_progress(directory)
        done = f"{plural(saved.num_passages, 'passage')} saved" + (
            f", {saved.num_embedded:,} of them embedded" if vectors else ""
        )
        raise Cancelled(
            f"the index {directory} is not finished: {done}", hint="run the same command again to resume"
        ) from None


def _print_changes(directory: Path, built: IndexBuild, as_json: bool) -> None:
    changes, manifest = built.changes, built.manifest
    for note in changes.notes[:_MAX_NOTES]:
        say(f"{note.path}: {note.reason}", label="note", style="cyan")
    if len(changes.notes) > _MAX_NOTES:
        say(f"and {len(changes.notes) - _MAX_NOTES} more notes; --json lists all", label="note", style="cyan")
    if changes.removed:
        shown = ", ".join(changes.removed[:3]) + (", …" if len(changes.removed) > 3 else "")
        say(f"{len(changes.removed)} documents were removed: {shown}", label="note", style="cyan")
    if as_json:
        write_json(
            {
                "index": str(directory),
                "passages": manifest.num_passages,
                "documents": manifest.num_documents,
                "new": changes.new,
                "changed": changes.changed,
                "unchanged": changes.unchanged,
                "removed": changes.removed,
                "notes": [{"path": n.path, "reason": n.reason, "skipped": n.skipped} for n in changes.notes],
                "embedding": None if manifest.config.embedding is None else manifest.config.embedding.name,
                "digest": manifest.digest,
            }
        )
        return
    say(
        f"the index {directory} has {plural(manifest.num_passages, 'passage')} of "
        f"{plural(manifest.num_documents, 'document')}: {len(changes.new):,} new, {len(changes.changed):,} changed, "
        f"{changes.unchanged:,} unchanged"
    )
