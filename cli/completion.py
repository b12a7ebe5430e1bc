"""Shell completion of names that this machine has: models, runs, and what packages register. Loads no engine.

A completion that fails completes nothing: an error would be printed into the line that is being typed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

MAX_RUNS = 50
"""The newest runs that are offered."""


def complete_from(group: str) -> Callable[[str], list[str]]:
    """Completion by the names of an entry-point group; loads none of the plugins."""

    def complete(prefix: str) -> list[str]:
        from ..core.registry import entry_points_in

        return sorted({e.name for e in entry_points_in(group) if e.name.startswith(prefix)})

    return complete


complete_strategy = complete_from("reason.strategies")
complete_verifier = complete_from("reason.verifiers")
complete_dataset = complete_from("reason.datasets")


def complete_tool(prefix: str) -> list[str]:
    """Our own tools, and those of other packages."""
    return completed(prefix, lambda: ("documents", "python", "shell", *complete_from("reason.tools")("")))


def complete_model(prefix: str) -> list[str]:
    """Models that backends know, those of the settings, and one of each provider with a key."""
    return completed(prefix, _models)


def complete_run(prefix: str) -> list[str]:
    """The newest runs of a run store in a file; a database on another machine is not asked."""
    return completed(prefix, _runs)


def completed(prefix: str, names: Callable[[], Iterable[str | None]]) -> list[str]:
    """The names that begin with a prefix; none if they cannot be listed."""
    with suppress(Exception):
        return [name for name in dict.fromkeys(names()) if name and name.startswith(prefix)]
    return []


def _models() -> Iterable[str | None]:
    from ..core.errors import ReasonError
    from ..core.settings import load_settings
    from ..serving.factory import LOADERS
    from ..serving.litellm.providers import EXAMPLE_MODELS, key_in_environment

    settings = load_settings()
    for backend in LOADERS.names():
        with suppress(ReasonError):  # a package that cannot be imported takes only its own names along
            yield from LOADERS.load(backend).known_models(settings)
    yield from (settings.model, settings.small_model, settings.judge_model, *settings.jurors)
    yield from (name for provider, name in EXAMPLE_MODELS.items() if key_in_environment(provider))


def _runs() -> Iterable[str]:
    from ..core.settings import load_settings
    from .run_store import with_store

    location = load_settings().store
    if isinstance(location, Path) and location.exists():
        return [record.id for record in with_store(None, lambda store: store.list_runs(MAX_RUNS))]
    return []
