"""Models that think, behind servers of each kind: the requests, and how their responses are read and counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from reason.agents.reasoner import Reasoner
from reason.core.messages import Chunk, Completion, Message, Prompt, Request, SamplingParams, Thought
from reason.core.settings import Settings
from reason.core.types import Question
from reason.serving.litellm.errors import RetryPolicy
from reason.serving.litellm.model import LiteLLMModel
from reason.serving.litellm.providers import Prices, find_target
from reason.serving.litellm.requests import messages_of
from reason.serving.litellm.responses import (
    Piece,
    ReadingRules,
    SampleCollector,
    StreamedSample,
    split_usage,
    to_completion,
)
from reason.serving.profiles.profile import ModelProfile
from support.litellm_models import served
from support.waiting import wait_until
from support.wires.kinds import KINDS, OTHER_KINDS, Kind
from support.wires.script import DECOY, QUESTION, RIGHT, text_of
from support.wires.server import WireServer
from support.wires.stream import SHAPES, Shape

ASK = Prompt.user(QUESTION)
BY_NAME = {kind.name: kind for kind in (*KINDS, *OTHER_KINDS)}
ALIKE = {"gpt-5.6", "DeepSeek V4", "Claude 5"}
"""Kinds whose responses have the form of another's."""
LIMITED = {"Claude 4.5", "Gemini 2.5"}
"""Kinds that limit thoughts themselves."""
READ = [kind for kind in (*KINDS, BY_NAME["Gemini 2.5"]) if kind.name not in ALIKE]
VLLM = [kind for kind in READ if kind.vllm and kind.shows != "never"]
THINKING = [kind for kind in READ if kind.shows != "never"]


pytestmark = pytest.mark.usefixtures("keys")


def each(kinds: list[Kind]) -> pytest.MarkDecorator:
    """The test for each of these kinds."""
    return pytest.mark.parametrize("kind", kinds, ids=[kind.name.replace(" ", "-") for kind in kinds])


@asynccontextmanager
async def opened(kind: Kind, **profile: Any) -> AsyncIterator[tuple[WireServer, LiteLLMModel]]:
    server = WireServer(kind)
    profiles = {kind.model: profile} if profile else {}
    async with served(server, kind.model, profiles=profiles, max_retries=0) as model:
        server.reset()
        yield server, model


async def one(
    model: LiteLLMModel, prompt: Prompt = ASK, chunks: list[Chunk] | None = None, **sampling: Any
) -> Completion:
    request = Request(prompt=prompt, sampling=SamplingParams(seed=1, **{"max_tokens": 80, **sampling}))
    [[completion]] = await model.generate([request], None if chunks is None else chunks.append)
    assert completion.ok, completion.failure
    return completion


def thinks_in(kind: Kind) -> dict[str, Any]:
    """Sampling under which a model of the kind thinks."""
    return {"effort": "low"} if kind.name == "Claude 4.5" else {}


@each(READ)
async def test_text_is_the_answer_alone_and_tokens_are_the_servers_own(kind):
    async with opened(kind) as (server, model):
        chunks = []
        made = await one(model, chunks=chunks, default_temperature=0.7, **thinks_in(kind))
        assert not server.refusals
        assert made.text.endswith("The answer is 12.")
        assert DECOY not in made.text
        assert made.usage.completion_tokens == server.tokens
        assert abs(made.usage.thinking_tokens - server.thinking_tokens) <= 2
        assert "".join(chunk.text for chunk in chunks) == made.text
        thought = "" if made.thought is None else made.thought.text
        assert "".join(chunk.thought for chunk in chunks) == thought
        assert (DECOY in thought) == (kind.shows not in ("never", "hidden") and not kind.omits)
        if made.token_ids:
            assert text_of(made.token_ids[made.answer_from :]).startswith(made.text[:20])


@each([k for k in READ if k.many and k.wire == "chat"])
async def test_thoughts_are_booked_to_the_samples_that_thought_them(kind):
    async with opened(kind) as (server, model):
        [made] = await model.generate([Request(prompt=ASK, sampling=SamplingParams(n=3, seed=1, max_tokens=80))])
        choices = [choice for generation in server.generations for choice in generation.choices]
        assert len(server.generations) == 1
        assert sum(c.usage.completion_tokens for c in made) == server.tokens
        assert abs(sum(c.usage.thinking_tokens for c in made) - server.thinking_tokens) <= 6
        if kind.is_visible:
            for completion, choice in zip(made, choices, strict=True):
                assert completion.usage.completion_tokens == choice.tokens
                assert abs(completion.usage.thinking_tokens - choice.thinking) <= 2


