"""What `reason doctor` looks at, one function a matter. Each really does what it reports on."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from ..core.errors import ReasonError
from ..core.settings import Settings, config_files
from ..core.version import __version__
from .backend_checks import LOCAL, VLLM, look_at_providers, try_embedding, try_local, try_provider, try_vllm
from .check import Check

LEAST_FREE_BYTES = 1_000_000_000
"""Room below which a cache folder gets a note: the default model takes a third of this."""


async def examine(settings: Settings, *, pull: bool, quick: bool, tell: Callable[[str], None]) -> AsyncIterator[Check]:
    """Look at everything, the quick things first.

    Args:
        settings: The settings in force.
        pull: Whether to fetch the default models that are not here.
        quick: Whether to leave out what takes more than a few seconds.
        tell: Told what is being done.
    """
    tell("looking at this machine")
    yield _python()
    yield _settings_files()
    yield await _store(settings.store)
    yield _cache(settings.cache_dir)
    yield _plugins()
    is_local = settings.model.startswith(LOCAL)
    torch = await asyncio.to_thread(_torch, is_local)
    yield torch
    tell("asking endpoints")
    for check in await look_at_providers(settings):
        yield check
    if torch.state == "ok":
        tell("loading a local model")
        for check in await try_local(settings, pull):
            yield check
        tell("embedding texts")
        yield await try_embedding(settings, pull)
    if not is_local and not settings.model.startswith(VLLM):
        yield await try_provider(settings)
    yield await try_vllm(settings, pull=pull, quick=quick, tell=tell)


def _python() -> Check:
    where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return Check("reason", "ok", f"{__version__} on {where}")


def _settings_files() -> Check:
    read = [str(path) for path in config_files() if path.is_file()]
    from_environment = sorted(name for name in os.environ if name.startswith("REASON_"))
    found = ", ".join(read + from_environment)
    return Check("settings", "ok", found or "all defaults (no reason.toml, no REASON_ variables)")


async def _store(place: Path | str) -> Check:
    from ..core.open_store import open_store
    from ..core.run import new_run_id
    from ..core.store_place import shown_store

    try:
        store = await open_store(place)
        try:
            trial = f"doctor-{new_run_id()}"
            await store.create_run(trial, {})
            await store.delete_run(trial)
            count = len(await store.list_runs(1000))
        finally:
            await store.aclose()
    except ReasonError as e:
        return Check("run store", "fail", e.message, e.hint)
    many = "1000 or more" if count == 1000 else str(count)
    return Check("run store", "ok", f"{shown_store(place)}, {many} run{'' if count == 1 else 's'}")


def _cache(folder: Path) -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    except OSError as e:
        return Check("cache", "fail", f"cannot write to {folder}: {e.strerror}", "set REASON_CACHE_DIR")
    detail = f"{folder}, {free / 1e9:.1f} GB free"
    if free < LEAST_FREE_BYTES:
        return Check("cache", "note", detail, "free some space, or set REASON_CACHE_DIR")
    return Check("cache", "ok", detail)


def _plugins() -> Check:
    from ..reasoning.strategy import STRATEGIES

    errors = STRATEGIES.load_errors()
    if errors:
        return Check("strategies", "note", "; ".join(errors.values()), "reinstall or remove the packages named")
    return Check("strategies", "ok", ", ".join(STRATEGIES.names()))


def _torch(needed: bool) -> Check:
    if importlib.util.find_spec("torch") is None:
        hint = "pip install 'reason-orchestrator[local]'"
        return Check("torch", "fail" if needed else "note", "not installed: no local models", hint)
    import torch

    from ..serving.local.hardware import default_threads, native_format

    chosen = native_format()
    native = "native bf16" if chosen == "bf16" else "no native bf16 (fp32 is used)"
    return Check("torch", "ok", f"{torch.__version__}, {default_threads()} threads, {native}")
