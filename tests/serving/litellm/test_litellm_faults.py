"""Servers that fail: what is tried again, what comes back, and that nothing is lost or answered twice."""

from __future__ import annotations

import asyncio
import sys

import pytest
from reason.core.errors import (
    BackendError,
    BackendRefused,
    BackendTimeout,
    BackendUnavailable,
    CapabilityMissing,
    InvalidResponse,
    RateLimited,
    UnknownName,
    UserError,
)
from reason.core.messages import LogitsProcessorSpec, Prompt, Request, SamplingParams, Thought
from reason.core.settings import ProviderSettings, Settings
from reason.serving.factory import load_model
from reason.serving.litellm.factory import load_litellm_model
from support.fault_server import FaultServer
from support.scripted_model import ScriptedModel, replies

PROMPT = Prompt.user("colour?")
NO_RETRY = {"max_retries": 0}


def ask(prompt: Prompt = PROMPT, **sampling) -> Request:
    return Request(prompt=prompt, sampling=SamplingParams(**{"seed": 4, "max_tokens": 20, **sampling}))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("500", BackendError),
        ("502", BackendError),
        ("503", BackendUnavailable),
        ("429", RateLimited),
        ("truncated", InvalidResponse),
        ("garbage", InvalidResponse),
        ("wrong json", InvalidResponse),
        ("disconnect", BackendUnavailable),
        ("cut", BackendUnavailable),
        ("error event", BackendError),
        ("400", BackendRefused),
    ],
)
async def test_each_fault_has_its_error(opened, fault, error, clock):
    async with opened(settings=NO_RETRY, fault=lambda n: fault) as (server, model):
        with pytest.raises(BackendError) as caught:
            await model.generate([ask()])
        assert type(caught.value) is error
        assert server.count == 1
        await clock.settle()  # the reply may be here before the server is done with it
        assert server.open == 0


async def test_silent_server_times_out_and_the_connection_is_closed(opened, clock):
    settings = {**NO_RETRY, "timeout_s": 0.5}
    async with opened(settings=settings, fault=lambda n: "hang") as (server, model):
        with pytest.raises(BackendTimeout, match=r"0\.5 s"):
            await model.generate([ask()])
        await clock.settle()
        assert (server.open, server.disconnects) == (0, 1)


async def test_slow_stream_does_not_time_out(opened, clock):
    settings = {**NO_RETRY, "timeout_s": 0.5}
    async with opened("a" * 60, settings=settings, pause_s=0.02) as (_, model):
        [[made]] = await model.generate([ask(max_tokens=60)])
        assert made.text == "a" * 60
        assert clock.elapsed > 1


@pytest.mark.parametrize(("fault", "requests"), [("500", 3), ("429", 3), ("wrong json", 3), ("502", 7), ("503", 7)])
async def test_what_may_be_permanent_is_retried_twice(opened, fault, requests):
    async with opened(fault=lambda n: fault) as (server, model):
        with pytest.raises(BackendError):
            await model.generate([ask()])
        assert server.count == requests


@pytest.mark.parametrize("fault", ["500", "429", "truncated", "wrong json", "disconnect", "cut"])
async def test_transient_fault_is_retried(opened, fault):
    async with opened(fault={0: fault}.get) as (server, model):
        heard = []
        [[made]] = await model.generate([ask()], heard.append)
        assert made.ok
        assert server.count == 2
        assert "".join(c.text for c in heard) == made.text
        assert [c.completion for c in heard if c.completion] == [made]
        assert made.usage.waited_s > 0


async def test_a_server_that_has_answered_is_tried_again_while_it_restarts(clock):
    server = FaultServer(ScriptedModel(replies("blue sky")))
    async with server.run() as address:
        settings = Settings(providers={"hosted_vllm": ProviderSettings(api_base=address)})
        model = await load_litellm_model("hosted_vllm/small", settings)
        [[first]] = await model.generate([ask()])
    waiting = asyncio.ensure_future(model.generate([ask()]))
    await clock.settle()
    assert not waiting.done()
    async with server.run(int(address.removesuffix("/v1").rpartition(":")[2])):
        clock.flows = True
        [[second]] = await waiting
        assert second.text == first.text
        await model.aclose()


async def test_retry_after_is_respected_and_reported(opened, clock):
    async with opened(fault={0: "429 20"}.get) as (_, model):
        [[made]] = await model.generate([ask()])
        assert 20 <= made.usage.waited_s == pytest.approx(clock.elapsed, abs=1e-5)


async def test_failed_sample_does_not_affect_the_others(opened):
    async with opened(settings=NO_RETRY) as (server, model):
        indices = (0, 2, 4)  # three requests
        server.fault = {1: "500"}.get
        heard = []
        [made] = await model.generate([ask(n=5).model_copy(update={"sample_indices": indices})], heard.append)
        assert [c.sample_index for c in made] == list(indices)
        assert sorted(c.failure.code if c.failure else "" for c in made) == ["", "", "backend_error"]
        assert sum(c.completion is not None for c in heard) == 3


