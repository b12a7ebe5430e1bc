"""`map_entry`: a model's entry in LiteLLM's map of models, with its prices, limits and flags.

LiteLLM takes seconds to import and more than a hundred megabytes, so its map is read from the file in its package. A
program that has imported LiteLLM may have registered models of its own, and gets those.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

MAP_FILE = "model_prices_and_context_window_backup.json"


def map_entry(provider: str, served: str) -> dict[str, Any]:
    """A model's entry; empty if there is none.

    Args:
        provider: LiteLLM's name of the provider.
        served: The model's name at the provider.
    """
    entry = _entry(f"{provider}/{served}")
    if entry is None:
        # the plain name is its provider's, not that of another server with the same interface
        plain = _entry(served) or {}
        entry = plain if plain.get("litellm_provider") == provider else {}
    return dict(entry)


def _entry(name: str) -> dict[str, Any] | None:
    imported = sys.modules.get("litellm")
    models = getattr(imported, "model_cost", None)
    return _read_entry(name) if models is None else models.get(name)


@lru_cache(maxsize=256)
def _read_entry(name: str) -> dict[str, Any] | None:
    """An entry of the map's file, which is searched: it has megabytes, of which one model's are a thousandth."""
    package = importlib.util.find_spec("litellm")
    folders = package.submodule_search_locations if package is not None else None
    if not folders:
        return None
    text = (Path(folders[0]) / MAP_FILE).read_text(encoding="utf-8")
    key = f"{json.dumps(name)}: {{"
    at = text.find(key)
    while at >= 0:
        entry, _ = json.JSONDecoder().raw_decode(text, at + len(key) - 1)
        if "litellm_provider" in entry:  # and no part of another entry
            return dict(entry)
        if "alias_of" in entry:
            return _read_entry(str(entry["alias_of"]))
        at = text.find(key, at + 1)
    return None