SHAPED = [
    BY_NAME[name] for name in ("plain", "Qwen3, raw", "raw tags, not vLLM", "DeepSeek R1", "SGLang", "Claude 4.5")
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name.replace(" ", "-"))
@each(SHAPED)
async def test_tokens_are_counted_in_every_shape_of_stream(kind, shape):
    async with opened(kind) as (server, model):
        server.shape = shape
        made = await one(model, **thinks_in(kind))
        assert made.text.endswith("The answer is 12.")
        assert DECOY not in made.text
        # without the provider's count, tokens of tags are missing, and those of text are estimated
        is_counted = shape.usage not in ("missing", "constant")
        assert abs(made.usage.completion_tokens - server.tokens) <= (0 if is_counted else 4)
        assert abs(made.usage.thinking_tokens - server.thinking_tokens) <= (2 if is_counted and not shape.tokens else 5)


@each(THINKING)
async def test_stop_strings_end_the_answer_and_not_the_thought(kind):
    async with opened(kind) as (server, model):
        made = await one(model, stop=("\n\n",), **thinks_in(kind))
        assert (made.finish_reason, made.stop_reason) == ("stop", "\n\n")
        assert made.text
        assert "\n\n" not in made.text
        assert made.thought is not None
        assert made.thought.closed
        assert not any(server.requests[-1][1].get(field) for field in ("stop", "stop_sequences"))
        whole = await one(model, stop=("never written",), **thinks_in(kind))
        assert (whole.finish_reason, whole.stop_reason) == ("stop", "")
        assert whole.text.endswith("The answer is 12.")


async def test_a_stop_string_of_white_space_is_applied_here_where_the_provider_refuses_it():
    async with opened(BY_NAME["Claude 4.5"]) as (server, model):
        made = await one(model, stop=("\n\n",))
        assert (made.finish_reason, made.stop_reason, server.refusals) == ("stop", "\n\n", [])
        assert "stop_sequences" not in server.requests[-1][1]


async def test_more_stop_strings_than_litellm_sends_are_applied_here():
    async with opened(BY_NAME["Gemini 2.5"]) as (server, model):
        made = await one(model, stop=("a!", "b!", "c!", "d!", "\n\n"), effort="none")
        assert (made.finish_reason, made.stop_reason, server.refusals) == ("stop", "\n\n", [])
        assert "stop_sequences" not in server.requests[-1][1]["generationConfig"]


@each([k for k in THINKING if k.shows != "hidden" and not k.omits and k.name not in LIMITED])
async def test_a_thought_that_reaches_its_cap_is_cut_and_has_no_answer(kind):
    async with opened(kind) as (server, model):
        made = await one(model, thinking_tokens=20)
        assert (made.finish_reason, made.text) == ("thinking", "")
        assert made.thought is not None
        assert not made.thought.closed
        # where no tokens are shown, a chunk may have several
        assert 20 <= made.usage.thinking_tokens <= (40 if kind.chunk_tokens > 1 else 24)
        await wait_until(lambda: not server.open)  # the server notices that the connection was closed
        assert server.tokens <= made.usage.completion_tokens + 24


async def test_a_hidden_thought_that_fills_the_cap_is_a_cut_thought():
    async with opened(BY_NAME["gpt-5-mini"]) as (server, model):
        made = await one(model, max_tokens=1, thinking_tokens=20)
        assert (made.finish_reason, made.text) == ("thinking", "")
        assert made.thought == Thought(tokens=21, closed=False)
        assert made.usage.thinking_tokens == made.usage.completion_tokens == server.tokens == 21


