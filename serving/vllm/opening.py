"""`open_vllm`: from `vllm/…` to a running, checked `VllmModel`."""

from __future__ import annotations

import threading

from ...core.settings import Settings
from ..catalogue import PREFIX
from ..files import find_model
from ..prefix_folder import PrefixPlace
from ..pulling import Progress, run_pull
from .installed import require_main_guard, require_vllm
from .model import VllmModel

VLLM_PREFIX = "vllm/"


async def open_vllm(name: str, settings: Settings, progress: Progress | None = None) -> VllmModel:
    """Fetch a model's files, start vLLM on them, and check that hooks work.

    Args:
        name: `vllm/<short name>`, `vllm/<hub id>`, `vllm/<folder>` or `vllm/<file.gguf>`: what `local/…` takes.
        settings: Where the files are kept; the section `vllm`.
        progress: Told of the progress, from another thread.

    Raises:
        UserError: vLLM is not installed, or refuses the settings, or the script that starts it has no main guard.
        BackendUnavailable: The engine did not come up, or runs without our hooks.
        UnknownName: No model has that name.
        DataError: A model file is damaged.
    """
    require_vllm()
    require_main_guard()

    def load(cancel: threading.Event) -> VllmModel:
        place = PREFIX + name.removeprefix(VLLM_PREFIX)
        files = find_model(place, cache_dir=settings.cache_dir, progress=progress, cancel=cancel)
        prefixes = PrefixPlace(settings.cache_dir / "prefixes", settings.prefix_bytes)
        return VllmModel.load(name, files, settings.vllm, prefixes)

    model = await run_pull(load, lambda model: model.aclose())
    try:
        await model.check_engine()
    except BaseException:
        await model.aclose()
        raise
    return model
