"""What providers' prompt caches are told, and what cached tokens cost."""

import asyncio
from contextlib import asynccontextmanager
from itertools import count

import pytest
from reason.core.messages import Message, Prompt, Request, SamplingParams
from reason.core.settings import Settings
from reason.serving.litellm.prompt_cache import prefix_marks, prompt_start_key
from reason.serving.litellm.providers import find_target, map_entry
from reason.serving.litellm.requests import RequestTraits, chat_body
from reason.serving.model import Capabilities
from reason.serving.profiles.profile import ModelProfile
from support.litellm_models import served
from support.waiting import wait_until
from support.wires.kinds import KINDS
from support.wires.messages import blocks_of
from support.wires.server import WireServer

pytestmark = pytest.mark.usefixtures("keys")
NAME = "anthropic/claude-sonnet-4-5"
LONG = "Keep the following rules in mind. " + "A rule is a rule. " * 300
"""More than 1024 tokens."""


def chat(text):
    return Prompt.user(text, system=LONG)


def request(prompt, n=1):
    return Request(prompt=prompt, sampling=SamplingParams(n=n, max_tokens=80, seed=5))


def marked(server):
    """Number of marked blocks of each request."""
    return [sum(is_marked for _, is_marked in blocks_of(body)) for _, body in server.requests]


@asynccontextmanager
async def opened():
    server = WireServer(next(kind for kind in KINDS if kind.model == NAME))
    async with served(server, NAME) as model:
        yield server, model


async def test_samples_of_a_prompt_read_what_the_first_of_them_has_written():
    async with opened() as (server, model):
        [made] = await model.generate([request(chat("colour?"), n=4)])
        assert all(c.text.endswith("The answer is 12.") for c in made)
        assert marked(server) == [2, 2, 2, 2]
        size = made[0].usage.cache_write_tokens
        assert size > 1024
        read = [(c.usage.cache_write_tokens, c.usage.cached_tokens) for c in made]
        assert read == [(size, 0), *[(0, size)] * 3]


async def test_the_first_request_is_alone_until_its_response_begins():
    async with opened() as (server, model):
        server.hold.clear()
        work = asyncio.ensure_future(model.generate([request(chat("colour?"), n=4)]))
        await wait_until(lambda: server.open == 4)  # the others begin while the first is not finished
        server.hold.set()
        await work
        assert all("cache_control" in str(body) for _, body in server.requests)


async def test_calls_share_a_long_system_prompt():
    async with opened() as (server, model):
        usages = []
        for text in ("colour?", "size?", "weight?"):
            [[completion]] = await model.generate([request(chat(text))])
            usages.append((completion.usage.cache_write_tokens > 0, completion.usage.cached_tokens > 0))
        assert marked(server) == [1, 1, 1]
        assert usages == [(True, False), (False, True), (False, True)]


async def test_a_failed_first_request_does_not_hold_up_the_others(monkeypatch):
    async with opened() as (_, model):
        attempt, attempts = type(model).attempt, count()

        async def failing(*args):
            if next(attempts) == 0:
                raise asyncio.CancelledError
            return await attempt(*args)

        monkeypatch.setattr(type(model), "attempt", failing)
        asking = asyncio.ensure_future(model.generate([request(chat("colour?"), n=3)]))
        await asyncio.wait([asking])
        assert asking.cancelled()


async def test_reading_and_writing_have_prices_of_their_own(load):
    known, model = map_entry("anthropic", "claude-sonnet-4-5"), await load(NAME)
    assert model.prices.written == known["cache_creation_input_token_cost"] > known["input_cost_per_token"]
    expected = 100 * known["input_cost_per_token"] + 600 * known["cache_read_input_token_cost"]
    expected += 300 * known["cache_creation_input_token_cost"] + 10 * known["output_cost_per_token"]
    assert model.prices.cost(1000, 600, 10, 300) == pytest.approx(expected)
    # a dollar budget reserves the highest price that a prompt's tokens may have
    assert model.capabilities.usd_per_prompt_token == known["cache_creation_input_token_cost"]
    assert model.capabilities.profile.min_cached_tokens == known["prompt_cache_min_tokens"]


def test_a_continued_conversation_is_marked_at_its_end():
    turns = (Message(role="user", content="word " * 40), Message(role="assistant", content="yes"))
    new, grown = Prompt(messages=turns[:1]), Prompt(messages=(*turns, Message(role="user", content="why?")))
    cases = [(new, 1, 8), (new, 2, 8), (grown, 1, 8), (grown, 1, 100)]
    assert [prefix_marks(prompt, n, min_tokens=least) for prompt, n, least in cases] == [(), (1,), (3,), ()]


def test_of_several_system_messages_the_last_is_marked():
    rules = tuple(Message(role="system", content=f"{i} " * 40) for i in range(6))
    prompt = Prompt(messages=(*rules, Message(role="user", content="why?")))
    assert prefix_marks(prompt, 2, min_tokens=8) == (6, 7)


def test_openai_gets_a_key_that_prompts_with_the_same_beginning_share():
    def key(prompt, **server):
        target = find_target("openai/gpt-4o-mini", Settings(providers={"openai": server}))
        can = Capabilities(profile=ModelProfile(prompt_cache="key"))
        return chat_body(request(prompt), [0], target, can, RequestTraits()).get("prompt_cache_key")

    prompt = chat("colour?")
    grown = Prompt(messages=(*prompt.messages, Message(role="assistant", content="?"), *prompt.messages[1:]))
    assert key(prompt) == key(grown) == prompt_start_key(prompt)[:32]
    others = (Prompt.user("size?", system="short"), prompt.with_cache_salt("tenant"))
    assert len({key(prompt), *map(key, others)}) == 3
    assert key(prompt, api_base="http://127.0.0.1:9/v1") is None
