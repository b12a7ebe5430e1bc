"""What a vLLM server is asked beyond OpenAI's interface."""

from __future__ import annotations

import json
import math

import pytest
from reason.core.messages import HookCall, Prompt, Request, Sampling
from reason.serving.litellm.vllm_server import pool, score_pairs, tokenize_messages
from reason.serving.vllm.chain import Order

PROMPT = Prompt.user("colour?")


def ask(prompt: Prompt = PROMPT, **sampling) -> Request:
    return Request(prompt=prompt, sampling=Sampling(seed=4, max_tokens=20, **sampling))


def bodies(server, path: str) -> list[dict]:
    return [body for asked, body in server.requests if asked == path]


async def test_a_text_prefix_is_continued_in_chat(opened):
    async with opened("blue sky", "blue rose") as (server, model):
        [[made]] = await model.generate([ask(PROMPT.with_prefix("blue s"))])
        assert made.text == "ky"
        [body] = bodies(server, "/v1/chat/completions")
        assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
        assert body["messages"][-1] == {"role": "assistant", "content": "blue s"}


@pytest.mark.parametrize("prefix", ["blue ", tuple(map(ord, "blue "))])
async def test_a_prefix_that_templates_would_strip_is_sent_as_tokens(opened, prefix):
    async with opened("blue sky") as (server, model):
        [[made]] = await model.generate([ask(PROMPT.with_prefix(prefix))])
        assert made.text == "sky"
        [body] = bodies(server, "/v1/completions")
        assert "".join(map(chr, body["prompt"])) == "user: colour?\nassistant: blue "


async def test_raw_text_is_sent_as_tokens(opened):
    async with opened("blue sky") as (_, model):
        [[made]] = await model.generate([ask(Prompt(text="assistant: blue"))])
        assert made.text == " sky"


async def test_samples_share_one_request_and_are_those_of_their_index(opened):
    async with opened() as (server, model):
        [whole] = await model.generate([ask(n=6)])
        assert len(bodies(server, "/v1/chat/completions")) == 1
        [some] = await model.generate([ask(n=6).model_copy(update={"samples": (4, 1, 2)})])
        assert [c.text for c in some] == [whole[i].text for i in (4, 1, 2)]
        assert [c.sample_index for c in some] == [4, 1, 2]


async def test_vllms_own_fields(opened):
    async with opened() as (server, model):
        hook = HookCall(name="only_tokens", args={"ids": [ord("z")]})
        [[made]] = await model.generate([ask(top_k=7, temperature=0.0, hooks=(hook,))])
        assert made.text == "z" * 20
        [body] = bodies(server, "/v1/chat/completions")
        assert body["temperature"] == 0.0
        assert (body["top_k"], body["ignore_eos"], body["return_token_ids"]) == (7, False, True)
        order = json.loads(body["vllm_xargs"]["reason"])
        assert order == {"hooks": [{"name": "only_tokens", "args": {"ids": [ord("z")]}}]}
        assert Order.read(body["vllm_xargs"]).hooks == (hook,)  # what our plug-in reads on the server


async def test_a_server_without_our_hooks_has_none(opened):
    async with opened(hooks=False) as (_, model):
        assert model.capabilities.hooks == frozenset()


async def test_a_server_that_hides_logprobs_has_none(opened):
    async with opened(provider="openai", logprobs=False) as (server, model):
        assert (model.capabilities.logprobs, model.capabilities.top_logprobs) == (False, 0)
        [[made]] = await model.generate([ask()])
        assert made.logprobs is None
        assert "logprobs" not in bodies(server, "/v1/chat/completions")[-1]


async def test_alternatives_have_ids_and_texts(opened):
    async with opened("ab", "cd") as (_, model):
        [token] = await model.next_token([PROMPT])
        assert dict(zip(token.tokens, token.token_ids, strict=True)) == {"a": 97, "c": 99}
        assert token.logprobs == pytest.approx([math.log(0.5)] * 2)
        assert token.entropy == pytest.approx(math.log(2))
        assert token.support == "top_k"


async def test_scores_of_many_continuations(opened):
    async with opened("ab", "ac", "bb") as (_, model):
        one, other, nothing = await model.score(PROMPT, ["ab", (ord("b"), ord("b")), ""])
        assert one.logprobs == pytest.approx([math.log(2 / 3), math.log(1 / 2)])
        assert other.logprobs == pytest.approx([math.log(1 / 3), 0.0])
        assert (other.greedy, nothing.logprobs, nothing.greedy) == (False, (), True)
        assert one.usage.prompt_tokens == len("user: colour?\nassistant: ab")
        assert one.usage.cost_usd is None


async def test_pooling_and_scoring_pages(opened):
    async with opened() as (_, model):
        client = model.wire.client
        assert await score_pairs(client, "small", "query", ["a", "bcd"]) == [0.1, pytest.approx(0.3)]
        assert await pool(client, "small", ["a", "bcd"]) == [[1.0], [3.0]]
        ids = await tokenize_messages(client, "small", [{"role": "user", "content": "x"}])
        assert "".join(map(chr, ids)) == "user: x\nassistant: "
