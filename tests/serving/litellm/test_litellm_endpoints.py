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
from support.scripted_model import ScriptedModel, echoing, replies


def script(context_tokens: int = 1000) -> ScriptedModel:
    return ScriptedModel(echoing("blue sky", "red rose"), context_tokens=context_tokens)


def echoes(number: int) -> list[Request]:
    sampling = SamplingParams(seed=4, max_tokens=20)
    return [Request(prompt=Prompt.user(f"echo {i:04}"), sampling=sampling) for i in range(number)]


@pytest.fixture(autouse=True)
def flowing(clock: FakeClock) -> None:
    """Time passes when client and servers wait."""
    clock.flows = True


def always(fault: str | None) -> Callable[[int], str | None]:
    """The fault of each request."""
    return lambda number: fault


@asynccontextmanager
async def spread(*options: dict[str, Any], **changes: Any) -> AsyncIterator[tuple[Any, ...]]:
    """A model over servers with these options, and the servers."""
    servers = [FaultServer(**{"model": script(), **of_one}) for of_one in options]
    async with AsyncExitStack() as stack:
        bases = [await stack.enter_async_context(s.run()) for s in servers]
        chosen = {"endpoints": [{"api_base": b} for b in bases], "timeout_s": 60.0, **changes}
        settings = Settings(providers={"hosted_vllm": ProviderSettings.model_validate(chosen)})
        model = await load_litellm_model("hosted_vllm/small", settings)
        assert isinstance(model, LoadBalancedModel)
        assert [e.address for e in model.endpoints.all] == bases
        for server in servers:
            server.answered.clear()
            server.requests.clear()
            server.count = server.most_open = 0
        try:
            yield model, *servers
        finally:
            await model.aclose()


def has_echoed(server: FaultServer) -> bool:
    """Whether it has answered more than checks."""
    return any(text.startswith("echo") for text in server.answered)


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
    async with spread(*[{"pause_s": 0.002}] * 3) as (model, *servers):
        made = await model.generate(echoes(60))
        assert [c.text for [c] in made] == [f"{i:04}" for i in range(60)]
        counts = [len(s.answered) for s in servers]
        assert counts == pytest.approx([20, 20, 20], abs=2)
        addresses = (e.address for e in model.endpoints.all)
        assert Counter(c.extras["endpoint"] for [c] in made) == dict(zip(addresses, counts, strict=True))


async def test_error_of_all_endpoints_down_names_each():
    async with spread({}, {}, max_retries=1, retry_s=2.0) as (model, one, other):
        one.fault, other.fault = always("503"), always("disconnect")
        with pytest.raises(BackendUnavailable) as caught:
            await model.generate(echoes(1))
        for part in (*(e.address for e in model.endpoints.all), "status 503", "broke off"):
            assert part in str(caught.value)
        one.fault = other.fault = always(None)
        assert await ask(model, echoes(3)) == ["0000", "0001", "0002"]


async def test_all_limiting_is_a_rate_limit():
    async with spread({}, {}, retry_s=1.0) as (model, one, other):
        one.fault, other.fault = always("429 30"), always("429 20")
        with pytest.raises(RateLimited) as caught:
            await model.generate(echoes(1))
        assert caught.value.retry_after_s == 20


async def test_bad_request_is_not_retried_elsewhere():
    async with spread({}, {}, {}) as (model, *servers):
        for server in servers:
            server.fault = always("400")
        with pytest.raises(Exception, match="status 400"):
            await model.generate(echoes(1))
        assert sum(s.count for s in servers) == 1


async def test_revoked_key_moves_requests_to_other_endpoints_and_is_an_error_where_all_refuse_it(monkeypatch):
    monkeypatch.setenv("ONE_KEY", "right")
    async with spread({}, {}, api_key_env="ONE_KEY") as (model, one, other):
        one.key = "changed"
        assert await ask(model, echoes(20)) == [f"{i:04}" for i in range(20)]
        other.key = "changed"
        with pytest.raises((UserError, BackendUnavailable)):
            await model.generate(echoes(1))
    async with spread({}, {}, api_key_env="ONE_KEY") as (model, one, other):
        one.key = other.key = "changed"
        with pytest.raises(BackendMisconfigured, match="ONE_KEY"):
            await model.generate(echoes(1))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (({}, {"model": script(900)}), UserError, "context length: .* has 1000, .* has 900"),
        (({}, {"served": "large"}), UnknownName, "serves: large"),
        (({"fault": always("503")},) * 2, BackendUnavailable, r"no endpoint answers: http.*503.*; http.*503"),
    ],
    ids=["of another length", "of another model", "down"],
)
async def test_endpoints_that_do_not_fit_or_answer_are_named_at_the_start(options, error, says):
    with pytest.raises(error, match=says):
        async with spread(*options):
            pass


async def test_capabilities_are_the_intersection():
    async with spread({}, {"processors": False}) as (model, *_):
        assert model.capabilities.logits_processors == frozenset()
        assert model.capabilities.logprobs
        assert model.identity == "hosted_vllm/small=scripts/small+vllm0.32.0"
    async with spread({"logprobs": False}, {}) as (model, *_):
        assert (model.capabilities.logprobs, model.capabilities.top_logprobs) == (False, 0)


