"""`BM25Index`: keyword search by the library bm25s, in memory or memory-mapped.

Source: Robertson, Zaragoza (2009), "The Probabilistic Relevance Framework: BM25 and Beyond", section 3.4, with Lucene's
inverse document frequency, which is never negative: ln(1 + (N - n + 0.5) / (n + 0.5)).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ...core.extras import missing_package
from .words import split_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

K1, B = 1.2, 0.75

_MAX_QUERY_WORDS = 1000


class BM25Index:
    """BM25 over texts; create it with `of`, or `load` what `save` has written.

    Args:
        index: The library's index; None if no text has a word, which the library cannot index.
        positions: Position of each text; None is its row.
    """

    def __init__(self, index: Any, positions: NDArray[np.int64] | None = None) -> None:
        self._index, self._positions = index, positions

    @classmethod
    def of(cls, corpus: Iterable[Sequence[str]]) -> Self:
        """Index texts, each given as its words.

        Raises:
            UserError: The library is not installed.
        """
        bm25s = _load_bm25s()
        word_ids: dict[str, int] = {}
        texts = [[word_ids.setdefault(word, len(word_ids)) for word in words] for words in corpus]
        if not word_ids:
            return cls(None)
        index = bm25s.BM25(k1=K1, b=B, method="lucene")
        index.index((texts, word_ids), show_progress=False)
        return cls(index)

    def save(self, directory: Path) -> None:
        """Write the index to a directory; nothing if no text has a word.

        Raises:
            OSError: It cannot be written.
        """
        if self._index is not None:
            self._index.save(directory, show_progress=False)

    @classmethod
    def load(cls, directory: Path, positions: NDArray[np.int64]) -> Self:
        """Memory-map the index in a directory.

        Raises:
            UserError: The library is not installed.
            Exception: The files are damaged; the library raises arbitrary exceptions.
        """
        bm25s = _load_bm25s()
        is_empty = not any(directory.glob("*.index.json"))
        return cls(None if is_empty else bm25s.BM25.load(directory, mmap=True, show_progress=False), positions)

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """(position, score) of up to `k` texts that share a word with the query, best first, ties in their order.

        Stop words count only if the query has no other words, and of a very long query only the beginning.
        """
        words = _query_words(query)
        if self._index is None or not words:
            return []
        best = _best(self._index.get_scores(words), k)
        return best if self._positions is None else [(int(self._positions[row]), score) for row, score in best]


def _load_bm25s() -> Any:
    try:
        import bm25s
    except ModuleNotFoundError as e:
        raise missing_package("keyword search", e.name, "local") from e
    return bm25s


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
