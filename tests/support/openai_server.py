"""The sidecar on a real socket over scripted models, for real clients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reason.core.settings import Settings

from support.injected_models import loaded_models
from support.scripted_model import ScriptedModel
from support.sidecar_server import Server, serving


@contextmanager
def scripted_server(
    folder: Path, models: Mapping[str, ScriptedModel], *, serve: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Server]:
    """A server whose models are given by their strings, the first of them the main one."""
    first, *others = models
    options = {"auth": False, "drain_timeout_s": 0.0, "models": tuple(others), **(serve or {})}
    chosen = Settings(model=first, store=folder / "runs.sqlite3", cache_dir=folder / "cache", serve=options, **settings)
    with loaded_models(models), serving(chosen) as server:
        yield server
