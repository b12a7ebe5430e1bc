"""The examples as modules, and helpers that wait for their models."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from support.script_modules import load_script

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load_example(name: str) -> ModuleType:
    """The module of `examples/NAME.py`, imported but not run."""
    return load_script(EXAMPLES / f"{name}.py")


async def wait_until_running(models: Sequence[Any]) -> None:
    """Wait until a model generates."""
    while not any(model.num_running for model in models):
        await asyncio.sleep(0.01)


async def wait_until_idle(models: Sequence[Any]) -> None:
    """Wait until no model generates: an engine checks for cancellation after its current step."""
    while any(model.num_running for model in models):
        await asyncio.sleep(0.01)
