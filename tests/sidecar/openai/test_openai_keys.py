"""API keys through OpenAI's client: authentication, scopes and tenant isolation."""

import openai
import pytest
from support.openai_server import scripted_server
from support.scripted_model import ScriptedModel, replies

CHAT = [{"role": "user", "content": "What is 6 * 7?"}]


@pytest.fixture
def locked(tmp_path):
    with scripted_server(tmp_path, {"plain": ScriptedModel(replies("42"))}, serve={"auth": True}) as running:
        yield running


@pytest.fixture
def enter(locked):
    """Create a client with a new key for a tenant."""
    opened = []

    def call(tenant, *scopes):
        key = locked.add_key(*scopes, tenant=tenant)
        opened.append(openai.OpenAI(base_url=f"{locked.url}/v1", api_key=key, max_retries=0))
        return opened[-1]

    yield call
    for client in opened:
        client.close()


def test_whoever_may_ask_may_see_what_there_is_to_ask(enter):
    asker = enter("a", "ask")
    assert asker.models.retrieve("reason/cot").id == "reason/cot"
    assert asker.chat.completions.create(model="reason/cot", messages=CHAT).choices
    made = asker.responses.create(model="reason/cot", input="?")
    with pytest.raises(openai.PermissionDeniedError):
        asker.responses.retrieve(made.id)


def test_tenants_see_nothing_of_one_another(enter):
    mine, theirs = enter("a"), enter("b")
    made = mine.responses.create(model="reason/cot", input="?")
    assert mine.responses.retrieve(made.id).output_text == "42"
    with pytest.raises(openai.NotFoundError):
        theirs.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        theirs.responses.create(model="reason/cot", input="?", previous_response_id=made.id)