@pytest.mark.parametrize(
    ("options", "variable"),
    [({"key": "right"}, "HOSTED_VLLM_API_KEY"), ({"settings": {"api_key_env": "MINE"}}, "MINE")],
)
async def test_the_variable_of_a_wrong_or_unset_key_is_named(opened, options, variable):
    with pytest.raises(UserError, match=variable):
        async with opened(**options):
            pass


@pytest.mark.parametrize(
    ("base", "error", "says"),
    [
        (None, UserError, "api_base"),
        ("http://127.0.0.1:9/v1", BackendUnavailable, r"1:9/v1 cannot be reached"),
    ],
)
async def test_a_vllm_server_needs_an_address_where_it_answers(base, error, says, clock):
    settings = Settings(providers={"hosted_vllm": ProviderSettings(api_base=base)})
    with pytest.raises(error, match=says):  # at once: with a wait, the held clock would never let this end
        await load_litellm_model("hosted_vllm/small", settings)


@pytest.mark.parametrize(
    ("name", "environment", "found"),
    [
        ("small@{url}", {}, "small@{url}"),
        ("openai/small@{url}/", {}, "openai/small@{url}/"),
        ("{url}", {}, "hosted_vllm/small@{url}"),
        ("small", {"OPENAI_BASE_URL": "{url}"}, "small"),
        ("openai/small", {"OPENAI_BASE_URL": "{url}"}, "openai/small"),
        ("openai/small", {"OPENAI_BASE_URL": "{url}", "OPENAI_API_KEY": "any"}, "openai/small"),
    ],
)
async def test_a_model_is_found_at_an_address_without_settings(opened, monkeypatch, name, environment, found):
    monkeypatch.setitem(sys.modules, "litellm", None)  # none of this needs it
    async with opened() as (_, model):
        url = model.target.api_base
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value.format(url=url))
        made = await load_model(name.format(url=url), Settings())
        try:
            assert made.name == found.format(url=url)
            assert (made.target.served, made.target.is_own_server) == ("small", True)
            [[completion]] = await made.generate([ask()])
            assert completion.ok
        finally:
            await made.aclose()


async def test_an_address_that_lists_no_models_is_named_with_a_remedy(opened):
    async with opened() as (_, model):
        url = model.target.api_base.removesuffix("/v1")
        with pytest.raises(UserError, match="does not list its models") as refused:
            await load_model(url, Settings())
        assert refused.value.hint == f"try {url}/v1"


async def test_a_model_that_is_not_served_is_named_with_those_that_are(opened):
    async with opened() as (_, model):
        settings = Settings(providers={"hosted_vllm": {"api_base": model.target.api_base}})
        with pytest.raises(UnknownName, match="small") as caught:
            await load_litellm_model("hosted_vllm/smal", settings)
        assert caught.value.nearest == ("hosted_vllm/small",)


async def test_vanished_model_is_unknown_and_not_retried(opened):
    async with opened() as (server, model):
        server.served = "other"
        with pytest.raises(UnknownName, match="hosted_vllm/small"):
            await model.generate([ask() for _ in range(200)])
        assert server.count <= model.limiter.max_in_flight


async def test_missing_capability_is_rejected_before_sending(opened):
    async with opened(provider="openai") as (server, model):
        for request in (
            ask(PROMPT.with_prefix("b")),
            ask(PROMPT.with_thought(Thought(text="so"))),
            ask(Prompt(text="raw")),
            ask(top_k=3),
            ask(ignore_eos=True),
            ask(top_logprobs=21),
            ask(logits_processors=(LogitsProcessorSpec(name="only_tokens", args={"ids": [1]}),)),
        ):
            with pytest.raises(CapabilityMissing):
                await model.generate([request])
        with pytest.raises(CapabilityMissing, match="scoring"):
            await model.score(PROMPT, ["a"])
        assert server.count == 0


async def test_missing_usage_is_counted_from_the_tokens(opened):
    async with opened(fault=lambda n: "no usage") as (_, model):
        [[made]] = await model.generate([ask()])
        assert made.usage.completion_tokens == len(made.token_ids) > 0
        assert made.usage.prompt_tokens == 0


async def test_closing_ends_requests_in_flight(opened, clock):
    async with opened(fault=lambda n: "hang") as (server, model):
        task = asyncio.create_task(model.generate([ask()]))
        await clock.settle()
        assert server.open == 1
        await model.aclose()
        with pytest.raises(asyncio.CancelledError):
            await task
        await clock.settle()
        assert server.open == 0
        await model.aclose()


async def test_concurrency_is_bounded(opened):
    async with opened(settings={"concurrency": 3}, pause_s=0.005) as (server, model):
        await model.generate([ask() for _ in range(12)])
        assert server.most_open == 3
