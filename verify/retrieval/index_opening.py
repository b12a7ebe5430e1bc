"""`open_index`: a saved index as a retriever; its files are memory-mapped, its passages read when they are found."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ...core.errors import DataError, UserError
from ...serving.embeddings import EmbeddingModel
from ..evidence import Passage
from .durable import index_errors
from .index_manifest import NEAR, PLACES, ROWS, IndexManifest, published
from .index_plan import check_model
from .near_blocks import NearBlocks
from .passage_rows import PassageRows
from .retriever import HybridRetriever, RetrieverOptions, Scorer, Searched
from .word_counts import SavedWords

OpenEmbedding = Callable[[str | None], Awaitable[EmbeddingModel]]
"""Opens the embedding model of a name."""


async def open_index(
    folder: Path,
    embedding: OpenEmbedding | None,
    *,
    options: RetrieverOptions | None = None,
    scorer: Scorer | None = None,
    scorer_identity: str = "",
    owned: bool = True,
) -> HybridRetriever:
    """Open an index for searching.

    Args:
        folder: The index.
        embedding: Opens the embedding model of a name; it is asked for the one that made the vectors. None searches by
            words alone, and `degraded` says so.
        options: How passages are ranked.
        scorer: See `HybridRetriever`.
        scorer_identity: Likewise.
        owned: Whether the embedding model is closed with the retriever.

    Raises:
        DataError: There is no index, it is damaged or not finished, or the model is not the one that made its vectors.
        UserError: A library is not installed.
        ReasonError: The embedding model could not be opened.
    """
    manifest, searched = await asyncio.to_thread(_load, folder)
    made_by = manifest.plan.embedding
    if embedding is None or made_by is None:
        return HybridRetriever(
            str(folder), searched, None, options=options, scorer=scorer, scorer_identity=scorer_identity
        )
    model = await embedding(made_by.name)
    try:
        check_model(folder, made_by, model)
    except DataError:
        if owned:
            await model.aclose()
        raise
    return HybridRetriever(
        str(folder), searched, model, options=options, scorer=scorer, scorer_identity=scorer_identity, owned=owned
    )


class _SavedPassages:
    """Passages read when they are wanted; each look opens the file anew, so any thread may look."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def at(self, places: Sequence[int]) -> dict[int, Passage]:
        with index_errors(self._folder):
            rows = PassageRows(self._folder / ROWS)
            try:
                return rows.at(places)
            finally:
                rows.close()


def _load(folder: Path) -> tuple[IndexManifest, Searched]:
    import numpy as np

    try:
        import bm25s  # noqa: F401
    except ModuleNotFoundError as e:
        raise UserError(
            f"searching an index needs the package {e.name!r}, which is not installed",
            hint="pip install 'reason-orchestrator[local]'",
        ) from e
    manifest = published(folder)
    try:
        places = np.load(folder / manifest.words / PLACES, mmap_mode="r", allow_pickle=False)
        words = SavedWords(folder / manifest.words, places, empty=manifest.wordless)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"the words of the index {folder} are damaged: {e}", hint="build it anew") from e
    near = None if manifest.near is None else NearBlocks(folder / NEAR, manifest.near)
    made_by = manifest.plan.embedding
    digest = f"{manifest.digest}:{manifest.plan.cutting}:{'' if made_by is None else made_by.identity}"
    return manifest, Searched(_SavedPassages(folder), words, near, digest)
