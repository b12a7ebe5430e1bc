from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reason.serving.local.kv_cache import KVCache


def make(capacity: int = 64) -> KVCache:
    return KVCache(num_layers=2, num_kv_heads=1, head_dim=2, dtype=torch.float32, capacity=capacity)


def write(cache: KVCache, slots: range, values: list[int]) -> None:
    for layer, kv in enumerate(cache.kv):
        for slot, value in zip(slots, values, strict=True):
            kv[:, :, slot] = value + 1000 * layer


def read(cache: KVCache, slots: list[int]) -> list[int]:
    return [int(cache.kv[1][0, 0, c, 0]) - 1000 for c in slots]


def test_allocate_requires_capacity():
    cache = make(64)
    cache.allocate(60)
    assert cache.required_capacity(4) == 0
    assert cache.required_capacity(5) == 128
    with pytest.raises(IndexError, match="do not fit"):
        cache.allocate(5)


def test_free_is_idempotent_and_keeps_a_later_sequence_with_the_same_row():
    cache = make()
    one = cache.new_table()
    cache.free(one)
    two = cache.new_table()
    assert two.mask_row == one.mask_row
    cache.free(one)
    assert cache.tables == (two,)


def test_copy_from_another_cache():
    one, two = make(), make()
    write(one, one.allocate(4), [1, 2, 3, 4])
    write(two, two.allocate(1), [9])
    target = two.copy_from(one, [3, 0])
    assert read(two, [0, *target]) == [9, 4, 1]


operations = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 7), st.integers(1, 5)),
        st.tuples(st.just("step"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("fork"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("release"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("compact"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@given(operations)
def test_every_sequence_always_sees_exactly_its_own_tokens(steps):
    cache = make()
    tables = [cache.new_table()]
    tokens = [[]]
    fresh = iter(range(1, 100_000))

    def room(count: int) -> None:
        if capacity := cache.required_capacity(count):
            cache.resize(capacity)

    for kind, which, count in steps:
        at = which % len(tables) if tables else 0
        if not tables:
            tables.append(cache.new_table())
            tokens.append([])
        if kind == "append":
            new = [next(fresh) for _ in range(count)]
            room(count)
            slots = cache.allocate(count)
            write(cache, slots, new)
            cache.append(tables[at], slots)
            tokens[at].extend(new)
        elif kind == "step":
            room(len(tables))
            slots = cache.allocate(len(tables))
            new = [next(fresh) for _ in tables]
            write(cache, slots, new)
            cache.append_each(tables, slots)
            for own, token in zip(tokens, new, strict=True):
                own.append(token)
        elif kind == "fork" and len(tables) < 8:
            tables.append(cache.fork(tables[at]))
            tokens.append(list(tokens[at]))
        elif kind == "release":
            cache.free(tables.pop(at))
            tokens.pop(at)
        elif kind == "compact":
            cache.compact()
            assert cache.used == len({c for b in tables for c in b.slots})
        for table, own in zip(tables, tokens, strict=True):
            assert read(cache, table.slots) == own
            mask = cache.attention_mask([table], cache.used)[0]
            assert {i for i in range(cache.used) if mask[i] == 0} == set(table.slots)
