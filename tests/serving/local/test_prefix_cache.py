from __future__ import annotations

import pytest
import torch
from reason.serving.local.kv_cache import KVCache
from reason.serving.local.prefix_cache import MAX_TREES, CachedSequence, OutOfCache, PrefixCache

SLOT_BYTES = 2 * 4


class Factory:
    slot_bytes = SLOT_BYTES

    def new_kv_cache(self, capacity: int) -> KVCache:
        return KVCache(1, 1, 1, torch.float32, capacity)


def compute(prefix_cache: PrefixCache, sequence: CachedSequence, ids: list[int]) -> None:
    """What the scheduler does for new tokens; a slot holds its token."""
    prefix_cache.make_room(sequence.tree, len(ids))
    cache = sequence.tree.cache
    slots = cache.allocate(len(ids))
    for slot, token in zip(slots, ids, strict=True):
        cache.kv[0][:, :, slot] = token
    cache.append(sequence.table, slots)
    sequence.record(ids)


def tokens_of(sequence: CachedSequence) -> list[int]:
    kv = sequence.tree.cache.kv[0]
    return [int(kv[0, 0, c, 0]) for c in sequence.table.slots]


ONE, OTHER = object(), object()
"""Two calls."""


def run(prefix_cache: PrefixCache, ids: list[int], num_new: int = 1, call: object = ONE) -> CachedSequence:
    sequence = prefix_cache.start(ids, num_new, call, "")
    compute(prefix_cache, sequence, ids[sequence.num_cached :])
    return sequence


PROMPT = list(range(100, 150))


def test_the_same_prompt_again_reuses_all_but_its_last_token():
    prefix_cache = PrefixCache(Factory(), 1 << 20)
    first = run(prefix_cache, PROMPT)
    first.release()
    again = prefix_cache.start(PROMPT, 1, ONE, "")
    assert again.num_cached == len(PROMPT) - 1
    assert again.tree is first.tree
    assert tokens_of(again) == PROMPT[:-1]


def test_another_call_copies_in_the_order_of_a_new_prompt():
    prefix_cache = PrefixCache(Factory(), 1 << 20)
    first = run(prefix_cache, PROMPT)
    for i in range(5):
        run(prefix_cache, [*PROMPT, 900 + i]).release()
    other = run(prefix_cache, [*PROMPT, 902, 7], call=OTHER)
    assert other.num_cached == len(PROMPT) + 1
    assert other.tree is not first.tree
    assert other.table.slots == list(range(len(PROMPT) + 2))
    assert tokens_of(other) == [*PROMPT, 902, 7]


def test_a_call_adds_slots_to_its_own_tree():
    prefix_cache = PrefixCache(Factory(), 1 << 20)
    old = run(prefix_cache, PROMPT)
    for tail in ([1, 2, 3], [4, 5, 6]):
        run(prefix_cache, [*PROMPT, *tail]).release()
    left = run(prefix_cache, [*PROMPT, 1, 2, 3, 8], call=OTHER)
    right = run(prefix_cache, [*PROMPT, 4, 5, 6, 9], call=OTHER)
    assert left.tree is right.tree is not old.tree
    assert (left.num_cached, right.num_cached) == (53, 53)
    assert left.tree.cache.used == 50 + 4 + 4  # the common part once
    assert tokens_of(left) == [*PROMPT, 1, 2, 3, 8]
    assert tokens_of(right) == [*PROMPT, 4, 5, 6, 9]


def test_short_common_prefix_is_computed_again():
    prefix_cache = PrefixCache(Factory(), 1 << 20)
    run(prefix_cache, PROMPT)
    other = prefix_cache.start([*PROMPT[:10], *range(500, 540)], 1, ONE, "")
    assert other.num_cached == 0


def test_a_sequence_with_a_long_private_part_moves_to_a_copy():
    prefix_cache = PrefixCache(Factory(), 1 << 20)
    first = run(prefix_cache, PROMPT)
    other = run(prefix_cache, [*PROMPT[:30], *range(500, 520)], num_new=200)
    assert other.num_cached == 30
    assert other.tree is not first.tree
    assert tokens_of(other) == [*PROMPT[:30], *range(500, 520)]
    assert tokens_of(first) == PROMPT


def test_a_sequence_with_a_short_private_part_joins():
    prefix_cache = PrefixCache(Factory(), 1 << 20)
    first = run(prefix_cache, PROMPT)
    used = first.tree.cache.used
    other = run(prefix_cache, [*PROMPT, 7, 8], num_new=5)
    assert other.tree is first.tree
    assert first.tree.cache.used == used + 2
    assert tokens_of(other) == [*PROMPT, 7, 8]


def test_tree_with_many_foreign_slots_is_not_joined():
    prefix_cache = PrefixCache(Factory(), 1 << 20)
    first = run(prefix_cache, PROMPT)
    for i in range(40):
        run(prefix_cache, [*PROMPT, *range(1000 + 10 * i, 1004 + 10 * i)]).release()
    last = prefix_cache.start([*PROMPT, 1], 1, ONE, "")
    assert last.tree is not first.tree
    assert last.num_cached == 50
    assert len(prefix_cache.trees) == 2


