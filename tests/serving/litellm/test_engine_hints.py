"""What a vLLM server and a router in front of it are told of a run's requests."""

from reason.core.messages import Prompt, Request, SamplingParams
from reason.serving.litellm.prompt_cache import prompt_start_key
from reason.serving.metered.model import MAX_PRIORITY
from support.stored_runs import RunHarness

PROMPT = Prompt.user("colour?")


def request(**changes):
    return Request(prompt=PROMPT, sampling=SamplingParams(max_tokens=20, seed=3), **changes)


async def test_requests_of_a_run_get_more_urgent_with_each_call_and_the_last_is_first(opened, store):
    async with opened() as (server, model):
        runs = RunHarness(store, model)
        metered = await runs.begin()
        run = runs.run
        for text in "abc":
            await metered.generate([Request(prompt=Prompt.user(text)), Request(prompt=Prompt.user(text + text))])
        await runs.generate(request(), name="other")
        await metered.concluding.generate([request()])
        run.finished_calls = 10_000
        await metered.generate([Request(prompt=Prompt.user("last"))])  # not before other clients of the server
        sent = [body.get("priority") for path, body in server.requests if path.endswith("completions")]
        assert sent == [MAX_PRIORITY] * 2 + [MAX_PRIORITY - 1] * 2 + [MAX_PRIORITY - 2] * 2 + [MAX_PRIORITY, None, 1]


async def test_other_servers_get_neither_priority_nor_session(opened):
    async with opened(provider="openai") as (server, model):
        server.headers.clear()
        await model.generate([request(priority=5)])
        assert "priority" not in server.requests[-1][1]
        assert "x-session-id" not in server.headers[0]


async def test_a_server_that_refuses_priorities_gets_none(opened):
    async with opened(priorities=False) as (server, model):
        assert not model.traits.priorities
        [[completion]] = await model.generate([request(priority=5)])
        assert completion.ok
        assert all("priority" not in body for _, body in server.requests)


async def test_requests_that_begin_alike_have_the_same_session_header(opened):
    async with opened() as (server, model):
        grown = Request(prompt=PROMPT.with_prefix(" Because"), sampling=SamplingParams(max_tokens=5))
        other = Request(prompt=Prompt.user("size?"))
        salted = Request(prompt=PROMPT.with_cache_salt("tenant"))
        server.headers.clear()
        for one in (request(), grown, other, salted):
            await model.generate([one])
        first, second, third, fourth = (headers["x-session-id"] for headers in server.headers)
        assert first == second == prompt_start_key(PROMPT)[:32]
        assert len({first, third, fourth}) == 3
