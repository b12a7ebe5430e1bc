"""Fixtures of run stores, and of the tests that run a `RunManager` without a server."""

import pytest
import reason.agents.reasoner as reasoner_module
from support.run_stores import any_store, stores  # noqa: F401


@pytest.fixture
def models(monkeypatch):
    """The models that reasoners load, by name; exceptions are raised."""
    models = {}

    async def load_model(name, settings, *_):
        found = models[name]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    return models


@pytest.fixture
def path(tmp_path):
    """The file of the run store."""
    return tmp_path / "runs.sqlite3"
