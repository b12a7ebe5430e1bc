"""`IndexManifest`: what a saved index holds and was made with; the file that publishes it.

`IndexConfig`: what a saved index is made with, from its first moment on, and whether a model fits it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from ....core.errors import DataError
from ....core.files import atomic_write
from ....core.messages import Frozen
from ....serving.encoders.protocols import EmbeddingModel
from ..passages import ChunkOptions
from ..vector_index import VectorIndexFiles

CONFIG_FILE = "plan.json"


class EmbeddingInfo(Frozen):
    """The model that made an index's vectors.

    Attributes:
        name: The string that it was opened by.
        identity: Its identity.
        dimension: Numbers of a vector.
    """

    name: str
    identity: str
    dimension: Annotated[int, Field(ge=1)]


class IndexConfig(Frozen):
    """What an index is made with; it stays the same as long as the index lives.

    Attributes:
        cutting: How documents are cut.
        embedding: What makes the vectors; None if there are none.
    """

    cutting: ChunkOptions
    embedding: EmbeddingInfo | None


def read_config(folder: Path) -> IndexConfig | None:
    """What an index, finished or not, is made with; None if there is none.

    Raises:
        DataError: The file is damaged.
    """
    path = folder / CONFIG_FILE
    try:
        return IndexConfig.model_validate(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror or e}") from e
    except (ValueError, RecursionError, ValidationError) as e:
        raise DataError(f"{path} is damaged or of no index", hint="build the index anew in another folder") from e


def check_embedding(folder: Path, made_by: EmbeddingInfo | None, embedding: EmbeddingModel | None) -> None:
    """Raises `DataError` unless a model is the one that made an index's vectors."""
    given = None if embedding is None else embedding.name
    if made_by is None and embedding is None:
        return
    if made_by is None:
        raise DataError(
            f"the index {folder} was made without vectors, and the embedding model {given} was given",
            hint="say --no-vectors, or build an index with vectors in a new folder",
        )
    if embedding is None:
        raise DataError(
            f"the index {folder} has vectors of {made_by.name}, and no embedding model was given",
            hint=f"give --embedding-model {made_by.name}, or build an index without vectors in a new folder",
        )
    if (made_by.identity, made_by.dimension) != (embedding.identity, embedding.dimension):
        other = f"another version of {made_by.name}" if made_by.name == given else f"{made_by.name}, not with {given}"
        raise DataError(
            f"the vectors of the index {folder} were made with {other} "
            f"({made_by.identity[:16]} and {embedding.identity[:16]})",
            hint=f"give the model {made_by.name} that made it, or build another index in a new folder",
        )


FORMAT = 1

MANIFEST_FILE, DATABASE_FILE, LOCK_FILE = "index.json", "passages.sqlite3", ".lock"
VECTORS_DIR, COUNTS_DIR, VECTOR_INDEX_DIR = "vectors", "counts", "near"
BM25_PREFIX = "words"
"""How the folder of a BM25 index begins; what follows tells one publication from the next."""
POSITIONS_FILE = "places.npy"
"""In that folder: the place of each of its rows."""


class IndexManifest(Frozen):
    """A published index.

    Attributes:
        format: Version of the files.
        plan: What it is made with.
        made: When it was published, in seconds since 1970.
        documents: Number of documents.
        passages: Number of passages.
        digest: Hash of what it holds.
        words: Folder of its BM25 index.
        wordless: Whether no passage has a word, so that there is no BM25 index.
        near: Its FAISS indexes; None if there are no vectors.
        sizes: Bytes of each of its files, by name within the index.
    """

    format: int
    plan: IndexConfig
    made: float
    documents: int
    passages: int
    digest: str
    words: str
    wordless: bool = False
    near: VectorIndexFiles | None
    sizes: dict[str, int]


def read_manifest(folder: Path) -> IndexManifest | None:
    """The manifest of a published index; None if nothing is published there.

    Raises:
        DataError: It is damaged, or of a newer version.
    """
    path = folder / MANIFEST_FILE
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
                f"the index {folder} has format {version}, and this version reads up to {FORMAT}",
                hint="use the version of reason that made it, or build it anew",
            )
        return IndexManifest.model_validate(value)
    except (ValueError, RecursionError, ValidationError) as e:
        raise DataError(f"{path} is damaged or of no index", hint="build the index anew in another folder") from e


def published_manifest(folder: Path) -> IndexManifest:
    """The manifest of an index, with its files where they should be.

    Raises:
        DataError: There is no index, it is not finished, or damaged.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        if (folder / DATABASE_FILE).is_file():
            raise DataError(
                f"the index {folder} is not finished", hint="run the same `reason index build` again: it goes on"
            )
        raise DataError(f"there is no index in {folder}", hint="`reason index build DIR PATH` makes one")
    for name, size in manifest.sizes.items():
        try:
            found = (folder / name).stat().st_size
        except OSError as e:
            raise DataError(f"the index {folder} lacks its file {name}", hint="build it anew") from e
        if found != size:
            raise DataError(f"the file {name} of the index {folder} is damaged", hint="build it anew")
    return manifest


def publish(folder: Path, manifest: IndexManifest) -> None:
    """Let an index be what a manifest says, from this moment on.

    Raises:
        OSError: It cannot be written.
    """
    atomic_write(folder / MANIFEST_FILE, json.dumps(manifest.model_dump(mode="json"), indent=2).encode())
