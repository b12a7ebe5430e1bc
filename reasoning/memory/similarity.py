"""`Similarity`: cosine similarity of texts, by an embedding model, recorded in the run store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from pydantic import JsonValue

from ...core.run import Run
from ...core.store.protocol import StoredCall, call_key
from ...serving.encoders.protocols import EmbeddingModel
from ...serving.metered.calls import RecordedCalls

ROLE = "embedding"


@runtime_checkable
class Similarity(Protocol):
    """Compares texts by meaning."""

    async def cosines(self, left: Sequence[str], right: Sequence[str]) -> list[list[float]]:
        """Cosines `[left, right]` in [-1, 1].

        Raises:
            ReasonError: The texts could not be compared.
        """


class EmbeddingSimilarity:
    """Cosines of embeddings, all texts of a call in one batch. The model is not closed by this object."""

    def __init__(self, embedding: EmbeddingModel) -> None:
        self._embedding = embedding

    async def cosines(self, left: Sequence[str], right: Sequence[str]) -> list[list[float]]:
        """See `Similarity.cosines`.

        Raises:
            ReasonError: The embedding model failed.
        """
        if not left or not right:
            return [[] for _ in left]
        texts = list(dict.fromkeys((*left, *right)))
        rows = {text: row for row, text in enumerate(texts)}
        vectors = await self._embedding.embed(texts)
        products = vectors[[rows[t] for t in left]] @ vectors[[rows[t] for t in right]].T
        cosines: list[list[float]] = products.clip(-1.0, 1.0).tolist()
        return cosines


class RecordedSimilarity:
    """A `Similarity` whose results are in the run store, so that a replay needs no embedding model.

    Args:
        embedding: The model, metered; or its stand-in in a replay.
        run: The run.
    """

    def __init__(self, embedding: EmbeddingModel, run: Run) -> None:
        self._similarity = EmbeddingSimilarity(embedding)
        self._calls, self._run = RecordedCalls(run, ROLE, embedding.name, embedding.identity), run

    async def cosines(self, left: Sequence[str], right: Sequence[str]) -> list[list[float]]:
        """See `Similarity.cosines`.

        Raises:
            ReasonError: The embedding failed, or a replay needs what was not recorded.
            StoreError: The run store failed.
        """
        if not left or not right:
            return [[] for _ in left]
        run = self._run
        request: dict[str, JsonValue] = {"cosines": list(left), "with": list(right)}
        key = call_key(self._calls.identity, request, None, 0)
        stored = (await run.lookup_calls([key])).get(key)
        if stored is not None:
            return _cosines(stored)
        cosines = await self._similarity.cosines(left, right)
        # rounded as stored, so that a replay compares the same numbers
        cosines = [[round(value, 6) for value in row] for row in cosines]
        if run.recording:
            await run.save_calls([self._calls.record(key, request, {"cosines": [list(row) for row in cosines]})])
        return cosines


def _cosines(call: StoredCall) -> list[list[float]]:
    rows = call.response["cosines"]
    assert isinstance(rows, list)
    return [[float(value) for value in row] for row in rows if isinstance(row, list)]  # type: ignore[arg-type]
