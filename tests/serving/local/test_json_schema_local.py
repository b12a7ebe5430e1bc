"""Texts of the embedded engine under JSON schemas, on a tiny random model, which writes anything it may."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.core.errors import CapabilityMissing, UserError
from reason.core.messages import LogitsProcessorSpec, Prompt, Request, SamplingParams
from reason.serving.local.engine import LocalModel
from reason.serving.local.tokenizer import Tokenizer
from reason.serving.logits_processors import ProcessorState
from reason.serving.model_files.find import ModelFiles
from reason.serving.structured_output import GrammarCompiler

ASK = Prompt.user("hello")
PAIR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "word": {"type": "string", "maxLength": 5},
        "kind": {"enum": ["one", "two", None]},
        "list": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["word", "kind", "list"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def engine(tiny_files: Callable[[str], ModelFiles]) -> Iterator[LocalModel]:
    model = LocalModel.load(tiny_files("llama"), weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
    yield model
    asyncio.run(model.aclose())


def requested(schema: dict[str, Any] | None = PAIR, prompt: Prompt = ASK, **sampling: Any) -> Request:
    return Request(
        prompt=prompt,
        sampling=SamplingParams(**{"max_tokens": 120, "seed": 5, "logprobs": True, "json_schema": schema} | sampling),
    )


def check_tokens(engine: LocalModel, schema: dict[str, Any], ids: tuple[int, ...]) -> None:
    """Every token was one that a fresh grammar allows, and the last one ended the text."""
    tokenizer = engine._tokenizer
    grammar = GrammarCompiler(tokenizer, engine._config.vocab_size, engine._eos, "fresh").of(schema)
    for at, token in enumerate(ids):
        row = grammar(np.zeros(engine._config.vocab_size, dtype=np.float32), ProcessorState((), list(ids[:at]), 0))
        assert np.isfinite(row[token]), (tokenizer.decode(ids[:at]), tokenizer.token(token))
    assert grammar.ended(ProcessorState((), list(ids), 0))


@pytest.mark.parametrize("temperature", [0, 1.0, 3.0])
async def test_a_batch_of_samples_satisfies_the_schema(engine, temperature):
    assert engine.capabilities.json_schema
    [made] = await engine.generate([requested(temperature=temperature, n=6)])
    for completion in made:
        assert (completion.finish_reason, completion.stop_reason) == ("stop", "")
        jsonschema.validate(json.loads(completion.text), PAIR)
        check_tokens(engine, PAIR, completion.token_ids)
    assert len({c.text for c in made}) == (1 if temperature == 0 else 6)


async def test_requests_with_and_without_schemas_share_a_batch(engine):
    other = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2, "maxItems": 4}
    free = requested(None, temperature=1.0, n=2, max_tokens=20)
    mixed = await engine.generate([requested(temperature=1.0, n=2), free, requested(other, temperature=1.0, n=2)])
    jsonschema.validate(json.loads(mixed[0][1].text), PAIR)
    jsonschema.validate(json.loads(mixed[2][1].text), other)
    [single] = await engine.generate([free])
    assert [c.token_ids for c in mixed[1]] == [c.token_ids for c in single]
    for neighbour, by_itself in zip(mixed[1], single, strict=True):
        assert neighbour.logprobs == pytest.approx(by_itself.logprobs, abs=1e-4)
    [again] = await engine.generate([requested(temperature=1.0, n=2)])
    assert [c.token_ids for c in again] == [c.token_ids for c in mixed[0]]


async def test_log_probabilities_stay_those_of_the_raw_distribution(engine):
    [[made]] = await engine.generate([requested(temperature=1.0, top_logprobs=3)])
    assert made.logprobs is not None
    [scored] = await engine.score(ASK, [made.token_ids])
    assert made.logprobs == pytest.approx(scored.logprobs, abs=1e-4)
    assert made.logprob is not None
    assert made.logprob < -20  # a random model would not write this by itself
    [first] = await engine.next_token([ASK], top=3)
    assert made.top_logprobs is not None
    assert [t.token_id for t in made.top_logprobs[0]] == list(first.token_ids)


async def test_a_truncated_text_is_reported(engine):
    [[made]] = await engine.generate([requested(max_tokens=9, temperature=0)])
    assert (made.finish_reason, made.stop_reason, len(made.token_ids)) == ("length", None, 9)
    assert made.text.startswith('{"word": ')
    complete = len(engine._tokenizer.encode('"ab"'))
    [[exact]] = await engine.generate([requested({"const": "ab"}, max_tokens=complete)])
    assert (exact.finish_reason, exact.text) == ("stop", '"ab"')
    [[stopped]] = await engine.generate([requested({"const": "abc"}, stop=("b",))])
    assert (stopped.finish_reason, stopped.stop_reason, stopped.text) == ("stop", "b", '"a')


async def test_a_prefix_stays_outside_the_schema(engine):
    [[made]] = await engine.generate([requested(prompt=ASK.with_prefix('So: {"'))])
    jsonschema.validate(json.loads(made.text), PAIR)


async def test_logits_processors_act_within_the_schema(engine):
    two = engine._tokenizer.encode("t")
    lean = LogitsProcessorSpec(name="steer", args={"ids": two, "weight": 90.0})
    kinds = {"enum": ["one", "two", "six"]}
    [made] = await engine.generate([requested(kinds, logits_processors=(lean,), temperature=1.0, n=4)])
    assert {c.text for c in made} == {'"two"'}
    nothing = LogitsProcessorSpec(name="only_tokens", args={"ids": two})
    [[failed]] = await engine.generate([requested(kinds, logits_processors=(nothing,))])
    assert failed.failure is not None
    assert "forbid every token" in failed.failure.message


async def test_a_schema_that_cannot_be_held_to_stops_the_call_before_any_work(engine):
    heard = []
    with pytest.raises(UserError, match="uniqueItems"):
        await engine.generate([requested(), requested({"type": "array", "uniqueItems": True})], heard.append)
    assert heard == []


async def test_an_engine_whose_tokens_have_no_bytes_is_refused(tiny_files, monkeypatch):
    monkeypatch.setattr(Tokenizer, "is_byte_level", False)
    model = LocalModel.load(tiny_files("llama"), weight_format="fp32", threads=1, kv_cache_bytes=16 << 20)
    try:
        assert not model.capabilities.json_schema
        with pytest.raises(CapabilityMissing, match="json_schema"):
            await model.generate([requested()])
    finally:
        await model.aclose()


async def test_preempted_samples_resume(engine, tiny_files):
    # 3 layers of keys and values, 2 heads of width 16 each, in fp32
    cramped = LocalModel.load(
        tiny_files("llama"), weight_format="fp32", threads=1, kv_cache_bytes=3 * 2 * 2 * 16 * 4 * 160
    )
    long = {"type": "array", "items": {"enum": ["ab", "cd"]}, "minItems": 9, "maxItems": 9}
    try:
        [expected] = await engine.generate([requested(long, n=4, temperature=1.0, max_tokens=100)])
        [actual] = await cramped.generate([requested(long, n=4, temperature=1.0, max_tokens=100)])
        assert cramped._scheduler._running_at_preemption  # the cache was too small for all of them
        assert [c.text for c in actual] == [c.text for c in expected]
    finally:
        await cramped.aclose()


LEAVES = st.one_of(
    st.just({"type": "boolean"}),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-9, 9),
        st.integers(0, 40),
    ),
    st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 4)),
    st.builds(
        lambda vs: {"enum": vs},
        st.lists(st.one_of(st.none(), st.text(max_size=3), st.integers(-5, 5)), min_size=1, max_size=3, unique_by=repr),
    ),
)


def larger(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    lists = st.builds(
        lambda items, low, more: {"type": "array", "items": items, "minItems": low, "maxItems": low + more},
        inner,
        st.integers(0, 2),
        st.integers(0, 1),
    )
    objects = st.dictionaries(st.text(min_size=1, max_size=3), inner, max_size=3).map(
        lambda fields: {
            "type": "object",
            "properties": fields,
            "required": list(fields)[:2],
            "additionalProperties": False,
        }
    )
    return st.one_of(lists, objects)


@given(schema=st.recursive(LEAVES, larger, max_leaves=5), seed=st.integers(0, 1000))
@settings(max_examples=12, deadline=None)
def test_small_schemas_of_all_kinds(engine, schema, seed):
    [made] = asyncio.run(engine.generate([requested(schema, temperature=1.0, n=2, seed=seed, max_tokens=600)]))
    for completion in made:
        assert completion.finish_reason == "stop"
        jsonschema.validate(json.loads(completion.text), schema)
