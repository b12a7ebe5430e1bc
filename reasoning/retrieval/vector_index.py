"""Vectors of an index on disk, and the memory-mapped FAISS indexes that are made of them, block by block.

Up to 50,000 passages search is exact: every vector is compared. Beyond, an inverted file (IVF; Sivic, Zisserman 2003;
Jégou, Douze, Schmid 2011) looks at the lists of the centroids nearest to a query. It was chosen over a graph (HNSW)
since its lists can be memory-mapped and are read in long runs, it is trained on a sample and then filled by streaming,
a block of passages by itself, and a block without new or removed passages stays as it is. Vectors in lists are fp16:
half of the pages to read, and cosines differ by less than 0.001.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ...core.errors import DataError, InvalidResponse, UserError
from ...core.messages import Frozen
from .index.shards import PARTIAL_PREFIX, ArrayShards, fsync_file, write_durably

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


MAX_EXACT = 50_000
"""Passages up to which every vector is compared."""
BLOCK_SIZE = 65_536
"""Places of one block."""
NUM_PROBES = 128
"""Lists that a query looks at, where there are 2 sqrt(N)."""

_SAMPLES_PER_LIST = 48
"""Vectors that each centroid is trained on; FAISS warns below 39."""
_TRAINED_AGAIN = 4
"""A growth beyond this factor makes other centroids."""
_SEED = 20260421
_STEP = 4096


class VectorIndexFiles(Frozen):
    """The FAISS indexes of a saved index.

    Attributes:
        kind: "exact" or "ivf".
        lists: Centroids of an IVF; 0 if exact.
        trained: File of the centroids; empty if exact.
        trained_of: Passages that there were when they were trained.
        blocks: Name of each block; its vectors are in `<name>.faiss`, their places in `<name>.npy`.
    """

    kind: str
    lists: int = 0
    trained: str = ""
    trained_of: int = 0
    blocks: tuple[str, ...] = ()

    def files(self) -> list[str]:
        """All its files."""
        own = [f"{block}{suffix}" for block in self.blocks for suffix in (".faiss", ".npy")]
        return [*own, self.trained] if self.trained else own


def load_faiss() -> Any:
    """The library FAISS.

    Raises:
        UserError: It is not installed.
    """
    try:
        import faiss
    except ModuleNotFoundError as e:
        raise UserError(
            f"searching by meaning needs the package {e.name!r}, which is not installed",
            hint="pip install 'reason-orchestrator[local]'",
        ) from e
    return faiss


def append_vectors(shards: ArrayShards, stop: int, vectors: NDArray[np.float32]) -> None:
    """Keep the vectors of the places from the shards' end up to `stop`; of a place without a passage they are 0.

    Raises:
        BadReply: A number is not finite.
        OSError: They cannot be written.
    """
    import numpy as np

    if not np.isfinite(vectors).all():
        raise InvalidResponse("the embedding model gave vectors with numbers that are not finite")

    def write(file: IO[bytes]) -> None:
        np.save(file, np.ascontiguousarray(vectors, dtype=np.float32), allow_pickle=False)

    shards.add(stop, write)


def read_vectors(shards: ArrayShards, places: NDArray[np.int64], dimension: int) -> NDArray[np.float32]:
    """The vectors of places, `[places, dimension]`.

    Args:
        shards: Where they are kept.
        places: Ascending.
        dimension: Numbers of a vector.

    Raises:
        DataError: A file is damaged, or has vectors of another length.
    """
    import numpy as np

    found: NDArray[np.float32] = np.empty((len(places), dimension), dtype=np.float32)
    at = 0
    while at < len(places):
        shard = shards.of(int(places[at]))
        if shard is None:
            raise DataError(f"the vector of passage {places[at]} is missing", hint="build the index anew")
        until = int(np.searchsorted(places, shard.stop))
        try:
            held = np.load(shard.path, mmap_mode="r", allow_pickle=False)
        except ValueError as e:
            raise DataError(f"{shard.path} is damaged", hint="remove it and build the index again") from e
        if held.shape != (shard.stop - shard.start, dimension):
            raise DataError(f"{shard.path} is damaged", hint="remove it and build the index again")
        found[at:until] = held[places[at:until] - shard.start]
        at = until
    return found


def make_blocks(
    folder: Path,
    shards: ArrayShards,
    live: NDArray[np.int64],
    dimension: int,
    before: VectorIndexFiles | None,
    step: Callable[[int, int], None],
    *,
    most_exact: int = MAX_EXACT,
) -> VectorIndexFiles:
    """Make the FAISS indexes of the live places; those that are there already stay as they are.

    Args:
        folder: Where their files go; made if need be.
        shards: Vectors of all places.
        live: Places of the index, ascending; at least one.
        dimension: Numbers of a vector.
        before: What was made the last time.
        step: Called now and then with the vectors done and in all; may raise to stop.
        most_exact: Passages up to which search is exact.

    Raises:
        UserError: FAISS is not installed.
        DataError: Vectors are missing or damaged.
        OSError: They cannot be written.
    """
    import numpy as np

    faiss = load_faiss()
    folder.mkdir(parents=True, exist_ok=True)
    step(0, len(live))
    near = VectorIndexFiles(kind="exact")
    empty: Any = None
    if len(live) > most_exact:
        near = _trained(folder, shards, live, dimension, before)
        empty = _read(faiss, folder / near.trained, 0)
    names: list[str] = []
    done = 0
    for number in range(int(live[-1]) // BLOCK_SIZE + 1):
        low, high = np.searchsorted(live, [number * BLOCK_SIZE, (number + 1) * BLOCK_SIZE])
        places = live[low:high]
        if not len(places):
            continue
        mark = hashlib.blake2b(places.tobytes() + near.trained.encode(), digest_size=8).hexdigest()
        name = f"{near.kind}-{number:05d}-{mark}"
        names.append(name)
        if not ((folder / f"{name}.faiss").is_file() and (folder / f"{name}.npy").is_file()):
            index = faiss.IndexFlatIP(dimension) if empty is None else faiss.clone_index(empty)
            for at in range(0, len(places), _STEP):
                step(done + at, len(live))
                index.add(read_vectors(shards, places[at : at + _STEP], dimension))
            write_durably(folder / f"{name}.npy", lambda file, p=places: np.save(file, p, allow_pickle=False))  # type: ignore[misc]
            _write(faiss, index, folder / f"{name}.faiss")
        done += len(places)
        step(done, len(live))
    return near.model_copy(update={"blocks": tuple(names)})


class BlockVectorIndex:
    """The FAISS indexes of a saved index, memory-mapped.

    Args:
        folder: Where their files are.
        near: What there is.
        probed: Lists that a query looks at in an IVF.

    Raises:
        DataError: A file is missing or damaged.
        UserError: FAISS is not installed.
    """

    def __init__(self, folder: Path, near: VectorIndexFiles, *, probed: int = NUM_PROBES) -> None:
        import numpy as np

        faiss = load_faiss()
        self._blocks: list[tuple[Any, NDArray[np.int64]]] = []
        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if near.kind == "ivf" else faiss.IO_FLAG_MMAP_IFC
        for name in near.blocks:
            index = _read(faiss, folder / f"{name}.faiss", flags)
            try:
                places = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as e:
                raise DataError(f"{folder / name}.npy is missing or damaged", hint="build the index anew") from e
            if index.ntotal != len(places):
                raise DataError(f"{folder / name}.faiss and .npy do not go together", hint="build the index anew")
            self._blocks.append((index, places))
        self._how = faiss.SearchParametersIVF(nprobe=min(probed, near.lists)) if near.kind == "ivf" else None

    def nearest(self, queries: NDArray[np.float32], most: int) -> list[list[int]]:
        """For each row of `[queries, dimension]` the places with the greatest products, the best first."""
        import numpy as np

        scores: list[NDArray[np.float32]] = []
        places: list[NDArray[np.int64]] = []
        for index, own in self._blocks:
            found, rows = index.search(queries, min(most, index.ntotal), params=self._how)
            places.append(np.where(rows >= 0, own[rows], -1))
            scores.append(np.where(rows >= 0, found, -np.inf))
        if not places:
            return [[] for _ in queries]
        all_scores, all_places = np.concatenate(scores, 1), np.concatenate(places, 1)
        best = np.argsort(-all_scores, axis=1, kind="stable")[:, :most]
        return [[int(p) for p in row if p >= 0] for row in np.take_along_axis(all_places, best, 1)]


def _trained(
    folder: Path, shards: ArrayShards, live: NDArray[np.int64], dimension: int, before: VectorIndexFiles | None
) -> VectorIndexFiles:
    """Centroids of a sample; those of before while the index is of like size."""
    import numpy as np

    count = len(live)
    if before is not None and before.kind == "ivf" and (folder / before.trained).is_file():
        low, high = before.trained_of / _TRAINED_AGAIN, before.trained_of * _TRAINED_AGAIN
        if low <= count <= high:
            return before.model_copy(update={"blocks": ()})
    faiss = load_faiss()
    lists = max(1, round(2 * math.sqrt(count)))
    mark = hashlib.blake2b(live.tobytes() + f"{_SEED} {lists}".encode(), digest_size=8).hexdigest()
    near = VectorIndexFiles(kind="ivf", lists=lists, trained=f"centroids-{mark}.faiss", trained_of=count)
    if (folder / near.trained).is_file():  # of a build that was stopped after it
        return near
    chosen = np.random.default_rng(_SEED).choice(count, size=min(count, lists * _SAMPLES_PER_LIST), replace=False)
    sample = read_vectors(shards, live[np.sort(chosen)], dimension)
    coarse = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFScalarQuantizer(
        coarse, dimension, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    index.cp.seed, index.cp.niter = _SEED, 10
    index.train(sample)
    _write(faiss, index, folder / near.trained)
    return near


def _write(faiss: Any, index: Any, path: Path) -> None:
    partial = path.with_name(PARTIAL_PREFIX + path.name)
    try:
        faiss.write_index(index, str(partial))
        fsync_file(partial)
        os.replace(partial, path)
    except RuntimeError as e:  # what the library makes of a failed write
        raise OSError(_errno_of(e), str(e)) from e
    finally:
        partial.unlink(missing_ok=True)


def _errno_of(error: RuntimeError) -> int:
    import errno

    text = str(error)
    return errno.ENOSPC if "No space left" in text or "write error" in text else errno.EIO


def _read(faiss: Any, path: Path, flags: int) -> Any:
    try:
        return faiss.read_index(str(path), flags)
    except Exception as e:
        raise DataError(f"{path} is missing or damaged", hint="build the index anew") from e
