"""`IndexManifest`: what a saved index holds and was made with; the file that publishes it."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from ...core.errors import DataError
from ...core.messages import Frozen
from ...core.whole_files import replace_file
from .index_plan import IndexPlan
from .near_blocks import Near

FORMAT = 1

MANIFEST, ROWS, LOCK = "index.json", "passages.sqlite3", ".lock"
VECTORS, COUNTS, NEAR = "vectors", "counts", "near"
WORDS = "words"
"""How the folder of a BM25 index begins; what follows tells one publication from the next."""
PLACES = "places.npy"
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
    plan: IndexPlan
    made: float
    documents: int
    passages: int
    digest: str
    words: str
    wordless: bool = False
    near: Near | None
    sizes: dict[str, int]


def read_manifest(folder: Path) -> IndexManifest | None:
    """The manifest of a published index; None if nothing is published there.

    Raises:
        DataError: It is damaged, or of a newer version.
    """
    path = folder / MANIFEST
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


def published(folder: Path) -> IndexManifest:
    """The manifest of an index, with its files where they should be.

    Raises:
        DataError: There is no index, it is not finished, or damaged.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        if (folder / ROWS).is_file():
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
    replace_file(folder / MANIFEST, json.dumps(manifest.model_dump(mode="json"), indent=2).encode())
