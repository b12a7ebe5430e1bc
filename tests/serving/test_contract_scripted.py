"""The backend contract on the scripted model of the tests."""

from __future__ import annotations

import pytest
from reason.core.messages import Prompt
from support.backend_contract import *  # noqa: F403
from support.backend_contract import Probe
from support.scripted_model import ScriptedModel, replies


@pytest.fixture
def backend() -> ScriptedModel:
    return ScriptedModel(replies("blue sky", "red rose", "green grass", weights=(3, 2, 1)), context_tokens=1000)


@pytest.fixture
def probe(backend: ScriptedModel) -> Probe:
    ask = Prompt.user("colour?")
    return Probe(
        prompt=ask,
        others=(ask.with_prefix("re"), ask.with_prefix("g"), ask),
        too_long=Prompt.user("x" * 1000),
        under_way=lambda: backend.running,
        tolerance=1e-9,
    )
