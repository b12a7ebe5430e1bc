"""Fixtures for tests of evaluations: settings of a scripted model that adds, and the model that is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from reason.core.settings import Settings
from support.eval_tasks import adder
from support.scripted_model import ScriptedModel


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[ScriptedModel], ScriptedModel]:
    """Makes every model name open one model, and returns it."""

    def install(model: ScriptedModel) -> ScriptedModel:
        async def load_model(*_: object) -> ScriptedModel:
            return model

        monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
        return model

    return install


@pytest.fixture
def model(install: Callable[[ScriptedModel], ScriptedModel]) -> ScriptedModel:
    return install(ScriptedModel(adder))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        model="scripted/adder", strategy="cot", store=tmp_path / "unused", cache_dir=tmp_path / "cache", reuse="store"
    )
