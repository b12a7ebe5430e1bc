"""SmolLM2-135M under JSON schemas: what it writes is JSON that satisfies them, greedy and sampled."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest
from reason.core.messages import Completion, Prompt, Request, SamplingParams
from reason.serving.local.engine import LocalModel
from reason.serving.logits_processors import LogitsProcessor, ProcessorState
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


def grammar_of(model: LocalModel, schema: dict[str, Any]) -> LogitsProcessor:
    return GrammarCompiler(model._tokenizer, model._config.vocab_size, model._eos, "fresh").of(schema)


def check(completion: Completion, schema: dict[str, Any]) -> None:
    assert (completion.finish_reason, completion.stop_reason) == ("stop", "")
    jsonschema.validate(json.loads(completion.text), schema)


async def test_each_token_is_the_most_likely_allowed_one(smollm2):
    schema = {"type": "object", "properties": {"animal": {"enum": ["fox", "owl"]}}, "required": ["animal"]}
    schema |= {"additionalProperties": False}
    prompt = Prompt.user("Which animal hunts mice at night?")
    sampling = SamplingParams(temperature=0, max_tokens=20, logprobs=True, json_schema=schema)
    [[made]] = await smollm2.generate([Request(prompt=prompt, sampling=sampling)])
    check(made, schema)
    ids, vocab, grammar = made.token_ids, smollm2._config.vocab_size, grammar_of(smollm2, schema)
    assert made.logprobs is not None
    raw = await smollm2.next_token([prompt.with_prefix(ids[:at]) for at in range(len(ids))], top=vocab)
    for at, distribution in enumerate(raw):
        row = np.full(vocab, -np.inf, dtype=np.float32)
        row[list(distribution.token_ids)] = distribution.logprobs
        best = int(grammar(row, ProcessorState((), list(ids[:at]), 0)).argmax())
        assert best == ids[at]
        assert made.logprobs[at] == pytest.approx(float(row[best]), abs=1e-3)


@pytest.mark.nightly
@pytest.mark.parametrize("schema", [ANIMAL, COLOURS, NESTED, UNICODE], ids=["object", "array", "nested", "unicode"])
async def test_what_it_writes_satisfies_the_schema(smollm2, schema):
    prompt = Prompt.user(f"Tell me something about nature, as JSON of this form: {json.dumps(schema)[:80]}")
    requests = [
        Request(
            prompt=prompt, sampling=SamplingParams(temperature=heat, n=n, seed=2, max_tokens=160, json_schema=schema)
        )
        for heat, n in ((0, 1), (1.0, 4))
    ]
    grammar = grammar_of(smollm2, schema)
    for completion in [c for made in await smollm2.generate(requests) for c in made]:
        check(completion, schema)
        ids = completion.token_ids
        for at, token in enumerate(ids):
            row = grammar(np.zeros(smollm2._config.vocab_size, dtype=np.float32), ProcessorState((), list(ids[:at]), 0))
            assert np.isfinite(row[token])
        assert grammar.ended(ProcessorState((), list(ids), 0))
