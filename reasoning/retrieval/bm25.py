"""`BM25Index`: texts found by the words they share with a query, by BM25 (the library bm25s).

Source: Robertson, Zaragoza (2009), "The Probabilistic Relevance Framework: BM25 and Beyond", section 3.4, with Lucene's
inverse document frequency, which is never negative: ln(1 + (N - n + 0.5) / (n + 0.5)).

Words of passages counted in shards, and the BM25 index that is made of them, by streaming, in the files of bm25s.

bm25s itself indexes a list of all texts' words in memory. Here the same numbers are computed shard by shard and written
into memory-mapped arrays of its file format, so that memory holds the vocabulary and one shard. Formulas: Robertson,
Zaragoza (2009), section 3.4, with Lucene's inverse document frequency (see `reasoning/retrieval/bm25.py`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ...core.errors import UserError
from .index.database import PassageRow
from .index.shards import ArrayShards, Shard, fsync_file
from .words import split_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


K1, B = 1.2, 0.75

_MOST_QUERY_WORDS = 1000


class BM25Index:
    """Texts by their words.

    Args:
        texts: The texts; their places are what `rank` tells.

    Raises:
        UserError: The library is not installed.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        try:
            import bm25s
            from bm25s.stopwords import STOPWORDS_EN
        except ModuleNotFoundError as e:
            raise UserError(
                f"searching texts by their words needs the package {e.name!r}, which is not installed",
                hint="pip install 'reason-orchestrator[local]'",
            ) from e
        corpus = [split_words(text) for text in texts]
        self._idle = frozenset(STOPWORDS_EN)
        self._index: Any = None  # of nothing but empty texts there can be none
        if any(corpus):
            self._index = bm25s.BM25(k1=K1, b=B, method="lucene")
            self._index.index(corpus, show_progress=False)

    def rank(self, query: str, most: int) -> list[tuple[int, float]]:
        """The texts that share a word with the query.

        Args:
            query: What is looked for. English words without a meaning of their own ("the", "of", …) count only if there
                are no others; of a very long query the beginning counts.
            most: Most texts.

        Returns:
            (place, BM25 score), the best first, equal ones in their order.
        """
        import numpy as np

        words = split_words(query[: 20 * _MOST_QUERY_WORDS])[:_MOST_QUERY_WORDS]
        words = [word for word in words if word not in self._idle] or words
        if self._index is None or not words:
            return []
        scores = self._index.get_scores(words)
        best = np.argsort(-scores, kind="stable")[:most]
        return [(int(i), float(scores[i])) for i in best if scores[i] > 0]


SHARD_PASSAGES = 16384
"""Places of one shard."""

DATA, INDICES, INDPTR = "data.csc.index.npy", "indices.csc.index.npy", "indptr.csc.index.npy"
VOCABULARY, PARAMETERS = "vocab.index.json", "params.index.json"


class _Counts(NamedTuple):
    """Counts of one shard, by word and within a word by place.

    Attributes:
        vocabulary: Its words.
        starts: Where the entries of each word begin; one more than words.
        rows: Place of each entry, counted from the shard's first.
        counts: How often the word stands there.
        lengths: Words of each place; 0 where no passage is.
    """

    vocabulary: list[str]
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    counts: NDArray[np.int32]
    lengths: NDArray[np.int32]


