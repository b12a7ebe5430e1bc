"""`VectorIndex`: FAISS over the vectors of a named memory, and its file, which is never trusted.

The file is a copy of what the rows hold and says so in a stamp beside it: which state of the rows it was made of, by
which embedding model, and its SHA-256. A file that is missing, damaged, of another model or behind the rows is not
used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ...core.errors import StoreError
from ...core.messages import Frozen
from ...core.whole_files import replace_file
from ...serving.converted import missing_extra
from .named_place import MemoryPlace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INDEX = "index.faiss"
STAMP = "index.json"
_PARTIAL = ".partial-"


class Head(Frozen):
    """The state of a memory's rows.

    Attributes:
        change: How many changes there have been.
        mark: Drawn anew with each change, so that no two states have the same.
        rows: How many items there are.
    """

    change: int
    mark: str
    rows: int


class Stamp(Frozen):
    """What an index was made of.

    Attributes:
        head: The state of the rows.
        embedding: Identity of the embedding model.
        sha256: Sum of the index file's bytes, in hexadecimal.
    """

    head: Head
    embedding: str
    sha256: str


class VectorIndex:
    """Exact search by inner product over vectors of length one, each under the id of its item. Everything blocks.

    Args:
        dimension: Numbers of a vector.

    Raises:
        UserError: FAISS is not installed.
    """

    def __init__(self, dimension: int) -> None:
        faiss = _faiss()
        self._index: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))
        self.dimension = dimension
        self.ids: set[int] = set()

    def add(self, vectors: Mapping[int, NDArray[np.float32]]) -> None:
        """Take vectors in, by the ids of their items, which are not there yet."""
        import numpy as np

        if vectors:
            self._index.add_with_ids(np.stack(list(vectors.values())), np.array(list(vectors), dtype=np.int64))
            self.ids.update(vectors)

    def remove(self, ids: Collection[int]) -> None:
        """Take vectors out; ids that are not there do not matter."""
        import numpy as np

        gone = self.ids.intersection(ids)
        if gone:
            self._index.remove_ids(np.array(sorted(gone), dtype=np.int64))
            self.ids -= gone

    def search(self, vector: NDArray[np.float32], k: int) -> list[tuple[int, float]]:
        """The items closest to a vector.

        Args:
            vector: `[dimension]`, of length one.
            k: Most items wanted, at least 1.

        Returns:
            (id, cosine), the closest first.
        """
        if not self.ids:
            return []
        _faiss()
        cosines, ids = self._index.search(vector.reshape(1, -1), min(k, len(self.ids)))
        found = [(int(i), float(c)) for i, c in zip(ids[0], cosines[0], strict=True) if i >= 0]
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))

    def save(self, place: MemoryPlace, head: Head, embedding: str) -> None:
        """Write it beside the rows, unless an index of a later state of them is there.

        Raises:
            StoreError: The folder is held by another process.
            OSError: It could not be written.
        """
        content = _faiss().serialize_index(self._index).tobytes()
        stamp = Stamp(head=head, embedding=embedding, sha256=hashlib.sha256(content).hexdigest())
        with place.locked():
            there = _stamp(place.folder)
            if there is not None and there.embedding == embedding and there.head.change > head.change:
                return
            for leftover in place.folder.glob(f"{_PARTIAL}*"):  # of a process that died here
                leftover.unlink(missing_ok=True)
            _replace(place.folder / INDEX, content)
            _replace(place.folder / STAMP, stamp.model_dump_json().encode())

    @classmethod
    def load(
        cls, place: MemoryPlace, head: Head, embedding: str, dimension: int, ids: Collection[int]
    ) -> VectorIndex | None:
        """The index on disk, if it is whole and of exactly these rows and this model.

        Args:
            place: Where it lies.
            head: The state of the rows.
            embedding: Identity of the embedding model.
            dimension: Numbers of its vectors.
            ids: The items that there are.
        """
        import numpy as np

        try:
            with place.locked():
                stamp = _stamp(place.folder)
                if stamp is None or (stamp.head, stamp.embedding) != (head, embedding):
                    return None
                content = (place.folder / INDEX).read_bytes()
        except (OSError, StoreError):
            return None
        if hashlib.sha256(content).hexdigest() != stamp.sha256:
            return None  # FAISS is never given bytes that it did not write
        faiss = _faiss()
        try:
            index = faiss.deserialize_index(np.frombuffer(content, dtype=np.uint8))
            held = {int(i) for i in faiss.vector_to_array(index.id_map)}
        except (RuntimeError, AttributeError):  # of another version of FAISS
            return None
        if index.d != dimension or held != set(ids):
            return None
        loaded = cls(dimension)
        loaded._index, loaded.ids = index, held
        return loaded


def _stamp(folder: Path) -> Stamp | None:
    try:
        return Stamp.model_validate_json((folder / STAMP).read_bytes())
    except (OSError, ValidationError):
        return None


def _replace(path: Path, content: bytes) -> None:
    replace_file(path, content, _PARTIAL)


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    # of the calling thread alone, which is the memory's own: where cores are busy, several threads wait for each other
    # a hundred times longer than one takes
    faiss.omp_set_num_threads(1)
    return faiss