async def test_an_endpoint_that_was_down_at_the_start_joins_if_it_has_the_capabilities(clock):
    async with spread({"fault": always("503")}, {}) as (model, late, _):
        assert await ask(model, echoes(4)) == ["0000", "0001", "0002", "0003"]
        assert late.answered == []
        late.fault = always(None)
        await ask_until(model, clock, lambda: has_echoed(late))
    async with spread({"fault": always("503"), "processors": False, "logprobs": False}, {}) as (model, late, _):
        late.fault = always(None)
        await ask_until(model, clock, lambda: isinstance(model.endpoints.all[0].last_error, UserError))
        assert "logprobs" in str(model.endpoints.all[0].last_error)
        assert not has_echoed(late)


async def test_scoring_fails_over():
    async with spread({}, {}) as (model, one, _):
        one.fault = always("disconnect")
        for _ in range(6):
            [scored] = await model.score(Prompt.user("echo ab"), ["ab"])
            assert len(scored.logprobs) == 2


@pytest.mark.parametrize("affinity", [True, False])
async def test_question_affinity(affinity):
    async with spread({}, {}, {}, affinity=affinity) as (model, *_):
        seen = set()
        for request in echoes(5) * 3:
            [[made]] = await model.generate([request])
            seen.add((made.text, made.extras["endpoint"]))
        assert len(seen) == 5 if affinity else len(seen) > 5


async def test_cancelling_closes_all_connections(clock):
    async with spread({}, {}, {}) as (model, *servers):
        for server in servers:
            server.fault = always("hang")
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
    async with spread({}, {}, {}, max_retries=8) as (model, *servers):
        for seed, server in enumerate(servers):
            draw = random.Random(seed)
            server.fault = {n: draw.choice(kinds) for n in range(4 * number) if draw.random() < 0.05}.get
        assert await ask(model, echoes(number)) == [f"{i:04}" for i in range(number)]
        answered = Counter(text for server in servers for text in server.answered)
        assert answered == Counter(f"echo {i:04}" for i in range(number))
        assert sum(s.count for s in servers) > number
        assert min(len(s.answered) for s in servers) > number / 5


async def ask_until(model: LoadBalancedModel, clock: FakeClock, happened: Callable[[], object]) -> None:
    """Make requests, each a second later, until something has happened."""
    while not happened():
        await ask(model, echoes(2))
        await clock.advance(1)


async def test_a_restarted_endpoint_is_used_only_if_it_serves_the_same_model(clock):
    async with spread({}, {}) as (model, restarts, _):
        first = model.endpoints.all[0]
        restarts.fault, restarts.root = always("disconnect"), "scripts/retrained"
        await ask_until(model, clock, lambda: first.is_down)
        restarts.fault = always(None)
        await ask_until(model, clock, lambda: isinstance(first.last_error, UserError))
        assert "scripts/small" in str(first.last_error)
        assert "scripts/retrained" in str(first.last_error)
        restarts.answered.clear()
        await ask(model, echoes(20))
        assert not has_echoed(restarts)
        restarts.root = "scripts/small"
        await ask_until(model, clock, lambda: has_echoed(restarts))


async def test_a_stream_that_breaks_off_goes_on_at_another_endpoint_and_shows_each_text_once():
    text = "one two three four"
    one = {"model": ScriptedModel(replies(text), context_tokens=1000)}
    async with spread(one, one) as (model, *servers):
        for server, endpoint in zip(servers, model.endpoints.all, strict=True):
            server.fault = lambda n: "cut 5" if sum(s.count for s in servers) == 1 else None
            endpoint.model.probe_usage = None  # what measuring cost is charged, too
        heard = []

        def client(chunk: Chunk) -> bool:
            heard.append(chunk)
            return bool(chunk.text)

        request = Request(prompt=Prompt.user("Count."), sampling=SamplingParams(max_tokens=60, seed=3))
        [[made]] = await model.generate([request], client)
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
    async with spread({}, {}, max_retries=8) as (model, one, other):
        one.fault = other.fault = always("disconnect")
        waiting = asyncio.create_task(ask(model, echoes(3)))
        await clock.settle()
        assert one.count
        assert other.count
        other.fault = always(None)
        assert await waiting == ["0000", "0001", "0002"]


async def test_models_of_one_pool_share_endpoint_limits():
    server = FaultServer(script(), pause_s=0.002)
    async with server.run() as base:
        limiters = LimiterRegistry()
        models = [
            await load_litellm_model(
                "hosted_vllm/small", Settings(providers={"hosted_vllm": {**address, "concurrency": 3}}), limiters
            )
            for address in ({"endpoints": [{"api_base": base}]}, {"api_base": base})
        ]
        server.most_open = 0
        await asyncio.gather(*(model.generate(echoes(20)) for model in models))
        assert server.most_open == 3
        for model in models:
            await model.aclose()
