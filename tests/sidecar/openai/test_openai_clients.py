"""Other clients of the OpenAI API: LiteLLM, LangChain and curl."""

import litellm
import pytest
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

SAID, THOUGHTS = "The answer is 42.", "Six sevens."
CHAT = [{"role": "user", "content": "What is 6 * 7?"}]


@pytest.fixture
def litellm_options(server):
    return {"api_base": f"{server.url}/v1", "api_key": "none", "messages": CHAT, "num_retries": 0}


def test_litellm(litellm_options):
    made = litellm.completion(model="openai/reason/cot:thinking", **litellm_options)
    (choice,) = made.choices
    assert (choice.message.content, choice.message.reasoning_content) == (SAID, THOUGHTS)
    assert made.usage.completion_tokens > made.usage.completion_tokens_details.reasoning_tokens > 0


def test_litellm_streaming(litellm_options):
    stream = litellm.completion(model="openai/reason/cot:thinking", stream=True, **litellm_options)
    deltas = [chunk.choices[0].delta for chunk in stream if chunk.choices]
    assert "".join(d.content or "" for d in deltas) == SAID
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas).strip() == THOUGHTS


class Number(BaseModel):
    """What is asked for."""

    answer: int


@pytest.mark.parametrize(("name", "method"), [("formed", "json_mode"), ("formed", "json_schema"), ("correcting", None)])
def test_langchain_structured_output(server, name, method):
    model = ChatOpenAI(model=f"reason/cot:{name}", base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    structured = model.with_structured_output(Number, **({"method": method} if method else {}))
    assert structured.invoke("What is 6 * 7? Answer in JSON.") == Number(answer=42)


@tool
def weather(city: str) -> str:
    """What the weather is like."""
    return f"24 degrees in {city}"


def test_langchain(server):
    options = {"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0}
    model = ChatOpenAI(model="reason/cot:thinking", max_tokens=200, temperature=0, **options)
    made = model.invoke([SystemMessage("Be brief."), HumanMessage("What is 6 * 7?")])
    assert (made.content, made.response_metadata["finish_reason"]) == (SAID, "stop")
    assert made.usage_metadata["output_token_details"]["reasoning"] > 0
    assert "".join(chunk.content for chunk in model.stream("What is 6 * 7?")) == SAID

    calling = ChatOpenAI(model="reason/cot:caller", **options).bind_tools([weather])
    asked = calling.invoke("Is it warm in Rome?")
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Rome"})
    told = weather.invoke(call)
    assert isinstance(told, ToolMessage)
    assert calling.invoke([HumanMessage("Is it warm in Rome?"), asked, told]).tool_calls[0]["name"] == "weather"
