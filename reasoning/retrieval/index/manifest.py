"""The configuration of a saved index (`IndexConfig`) and its published state (`IndexManifest`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, ValidationError

from ....core.errors import DataError
from ....core.files import atomic_write
from ....core.messages import Frozen
from ....serving.encoders.protocols import EmbeddingModel
from ..passages import ChunkOptions
from ..vector_index import VectorIndexFiles

FORMAT = 2

CONFIG_FILE, MANIFEST_FILE, DATABASE_FILE, LOCK_FILE = "config.json", "index.json", "passages.sqlite3", ".lock"
VECTORS_DIR, COUNTS_DIR, VECTOR_INDEX_DIR = "vectors", "counts", "faiss"
BM25_PREFIX = "bm25"
"""Prefix of the directory of a BM25 index; the rest distinguishes publications."""
POSITIONS_FILE = "positions.npy"
"""In that directory: the position of each row."""

ModelT = TypeVar("ModelT", bound=BaseModel)


class EmbeddingInfo(Frozen):
    """The model that made an index's vectors: the name it was loaded by, its identity, the dimension of a vector."""

    name: str
    identity: str
    dimension: Annotated[int, Field(ge=1)]


class IndexConfig(Frozen):
    """The configuration of an index, fixed for its lifetime; `embedding` is None if it has no vectors."""

    chunking: ChunkOptions
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
        bm25: Directory of its BM25 index.
        has_no_words: Whether no passage has a word, so that there is no BM25 index.
        vectors: Its FAISS indexes; None if there are no vectors.
        sizes: Bytes of each file, by name within the index.
    """

    format: int
    config: IndexConfig
    created: float
    num_documents: int
    num_passages: int
    digest: str
    bm25: str
    has_no_words: bool = False
    vectors: VectorIndexFiles | None
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
        DataError: It is damaged, or has a newer format.
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
        raise DataError(f"there is no index in {directory}", hint="`reason index build DIR PATH` builds one")
    for name, size in manifest.sizes.items():
        try:
            actual_size = (directory / name).stat().st_size
        except OSError as e:
            raise DataError(f"the index {directory} lacks its file {name}", hint="rebuild it") from e
        if actual_size != size:
            raise DataError(f"the file {name} of the index {directory} is damaged", hint="rebuild it")
    return manifest


def publish(directory: Path, manifest: IndexManifest) -> None:
    """Publish a manifest atomically.

    Raises:
        OSError: It cannot be written.
    """
    atomic_write(directory / MANIFEST_FILE, json.dumps(manifest.model_dump(mode="json"), indent=2).encode())


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
        if isinstance(version, int) and version > FORMAT:
            raise DataError(
                f"the index {path.parent} has format {version}, but this version reads up to {FORMAT}",
                hint="use the version of reason that built it, or rebuild it",
            )
        return model.model_validate(value)
    except (ValueError, RecursionError, ValidationError) as e:
        raise DataError(f"{path} is damaged or not part of an index", hint="rebuild it in another directory") from e
