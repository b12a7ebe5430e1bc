"""Salts, tools and calls of `VllmModel`, on a tiny model whose template shows tools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from reason.core.messages import Prompt, Request, SamplingParams, Tool
from reason.core.settings import VllmSettings
from reason.serving.model_files.find import ModelFiles
from support.tool_template import with_tool_template

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real, pytest.mark.slow]
BLOCK = 32
SETTINGS = VllmSettings(
    engine={"max_model_len": 2048, "kv_cache_memory_bytes": 8 << 20, "dtype": "float32", "max_num_seqs": 16}
)
TEXT = "The old lighthouse keeper wrote down the height of every wave, the colour of every sail. " * 2
FULL = (len(TEXT) - 1) // BLOCK * BLOCK
PICK = Tool(
    name="pick",
    parameters={
        "type": "object",
        "properties": {"number": {"type": "integer", "enum": [3, 7]}},
        "required": ["number"],
        "additionalProperties": False,
    },
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(_vllm: None, tiny_vllm_files: ModelFiles, tmp_path_factory: Any) -> AsyncIterator[Any]:
    from reason.serving.vllm.model import VllmModel

    directory: Path = tmp_path_factory.mktemp("tools") / "tiny"
    files = with_tool_template(tiny_vllm_files, directory)
    opened = await asyncio.to_thread(VllmModel.load, "vllm/tiny", files, SETTINGS)
    await opened.check_logits_processors()
    yield opened
    await opened.aclose()


async def test_a_tenant_shares_with_itself_only(model):
    async def requested(salt: str) -> int:
        sampling = SamplingParams(temperature=0, max_tokens=4, seed=1, ignore_eos=True)
        [[made]] = await model.generate([Request(prompt=Prompt(text=TEXT).with_cache_salt(salt), sampling=sampling)])
        return made.usage.cached_tokens

    assert [await requested(salt) for salt in ("acme", "other", "", "acme", "other", "")] == [0, 0, 0, FULL, FULL, FULL]
    [scored] = await model.score(Prompt(text=TEXT).with_cache_salt("third"), [" a"])
    [again] = await model.score(Prompt(text=TEXT).with_cache_salt("acme"), [" a"])
    assert (scored.usage.cached_tokens, again.usage.cached_tokens) == (0, FULL)
    assert scored.logprobs == pytest.approx(again.logprobs, abs=1e-3)
    reported = await model.next_token([Prompt(text=TEXT).with_cache_salt(salt) for salt in ("fourth", "acme")], top=1)
    assert [t.usage.cached_tokens for t in reported] == [0, FULL]


async def test_a_required_tool_is_called(model):
    assert model.capabilities.tools
    prompt = Prompt.user("pick").model_copy(update={"tools": (PICK,), "tool_choice": "pick"})
    sampling = SamplingParams(max_tokens=80, seed=2, n=3)
    pieces = []
    [made] = await model.generate([Request(prompt=prompt, sampling=sampling)], pieces.append)
    for completion in made:
        assert (completion.text, completion.finish_reason) == ("", "stop")
        [call] = completion.tool_calls
        assert (call.name, call.parsed_arguments) in (("pick", {"number": 3}), ("pick", {"number": 7}))
    assert "".join(p.text for p in pieces) == ""
    assert {p.completion.sample_index: p.completion for p in pieces if p.completion} == dict(enumerate(made))
