"""Profiles of providers' models, and that each request made with them is one that LiteLLM lets through."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from reason.core.errors import CapabilityMissing, UnknownName, UserError
from reason.core.messages import Message, Prompt, Request, SamplingParams, Thought, Tool, ToolCall
from reason.core.settings import Settings
from reason.serving.litellm.model import LiteLLMModel
from reason.serving.litellm.profiles import provider_profile
from reason.serving.litellm.providers import MAP_FILE, find_target, load_litellm
from reason.serving.litellm.requests import RequestTraits, chat_body
from reason.serving.model import Capabilities
from reason.serving.profiles.profile import ModelProfile, check_effort, quick_sampling

pytestmark = pytest.mark.usefixtures("keys")

ASK = Prompt.user("How many?")
NAMES = (
    "openai/gpt-5.6",
    "openai/gpt-5-mini",
    "openai/gpt-4o",
    "anthropic/claude-opus-5",
    "anthropic/claude-sonnet-4-5",
    "gemini/gemini-3.8-flash",
    "deepseek/deepseek-v4",
    "deepseek/deepseek-reasoner",
)


def profile_of(name: str, **settings: Any) -> ModelProfile:
    chosen = Settings(**settings)
    return provider_profile(find_target(name, chosen), chosen)


@pytest.mark.parametrize(
    ("name", "thinks", "least", "most"),
    [
        ("openai/gpt-5.6", "default", "none", "xhigh"),
        ("openai/gpt-5-mini", "always", "minimal", "high"),
        ("openai/gpt-5.1", "opt-in", "none", "high"),
        ("anthropic/claude-opus-5-5", "always", "minimal", "max"),
        ("anthropic/claude-opus-5", "default", "none", "max"),
        ("anthropic/claude-opus-4-7", "opt-in", "none", "max"),
        ("gemini/gemini-3.8-flash", "always", "low", "high"),
        ("deepseek/deepseek-v4", "default", "none", "max"),
    ],
)
def test_efforts_are_the_nearest_that_the_provider_has(name, thinks, least, most):
    profile = profile_of(name)
    assert profile.thinks == thinks
    lowest = profile.lowest_effort
    assert lowest is not None
    assert profile.efforts[lowest] == {"reasoning_effort": least}
    assert profile.efforts["max"] == {"reasoning_effort": most}
    assert ("none" in profile.efforts) == (thinks != "always")


@pytest.mark.parametrize(
    ("name", "budget"),
    [
        ("anthropic/claude-sonnet-4-5", True),
        ("anthropic/claude-opus-4-7", False),
        ("gemini/gemini-2.5-flash", True),
        ("gemini/gemini-3.8-flash", False),
    ],
)
def test_thoughts_have_a_budget_where_litellm_keeps_it(name, budget):
    profile = profile_of(name)
    fields = profile.effort_fields("high", 5000)
    assert (fields.get("thinking") == {"type": "enabled", "budget_tokens": 5000}) == budget
    assert ("reasoning_effort" in fields) == (not budget)


@pytest.mark.parametrize(
    ("name", "always", "while_thinking"),
    [
        ("openai/gpt-4o", set(), set()),
        ("openai/gpt-5.6", {"stop"}, {"temperature", "top_p", "logprobs", "temperature_with_top_p"}),
        ("openai/gpt-5-mini", {"temperature", "top_p", "logprobs", "stop"}, set()),
        (
            "anthropic/claude-sonnet-4-5",
            {"temperature_with_top_p", "blank_stop", "logprobs", "n"},
            {"temperature", "top_p", "top_k", "prefix", "tool_choice"},
        ),
        ("gemini/gemini-2.5-flash", {"logprobs"}, set()),
        ("deepseek/deepseek-reasoner", {"temperature", "top_p", "logprobs", "json_schema", "prefix"}, set()),
        ("deepseek/deepseek-v4", {"json_schema", "prefix"}, {"temperature", "top_p", "logprobs"}),
    ],
)
def test_refused_parameters(name, always, while_thinking):
    profile = profile_of(name)
    assert set(profile.refuses) == always
    assert set(profile.refuses_while_thinking) - always == while_thinking


UNKNOWN = {
    "anthropic/claude-opus-6": "default",
    "bedrock/anthropic.claude-opus-6-v1:0": "default",
    "vertex_ai/claude-opus-6": "default",
    "openrouter/anthropic/claude-opus-6": "default",
    "gemini/gemini-4-pro": "default",
    "vertex_ai/gemini-4-pro": "default",
    "xai/grok-6": "default",
    "openai/gpt-7": "default",
    "azure/gpt-7": "default",
    "deepseek/deepseek-next": "default",
    "groq/qwen/qwen9": "default",
    "mistral/new-model": "opt-in",
    "azure/my-deployment": "opt-in",
    "openai/new-model": "opt-in",
}
"""Models that nobody knows, by provider, and when those of their families think."""


@pytest.mark.parametrize(("name", "thinks"), UNKNOWN.items())
def test_to_a_model_that_nobody_knows_nothing_optional_is_sent(name, thinks, monkeypatch):
    if name.startswith("bedrock/"):
        pytest.importorskip("boto3")
    for key in ("AZURE_API_KEY", "GROQ_API_KEY"):
        monkeypatch.setenv(key, "none")
    monkeypatch.setenv("AZURE_API_BASE", "http://127.0.0.1:9")
    monkeypatch.setenv("AZURE_API_VERSION", "2026-01-01")
    settings = Settings()
    target = find_target(name, settings)
    profile = provider_profile(target, settings)
    assert profile.thinks == thinks
    assert profile.can_skip_thinking == (thinks == "opt-in")
    can = Capabilities(logprobs="logprobs" not in profile.refuses, profile=profile)
    sampling = SamplingParams(default_temperature=0.7, seed=1, logprobs=False, stop=("\n\n",), max_tokens=64)
    quick = quick_sampling(profile, max_tokens=8)
    for params in (sampling, quick):
        body = chat_body(Request(prompt=ASK, sampling=params), [0], target, can, RequestTraits())
        assert not set(body) - {"messages", "max_tokens", "prompt_cache_key"}
    assert not can.logprobs


def test_an_effort_that_the_caller_names_is_sent_to_a_model_that_nobody_knows():
    profile = profile_of("anthropic/claude-opus-6")
    for effort in ("none", "high"):
        check_effort(profile, "anthropic/claude-opus-6", effort, None)
        assert profile.efforts[effort] == {"reasoning_effort": effort}
    assert not profile.starts_thinking(ASK, "none")
    refused = profile.model_copy(update={"left_out": frozenset({"effort"})})
    with pytest.raises(UserError, match="always thinks"):
        check_effort(refused, "anthropic/claude-opus-6", "none", None)


def openai_models() -> list[str]:
    """All chat models of OpenAI's own in LiteLLM's map, with what LiteLLM's code knows better than its map left out."""
    path = Path(importlib.util.find_spec("litellm").origin).parent / MAP_FILE
    models = json.loads(path.read_text(encoding="utf-8"))
    return [
        name
        for name, entry in models.items()
        if entry.get("litellm_provider") == "openai"
        and entry.get("mode") == "chat"
        and "/" not in name
        # LiteLLM does not recognise a fine-tuned model that reasons, nor the schemas of two retired models
        and not name.startswith("ft:o")
        and name not in ("gpt-4", "gpt-3.5-turbo-16k")
    ]


