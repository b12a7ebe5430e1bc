from __future__ import annotations

import pytest
import torch
from reason.serving.local.kvlog import KVLog
from reason.serving.local.prefixes import MAX_TREES, OutOfCache, Prefixes, Sequenced

COLUMN = 2 * 4


class Maker:
    column_bytes = COLUMN

    def open_log(self, capacity: int) -> KVLog:
        return KVLog(1, 1, 1, torch.float32, capacity)


def compute(prefixes: Prefixes, sequence: Sequenced, ids: list[int]) -> None:
    """What the scheduler does for new tokens; a column holds its token."""
    prefixes.make_room(sequence.tree, len(ids))
    log = sequence.tree.log
    columns = log.reserve(len(ids))
    for column, token in zip(columns, ids, strict=True):
        log.kv[0][:, :, column] = token
    log.show(sequence.branch, columns)
    sequence.record(ids)


def seen(sequence: Sequenced) -> list[int]:
    kv = sequence.tree.log.kv[0]
    return [int(kv[0, 0, c, 0]) for c in sequence.branch.columns]


ONE, OTHER = object(), object()
"""Two calls."""


def run(prefixes: Prefixes, ids: list[int], private: int = 1, call: object = ONE) -> Sequenced:
    sequence = prefixes.begin(ids, private, call, "")
    compute(prefixes, sequence, ids[sequence.cached :])
    return sequence


PROMPT = list(range(100, 150))


def test_the_same_prompt_again_reuses_all_but_its_last_token() -> None:
    prefixes = Prefixes(Maker(), 1 << 20)
    first = run(prefixes, PROMPT)
    first.release()
    again = prefixes.begin(PROMPT, 1, ONE, "")
    assert again.cached == len(PROMPT) - 1
    assert again.tree is first.tree
    assert seen(again) == PROMPT[:-1]


def test_another_call_takes_copies_in_the_order_of_a_fresh_prompt() -> None:
    prefixes = Prefixes(Maker(), 1 << 20)
    first = run(prefixes, PROMPT)
    for i in range(5):
        run(prefixes, [*PROMPT, 900 + i]).release()
    other = run(prefixes, [*PROMPT, 902, 7], call=OTHER)
    assert other.cached == len(PROMPT) + 1
    assert other.tree is not first.tree
    assert other.branch.columns == list(range(len(PROMPT) + 2))
    assert seen(other) == [*PROMPT, 902, 7]


def test_a_call_brings_further_columns_into_its_own_tree() -> None:
    prefixes = Prefixes(Maker(), 1 << 20)
    old = run(prefixes, PROMPT)
    for tail in ([1, 2, 3], [4, 5, 6]):
        run(prefixes, [*PROMPT, *tail]).release()
    left = run(prefixes, [*PROMPT, 1, 2, 3, 8], call=OTHER)
    right = run(prefixes, [*PROMPT, 4, 5, 6, 9], call=OTHER)
    assert left.tree is right.tree is not old.tree
    assert (left.cached, right.cached) == (53, 53)
    assert left.tree.log.used == 50 + 4 + 4  # the common part once
    assert seen(left) == [*PROMPT, 1, 2, 3, 8]
    assert seen(right) == [*PROMPT, 4, 5, 6, 9]


def test_little_in_common_is_computed_again() -> None:
    prefixes = Prefixes(Maker(), 1 << 20)
    run(prefixes, PROMPT)
    other = prefixes.begin([*PROMPT[:10], *range(500, 540)], 1, ONE, "")
    assert other.cached == 0


def test_a_branch_with_a_long_private_part_leaves_with_a_copy() -> None:
    prefixes = Prefixes(Maker(), 1 << 20)
    first = run(prefixes, PROMPT)
    other = run(prefixes, [*PROMPT[:30], *range(500, 520)], private=200)
    assert other.cached == 30
    assert other.tree is not first.tree
    assert seen(other) == [*PROMPT[:30], *range(500, 520)]
    assert seen(first) == PROMPT


def test_a_branch_with_a_short_private_part_joins() -> None:
    prefixes = Prefixes(Maker(), 1 << 20)
    first = run(prefixes, PROMPT)
    used = first.tree.log.used
    other = run(prefixes, [*PROMPT, 7, 8], private=5)
    assert other.tree is first.tree
    assert first.tree.log.used == used + 2
    assert seen(other) == [*PROMPT, 7, 8]


