"""BM25 over the library bm25s: `BM25Index` in memory, `SavedBM25Index` memory-mapped, and how the latter is built.

bm25s itself indexes a list of all words in memory. `write_bm25_index` computes the same numbers shard by shard from
stored word counts, and writes them in bm25s's file format, so that memory holds the vocabulary and one shard.

Source: Robertson, Zaragoza (2009), "The Probabilistic Relevance Framework: BM25 and Beyond", section 3.4, with Lucene's
inverse document frequency, which is never negative: ln(1 + (N - n + 0.5) / (n + 0.5)).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ...core.extras import missing_package
from .index.shards import ArrayShards, Shard, fsync_file
from .words import split_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

K1, B = 1.2, 0.75

SHARD_PASSAGES = 16384

_MAX_QUERY_WORDS = 1000
_DATA, _INDICES, _INDPTR = "data.csc.index.npy", "indices.csc.index.npy", "indptr.csc.index.npy"
_VOCABULARY, _PARAMETERS = "vocab.index.json", "params.index.json"


def load_bm25s() -> Any:
    """The library bm25s.

    Raises:
        UserError: It is not installed.
    """
    try:
        import bm25s
    except ModuleNotFoundError as e:
        raise missing_package("keyword search", e.name, "local") from e
    return bm25s


class BM25Index:
    """BM25 over texts in memory.

    Raises:
        UserError: The library is not installed.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        bm25s = load_bm25s()
        corpus = [split_words(text) for text in texts]
        self._index: Any = None  # the library cannot index only empty texts
        if any(corpus):
            self._index = bm25s.BM25(k1=K1, b=B, method="lucene")
            self._index.index(corpus, show_progress=False)

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """(index, score) of up to `k` texts that share a word with the query, best first, ties in their order.

        Stop words count only if the query has no other words, and of a very long query only the beginning.
        """
        words = _query_words(query)
        if self._index is None or not words:
            return []
        return _best(self._index.get_scores(words), k)


class SavedBM25Index:
    """A memory-mapped BM25 index.

    Args:
        directory: The output of `write_bm25_index`.
        positions: Passage position of each row.
        empty: Whether no passage has a word, so that there are no files.
    """

    def __init__(self, directory: Path, positions: NDArray[np.int64], *, empty: bool = False) -> None:
        bm25s = load_bm25s()
        self._positions = positions
        self._index = None if empty else bm25s.BM25.load(directory, mmap=True, show_progress=False)

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """(position, score) of up to `k` passages (see `BM25Index.search`)."""
        words = _query_words(query)
        if self._index is None or not words:
            return []
        return [(int(self._positions[row]), score) for row, score in _best(self._index.get_scores(words), k)]


def _query_words(query: str) -> list[str]:
    from bm25s.stopwords import STOPWORDS_EN  # the library's list: scores of published results depend on it

    words = split_words(query[: 20 * _MAX_QUERY_WORDS])[:_MAX_QUERY_WORDS]
    return [word for word in words if word not in STOPWORDS_EN] or words


def _best(scores: NDArray[np.float32], k: int) -> list[tuple[int, float]]:
    """(row, score) of the `k` largest positive scores, ties in order of rows."""
    import numpy as np

    if k < len(scores):
        # every row that ties with the last one is kept until after the stable sort
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows = np.flatnonzero(scores >= max(threshold, np.finfo(np.float32).tiny))
    else:
        rows = np.flatnonzero(scores > 0)
    rows = rows[np.argsort(-scores[rows], kind="stable")[:k]]
    return [(int(row), float(scores[row])) for row in rows]


# -- building from shards of word counts


class _WordCounts(NamedTuple):
    """Counts of one shard, sorted by word and then by position.

    Attributes:
        vocabulary: Words.
        starts: First entry of each word; one more than words.
        rows: Position of each entry, relative to the shard.
        counts: Occurrences of each entry.
        lengths: Words of each position; 0 where there is no passage.
    """

    vocabulary: list[str]
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    counts: NDArray[np.int32]
    lengths: NDArray[np.int32]


def append_word_counts(shards: ArrayShards, stop: int, texts: Sequence[tuple[int, str]]) -> None:
    """Store the word counts of (position, text) pairs from the end of the shards up to `stop`.

    Raises:
        OSError: They cannot be written.
    """
    import numpy as np

    start = shards.end
    lengths = np.zeros(stop - start, dtype=np.int32)
    entries: dict[str, list[tuple[int, int]]] = {}
    for position, text in texts:
        words = split_words(text)
        lengths[position - start] = len(words)
        for word, count in Counter(words).items():
            entries.setdefault(word, []).append((position - start, count))
    vocabulary = sorted(entries)
    sizes = [len(entries[word]) for word in vocabulary]
    flat = np.array([pair for word in vocabulary for pair in entries[word]], dtype=np.int32).reshape(-1, 2)

    def write(file: IO[bytes]) -> None:
        np.savez(
            file,
            vocabulary=np.frombuffer("\n".join(vocabulary).encode("utf-8", "surrogatepass"), dtype=np.uint8),
            starts=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64),
            rows=flat[:, 0],
            counts=flat[:, 1],
            lengths=lengths,
        )

    shards.add(stop, write)


