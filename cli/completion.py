"""Shell completion of names that this machine has: models, runs, and what packages register. Loads no engine.

A completion that fails completes nothing: an error would be printed into the line that is being typed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.settings import Settings
    from ..core.store.protocol import ListedRun

Candidates = list[tuple[str, str]]
"""Names, each with a description."""

MAX_RUNS = 50
"""The newest runs that are offered."""
MAX_DESCRIPTION_CHARS = 60


def complete_from(group: str) -> Callable[[str], list[str]]:
    """Completion by the names of an entry-point group; loads none of the plugins."""

    def complete(prefix: str) -> list[str]:
        from ..core.registry import entry_points_in

        return sorted({e.name for e in entry_points_in(group) if e.name.startswith(prefix)})

    return complete


complete_strategy = complete_from("reason.strategies")
complete_verifier = complete_from("reason.verifiers")
complete_dataset = complete_from("reason.datasets")


def complete_model(prefix: str) -> Candidates:
    """Language models: those on this machine, those with a short name, of the settings, and of providers with a key."""
    return completed(prefix, _models)


def complete_run(prefix: str) -> Candidates:
    """The newest runs of the run store in a file; a database on another machine is not asked."""
    return completed(prefix, _runs)


def completed(prefix: str, candidates: Callable[[Settings], Iterable[tuple[str, str]]]) -> Candidates:
    """Those of the candidates under the settings that begin with the prefix; none if they cannot be found."""
    from ..core.settings import load_settings

    with suppress(Exception):
        return [(name, about) for name, about in candidates(load_settings()) if name.startswith(prefix)]
    return []


def _models(settings: Settings) -> Iterable[tuple[str, str]]:
    from ..serving.factory import LOADERS
    from ..serving.litellm.provider_names import EXAMPLE_MODELS, key_in_environment

    names: dict[str, str] = {}
    for backend in LOADERS.names():
        names |= LOADERS.load(backend).known_models(settings)
    own = (settings.model, settings.small_model, settings.judge_model, settings.chair_model, *settings.jurors)
    names |= {name: "in the settings" for name in own if name is not None and name not in names}
    for provider, name in EXAMPLE_MODELS.items():
        variable = key_in_environment(provider)
        if variable:
            names[name] = f"{variable} is set"
    return names.items()


def _runs(settings: Settings) -> Iterable[tuple[str, str]]:
    from ..core.store import open_store

    async def newest() -> list[ListedRun]:
        store = await open_store(settings.store)
        try:
            return await store.list_runs(MAX_RUNS)
        finally:
            await store.aclose()

    if isinstance(settings.store, Path) and settings.store.exists():
        for record in asyncio.run(newest()):
            yield record.id, " ".join(record.question.split())[:MAX_DESCRIPTION_CHARS]
