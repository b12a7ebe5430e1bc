"""The contract of named prefixes on vLLM, with a tiny model, and the specifics of this engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from reason.core.errors import ContextTooLong, UserError
from reason.core.messages import Prompt, Request, SamplingParams
from reason.core.settings import VllmSettings
from reason.serving.kv_store import PrefixTooLarge
from reason.serving.model_files.find import ModelFiles
from reason.serving.prefix_directory import PrefixStorage
from support.kv_store_contract import *  # noqa: F403
from support.kv_store_contract import Bench

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]
BLOCK = 32
LIMIT = 1_300_000
SETTINGS = VllmSettings(dtype="float32", max_model_len=2048, max_num_seqs=16, kv_cache_bytes=3 << 20)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(_vllm: None, tiny_vllm_files: ModelFiles, tmp_path_factory: Any) -> AsyncIterator[Any]:
    """A model whose engine lasts for the module."""
    from reason.serving.vllm.model import VllmModel

    storage = PrefixStorage(tmp_path_factory.mktemp("kv-tiny") / "prefixes", LIMIT)
    model = await asyncio.to_thread(VllmModel.load, "vllm/tiny", tiny_vllm_files, SETTINGS, storage)
    await model.check_engine()
    yield model
    await model.aclose()


async def forgotten(model: Any, files: ModelFiles) -> Any:
    """Another `VllmModel` on the same engine, without its state: starting an engine needs half a minute."""
    from reason.serving.local.tokenizer import Tokenizer
    from reason.serving.vllm.model import VllmModel

    for state in await model.kv_store.saved():
        if state.pinned:
            await model.kv_store.drop(state.saved.name, keep_file=True)
    assert await model.engine.reset_prefix_cache(), "something still holds blocks"
    tokenizer = Tokenizer(files.directory, model.name)
    other = VllmModel(model.name, files, model._running_engine, tokenizer, model._prefix_storage)
    await other.check_engine()
    return other


async def push_out(model: Any) -> None:
    """Other prompts, until the cache has been filled."""
    for i in range(5):
        text = "".join(chr(97 + (i * 7 + j * (i + 3)) % 26) for j in range(1000))
        await model.generate([Request(prompt=Prompt(text=text), sampling=SamplingParams(max_tokens=1, temperature=0))])


@pytest_asyncio.fixture(loop_scope="module")
async def bench(engine: Any, tiny_vllm_files: ModelFiles) -> AsyncIterator[Bench]:
    root = engine._prefix_storage.root

    async def open_again(model: Any) -> Any:
        return await forgotten(model, tiny_vllm_files)

    bench = Bench(
        await forgotten(engine, tiny_vllm_files),
        root,
        open_again,
        push_out,
        granule=BLOCK,
        tolerance=1e-4,
        too_large=Prompt(text="x" * 1900),
    )
    yield bench
    for state in await bench.store.saved():
        await bench.store.drop(state.saved.name)
    assert await bench.store.saved() == []
    assert bench.partial() == []
    assert bench.model.num_running == 0


async def test_pins_leave_room_for_a_complete_context(bench: Bench) -> None:
    from reason.serving.vllm.kv_store import transfer
    from reason.serving.vllm.kv_transfer import TransferRequest

    engine, reported = bench.model.engine, []
    for c in "abcd":
        reported.append((await transfer(engine, [ord(c)] * 700, TransferRequest(pin=c), 1))[0])
    assert [t.pinned_blocks for t in reported] == [21, 21, 21, 0]
    assert reported[3].code == PrefixTooLarge.code
    assert "maximum is 63" in reported[3].message
    assert (await bench.reply(Prompt(text="z" * 2000))).ok
    _, usage = await transfer(engine, [ord("a")] * 700, TransferRequest(unpin=tuple("abcd")), 1)
    assert usage.cached_tokens == 672
    assert await engine.reset_prefix_cache()


async def test_a_prompt_below_a_block_and_one_beyond_the_context_are_refused(bench: Bench) -> None:
    with pytest.raises(UserError, match="full blocks of 32"):
        await bench.store.save("short", Prompt(text="x" * (BLOCK - 1)))
    with pytest.raises(ContextTooLong):
        await bench.store.save("long", Prompt(text="x" * 2047))


async def test_blocks_stored_and_evicted_are_counted(bench: Bench) -> None:
    before = bench.model.cache
    await push_out(bench.model)
    async with asyncio.timeout(60):
        while True:
            since = bench.model.cache - before
            if since.evicted_blocks and since.stored_blocks == 5 * (1000 // BLOCK):
                break
            await asyncio.sleep(0.02)
    assert since.lost_events == 0
    assert since.queried_tokens == 5000
    assert since.hit_tokens == 0
