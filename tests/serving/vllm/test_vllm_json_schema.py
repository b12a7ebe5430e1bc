"""JSON schemas on vLLM's engine: the same grammar as the embedded engine's, as a logits processor in vLLM's sampler."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from reason.core.errors import UserError
from reason.core.messages import LogitsProcessorSpec, Prompt, Request, SamplingParams

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.real]
ASK = Prompt.user("Tell me of an animal.")
ANIMAL: dict[str, Any] = {
    "type": "object",
    "properties": {
        "animal": {"type": "string", "enum": ["fox", "owl", "bee"]},
        "legs": {"type": "integer", "minimum": 2, "maximum": 6},
        "names": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 1, "maxItems": 2},
    },
    "required": ["animal", "legs", "names"],
    "additionalProperties": False,
}


def requested(schema: dict[str, Any] | None = ANIMAL, **sampling: Any) -> Request:
    given = {"temperature": 0.0, "max_tokens": 120, "seed": 2, "json_schema": schema}
    return Request(prompt=ASK, sampling=SamplingParams(**{"logprobs": True} | given | sampling))


async def test_texts_satisfy_the_schema_and_are_the_embedded_engines(vllm_model, smollm2_files):
    from reason.serving.local.engine import LocalModel

    assert vllm_model.capabilities.json_schema
    [[greedy], sampled, [free]] = await vllm_model.generate(
        [requested(), requested(temperature=1.0, n=4), requested(None, max_tokens=8)]
    )
    for completion in (greedy, *sampled):
        assert (completion.finish_reason, completion.stop_reason) == ("stop", "")
        jsonschema.validate(json.loads(completion.text), ANIMAL)
    assert len({c.text for c in sampled}) > 1
    assert "{" not in free.text
    local = LocalModel.load(smollm2_files, weight_format="fp32", threads=1, kv_cache_bytes=64 << 20)
    try:
        [[here]] = await local.generate([requested()])
        assert greedy.text == here.text
        # vLLM samples the end of the text; the embedded engine does not need it
        assert greedy.token_ids[:-1] == here.token_ids
        assert greedy.logprobs[:-1] == pytest.approx(here.logprobs, abs=1e-3)
    finally:
        await local.aclose()


async def test_logits_processors_act_within_the_schema_and_report(vllm_model):
    probe = LogitsProcessorSpec(name="entropy_probe")
    [[made]] = await vllm_model.generate([requested({"enum": ["fox", "owl"]}, logits_processors=(probe,))])
    assert made.text in ('"fox"', '"owl"')
    assert len(made.extras["entropy_probe"]["entropy"]) == len(made.token_ids)
    assert set(made.extras) == {"entropy_probe"}


async def test_a_schema_that_cannot_be_held_to_is_refused_and_ends_no_engine(vllm_model, monkeypatch):
    wrong = {"type": "array", "uniqueItems": True}
    with pytest.raises(UserError, match="uniqueItems"):
        await vllm_model.generate([requested(wrong)])
    with monkeypatch.context() as patch:  # what the engine itself does with it
        patch.setattr(vllm_model._grammars, "check", lambda schema: None)
        [[failed], [well]] = await vllm_model.generate([requested(wrong), requested()])
    assert failed.failure is not None
    assert failed.failure.code == "user_error"
    assert "uniqueItems" in failed.failure.message
    jsonschema.validate(json.loads(well.text), ANIMAL)
