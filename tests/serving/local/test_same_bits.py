"""Reproducible seeds in bf16: a row's bits do not depend on how the tokens before it were computed."""

import pytest
import torch
from reason.serving.local.attention import TokenChunk, num_padding_rows
from reason.serving.local.hardware import native_format
from reason.serving.local.kv_cache import align_slots
from reason.serving.local.model import Decoder

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(native_format() != "bf16", reason="this processor has no bf16 instructions"),
]


@pytest.fixture(scope="module")
def decoder(smollm2_files):
    return Decoder.load(smollm2_files.directory, "bf16")


@pytest.mark.parametrize("length", [33, 55, 100, 130, 300])
def test_a_chunked_prefill_has_the_bits_of_a_single_one(decoder, length):
    ids = torch.randint(100, 20000, (length,), generator=torch.Generator().manual_seed(length)).tolist()

    def computed(*cuts):
        log = decoder.new_kv_cache(length)
        branch = log.new_table()
        for start, stop in zip((0, *cuts), (*cuts, length), strict=True):
            logits = decoder.forward([TokenChunk(log, branch, ids[start:stop], [stop - start - 1])])
        return logits, [kv[:, :, :length] for kv in log.kv]

    with torch.inference_mode():
        complete, columns = computed()
        if length > decoder.max_invariant_rows:
            pytest.skip(f"this processor keeps bits in steps of up to {decoder.max_invariant_rows} rows")
        for cuts in ((length - 1,), (length - 2,), (length - 4,), (20,), (7, 21, length - 1)):
            logits, again = computed(*cuts)
            assert torch.equal(logits, complete), cuts
            assert all(torch.equal(a, b) for a, b in zip(again, columns, strict=True)), cuts


def test_query_blocks_are_never_left_with_one_to_three_rows():
    for rows in range(1, 1200):
        padded = rows + num_padding_rows(rows)
        block = 32 if rows < 192 else 64 if rows < 768 else 256
        assert padded % block not in (1, 2, 3)
        assert 0 <= padded - rows <= 3


def test_slots_come_in_full_groups():
    assert [align_slots(n) for n in (0, 1, 31, 32, 33, 65)] == [0, 32, 32, 32, 64, 96]


def test_a_token_has_the_same_bits_with_tokens_of_other_caches(decoder):
    def prompts():
        for i, length in enumerate((20, 75, 130, 31)):
            ids = torch.randint(100, 20000, (length,), generator=torch.Generator().manual_seed(i)).tolist()
            log = decoder.new_kv_cache(length + 8)
            branch = log.new_table()
            decoder.forward([TokenChunk(log, branch, ids, [])])
            yield TokenChunk(log, branch, [7 + i], [0])

    with torch.inference_mode():
        together = decoder.forward(list(prompts()))
        single = torch.cat([decoder.forward([span]) for span in prompts()])
    assert torch.equal(together, single)


def test_bits_do_not_depend_on_the_number_of_threads(decoder):
    def logits(num_threads):
        torch.set_num_threads(num_threads)
        ids = torch.randint(100, 20000, (200,), generator=torch.Generator().manual_seed(0)).tolist()
        cache = decoder.new_kv_cache(256)
        prompt = cache.new_table()
        yield decoder.forward([TokenChunk(cache, prompt, ids, [0, 199])])
        for count in (1, 8):
            tables = [cache.fork(prompt) for _ in range(count)]
            yield decoder.forward([TokenChunk(cache, table, [7 + i], [0]) for i, table in enumerate(tables)])

    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            one, two = list(logits(1)), list(logits(2))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
