"""Models that think on a real engine: the same prompts, splits and answers as the embedded engine's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from reason.core.messages import Completion, LogitsProcessorSpec, Prompt, Request, SamplingParams, Thought
from reason.core.settings import VllmSettings
from reason.serving.model_files.find import ModelFiles
from support.thinking_templates import R1, with_template

pytest.importorskip("vllm")
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

ASK = Prompt.user("What is 2 + 2?")
SETTINGS = VllmSettings(
    shared_workers=True,
    engine={
        "max_model_len": 512,
        "kv_cache_memory_bytes": 128 << 20,
        "dtype": "float32",
        "max_num_seqs": 16,
        "max_logprobs": -1,
    },
)
WORD = {
    "type": "object",
    "properties": {"w": {"enum": ["yes", "no"]}},
    "required": ["w"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def files(smollm2_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """SmolLM2 with a template that opens a thought."""
    return with_template(smollm2_files, tmp_path_factory.mktemp("thinks"), R1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(files: ModelFiles) -> AsyncIterator[Any]:
    from reason.serving.vllm.model import VllmModel

    model = await asyncio.to_thread(VllmModel.load, "vllm/thinks", files, SETTINGS)
    await model.check_logits_processors()
    yield model
    await model.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local(files: ModelFiles) -> AsyncIterator[Any]:
    from reason.serving.local.engine import LocalModel

    model = LocalModel.load(files, weight_format="fp32", threads=1, kv_cache_bytes=128 << 20)
    yield model
    await model.aclose()


def forces(model: Any, text: str, after: int) -> tuple[LogitsProcessorSpec, ...]:
    """Logits processors that force a text after some tokens; what follows is free."""
    return tuple(
        LogitsProcessorSpec(name="steer", args={key: [token], "weight": 1000.0, "first": first})
        for position, token in enumerate(model._tokenizer.encode(text), after)
        for key, first in (("ids", position + 1), ("away_ids", position))  # in favor of it at this position only
    )


def request(prompt: Prompt = ASK, **sampling: Any) -> Request:
    usual: dict[str, Any] = {"temperature": 0.0, "seed": 0, "max_tokens": 10, "logprobs": True}
    return Request(prompt=prompt, sampling=SamplingParams(**usual | sampling))


async def sample(model: Any, prompt: Prompt = ASK, **sampling: Any) -> Completion:
    [[completion]] = await model.generate([request(prompt, **sampling)])
    assert completion.ok, completion.failure
    return completion


async def test_thoughts_and_answers_are_the_embedded_engines(model, local):
    profile = model.capabilities.profile
    assert (profile.thinks, profile.prefix, profile.opened_by_template) == ("always", "thought", True)
    assert model.identity.endswith(profile.digest)
    chunks = []
    closes = forces(model, "</think>\n\nThe answer", 12)
    [[mine]] = await model.generate([request(logits_processors=closes)], chunks.append)
    theirs = await sample(local, logits_processors=closes)
    assert (mine.thought, mine.text, mine.answer_from) == (theirs.thought, theirs.text, theirs.answer_from)
    assert (mine.token_ids, mine.finish_reason) == (theirs.token_ids, theirs.finish_reason)
    assert mine.text.startswith("The answer")
    assert mine.answer_tokens == theirs.answer_tokens == 7
    assert mine.answer_logprobs == pytest.approx(theirs.answer_logprobs, abs=1e-3)
    assert "".join(c.text for c in chunks) == mine.text
    assert mine.thought is not None
    assert "".join(c.thought for c in chunks) == mine.thought.text
    closed = Thought(token_ids=mine.token_ids[: mine.answer_from])
    for engine in (model, local):
        [scored] = await engine.score(ASK.with_thought(closed), [mine.token_ids[mine.answer_from :]])
        assert scored.logprobs == pytest.approx(mine.answer_logprobs, abs=1e-3)


async def test_a_thought_is_continued_exactly_at_every_token(model, local):
    complete = await sample(model, thinking_tokens=16, ignore_eos=True)
    assert (complete.finish_reason, complete.text, len(complete.token_ids)) == ("thinking", "", 16)
    assert complete.token_ids == (await sample(local, thinking_tokens=16, ignore_eos=True)).token_ids
    ids = complete.token_ids
    cuts = range(1, 16, 3)
    prompts = [ASK.with_thought(Thought(token_ids=ids[:k], closed=False)) for k in cuts]
    rest = await model.generate(
        [request(p, thinking_tokens=16 - k, ignore_eos=True) for p, k in zip(prompts, cuts, strict=True)]
    )
    assert [one.token_ids for [one] in rest] == [ids[k:] for k in cuts]
    assert {one.finish_reason for [one] in rest} == {"thinking"}


async def test_caps_and_stops(model):
    closes = forces(model, " a## b</think>\n\nFour ## five", 2)
    answered = await sample(model, logits_processors=closes, max_tokens=1)
    assert (answered.text, answered.finish_reason, answered.answer_tokens) == ("Four", "length", 1)
    stopped = await sample(model, logits_processors=closes, max_tokens=30, stop=("##",))
    assert (stopped.text.strip(), stopped.finish_reason, stopped.stop_reason) == ("Four", "stop", "##")
    inside = ASK.with_thought(Thought(text="So", closed=False))
    step = await sample(model, inside, logits_processors=closes, max_tokens=30, stop=("##",))
    assert (step.text, step.finish_reason, step.stop_reason) == ("", "stop", "##")
    assert step.thought is not None
    assert step.thought.text.endswith(" a")
    quick = await sample(model, effort="none", max_tokens=4)
    assert (quick.thought, quick.answer_from, len(quick.token_ids)) == (None, 0, 4)


async def test_a_schema_constrains_the_answer_only(model, local):
    closes = forces(model, " done</think>", 6)
    mine, theirs = [await sample(m, logits_processors=closes, json_schema=WORD, max_tokens=30) for m in (model, local)]
    assert json.loads(mine.text) in ({"w": "yes"}, {"w": "no"})
    assert (mine.text, mine.thought, mine.answer_from) == (theirs.text, theirs.thought, theirs.answer_from)
    assert mine.thought is not None
    assert mine.thought.text.endswith(" done")
    quick = await sample(model, effort="none", json_schema=WORD, max_tokens=30)
    assert (quick.text, quick.thought) in (('{"w": "yes"}', None), ('{"w": "no"}', None))
