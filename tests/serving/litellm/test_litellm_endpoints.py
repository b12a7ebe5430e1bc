"""Several endpoints behind one name: failing, slow, dead and different ones."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from reason.core.errors import BackendMisconfigured, BackendUnavailable, RateLimited, UnknownName, UserError
from reason.core.messages import Chunk, Prompt, Request, SamplingParams
from reason.core.settings import ProviderSettings, Settings, load_settings
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.litellm.limiter import LimiterRegistry
from reason.serving.servers import endpoints
from reason.serving.servers.endpoints import LoadBalancedModel
from support.fake_clock import FakeClock
from support.fault_server import FaultServer
from support.scripted_model import ScriptedModel, replies


def _echo(text: str) -> dict[str, float]:
    asked, _, written = text.partition("user: echo ")[2].partition("\nassistant: ")
    return replies(asked)(f"assistant: {written}")


def script(context_tokens: int = 1000) -> ScriptedModel:
    said = replies("blue sky", "red rose")
    return ScriptedModel(lambda t: _echo(t) if "user: echo " in t else said(t), context_tokens=context_tokens)


def echoes(number: int, first: int = 0) -> list[Request]:
    sampling = SamplingParams(seed=4, max_tokens=20)
    return [Request(prompt=Prompt.user(f"echo {i:04}"), sampling=sampling) for i in range(first, first + number)]


@pytest.fixture(autouse=True)
def flowing(clock: FakeClock) -> None:
    """Time passes when client and servers wait."""
    clock.flows = True


@asynccontextmanager
async def spread(*servers: FaultServer, **changes: Any) -> AsyncIterator[tuple[LoadBalancedModel, list[str]]]:
    """The servers behind one name."""
    async with AsyncExitStack() as stack:
        bases = [await stack.enter_async_context(s.run()) for s in servers]
        chosen = {"endpoints": [{"api_base": b} for b in bases], "timeout_s": 60.0, **changes}
        settings = Settings(providers={"hosted_vllm": ProviderSettings.model_validate(chosen)})
        model = await load_litellm_model("hosted_vllm/small", settings)
        assert isinstance(model, LoadBalancedModel)
        for server in servers:
            server.answered.clear()
            server.count = server.most_open = 0
        try:
            yield model, bases
        finally:
            await model.aclose()


async def ask(model: LoadBalancedModel, requests: list[Request]) -> list[str]:
    """The replies; each sample is told as finished once, and its text is told once."""
    heard: list[Chunk] = []
    made = await model.generate(requests, heard.append)
    assert all(c.ok for reply in made for c in reply), [c.failure for reply in made for c in reply if not c.ok]
    assert Counter(c.request for c in heard if c.completion) == Counter(range(len(requests)))
    for i, reply in enumerate(made):
        assert "".join(c.text for c in heard if c.request == i) == reply[0].text
    return [reply[0].text for reply in made]


async def test_requests_are_spread_evenly_and_report_their_endpoint():
    servers = [FaultServer(script(), pause_s=0.002) for _ in range(3)]
    async with spread(*servers) as (model, bases):
        made = await model.generate(echoes(60))
        assert [c.text for [c] in made] == [f"{i:04}" for i in range(60)]
        assert [len(s.answered) for s in servers] == pytest.approx([20, 20, 20], abs=2)
        served = Counter(c.extras["endpoint"] for [c] in made)
        assert served == Counter({b: len(s.answered) for b, s in zip(bases, servers, strict=True)})


async def test_dead_endpoint_is_skipped_until_it_recovers(clock):
    one, other = FaultServer(script()), FaultServer(script())
    async with spread(one, other, concurrency=1) as (model, _):
        one.fault = lambda n: "disconnect"
        await ask(model, echoes(40))
        assert 3 <= one.count < 20, "each request would have tried it if it were not left alone"
        one.fault = lambda n: None
        await ask_until(model, clock, lambda: one.answered)
        before = len(one.answered)
        await ask(model, echoes(20))
        assert len(one.answered) > before + 5


async def test_error_of_all_endpoints_down_names_each():
    one, other = FaultServer(script()), FaultServer(script())
    async with spread(one, other, max_retries=1, retry_s=2.0) as (model, bases):
        one.fault, other.fault = (lambda n: "503"), (lambda n: "disconnect")
        with pytest.raises(BackendUnavailable) as caught:
            await model.generate(echoes(1))
        told = str(caught.value)
        assert all(base in told for base in bases)
        assert "status 503" in told
        assert "broke off" in told
        one.fault = other.fault = lambda n: None
        assert await ask(model, echoes(3)) == ["0000", "0001", "0002"]


async def test_all_limiting_is_a_rate_limit():
    servers = [FaultServer(script()), FaultServer(script())]
    async with spread(*servers, retry_s=1.0) as (model, _):
        servers[0].fault, servers[1].fault = (lambda n: "429 30"), (lambda n: "429 20")
        with pytest.raises(RateLimited) as caught:
            await model.generate(echoes(1))
        assert caught.value.retry_after_s == 20


async def test_bad_request_is_not_retried_elsewhere():
    servers = [FaultServer(script(), fault=lambda n: None) for _ in range(3)]
    async with spread(*servers) as (model, _):
        for server in servers:
            server.fault = lambda n: "400"
        with pytest.raises(Exception, match="status 400"):
            await model.generate(echoes(1))
        assert sum(s.count for s in servers) == 1


async def test_revoked_key_moves_requests_to_other_endpoints(monkeypatch):
    monkeypatch.setenv("ONE_KEY", "right")
    one, other = FaultServer(script()), FaultServer(script())
    async with spread(one, other, api_key_env="ONE_KEY") as (model, _):
        one.key = "changed"
        assert await ask(model, echoes(20)) == [f"{i:04}" for i in range(20)]
        other.key = "changed"
        with pytest.raises((UserError, BackendUnavailable)):
            await model.generate(echoes(1))


async def test_a_key_that_all_endpoints_refuse_is_an_error(monkeypatch):
    monkeypatch.setenv("ONE_KEY", "right")
    one, other = FaultServer(script()), FaultServer(script())
    async with spread(one, other, api_key_env="ONE_KEY") as (model, _):
        one.key = other.key = "changed"
        with pytest.raises(BackendMisconfigured, match="ONE_KEY"):
            await model.generate(echoes(1))


async def test_endpoints_of_different_models_are_refused():
    with pytest.raises(UserError, match="context length: .* has 1000, .* has 900"):
        async with spread(FaultServer(script()), FaultServer(script(900))):
            pass
    with pytest.raises(UnknownName, match="serves: large"):
        async with spread(FaultServer(script()), FaultServer(script(), served="large")):
            pass


async def test_capabilities_are_the_intersection():
    async with spread(FaultServer(script()), FaultServer(script(), processors=False)) as (model, _):
        assert model.capabilities.logits_processors == frozenset()
        assert model.capabilities.logprobs
        assert model.identity == "hosted_vllm/small=scripts/small+vllm0.32.0"
    async with spread(FaultServer(script(), logprobs=False), FaultServer(script())) as (model, _):
        assert (model.capabilities.logprobs, model.capabilities.top_logprobs) == (False, 0)


async def test_recovered_endpoint_joins(clock):
    late = FaultServer(script(), fault=lambda n: "503")
    async with spread(late, FaultServer(script())) as (model, _):
        assert await ask(model, echoes(4)) == ["0000", "0001", "0002", "0003"]
        assert late.answered == []
        late.fault = lambda n: None
        await ask_until(model, clock, lambda: any(text.startswith("echo") for text in late.answered))


async def test_joining_endpoint_with_fewer_capabilities_is_excluded(clock):
    late = FaultServer(script(), fault=lambda n: "503", processors=False, logprobs=False)
    async with spread(late, FaultServer(script())) as (model, _):
        late.fault = lambda n: None
        await ask_until(model, clock, lambda: isinstance(model.endpoints.all[0].last_error, UserError))
        assert "logprobs" in str(model.endpoints.all[0].last_error)
        assert not any(text.startswith("echo") for text in late.answered)


async def test_no_endpoint_at_the_start_names_each():
    servers = [FaultServer(script(), fault=lambda n: "503") for _ in range(2)]
    with pytest.raises(BackendUnavailable, match=r"no endpoint answers: http.*503.*; http.*503"):
        async with spread(*servers):
            pass


async def test_scoring_fails_over():
    one, other = FaultServer(script()), FaultServer(script())
    async with spread(one, other) as (model, _):
        one.fault = lambda n: "disconnect"
        for _ in range(6):
            [scored] = await model.score(Prompt.user("echo ab"), ["ab"])
            assert len(scored.logprobs) == 2


async def test_question_affinity():
    async def places(affinity: bool) -> int:
        servers = [FaultServer(script()) for _ in range(3)]
        async with spread(*servers, affinity=affinity) as (model, _):
            seen: dict[str, set[str]] = {}
            for _ in range(3):
                for request in echoes(5):
                    [[made]] = await model.generate([request])
                    seen.setdefault(made.text, set()).add(made.extras["endpoint"])
            return sum(map(len, seen.values()))

    assert await places(True) == 5
    assert await places(False) > 5


async def test_cancelling_closes_all_connections(clock):
    servers = [FaultServer(script()) for _ in range(3)]
    async with spread(*servers) as (model, _):
        for server in servers:
            server.fault = lambda n: "hang"
        task = asyncio.create_task(model.generate(echoes(9)))
        await clock.settle()
        assert sum(s.open for s in servers) == 9
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await clock.settle()
        assert not any(s.open for s in servers)
        assert all(e.limiter.busy == 0 for e in model.endpoints.all)


async def test_invalid_endpoint_lists_are_rejected(monkeypatch):
    base = {"api_base": "http://a/v1"}
    for given, told in (
        ({"endpoints": [base, {"api_base": "http://a/v1/"}]}, "same api_base"),
        ({"endpoints": [base], "api_base": "http://b/v1"}, "not both"),
        ({"endpoints": [{"api_base": "a/v1"}]}, "api_base"),
        ({"endpoints": [{**base, "url": "x"}]}, "url"),
    ):
        monkeypatch.setenv("REASON_PROVIDERS", json.dumps({"hosted_vllm": given}))
        with pytest.raises(UserError, match=told):
            load_settings()


async def test_no_request_is_lost_or_answered_twice_under_faults_at_three_endpoints(monkeypatch):
    monkeypatch.setattr(endpoints, "COOLDOWN_S", 0.01)  # each endpoint comes back while there are requests
    number = 200
    kinds = ["429 0", "429", "500", "503", "truncated", "wrong json", "disconnect", "cut", "error event"]

    def some(seed: int) -> dict[int, str]:
        draw = random.Random(seed)
        return {n: draw.choice(kinds) for n in range(4 * number) if draw.random() < 0.05}

    servers = [FaultServer(script()) for _ in range(3)]
    async with spread(*servers, max_retries=8) as (model, _):
        for seed, server in enumerate(servers):
            server.fault = some(seed).get
        assert await ask(model, echoes(number)) == [f"{i:04}" for i in range(number)]
        answered: Counter[str] = Counter()
        for server in servers:
            answered.update(server.answered)
        assert answered == Counter(f"echo {i:04}" for i in range(number))
        assert sum(s.count for s in servers) > number
        assert min(len(s.answered) for s in servers) > number / 5


async def ask_until(model: LoadBalancedModel, clock: FakeClock, happened: Callable[[], object]) -> None:
    """Make requests, each a second later, until something has happened."""
    while not happened():
        await ask(model, echoes(2))
        await clock.advance(1)


async def test_a_restarted_endpoint_is_used_only_if_it_serves_the_same_model(clock):
    restarts, other = FaultServer(script()), FaultServer(script())
    async with spread(restarts, other) as (model, _):
        restarts.fault, restarts.root = (lambda n: "disconnect"), "scripts/retrained"
        await ask_until(model, clock, lambda: model.endpoints.all[0].is_down)
        restarts.fault = lambda n: None
        first = model.endpoints.all[0]
        await ask_until(model, clock, lambda: isinstance(first.last_error, UserError))
        assert "scripts/small" in str(first.last_error)
        assert "scripts/retrained" in str(first.last_error)
        restarts.answered.clear()
        await ask(model, echoes(20))
        assert not any(text.startswith("echo") for text in restarts.answered)
        restarts.root = "scripts/small"
        await ask_until(model, clock, lambda: any(text.startswith("echo") for text in restarts.answered))


async def test_a_stream_that_breaks_off_goes_on_at_another_endpoint_and_shows_each_text_once():
    text = "one two three four"
    servers = [FaultServer(ScriptedModel(replies(text), context_tokens=1000)) for _ in range(2)]
    async with spread(*servers) as (model, _):
        for server in servers:
            server.requests.clear()
            server.fault = lambda n: "cut 5" if sum(s.count for s in servers) == 1 else None
        heard: list[Chunk] = []

        def client(chunk: Chunk) -> bool:
            heard.append(chunk)
            return bool(chunk.text)

        prompt = Prompt.user("Count.")
        [[made]] = await model.generate(
            [Request(prompt=prompt, sampling=SamplingParams(max_tokens=60, seed=3))], client
        )
        assert (made.text, "".join(c.text for c in heard)) == (text, text)
        assert [s.count for s in servers] == [1, 1]
        assert not any(c.restarts for c in heard)
        [body] = [b for s in servers for path, b in s.requests if path == "/v1/completions"]
        assert "".join(map(chr, body["prompt"])).endswith(f"Count.\nassistant: {text[:5]}")
        assert body["max_tokens"] == 55
        # each generated token is paid once
        assert made.usage.completion_tokens == len(text) + 1
        assert sum(c.lost.completion_tokens for c in heard if c.lost) == 0


async def test_a_request_waits_for_an_endpoint_that_comes_back(clock):
    servers = [FaultServer(script()) for _ in range(2)]
    async with spread(*servers, max_retries=8) as (model, _):
        for server in servers:
            server.fault = lambda n: "disconnect"
        waiting = asyncio.create_task(ask(model, echoes(3)))
        await clock.settle()
        assert all(server.count for server in servers)
        servers[1].fault = lambda n: None
        assert await waiting == ["0000", "0001", "0002"]


async def test_models_of_one_pool_share_endpoint_limits():
    server = FaultServer(script(), pause_s=0.002)
    async with server.run() as base:
        limiters = LimiterRegistry()
        several = Settings(providers={"hosted_vllm": {"endpoints": [{"api_base": base}], "concurrency": 3}})
        single = Settings(providers={"hosted_vllm": {"api_base": base, "concurrency": 3}})
        one = await load_litellm_model("hosted_vllm/small", several, limiters)
        other = await load_litellm_model("hosted_vllm/small", single, limiters)
        server.most_open = 0
        await asyncio.gather(one.generate(echoes(20)), other.generate(echoes(20)))
        assert server.most_open == 3
        await one.aclose()
        await other.aclose()
