"""`Similarity`: how alike texts are in meaning, and `EmbeddingSimilarity`, which asks an embedding model.

`RecordedSimilarity`: cosines that are in the run store, so that a run is shown again without the embedding model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from pydantic import JsonValue

from ...core.run import Run
from ...core.store.protocol import StoredCall, call_key
from ...serving.encoders.protocols import EmbeddingModel


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


class EmbeddingSimilarity:
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


ROLE = "embedding"


class RecordedSimilarity:
    """A `Similarity` whose results belong to a run.

    Args:
        embedding: The model, metered; or one that stands for it in a replay.
        run: The run.
    """

    def __init__(self, embedding: EmbeddingModel, run: Run) -> None:
        self._embedded = EmbeddingSimilarity(embedding)
        self._name, self._identity, self._run = embedding.name, embedding.identity, run

    async def cosines(self, left: Sequence[str], right: Sequence[str]) -> list[list[float]]:
        """See `Similarity.cosines`.

        Raises:
            ReasonError: The embedding failed, or a replay asks for what was not recorded.
            StoreError: The run store failed.
        """
        if not left or not right:
            return [[] for _ in left]
        run = self._run
        asked: dict[str, JsonValue] = {"cosines": list(left), "with": list(right)}
        key = call_key(self._identity, asked, None, 0)
        known = (await run.stored([key])).get(key)
        if known is not None:
            return _read(known)
        cosines = await self._embedded.cosines(left, right)
        # rounded as stored, so that a replay compares the same numbers
        cosines = [[round(value, 6) for value in row] for row in cosines]
        call = StoredCall(key=key, role=ROLE, model=self._name, request=asked, reply={"cosines": list(cosines)})
        if run.recording:
            await run.store.add_calls(run.id, [call])
        return cosines


def _read(call: StoredCall) -> list[list[float]]:
    rows = call.reply["cosines"]
    assert isinstance(rows, list)
    return [[float(value) for value in row] for row in rows if isinstance(row, list)]  # type: ignore[arg-type]
