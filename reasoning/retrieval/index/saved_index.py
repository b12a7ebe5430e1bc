"""A saved index: its configuration and published state, `load_index` as a retriever, and `summarize_index`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from ....core.errors import DataError
from ....core.messages import Frozen
from ....serving.encoders.protocols import EmbeddingModel
from ...knowledge import Passage
from ..bm25 import BM25Index
from ..retriever import HybridRetriever, SearchIndex
from ..vector_index import VectorIndex
from .database import PassageDatabase, index_errors

FORMAT = 3
CONFIG_FILE, MANIFEST_FILE, DATABASE_FILE = "config.json", "index.json", "passages.sqlite3"
POSITIONS_FILE, VECTORS_FILE = "positions.npy", "vectors.faiss"
"""In the directory of the published files: the position of each row of the BM25 index, and the FAISS index."""

ModelT = TypeVar("ModelT", bound=BaseModel)
LoadEmbedding = Callable[[str | None], Awaitable[EmbeddingModel]]
"""Loads the embedding model of a name; None is the default."""


class EmbeddingInfo(Frozen):
    """The model that made an index's vectors: the name it was loaded by, its identity, the dimension of a vector."""

    name: str
    identity: str
    dimension: Annotated[int, Field(ge=1)]


class IndexConfig(Frozen):
    """The configuration of an index, fixed for its lifetime; `embedding` is None if it has no vectors."""

    embedding: EmbeddingInfo | None


class IndexManifest(Frozen):
    """A published index.

    Attributes:
        format: Version of the files.
        config: Its configuration.
        created: When it was published, in seconds since 1970.
        num_documents: Number of documents.
        num_passages: Number of passages.
        digest: Hash of the content.
        files: Directory of its BM25 and FAISS indexes.
        num_lists: Lists of the vectors' inverted file; 0 if search is exact, or there are no vectors.
        sizes: Bytes of each of its files, by name.
    """

    format: int
    config: IndexConfig
    created: float
    num_documents: int
    num_passages: int
    digest: str
    files: str
    num_lists: int
    sizes: dict[str, int]


def read_config(directory: Path) -> IndexConfig | None:
    """The configuration of an index, finished or not; None if there is none.

    Raises:
        DataError: The file is damaged.
    """
    return _read(directory / CONFIG_FILE, IndexConfig)


def read_manifest(directory: Path) -> IndexManifest | None:
    """The manifest of a published index; None if nothing is published.

    Raises:
        DataError: It is damaged, or has another format.
    """
    return _read(directory / MANIFEST_FILE, IndexManifest)


def published_manifest(directory: Path) -> IndexManifest:
    """The manifest of an index whose files are all present.

    Raises:
        DataError: There is no index, or it is unfinished or damaged.
    """
    manifest = read_manifest(directory)
    if manifest is None:
        if (directory / DATABASE_FILE).is_file():
            raise DataError(
                f"the index {directory} is unfinished", hint="run the same `reason index build` again to continue"
            )
        raise no_index_error(directory)
    for name, size in manifest.sizes.items():
        path = directory / manifest.files / name
        if not path.is_file() or path.stat().st_size != size:
            raise DataError(f"{path} is missing or damaged", hint="run the same `reason index build` again")
    return manifest


def no_index_error(directory: Path) -> DataError:
    """The error for a directory without an index."""
    return DataError(f"there is no index in {directory}", hint="`reason index build DIR PATH` builds one")


def check_embedding(directory: Path, info: EmbeddingInfo | None, embedding: EmbeddingModel | None) -> None:
    """Raises `DataError` unless a model is the one that made an index's vectors."""
    if info is None and embedding is None:
        return
    if info is None:
        assert embedding is not None
        raise DataError(
            f"the index {directory} has no vectors, but the embedding model {embedding.name} was given",
            hint="pass --no-vectors, or build an index with vectors in a new directory",
        )
    if embedding is None:
        raise DataError(
            f"the index {directory} has vectors of {info.name}, but no embedding model was given",
            hint="leave out --no-vectors, or build an index without vectors in a new directory",
        )
    if (info.identity, info.dimension) != (embedding.identity, embedding.dimension):
        same_name = info.name == embedding.name
        other = f"another version of {info.name}" if same_name else f"{info.name}, not with {embedding.name}"
        raise DataError(
            f"the vectors of the index {directory} were made with {other} "
            f"({info.identity[:16]} and {embedding.identity[:16]})",
            hint=f"use the model {info.name} that made it, or build another index in a new directory",
        )


