"""`CachedEmbedding`: an embedding model that computes in batches and caches vectors.

Vectors are evicted minimum recently used first. A text that another call is embedding is awaited, not embedded again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...core.concurrency import gather
from ...core.errors import UserError
from ...core.messages import Usage
from ..model_thread import length_batches
from .protocols import TextKind, UsageCallback


class EmbeddingBackend(Protocol):
    """Computes vectors of a batch of texts.

    Attributes:
        name: Model string.
        identity: Changes whenever a text could get another vector.
        dimension: Length of a vector.
        max_tokens: As `EmbeddingModel.max_tokens`.
        price_known: As `EmbeddingModel.price_known`.
        at_once: Number of batches that are worth computing concurrently.
    """

    name: str
    identity: str
    dimension: int
    max_tokens: int | None
    price_known: bool
    at_once: int

    def prompt(self, kind: TextKind) -> str:
        """The prompt before a text; empty for none."""

    async def compute(self, texts: Sequence[str], prompt: str) -> tuple[NDArray[np.float32], Usage]:
        """Vectors `[texts, dimension]`, not normalised, and their usage."""

    async def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        """Tokens of each text; None if unknown."""

    def max_usd(self, texts: Sequence[str]) -> float:
        """Maximum dollars of the computation."""

    async def aclose(self) -> None:
        """Release everything; idempotent."""


Vector = NDArray[np.float32]
_Key = bytes


class CachedEmbedding:
    """An embedding model over a backend.

    Args:
        source: The backend; closed with this object.
        batch_texts: Maximum texts of a batch.
        cache_bytes: Memory for vectors; 0 caches nothing.
    """

    def __init__(self, source: EmbeddingBackend, *, batch_texts: int = 32, cache_bytes: int = 64 << 20) -> None:
        self.name, self.identity = source.name, source.identity
        self.dimension, self.max_tokens, self.price_known = source.dimension, source.max_tokens, source.price_known
        self._source = source
        self._batch = batch_texts
        self._most = cache_bytes // (4 * source.dimension)
        self._memory: OrderedDict[_Key, Vector] = OrderedDict()
        self._under_way: dict[_Key, asyncio.Future[Vector]] = {}

    async def embed(
        self, texts: Sequence[str], *, kind: TextKind = "text", unit: bool = True, charged: UsageCallback | None = None
    ) -> Vector:
        if isinstance(texts, str) or any(not isinstance(t, str) for t in texts):
            raise UserError("embed takes a list of texts")
        if kind not in ("text", "query", "document"):
            raise UserError(f"no kind of text is called {kind!r}", hint="text, query or document")
        prompt = self._source.prompt(kind)
        keys = [_key(prompt, text) for text in texts]
        texts_by_key = dict(zip(keys, texts, strict=True))
        vectors_by_key: dict[_Key, Vector] = {}
        while len(vectors_by_key) < len(texts_by_key):
            vectors_by_key.update(
                {k: v for k in texts_by_key if k not in vectors_by_key and (v := self._recall(k)) is not None}
            )
            left = [k for k in texts_by_key if k not in vectors_by_key]
            mine = {k: texts_by_key[k] for k in left if k not in self._under_way}
            theirs = {k: self._under_way[k] for k in left if k not in mine}
            if mine:
                vectors_by_key.update(await self._compute(mine, prompt, charged))
            if theirs:
                await asyncio.wait(theirs.values())
                # a text whose computation was cancelled is computed here in the next iteration
                vectors_by_key.update({k: f.result() for k, f in theirs.items() if not f.cancelled()})
        result: Vector = np.zeros((len(keys), self.dimension), dtype=np.float32)
        for row, key in enumerate(keys):
            result[row] = vectors_by_key[key]
        return _of_length_one(result) if unit else result

    async def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        return await self._source.count_tokens(texts)

    def max_usd(self, texts: Sequence[str]) -> float:
        return self._source.max_usd(texts)

    async def aclose(self) -> None:
        """Close the backend and clear the cache; idempotent."""
        self._memory.clear()
        await self._source.aclose()

    async def _compute(self, texts: dict[_Key, str], prompt: str, charged: UsageCallback | None) -> dict[_Key, Vector]:
        """Compute texts that no other call is computing."""
        keys = list(texts)
        loop = asyncio.get_running_loop()
        mine = {key: loop.create_future() for key in keys}
        self._under_way.update(mine)
        vectors_by_key: dict[_Key, Vector] = {}
        batches = iter(length_batches([len(texts[k]) for k in keys], self._batch))

        async def work() -> None:
            for batch in batches:
                some = [keys[i] for i in batch]
                vectors, usage = await self._source.compute([texts[k] for k in some], prompt)
                for key, vector in zip(some, vectors, strict=True):
                    vectors_by_key[key] = vector
                    self._remember(key, vector)
                    mine[key].set_result(vector)
                    del self._under_way[key]
                if charged is not None:
                    charged(usage)

        try:
            await gather([work() for _ in range(max(1, min(self._source.at_once, -(-len(keys) // self._batch))))])
        finally:
            for key, future in mine.items():
                if not future.done():
                    future.cancel()
                    self._under_way.pop(key, None)
        return vectors_by_key

    def _recall(self, key: _Key) -> Vector | None:
        vector = self._memory.get(key)
        if vector is not None:
            self._memory.move_to_end(key)
        return vector

    def _remember(self, key: _Key, vector: Vector) -> None:
        if self._most:
            self._memory[key] = np.array(vector, dtype=np.float32)  # its own memory, not a view of the complete batch
            if len(self._memory) > self._most:
                self._memory.popitem(last=False)


def _key(prompt: str, text: str) -> _Key:
    hashed = hashlib.blake2b(digest_size=20)
    for part in (prompt, text):
        encoded = part.encode("utf-8", "surrogatepass")
        hashed.update(len(encoded).to_bytes(8, "big") + encoded)
    return hashed.digest()


def _of_length_one(vectors: Vector) -> Vector:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: Vector = vectors / np.maximum(lengths, np.float32(1e-12))
    return result
