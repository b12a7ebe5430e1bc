"""`Similarity`: how alike texts are in meaning, and `EmbeddedSimilarity`, which asks an embedding model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ...serving.embeddings import EmbeddingModel


@runtime_checkable
class Similarity(Protocol):
    """Something that compares texts by what they mean."""

    async def cosines(self, left: Sequence[str], right: Sequence[str]) -> list[list[float]]:
        """How alike each of some texts is to each of others.

        Args:
            left: Some texts.
            right: Others.

        Returns:
            `[left, right]` cosines in [-1, 1].

        Raises:
            ReasonError: They could not be compared.
        """


class EmbeddedSimilarity:
    """Cosines of embeddings, all texts of a call in one batch.

    Args:
        embedding: The model; it is not closed by this object. In a run, a `MeteredEmbedding`, which charges it.
    """

    def __init__(self, embedding: EmbeddingModel) -> None:
        self._embedding = embedding

    async def cosines(self, left: Sequence[str], right: Sequence[str]) -> list[list[float]]:
        """See `Similarity.cosines`.

        Raises:
            ReasonError: What `EmbeddingModel.embed` raises.
        """
        if not left or not right:
            return [[] for _ in left]
        texts = list(dict.fromkeys((*left, *right)))
        place = {text: row for row, text in enumerate(texts)}
        vectors = await self._embedding.embed(texts)
        products = vectors[[place[t] for t in left]] @ vectors[[place[t] for t in right]].T
        cosines: list[list[float]] = products.clip(-1.0, 1.0).tolist()
        return cosines
