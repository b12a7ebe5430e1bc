"""llama.cpp's forward and memory as a `CausalLM`: logits, forks, stored prefixes, lost slots."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from reason.core.errors import DataError, UserError
from reason.serving import llama_cpp as model_module
from reason.serving.llama_cpp import LlamaCache, LlamaCppModel
from reason.serving.local.attention import TokenChunk
from reason.serving.local.kv_cache import SlotTable
from reason.serving.local.prefix_cache import PrefixCache
from support.tiny_gguf import PIECES, TinyModel
from torch import Tensor

HALF = 0.03
"""Keys and values are in half precision, and logits are up to 10 or so."""


def tokens(seed: int, count: int) -> list[int]:
    return [(seed * 31 + i * (7 + seed)) % len(PIECES) for i in range(count)]


def reference(token_ids: Sequence[int]) -> Tensor:
    """Logits of all positions by transformers."""
    with torch.inference_mode():
        logits: Tensor = TinyModel().transformers_model()(input_ids=torch.tensor([list(token_ids)])).logits[0]
    return logits


def compute(model: LlamaCppModel, cache: LlamaCache, table: SlotTable, token_ids: Sequence[int]) -> Tensor:
    return model.forward([TokenChunk(cache, table, token_ids, range(len(token_ids)))])


def cache_of(model: LlamaCppModel, capacity: int = 512) -> LlamaCache:
    cache = model.new_kv_cache(capacity)
    assert isinstance(cache, LlamaCache)
    return cache


def num_used(model: LlamaCppModel) -> int:
    """Sequences of llama.cpp that have tokens."""
    memory = model._memory
    ends = [memory._library.llama_memory_seq_pos_max(memory._memory, i) for i in range(64)]
    return sum(end >= 0 for end in ends)


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16])
def test_logits_are_those_of_transformers(llama_cpp, tiny_file, kind):
    model = LlamaCppModel(tiny_file(kind), "gguf/tiny", threads=1, kv_cache_bytes=1 << 18, max_num_seqs=4)
    token_ids = tokens(1, 40)
    cache = cache_of(model)
    assert torch.allclose(compute(model, cache, cache.new_table(), token_ids), reference(token_ids), atol=HALF)
    model.close()


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_0])
def test_low_bit_matrices_are_multiplied(llama_cpp, tiny_file, kind):
    model = LlamaCppModel(tiny_file(kind), "gguf/tiny", threads=1, kv_cache_bytes=1 << 18, max_num_seqs=4)
    token_ids = tokens(1, 40)
    exact = reference(token_ids)
    cache = cache_of(model)
    logits = compute(model, cache, cache.new_table(), token_ids)
    assert model.weight_format == kind.name.lower()
    assert torch.corrcoef(torch.stack([logits.flatten(), exact.flatten()]))[0, 1] > (0.99 if kind is Kind.Q8_0 else 0.8)
    model.close()


def test_sequences_of_a_step_do_not_see_one_another(decoder):
    shared, a, b = tokens(1, 20), tokens(2, 9), tokens(3, 5)
    cache, other = cache_of(decoder), cache_of(decoder)
    one, three = cache.new_table(), other.new_table()
    decoder.forward([TokenChunk(cache, one, shared, [])])
    two = cache.fork(one)
    logits = decoder.forward(
        [
            TokenChunk(cache, one, a, [len(a) - 1]),
            TokenChunk(cache, two, b, range(len(b))),
            TokenChunk(other, three, a, [0, 8]),
        ]
    )
    expected = [reference([*shared, *a])[-1:], reference([*shared, *b])[-len(b) :], reference(a)[[0, 8]]]
    assert torch.allclose(logits, torch.cat(expected), atol=HALF)


def test_a_step_is_cut_where_llama_cpp_takes_no_more(decoder, monkeypatch):
    monkeypatch.setattr(model_module, "BATCH_TOKENS", 16)
    monkeypatch.setattr(model_module, "BATCH_LOGITS", 5)
    cache, a, b = cache_of(decoder), tokens(2, 23), tokens(3, 19)
    chunks = [TokenChunk(cache, cache.new_table(), a, range(4, 23)), TokenChunk(cache, cache.new_table(), b, [18])]
    assert torch.allclose(decoder.forward(chunks), torch.cat([reference(a)[4:], reference(b)[18:]]), atol=HALF)


def test_a_prefix_stays_after_its_sequence_has_ended(decoder):
    cache, ids, more = cache_of(decoder), tokens(1, 30), tokens(4, 3)
    table = cache.new_table()
    compute(decoder, cache, table, ids)
    slots = list(table.slots)
    cache.free(table)
    again = cache.new_table(slots[:12])
    assert torch.allclose(compute(decoder, cache, again, more), reference([*ids[:12], *more])[12:], atol=HALF)


def test_slots_are_copied_into_another_cache_without_computing(decoder):
    source, target = cache_of(decoder), cache_of(decoder)
    ids, more = tokens(1, 30), tokens(4, 3)
    old, new = source.new_table(), target.new_table()
    compute(decoder, source, old, ids)
    compute(decoder, target, new, ids[:10])
    copies = target.copy_from(source, old.slots[10:25])
    table = target.new_table([*new.slots, *copies])
    source.close()
    assert torch.allclose(compute(decoder, target, table, more), reference([*ids[:25], *more])[25:], atol=HALF)


def test_compacting_keeps_what_running_sequences_see(decoder):
    cache, ids, more = cache_of(decoder), tokens(1, 20), tokens(4, 3)
    one = cache.new_table()
    compute(decoder, cache, one, ids)
    two = cache.fork(one)
    compute(decoder, cache, one, tokens(5, 6))
    compute(decoder, cache, two, more)
    cache.free(one)
    assert num_used(decoder) == 2
    moved = cache.compact()
    assert (num_used(decoder), cache.used, sorted(moved.values())) == (1, 23, list(range(23)))
    assert torch.allclose(compute(decoder, cache, two, more), reference([*ids, *more, *more])[-3:], atol=HALF)


def test_a_sequence_whose_tokens_others_have_is_not_stored(decoder):
    cache = cache_of(decoder)
    prompt = cache.new_table()
    compute(decoder, cache, prompt, tokens(1, 20))
    samples = [cache.fork(prompt) for _ in range(3)]
    cache.free(prompt)
    assert num_used(decoder) == 3
    for sample in samples:
        cache.free(sample)
        cache.free(sample)  # idempotent
    assert num_used(decoder) == 1


def test_of_too_many_stored_sequences_the_least_recently_used_is_dropped(decoder):
    limit = decoder._memory._num_stored
    caches = [cache_of(decoder, 64) for _ in range(limit + 1)]
    slots = []
    for i, cache in enumerate(caches):
        if i == limit:  # uses the oldest, so that the second oldest is dropped
            caches[0].free(caches[0].new_table(slots[0]))
        table = cache.new_table()
        compute(decoder, cache, table, tokens(i, 5))
        slots.append(list(table.slots))
        cache.free(table)
    kept = [len(cache.kept_run(own)) for cache, own in zip(caches, slots, strict=True)]
    assert kept == [5, 0, *[5] * (limit - 1)]
    assert num_used(decoder) == limit


def test_a_lost_prefix_is_computed_and_stored_again(decoder):
    prefixes = PrefixCache(decoder, 1 << 18)
    ids, call = tokens(1, 40), object()
    for expected in (0, 39, 0, 39):
        sequence = prefixes.start(ids, 1, call, "")
        assert sequence.num_cached == expected
        rest = ids[sequence.num_cached :]
        logits = decoder.forward([TokenChunk(sequence.tree.cache, sequence.table, rest, [len(rest) - 1])])
        assert torch.allclose(logits, reference(ids)[-1:], atol=HALF)
        sequence.record(rest)
        sequence.release()
        if expected:
            for number in list(decoder._memory._stored):
                decoder._memory._stored[number].drop(number)
    prefixes.close()
    assert num_used(decoder) == 0


def test_an_evicted_tree_leaves_the_memory(decoder):
    prefixes = PrefixCache(decoder, 100 * decoder.slot_bytes)
    for i in range(4):
        sequence = prefixes.start(tokens(i, 60), 1, object(), "")
        decoder.forward([TokenChunk(sequence.tree.cache, sequence.table, tokens(i, 60), [])])
        sequence.record(tokens(i, 60))
        sequence.release()
        assert num_used(decoder) == 1


def test_a_failed_call_leaves_the_batch_empty(decoder):
    cache = cache_of(decoder)
    table = cache.new_table()
    with pytest.raises(RuntimeError, match="llama.cpp returned -1: .*invalid token"):
        decoder.forward([TokenChunk(cache, table, [len(PIECES) + 5], [0])])
    ids = tokens(1, 6)
    assert torch.allclose(compute(decoder, cache, table, ids), reference(ids), atol=HALF)


def test_the_number_of_sequences_is_bounded(llama_cpp, tiny_file):
    with pytest.raises(UserError, match="max_num_seqs must be from 1 to 64 for gguf/tiny, got 65"):
        LlamaCppModel(tiny_file(Kind.F32), "gguf/tiny", threads=1, kv_cache_bytes=None, max_num_seqs=65)


def test_a_damaged_file_is_refused_with_llama_cpps_reason(llama_cpp, tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"no gguf" * 100)
    with pytest.raises(DataError, match=r"llama.cpp cannot load .*bad\.gguf: .*magic"):
        LlamaCppModel(tmp_path / "bad.gguf", "gguf/bad", threads=1, kv_cache_bytes=None, max_num_seqs=1)


def test_closing_twice_is_closing(llama_cpp, tiny_file):
    model = LlamaCppModel(tiny_file(Kind.F32), "gguf/tiny", threads=1, kv_cache_bytes=None, max_num_seqs=1)
    model.close()
    model.close()
