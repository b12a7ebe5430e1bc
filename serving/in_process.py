"""Loaders of the models that run in this process; `load_model` takes them from the entry-point group `reason.backends`.

An engine is imported when the first of its models is loaded.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from ..core.errors import Cancelled
from ..core.files import Progress
from ..core.settings import Settings
from .model import LanguageModel
from .model_files.downloads import run_pull


@dataclass(frozen=True)
class Loader:
    """A `ModelLoader`."""

    load: Callable[[str, Settings, Progress | None], Awaitable[LanguageModel]]
    known_models: Callable[[Settings], Iterable[str]] = lambda settings: ()


async def _pull_local(name: str, settings: Settings, progress: Progress | None) -> LanguageModel:
    return await run_pull(lambda cancel: _load_local(name, settings, progress, cancel), lambda model: model.aclose())


async def _pull_gguf(name: str, settings: Settings, progress: Progress | None) -> LanguageModel:
    return await run_pull(lambda cancel: _load_gguf(name, settings, progress, cancel), lambda model: model.aclose())


async def _load_recorded(name: str, settings: Settings, progress: Progress | None) -> LanguageModel:
    from .recorded.model import load_recorded

    return await asyncio.to_thread(load_recorded, name)


async def _load_vllm(name: str, settings: Settings, progress: Progress | None) -> LanguageModel:
    from .vllm.installation import require_vllm

    require_vllm()  # first: what it needs of the [local] extra comes with it
    from .vllm.model import load_vllm

    return await load_vllm(name, settings, progress)


def _local_models(settings: Settings) -> Iterable[str]:
    from .model_files.catalogue import RECOMMENDED_MODELS
    from .model_files.find import list_models

    return [*(model.name for model in list_models(settings.cache_dir)), *RECOMMENDED_MODELS]


def _load_gguf(name: str, settings: Settings, progress: Progress | None, cancel: threading.Event) -> LanguageModel:
    from .model_files.conversion import missing_extra

    try:
        from .llama_cpp import load_gguf
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    return load_gguf(name, settings, progress, cancel)


def _load_local(name: str, settings: Settings, progress: Progress | None, cancel: threading.Event) -> LanguageModel:
    from .model_files.conversion import missing_extra
    from .model_files.find import find_model

    files = find_model(name, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
    try:
        from .local.engine import LocalModel
    except ModuleNotFoundError as e:
        raise missing_extra(e) from e
    if cancel.is_set():  # torch takes seconds to import
        raise Cancelled("loading was cancelled")
    local = settings.local
    return LocalModel.load(
        files,
        weight_format=local.weight_format,
        threads=local.threads,
        kv_cache_bytes=local.kv_cache_bytes,
        max_num_seqs=local.max_num_seqs,
        speculative_decoding=local.speculative_decoding,
        profiles=settings.profiles,
    )


local = Loader(_pull_local, _local_models)
gguf = Loader(_pull_gguf)
vllm = Loader(_load_vllm)
recorded = Loader(_load_recorded)
