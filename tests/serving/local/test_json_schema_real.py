"""SmolLM2-135M under JSON schemas: what it writes is JSON that satisfies them, greedy and sampled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import numpy as np
import pytest
from reason.core.messages import Prompt, Request, SamplingParams
from reason.serving.local.engine import LocalModel
from reason.serving.logits_processors import ProcessorState
from reason.serving.model_files.find import ModelFiles
from reason.serving.structured_output import GrammarCompiler

pytestmark = pytest.mark.real

ANIMAL: dict[str, Any] = {
    "type": "object",
    "properties": {
        "animal": {"type": "string", "enum": ["fox", "owl", "bee"]},
        "legs": {"type": "integer", "minimum": 2, "maximum": 6},
        "size_m": {"type": "number", "minimum": 0, "maximum": 3},
    },
    "required": ["animal", "legs", "size_m"],
    "additionalProperties": False,
}
COLOURS = {"type": "array", "items": {"type": "string", "maxLength": 16}, "minItems": 2, "maxItems": 4}
NESTED = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 24},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}, "minItems": 1, "maxItems": 2},
    },
    "required": ["title", "parts"],
    "additionalProperties": False,
    "$defs": {
        "part": {
            "type": "object",
            "properties": {"name": {"type": ["string", "null"], "maxLength": 12}, "new": {"type": "boolean"}},
            "required": ["name", "new"],
            "additionalProperties": False,
        }
    },
}
UNICODE = {
    "type": "object",
    "properties": {"grüße": {"enum": ["日本語", "naïve café", '👩‍👩‍👧 "quoted"\n']}, "é": {"const": "ß"}},
    "required": ["grüße", "é"],
    "additionalProperties": False,
}
CASES = {"object": ANIMAL, "array": COLOURS, "nested": NESTED, "unicode": UNICODE}


@pytest.fixture(scope="module")
def smollm2(smollm2_files: ModelFiles) -> Iterator[LocalModel]:
    model = LocalModel.load(smollm2_files, weight_format="fp32", threads=1)
    yield model
    asyncio.run(model.aclose())


@pytest.fixture(scope="module")
def fresh(smollm2: LocalModel) -> GrammarCompiler:
    return GrammarCompiler(smollm2._tokenizer, smollm2._config.vocab_size, smollm2._eos, "fresh")


@pytest.mark.parametrize("name", CASES)
async def test_what_it_writes_satisfies_the_schema(smollm2: LocalModel, fresh: GrammarCompiler, name: str) -> None:
    schema, vocab = CASES[name], smollm2._config.vocab_size
    prompt = Prompt.user(f"Tell me something about nature, as JSON of this form: {json.dumps(schema)[:80]}")
    requests = [
        Request(
            prompt=prompt,
            sampling=SamplingParams(temperature=heat, n=n, seed=2, max_tokens=160, json_schema=schema),
        )
        for heat, n in ((0, 1), (1.0, 4))
    ]
    grammar = fresh.of(schema)
    for completion in [c for made in await smollm2.generate(requests) for c in made]:
        assert (completion.finish_reason, completion.stop_reason) == ("stop", "")
        jsonschema.validate(json.loads(completion.text), schema)
        ids = completion.token_ids
        for at, token in enumerate(ids):
            row = grammar(np.zeros(vocab, dtype=np.float32), ProcessorState((), list(ids[:at]), 0))
            assert np.isfinite(row[token])
        assert grammar.ended(ProcessorState((), list(ids), 0))


async def test_it_is_the_most_likely_allowed_token_each_time(smollm2: LocalModel, fresh: GrammarCompiler) -> None:
    prompt = Prompt.user("Which animal hunts mice at night?")
    [[made]] = await smollm2.generate(
        [
            Request(
                prompt=prompt, sampling=SamplingParams(temperature=0, max_tokens=60, logprobs=True, json_schema=ANIMAL)
            )
        ]
    )
    ids, vocab = made.token_ids, smollm2._config.vocab_size
    assert made.logprobs is not None
    spread = await smollm2.next_token([prompt.with_prefix(ids[:at]) for at in range(len(ids))], top=vocab)
    for at, seen in enumerate(spread):
        row = np.full(vocab, -np.inf, dtype=np.float32)
        row[list(seen.token_ids)] = seen.logprobs
        best = int(fresh.of(ANIMAL)(row, ProcessorState((), list(ids[:at]), 0)).argmax())
        assert best == ids[at]
        assert made.logprobs[at] == pytest.approx(float(row[best]), abs=1e-3)