def write_bm25_index(
    shards: ArrayShards, live: NDArray[np.int64], directory: Path, progress: Callable[[int, int], None]
) -> bool:
    """Build the BM25 index of the live positions from their word counts; its row r is the position `live[r]`.

    Args:
        shards: Word counts of all positions.
        live: Indexed positions, ascending.
        directory: An existing, empty directory.
        progress: Called before each shard with shards done and in total; may raise to stop.

    Returns:
        Whether any passage has a word; if not, no files are written.

    Raises:
        OSError: A file cannot be written.
    """
    import numpy as np

    bm25s = load_bm25s()
    all_shards = shards.shards
    word_ids: dict[str, int] = {}
    frequency: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    total = 0
    for done, shard in enumerate(all_shards):
        progress(done, 2 * len(all_shards))
        counts = _read_counts(shard)
        terms = np.fromiter((word_ids.setdefault(word, len(word_ids)) for word in counts.vocabulary), dtype=np.int64)
        frequency = np.concatenate([frequency, np.zeros(len(word_ids) - len(frequency), dtype=np.int64)])
        rows = _index_rows(shard, live)
        kept = rows[counts.rows] >= 0
        sums = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
        frequency[terms] += sums[counts.starts[1:]] - sums[counts.starts[:-1]]
        total += int(counts.lengths[rows >= 0].sum())
    num_entries = int(frequency.sum())
    if num_entries == 0:
        return False
    indptr = np.concatenate([[0], np.cumsum(frequency)]).astype(np.int64)
    idf = np.log(1 + (len(live) - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
    mean_length = total / len(live)
    data = np.lib.format.open_memmap(directory / _DATA, mode="w+", dtype=np.float32, shape=(num_entries,))
    indices = np.lib.format.open_memmap(directory / _INDICES, mode="w+", dtype=np.int32, shape=(num_entries,))
    cursor = indptr[:-1].copy()
    for done, shard in enumerate(all_shards):
        progress(len(all_shards) + done, 2 * len(all_shards))
        counts = _read_counts(shard)
        terms = np.array([word_ids[word] for word in counts.vocabulary], dtype=np.int64)
        rows = _index_rows(shard, live)
        kept = rows[counts.rows] >= 0
        term_of_entry = np.repeat(terms, np.diff(counts.starts))[kept]
        if not len(term_of_entry):
            continue
        # entries of a word are contiguous: they go after those that earlier shards have written
        first = np.flatnonzero(np.concatenate([[True], term_of_entry[1:] != term_of_entry[:-1]]))
        sizes = np.diff(np.concatenate([first, [len(term_of_entry)]]))
        at = np.repeat(cursor[term_of_entry[first]] - first, sizes) + np.arange(len(term_of_entry))
        frequencies = counts.counts[kept].astype(np.float64)
        lengths = counts.lengths[counts.rows[kept]]
        data[at] = idf[term_of_entry] * (frequencies / (K1 * (1 - B + B * lengths / mean_length) + frequencies))
        indices[at] = rows[counts.rows[kept]]
        cursor[term_of_entry[first]] += sizes
    data.flush()
    indices.flush()
    np.save(directory / _INDPTR, indptr)
    (directory / _VOCABULARY).write_text(json.dumps(word_ids, ensure_ascii=True), encoding="utf-8")
    index = bm25s.BM25(k1=K1, b=B, method="lucene")
    parameters = {
        "k1": K1,
        "b": B,
        "delta": index.delta,
        "method": index.method,
        "idf_method": index.idf_method,
        "dtype": "float32",
        "int_dtype": "int32",
        "num_docs": len(live),
        "version": bm25s.__version__,
        "backend": index.backend,
    }
    (directory / _PARAMETERS).write_text(json.dumps(parameters, indent=2), encoding="utf-8")
    for path in directory.iterdir():
        fsync_file(path)
    return True


def _read_counts(shard: Shard) -> _WordCounts:
    import numpy as np

    with np.load(shard.path, allow_pickle=False) as arrays:
        text = arrays["vocabulary"].tobytes().decode("utf-8", "surrogatepass")
        vocabulary = text.split("\n") if text else []
        return _WordCounts(vocabulary, arrays["starts"], arrays["rows"], arrays["counts"], arrays["lengths"])


def _index_rows(shard: Shard, live: NDArray[np.int64]) -> NDArray[np.int64]:
    """The index's row of each position of a shard; -1 where the position is not indexed."""
    import numpy as np

    low, high = np.searchsorted(live, [shard.start, shard.stop])
    rows = np.full(shard.stop - shard.start, -1, dtype=np.int64)
    rows[live[low:high] - shard.start] = np.arange(low, high)
    return rows