TRIALS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.7},
    "top_p": {"top_p": 0.9},
    "stop": {"stop": ["x"]},
    "logprobs": {"logprobs": True},
    "n": {"n": 2},
    "json_schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": {}}}},
}


def test_what_openais_models_refuse_is_what_litellm_refuses():
    """The flags of the map are read without LiteLLM's code; its code, asked about every model, says the same."""
    litellm = load_litellm()

    def refuses(served: str, **parameters: Any) -> bool:
        try:
            litellm.get_optional_params(
                model=served, custom_llm_provider="openai", drop_params=False, max_tokens=64, **parameters
            )
        except litellm.UnsupportedParamsError:
            return True
        return False

    differing = []
    for served in openai_models():
        profile = profile_of(f"openai/{served}")
        efforts = {e: fields for e, fields in profile.efforts.items() if fields}
        differing += [(served, e) for e, fields in efforts.items() if refuses(served, **fields)]
        shown = next((fields for effort, fields in efforts.items() if effort != "none"), {})
        states = {True: shown} if profile.can_think else {False: {}}
        if profile.can_think and profile.can_skip_thinking:
            states[False] = profile.efforts["none"]
        for thinking, fields in states.items():
            differing += [
                (served, name, thinking)
                for name, trial in TRIALS.items()
                if profile.refused(name, thinking=thinking) != refuses(served, **trial, **fields)
                and not (name == "stop" and served.startswith(("o3", "o4")))  # LiteLLM sends it, and OpenAI refuses it
            ]
    assert differing == []


