"""The examples as modules, and helpers that wait for their models."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load_example(name: str) -> ModuleType:
    """The module of `examples/NAME.py`, imported but not run."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # annotations are resolved through sys.modules
    spec.loader.exec_module(module)
    return module


async def wait_until_running(models: Sequence[Any]) -> None:
    """Wait until a model generates."""
    while not any(model.num_running for model in models):
        await asyncio.sleep(0.01)


async def wait_until_idle(models: Sequence[Any]) -> None:
    """Wait until no model generates: an engine checks for cancellation after its current step."""
    while any(model.num_running for model in models):
        await asyncio.sleep(0.01)
