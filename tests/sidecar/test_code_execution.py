"""A server whose operator allows it runs the code of answers; no other one does (`test_native_api`)."""

import httpx
import pytest
from reason.core.errors import SandboxUnavailable
from reason.reasoning.execution import sandbox
from support.injected_models import loaded_models
from support.scripted_model import ScriptedModel, replies
from support.sidecar_server import serving, settings_for

CODE = "```python\ndef add(a, b):\n    return a + b\n```"
TESTS = [{"name": "sum", "code": "assert add(1, 2) == 3"}, {"name": "wrong", "code": "assert add(1, 2) == 4"}]


@pytest.fixture
async def http(tmp_path):
    try:
        await sandbox.require_sandbox()
    except SandboxUnavailable as e:
        pytest.skip(str(e))
    models = {"scripted": ScriptedModel(replies(CODE))}
    with loaded_models(models), serving(settings_for(tmp_path, code_execution=True)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            yield client


async def test_tests_of_a_question_check_its_answer(http):
    body = {"question": "Write add.", "tests": TESTS[:1], "verify": ["execution"]}
    answer = (await http.post("/v1/reason", json=body)).json()
    assert answer["answer"] == "def add(a, b):\n    return a + b"
    assert answer["verification"]["verdict"] == "supported"


async def test_tests_check_a_given_text(http):
    made = (await http.post("/v1/verify", json={"text": CODE, "tests": TESTS, "verifiers": ["execution"]})).json()
    assert [report["verdict"] for report in made["reports"]] == ["supported", "refuted"]
    assert made["usage"]["model_calls"] == 0