def append_word_counts(shards: ArrayShards, stop: int, rows: list[PassageRow]) -> None:
    """Keep the counts of the places from the shards' end up to `stop`.

    Raises:
        OSError: They cannot be written.
    """
    import numpy as np

    start = shards.end
    lengths = np.zeros(stop - start, dtype=np.int32)
    entries: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        words = split_words(row.shown)
        lengths[row.place - start] = len(words)
        for word, count in Counter(words).items():
            entries.setdefault(word, []).append((row.place - start, count))
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
    shards: ArrayShards, live: NDArray[np.int64], folder: Path, step: Callable[[int, int], None]
) -> bool:
    """Make the BM25 index of the live places out of their counts; its row r is the place `live[r]`.

    Args:
        shards: Counts of all places.
        live: Places of the index, ascending.
        folder: Where its files go; it is there and empty.
        step: Called before each shard with the shards done and in all; may raise to stop.

    Returns:
        Whether there is a word at all; if not, there are no files.

    Raises:
        OSError: They cannot be written.
    """
    import bm25s
    import numpy as np

    held = shards.shards
    numbers: dict[str, int] = {}
    frequency: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    total = 0
    for done, shard in enumerate(held):
        step(done, 2 * len(held))
        counts = _read(shard)
        terms = np.fromiter((numbers.setdefault(word, len(numbers)) for word in counts.vocabulary), dtype=np.int64)
        frequency = np.concatenate([frequency, np.zeros(len(numbers) - len(frequency), dtype=np.int64)])
        rows = _rows(shard, live)
        kept = rows[counts.rows] >= 0
        sums = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
        frequency[terms] += sums[counts.starts[1:]] - sums[counts.starts[:-1]]
        total += int(counts.lengths[rows >= 0].sum())
    entries = int(frequency.sum())
    if entries == 0:
        return False
    indptr = np.concatenate([[0], np.cumsum(frequency)]).astype(np.int64)
    idf = np.log(1 + (len(live) - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
    mean = total / len(live)
    data = np.lib.format.open_memmap(folder / DATA, mode="w+", dtype=np.float32, shape=(entries,))
    indices = np.lib.format.open_memmap(folder / INDICES, mode="w+", dtype=np.int32, shape=(entries,))
    cursor = indptr[:-1].copy()
    for done, shard in enumerate(held):
        step(len(held) + done, 2 * len(held))
        counts = _read(shard)
        terms = np.array([numbers[word] for word in counts.vocabulary], dtype=np.int64)
        rows = _rows(shard, live)
        kept = rows[counts.rows] >= 0
        term_of = np.repeat(terms, np.diff(counts.starts))[kept]
        if not len(term_of):
            continue
        # entries of a word stand together: each goes behind those that earlier shards have put there
        first = np.flatnonzero(np.concatenate([[True], term_of[1:] != term_of[:-1]]))
        sizes = np.diff(np.concatenate([first, [len(term_of)]]))
        at = np.repeat(cursor[term_of[first]] - first, sizes) + np.arange(len(term_of))
        often = counts.counts[kept].astype(np.float64)
        length = counts.lengths[counts.rows[kept]]
        data[at] = idf[term_of] * (often / (K1 * (1 - B + B * length / mean) + often))
        indices[at] = rows[counts.rows[kept]]
        cursor[term_of[first]] += sizes
    data.flush()
    indices.flush()
    np.save(folder / INDPTR, indptr)
    (folder / VOCABULARY).write_text(json.dumps(numbers, ensure_ascii=True), encoding="utf-8")
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
    (folder / PARAMETERS).write_text(json.dumps(parameters, indent=2), encoding="utf-8")
    for path in folder.iterdir():
        fsync_file(path)
    return True


class SavedBM25Index:
    """A BM25 index in files, memory-mapped.

    Args:
        folder: What `write_bm25_index` has written.
        places: The place of each of its rows.
        empty: Whether there are no words in it, and no files.
    """

    def __init__(self, folder: Path, places: NDArray[np.int64], *, empty: bool = False) -> None:
        import bm25s
        from bm25s.stopwords import STOPWORDS_EN

        self._idle = frozenset(STOPWORDS_EN)
        self._places = places
        self._index = None if empty else bm25s.BM25.load(folder, mmap=True, show_progress=False)

    def rank(self, query: str, most: int) -> list[tuple[int, float]]:
        """Places of passages that share a word with a query and their scores (see `BM25Index.rank`)."""
        import numpy as np

        words = split_words(query[:20_000])[:1000]
        words = [word for word in words if word not in self._idle] or words
        if self._index is None or not words:
            return []
        scores = self._index.get_scores(words)
        if most < len(scores):
            # all that are not below the last one wanted, so that equal ones keep their order
            least = np.partition(scores, len(scores) - most)[len(scores) - most]
            some = np.flatnonzero(scores >= max(least, np.finfo(np.float32).tiny))
        else:
            some = np.flatnonzero(scores > 0)
        best = some[np.argsort(-scores[some], kind="stable")[:most]]
        return [(int(self._places[i]), float(scores[i])) for i in best]


def _read(shard: Shard) -> _Counts:
    import numpy as np

    with np.load(shard.path, allow_pickle=False) as found:
        text = found["vocabulary"].tobytes().decode("utf-8", "surrogatepass")
        return _Counts(
            text.split("\n") if text else [], found["starts"], found["rows"], found["counts"], found["lengths"]
        )


def _rows(shard: Shard, live: NDArray[np.int64]) -> NDArray[np.int64]:
    """The index's row of each place of a shard; -1 where the place is no part of it."""
    import numpy as np

    low, high = np.searchsorted(live, [shard.start, shard.stop])
    rows = np.full(shard.stop - shard.start, -1, dtype=np.int64)
    rows[live[low:high] - shard.start] = np.arange(low, high)
    return rows
