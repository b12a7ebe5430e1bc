"""`load_embedding_model`, and the models that it loads: vectors computed in batches, and cached.

Local models are computed by the sentence-transformers library in this process. Of providers, endpoints in OpenAI's
format are called without LiteLLM, all others by `litellm.aembedding`; retries, limits, keys and errors are those of
text requests.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...core.concurrency import gather
from ...core.errors import BackendError, DataError, InvalidResponse, UnknownName, UserError
from ...core.files import Progress
from ...core.messages import Usage
from ...core.registry import nearest
from ...core.settings import EncoderSettings, Settings
from ..devices import choose_device
from ..litellm.limiter import ConcurrencyLimiter
from ..litellm.model import LiteLLMModel
from ..litellm.providers import Prices, find_prices, find_target, load_litellm, map_entry
from ..litellm.requests import RequestTraits
from ..litellm.transport import Transport
from ..model import Capabilities
from ..model_files.catalogue import KNOWN_ENCODERS, PREFIX
from ..model_files.conversion import missing_extra
from ..model_files.downloads import run_pull
from ..model_files.find import ModelFiles
from ..model_thread import ModelThread, length_batches
from ..transformers_loading import (
    LOCAL_FILES_ONLY,
    dtype_argument,
    first_line,
    min_limit,
    without_progress_bars,
)
from .files import find_encoder
from .protocols import EmbeddingModel, TextKind, UsageCallback

CACHE_BYTES = 64 << 20
"""Memory for the vectors that a model has computed."""
_QUERY, _DOCUMENT = ("query",), ("document", "passage", "corpus")
"""Names under which models keep their prompts."""


async def load_embedding_model(
    name: str | None, settings: Settings, progress: Progress | None = None
) -> EmbeddingModel:
    """Load an embedding model by its model string, off the event loop.

    | string | model |
    | --- | --- |
    | `local/all-minilm-l6-v2` | the default: 384 dimensions, its weights from the Python package index |
    | `local/<directory>`, `local/<hub id>` | any sentence-transformers model, in this process |
    | `hosted_vllm/<served name>` | a vLLM server that embeds, with the settings of providers |
    | `openai/text-embedding-3-small`, … | the provider that LiteLLM knows under this string |

    Args:
        name: The model string; None is the setting `embedding_model`.
        settings: Location of the files; the section `encoders` of this name; providers.
        progress: Called with the progress of a download, from another thread.

    Raises:
        UnknownName: No embedding model has that name.
        UserError: A setting is invalid, or an extra or a key is missing.
        DataError: The model's files are damaged, or are another kind of model.
        BackendUnavailable: It is not available here, or its provider cannot be reached.
    """
    name = name or settings.embedding_model
    encoder_settings = settings.encoders.get(name, EncoderSettings())
    if name.startswith(PREFIX):
        return await run_pull(
            lambda cancel: _load_embedding(name, settings, encoder_settings, progress, cancel), lambda m: m.aclose()
        )
    if "/" not in name:
        near = nearest(PREFIX + name, KNOWN_ENCODERS)
        raise UnknownName("embedding model", name, near, hint="it is <backend>/<name>, as in local/all-minilm-l6-v2")
    if name.startswith(("vllm/", "hosted_vllm_pooling/")):
        raise UserError(
            f"embedding models are not available as {name.partition('/')[0]}/…",
            hint="use local/…, or for a vLLM server that embeds hosted_vllm/<served name>",
        )
    backend = await ServedEmbedding.connect(name, settings, encoder_settings)
    return CachedEmbedding(backend, batch_texts=encoder_settings.batch_texts)


def _load_embedding(
    name: str, settings: Settings, encoder_settings: EncoderSettings, progress: Progress | None, cancel: threading.Event
) -> EmbeddingModel:
    try:
        import sentence_transformers  # noqa: F401 (before anything is fetched)
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    files = find_encoder(name, sentence=True, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
    backend = LocalEmbedding(name, files, encoder_settings)
    return CachedEmbedding(backend, batch_texts=encoder_settings.batch_texts)


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


class CachedEmbedding:
    """An embedding model over a backend, which caches vectors and evicts the least recently used first.

    Args:
        source: The backend; closed with this object.
        batch_texts: Maximum texts of a batch.
    """

    def __init__(self, source: EmbeddingBackend, *, batch_texts: int = 32) -> None:
        self.name, self.identity = source.name, source.identity
        self.dimension, self.max_tokens, self.price_known = source.dimension, source.max_tokens, source.price_known
        self._source, self._batch = source, batch_texts
        self._max_vectors = CACHE_BYTES // (4 * source.dimension)
        self._cache: OrderedDict[bytes, Vector] = OrderedDict()

    async def embed(
        self, texts: Sequence[str], *, kind: TextKind = "text", unit: bool = True, charged: UsageCallback | None = None
    ) -> Vector:
        if isinstance(texts, str) or any(not isinstance(t, str) for t in texts):
            raise UserError("embed takes a list of texts")
        if kind not in ("text", "query", "document"):
            raise UserError(f"no kind of text is called {kind!r}", hint="text, query or document")
        prompt = self._source.prompt(kind)
        keys = [_key(prompt, text) for text in texts]
        vectors = {key: vector for key in keys if (vector := self._cache.get(key)) is not None}
        for key in vectors:
            self._cache.move_to_end(key)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
        if missing:
            vectors |= await self._compute(missing, prompt, charged)
        result: Vector = np.zeros((len(keys), self.dimension), dtype=np.float32)
        for row, key in enumerate(keys):
            result[row] = vectors[key]
        return _of_length_one(result) if unit else result

    async def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        return await self._source.count_tokens(texts)

    def max_usd(self, texts: Sequence[str]) -> float:
        return self._source.max_usd(texts)

    async def aclose(self) -> None:
        """Close the backend and clear the cache; idempotent."""
        self._cache.clear()
        await self._source.aclose()

    async def _compute(
        self, texts: dict[bytes, str], prompt: str, charged: UsageCallback | None
    ) -> dict[bytes, Vector]:
        keys = list(texts)
        computed: dict[bytes, Vector] = {}
        batches = iter(length_batches([len(texts[k]) for k in keys], self._batch))

        async def work() -> None:
            for batch in batches:
                some = [keys[i] for i in batch]
                vectors, usage = await self._source.compute([texts[k] for k in some], prompt)
                for key, vector in zip(some, vectors, strict=True):
                    computed[key] = self._cache[key] = np.array(vector, dtype=np.float32)  # no view of the batch
                while len(self._cache) > self._max_vectors:
                    self._cache.popitem(last=False)
                if charged is not None:
                    charged(usage)

        await gather([work() for _ in range(max(1, min(self._source.at_once, -(-len(keys) // self._batch))))])
        return computed


def _key(prompt: str, text: str) -> bytes:
    hashed = hashlib.blake2b(digest_size=20)
    for part in (prompt, text):
        encoded = part.encode("utf-8", "surrogatepass")
        hashed.update(len(encoded).to_bytes(8, "big") + encoded)
    return hashed.digest()


def _of_length_one(vectors: Vector) -> Vector:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: Vector = vectors / np.maximum(lengths, np.float32(1e-12))
    return result


class LocalEmbedding:
    """A sentence-transformers model, as an `EmbeddingBackend`.

    Args:
        name: Model string.
        files: Its files, checked.
        settings: Its settings.

    Raises:
        DataError: The library cannot load it.
    """

    at_once = 1
    price_known = True

    def __init__(self, name: str, files: ModelFiles, settings: EncoderSettings) -> None:
        from sentence_transformers import SentenceTransformer

        self.name = name
        try:
            with without_progress_bars():
                self._model: Any = SentenceTransformer(
                    str(files.directory),
                    device=str(choose_device(settings.device)),
                    model_kwargs={"use_safetensors": True, **dtype_argument(settings.dtype)},
                    **LOCAL_FILES_ONLY,
                )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError) as e:
            raise DataError(f"cannot load the embedding model in {files.directory}: {first_line(e)}") from e
        self._model.default_prompt_name = None  # the prompt is this object's business
        limit = min_limit(settings.max_tokens, self._model.max_seq_length)
        if limit is not None:
            self._model.max_seq_length = limit
        self.max_tokens = limit
        size = getattr(self._model, "get_embedding_dimension", None) or self._model.get_sentence_embedding_dimension
        self.dimension = int(size() or 0)
        self.identity = f"{files.fingerprint}+{str(self._model.dtype).removeprefix('torch.')}+{limit}"
        own = dict(self._model.prompts or {})
        self._prompts: dict[TextKind, str] = {
            "text": "",
            "query": _first(settings.query_prompt, own, _QUERY),
            "document": _first(settings.document_prompt, own, _DOCUMENT),
        }
        self._thread = ModelThread(name)

    def prompt(self, kind: TextKind) -> str:
        return self._prompts[kind]

    async def compute(self, texts: Sequence[str], prompt: str) -> tuple[NDArray[np.float32], Usage]:
        """Vectors of one batch, computed in the model's own thread."""
        return await self._thread.run(lambda: self._compute(list(texts), prompt))

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before truncation, without a prompt."""
        return await self._thread.run(lambda: self._count(list(texts)))

    def max_usd(self, texts: Sequence[str]) -> float:
        return 0.0

    async def aclose(self) -> None:
        """Wait for the current batch and free the model; idempotent."""
        await self._thread.aclose()
        self._model = None

    def _compute(self, texts: list[str], prompt: str) -> tuple[NDArray[np.float32], Usage]:
        import torch

        try:
            with torch.inference_mode():
                vectors = self._model.encode(
                    texts,
                    prompt=prompt or None,
                    batch_size=len(texts),
                    convert_to_numpy=False,
                    convert_to_tensor=True,
                    show_progress_bar=False,
                )
        except RuntimeError as e:  # torch's class for a full memory too
            raise BackendError(
                f"{self.name} failed on {len(texts)} texts: {first_line(e)}",
                hint="lower batch_texts of this model in the section [encoders]",
            ) from e
        limit = self.max_tokens or 1 << 30
        tokens = sum(min(n, limit) for n in self._count([prompt + t for t in texts]))
        return vectors.float().cpu().numpy(), Usage(prompt_tokens=tokens)

    def _count(self, texts: list[str]) -> list[int]:
        if not texts:
            return []
        ids = self._model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        return [len(row) for row in ids]


def _first(configured: str | None, own: dict[str, str | None], names: Sequence[str]) -> str:
    if configured is not None:
        return configured
    return next((prompt for name in names if (prompt := own.get(name))), "")


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
