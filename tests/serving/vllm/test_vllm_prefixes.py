"""The connector on a real model: prefixes by name, as a server's clients use them, and fresh engines."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from reason.core.messages import Prompt, Request, SamplingParams
from reason.serving.local.tokenizer import Tokenizer
from reason.serving.model_files.find import ModelFiles

pytestmark = pytest.mark.real
BLOCK = 32
MIND = "The old lighthouse keeper wrote down the height of every wave, the colour of every sail. "
PROMPT = Prompt(text=MIND * 9 + "\nThe old")


@pytest.fixture(scope="module")
def ids(smollm2_files: ModelFiles) -> list[int]:
    return Tokenizer(smollm2_files.directory, smollm2_files.name).prompt_ids(PROMPT)


def ask(llm: Any, ids: Sequence[int], max_tokens: int = 8, **requested: Any) -> tuple[Any, Any]:
    """The output of a greedy request, and the connector's response."""
    from reason.serving.vllm.kv_transfer import TransferRequest, TransferResponse
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    extra = {"kv_transfer_params": TransferRequest(**requested).params()} if requested else None
    params = SamplingParams(
        max_tokens=max_tokens, temperature=0, ignore_eos=True, logprobs=0, detokenize=False, extra_args=extra
    )
    [output] = llm.generate([TokensPrompt(prompt_token_ids=list(ids))], params, use_tqdm=False)
    return output, TransferResponse.from_params(output.kv_transfer_params)


def said(output: Any) -> tuple[list[int], list[float]]:
    completion = output.outputs[0]
    ids = list(completion.token_ids)
    return ids, [row[i].logprob for row, i in zip(completion.logprobs, ids, strict=True)]


def cold(llm: Any, ids: Sequence[int], **requested: Any) -> tuple[Any, Any]:
    """Ask with nothing in the cache."""
    assert llm.reset_prefix_cache()
    return ask(llm, ids, **requested)


