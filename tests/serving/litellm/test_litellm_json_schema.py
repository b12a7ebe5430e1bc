"""JSON schemas at providers: seen or documented, sent as each takes them, refused where they cannot be."""

import json

import jsonschema
import pytest
from reason.core.errors import CapabilityMissing
from reason.core.messages import Prompt, Request, SamplingParams

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["blue", "red"]}, "shades": {"type": "integer"}},
    "required": ["colour", "shades"],
    "additionalProperties": False,
}
ASK = Prompt.user("Name a colour.")


def asked(prompt=ASK, **sampling):
    return Request(
        prompt=prompt, sampling=SamplingParams(**{"json_schema": SCHEMA, "max_tokens": 80, "seed": 1} | sampling)
    )


async def test_a_vllm_server_gets_the_schema_in_its_own_field(opened):
    async with opened(schemas=True) as (server, model):
        [made] = await model.generate([asked(n=2)])
        for completion in made:  # the server's log-probabilities are those of what the schema has left
            assert (completion.finish_reason, completion.logprobs) == ("stop", None)
            assert json.loads(completion.text) == {"colour": "blue", "shades": 3}
        [(path, body)] = server.requests
        assert path == "/v1/chat/completions"
        assert body["structured_outputs"] == {"json": SCHEMA}
        assert list(body["structured_outputs"]["json"]["properties"]) == ["colour", "shades"]  # the order of the text
        assert "logprobs" not in body
        assert "response_format" not in body
        server.requests.clear()
        await model.generate([asked(ASK.with_prefix("Here it is: "))])
        body = next(body for path, body in server.requests if path == "/v1/completions")
        assert body["structured_outputs"] == {"json": SCHEMA}
        assert "logprobs" not in body


async def test_another_server_gets_it_as_response_format(opened):
    async with opened(provider="openai", schemas=True) as (server, model):
        [[made]] = await model.generate([asked()])
        jsonschema.validate(json.loads(made.text), SCHEMA)
        [(_, body)] = server.requests
        named = {"name": "reply", "schema": SCHEMA, "strict": True}
        assert body["response_format"] == {"type": "json_schema", "json_schema": named}
        assert "structured_outputs" not in body
        [[plain]] = await model.generate([asked(json_schema=None)])
        assert "response_format" not in server.requests[-1][1]
        assert plain.text in ("blue sky", "red rose", "green grass")


async def test_incompatible_options_with_a_schema_are_rejected_before_sending(opened):
    async with opened(schemas=False) as (server, model):
        with pytest.raises(CapabilityMissing, match="'json_schema'"):
            await model.generate([asked()])
        assert server.requests == []
    async with opened(provider="openai", schemas=True) as (server, model):
        with pytest.raises(CapabilityMissing, match="top_logprobs with json_schema"):
            await model.generate([asked(top_logprobs=2)])
        model._can = model.capabilities.model_copy(update={"prefix": True})
        with pytest.raises(CapabilityMissing, match="prefix with json_schema"):
            await model.generate([asked(ASK.with_prefix("{"))])
        assert server.requests == []


@pytest.mark.parametrize(
    ("name", "able"),
    [("openai/gpt-4o-mini", True), ("openai/gpt-4", False), ("anthropic/claude-sonnet-4-5", True)],
)
async def test_schema_support_of_providers_follows_the_documentation(keys, load, name, able):
    assert (await load(name)).capabilities.json_schema is able