def _read(path: Path, model: type[ModelT]) -> ModelT | None:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror or e}") from e
    try:
        value = json.loads(content)
        version = value.get("format") if isinstance(value, dict) else None
        if isinstance(version, int) and version != FORMAT:
            raise DataError(
                f"the index {path.parent} has format {version}, but this version reads {FORMAT}",
                hint="use the version of reason that built it, or rebuild it in another directory",
            )
        return model.model_validate(value)
    except (ValueError, RecursionError, ValidationError) as e:
        raise DataError(
            f"{path} is damaged or not part of an index of this version", hint="rebuild it in another directory"
        ) from e


async def load_index(directory: Path, load_embedding: LoadEmbedding | None, *, owned: bool = True) -> HybridRetriever:
    """Load an index for searching.

    Args:
        directory: The index.
        load_embedding: Loads the embedding model that made the vectors. None searches by BM25 only, which `degraded`
            reports.
        owned: Whether the embedding model is closed with the retriever.

    Raises:
        DataError: There is no index, it is damaged or unfinished, or the model did not make its vectors.
        UserError: A library is not installed.
        ReasonError: The embedding model could not be loaded.
    """
    manifest, index = await asyncio.to_thread(_load, directory)
    info = manifest.config.embedding
    model = None
    if load_embedding is not None and info is not None:
        model = await load_embedding(info.name)
        try:
            check_embedding(directory, info, model)
        except DataError:
            if owned:
                await model.aclose()
            raise
    return HybridRetriever(str(directory), index, model, owned=owned)


class _SavedPassages:
    """Reads passages on demand; every read opens the file again, so that any thread may read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, positions: Sequence[int]) -> dict[int, Passage]:
        with index_errors(self._directory):
            database = PassageDatabase(self._directory / DATABASE_FILE)
            try:
                return database.passages_at(positions)
            finally:
                database.close()


def _load(directory: Path) -> tuple[IndexManifest, SearchIndex]:
    import numpy as np

    manifest = published_manifest(directory)
    files, info = directory / manifest.files, manifest.config.embedding
    try:
        positions = np.load(files / POSITIONS_FILE, mmap_mode="r", allow_pickle=False)
        keywords = BM25Index.load(files, positions)
        vectors = None if info is None else VectorIndex.load(files / VECTORS_FILE)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as e:
        raise DataError(f"the index {directory} is damaged: {e}", hint="rebuild it in another directory") from e
    digest = f"{manifest.digest}:{'' if info is None else info.identity}"
    return manifest, SearchIndex(_SavedPassages(directory), keywords, vectors, digest)


class IndexSummary(Frozen):
    """Summary of an index.

    Attributes:
        directory: The index.
        state: "ready"; "outdated" if documents are saved but not all published; "unfinished" if nothing is published.
        created: When it was published, in seconds since 1970.
        num_documents: Number of published documents; of an unfinished index, of saved ones.
        num_passages: Likewise of passages.
        embedding: Name of the model that made the vectors; empty if there are none.
        embedding_identity: Its identity.
        vectors: How they are searched.
        size_bytes: Bytes of all its files.
        digest: Hash of the content; empty if nothing is published.
    """

    directory: str
    state: Literal["ready", "outdated", "unfinished"]
    created: float | None
    num_documents: int
    num_passages: int
    embedding: str
    embedding_identity: str
    vectors: str
    size_bytes: int
    digest: str


def summarize_index(directory: Path) -> IndexSummary:
    """Summary of an index. Blocks.

    Raises:
        DataError: There is no index, or it is damaged.
    """
    config = read_config(directory)
    if config is None or not (directory / DATABASE_FILE).is_file():
        raise no_index_error(directory)
    manifest = None if read_manifest(directory) is None else published_manifest(directory)
    with index_errors(directory):
        database = PassageDatabase(directory / DATABASE_FILE)
        try:
            digest, counts = database.digest(), [document.passages for document in database.documents()]
        finally:
            database.close()
        size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    state: Literal["ready", "outdated", "unfinished"] = "unfinished"
    vectors = "none"
    if manifest is not None:
        state = "ready" if manifest.digest == digest else "outdated"
        if config.embedding is not None:
            vectors = f"IVF, {manifest.num_lists:,} lists" if manifest.num_lists else "exact"
    return IndexSummary(
        directory=str(directory),
        state=state,
        created=None if manifest is None else manifest.created,
        num_documents=len(counts) if manifest is None else manifest.num_documents,
        num_passages=sum(counts) if manifest is None else manifest.num_passages,
        embedding="" if config.embedding is None else config.embedding.name,
        embedding_identity="" if config.embedding is None else config.embedding.identity,
        vectors=vectors,
        size_bytes=size,
        digest="" if manifest is None else manifest.digest,
    )