def test_gemini_takes_no_sampling_parameters_and_shows_thoughts():
    profile = profile_of("gemini/gemini-3.8-flash")
    assert {"temperature", "top_p"} <= profile.refuses
    assert profile.thought == "field"
    assert not profile.can_skip_thinking


def test_sources_name_the_layer_of_each_field():
    profile = profile_of("openai/gpt-5.6", profiles={"openai/gpt-5.*": {"max_thinking_tokens": 2000}})
    assert profile.sources["max_thinking_tokens"] == 'settings [profiles."openai/gpt-5.*"]'
    assert profile.sources["thought"] == "shipped providers.toml"
    assert profile.sources["thinks"] == "LiteLLM's map"
    assert profile.max_thinking_tokens == 2000


def test_a_profile_of_open_weights_applies_to_servers_of_ones_own_only():
    own = {"hosted_vllm": {"api_base": "http://127.0.0.1:9/v1"}}
    served = profile_of("hosted_vllm/qwen3-8b", providers=own)
    assert served.efforts["none"] == {"chat_template_kwargs": {"enable_thinking": False}}
    rented = profile_of("openrouter/qwen/qwen3-32b")
    assert rented.thinks == "default"
    assert rented.efforts["none"] == {"reasoning_effort": "none"}


def test_unknown_field_of_a_users_profile_is_named():
    with pytest.raises(UnknownName, match="profile field 'think'") as caught:
        profile_of("openai/gpt-5.6", profiles={"openai/gpt-5.6": {"think": "never"}})
    assert "thinks" in str(caught.value)
    with pytest.raises(UserError, match=r"thinks: .*got 'sometimes'"):
        profile_of("openai/gpt-5.6", profiles={"openai/gpt-5.6": {"thinks": "sometimes"}})


# -- requests, as far as the wire


class Recorder:
    """Sends requests through LiteLLM's own building; each ends when its body is recorded."""

    def __init__(self, load: Callable[..., Awaitable[LiteLLMModel]]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._load = load

    async def model(self, name: str) -> LiteLLMModel:
        return await self._load(name, providers={name: {"max_retries": 0}})

    async def sent(self, name: str, prompt: Prompt = ASK, **sampling: Any) -> dict[str, Any]:
        """The body of a request, or a failure with LiteLLM's reason."""
        self.bodies.clear()
        request = Request(prompt=prompt, sampling=SamplingParams(seed=1, **{"max_tokens": 64, **sampling}))
        model = await self.model(name)
        try:
            await model.generate([request])
        except CapabilityMissing:
            raise
        except Exception:  # noqa: BLE001 (the recording ends each request)
            assert self.bodies, "LiteLLM let nothing through"
        return self.bodies[-1]

    def record(self, body: Any) -> None:
        self.bodies.append(_parsed(body))
        raise RuntimeError("recorded")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, load: Callable[..., Awaitable[LiteLLMModel]]) -> Recorder:
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler
    from reason.serving.litellm.transport import HttpClient

    recorder = Recorder(load)

    async def post(self: Any, url: str, data: Any = None, json: Any = None, **_: Any) -> None:
        recorder.record(json if json is not None else data)

    async def stream_post(self: Any, path: str, data: bytes, *_: Any) -> None:
        recorder.record(data)

    monkeypatch.setattr(AsyncHTTPHandler, "post", post)
    monkeypatch.setattr(HttpClient, "post", stream_post)
    return recorder


def _parsed(body: Any) -> dict[str, Any]:
    return json.loads(body) if isinstance(body, str | bytes) else dict(body)


def tool_turn(thought: Thought) -> Prompt:
    call = ToolCall(name="look_up", arguments="{}", id="call_1")
    return Prompt(
        messages=(
            Message(role="user", content="How many?"),
            Message(role="assistant", content="", tool_calls=(call,), thought=thought),
            Message(role="tool", content="12", tool_call_id="call_1", name="look_up"),
        ),
        tools=(Tool(name="look_up", description="Looks up."),),
    )


