"""From rows to a published index: words counted, vectors kept, both indexed, and then one file that says so."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import BadReply
from ...serving.embeddings import EmbeddingModel
from .durable import PARTIAL, write_durably
from .index_manifest import (
    COUNTS,
    FORMAT,
    NEAR,
    PLACES,
    ROWS,
    VECTORS,
    WORDS,
    IndexManifest,
    publish,
    read_manifest,
)
from .index_plan import IndexPlan
from .near_blocks import keep_vectors, kept_vectors, make_blocks
from .passage_rows import PassageRows
from .place_shards import PlaceShards
from .word_counts import PASSAGES, count_words, write_bm25

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EMBEDDED_AT_ONCE = 512
"""Places of one file of vectors: what a killed build computes again at most."""

Step = Callable[[str, int, int | None], None]
"""Told of a stage, what of it is done and what there is in all; may raise to stop."""


def shards_of(folder: Path) -> tuple[PlaceShards, PlaceShards]:
    """Counts of words and vectors of an index."""
    return PlaceShards(folder / COUNTS, ".npz"), PlaceShards(folder / VECTORS, ".npy")


def open_rows(folder: Path) -> PassageRows:
    """The rows of an index, to be written."""
    counts, vectors = shards_of(folder)
    return PassageRows(folder / ROWS, write=True, floor=max(counts.end, vectors.end))


def count_new_words(folder: Path, rows: PassageRows, step: Step) -> None:
    """Count the words of passages that are not counted yet. Blocks."""
    counts, _ = shards_of(folder)
    end = rows.end()
    while counts.end < end:
        step("counting words", counts.end, end)
        stop = min(counts.end + PASSAGES, end)
        count_words(counts, stop, rows.rows(counts.end, stop))


class VectorMaker:
    """Embeds the passages that have no vector yet, some at a time, and keeps each lot before the next.

    Args:
        folder: The index.
        rows: Its rows.
        dimension: Numbers of a vector.
        live: Its places.
    """

    def __init__(self, folder: Path, rows: PassageRows, dimension: int, live: NDArray[np.int64]) -> None:
        self._rows, self._dimension, self._live = rows, dimension, live
        self._shards = shards_of(folder)[1]
        self.end = rows.end()

    @property
    def done(self) -> int:
        """Places that have vectors."""
        return self._shards.end

    async def embed_some(self, embedding: EmbeddingModel, on_thread: Callable[[Callable[[], Any]], Any]) -> None:
        """Embed the next lot; texts that were embedded before are not again.

        Args:
            embedding: The model.
            on_thread: Runs blocking work.
        """
        start, stop = self.done, min(self.done + EMBEDDED_AT_ONCE, self.end)
        vectors, missing = await on_thread(lambda: self._known(start, stop))
        if missing:
            texts = list(missing)
            made = await embedding.embed(texts, kind="document")
            if made.shape != (len(texts), self._dimension):
                raise BadReply(f"{embedding.name} gave {made.shape} numbers for {len(texts)} texts")
            for text, vector in zip(texts, made, strict=True):
                vectors[missing[text]] = vector
        await on_thread(lambda: keep_vectors(self._shards, stop, vectors))

    def _known(self, start: int, stop: int) -> tuple[NDArray[np.float32], dict[str, list[int]]]:
        """Vectors as far as equal passages have them, and the texts that need one with the rows they are for."""
        import numpy as np

        low, high = np.searchsorted(self._live, [start, stop])
        live = set(self._live[low:high].tolist())
        rows = [row for row in self._rows.rows(start, stop) if row.place in live]
        vectors: NDArray[np.float32] = np.zeros((stop - start, self._dimension), dtype=np.float32)
        earlier = self._rows.earlier([row.same for row in rows], start)
        places = np.array(sorted(set(earlier.values())), dtype=np.int64)
        held = dict(zip(places.tolist(), kept_vectors(self._shards, places, self._dimension), strict=True))
        missing: dict[str, list[int]] = {}
        for row in rows:
            known = held.get(earlier.get(row.same, -1))
            if known is not None and known.any():
                vectors[row.place - start] = known
            else:
                missing.setdefault(row.shown, []).append(row.place - start)
        return vectors, missing


def publish_index(
    folder: Path, rows: PassageRows, plan: IndexPlan, live: NDArray[np.int64], step: Step
) -> IndexManifest:
    """Index words and vectors of the live places, and let the index be that. Blocks.

    Args:
        folder: The index.
        rows: Its rows.
        plan: What it is made with.
        live: Its places, at least one.
        step: See `Step`.

    Returns:
        What is published.

    Raises:
        OSError: It cannot be written; what was published before stays.
        DataError: A file of it is damaged.
    """
    before = read_manifest(folder)
    counts, vectors = shards_of(folder)
    digest = rows.digest()
    words, wordless = _make_words(folder, counts, live, digest, step)
    near = None
    if plan.embedding is not None:
        known = None if before is None else before.near
        near = make_blocks(
            folder / NEAR, vectors, live, plan.embedding.dimension, known, lambda d, n: step("indexing vectors", d, n)
        )
    files = [f"{words}/{path.name}" for path in (folder / words).iterdir()]
    files += [f"{NEAR}/{name}" for name in (near.files() if near is not None else ())]
    manifest = IndexManifest(
        format=FORMAT,
        plan=plan,
        made=time.time(),
        documents=sum(1 for _ in rows.documents()),
        passages=len(live),
        digest=digest,
        words=words,
        wordless=wordless,
        near=near,
        sizes={name: (folder / name).stat().st_size for name in sorted(files)},
    )
    publish(folder, manifest)
    _clear(folder, manifest)
    rows.drop_gone()
    return manifest


def _make_words(
    folder: Path, counts: PlaceShards, live: NDArray[np.int64], digest: str, step: Step
) -> tuple[str, bool]:
    """The BM25 index, under a name that tells what it is of."""
    import numpy as np

    mark = hashlib.blake2b(live.tobytes() + digest.encode(), digest_size=8).hexdigest()
    name = f"{WORDS}-{mark}"
    if not (folder / name).is_dir():
        partial = folder / f"{PARTIAL}{name}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            write_bm25(counts, live, partial, lambda done, of: step("indexing words", done, of))
            write_durably(partial / PLACES, lambda file: np.save(file, live, allow_pickle=False))
            os.replace(partial, folder / name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return name, len(list((folder / name).iterdir())) == 1


def _clear(folder: Path, manifest: IndexManifest) -> None:
    """Remove what is no longer published, and what stopped builds have left."""
    for path in folder.iterdir():
        if path.name.startswith((f"{WORDS}-", PARTIAL)) and path.name != manifest.words:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    kept = set() if manifest.near is None else set(manifest.near.files())
    if (folder / NEAR).is_dir():
        for path in (folder / NEAR).iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)
