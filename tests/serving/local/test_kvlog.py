from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.serving.local.kvlog import KVLog


def make(capacity: int = 64) -> KVLog:
    return KVLog(layers=2, kv_heads=1, head_dim=2, dtype=torch.float32, capacity=capacity)


def write(log: KVLog, columns: range, values: list[int]) -> None:
    for layer, kv in enumerate(log.kv):
        for column, value in zip(columns, values, strict=True):
            kv[:, :, column] = value + 1000 * layer


def read(log: KVLog, columns: list[int]) -> list[int]:
    return [int(log.kv[1][0, 0, c, 0]) - 1000 for c in columns]


def test_a_fork_sees_the_same_and_then_its_own() -> None:
    log = make()
    one = log.open()
    columns = log.reserve(3)
    log.show(one, columns)
    write(log, columns, [1, 2, 3])
    two = log.fork(one)
    step = log.reserve(2)
    write(log, step, [10, 20])
    log.show_each([one, two], step)
    assert read(log, one.columns) == [1, 2, 3, 10]
    assert read(log, two.columns) == [1, 2, 3, 20]
    inf = float("inf")
    assert log.bias([one, two], log.used).tolist() == [[0, 0, 0, 0, -inf], [0, 0, 0, -inf, 0]]


def test_compact_drops_what_nobody_sees() -> None:
    log = make()
    one = log.open()
    log.show(one, log.reserve(2))
    two = log.fork(one)
    step = log.reserve(2)
    log.show_each([one, two], step)
    write(log, range(4), [1, 2, 3, 4])
    log.release(one)
    assert log.compact() == {0: 0, 1: 1, 3: 2}
    assert log.used == 3
    assert read(log, two.columns) == [1, 2, 4]


def test_there_must_be_room() -> None:
    log = make(64)
    log.reserve(60)
    assert log.missing(4) == 0
    assert log.missing(5) == 128
    with pytest.raises(IndexError, match="do not fit"):
        log.reserve(5)


def test_release_is_idempotent_and_does_not_end_a_successor() -> None:
    log = make()
    one = log.open()
    log.release(one)
    two = log.open()
    assert two.slot == one.slot
    log.release(one)
    assert log.branches == (two,)


def test_copy_from_another_log() -> None:
    one, two = make(), make()
    write(one, one.reserve(4), [1, 2, 3, 4])
    write(two, two.reserve(1), [9])
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


@settings(deadline=None, max_examples=60)
@given(operations)
def test_every_sequence_always_sees_exactly_its_own_tokens(steps: list[tuple[str, int, int]]) -> None:
    log = make()
    branches = [log.open()]
    tokens: list[list[int]] = [[]]
    fresh = iter(range(1, 100_000))

    def room(count: int) -> None:
        if capacity := log.missing(count):
            log.grow(capacity)

    for kind, which, count in steps:
        at = which % len(branches) if branches else 0
        if not branches:
            branches.append(log.open())
            tokens.append([])
        if kind == "append":
            new = [next(fresh) for _ in range(count)]
            room(count)
            columns = log.reserve(count)
            write(log, columns, new)
            log.show(branches[at], columns)
            tokens[at].extend(new)
        elif kind == "step":
            room(len(branches))
            columns = log.reserve(len(branches))
            new = [next(fresh) for _ in branches]
            write(log, columns, new)
            log.show_each(branches, columns)
            for own, token in zip(tokens, new, strict=True):
                own.append(token)
        elif kind == "fork" and len(branches) < 8:
            branches.append(log.fork(branches[at]))
            tokens.append(list(tokens[at]))
        elif kind == "release":
            log.release(branches.pop(at))
            tokens.pop(at)
        elif kind == "compact":
            log.compact()
            assert log.used == len({c for b in branches for c in b.columns})
        for branch, own in zip(branches, tokens, strict=True):
            assert read(log, branch.columns) == own
            bias = log.bias([branch], log.used)[0]
            assert {i for i in range(log.used) if bias[i] == 0} == set(branch.columns)
