"""Embedding models and rerankers of providers and vLLM servers, through LiteLLM.

Endpoints in OpenAI's format are called without LiteLLM, all others by `litellm.aembedding`. Retries, limits, keys and
errors are those of text requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import InvalidResponse
from ...core.messages import Usage
from ...core.settings import EncoderSettings, Settings
from ..litellm.limiter import ConcurrencyLimiter
from ..litellm.model import LiteLLMModel
from ..litellm.pooling_server import PoolingServer
from ..litellm.providers import Prices, find_prices, find_target, load_litellm, map_entry
from ..litellm.requests import RequestTraits
from ..litellm.transport import Transport
from ..model import Capabilities
from ..transformers_loading import min_limit
from .protocols import TextKind, check_pairs


class ServedEmbedding:
    """An embedding model at a provider, as an `EmbeddingBackend`.

    Args:
        client: Sends the requests.
        settings: Settings of the model.
        prices: Prices of its tokens.
        context: Maximum text in tokens; None if unknown.
        dimension: Length of a vector.
    """

    def __init__(
        self, client: LiteLLMModel, settings: EncoderSettings, prices: Prices, context: int | None, dimension: int
    ) -> None:
        self.name, self.identity = client.name, client.identity
        self.dimension = dimension
        self.max_tokens = min_limit(settings.max_tokens, context)
        self.price_known = prices.prompt is not None
        self.at_once = client.target.settings.concurrency
        self._client, self._prices = client, prices
        self._prompts: dict[TextKind, str] = {
            "text": "",
            "query": settings.query_prompt or "",
            "document": settings.document_prompt or "",
        }

    @classmethod
    async def connect(cls, name: str, settings: Settings, encoder_settings: EncoderSettings) -> ServedEmbedding:
        """Find the provider and the length of its vectors, in LiteLLM's table or by embedding a word.

        Raises:
            UnknownName: There is no such provider, or it does not serve the model.
            UserError: Key or address are missing or wrong.
            BackendError: It cannot be reached, or is no embedding model.
        """
        target = await asyncio.to_thread(find_target, name, settings)
        prices, context = find_prices(target)
        suffix = "" if target.settings.api_base is None else f"@{target.api_base}"
        client = LiteLLMModel(
            target,
            Transport(target),
            Capabilities(context_tokens=context),
            RequestTraits(vllm=target.vllm),
            prices,
            ConcurrencyLimiter(target.settings.concurrency),
            name + suffix,
        )
        try:
            known = map_entry(target.provider, target.served).get("output_vector_size")
            source = cls(client, encoder_settings, prices, context, known if isinstance(known, int) else 0)
            if not suffix and not target.vllm and source.dimension:
                return source
            vectors, _ = await source.compute(["word"], "")
            source.dimension = int(vectors.shape[1])
            return source
        except BaseException:
            await client.aclose()
            raise

    def prompt(self, kind: TextKind) -> str:
        return self._prompts[kind]

    async def compute(self, texts: Sequence[str], prompt: str) -> tuple[NDArray[np.float32], Usage]:
        """Vectors of one request."""
        sent = [prompt + text for text in texts]
        response, waited = await self._client.retried(lambda: self._send(sent))
        vectors = self._read(response, len(sent))
        tokens = int((response.get("usage") or {}).get("prompt_tokens") or 0)
        cost = None if self._prices.prompt is None else tokens * self._prices.prompt
        return vectors, Usage(prompt_tokens=tokens, waited_s=waited, cost_usd=cost)

    async def count_tokens(self, texts: Sequence[str]) -> None:
        """None: only the provider knows."""
        return

    def max_usd(self, texts: Sequence[str]) -> float:
        """The price of the texts with a token per byte."""
        longest = max(map(len, self._prompts.values()))
        return (self._prices.prompt or 0.0) * sum(len(t.encode("utf-8", "replace")) + longest + 8 for t in texts)

    async def aclose(self) -> None:
        """Cancel requests in flight and close the connections; idempotent."""
        await self._client.aclose()

    async def _send(self, texts: list[str]) -> Any:
        target, wire = self._client.target, self._client.wire
        if wire.client is not None:
            body = {"model": target.served, "input": texts, "encoding_format": "float"}
            return await wire.client.post_json("/embeddings", body)
        response = await load_litellm().aembedding(
            model=target.name,
            input=texts,
            api_base=target.api_base,
            api_key=target.api_key,
            timeout=target.settings.timeout_s,
            max_retries=0,
            num_retries=0,
            drop_params=False,
            caching=False,
            extra_headers=target.settings.headers,
        )
        return response.model_dump()

    def _read(self, response: Any, texts: int) -> NDArray[np.float32]:
        rows = sorted(response["data"], key=lambda row: row["index"])
        vectors: NDArray[np.float32] = np.array([row["embedding"] for row in rows], dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != texts or (self.dimension and vectors.shape[1] != self.dimension):
            raise InvalidResponse(f"{self.name} sent vectors of shape {vectors.shape} for {texts} texts")
        if not np.isfinite(vectors).all():
            raise InvalidResponse(f"{self.name} sent vectors that are no numbers")
        return vectors


_PROBE = (("What is the capital of France?", "Paris is the capital of France."),)


class ServedCrossEncoder:
    """A reranker on a vLLM server that was started with `--runner pooling`.

    Args:
        name: Model string.
        server: The server.
        settings: Settings of the model.
        activated: Whether the server returns the sigmoid even where the raw output is requested.
    """

    labels: tuple[str, ...] = ("score",)

    def __init__(self, name: str, server: PoolingServer, settings: EncoderSettings, *, activated: bool = False) -> None:
        self.name, self.identity, self.max_tokens = name, server.weights, server.context
        self._server, self._batch, self._activated = server, settings.batch_texts, activated

    @classmethod
    async def connect(cls, name: str, server: PoolingServer, settings: EncoderSettings) -> ServedCrossEncoder:
        """Determine by two short requests what the server returns.

        Raises:
            BackendError: It returns no scores.
        """
        raw = await server.score_pairs(_PROBE, activated=False)
        # a server that does not know the field leaves the activation on: the same number comes twice
        return cls(name, server, settings, activated=raw == await server.score_pairs(_PROBE, activated=True))

    async def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Raw scores `[pairs, 1]`."""
        check_pairs(pairs)
        parts = [pairs[i : i + self._batch] for i in range(0, len(pairs), self._batch)]
        batches = await self._server.client.gather(
            [partial(self._server.score_pairs, batch, activated=self._activated) for batch in parts]
        )
        scores = np.array([x for batch in batches for x in batch], dtype=np.float64).reshape(-1, 1)
        if self._activated:
            with np.errstate(divide="ignore"):
                scores = np.log(scores) - np.log1p(-scores)
        logits: NDArray[np.float32] = scores.astype(np.float32)
        return logits

    async def aclose(self) -> None:
        """Cancel requests in flight and close the connections; idempotent."""
        await self._server.aclose()