@each(VLLM)
async def test_thoughts_are_continued_as_tokens_on_vllm(kind):
    async with opened(kind) as (server, model):
        opening = Prompt.user(QUESTION).with_thought(Thought(text="Let me think.", closed=False))
        step = await one(model, opening, thinking_tokens=5)
        assert (step.finish_reason, step.text, len(step.token_ids)) == ("thinking", "", 5)
        assert step.thought is not None
        assert not step.thought.closed
        path, body = server.requests[-1]
        assert path == "/v1/completions"
        rendered = text_of(body["prompt"])
        assert rendered.rstrip().endswith("Let me think.")
        assert rendered.count(kind.tags[0].strip()) == 1

        paragraph = await one(model, opening, stop=("\n\n",))
        assert (paragraph.finish_reason, paragraph.stop_reason) == ("stop", "\n\n")

        closed = Prompt.user(QUESTION).with_thought(Thought(text="It is 12."), "The answer is")
        answer = await one(model, closed)
        assert answer.text == " 12."
        assert answer.thought is None
        rendered = text_of(server.requests[-1][1]["prompt"])
        assert rendered.endswith("The answer is")
        assert rendered.count(kind.tags[1].strip()) == 1


@each(VLLM)
async def test_exact_tokens_of_a_thought_take_precedence(kind):
    async with opened(kind) as (server, model):
        first = await one(model, thinking_tokens=20)
        assert len(first.token_ids) == 20
        prompt = ASK.with_thought(Thought(text="another text", token_ids=first.token_ids, closed=False))
        await one(model, prompt, thinking_tokens=4)
        given = server.requests[-1][1]["prompt"]
        thought = text_of(first.token_ids)
        assert "another text" not in text_of(given)
        # the tag that the model wrote itself is not written twice
        assert text_of(given).count(kind.tags[0].strip()) == 1
        assert text_of(given).endswith(thought.partition(kind.tags[0].strip())[2] or thought)


@each(VLLM)
async def test_a_prefix_of_the_answer_stands_after_a_closed_thought(kind):
    async with opened(kind) as (server, model):
        made = await one(model, ASK.with_prefix("The answer"))
        assert made.thought is None
        assert server.thinking_tokens == 0
        [scored] = await model.score(ASK, [" 12"])
        assert len(scored.logprobs) == len(scored.token_ids) == 2
        [after] = await model.next_token([ASK])
        [inside] = await model.next_token([ASK.with_thought(Thought(text="Let me think.", closed=False))])
        assert after.tokens[0] != inside.tokens[0]


async def test_a_users_profile_takes_precedence_over_what_is_measured():
    kind = BY_NAME["Qwen3, parser"]
    async with opened(kind, thinks="never") as (_, model):
        assert model.capabilities.profile.thinks == "never"
    async with opened(kind) as (_, model):
        assert model.capabilities.profile.sources["thinks"] == "measured"
        assert model.identity.endswith(model.capabilities.profile.digest)


async def test_a_server_that_refuses_sampling_parameters_opens_and_is_learnt():
    served = Kind("unknown", "openai/house-model", "always", shows="hidden", reports_thinking_tokens=True)
    async with opened(served) as (server, model):
        profile = model.capabilities.profile
        assert {"temperature", "top_p"} <= profile.refuses
        assert (profile.thinks, profile.thought) == ("always", "hidden")
        assert not model.capabilities.logprobs
        made = await one(model, default_temperature=0.7)
        assert made.text.endswith("The answer is 12.")
        assert not server.refusals


# -- reading, chunk by chunk

TAGS = ModelProfile(thinks="default", open_tag="<think>\n", close_tag="\n</think>\n\n")
FIELD = ReadingRules(ModelProfile(thinks="always", thought="field"), thinks=True)


def read(chunks: list[dict[str, Any]], rules: ReadingRules) -> tuple[StreamedSample, list[Piece]]:
    emitted: list[Piece] = []
    reading = SampleCollector((0,), lambda _, piece: emitted.append(piece), "here", rules)
    for chunk in chunks:
        reading.take([{"choices": [{"index": 0, **chunk}]}])
    return reading.samples[0], emitted


def completion(sample: StreamedSample, **usage: Any) -> Completion:
    target = find_target("hosted_vllm/m", Settings(providers={"hosted_vllm": {"api_base": "http://x/v1"}}))
    [tokens] = split_usage(usage or None, [sample], Prices(), target, 0.0)
    return to_completion(sample, tokens, SamplingParams(logprobs=True), {}, target)


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"delta": fields, "finish_reason": finish}


