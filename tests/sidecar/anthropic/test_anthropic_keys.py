"""API keys through Anthropic's client, which sends them as `x-api-key` or as a bearer token."""

from __future__ import annotations

import httpx
import pytest
from support.openai_server import scripted_server
from support.scripted_model import ScriptedModel, replies

anthropic = pytest.importorskip("anthropic")

FIELDS = {"model": "reason/cot", "max_tokens": 100, "messages": [{"role": "user", "content": "?"}]}


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    models = {"plain": ScriptedModel(replies("42"))}
    with scripted_server(tmp_path_factory.mktemp("keys"), models, serve={"auth": True}) as running:
        yield running


@pytest.mark.parametrize("field", ["api_key", "auth_token"])
def test_a_key_in_either_header(locked, field):
    with anthropic.Anthropic(base_url=locked.url, max_retries=0, **{field: locked.add_key("ask")}) as client:
        made = client.messages.create(**FIELDS)
        assert client.messages.count_tokens(model="reason/cot", messages=FIELDS["messages"]).input_tokens > 0
    record = locked.call(locked.run_manager.store.get_run(made.reason["run_id"]))
    assert record.tenant == "t"


def test_no_key_of_the_server(locked):
    with anthropic.Anthropic(base_url=locked.url, max_retries=0, api_key="sk-none") as client:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            client.messages.create(**FIELDS)
        assert (refused.value.type, refused.value.error_code) == ("authentication_error", "invalid_api_key")
        assert refused.value.request_id
    with anthropic.Anthropic(base_url=locked.url, max_retries=0, api_key=locked.add_key("read")) as client:
        with pytest.raises(anthropic.PermissionDeniedError) as refused:
            client.messages.create(**FIELDS)
        assert refused.value.type == "permission_error"


def test_one_key_a_request(locked):
    text = locked.add_key("ask")
    for name in ("x-api-key", "authorization"):
        value = text if name == "x-api-key" else f"Bearer {text}"
        made = httpx.post(f"{locked.url}/v1/messages", json=FIELDS, headers=[(name, value), (name, value)], timeout=60)
        assert (made.status_code, made.json()["error"]["type"]) == (401, "authentication_error")
    both = {"authorization": f"Bearer {text}", "x-api-key": "sk-ant-of-another-service"}
    assert httpx.post(f"{locked.url}/v1/messages", json=FIELDS, headers=both, timeout=60).status_code == 200
    headers = {"x-api-key": locked.add_key("read")}
    assert httpx.get(f"{locked.url}/v1/strategies", headers=headers, timeout=60).status_code == 200
