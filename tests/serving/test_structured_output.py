"""Grammars of JSON schemas over the tokens of each kind of tokenizer, one token at a time."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from reason.core.errors import CapabilityMissing, UserError
from reason.serving.local.tokenizer import Tokenizer
from reason.serving.logits_processors import ProcessorState
from reason.serving.model_files.find import find_model
from reason.serving.structured_output import TRIAL_SCHEMA, GrammarCompiler, is_trial
from support.tiny_gguf import TinyModel
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Fast

ENDS = ["<|pad|>", "<|end|>"]
PAIR = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "count": {"type": "integer", "minimum": 0}},
    "required": ["name", "count"],
    "additionalProperties": False,
}


def saved(fast: Fast, folder: Path) -> Tokenizer:
    fast.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ENDS])
    fast.save(str(folder / "tokenizer.json"))
    return Tokenizer(folder, "tiny")


def byte_level(folder: Path) -> Tokenizer:
    """Every byte, and some longer pieces that reach over JSON's own signs."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    longer = ['"na', '{"', '":', ',Ġ"', "Ġ", "ame", '"}', "12", "Ã©"]
    vocabulary = {t: i for i, t in enumerate(dict.fromkeys([*ENDS, *alphabet, *longer]))}
    fast = Fast(models.BPE(vocab=vocabulary, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    return saved(fast, folder)


def byte_fallback(folder: Path) -> Tokenizer:
    """As Llama 2 and Gemma have it: words behind a mark for a blank, bytes for whatever has no piece."""
    longer = ["\u2581", '{"', '\u2581"', "name", "\u25811", "é", '"}', "a"]
    pieces = [*ENDS, *(f"<0x{i:02X}>" for i in range(256)), *longer]
    fast = Fast(models.BPE(vocab={t: i for i, t in enumerate(pieces)}, merges=[], byte_fallback=True))
    fast.normalizer = normalizers.Replace(" ", "\u2581")
    fast.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return saved(fast, folder)


def from_gguf(folder: Path) -> Tokenizer:
    written = TinyModel().write(folder / "tiny.gguf")
    return Tokenizer(find_model(f"local/{written}", cache_dir=folder / "cache").directory, "tiny")


@pytest.fixture(params=[byte_level, byte_fallback, from_gguf])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    return request.param(tmp_path)


@pytest.fixture
def every_byte(tmp_path: Path) -> Tokenizer:
    return byte_level(tmp_path)


def grammars(tokenizer: Tokenizer) -> GrammarCompiler:
    """As of a model whose rows are longer than its tokenizer's vocabulary."""
    return GrammarCompiler(tokenizer, tokenizer.size + 3, {1}, "local/tiny")


def allowed(grammar, state, size: int) -> set[int]:
    row = grammar(np.zeros(size, dtype=np.float32), state)
    assert row.dtype == np.float32
    return {int(i) for i in np.flatnonzero(np.isfinite(row))}


def test_sampled_texts_satisfy_the_schema(tokenizer):
    held = grammars(tokenizer)
    grammar, size, rng = held.of(PAIR), tokenizer.size + 3, np.random.default_rng(3)
    for sample in range(20):
        said = []
        state = ProcessorState((), said, sample, eos_ids=frozenset({1}))
        while not grammar.ended(state):
            choices = sorted(allowed(grammar, state, size))
            assert choices, tokenizer.decode(said)
            assert max(choices) < tokenizer.size
            # as a model would: an end where it may come
            said.append(1 if 1 in choices else int(rng.choice(choices)))
            assert len(said) < 400
        text = tokenizer.decode(said)
        value = json.loads(text)
        jsonschema.validate(value, PAIR)
        assert json.dumps(value, ensure_ascii=False)[:10] == text[:10]  # laid out as Python does


def test_end_of_text_is_allowed_only_where_valid(tokenizer):
    held, size = grammars(tokenizer), tokenizer.size
    number, one = held.of({"type": "integer", "minimum": 0, "maximum": 99}), held.of({"const": "a"})
    seen = []
    for text in ("", "1", "12"):
        state = ProcessorState((), [i for digit in text for i in tokenizer.encode(digit)], 0)
        rest = allowed(number, state, size)
        seen.append((1 in rest, rest == {1}, number.ended(state)))
    assert seen == [(False, False, False), (True, False, False), (True, True, True)]
    whole = ProcessorState((), tokenizer.encode('"a"'), 0)
    assert (one.ended(whole), allowed(one, whole, size)) == (True, {1})


def test_samples_have_separate_states_and_can_be_rolled_back(every_byte):
    grammar, size = grammars(every_byte).of({"enum": ["ab", "cd"]}), every_byte.size
    states = ProcessorState((), [], 0), ProcessorState((), [], 1)
    a, b, c, d, quote = (every_byte.encode(t)[0] for t in 'abcd"')
    for sample, generated, rest in (
        (0, [], {quote}),
        (0, [quote, a], {b}),
        (1, [quote, c], {d}),
        (0, [quote, a], {b}),  # asked for the same place twice
        (0, [quote], {a, c}),  # an engine that begins again
        (0, [], {quote}),
    ):
        states[sample].generated_ids = generated
        assert allowed(grammar, states[sample], size) == rest


def test_a_row_is_never_changed_in_place(every_byte):
    row = np.arange(every_byte.size, dtype=np.float32)
    before = row.copy()
    masked = grammars(every_byte).of(PAIR)(row, ProcessorState((), [], 0))
    assert (row == before).all()
    kept = np.isfinite(masked)
    assert (masked[kept] == before[kept]).all()


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"type": "objec"}, "objec"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"$ref": "#/definitions/none"}, "does not exist"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}], "x-guidance": {"coerce_one_of": True}}, "oneOf"),
        ({"enum": []}, "Unsatisfiable"),
    ],
)
def test_invalid_or_unsupported_schemas_are_named(every_byte, schema, told):
    held = grammars(every_byte)
    for refuse in (held.check, held.of):
        with pytest.raises(UserError, match=told) as caught:
            refuse(schema)
        assert next(iter(schema)) in str(caught.value)
        assert (caught.value.param, caught.value.http_status) == ("json_schema", 400)
    held.check(PAIR)


def test_the_order_of_properties_is_the_schemas(every_byte):
    held = grammars(every_byte)
    turned = {**PAIR, "properties": dict(reversed(PAIR["properties"].items()))}
    for schema, first in ((PAIR, "n"), (turned, "c"), (PAIR, "n")):
        state = ProcessorState((), every_byte.encode('{"'), 0)
        assert allowed(held.of(schema), state, every_byte.size) == set(every_byte.encode(first))


def test_tokenizers_without_byte_tokens_are_unsupported(tmp_path, every_byte):
    fast = Fast(models.WordPiece(vocab={t: i for i, t in enumerate([*ENDS, "[UNK]", "a", "##b"])}, unk_token="[UNK]"))
    fast.decoder = decoders.WordPiece()
    held = grammars(saved(fast, tmp_path))
    assert not held.possible
    with pytest.raises(CapabilityMissing, match="json_schema"):
        held.of(PAIR)
    assert not GrammarCompiler(every_byte, every_byte.size, (), "local/tiny").possible  # nothing ends


def test_probe_text_satisfies_its_schema():
    jsonschema.validate({"zq": "q7"}, TRIAL_SCHEMA)
    assert all(map(is_trial, ('{ "zq":"q7"}\n', '{\n\n"zq"\n:\n"q7"\n\n\n')))
    assert not any(map(is_trial, ("", "q7", '{"zq": "q8"}', '{"zq": "q', '[{"zq": "q7"}]', 'So: {"zq": "q7"}')))