def token(text: str, number: int, finish: str | None = None) -> dict[str, Any]:
    return {
        "text": text,
        "token_ids": [number],
        "logprobs": {"token_logprobs": [-float(number)], "tokens": [text]},
        "finish_reason": finish,
    }


def tokens(*texts: str, **fields: Any) -> dict[str, Any]:
    """A chunk of chat with several tokens that have log-probabilities and no ids."""
    shown = {"content": [{"token": text, "logprob": -float(len(text))} for text in texts]}
    return {**delta(**(fields or {"content": "".join(texts)})), "logprobs": shown}


@pytest.mark.parametrize(
    ("chunks", "rules", "logprobs"),
    [
        ([tokens("<think>", "12", "?"), tokens("\n</think>", "\n\n", "It", " is", " 12")], TAGS, (-2.0, -3.0, -3.0)),
        ([tokens("<think>", "12", "</think>", "\n\n", "<"), tokens("b", ">12")], TAGS, (-1.0, -1.0, -3.0)),
        (
            [tokens("So", ".", "It", " is", reasoning_content="So.", content="It is")],
            FIELD.profile,
            (-2.0, -3.0),
        ),
    ],
    ids=["tags", "held", "field"],
)
def test_answer_log_probabilities_of_a_chunk_with_thought_and_answer(chunks, rules, logprobs):
    sample, _ = read([*chunks, delta("stop")], ReadingRules(rules, thinks=True))
    assert completion(sample).answer_logprobs == logprobs


def test_answer_starts_at_its_first_token_without_white_space():
    texts = ["<think>", "\n", "12", "?", "\n", "</think>", "\n\n", "<", "b", ">12"]
    chunks = [token(text, i, "stop" if i == len(texts) - 1 else None) for i, text in enumerate(texts)]
    sample, emitted = read(chunks, ReadingRules(TAGS, thinks=True, is_exact=True))
    made = completion(sample)
    assert made.text == "<b>12"
    assert made.thought == Thought(text="\n12?\n", tokens=7)
    assert made.answer_from == 7  # "<" may begin a tag, and is held back
    assert made.answer_logprobs == (-7.0, -8.0, -9.0)
    assert made.usage.thinking_tokens == 7
    assert "".join(piece.text for piece in emitted) == "<b>12"
    assert "".join(piece.thought for piece in emitted) == "\n12?\n"
    assert sum(len(piece.ids) for piece in emitted) == 10


@pytest.mark.parametrize(
    ("texts", "end", "rules", "expected"),
    [
        (
            ["<think>", "12"],
            {"finish_reason": finish},
            {},
            ("", "thinking", None, 2, Thought(text="12", tokens=2, closed=False)),
        )
        for finish in ("length", "stop")
    ]
    + [
        (
            ["so 5", " + 7"],
            {"finish_reason": "stop", "stop_reason": "\n\n"},
            {"opened": True, "is_exact": True, "continues": True},
            ("", "stop", "\n\n", 2, Thought(text="so 5 + 7", tokens=2, closed=False)),
        ),
        (
            ["12?", "</think>", "12"],
            {"finish_reason": "stop"},
            {},
            ("12", "stop", None, 2, Thought(text="12?", tokens=2)),
        ),
    ],
    ids=["cut", "no end of the thought", "an open thought up to a stop string", "opened by the template, unseen"],
)
def test_a_sample_ends_in_its_thought_or_after_it(texts, end, rules, expected):
    chunks = [token(text, i) for i, text in enumerate(texts)]
    chunks[-1] |= end
    made = completion(read(chunks, ReadingRules(TAGS, thinks=True, **rules))[0])
    assert (made.text, made.finish_reason, made.stop_reason, made.answer_from, made.thought) == expected


def test_field_and_logprobs_of_the_answer_alone():
    def content(text: str, logprob: float, finish: str | None = None) -> dict[str, Any]:
        shown = {"content": [{"token": "x", "logprob": logprob, "top_logprobs": []}]}
        return {**delta(finish, content=text), "logprobs": shown}

    thought = [delta(reasoning_content=text) for text in ("let me", " see")]
    sample, _ = read([*thought, content("\n\n12", -0.5), content(".", -0.25, "stop")], FIELD)
    made = completion(sample, prompt_tokens=3, completion_tokens=9, completion_tokens_details={"reasoning_tokens": 7})
    assert (made.text, made.answer_from, made.answer_logprobs) == ("12.", 0, (-0.5, -0.25))
    assert made.thought == Thought(text="let me see", tokens=7)
    assert (made.usage.completion_tokens, made.usage.thinking_tokens) == (9, 7)


