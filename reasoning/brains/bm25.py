"""`WordIndex`: texts found by the words they share with a query, by BM25 (the library bm25s).

Source: Robertson, Zaragoza (2009), "The Probabilistic Relevance Framework: BM25 and Beyond", section 3.4, with Lucene's
inverse document frequency, which is never negative: ln(1 + (N - n + 0.5) / (n + 0.5)).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from ...core.errors import UserError

K1, B = 1.2, 0.75

_WORD = re.compile(r"\w+(?:['\u2019]\w+)?")
_MOST_QUERY_WORDS = 1000


def words_of(text: str) -> list[str]:
    """The words of a text as they are compared: without case, marks over letters and the English genitive.

    Ideographs and kana, which have no blanks between words, are words of one character each.
    """
    folded = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in folded if not unicodedata.combining(c))
    found: list[str] = []
    for match in _WORD.finditer(plain):
        word = match[0].replace("\u2019", "'").removesuffix("'s")
        found += _split(word) if any(c >= "\u3040" for c in word) else [word]
    return found


def _split(word: str) -> list[str]:
    return re.findall(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+", word)


class WordIndex:
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
        corpus = [words_of(text) for text in texts]
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

        words = words_of(query[: 20 * _MOST_QUERY_WORDS])[:_MOST_QUERY_WORDS]
        words = [word for word in words if word not in self._idle] or words
        if self._index is None or not words:
            return []
        scores = self._index.get_scores(words)
        best = np.argsort(-scores, kind="stable")[:most]
        return [(int(i), float(scores[i])) for i in best if scores[i] > 0]
