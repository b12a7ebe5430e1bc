"""Responses that break off after some tokens: continued exactly, generated again, or failed; and what they cost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from reason.core.errors import BackendUnavailable, InvalidResponse
from reason.core.messages import Chunk, Completion, Prompt, Request, SamplingParams, Usage

TEXT = "one two three four five"
PROMPT = Prompt.user("Count.")


def ask(**sampling) -> Request:
    return Request(prompt=PROMPT, sampling=SamplingParams(**{"seed": 4, "max_tokens": 60, **sampling}))


class Reader:
    """A listener that keeps what is still valid of a sample, and says whether a client sees it."""

    def __init__(self, *, is_client: bool) -> None:
        self.is_client = is_client
        self.text, self.lost, self.restarts = "", Usage(), 0

    def __call__(self, chunk: Chunk) -> bool:
        if chunk.restarts:
            self.text, self.restarts = "", self.restarts + 1
        self.text += chunk.text
        self.lost += chunk.lost or Usage()
        return self.is_client


async def made_by(model, listener: Reader | None = None, **sampling) -> Completion:
    [[completion]] = await model.generate([ask(**sampling)], listener)
    return completion


def first(*faults: str) -> Callable[[int], str | None]:
    """These faults for the first requests, and none for those after them."""
    return lambda n: faults[n] if n < len(faults) else None


@pytest.mark.parametrize("is_client", [True, False])
async def test_a_response_that_breaks_off_is_continued_after_the_tokens_received(opened, is_client):
    async with opened(TEXT, fault=first("cut 5", "cut 4")) as (server, model):
        reader = Reader(is_client=is_client)
        made = await made_by(model, reader, logprobs=True)
        assert (made.text, made.finish_reason, reader.restarts) == (TEXT, "stop", 0)
        assert reader.text == TEXT
        assert len(made.token_ids) == len(made.logprobs) == len(TEXT) + 1  # with the end of text
        paths = [path for path, _ in server.requests if path.endswith("completions")]
        assert paths == ["/v1/chat/completions", "/v1/completions", "/v1/completions"]
        sent = [body for path, body in server.requests if path == "/v1/completions"]
        prompt = server.model.render(PROMPT)
        assert ["".join(map(chr, body["prompt"])) for body in sent] == [prompt + TEXT[:5], prompt + TEXT[:9]]
        assert [body["max_tokens"] for body in sent] == [55, 51]
        assert len({body["seed"] for _, body in server.requests if "seed" in body}) == 3
        # the sample is paid once; its prompt is read three times
        assert made.usage.completion_tokens == len(TEXT) + 1
        assert made.usage.prompt_tokens == len(prompt)
        assert reader.lost.completion_tokens == 0
        assert reader.lost.prompt_tokens > 0


async def test_a_stop_string_that_had_begun_ends_the_continued_sample(opened):
    # the stop string's beginning was received as tokens, whose text the server holds back
    async with opened(TEXT, fault=first("cut 10")) as (server, model):
        reader = Reader(is_client=True)
        made = await made_by(model, reader, stop=("three",))
        assert (made.text, made.finish_reason, made.stop_reason) == ("one two ", "stop", "three")
        assert reader.text == made.text
        assert "stop" not in server.requests[-1][1]


@pytest.mark.parametrize("limit", [8, 5])
async def test_a_continued_sample_keeps_to_its_maximum_of_tokens(opened, limit):
    async with opened(TEXT, fault=first("cut 5")) as (_, model):
        made = await made_by(model, max_tokens=limit)
        assert (made.text, made.finish_reason) == (TEXT[:limit], "length")


async def test_only_text_that_no_client_has_seen_is_generated_again_and_paid_for(opened):
    async with opened(TEXT, provider="openai", fault=first("cut 5")) as (server, model):
        reader = Reader(is_client=True)
        with pytest.raises(BackendUnavailable, match="broke off"):
            await model.generate([ask()], reader)
        assert (server.count, reader.text, reader.restarts) == (1, TEXT[:5], 0)
    async with opened(TEXT, provider="openai", fault=first("cut 5")) as (server, model):
        reader = Reader(is_client=False)
        made = await made_by(model, reader)
        assert (made.text, reader.text, reader.restarts, server.count) == (TEXT, TEXT, 1, 2)
        assert (made.usage.completion_tokens, reader.lost.completion_tokens) == (len(TEXT) + 1, 5)
        assert reader.lost.prompt_tokens > 0


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
async def test_responses_that_always_break_off_are_not_requested_for_long(opened, provider):
    async with opened(TEXT, provider=provider, fault=lambda n: "cut 2") as (server, model):
        heard = []
        with pytest.raises(BackendUnavailable):
            await model.generate([ask()], heard.append)
        assert server.count == 3
        [failed] = [chunk.completion for chunk in heard if chunk.completion]
        lost = sum((chunk.lost for chunk in heard if chunk.lost), failed.usage)
        assert lost.completion_tokens == 6


async def test_what_fails_before_its_first_token_is_retried_for_a_client_too(opened):
    async with opened(TEXT, provider="openai", fault=first("disconnect", "503")) as (server, model):
        reader = Reader(is_client=True)
        made = await made_by(model, reader)
        assert (made.text, reader.text, server.count, reader.lost) == (TEXT, TEXT, 3, Usage())


async def test_siblings_of_a_sample_that_fails_are_kept(opened):
    async with opened("", TEXT, provider="openai", fault={1: "cut 6"}.get) as (server, model):
        [whole] = await model.generate([ask(n=6)])
        assert {c.text for c in whole} == {"", TEXT}
        # it is cut after the first piece of each
        [made] = await model.generate([ask(n=6)], Reader(is_client=True))
        assert [c.ok for c in made] == [c.text == "" for c in whole]
        assert server.count == 2


async def test_samples_of_a_broken_response_are_continued_at_the_same_time_and_unbegun_ones_together(opened):
    async with opened(TEXT, fault=first("cut 9"), pause_s=0.002) as (server, model):
        [made] = await model.generate([ask(n=4)])
        assert [c.text for c in made] == [TEXT] * 4
        assert (server.count, server.most_open) == (5, 4)
        server.requests.clear()
        server.fault = {5: "cut 1"}.get
        [made] = await model.generate([ask(n=4)])
        assert [c.text for c in made] == [TEXT] * 4
        assert [body.get("n", 1) for _, body in server.requests if "seed" in body] == [4, 1, 3]


async def test_a_sample_under_a_grammar_is_not_continued(opened):
    async with opened(TEXT, schemas=True, fault=first("cut 3")) as (_, model):
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
        reader = Reader(is_client=False)
        made = await made_by(model, reader, json_schema=schema)
        assert (made.text, reader.text, reader.restarts) == ('{"a": 3}', '{"a": 3}', 1)


async def test_a_server_that_tokenizes_otherwise_is_not_trusted_to_continue(opened):
    async with opened(TEXT, fault={0: "cut 5", 2: "cut 5"}.get) as (server, model):
        server._detokenize = lambda body: {"prompt": "another text"}
        reader = Reader(is_client=False)
        made = await made_by(model, reader)
        assert (made.text, reader.text, reader.restarts) == (TEXT, TEXT, 1)
        with pytest.raises(InvalidResponse, match="does not detokenize"):
            await model.generate([ask()], Reader(is_client=True))
