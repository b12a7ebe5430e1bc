"""`open_model`: from a model string to a `LanguageModel`; the prefix says which backend."""

from __future__ import annotations

import threading

from ..core.errors import UnknownName
from ..core.registry import nearest
from ..core.settings import Settings
from .catalogue import KNOWN, PREFIX
from .converted import missing_extra
from .files import ModelFiles, find_model
from .litellm.limiter import Limiters
from .model import LanguageModel
from .prefix_folder import PrefixPlace
from .pulling import Progress, run_pull


async def open_model(
    name: str, settings: Settings, progress: Progress | None = None, limiters: Limiters | None = None
) -> LanguageModel:
    """Fetch what is missing, load the model and start its engine, off the event loop.

    Cancelling the awaiting task stops a fetch or conversion, removes its partial files, and closes a model that was
    loaded in the meantime.

    Args:
        name: The model string, for example `local/smollm2-135m`.
        settings: Where the files are kept, and how the engine is set up.
        progress: Told of the progress, from another thread.
        limiters: Bounds of the requests under way at once to providers, shared with other models of one owner.

    Raises:
        UnknownName: No model has that name.
        UserError: A setting is out of range, an extra is missing, or a key or address is.
        DataError: A model file is damaged or not supported.
        BackendUnavailable: The model cannot be had here, or its server cannot be reached.
    """
    if name.startswith("vllm/"):
        return await _open_vllm(name, settings, progress)
    if not name.startswith(PREFIX):
        if "/" not in name:
            candidates = nearest(PREFIX + name, KNOWN)
            raise UnknownName("model", name, candidates, hint="a model string is <backend>/<name>, as in local/…")
        return await _open_provider(name, settings, limiters)
    return await run_pull(lambda cancel: _load_local(name, settings, progress, cancel), lambda model: model.aclose())


async def _open_provider(name: str, settings: Settings, limiters: Limiters | None) -> LanguageModel:
    from .litellm.opening import open_litellm

    return await open_litellm(name, settings, limiters)


async def _open_vllm(name: str, settings: Settings, progress: Progress | None) -> LanguageModel:
    from .vllm.installed import require_vllm

    require_vllm()  # first: what it needs of the [local] extra comes with it
    from .vllm.opening import open_vllm

    return await open_vllm(name, settings, progress)


def _load_local(name: str, settings: Settings, progress: Progress | None, cancel: threading.Event) -> LanguageModel:
    files: ModelFiles = find_model(name, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
    try:
        from .local.engine import LocalModel
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    local = settings.local
    return LocalModel.load(
        files,
        weight_format=local.weight_format,
        threads=local.threads,
        kv_bytes=local.kv_bytes,
        max_rows=local.max_rows,
        device=local.device,
        lookahead=local.lookahead,
        prefixes=PrefixPlace(settings.cache_dir / "prefixes", settings.prefix_bytes),
    )