def test_a_tree_with_much_baggage_is_left() -> None:
    prefixes = Prefixes(Maker(), 1 << 20)
    first = run(prefixes, PROMPT)
    for i in range(40):
        run(prefixes, [*PROMPT, *range(1000 + 10 * i, 1004 + 10 * i)]).release()
    last = prefixes.begin([*PROMPT, 1], 1, ONE, "")
    assert last.tree is not first.tree
    assert last.cached == 50
    assert len(prefixes.trees) == 2


def test_idle_trees_go_oldest_first() -> None:
    prefixes = Prefixes(Maker(), 3 * 64 * COLUMN)
    texts = [[n * 1000 + i for i in range(40)] for n in range(4)]
    for text in texts[:3]:
        run(prefixes, text).release()
    assert [prefixes.shared(t, "") for t in texts] == [40, 40, 40, 0]
    prefixes.begin(texts[0], 1, ONE, "").release()
    run(prefixes, texts[3]).release()
    assert [prefixes.shared(t, "") for t in texts] == [40, 0, 40, 40]
    assert prefixes.nbytes <= 3 * 64 * COLUMN


def test_the_number_of_trees_is_bounded() -> None:
    prefixes = Prefixes(Maker(), 1 << 30)
    for n in range(MAX_TREES + 20):
        run(prefixes, [n * 100 + i for i in range(20)]).release()
    assert len(prefixes.trees) == MAX_TREES
    assert prefixes.shared([19 * 100 + i for i in range(20)], "") == 0
    assert prefixes.shared([20 * 100 + i for i in range(20)], "") == 20


def test_what_is_under_way_is_never_evicted() -> None:
    prefixes = Prefixes(Maker(), 2 * 64 * COLUMN)
    one = run(prefixes, [1000 + i for i in range(40)])
    two = run(prefixes, [2000 + i for i in range(40)])
    with pytest.raises(OutOfCache):
        prefixes.begin([3000 + i for i in range(40)], 1, ONE, "")
    two.release()
    three = run(prefixes, [3000 + i for i in range(40)])
    assert seen(one) == [1000 + i for i in range(40)]
    assert seen(three) == [3000 + i for i in range(40)]


def test_finished_branches_of_a_busy_tree_make_room() -> None:
    prefixes = Prefixes(Maker(), 200 * COLUMN)
    trunk = run(prefixes, PROMPT)
    for i in range(10):
        run(prefixes, [*PROMPT, *range(1000 + 100 * i, 1030 + 100 * i)]).release()
    assert seen(trunk) == PROMPT
    assert prefixes.nbytes <= 200 * COLUMN
    assert prefixes.trees[0].match(PROMPT) == trunk.branch.columns


def test_compaction_keeps_the_index_right() -> None:
    prefixes = Prefixes(Maker(), 1 << 20)
    trunk = run(prefixes, PROMPT)
    run(prefixes, [*PROMPT, 1, 2, 3]).release()
    kept = run(prefixes, [*PROMPT, 1, 9, 9])
    kept.tree.compact()
    assert seen(kept) == [*PROMPT, 1, 9, 9]
    assert seen(trunk) == PROMPT
    log = kept.tree.log
    for node in kept.tree.nodes():
        assert int(log.kv[0][0, 0, node.column, 0]) == node.token
    assert prefixes.shared([*PROMPT, 1, 2, 3], "") == 51
    compute(prefixes, kept, [4])
    assert prefixes.shared([*PROMPT, 1, 9, 9, 4], "") == 54


def test_two_branches_that_say_the_same() -> None:
    prefixes = Prefixes(Maker(), 1 << 20)
    trunk = run(prefixes, PROMPT)
    one, two = trunk.fork(), trunk.fork()
    for token in (5, 6):
        compute(prefixes, one, [token])
        compute(prefixes, two, [token])
    compute(prefixes, two, [7])
    one.release()
    prefixes.trees[0].compact()
    assert seen(two) == [*PROMPT, 5, 6, 7]


def test_a_device_that_is_full_before_the_budget_is_counts_as_a_full_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    prefixes = Prefixes(Maker(), 1 << 20)
    first = run(prefixes, PROMPT)
    held = seen(first)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(KVLog, "grow", full)
    monkeypatch.setattr(Maker, "open_log", full)
    for attempt in (lambda: prefixes.make_room(first.tree, 200), lambda: prefixes.begin([1, 2, 3], 1, OTHER, "")):
        with pytest.raises(OutOfCache, match="device has no memory") as caught:
            attempt()
        assert "kv_bytes" in caught.value.hint
    assert seen(first) == held
    assert len(prefixes.trees) == 1
