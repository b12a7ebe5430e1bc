"""FAISS indexes over embeddings: `InMemoryVectorIndex`, `BlockVectorIndex` memory-mapped, and how it is built.

A saved index has one FAISS index for each block of positions. Up to 50,000 passages search is exact. Beyond that an
inverted file (IVF; Sivic, Zisserman 2003; Jégou, Douze, Schmid 2011) probes the lists of the centroids nearest to a
query, which all blocks share. It was chosen over a graph (HNSW) since its lists can be memory-mapped and are read
sequentially, it is trained on a sample and then filled by streaming, and a block without new or removed passages stays
as it is. Vectors in lists are fp16: half of the pages to read, and cosines differ by less than 0.001.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ...core.errors import DataError, InvalidResponse
from ...core.extras import missing_package
from ...core.messages import Frozen
from .index.shards import PARTIAL_PREFIX, ArrayShards, fsync_file, write_durably

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_EXACT = 50_000
"""Passages up to which search is exact."""
BLOCK_SIZE = 65_536
NUM_PROBES = 128
"""Lists that a query probes, of 2 sqrt(N)."""

_SAMPLES_PER_LIST = 48
"""Training vectors of each centroid; FAISS warns below 39."""
_MAX_GROWTH = 4
"""A growth beyond this factor retrains the centroids."""
_SEED = 20260421
_BATCH = 4096


def load_faiss() -> Any:
    """The library FAISS.

    Raises:
        UserError: It is not installed.
    """
    try:
        import faiss
    except ModuleNotFoundError as e:
        raise missing_package("a vector index", e.name, "local") from e
    return faiss


class InMemoryVectorIndex:
    """Exact search over vectors in memory, by row.

    Args:
        vectors: fp32 `[texts, dimension]`.

    Raises:
        UserError: FAISS is not installed.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._index: Any = load_faiss().IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)

    def search(self, queries: NDArray[np.float32], k: int) -> list[list[int]]:
        """Rows of the `k` largest inner products for each query, best first."""
        _, rows = self._index.search(queries, min(k, self._index.ntotal))
        return [[int(row) for row in one if row >= 0] for one in rows]


# -- stored vectors


def append_vectors(shards: ArrayShards, stop: int, vectors: NDArray[np.float32]) -> None:
    """Store the vectors of the positions from the end of the shards up to `stop`; zeros where there is no passage.

    Raises:
        InvalidResponse: A number is not finite.
        OSError: They cannot be written.
    """
    import numpy as np

    if not np.isfinite(vectors).all():
        raise InvalidResponse("the embedding model returned vectors with numbers that are not finite")

    def write(file: IO[bytes]) -> None:
        np.save(file, np.ascontiguousarray(vectors, dtype=np.float32), allow_pickle=False)

    shards.add(stop, write)


def read_vectors(shards: ArrayShards, positions: NDArray[np.int64], dimension: int) -> NDArray[np.float32]:
    """The stored vectors of ascending positions, `[positions, dimension]`.

    Raises:
        DataError: A file is damaged, or has vectors of another dimension.
    """
    import numpy as np

    vectors: NDArray[np.float32] = np.empty((len(positions), dimension), dtype=np.float32)
    at = 0
    while at < len(positions):
        shard = shards.find(int(positions[at]))
        if shard is None:
            raise DataError(f"the vector of passage {positions[at]} is missing", hint="rebuild the index")
        until = int(np.searchsorted(positions, shard.stop))
        try:
            array = np.load(shard.path, mmap_mode="r", allow_pickle=False)
        except ValueError as e:
            raise DataError(f"{shard.path} is damaged", hint="remove it and build the index again") from e
        if array.shape != (shard.stop - shard.start, dimension):
            raise DataError(f"{shard.path} is damaged", hint="remove it and build the index again")
        vectors[at:until] = array[positions[at:until] - shard.start]
        at = until
    return vectors


# -- the saved index


