"""`load_embedding_model` and `load_cross_encoder`: from model strings to models."""

from __future__ import annotations

import threading

from ...core.errors import UnknownName, UserError
from ...core.files import Progress
from ...core.registry import nearest
from ...core.settings import EncoderSettings, Settings
from ..model_files.catalogue import KNOWN_ENCODERS, PREFIX
from ..model_files.conversion import missing_extra
from ..model_files.downloads import run_pull
from .files import find_encoder
from .protocols import CrossEncoder, EmbeddingModel

SERVED_PREFIX = "hosted_vllm_pooling/"


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
    if name.startswith(("vllm/", SERVED_PREFIX)):
        raise UserError(
            f"embedding models are not available as {name.partition('/')[0]}/…",
            hint="use local/…, or for a vLLM server that embeds hosted_vllm/<served name>",
        )
    try:
        from .cache import CachedEmbedding
        from .served import ServedEmbedding
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    backend = await ServedEmbedding.connect(name, settings, encoder_settings)
    return CachedEmbedding(backend, batch_texts=encoder_settings.batch_texts, cache_bytes=encoder_settings.cache_bytes)


async def load_cross_encoder(name: str, settings: Settings, progress: Progress | None = None) -> CrossEncoder:
    """Load a cross-encoder by its model string, off the event loop.

    | string | model |
    | --- | --- |
    | `local/<directory>`, `local/<hub id>` | a sequence classifier, by sentence-transformers, in this process |
    | `hosted_vllm_pooling/<served name>` | a reranker on a vLLM server started with `--runner pooling` |

    Args:
        name: The model string.
        settings: Location of the files; the section `encoders` of this name; providers.
        progress: Called with the progress of a download, from another thread.

    Raises:
        UnknownName: No cross-encoder has that name.
        UserError: A setting is invalid or an extra is missing.
        DataError: The model's files are damaged, or are another kind of model.
        BackendUnavailable: It is not available here, or its server cannot be reached.
    """
    encoder_settings = settings.encoders.get(name, EncoderSettings())
    if name.startswith(SERVED_PREFIX):
        return await _connect_cross_encoder(name, settings, encoder_settings)
    if not name.startswith(PREFIX):
        head, slash, rest = name.partition("/")
        near = tuple(p + rest for p in nearest(head + "/", (PREFIX, SERVED_PREFIX))) if slash else (PREFIX + name,)
        raise UnknownName("cross-encoder", name, near, hint=f"it begins with {PREFIX} or {SERVED_PREFIX}")
    return await run_pull(
        lambda cancel: _load_classifier(name, settings, encoder_settings, progress, cancel),
        lambda m: m.aclose(),
    )


async def _connect_cross_encoder(name: str, settings: Settings, encoder_settings: EncoderSettings) -> CrossEncoder:
    try:
        from ..litellm.pooling_server import connect_pooling_server
        from .served import ServedCrossEncoder
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    server = await connect_pooling_server(name, settings)
    try:
        return await ServedCrossEncoder.connect(name, server, encoder_settings)
    except BaseException:
        await server.aclose()
        raise


def _load_embedding(
    name: str, settings: Settings, encoder_settings: EncoderSettings, progress: Progress | None, cancel: threading.Event
) -> EmbeddingModel:
    try:
        from .cache import CachedEmbedding
        from .local import LocalEmbedding
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    files = find_encoder(name, sentence=True, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
    backend = LocalEmbedding(name, files, encoder_settings)
    return CachedEmbedding(backend, batch_texts=encoder_settings.batch_texts, cache_bytes=encoder_settings.cache_bytes)


def _load_classifier(
    name: str, settings: Settings, encoder_settings: EncoderSettings, progress: Progress | None, cancel: threading.Event
) -> CrossEncoder:
    try:
        from .local import LocalCrossEncoder
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    files = find_encoder(name, sentence=False, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
    return LocalCrossEncoder(name, files, encoder_settings)
