"""Parameters that an endpoint refuses: recognised, left out of the request that is made again, and remembered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from reason.agents.reasoner import Reasoner
from reason.core.errors import BackendError, UserError
from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.settings import Settings
from reason.core.types import Answer, Question
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.litellm.model import LiteLLMModel
from reason.serving.refusals import refusal_layers, refused_parameter, remember_refusal
from support.wires.kinds import KINDS, OTHER_KINDS, Kind
from support.wires.script import QUESTION, RIGHT
from support.wires.server import Fault, WireServer

KNOWN: Mapping[str, Kind] = {kind.name: kind for kind in (*KINDS, *OTHER_KINDS)}
ASK = Prompt.user(QUESTION)
TAKES_ALL: dict[str, Any] = {"is_known": True, "refuses": [], "refuses_while_thinking": [], "thinks": "never"}
"""A profile of a model that refuses nothing, whatever is shipped."""


@pytest.mark.parametrize(
    ("message", "param", "parameter"),
    [
        ("Unsupported parameter: 'top_p' is not supported with this model.", "top_p", "top_p"),
        ("Unsupported value: 'temperature' does not support 0.7 with this model.", "temperature", "temperature"),
        ("Unsupported value: 'reasoning_effort' does not support 'none' with this model.", None, "effort"),
        ("Unrecognized request argument supplied: seed", None, "seed"),
        ("`temperature` may only be set to 1 when thinking is enabled.", None, "temperature"),
        ('"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive".', None, "effort"),
        ("This model does not support assistant message prefill.", None, "prefix"),
        ("AnthropicException - temperature: Extra inputs are not permitted", None, "temperature"),
        ("Thinking may not be enabled when tool_choice forces tool use.", None, "tool_choice"),
        ("Logprobs is not enabled for models/gemini-4", None, "logprobs"),
        ("The thinking budget 0 is invalid. Please choose a value between 128 and 32768.", None, "effort"),
        ("Thinking level is not supported for this model.", None, "effort"),
        ("Budget 0 is invalid. This model only works in thinking mode.", None, "effort"),
        ("thinking cannot be disabled for this model", None, "effort"),
        ("Model grok-6 does not support parameter stop.", None, "stop"),
        ("Argument not supported on this model: stop", None, "stop"),
        ("Invalid 'n': integer above maximum value. Expected a value <= 128, but got 130 instead.", "n", "n"),
        ("output_config.effort 'xhigh' is not supported when thinking is disabled on this model.", None, "effort"),
        ("xai does not support parameters: ['reasoning_effort'], for model=grok-6.", None, "effort"),
        ("deepseek-reasoner does not support the parameter `logprobs`", None, "logprobs"),
        ("This response_format type is unavailable now", None, "json_schema"),
        ("Only one completion choice is allowed", None, "n"),
        ("Unsupported parameter", "n", "n"),
        # faults of the request itself
        ("Invalid schema for response_format 'reply': 'required' is missing.", "response_format", None),
        ("Unknown name 'const' at 'generation_config.response_schema': Cannot find field.", None, None),
        ("Unsupported JSON schema: the 'pattern' keyword of response_format is not supported", None, None),
        ("`max_tokens` must be greater than `thinking.budget_tokens`", None, None),
        ("temperature: Input should be less than or equal to 1", None, None),
        ("This model's maximum context length is 8192 tokens", "messages", None),
        ("Unsupported model", "model", None),
    ],
)
def test_refused_parameters_are_recognised(message, param, parameter):
    assert refused_parameter(message, param) == parameter


@asynccontextmanager
async def served(
    name: str, directory: Path, profile: Mapping[str, Any] | None = None
) -> AsyncIterator[tuple[WireServer, Settings]]:
    """A server of one kind of model, and settings that lead to it."""
    server = WireServer(KNOWN[name])
    model = server.kind.model
    async with server.run() as base:
        settings = Settings(
            model=model,
            providers={model: {"api_base": server.kind.api_base(base), "max_retries": 0, "probe": False}},
            profiles={model: dict(profile)} if profile else {},
            store=directory / "runs.sqlite3",
        )
        yield server, settings


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[LiteLLMModel]:
    model = await load_litellm_model(str(settings.model), settings)
    yield model
    await model.aclose()


def request(**sampling: Any) -> Request:
    return Request(prompt=ASK, sampling=SamplingParams(**{"max_tokens": 200, "seed": 1, **sampling}))


@pytest.fixture(autouse=True)
def _keys(keys: None) -> None:
    """Keys of the providers."""


@pytest.mark.parametrize(
    ("name", "sampling", "parameter", "field"),
    [
        ("Claude 6", {"temperature": 0.5}, "temperature", "temperature"),
        ("Claude 6", {"default_temperature": 0.5}, "temperature", "temperature"),
        ("gpt-5-mini", {"temperature": 0.5}, "temperature", "temperature"),
        ("gpt-5-mini", {"top_p": 0.5}, "top_p", "top_p"),
        ("gpt-5-mini", {"stop": ("\n\n",)}, "stop", "stop"),
        ("gpt-5-mini", {"logprobs": True}, "logprobs", "logprobs"),
        ("DeepSeek V4", {"json_schema": {"type": "object", "properties": {}}}, "json_schema", "response_format"),
        ("llama.cpp", {"n": 2}, "n", "n"),
        ("Grok 6", {"stop": ("\n\n",)}, "stop", "stop"),
    ],
)
async def test_a_request_is_made_again_without_what_was_refused(name, sampling, parameter, field, tmp_path):
    async with served(name, tmp_path, TAKES_ALL) as (server, settings):
        async with opened(settings) as model:
            can = {"logprobs": True, "json_schema": True}
            model._can = model.capabilities.model_copy(update=can)
            await model.generate([request(**sampling)])
            refused, *others = server.generations
            assert refused.refused is not None
            assert field in refused.body
            assert len(others) == sampling.get("n", 1)
            assert all(g.refused is None and field not in g.body for g in others)
            await model.generate([request(**sampling)])
            assert len(server.refusals) == 1
        async with opened(settings) as again:  # another process
            assert again.capabilities.profile.left_out == {parameter}
            assert again.capabilities.profile.sources["left_out"].startswith("refused on 20")
            again._can = again.capabilities.model_copy(update=can)
            await again.generate([request(**sampling)])
            assert len(server.refusals) == 1


async def test_concurrent_requests_are_each_made_again_once(tmp_path):
    async with served("gpt-5-mini", tmp_path, TAKES_ALL) as (server, settings), opened(settings) as model:
        made = await model.generate([request(top_p=0.5, seed=i) for i in range(4)])
    assert all(completion.ok for [completion] in made)
    assert len(server.generations) == 4 + len(server.refusals)


async def test_several_parameters_are_refused_one_after_another(tmp_path):
    async with served("gpt-5-mini", tmp_path, TAKES_ALL) as (server, settings), opened(settings) as model:
        await model.generate([request(top_p=0.5, temperature=0.5, stop=("\n\n",))])
    assert len(server.refusals) == 3


async def test_an_unrecognised_refusal_is_an_error_and_nothing_is_remembered(tmp_path):
    async with served("gpt-5-mini", tmp_path, TAKES_ALL) as (server, settings), opened(settings) as model:
        server.faults = [Fault(400), Fault(422)]
        for _ in range(2):
            with pytest.raises(BackendError, match="refused the request with status"):
                await model.generate([request(temperature=1.0)])
        assert len(server.generations) == 2
    assert not (tmp_path / "refused").exists()


async def test_a_parameter_that_was_not_sent_is_not_left_out(tmp_path):
    async with served("gpt-5-mini", tmp_path, TAKES_ALL) as (server, settings), opened(settings) as model:
        page = '{"error": {"message": "Unsupported parameter: temperature", "param": "temperature"}}'
        server.faults = [Fault(400, page=page)]
        with pytest.raises(BackendError):
            await model.generate([request()])
        assert len(server.generations) == 1
    assert not (tmp_path / "refused").exists()


async def test_an_effort_of_none_that_is_refused_is_an_error_with_a_remedy(tmp_path):
    profile = {**TAKES_ALL, "thinks": "default", "efforts": {"none": {"reasoning_effort": "none"}}}
    async with served("gpt-5-mini", tmp_path, profile) as (server, settings), opened(settings) as model:
        for _ in range(2):
            with pytest.raises(UserError, match="effort none: model 'openai/gpt-5-mini' always thinks"):
                await model.generate([request(effort="none", thinking_tokens=0)])
        assert len(server.generations) == 1


async def test_another_effort_that_is_refused_is_left_to_the_model(tmp_path):
    profile = {**TAKES_ALL, "thinks": "default", "efforts": {"max": {"reasoning_effort": "max"}}}
    async with served("gpt-5-mini", tmp_path, profile) as (server, settings), opened(settings) as model:
        [[completion]] = await model.generate([request(effort="max", thinking_tokens=2000)])
    assert completion.ok
    assert ["reasoning_effort" in g.body for g in server.generations] == [True, False]


def test_refusals_of_other_endpoints_and_broken_files_are_not_read(tmp_path):
    remember_refusal(tmp_path, "m", "http://a", "top_p", "no")
    remember_refusal(tmp_path, "m", "http://a", "stop", "no")
    [(source, fields)] = refusal_layers(tmp_path, "m", "http://a")
    assert source.startswith("refused on ")
    assert fields == {"left_out": ["stop", "top_p"]}
    assert refusal_layers(tmp_path, "m", "http://b") == refusal_layers(tmp_path, "other", "http://a") == []
    for file in (tmp_path / "refused").rglob("*.json"):
        file.write_text("{" if file.name == "stop.json" else '{"parameter": "nothing", "date": 1}')
    assert refusal_layers(tmp_path, "m", "http://a") == []


def test_a_directory_that_cannot_be_written_costs_only_the_memory(tmp_path):
    (tmp_path / "refused").write_text("a file")
    remember_refusal(tmp_path, "m", "http://a", "top_p", "no")


async def ask(settings: Settings, strategy: str, **options: Any) -> Answer:
    async with Reasoner(settings=settings) as reasoner:
        return await reasoner.aask(Question(text=QUESTION, kind="number"), strategy=strategy, seed=7, **options)


async def test_a_run_reports_what_was_left_out(tmp_path):
    async with served("Claude 6", tmp_path, TAKES_ALL) as (server, settings):
        for refusals in (1, 1):
            answer = await ask(settings, "cot", parameters={"temperature": 0.5})
            assert answer.answer == RIGHT
            assert answer.degraded == (
                "anthropic/claude-opus-6 refuses temperature: it samples at its own temperature",
            )
            assert len(server.refusals) == refusals
            assert answer.usage.completion_tokens


async def test_rpc_without_log_probabilities_is_a_vote(tmp_path):
    async with served("gpt-5-mini", tmp_path, TAKES_ALL) as (server, settings):
        answer = await ask(settings, "rpc", parameters={"n": 3})
        assert answer.answer == RIGHT
        assert "openai/gpt-5-mini refuses logprobs: there are no log-probabilities" in answer.degraded
        assert any("self-consistency" in note for note in answer.degraded), answer.degraded
        again = await ask(settings, "rpc", parameters={"n": 3})
        assert any("self-consistency" in note for note in again.degraded), again.degraded
    assert sum("logprobs" in g.body for g in server.generations) == len(server.refusals)


async def test_a_step_search_on_a_model_that_nobody_knows_needs_an_effort_of_none(tmp_path):
    async with served("Claude 6", tmp_path) as (server, settings):
        parameters = {"width": 2, "k": 2}
        answer = await ask(settings, "beam", parameters=parameters)
        assert any("may always think" in note for note in answer.degraded), answer.degraded
        assert not any("thinking" in g.body for g in server.generations)
        server.reset()
        answer = await ask(settings, "beam", parameters=parameters, effort="none")
        assert not any("may always think" in note for note in answer.degraded), answer.degraded
        assert all(g.body["thinking"] == {"type": "disabled"} for g in server.generations)
        assert not server.refusals


@pytest.mark.parametrize("process", ["one", "two"])
async def test_what_one_of_several_endpoints_refuses_is_left_out_at_all(process, tmp_path):
    servers = [WireServer(KNOWN["gpt-5-mini"]) for _ in range(2)]
    async with servers[0].run() as first, servers[1].run() as second:
        model = servers[0].kind.model
        endpoints = [{"api_base": first}, {"api_base": second}]
        settings = Settings(
            model=model,
            providers={model: {"endpoints": endpoints, "max_retries": 0, "probe": False}},
            profiles={model: TAKES_ALL},
            store=tmp_path / "runs.sqlite3",
        )
        for _ in range(2 if process == "two" else 1):
            answer = await ask(settings, "self-consistency", parameters={"n": 4, "temperature": 0.5})
            assert answer.answer == RIGHT
            assert answer.degraded == ("openai/gpt-5-mini refuses temperature: it samples at its own temperature",)
        refused = [len(server.refusals) for server in servers]
        assert sum(refused) <= 4  # those that were under way
        for server in servers:
            server.reset()
        answer = await ask(settings, "cot", parameters={"temperature": 0.5})
        assert answer.degraded
        assert not any(server.refusals for server in servers)