def test_thoughts_that_are_counted_beside_the_completion_are_added():
    sample, _ = read([token("12", 0, "stop")], ReadingRules(TAGS))
    counts = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 15}
    made = completion(sample, **counts, completion_tokens_details={"reasoning_tokens": 10})
    assert (made.usage.completion_tokens, made.usage.thinking_tokens) == (12, 10)


def test_stop_strings_over_several_chunks_end_a_sample_and_close_the_response():
    rules = ReadingRules(TAGS, thinks=True, is_exact=True, stops=("\n\n", "END"))
    reading = SampleCollector((0, 1), lambda *_: None, "here", rules)

    def take(index: int, text: str, number: int) -> None:
        reading.take([{"choices": [{"index": index, **token(text, number)}]}])

    take(0, "<think>a\n\nb</think>", 0)
    take(0, "12\n", 1)
    take(0, "\n", 2)
    assert reading.samples[0].finish == "stop"
    assert not reading.is_complete
    take(0, "more", 3)
    take(1, "13EN", 4)
    take(1, "D", 5)
    assert reading.is_complete
    assert [(s.text, s.stopped_by, s.tokens) for s in reading.samples] == [("12", "\n\n", 4), ("13", "END", 2)]


def test_tokens_of_calls_are_not_those_of_the_thought_before_them():
    logprob = {"content": [{"token": "x", "logprob": -0.5, "top_logprobs": []}]}
    called = {"index": 0, "id": "a", "function": {"name": "weather", "arguments": "{}"}}
    more = {"index": 0, "function": {"arguments": ""}}
    chunks = [
        *({**delta(reasoning_content="so "), "logprobs": logprob} for _ in range(4)),
        {**delta(tool_calls=[called]), "logprobs": logprob},
        {**delta(tool_calls=[more]), "logprobs": logprob, "finish_reason": "tool_calls"},
    ]
    sample, _ = read(chunks, FIELD)
    made = completion(sample, prompt_tokens=3, completion_tokens=6)
    assert (made.usage.thinking_tokens, made.usage.completion_tokens) == (4, 6)


def test_a_call_that_comes_in_one_chunk_counts_as_several_tokens():
    called = {"index": 0, "id": "a", "function": {"name": "weather", "arguments": '{"city": "Rome", "days": 3}'}}
    chunks = [*(delta(reasoning_content="so ") for _ in range(4)), delta(tool_calls=[called])]
    chunks[-1]["finish_reason"] = "tool_calls"
    sample, _ = read(chunks, FIELD)
    assert completion(sample, prompt_tokens=3, completion_tokens=18).usage.thinking_tokens == 4


def test_calls_of_one_index_and_several_ids_are_several_calls():
    def call(name: str, identity: str, arguments: str) -> dict[str, Any]:
        return {"index": 0, "id": identity, "function": {"name": name, "arguments": arguments}}

    chunks = [
        delta(tool_calls=[call("weather", "a", '{"city": "Rome"}')]),
        delta(tool_calls=[call("weather", "b", '{"city": "Oslo"}')]),
        {**delta(tool_calls=[call("", "c", "")]), "finish_reason": "tool_calls"},
    ]
    sample, _ = read(chunks, FIELD)
    made = completion(sample, prompt_tokens=3, completion_tokens=6)
    assert [(c.id, c.arguments) for c in made.tool_calls] == [("a", '{"city": "Rome"}'), ("b", '{"city": "Oslo"}')]


def test_blocks_are_joined_from_their_deltas():
    def thinking(index: int, text: str, **more: str | None) -> dict[str, Any]:
        block = {"type": "thinking", "thinking": text, "index": index, **more}
        return delta(reasoning_content=text, thinking_blocks=[block])

    chunks = [
        thinking(0, "let "),
        thinking(0, "me", signature=None),
        thinking(0, "", signature="s0"),
        delta(thinking_blocks=[{"type": "redacted_thinking", "data": "xyz", "index": 1}]),
        thinking(2, "see"),
        thinking(2, "", signature="s2"),
        delta("stop", content="12"),
    ]
    thought = completion(read(chunks, FIELD)[0]).thought
    assert thought is not None
    assert thought.text == "let mesee"
    assert thought.blocks == (
        {"type": "thinking", "thinking": "let me", "signature": "s0"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "thinking", "thinking": "see", "signature": "s2"},
    )


