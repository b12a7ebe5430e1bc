"""The sidecar with the default model: equal answers to the library, and the engine stops on disconnect."""

import time

import pytest
from reason.agents.reasoner import Reasoner
from reason.core.events import TextDelta
from reason.core.settings import load_settings
from reason.sidecar.client import SidecarClient
from support.sidecar_server import serving

pytestmark = pytest.mark.real


@pytest.mark.nightly
def test_answers_are_those_of_the_sdk_and_the_engine_stops_with_its_caller(smollm2_files, tmp_path):
    settings = load_settings(
        model="local/smollm2-135m", store=tmp_path / "runs.sqlite3", serve={"auth": False, "drain_timeout_s": 0.0}
    )
    options = {"strategy": "self-consistency", "parameters": {"n": 3, "max_tokens": 24}, "seed": 11}
    question = "What is the capital of France?"
    with serving(settings) as server, SidecarClient(server.url) as client:
        answer = client.ask(question, **options)
        stream = client.stream(question, text=True, parameters={"max_tokens": 400}, seed=11)
        run_id = next(event for event in stream if isinstance(event, TextDelta)).run_id
        stream.close()  # in the middle of a completion
        partial = client.get(run_id)
        assert partial.status == "interrupted"
        assert 0 < partial.result.usage.completion_tokens < 400
        (model,) = server.app.state.reasoner._models._models.values()
        while model.num_running:
            time.sleep(0.01)
    with Reasoner(settings=settings, strategy="self-consistency", parameters=options["parameters"], seed=11) as sdk:
        same = sdk.ask(question)
    assert [c.text for c in same.candidates] == [c.text for c in answer.candidates]
    assert same.answer == answer.answer
