"""The sidecar with the default model: equal answers to the library, and the engine stops on disconnect."""

import httpx
import pytest
from reason.agents.reasoner import Reasoner
from reason.core.events import TextDelta
from reason.core.settings import load_settings
from support.native_client import NativeClient, parse_events
from support.sidecar_server import serving
from support.waiting import wait_blocking

pytestmark = pytest.mark.real


@pytest.mark.nightly
def test_answers_are_those_of_the_sdk_and_the_engine_stops_with_its_caller(smollm2_files, tmp_path):
    settings = load_settings(
        model="local/smollm2-135m", store=tmp_path / "runs.sqlite3", serve={"auth": False, "drain_timeout_s": 0.0}
    )
    options = {"strategy": "self-consistency", "parameters": {"n": 3, "max_tokens": 24}, "seed": 11}
    question = "What is the capital of France?"
    with serving(settings) as server, NativeClient(server.url) as client:
        answer = client.post("/v1/reason", json={"question": question, **options}).json()
        body = {"question": question, "parameters": {"max_tokens": 400}, "seed": 11, "stream": True, "text": True}
        with httpx.stream("POST", f"{server.url}/v1/reason", json=body, timeout=60) as stream:
            events = (event for line in stream.iter_lines() for event in parse_events([line]))
            run_id = next(event for event in events if isinstance(event, TextDelta)).run_id
        partial = client.wait(run_id)  # the connection was closed in the middle of a completion
        assert partial["status"] == "interrupted"
        assert 0 < partial["result"]["usage"]["completion_tokens"] < 400
        (model,) = server.app.state.reasoner._models._models.values()
        wait_blocking(lambda: not model.num_running)
    with Reasoner(settings=settings, strategy="self-consistency", parameters=options["parameters"], seed=11) as sdk:
        same = sdk.ask(question)
    assert [c.text for c in same.candidates] == [c["text"] for c in answer["candidates"]]
    assert same.answer == answer["answer"]
