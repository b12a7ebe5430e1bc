"""Attention of sibling samples in two parts: their common prefix once, their own slots separately."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reason.core.messages import Prompt, Request, SamplingParams
from reason.serving.local import attention
from reason.serving.local.attention import CacheAttention, TokenChunk, shared_slots
from reason.serving.local.engine import LocalModel
from reason.serving.local.kv_cache import KVCache, SlotTable
from reason.serving.local.model import Decoder

PROMPT = list(range(3, 60))


@contextmanager
def cascade_cost(cost: int) -> Iterator[None]:
    """Two parts always, with a negative cost, or never, with an infinite one."""
    before = attention.CASCADE_COST
    attention.CASCADE_COST = cost
    try:
        yield
    finally:
        attention.CASCADE_COST = before


ALWAYS = -(10**9)


@pytest.fixture(scope="module")
def decoder(tiny_directory: Callable[[str], Path]) -> Decoder:
    return Decoder.load(tiny_directory("llama"), "fp32")


def start(decoder: Decoder, count: int, capacity: int = 1000) -> tuple[KVCache, list[SlotTable]]:
    """A cache with a prompt and `count` forks of it."""
    cache = decoder.new_kv_cache(capacity)
    prompt = cache.new_table()
    decoder.forward([TokenChunk(cache, prompt, PROMPT, [])])
    tables = [cache.fork(prompt) for _ in range(count)]
    cache.free(prompt)
    return cache, tables


def decode(decoder: Decoder, cache: KVCache, tables: Sequence[SlotTable], tokens: Sequence[int]) -> torch.Tensor:
    if capacity := cache.required_capacity(len(tables)):
        cache.resize(capacity)
    return decoder.forward([TokenChunk(cache, table, [t], [0]) for table, t in zip(tables, tokens, strict=True)])


def parts_of(decoder: Decoder, chunks: Sequence[TokenChunk]) -> list[str]:
    computed = CacheAttention(decoder.config, decoder.rotary, chunks)
    return [type(part).__name__ for part in computed._parts]


operations = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.just(0)),
        st.tuples(st.just("fork"), st.integers(0, 7)),
        st.tuples(st.just("end"), st.integers(0, 7)),
        st.tuples(st.just("extend"), st.integers(0, 7)),
        st.tuples(st.just("compact"), st.just(0)),
    ),
    max_size=25,
)


@given(operations, st.sampled_from([32, 100, 2048]))
def test_two_parts_are_one_softmax(decoder, steps, max_copied):
    """Whatever forks, ends, is prefilled and is compacted, logits are those of one masked call."""

    def logits(cost: int) -> list[torch.Tensor]:
        with cascade_cost(cost), torch.inference_mode():
            cache, tables = start(decoder, 3, capacity=64)
            results = []
            for i, (kind, which) in enumerate([*steps, ("step", 0)]):
                at = which % len(tables)
                if kind == "step":
                    results.append(decode(decoder, cache, tables, [60 + (7 * i + j) % 150 for j in range(len(tables))]))
                elif kind == "fork" and len(tables) < 8:
                    tables.append(cache.fork(tables[at]))
                elif kind == "end" and len(tables) > 1:
                    cache.free(tables.pop(at))
                elif kind == "extend":
                    if capacity := cache.required_capacity(5):
                        cache.resize(capacity)
                    results.append(decoder.forward([TokenChunk(cache, tables[at], [70 + i, 9, 8, 7, 6], [4])]))
                elif kind == "compact":
                    cache.compact()
            return results

    before = attention.MAX_COPIED_SLOTS
    attention.MAX_COPIED_SLOTS = max_copied
    try:
        for two, one in zip(logits(ALWAYS), logits(10**9), strict=True):
            torch.testing.assert_close(two, one, atol=2e-4, rtol=1e-4)
    finally:
        attention.MAX_COPIED_SLOTS = before


@pytest.mark.parametrize("weight_format", ["fp32", "bf16"])
def test_the_bits_of_a_sequence_do_not_depend_on_the_number_of_its_siblings(tiny_directory, weight_format):
    model = Decoder.load(tiny_directory("llama"), weight_format)

    def first_three(count: int) -> torch.Tensor:
        cache, tables = start(model, count)
        return torch.stack(
            [decode(model, cache, tables, [60 + (7 * i + 3 * j) % 150 for j in range(count)])[:3] for i in range(40)]
        )

    with cascade_cost(ALWAYS), torch.inference_mode():
        few = first_three(4)
        assert torch.equal(few, first_three(5))
        assert torch.equal(few, first_three(19))


def test_shared_slots_are_the_common_first_positions():
    tables = [SlotTable(slots, 0) for slots in ([4, 1, 7, 8, 12], [4, 1, 7, 9, 13], [4, 1, 7, 8, 20, 21])]
    assert shared_slots(tables) == [4, 1, 7]
    assert shared_slots(tables[:1]) == [4, 1, 7, 8, 12]
    assert shared_slots([tables[0], SlotTable([5], 1)]) == []


def test_two_parts_are_chosen_where_siblings_have_many_slots_of_their_own(decoder):
    def chosen(count: int, own: int) -> list[str]:
        cache, tables = start(decoder, count, capacity=len(PROMPT) + count * (own + 1))
        for _ in range(own):
            cache.append_each(tables, cache.allocate(count))
        return parts_of(decoder, [TokenChunk(cache, table, [5], [0]) for table in tables])

    assert chosen(8, 250) == ["_CascadeAttention"]
    assert chosen(32, 3) == ["_OneCache"]  # the call for the prefix would cost more than it saves
    assert chosen(4, 64) == ["_OneCache"]
    assert chosen(1, 600) == ["_OneCache"]


def test_prefill_and_drafts_are_computed_in_one_call(decoder):
    with cascade_cost(ALWAYS):
        cache, tables = start(decoder, 3)
        chunks = [TokenChunk(cache, table, [5], [0]) for table in tables]
        assert parts_of(decoder, [*chunks[:2], TokenChunk(cache, tables[2], [5, 6], [1])]) == ["_OneCache"]
        draft = TokenChunk(cache, tables[0], [7], [0], parents=[-1])
        assert parts_of(decoder, [*chunks, draft]) == ["_OneCache"]
        assert parts_of(decoder, chunks) == ["_CascadeAttention"]


@pytest.mark.parametrize("weight_format", ["fp32", "bf16"])
async def test_the_same_call_gives_the_same_samples_after_other_calls(tiny_files, weight_format):
    def request(text: str, **sampling: int) -> Request:
        settings = {"max_tokens": 40, "ignore_eos": True, "logprobs": True} | sampling
        return Request(prompt=Prompt.user(text), sampling=SamplingParams(**settings))

    model = LocalModel.load(tiny_files("llama"), weight_format=weight_format, threads=1, kv_cache_bytes=64 << 20)
    requested = request("Name a colour.", n=16, seed=3)
    with cascade_cost(ALWAYS):
        (first,) = await model.generate([requested])
        await model.generate([request("Name a city.", n=5, seed=4)])
        (again,) = await model.generate([requested])
    await model.aclose()
    assert again[0].usage.cached_tokens > 0
    assert [(c.token_ids, c.logprobs) for c in again] == [(c.token_ids, c.logprobs) for c in first]
