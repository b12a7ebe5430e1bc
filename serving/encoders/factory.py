"""From strings to embedding models and cross-encoders (see `load_embedding_model`, `load_cross_encoder`)."""

from __future__ import annotations

import threading

from ...core.errors import UnknownName, UserError
from ...core.registry import nearest
from ...core.scorer_settings import EncoderSettings
from ...core.settings import Settings
from ..model_files.catalogue import KNOWN_ENCODERS, PREFIX
from ..model_files.conversion import missing_extra
from ..model_files.downloads import Progress, run_pull
from .files import find_encoder
from .protocols import CrossEncoder, EmbeddingModel

SERVED_PREFIX = "hosted_vllm_pooling/"


async def open_embedding_by_name(name: str, settings: Settings, progress: Progress | None) -> EmbeddingModel:
    """See `load_embedding_model`."""
    chosen = settings.encoders.get(name, EncoderSettings())
    if name.startswith(PREFIX):
        return await run_pull(
            lambda cancel: _load_embedding(name, settings, chosen, progress, cancel), lambda m: m.aclose()
        )
    if "/" not in name:
        near = nearest(PREFIX + name, KNOWN_ENCODERS)
        raise UnknownName("embedding model", name, near, hint="it is <backend>/<name>, as in local/all-minilm-l6-v2")
    if name.startswith(("vllm/", "vllm-pooling/", SERVED_PREFIX)):
        raise UserError(
            f"embedding models do not run as {name.partition('/')[0]}/…",
            hint="local/… runs them here; a vLLM server that embeds is hosted_vllm/<served name>",
        )
    try:
        from .cache import Remembering
        from .served import ProviderSource
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    source = await ProviderSource.open(name, settings, chosen)
    return Remembering(source, batch_texts=chosen.batch_texts, remembered_bytes=chosen.remembered_bytes)


async def open_cross_encoder_by_name(name: str, settings: Settings, progress: Progress | None) -> CrossEncoder:
    """See `load_cross_encoder`."""
    chosen = settings.encoders.get(name, EncoderSettings())
    if name.startswith(SERVED_PREFIX):
        return await _open_served(name, settings, chosen)
    if not name.startswith(PREFIX):
        head, slash, rest = name.partition("/")
        near = tuple(p + rest for p in nearest(head + "/", (PREFIX, SERVED_PREFIX))) if slash else (PREFIX + name,)
        raise UnknownName("cross-encoder", name, near, hint=f"it begins with {PREFIX} or {SERVED_PREFIX}")
    return await run_pull(lambda cancel: _load_cross(name, settings, chosen, progress, cancel), lambda m: m.aclose())


async def _open_served(name: str, settings: Settings, chosen: EncoderSettings) -> CrossEncoder:
    try:
        from ..litellm.pooling_server import connect_pooling_server
        from .served import ServedCrossEncoder
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    server = await connect_pooling_server(name, settings)
    try:
        return await ServedCrossEncoder.open(name, server, chosen)
    except BaseException:
        await server.aclose()
        raise


def _load_embedding(
    name: str, settings: Settings, chosen: EncoderSettings, progress: Progress | None, cancel: threading.Event
) -> EmbeddingModel:
    try:
        from .cache import Remembering
        from .local import SentenceSource
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    files = find_encoder(name, sentence=True, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
    source = SentenceSource(name, files, chosen)
    return Remembering(source, batch_texts=chosen.batch_texts, remembered_bytes=chosen.remembered_bytes)


def _load_cross(
    name: str, settings: Settings, chosen: EncoderSettings, progress: Progress | None, cancel: threading.Event
) -> CrossEncoder:
    try:
        from .local import LocalCrossEncoder
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    files = find_encoder(name, sentence=False, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
    return LocalCrossEncoder(name, files, chosen)
