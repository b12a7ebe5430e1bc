"""Other clients of the Messages API: LangChain and LiteLLM."""

from __future__ import annotations

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool

from ..openai.conftest import SAID, THOUGHTS

langchain_anthropic = pytest.importorskip("langchain_anthropic")

CHAT = [{"role": "user", "content": "What is 6 * 7?"}]


@pytest.fixture
def chat(server):
    def make(model="reason/cot", **fields):
        options = {"base_url": server.url, "api_key": "none", "max_retries": 0, "max_tokens": 300, **fields}
        return langchain_anthropic.ChatAnthropic(model=model, **options)

    return make


def test_langchain(chat):
    made = chat().invoke([SystemMessage("Be brief."), HumanMessage("What is 6 * 7?")])
    assert (made.content, made.response_metadata["stop_reason"]) == (SAID, "end_turn")
    assert made.usage_metadata["input_tokens"] > made.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.text for chunk in chat().stream("What is 6 * 7?")) == SAID


def test_langchain_thoughts(chat):
    model = chat("reason/cot:thinking", max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1024})
    thought, text = model.invoke("What is 6 * 7?").content_blocks
    assert (thought["type"], thought["reasoning"], text["text"]) == ("reasoning", THOUGHTS, SAID)


@tool
def weather(city: str) -> str:
    """What the weather is like."""
    return f"24 degrees in {city}"


def test_langchain_tools(chat):
    model = chat("reason/cot:caller").bind_tools([weather])
    asked = model.invoke("Is it warm in Rome?")
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Rome"})
    told = model.invoke([HumanMessage("Is it warm in Rome?"), asked, weather.invoke(call)])
    assert told.tool_calls[0]["name"] == "weather"


@pytest.fixture
def options(server):
    return {"api_base": server.url, "api_key": "none", "messages": CHAT, "max_tokens": 2000, "num_retries": 0}


def test_litellm(options):
    import litellm

    made = litellm.completion(model="anthropic/reason/cot", **options)
    assert made.choices[0].message.content == SAID
    assert made.usage.prompt_tokens > made.usage.completion_tokens > 0
    stream = litellm.completion(model="anthropic/reason/cot", stream=True, **options)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == SAID


def test_litellm_thoughts(options):
    import litellm

    # it does not know the model, and so not that it thinks
    options |= {"thinking": {"type": "enabled", "budget_tokens": 1024}, "allowed_openai_params": ["thinking"]}
    made = litellm.completion(model="anthropic/reason/cot:thinking", **options)
    message = made.choices[0].message
    assert (message.content, message.reasoning_content) == (SAID, THOUGHTS)
    stream = litellm.completion(model="anthropic/reason/cot:thinking", stream=True, **options)
    assert "".join(getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in stream) == THOUGHTS
