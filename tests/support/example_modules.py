"""The examples as modules, and waiting for the models that they open."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "examples"


def load_example(name: str) -> ModuleType:
    """An example as `python examples/NAME.py` has it before it runs."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # annotations are looked up there
    spec.loader.exec_module(module)
    return module


async def under_way(models: Sequence[Any]) -> None:
    """Wait until an engine writes."""
    while not any(model.rows_under_way for model in models):
        await asyncio.sleep(0.01)


async def at_rest(models: Sequence[Any]) -> None:
    """Wait until none writes any more: an engine looks for what was cancelled after the step that it is in."""
    while any(model.rows_under_way for model in models):
        await asyncio.sleep(0.01)
