"""Tools in the embedded engine: what templates make of them, and calls out of what tiny models are made to write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from reason.core.errors import CapabilityMissing
from reason.core.messages import Message, Prompt, Request, SamplingParams, Tool, ToolCall
from reason.serving.local.engine import LocalModel
from reason.serving.local.tokenizer import Tokenizer
from reason.serving.tool_calls import ToolCallAdapter, ToolSupport
from support.scripted_tools import WEATHER
from support.tool_template import TOOL_TEMPLATE, with_tool_template

CALL = ToolCall(name="weather", arguments='{"city": "Rome"}', id="c1")
TURNS = (
    Message(role="user", content="Is it warm?"),
    Message(role="assistant", content="I look.", tool_calls=(CALL,)),
    Message(role="tool", content="24 degrees", tool_call_id="c1", name="weather"),
    Message(role="user", content="And now?"),
)


def tokenizer(directory: Path, tmp_path: Path, template: str | None, **config: object) -> Tokenizer:
    """A tiny tokenizer with a template of its own."""
    (tmp_path / "tokenizer.json").write_bytes((directory / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if template is not None:
        (tmp_path / "chat_template.jinja").write_text(template)
    return Tokenizer(tmp_path, "local/tiny")


def test_a_template_is_probed(tiny_directory, tmp_path):
    directory = tiny_directory("llama")
    assert Tokenizer(directory, "local/tiny").tool_support == ToolSupport()
    made = tokenizer(directory, tmp_path, TOOL_TEMPLATE)
    assert made.tool_support == ToolSupport(renders_tools=True, renders_calls=True, uses_tags=True)
    shown = made.render(Prompt(messages=(Message(role="system", content="Be brief."), *TURNS), tools=(WEATHER,)))
    assert json.dumps(WEATHER.as_openai()) in shown
    assert '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>' in shown
    assert "<tool_response>24 degrees</tool_response>" in shown
    assert shown.startswith("<|im_start|>system\nBe brief.\nYou may call tools:")


@pytest.mark.parametrize(
    "template",
    [
        "{% if tools %}{{ raise_exception('no tools') }}{% endif %}{{ messages[0].content }}",
        "{% if tools %}{{ tools[0].nothing.at_all }}{% endif %}{{ messages[0].content }}",
        None,
    ],
)
def test_a_template_that_fails_on_tools_shows_none(tiny_directory, tmp_path, template):
    assert not tokenizer(tiny_directory("llama"), tmp_path, template).tool_support.renders_tools


def test_a_template_of_its_own_for_tools_is_used_for_them(tiny_directory, tmp_path):
    named = [
        {"name": "default", "template": "plain: {{ messages[-1].content }}"},
        {"name": "tool_use", "template": "{{ tools[0].function.name }}: {{ messages[-1].content }}"},
    ]
    made = tokenizer(tiny_directory("llama"), tmp_path, None, chat_template=named)
    assert made.tool_support == ToolSupport(renders_tools=True)
    prompt = Prompt.user("hi")
    assert made.render(prompt) == "plain: hi"
    assert made.render(prompt.model_copy(update={"tools": (WEATHER,)})) == "weather: hi"


def test_calls_that_a_template_would_drop_are_written_into_the_text(tiny_directory):
    made = Tokenizer(tiny_directory("llama"), "local/tiny")
    assert made.render(Prompt(messages=TURNS)) == (
        "<|start|>user\nIs it warm?<|end|>\n"
        '<|start|>assistant\nI look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
        "<|end|>\n"
        "<|start|>user\n<tool_response>\n24 degrees\n</tool_response><|end|>\n"
        "<|start|>user\nAnd now?<|end|>\n<|start|>assistant\n"
    )
    with pytest.raises(CapabilityMissing, match="tools"):
        made.render(Prompt(messages=TURNS, tools=(WEATHER,)))


async def test_a_model_whose_template_shows_no_tools_gets_none(tiny):
    assert not tiny.capabilities.tools
    prompt = Prompt.user("hi").model_copy(update={"tools": (WEATHER,)})
    with pytest.raises(CapabilityMissing, match="tools"):
        await tiny.generate([Request(prompt=prompt)])


@pytest.fixture
async def shown(tiny_files, tmp_path: Path):
    """The tiny Llama with a template that shows tools."""
    files = with_tool_template(tiny_files("llama"), tmp_path / "tools")
    model = LocalModel.load(files, weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
    yield model
    await model.aclose()


FORCED = Tool(
    name="pick",
    parameters={
        "type": "object",
        "properties": {"number": {"type": "integer", "enum": [3, 7]}, "sure": {"type": "boolean"}},
        "required": ["number", "sure"],
        "additionalProperties": False,
    },
)


def asking(choice: str, **sampling: object) -> Request:
    prompt = Prompt.user("pick").model_copy(update={"tools": (FORCED, WEATHER), "tool_choice": choice})
    return Request(prompt=prompt, sampling=SamplingParams(**({"max_tokens": 120, "seed": 2, "n": 4} | sampling)))


async def test_a_required_tool_is_called(shown):
    assert shown.capabilities.tools
    heard = []
    [made] = await shown.generate([asking("pick", n=12)], heard.append)
    for completion in made:
        assert (completion.text, completion.finish_reason) == ("", "stop")
        [call] = completion.tool_calls
        assert call.name == "pick"
        values = call.parsed_arguments or {}
        assert values["number"] in (3, 7)
        assert isinstance(values["sure"], bool)
        own = [c for c in heard if c.sample_index == completion.sample_index]
        assert "".join(c.text for c in own) == ""
        assert own[-1].completion == completion
    assert len({c.arguments for [c] in (m.tool_calls for m in made)}) > 1
    assert len({m.tool_calls[0].id for m in made}) == 12


async def test_any_tool_may_satisfy_required(shown):
    [made] = await shown.generate([asking("required", n=12)])
    called = {c.name for m in made for c in m.tool_calls}
    assert called <= {"pick", "weather"}
    assert called
    assert all(bool(m.tool_calls) == (m.finish_reason == "stop") for m in made)


async def test_a_truncated_call_stays_text(shown):
    heard = []
    [[cut]] = await shown.generate([asking("pick", n=1, max_tokens=9)], heard.append)
    assert (cut.finish_reason, cut.tool_calls) == ("length", ())
    assert cut.text == '{"name": '
    assert "".join(c.text for c in heard) == cut.text


async def test_what_a_free_model_writes_stays_text_unless_it_is_a_call(shown):
    heard = []
    request = asking("auto", max_tokens=30)
    [made] = await shown.generate([request], heard.append)
    bare = request.model_copy(update={"prompt": Prompt(text=shown._tokenizer.render(request.prompt))})
    [expected] = await shown.generate([bare])
    assert [c.text for c in made] == [c.text for c in expected]
    assert all(c.tool_calls == () for c in made)
    for completion in made:
        assert "".join(c.text for c in heard if c.sample_index == completion.sample_index) == completion.text


async def test_without_grammars_no_call_can_be_forced(shown):
    with pytest.raises(CapabilityMissing, match="tool_choice=pick"):
        ToolCallAdapter([asking("pick")], shown._tokenizer, shown.name, holds=False)