@pytest.mark.parametrize("name", NAMES)
async def test_every_request_passes_litellms_check(name, recorder):
    can = (await recorder.model(name)).capabilities
    profile = can.profile
    quick = {"effort": "none"} if profile.can_think and profile.can_skip_thinking else {}
    blocks = ({"type": "thinking", "thinking": "I look.", "signature": "signed"},)
    requests = [
        {"default_temperature": 0.7},
        {"default_temperature": 0.7, "n": 3, "stop": ("\n\n",)},
        {"default_temperature": 0.0, "max_tokens": 8, "stop": ("\n",), **quick},
        *({"default_temperature": 0.7, "effort": effort} for effort in profile.efforts),
        {"default_temperature": 0.7, "prompt": tool_turn(Thought(text="I look.", blocks=blocks))},
    ]
    if profile.can_think:
        requests.append({"thinking_tokens": 3000})
    if can.json_schema:
        requests.append({"json_schema": {"type": "object", "properties": {"a": {"type": "string"}}}})
    if can.logprobs:
        requests.append({"logprobs": True, **quick})
    for request in requests:
        await recorder.sent(name, **request)


async def test_cap_covers_thought_and_answer(recorder):
    name = "openai/gpt-5.6"
    body = await recorder.sent(name, default_temperature=0.7, thinking_tokens=1000, stop=("\n\n",))
    assert body["max_completion_tokens"] == 1064
    assert not {"temperature", "top_p", "stop", "logprobs", "reasoning_effort"} & set(body)
    quick = await recorder.sent(name, default_temperature=0.0, effort="none")
    assert (quick["max_completion_tokens"], quick["temperature"], quick["reasoning_effort"]) == (64, 0.0, "none")


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (
            {"default_temperature": 0.7, "effort": "high", "thinking_tokens": 4000},
            ({"type": "enabled", "budget_tokens": 4000}, 4064, None),
        ),
        ({"default_temperature": 0.7}, (None, 64, 0.7)),
        ({"effort": "high", "thinking_tokens": 500}, (None, 64, None)),  # less than it can
    ],
)
async def test_claude_gets_a_budget_below_its_cap_or_no_thought(sampling, expected, recorder):
    body = await recorder.sent("anthropic/claude-sonnet-4-5", **sampling)
    assert (body.get("thinking"), body["max_tokens"], body.get("temperature")) == expected


async def test_thoughts_of_tool_turns_are_returned_to_claude_if_they_are_signed(recorder):
    block = {"type": "thinking", "thinking": "I look.", "signature": "signed"}
    signed = tool_turn(Thought(text="I look.", blocks=(block,)))
    body = await recorder.sent("anthropic/claude-opus-5-5", signed)
    assert body["messages"][1]["content"][0] == block
    # one without its signature is not begun again
    body = await recorder.sent("anthropic/claude-sonnet-4-5", tool_turn(Thought(text="I look.")), effort="high")
    assert "thinking" not in body


async def test_thoughts_of_tool_turns_are_returned_to_deepseek(recorder):
    body = await recorder.sent("deepseek/deepseek-v4", tool_turn(Thought(text="I look.")))
    assert body["messages"][1]["reasoning_content"] == "I look."
    earlier = Message(role="assistant", content="Hello", thought=Thought(text="A greeting."))
    turns = (Message(role="user", content="Hello"), earlier, Message(role="user", content="How many?"))
    body = await recorder.sent("deepseek/deepseek-v4", Prompt(messages=turns))
    assert "reasoning_content" not in body["messages"][1]


@pytest.mark.parametrize(
    ("name", "sampling", "parameter"),
    [
        ("openai/gpt-5-mini", {"temperature": 0.2}, "temperature"),
        ("anthropic/claude-sonnet-4-5", {"temperature": 0.2, "top_p": 0.5}, "temperature_with_top_p"),
        ("deepseek/deepseek-reasoner", {"logprobs": True}, "logprobs"),
        ("openai/gpt-4o", {"effort": "high"}, "effort"),
        ("openai/gpt-5-mini", {"effort": "none"}, "effort"),
        ("gemini/gemini-2.5-flash", {"thinking_tokens": 50_000}, "thinking_tokens"),
    ],
)
async def test_what_the_caller_insists_on_is_refused_before_anything_is_sent(name, sampling, parameter, recorder):
    model = await recorder.model(name)
    with pytest.raises(UserError) as caught:
        await model.generate([Request(prompt=ASK, sampling=SamplingParams(**sampling))])
    assert caught.value.param == parameter
    assert name in str(caught.value)
    assert not recorder.bodies


def test_litellm_is_asked_silently(capfd):
    load_litellm()
    capfd.readouterr()
    profile_of("gemini/gemini-3.8-flash")
    profile_of("mistral/magistral-medium-latest")
    assert capfd.readouterr() == ("", "")
