"""Tools on SmolLM2-135M: its own template shows none; with one that does, its prompts and calls are real."""

from __future__ import annotations

from typing import Any

import pytest
from reason.core.messages import Message, Prompt, ToolCall
from reason.serving.local.tokenizer import Tokenizer
from support.scripted_tools import WEATHER
from support.tool_template import with_tool_template

pytestmark = pytest.mark.real

TURNS = (
    Message(role="system", content="Be brief."),
    Message(role="user", content="Is it warm in Rome?"),
    Message(role="assistant", tool_calls=(ToolCall(name="weather", arguments='{"city": "Rome"}', id="c1"),)),
    Message(role="tool", content="24 degrees", tool_call_id="c1"),
    Message(role="user", content="And in Oslo?"),
)


def test_its_own_template_shows_no_tools(smollm2_files):
    support = Tokenizer(smollm2_files.directory, "smollm2").tool_support
    assert (support.renders_tools, support.renders_calls) == (False, False)


def as_transformers(call: ToolCall) -> dict[str, Any]:
    return {"type": "function", "function": {"name": call.name, "arguments": call.parsed_arguments}}


@pytest.mark.parametrize(("turns", "tools"), [(TURNS[:2], ()), (TURNS, (WEATHER,))])
def test_prompts_with_tools_are_those_of_transformers(smollm2_files, tmp_path, turns, tools):
    from transformers import AutoTokenizer

    files = with_tool_template(smollm2_files, tmp_path / "tools")
    prompt = Prompt(messages=turns, tools=tools)
    messages = [
        {
            "role": m.role,
            "content": m.content,
            **({"tool_calls": [as_transformers(c) for c in m.tool_calls]} if m.tool_calls else {}),
        }
        for m in turns
    ]
    expected = AutoTokenizer.from_pretrained(files.directory).apply_chat_template(
        messages, tools=[t.as_openai() for t in tools] or None, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    own = Tokenizer(files.directory, files.name)
    assert own.prompt_ids(prompt) == list(expected)
    assert ('"name": "weather"' in own.render(prompt)) == bool(tools or len(turns) > 2)
    assert (WEATHER.description in own.render(prompt)) == bool(tools)