@pytest.fixture(scope="module")
def reference(llm: Any, ids: list[int]) -> tuple[list[int], list[float]]:
    """The model's text, and a prefix under the name `mind`."""
    output, reported = cold(llm, ids, save="mind")
    assert output.num_cached_tokens == 0
    assert (reported.code, reported.stored_tokens) == ("", len(ids) // BLOCK * BLOCK)
    return said(output)


@pytest.fixture
def directory(prefix_root: Path, reference: Any) -> Path:
    [directory] = prefix_root.glob("*/mind")
    return directory


def test_a_restored_prefix_gives_the_same_text(llm: Any, ids: list[int], reference: Any) -> None:
    output, reported = cold(llm, ids, restore="mind")
    stored = (len(ids) - 1) // BLOCK * BLOCK
    assert (reported.code, reported.read_tokens, output.num_cached_tokens) == ("", stored, stored)
    assert said(output)[0] == reference[0]
    assert said(output)[1] == pytest.approx(reference[1], abs=1e-3)


def test_a_changed_prompt_loads_only_the_common_full_blocks(llm: Any, ids: list[int], reference: Any) -> None:
    changed = [*ids[:100], *ids[40:90]]
    without, _ = cold(llm, changed)
    output, reported = cold(llm, changed, restore="mind")
    assert (reported.code, reported.read_tokens, output.num_cached_tokens) == ("", 96, 96)
    assert said(output)[0] == said(without)[0]
    assert said(output)[1] == pytest.approx(said(without)[1], abs=1e-3)
    other, reported = cold(llm, ids[50:], restore="mind")
    assert (reported.read_tokens, other.num_cached_tokens) == (0, 0)


def test_blocks_in_memory_are_not_read_again(llm: Any, ids: list[int], reference: Any) -> None:
    cold(llm, ids[:100])
    output, reported = ask(llm, ids, restore="mind")
    assert reported.read_tokens == output.num_cached_tokens - 96
    assert said(output)[0] == reference[0]


def test_a_damaged_prefix_is_a_miss(llm: Any, ids: list[int], reference: Any, directory: Path) -> None:
    [file] = directory.glob("*.safetensors")
    sound = file.read_bytes()
    damaged = bytearray(sound)
    damaged[len(sound) // 3] ^= 16
    try:
        file.write_bytes(damaged)
        output, reported = cold(llm, ids, restore="mind")
    finally:
        file.write_bytes(sound)
    assert (reported.code, reported.read_tokens, output.num_cached_tokens) == ("data_error", 0, 0)
    assert "SHA-256" in reported.message
    assert said(output)[0] == reference[0]


def test_damage_that_only_the_worker_sees_is_computed_instead(
    llm: Any, ids: list[int], reference: Any, directory: Path
) -> None:
    """The blocks were allocated and counted as cached; the engine must undo that."""
    attempt = directory.parent / ".partial-mind=test"
    shutil.copytree(directory, attempt)
    try:
        [file] = attempt.glob("*.safetensors")
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        output, reported = cold(llm, ids, read=str(attempt), pin="mind")
        again, _ = ask(llm, ids)
    finally:
        shutil.rmtree(attempt)
    assert (reported.code, reported.read_tokens, reported.pinned_blocks) == ("data_error", 0, 0)
    assert "SHA-256" in reported.message
    for made in (output, again):
        assert said(made)[0] == reference[0]
        assert said(made)[1] == pytest.approx(reference[1], abs=1e-3)


def test_invalid_requests_are_reported_and_change_nothing(
    llm: Any, ids: list[int], reference: Any, directory: Path
) -> None:
    for requested, words in (
        ({"restore": "mnid"}, "mind"),
        ({"restore": "../mind"}, "cannot name"),
        ({"save": "UP"}, "cannot name"),
        ({"read": str(directory)}, "no directory for prefixes"),
        ({"write": "/tmp"}, "no directory for prefixes"),
    ):
        output, reported = ask(llm, ids, **requested)
        assert words in reported.message
        assert reported.code in ("unknown_name", "user_error")
        assert said(output)[0] == reference[0]
    _, reported = ask(llm, ids[:20], save="short")
    assert "no full block" in reported.message


def test_a_save_of_a_single_step_is_published_too(llm: Any, ids: list[int], prefix_root: Path, reference: Any) -> None:
    _, reported = cold(llm, ids[:70], max_tokens=1, save="one-step")
    assert reported.stored_tokens == 0  # not known yet when the response was made
    ask(llm, ids[:40])
    _, reported = cold(llm, ids[:70], restore="one-step")
    assert reported.read_tokens == 64
    assert not list(prefix_root.glob("*/.partial*"))


@pytest.mark.asyncio(loop_scope="session")
async def test_another_engine_restores_it(vllm_model: Any, ids: list[int], reference: Any) -> None:
    """Saved by name in one engine, restored in a fresh one in processes of its own, through `KVStore`."""
    before = vllm_model.cache
    made = await vllm_model.kv_store.restore("mind")
    stored = len(ids) // BLOCK * BLOCK
    assert made.saved.stored == made.usage.cached_tokens == stored
    assert (vllm_model.cache - before).restored_tokens == stored
    sampling = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, logprobs=True)
    [[response]] = await vllm_model.generate([Request(prompt=PROMPT, sampling=sampling)])
    assert response.usage.cached_tokens == (len(ids) - 1) // BLOCK * BLOCK
    assert list(response.token_ids) == reference[0]
    assert response.logprobs == pytest.approx(reference[1], abs=1e-3)
    await vllm_model.kv_store.save("asked", Prompt(text=MIND * 5))
    await vllm_model.kv_store.drop("mind", keep_file=True)


def test_and_back(llm: Any, ids: list[int], smollm2_files: ModelFiles, reference: Any) -> None:
    saved = Tokenizer(smollm2_files.directory, smollm2_files.name).prompt_ids(Prompt(text=MIND * 5))
    _, reported = cold(llm, [*saved, 1, 2, 3], restore="asked")
    assert (reported.code, reported.read_tokens) == ("", len(saved) // BLOCK * BLOCK)
