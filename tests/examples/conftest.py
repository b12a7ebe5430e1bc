"""Fixtures of the examples' tests: a home of their own, the default model, and the examples themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import reason.agents.reasoner as reasoner_module
from reason.serving.model_files.find import ModelFiles
from support.example_modules import load_example


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smollm2_files: ModelFiles) -> Path:
    """An empty home without settings or runs, with the user's cached models; the working directory is empty."""
    for name in [n for n in os.environ if n.startswith(("REASON_", "INSPECT_")) or n in ("NO_COLOR", "FORCE_COLOR")]:
        monkeypatch.delenv(name)
    for variable, directory in (("XDG_CONFIG_HOME", "config"), ("XDG_DATA_HOME", "data"), ("XDG_CACHE_HOME", "cache")):
        monkeypatch.setenv(variable, str(tmp_path / directory))
    monkeypatch.setenv("REASON_CACHE_DIR", str(smollm2_files.directory.parents[1]))
    monkeypatch.setenv("REASON_STORE", str(tmp_path / "runs.sqlite3"))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path


@pytest.fixture
def example(home: Path) -> Callable[[str], ModuleType]:
    """Gives an example as a module, which will find the home."""
    return load_example


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The language models that reasoners open, as they are opened."""
    models: list[Any] = []
    really = reasoner_module.load_model

    async def load_model(*how: Any) -> Any:
        models.append(await really(*how))
        return models[-1]

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return models