def test_blocks_without_an_index_end_with_their_signature():
    deltas = [
        {"type": "thinking", "thinking": "let "},
        {"type": "thinking", "thinking": "me", "signature": "s0"},
        {"type": "thinking", "thinking": "see", "signature": "s1"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "redacted_thinking", "data": "uvw"},
    ]
    chunks = [delta(reasoning_content="t", thinking_blocks=[block]) for block in deltas]
    thought = completion(read([*chunks, delta("stop", content="12")], FIELD)[0]).thought
    assert thought is not None
    assert thought.blocks == ({"type": "thinking", "thinking": "let me", "signature": "s0"}, *deltas[2:])


def test_reasoning_details_are_kept_as_they_are():
    detail = {"type": "reasoning.text", "index": 0, "format": "x"}
    pieces = [{"text": "let "}, {"text": "me", "signature": "s"}]
    chunks = [delta(reasoning_content=piece["text"], reasoning_details=[detail | piece]) for piece in pieces]
    thought = completion(read([*chunks, delta("stop", content="12")], FIELD)[0]).thought
    assert thought is not None
    assert thought.blocks == (detail | {"text": "let me", "signature": "s"},)
    profile = ModelProfile(thinks="always", return_thoughts="signed")
    reply = Message(role="assistant", content="12", thought=thought)
    ask = Message(role="user", content="How many?")
    sent = [
        messages_of(Prompt(messages=(ask, reply, ask)), profile, thinking=thinks)[1].get("reasoning_details")
        for thinks in (True, False)
    ]
    assert sent == [[dict(thought.blocks[0])], None]


@pytest.mark.parametrize("part", ["thought", "answer"])
@each(VLLM)
async def test_a_response_that_breaks_off_is_continued_in_its_thought_or_its_answer(kind, part):
    async with opened(kind) as (server, model):
        model._retrying = RetryPolicy(initial_wait_s=0.01)
        whole = await one(model, **thinks_in(kind))
        assert whole.thought is not None
        first = whole.answer_from + 3 if part == "answer" else whole.answer_from // 2
        server.reset()
        server.cuts = [first]
        chunks = []
        made = await one(model, chunks=chunks, **thinks_in(kind))
        assert [len(g.choices) for g in server.generations] == [1, 1]
        assert not any(chunk.restarts for chunk in chunks)
        assert "".join(chunk.text for chunk in chunks) == made.text
        assert made.text.endswith("The answer is 12.")
        assert DECOY not in made.text
        assert made.thought is not None
        assert "".join(chunk.thought for chunk in chunks) == made.thought.text
        assert made.thought.closed
        assert made.token_ids[:first] == whole.token_ids[:first]
        assert made.usage.completion_tokens == len(made.token_ids) == server.tokens
        if part == "answer":
            assert made.thought == whole.thought
            assert made.usage.thinking_tokens == whole.usage.thinking_tokens


# -- what nobody counts


@pytest.mark.parametrize(
    ("name", "usage"),
    [("gpt-5-mini", "missing"), ("gpt-5-mini", "constant"), ("Gemini 3", "constant")],  # LiteLLM invents a missing one
)
async def test_a_run_reports_hidden_thoughts_that_nobody_counts(name, usage, tmp_path):
    kind = BY_NAME[name]
    server = WireServer(kind, shape=Shape("uncounted", usage=usage))
    async with server.run() as base:
        provider = {"api_base": kind.api_base(base), "probe": False}
        settings = Settings(model=kind.model, providers={kind.model: provider}, store=tmp_path / "r.sqlite3")
        async with Reasoner(settings=settings) as reasoner:
            answer = await reasoner.aask(Question(text=QUESTION, kind="number"), strategy="cot", seed=7)
    assert answer.answer == RIGHT
    assert answer.degraded == (f"{kind.model} hides its thoughts and reports no usage: their tokens are not counted",)
    assert answer.usage.prompt_tokens != 10
