"""pydantic-ai as a client, where it is installed: text, streams, structured output, cancellation, errors."""

from __future__ import annotations

import pytest

pydantic_ai = pytest.importorskip("pydantic_ai")
models_openai = pytest.importorskip("pydantic_ai.models.openai")
providers_openai = pytest.importorskip("pydantic_ai.providers.openai")

SAID = "The answer is 42."


@pytest.fixture
def agent(server):
    def make(name, **options):
        provider = providers_openai.OpenAIProvider(base_url=f"{server.url}/v1", api_key="none")
        return pydantic_ai.Agent(models_openai.OpenAIChatModel(name, provider=provider), **options)

    return make


async def test_text_and_streams(agent):
    assert (await agent("reason/cot").run("What is 6 * 7?")).output == SAID
    async with agent("reason/cot").run_stream("What is 6 * 7?") as stream:
        assert await stream.get_output() == SAID


async def test_errors(agent):
    with pytest.raises(pydantic_ai.exceptions.ModelHTTPError) as failed:
        await agent("reason/none").run("?")
    assert failed.value.status_code == 404
