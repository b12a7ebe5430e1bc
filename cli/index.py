"""`reason index`: saved indexes of passages that claims are checked against; building, adding, and looking at them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .interrupts import run_interruptible
from .options import ENGINE, Json
from .render.console import megabytes, out, plain_table, printable, say, write_json
from .render.search_tree import plural
from .render.status import stage_bar

if TYPE_CHECKING:
    from ..reasoning.retrieval.index.builder import Built

PLAIN_EVERY_S = 30.0
"""Seconds between two lines of progress where nothing can move."""
_NOTES_SHOWN = 5

index_app = typer.Typer(
    help="Indexes of passages for verification: build, add, show.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the index.", show_default=False)]
Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH…",
        help="Files and folders: text, Markdown, HTML, JSON, PDF; of JSON lines each line is a passage.",
        show_default=False,
    ),
]
EmbeddingName = Annotated[
    str | None,
    typer.Option(
        "--embedding-model",
        metavar="NAME",
        help="Model that makes the vectors. (default: the index's own, or the setting embedding_model)",
        show_default=False,
        rich_help_panel=ENGINE,
    ),
]


@index_app.command()
def build(
    folder: Folder,
    paths: Paths,
    embedding_model: EmbeddingName = None,
    no_vectors: Annotated[
        bool, typer.Option("--no-vectors", help="Search by words alone; no model is needed.", rich_help_panel=ENGINE)
    ] = False,
    as_json: Json = False,
) -> None:
    """Make an index of documents. Stopped, it goes on when run again; finished, it is brought up to date."""
    from ..core.errors import UserError
    from ..reasoning.retrieval.index.builder import build_index

    if no_vectors and embedding_model is not None:
        raise UserError("--no-vectors and --embedding-model exclude each other", hint="say one of them")

    async def work(model: Any, told: Any) -> Built:
        return await build_index(folder, paths, model, told=told)

    _report(folder, _run(folder, work, _wanted(folder, embedding_model), vectors=not no_vectors), as_json)


@index_app.command()
def add(
    folder: Folder,
    paths: Paths,
    embedding_model: EmbeddingName = None,
    prune: Annotated[bool, typer.Option("--prune", help="Take out documents whose files are gone.")] = False,
    as_json: Json = False,
) -> None:
    """Take new and changed documents into an index; what is unchanged is not read or embedded again."""
    from ..reasoning.retrieval.index.builder import add_to_index
    from ..reasoning.retrieval.index.manifest import read_plan

    plan = read_plan(folder)
    # without a plan there is no index, and no model is opened to say so
    vectors = plan is not None and (plan.embedding is not None or embedding_model is not None)

    async def work(model: Any, told: Any) -> Built:
        return await add_to_index(folder, paths, model, prune=prune, told=told)

    _report(folder, _run(folder, work, _wanted(folder, embedding_model), vectors=vectors), as_json)


@index_app.command()
def show(folder: Folder, as_json: Json = False) -> None:
    """Show what an index holds."""
    from ..reasoning.retrieval.index.saved_index import summarize_index
    from .render.run_page import age

    found = summarize_index(folder)
    if as_json:
        write_json(found.model_dump(mode="json"))
        return
    table = plain_table("what", "value")
    changed = "" if found.made is None else f" {age(time.time() - found.made)} ago"
    table.add_row("state", found.state + changed)
    table.add_row("passages", f"{found.passages:,}")
    table.add_row("documents", f"{found.documents:,}")
    table.add_row("embedding model", found.embedding or "none: searched by words alone")
    table.add_row("vectors", found.vectors)
    table.add_row("cut", f"at most {found.words} words, {found.overlap} of them shared")
    table.add_row("size", megabytes(found.size_bytes))
    table.add_row("digest", found.digest[:16])
    out().print(table)
    if found.unfinished:
        say(found.unfinished, label="note", style="cyan")
    if found.largest:
        listed = plain_table("document", "passages")
        for document in found.largest:
            listed.add_row(printable(document.source), f"{document.passages:,}")
        out().print()
        out().print(listed)
        if len(found.largest) < found.documents:
            say(f"{found.documents - len(found.largest):,} smaller documents are not shown", label="note")


def _wanted(folder: Path, given: str | None) -> str | None:
    """The model to open: as given, or the index's own."""
    from ..reasoning.retrieval.index.manifest import read_plan

    plan = read_plan(folder)
    return given or (None if plan is None or plan.embedding is None else plan.embedding.name)


def _run(folder: Path, work: Callable[[Any, Any], Any], name: str | None, *, vectors: bool) -> Built:
    from ..core.errors import Cancelled
    from ..core.settings import load_settings
    from ..reasoning.retrieval.index.builder import saved_so_far

    async def inside() -> Built:
        with stage_bar(_lines()) as told:
            model = None
            if vectors:
                from ..serving.embeddings import open_embedding

                told("opening the embedding model", 0, None)
                model = await open_embedding(name, load_settings())
            try:
                built: Built = await work(model, told)
                return built
            finally:
                if model is not None:
                    await model.aclose()

    try:
        return run_interruptible(inside())
    except asyncio.CancelledError:
        saved = saved_so_far(folder)
        done = f"{plural(saved.passages, 'passage')} saved" + (
            f", {saved.embedded:,} of them embedded" if vectors else ""
        )
        raise Cancelled(f"the index {folder} is not finished: {done}", hint="run the same again: it goes on") from None


def _report(folder: Path, built: Built, as_json: bool) -> None:
    changes, manifest = built.changes, built.manifest
    for note in changes.notes[:_NOTES_SHOWN]:
        say(f"{note.path}: {note.why}", label="note", style="cyan")
    if len(changes.notes) > _NOTES_SHOWN:
        say(f"and {len(changes.notes) - _NOTES_SHOWN} more notes; --json has all", label="note", style="cyan")
    if changes.missing:
        shown = ", ".join(changes.missing[:3]) + (", …" if len(changes.missing) > 3 else "")
        what = "taken out" if changes.removed else "no longer there, but still in the index; --prune takes them out"
        say(f"{len(changes.missing)} documents are {what}: {shown}", label="note", style="cyan")
    if as_json:
        write_json(
            {
                "index": str(folder),
                "passages": manifest.passages,
                "documents": manifest.documents,
                "new": changes.new,
                "changed": changes.changed,
                "unchanged": changes.same,
                "missing": changes.missing,
                "removed": changes.removed,
                "notes": [{"path": n.path, "why": n.why, "left_out": n.left_out} for n in changes.notes],
                "embedding": None if manifest.plan.embedding is None else manifest.plan.embedding.name,
                "digest": manifest.digest,
            }
        )
        return
    say(
        f"the index {folder} has {plural(manifest.passages, 'passage')} of {plural(manifest.documents, 'document')}: "
        f"{len(changes.new):,} new, {len(changes.changed):,} changed, {changes.same:,} as before"
    )


def _lines(clock: Callable[[], float] = time.monotonic) -> Callable[[str, int, int | None], None]:
    last, due = "", 0.0

    def tell(stage: str, done: int, total: int | None) -> None:
        nonlocal last, due
        if stage != last or clock() >= due:
            last, due = stage, clock() + PLAIN_EVERY_S
            say(f"{stage} {done:,} of {total:,}" if total else f"{stage} {done:,}" if done else stage)

    return tell