def test_idle_trees_are_evicted_oldest_first():
    prefix_cache = PrefixCache(Factory(), 3 * 64 * SLOT_BYTES)
    texts = [[n * 1000 + i for i in range(40)] for n in range(4)]
    for text in texts[:3]:
        run(prefix_cache, text).release()
    assert [prefix_cache.match_length(t, "") for t in texts] == [40, 40, 40, 0]
    prefix_cache.start(texts[0], 1, ONE, "").release()
    run(prefix_cache, texts[3]).release()
    assert [prefix_cache.match_length(t, "") for t in texts] == [40, 0, 40, 40]
    assert prefix_cache.nbytes <= 3 * 64 * SLOT_BYTES


def test_the_number_of_trees_is_bounded():
    prefix_cache = PrefixCache(Factory(), 1 << 30)
    for n in range(MAX_TREES + 20):
        run(prefix_cache, [n * 100 + i for i in range(20)]).release()
    assert len(prefix_cache.trees) == MAX_TREES
    assert prefix_cache.match_length([19 * 100 + i for i in range(20)], "") == 0
    assert prefix_cache.match_length([20 * 100 + i for i in range(20)], "") == 20


def test_an_evicted_tree_frees_its_cache_at_once():
    prefix_cache = PrefixCache(Factory(), 1 << 20)
    sequence = run(prefix_cache, PROMPT)  # still referenced here
    sequence.release()
    prefix_cache.evict_idle()
    assert prefix_cache.trees == ()
    assert sequence.tree.cache.kv == []


class LossyCache(KVCache):
    """Loses the slots that a test names, as a memory of its own kind may."""

    lost: frozenset[int] = frozenset()

    def keeps(self, slot: int) -> bool:
        return slot not in self.lost

    def kept_run(self, slots: list[int]) -> list[int]:
        return slots[: next((i for i, slot in enumerate(slots) if slot in self.lost), len(slots))]


def test_lost_slots_are_computed_and_stored_again(monkeypatch):
    monkeypatch.setattr(Factory, "new_kv_cache", lambda self, size: LossyCache(1, 1, 1, torch.float32, size))
    prefix_cache = PrefixCache(Factory(), 1 << 20)
    first = run(prefix_cache, PROMPT)
    cache = first.tree.cache
    assert isinstance(cache, LossyCache)
    cache.lost = frozenset(first.table.slots[30:40])
    assert prefix_cache.match_length(PROMPT, "") == 30
    again = run(prefix_cache, PROMPT)
    assert (again.num_cached, tokens_of(again)) == (30, PROMPT)
    assert prefix_cache.match_length(PROMPT, "") == len(PROMPT)


def test_running_sequences_are_never_evicted():
    prefix_cache = PrefixCache(Factory(), 2 * 64 * SLOT_BYTES)
    one = run(prefix_cache, [1000 + i for i in range(40)])
    two = run(prefix_cache, [2000 + i for i in range(40)])
    with pytest.raises(OutOfCache):
        prefix_cache.start([3000 + i for i in range(40)], 1, ONE, "")
    two.release()
    three = run(prefix_cache, [3000 + i for i in range(40)])
    assert tokens_of(one) == [1000 + i for i in range(40)]
    assert tokens_of(three) == [3000 + i for i in range(40)]


def test_finished_sequences_of_a_busy_tree_are_evicted():
    prefix_cache = PrefixCache(Factory(), 200 * SLOT_BYTES)
    prompt = run(prefix_cache, PROMPT)
    for i in range(10):
        run(prefix_cache, [*PROMPT, *range(1000 + 100 * i, 1030 + 100 * i)]).release()
    assert tokens_of(prompt) == PROMPT
    assert prefix_cache.nbytes <= 200 * SLOT_BYTES
    assert prefix_cache.trees[0].match(PROMPT) == prompt.table.slots


def test_compaction_keeps_the_index_right():
    prefix_cache = PrefixCache(Factory(), 1 << 20)
    prompt = run(prefix_cache, PROMPT)
    run(prefix_cache, [*PROMPT, 1, 2, 3]).release()
    kept = run(prefix_cache, [*PROMPT, 1, 9, 9])
    kept.tree.compact()
    assert tokens_of(kept) == [*PROMPT, 1, 9, 9]
    assert tokens_of(prompt) == PROMPT
    cache = kept.tree.cache
    for node in kept.tree.nodes():
        assert int(cache.kv[0][0, 0, node.slot, 0]) == node.token
    assert prefix_cache.match_length([*PROMPT, 1, 2, 3], "") == 51
    compute(prefix_cache, kept, [4])
    assert prefix_cache.match_length([*PROMPT, 1, 9, 9, 4], "") == 54


def test_two_sequences_with_the_same_tokens():
    prefix_cache = PrefixCache(Factory(), 1 << 20)
    prompt = run(prefix_cache, PROMPT)
    one, two = prompt.fork(), prompt.fork()
    for token in (5, 6):
        compute(prefix_cache, one, [token])
        compute(prefix_cache, two, [token])
    compute(prefix_cache, two, [7])
    one.release()
    prefix_cache.trees[0].compact()
    assert tokens_of(two) == [*PROMPT, 5, 6, 7]
