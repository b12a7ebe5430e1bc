"""What `reason doctor` looks at, one function a matter. Each really does what it reports on."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

from ..core.errors import BackendUnavailable, ReasonError
from ..core.settings import Settings, config_files
from ..core.version import __version__

State = Literal["ok", "note", "fail"]
LOCAL = "local/"
TRIAL_TOKENS = 4
LEAST_FREE_BYTES = 1_000_000_000
"""Room below which a cache folder gets a note: the default model takes a third of this."""


class Check(NamedTuple):
    """One finding.

    Attributes:
        name: What was looked at.
        state: "ok"; "note" is worth knowing and stops nothing; "fail" stops the default way of answering.
        detail: What was found.
        hint: What to do about it; empty if nothing.
    """

    name: str
    state: State
    detail: str
    hint: str = ""


async def examine(settings: Settings, *, pull: bool) -> AsyncIterator[Check]:
    """Look at everything, the quick things first.

    Args:
        settings: The settings in force.
        pull: Whether to fetch the default model if it is not here.
    """
    yield _python()
    yield _settings_files()
    yield await _store(settings.store)
    yield _cache(settings.cache_dir)
    yield _plugins()
    is_local = settings.model.startswith(LOCAL)
    torch = await asyncio.to_thread(_torch, is_local)
    yield torch
    yield _package("litellm", "hosted models")
    yield _package("vllm", "models on a GPU")
    if is_local:
        files = await asyncio.to_thread(_files, settings, pull)
        yield files
        if "fail" in (torch.state, files.state):
            return
    yield await _trial(settings)


def _python() -> Check:
    where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return Check("reason", "ok", f"{__version__} on {where}")


def _settings_files() -> Check:
    read = [str(path) for path in config_files() if path.is_file()]
    from_environment = sorted(name for name in os.environ if name.startswith("REASON_"))
    found = ", ".join(read + from_environment)
    return Check("settings", "ok", found or "all defaults (no reason.toml, no REASON_ variables)")


async def _store(path: Path) -> Check:
    from ..core.run import new_run_id
    from ..core.sqlite_store import SqliteStore

    try:
        store = await SqliteStore.open(path)
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
    return Check("run store", "ok", f"{path}, {many} run{'' if count == 1 else 's'}")


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

    from ..serving.local.calibrate import default_threads, native_format

    chosen = native_format()
    native = "native bf16" if chosen == "bf16" else "no native bf16 (fp32 is used)"
    return Check("torch", "ok", f"{torch.__version__}, {default_threads()} threads, {native}")


def _package(name: str, what_for: str) -> Check:
    try:
        return Check(name, "ok", f"{version(name)} ({what_for})")
    except PackageNotFoundError:
        return Check(name, "note", f"not installed: no {what_for}")


def _files(settings: Settings, pull: bool) -> Check:
    from ..serving.files import find_model

    try:
        files = find_model(settings.model, cache_dir=settings.cache_dir, pull=pull)
    except BackendUnavailable as e:
        hint = e.hint if pull else f"reason doctor --pull, or reason models pull {settings.model}"
        return Check("model", "fail", e.message, hint)
    except ReasonError as e:
        return Check("model", "fail", e.message, e.hint)
    return Check("model", "ok", f"{files.name} in {files.folder}")


async def _trial(settings: Settings) -> Check:
    """Open the default model as a question would, and let it write a few tokens."""
    from ..core.messages import Prompt, Request, Sampling
    from ..serving.open import open_model

    began = time.monotonic()
    try:
        model = await open_model(settings.model, settings)
        try:
            opened = time.monotonic()
            sampling = Sampling(temperature=0.0, max_tokens=TRIAL_TOKENS)
            ((reply,),) = await model.generate([Request(prompt=Prompt.user("Say hello."), sampling=sampling)])
            ended = time.monotonic()
        finally:
            await model.aclose()
    except ReasonError as e:
        return Check("answering", "fail", e.message, e.hint)
    if reply.failure is not None:
        return Check("answering", "fail", reply.failure.message)
    tokens = reply.usage.completion_tokens
    took = f"loaded in {opened - began:.1f} s, {tokens} tokens in {ended - opened:.2f} s"
    return Check("answering", "ok", f"{settings.model} wrote {reply.text!r} ({took})")
