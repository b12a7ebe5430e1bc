"""Runs that execute tools, on a scripted model; run stores."""

from __future__ import annotations

import pytest
import reason.agents.reasoner as reasoner_module
from reason.agents.reasoner import Reasoner
from support.agent_model import AgentModel
from support.run_stores import any_store, stores  # noqa: F401


@pytest.fixture
def agent(monkeypatch, settings):
    """Makes a reasoner over a model that makes the given turns; the model is its attribute `model`."""

    def make(turns, **options):
        model = AgentModel(turns)

        async def load_model(*_):
            return model

        monkeypatch.setattr(reasoner_module, "load_model", load_model)
        reasoner = Reasoner(settings=settings, **options)
        reasoner.model = model
        return reasoner

    return make
