"""The examples as modules, and helpers that wait for their models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from support.script_modules import load_script
from support.waiting import wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load_example(name: str) -> ModuleType:
    """The module of `examples/NAME.py`, imported but not run."""
    return load_script(EXAMPLES / f"{name}.py")


async def wait_until_running(models: Sequence[Any]) -> None:
    """Wait until a model generates."""
    await wait_until(lambda: any(model.num_running for model in models))


async def wait_until_idle(models: Sequence[Any]) -> None:
    """Wait until no model generates: an engine checks for cancellation after its current step."""
    await wait_until(lambda: not (any(model.num_running for model in models)))
