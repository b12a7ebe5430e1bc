"""`VectorIndex`: FAISS over embeddings, in memory or memory-mapped.

Up to 50,000 vectors search is exact. Beyond that an inverted file (IVF; Sivic, Zisserman 2003; Jégou, Douze, Schmid
2011) probes the lists of the centroids nearest to a query. It was chosen over a graph (HNSW) since its lists can be
memory-mapped and are read sequentially, it is trained on a sample and then filled by streaming, and vectors can be
added and removed. Vectors in lists are fp16: half of the pages to read, and cosines differ by less than 0.001.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ...core.extras import missing_package

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_EXACT = 50_000
"""Vectors up to which search is exact."""
NUM_PROBES = 128
"""Lists that a query probes, of 2 sqrt(N)."""

_SAMPLES_PER_LIST = 48
"""Training vectors of each centroid; FAISS warns below 39."""
_MAX_GROWTH = 2
"""Factor between the lists of an index and those its size needs beyond which the centroids are trained again."""
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


class VectorIndex:
    """Search by inner product over vectors at positions; create it with `exact`, `build` or `load`.

    Attributes:
        num_lists: Lists of an IVF; 0 if search is exact.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self.num_lists: int = getattr(index, "nlist", 0)
        if self.num_lists:
            index.nprobe = min(NUM_PROBES, self.num_lists)

    @classmethod
    def exact(cls, vectors: NDArray[np.float32]) -> Self:
        """Exact search over fp32 vectors `[texts, dimension]` by row.

        Raises:
            UserError: FAISS is not installed.
        """
        index = load_faiss().IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return cls(index)

    @classmethod
    def build(
        cls,
        positions: NDArray[np.int64],
        read: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        dimension: int,
        progress: Callable[[int, int], None],
        previous: tuple[Path, NDArray[np.int64]] | None,
    ) -> Self:
        """Index the vectors at positions, which `read` returns in batches.

        Args:
            positions: Ascending; not empty.
            read: Vectors of ascending positions.
            dimension: Dimension of a vector.
            progress: Called with vectors done and in total; may raise to stop.
            previous: File and positions of an earlier index. An IVF of similar size is updated.

        Raises:
            UserError: FAISS is not installed.
        """
        import numpy as np

        faiss, count = load_faiss(), len(positions)
        num_lists, new, index = round(2 * math.sqrt(count)), positions, None
        if count <= MAX_EXACT:
            index = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))
        elif previous is not None:
            stored = faiss.read_index(str(previous[0]))
            if num_lists / _MAX_GROWTH <= getattr(stored, "nlist", 0) <= num_lists * _MAX_GROWTH:
                index, new = stored, np.setdiff1d(positions, previous[1])
                index.remove_ids(np.setdiff1d(previous[1], positions))
        if index is None:
            quantizer = faiss.IndexFlatIP(dimension)
            precision, metric = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
            index = faiss.IndexIVFScalarQuantizer(quantizer, dimension, num_lists, precision, metric, False)
            index.cp.seed, index.cp.niter = _SEED, 10
            size = min(count, num_lists * _SAMPLES_PER_LIST)
            sample = np.random.default_rng(_SEED).choice(positions, size=size, replace=False)
            index.train(read(np.sort(sample)))
        for start in range(0, len(new), _BATCH):
            progress(start, len(new))
            batch = new[start : start + _BATCH]
            index.add_with_ids(read(batch), batch)
        return cls(index)

    def save(self, path: Path) -> None:
        """Write the index.

        Raises:
            OSError: It cannot be written.
        """
        try:
            load_faiss().write_index(self._index, str(path))
        except RuntimeError as e:  # the library's error for a failed write
            is_full = any(reason in str(e) for reason in ("No space left", "write error"))
            raise OSError(errno.ENOSPC if is_full else errno.EIO, str(e)) from e

    @classmethod
    def load(cls, path: Path) -> Self:
        """Memory-map an index.

        Raises:
            UserError: FAISS is not installed.
            RuntimeError: It is damaged.
        """
        faiss = load_faiss()
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY))

    def search(self, queries: NDArray[np.float32], k: int) -> list[list[int]]:
        """Positions of the `k` largest inner products for each row of `[queries, dimension]`, best first."""
        _, positions = self._index.search(queries, min(k, self._index.ntotal))
        return [[int(position) for position in row if position >= 0] for row in positions]
