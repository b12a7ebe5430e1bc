"""`WordVectors`: an embedding model whose cosines can be worked out by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from reason.serving.encoders.protocols import TextKind, UsageCallback


class WordVectors:
    """Counts the words of a text, synonyms as one; each word has a place of its own, up to collisions of hashes.

    Args:
        synonyms: The word that a word counts as.
        identity: Its identity.
        dimension: Numbers of a vector.

    Attributes:
        asked: The texts of each call.
    """

    name = "test/words"
    max_tokens = None
    price_known = True

    def __init__(
        self, synonyms: Mapping[str, str] | None = None, *, identity: str = "words-1", dimension: int = 4099
    ) -> None:
        self.identity, self.dimension = identity, dimension
        self.asked: list[list[str]] = []
        self._synonyms = synonyms or {}

    async def embed(
        self, texts: Sequence[str], *, kind: TextKind = "text", unit: bool = True, charged: UsageCallback | None = None
    ) -> NDArray[np.float32]:
        self.asked.append(list(texts))
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().replace(".", " ").split():
                vectors[row, self._place(self._synonyms.get(word, word))] += 1
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(lengths, np.float32(1e-12)) if unit else vectors

    async def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        return [len(text.split()) for text in texts]

    def max_usd(self, texts: Sequence[str]) -> float:
        return 0.0

    async def aclose(self) -> None:
        pass

    def _place(self, word: str) -> int:
        return int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % self.dimension