class VectorIndexFiles(Frozen):
    """The FAISS indexes of a saved index.

    Attributes:
        kind: "exact" or "ivf".
        num_lists: Centroids of an IVF; 0 if exact.
        centroids: File of the trained centroids; empty if exact.
        trained_on: Number of passages when they were trained.
        blocks: Name of each block: vectors in `<name>.faiss`, positions in `<name>.npy`.
    """

    kind: str
    num_lists: int = 0
    centroids: str = ""
    trained_on: int = 0
    blocks: tuple[str, ...] = ()

    def files(self) -> list[str]:
        """All its files."""
        names = [f"{block}{suffix}" for block in self.blocks for suffix in (".faiss", ".npy")]
        return [*names, self.centroids] if self.centroids else names


def build_vector_index(
    directory: Path,
    shards: ArrayShards,
    live: NDArray[np.int64],
    dimension: int,
    previous: VectorIndexFiles | None,
    progress: Callable[[int, int], None],
    *,
    max_exact: int = MAX_EXACT,
) -> VectorIndexFiles:
    """Build the FAISS indexes of the live positions; unchanged blocks are kept.

    Args:
        directory: Directory of their files, created if necessary.
        shards: Vectors of all positions.
        live: Indexed positions, ascending; not empty.
        dimension: Dimension of a vector.
        previous: The last published indexes.
        progress: Called with vectors done and in total; may raise to stop.
        max_exact: Passages up to which search is exact.

    Raises:
        UserError: FAISS is not installed.
        DataError: Vectors are missing or damaged.
        OSError: A file cannot be written.
    """
    import numpy as np

    faiss = load_faiss()
    directory.mkdir(parents=True, exist_ok=True)
    progress(0, len(live))
    files = VectorIndexFiles(kind="exact")
    trained: Any = None
    if len(live) > max_exact:
        files = _train_centroids(directory, shards, live, dimension, previous)
        trained = _read_index(faiss, directory / files.centroids, 0)
    names: list[str] = []
    done = 0
    for number in range(int(live[-1]) // BLOCK_SIZE + 1):
        low, high = np.searchsorted(live, [number * BLOCK_SIZE, (number + 1) * BLOCK_SIZE])
        positions = live[low:high]
        if not len(positions):
            continue
        digest = hashlib.blake2b(positions.tobytes() + files.centroids.encode(), digest_size=8).hexdigest()
        name = f"{files.kind}-{number:05d}-{digest}"
        names.append(name)
        if not ((directory / f"{name}.faiss").is_file() and (directory / f"{name}.npy").is_file()):
            if trained is None:
                index = faiss.IndexFlatIP(dimension)
            else:
                index = _new_ivf(faiss, trained.quantizer, dimension, files.num_lists)
                index.is_trained = True
            for at in range(0, len(positions), _BATCH):
                progress(done + at, len(live))
                index.add(read_vectors(shards, positions[at : at + _BATCH], dimension))
            write_durably(directory / f"{name}.npy", lambda file, p=positions: np.save(file, p, allow_pickle=False))  # type: ignore[misc]
            none = faiss.IndexFlatIP(dimension)
            if trained is not None:  # searches read the centroids once, from their own file
                index.quantizer = none
            _write_index(faiss, index, directory / f"{name}.faiss")
        done += len(positions)
        progress(done, len(live))
    return files.model_copy(update={"blocks": tuple(names)})


class BlockVectorIndex:
    """The memory-mapped FAISS indexes of a saved index.

    Args:
        directory: Directory of the files.
        files: The files.
        num_probes: Lists of an IVF that a query probes.

    Raises:
        DataError: A file is missing or damaged.
        UserError: FAISS is not installed.
    """

    def __init__(self, directory: Path, files: VectorIndexFiles, *, num_probes: int = NUM_PROBES) -> None:
        import numpy as np

        faiss = load_faiss()
        self._blocks: list[tuple[Any, NDArray[np.int64]]] = []
        is_ivf = files.kind == "ivf"
        self._trained: Any = _read_index(faiss, directory / files.centroids, 0) if is_ivf else None
        self._num_probes = min(num_probes, files.num_lists)
        flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if is_ivf else faiss.IO_FLAG_MMAP_IFC
        for name in files.blocks:
            index = _read_index(faiss, directory / f"{name}.faiss", flags)
            try:
                positions = np.load(directory / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as e:
                raise DataError(f"{directory / name}.npy is missing or damaged", hint="rebuild the index") from e
            if index.ntotal != len(positions):
                raise DataError(f"{directory / name}.faiss and .npy do not match", hint="rebuild the index")
            if is_ivf:
                index.nprobe = self._num_probes
            self._blocks.append((index, positions))

    def search(self, queries: NDArray[np.float32], k: int) -> list[list[int]]:
        """Positions of the `k` largest inner products for each row of `[queries, dimension]`, best first."""
        import numpy as np

        scores: list[NDArray[np.float32]] = []
        positions: list[NDArray[np.int64]] = []
        # all blocks have the same lists
        probed = None if self._trained is None else self._trained.quantizer.search(queries, self._num_probes)
        for index, block_positions in self._blocks:
            if probed is None:
                batch_scores, rows = index.search(queries, min(k, index.ntotal))
            else:
                proximities, lists = probed
                batch_scores, rows = index.search_preassigned(queries, min(k, index.ntotal), lists, proximities)
            positions.append(np.where(rows >= 0, block_positions[rows], -1))
            scores.append(np.where(rows >= 0, batch_scores, -np.inf))
        if not positions:
            return [[] for _ in queries]
        all_scores, all_positions = np.concatenate(scores, 1), np.concatenate(positions, 1)
        best = np.argsort(-all_scores, axis=1, kind="stable")[:, :k]
        return [[int(p) for p in row if p >= 0] for row in np.take_along_axis(all_positions, best, 1)]


def _train_centroids(
    directory: Path, shards: ArrayShards, live: NDArray[np.int64], dimension: int, previous: VectorIndexFiles | None
) -> VectorIndexFiles:
    """Train centroids on a sample; the previous ones are kept while the index has a similar size."""
    import numpy as np

    count = len(live)
    if (
        previous is not None
        and previous.kind == "ivf"
        and (directory / previous.centroids).is_file()
        and previous.trained_on / _MAX_GROWTH <= count <= previous.trained_on * _MAX_GROWTH
    ):
        return previous.model_copy(update={"blocks": ()})
    faiss = load_faiss()
    num_lists = max(1, round(2 * math.sqrt(count)))
    digest = hashlib.blake2b(live.tobytes() + f"{_SEED} {num_lists}".encode(), digest_size=8).hexdigest()
    files = VectorIndexFiles(kind="ivf", num_lists=num_lists, centroids=f"centroids-{digest}.faiss", trained_on=count)
    if (directory / files.centroids).is_file():  # of a build that stopped after this step
        return files
    sample_size = min(count, num_lists * _SAMPLES_PER_LIST)
    chosen = np.random.default_rng(_SEED).choice(count, size=sample_size, replace=False)
    sample = read_vectors(shards, live[np.sort(chosen)], dimension)
    index = _new_ivf(faiss, faiss.IndexFlatIP(dimension), dimension, num_lists)
    index.cp.seed, index.cp.niter = _SEED, 10
    index.train(sample)
    _write_index(faiss, index, directory / files.centroids)
    return files


def _new_ivf(faiss: Any, centroids: Any, dimension: int, num_lists: int) -> Any:
    return faiss.IndexIVFScalarQuantizer(
        centroids, dimension, num_lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )


def _write_index(faiss: Any, index: Any, path: Path) -> None:
    partial = path.with_name(PARTIAL_PREFIX + path.name)
    try:
        faiss.write_index(index, str(partial))
        fsync_file(partial)
        os.replace(partial, path)
    except RuntimeError as e:  # the library's error for a failed write
        text = str(e)
        is_full = "No space left" in text or "write error" in text
        raise OSError(errno.ENOSPC if is_full else errno.EIO, text) from e
    finally:
        partial.unlink(missing_ok=True)


def _read_index(faiss: Any, path: Path, flags: int) -> Any:
    try:
        return faiss.read_index(str(path), flags)
    except Exception as e:
        raise DataError(f"{path} is missing or damaged", hint="rebuild the index") from e
