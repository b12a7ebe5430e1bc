"""What a vLLM server offers beyond OpenAI's interface, each feature first without our backend, then through it."""

from __future__ import annotations

from typing import Any

import pytest
from reason.core.errors import BackendError
from reason.core.messages import Prompt, Request, SamplingParams
from reason.serving.litellm.factory import load_litellm_model
from reason.serving.servers.pages import detokenize, version
from support.vllm_server import SERVED, RealServer
from support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real, pytest.mark.slow]
QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]
ASK = Prompt.user(QUESTION)


def request(prompt: Prompt = ASK, **sampling: Any) -> Request:
    return Request(prompt=prompt, sampling=SamplingParams(**{"temperature": 0.0, "max_tokens": 8} | sampling))


def chat(server: RealServer, **body: Any) -> dict[str, Any]:
    requested = {"model": SERVED, "messages": MESSAGES, "temperature": 0, "max_tokens": 8, **body}
    response = server.post("/v1/chat/completions", requested)
    assert response.status_code == 200, response.text
    return dict(response.json())


def complete(server: RealServer, **body: Any) -> dict[str, Any]:
    response = server.post("/v1/completions", {"model": SERVED, "temperature": 0, "max_tokens": 8, **body})
    assert response.status_code == 200, response.text
    return dict(response.json())


def text(response: dict[str, Any]) -> str:
    return str(response["choices"][0]["message"]["content"])


def cached(response: dict[str, Any]) -> int:
    return int(response["usage"]["prompt_tokens_details"]["cached_tokens"])


async def test_samples_of_one_request_are_those_of_the_seeds_that_follow(server, hosted):
    many = chat(server, n=3, seed=5, temperature=1)
    single = [chat(server, seed=5 + i, temperature=1) for i in range(3)]
    assert [c["message"]["content"] for c in many["choices"]] == [text(r) for r in single]
    [made] = await hosted.generate([request(n=3, seed=5, temperature=1)])
    [third] = await hosted.generate([request(n=3, seed=5, temperature=1).model_copy(update={"sample_indices": (2,)})])
    assert third[0].text == made[2].text


async def test_a_response_prefix_is_continued_only_if_requested(server, hosted):
    begun = [*MESSAGES, {"role": "assistant", "content": "The capital of"}]
    more = {"continue_final_message": True, "add_generation_prompt": False}
    right, wrong = chat(server, messages=begun, **more), chat(server, messages=begun)
    assert wrong["usage"]["prompt_tokens"] > right["usage"]["prompt_tokens"]  # a finished turn, and a new one started
    [[made]] = await hosted.generate([request(ASK.with_prefix("The capital of"))])
    assert made.text == text(right)
    assert made.usage.prompt_tokens == right["usage"]["prompt_tokens"]


async def test_token_ids_are_those_of_the_text(server, hosted):
    response = chat(server, return_token_ids=True)
    [[made]] = await hosted.generate([request(top_logprobs=2)])
    assert made.token_ids == tuple(response["choices"][0]["token_ids"])
    assert response["prompt_token_ids"] == await hosted.ids_of(ASK)
    written = made.token_ids[:-1] if made.finish_reason == "stop" else made.token_ids  # the last one ends the text
    assert await detokenize(hosted.wire.client, SERVED, written) == made.text
    assert [row[0].token_id for row in made.top_logprobs] == list(made.token_ids)
    named = chat(server, logprobs=True, top_logprobs=1, return_tokens_as_token_ids=True)["choices"][0]["logprobs"]
    assert [e["token"] for e in named["content"]] == [f"token_id:{i}" for i in made.token_ids]


async def test_scores_agree_by_every_way_and_never_use_the_cache(server, hosted):
    ids = await hosted.ids_of(ASK.with_prefix("The capital of France is Paris and nothing else in the world, I say."))
    for more in ({}, {"skip_reading_prefix_cache": False, "detokenize": False}):  # fields that are ignored
        response = complete(server, prompt=ids, prompt_logprobs=0, max_tokens=1, **more)
        assert cached(response) == 0
    rows = response["choices"][0]["prompt_logprobs"]
    shown = [rows[i][str(t)]["logprob"] for i, t in enumerate(ids) if i]
    echoed = complete(server, prompt=ids, echo=True, max_tokens=1, logprobs=0)["choices"][0]["logprobs"]
    assert echoed["token_logprobs"][1 : len(ids)] == pytest.approx(shown, abs=1e-3)
    [scored] = await hosted.score(ASK, [tuple(ids[len(await hosted.ids_of(ASK)) :])])
    assert scored.logprobs == pytest.approx(shown[-len(scored.logprobs) :], abs=1e-3)


async def test_tokenizing_agrees_with_what_is_charged(server, hosted):
    reported = server.post("/tokenize", {"model": SERVED, "messages": MESSAGES}).json()
    assert reported["tokens"] == await hosted.ids_of(ASK)
    assert reported["count"] == chat(server)["usage"]["prompt_tokens"]
    back = server.post("/detokenize", {"model": SERVED, "tokens": reported["tokens"]}).json()["prompt"]
    assert QUESTION in back
    assert await version(hosted.wire.client) in hosted.identity


async def test_cached_tokens_are_the_servers_own_count(server, hosted):
    long = Prompt.user("Remember these numbers: " + ", ".join(map(str, range(60))) + ". What is the first?")
    before = server.gauge("prefix_cache_hits_total")
    made = [(await hosted.generate([request(long, max_tokens=2)]))[0][0] for _ in range(3)]
    assert made[0].usage.cached_tokens < made[0].usage.prompt_tokens // 2
    assert made[1].usage.cached_tokens >= made[1].usage.prompt_tokens - 32
    reported = sum(c.usage.cached_tokens for c in made)
    await wait_until(lambda: server.gauge("prefix_cache_hits_total") - before == reported)


async def test_another_salt_shares_no_cache_and_gives_the_same_text(settings_for, hosted):
    long = Prompt.user("Keep this in mind: " + " ".join(f"item {i}" for i in range(60)) + ". Say one.")
    salted = await load_litellm_model(hosted.name, settings_for(cache_salt="tenant"))
    try:
        [[first]] = await hosted.generate([request(long)])
        [[warm]] = await hosted.generate([request(long)])
        [[cold]] = await salted.generate([request(long)])
        [[again]] = await salted.generate([request(long)])
        assert warm.usage.cached_tokens > 0
        assert cold.usage.cached_tokens == 0
        assert again.usage.cached_tokens == warm.usage.cached_tokens
        assert first.text == warm.text == cold.text == again.text
        assert salted.identity == hosted.identity  # the run store has a response under either salt
    finally:
        await salted.aclose()


async def test_litellm_refuses_prompts_of_tokens_for_this_provider(server, hosted):
    import litellm

    # why such prompts do not go through LiteLLM; when this passes, they can
    with pytest.raises(Exception):  # noqa: B017, PT011
        await litellm.atext_completion(
            model=hosted.name, prompt=[1, 2, 3], max_tokens=1, api_base=server.base, api_key=server.key
        )


async def test_what_the_server_refuses_is_no_success(hosted, settings_for):
    with pytest.raises(BackendError, match="vocabulary"):
        await hosted.generate([request(ASK.with_prefix((10_000_000,)))])


async def test_the_server_takes_the_priorities_of_a_run(hosted):
    assert hosted.traits.priorities
    asked = request(Prompt.user("Count to three."))
    [[plain]] = await hosted.generate([asked])
    [[urgent]] = await hosted.generate([asked.model_copy(update={"priority": 31})])
    assert urgent.ok
    assert urgent.text == plain.text
