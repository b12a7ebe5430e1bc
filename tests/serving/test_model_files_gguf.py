"""Conversion of GGUF files: exact weights, every family, and damaged or unsupported files."""

import contextlib
import json
import random
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from reason.core.errors import DataError, ReasonError
from reason.serving.local.gguf import convert
from reason.serving.model_files.checkpoint import check_model_directory, weight_types
from reason.serving.model_files.downloads import PullTask
from transformers import AutoModelForCausalLM, AutoTokenizer

FAMILIES = [
    {"family": "llama"},
    {"family": "llama", "tied": False, "kv_heads": 4},
    {"family": "qwen2", "rule": "qwen2", "tied": False},
    {"family": "qwen3", "rule": "qwen2", "head_dim": 16},
    {"family": "gemma3", "head_dim": 16, "layers": 7, "theta": 1e6},
]


@pytest.mark.parametrize("options", FAMILIES, ids=lambda o: "-".join(map(str, o.values())))
def test_converted_model_computes_the_same_logits(options, tiny_model, tmp_path, find):
    tiny = tiny_model(**options)
    folder = find(tiny.write(tmp_path / "m.gguf")).directory
    check_model_directory(folder)
    assert set(weight_types(folder)) == {"BF16"}
    original = tiny.transformers_model()
    converted = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([[5, 200, 17, 260, 9, 33, 4]])
    with torch.no_grad():
        assert torch.equal(converted(ids).logits, original(ids).logits)
    assert converted.config.tie_word_embeddings == tiny.tied


def bfloat16(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)


def test_quantised_weights_are_dequantised_and_rounded_to_bf16(tiny_model, tmp_path, find):
    path = tiny_model().write(tmp_path / "q.gguf", gguf.GGMLQuantizationType.Q8_0)
    stored = {t.name: t for t in gguf.GGUFReader(path).tensors}["blk.1.ffn_down.weight"]
    assert stored.tensor_type == gguf.GGMLQuantizationType.Q8_0
    expected = torch.from_numpy(gguf.dequantize(stored.data, stored.tensor_type)).bfloat16()
    assert torch.equal(bfloat16(find(path).directory).model.layers[1].mlp.down_proj.weight, expected)


def test_a_large_model_is_written_in_several_files(tiny_gguf, find, monkeypatch):
    one = find(tiny_gguf, "one").directory
    monkeypatch.setattr("reason.serving.local.gguf.SHARD_BYTES", 10_000)
    several = find(tiny_gguf, "several").directory
    assert len(list(several.glob("model-*-of-*.safetensors"))) > 2
    check_model_directory(several)
    first, second = (bfloat16(folder).state_dict() for folder in (one, several))
    assert all(torch.equal(first[name], second[name]) for name in first)


def json_file(folder, name):
    return json.loads((folder / name).read_text())


def test_configuration_and_tokenizer_files(tiny_gguf, find):
    folder = find(tiny_gguf).directory
    expected = {
        "model_type": "llama",
        "rope_theta": 100000.0,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 512,
        "num_key_value_heads": 2,
    }
    assert json_file(folder, "config.json").items() >= expected.items()
    generation = {"bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 2}
    assert json_file(folder, "generation_config.json") == generation
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n"
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("<|im_end|>", "<|im_start|>")


def test_same_file_anywhere_has_the_same_fingerprint_and_is_converted_once(tiny_gguf, tmp_path, find):
    copy = shutil.copy(tiny_gguf, tmp_path / "copy.gguf")
    first = find(tiny_gguf)
    stages = []
    second = find(copy, progress=lambda stage, *_: stages.append(stage))
    assert (first.directory, first.fingerprint) == (second.directory, second.fingerprint)
    assert "converting" not in stages
    third = find(copy, "elsewhere")
    assert third.fingerprint == first.fingerprint
    for file in first.directory.iterdir():
        assert file.read_bytes() == (third.directory / file.name).read_bytes() or file.name == "reason.json"


def test_llama3_rotary_factors_become_configuration(tiny_model, tmp_path, find):
    tiny = tiny_model(theta=500000.0)
    half = tiny.hidden // tiny.heads // 2
    wavelengths = 2 * np.pi * 500000.0 ** (np.arange(half) / half)
    ramp = np.clip((8192 / wavelengths - 1) / 3, 0, 1)
    path = _with_tensor(tiny, "rope_freqs.weight", 1 / ((1 - ramp) / 32 + ramp)).write(tmp_path / "scaled.gguf")
    assert json_file(find(path).directory, "config.json")["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    odd = _with_tensor(tiny, "rope_freqs.weight", [1.0, 7.0, 2.0, 32.0])
    with pytest.raises(DataError, match="rotary factors"):
        find(odd.write(tmp_path / "odd.gguf"))


def _with_tensor(tiny, name, values):
    tensors = {**tiny._tensors(), name: np.array(values, np.float32)}
    tiny._tensors = lambda: tensors
    return tiny


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"general.architecture": "mamba"}, "unsupported architecture 'mamba'"),
        ({"llama.expert_count": 8}, "mixture of experts"),
        ({"tokenizer.ggml.model": "llama"}, "unsupported tokenizer 'llama'"),
        ({"tokenizer.ggml.pre": "unheard-of"}, "unsupported pre-tokenizer 'unheard-of'"),
        ({"tokenizer.ggml.tokens": None}, "has no tokenizer"),
        ({"tokenizer.ggml.eos_token_id": None}, "eos_token_id is missing"),
        ({"tokenizer.ggml.eos_token_id": 9999}, "eos token 9999"),
        ({"tokenizer.ggml.merges": ["zz yy"]}, "tokenizer is inconsistent"),
        ({"llama.rope.scaling.type": "longrope"}, "rotary scaling 'longrope'"),
    ],
)
def test_unsupported_files_are_named(fields, says, tiny_model, tmp_path, find):
    path = tiny_model(fields=fields).write(tmp_path / "odd.gguf")
    with pytest.raises(DataError, match=says) as caught:
        find(path)
    assert "odd.gguf" in caught.value.message
    assert not [p for p in (tmp_path / "cache" / "models").glob("*") if p.name != ".locks"]


SENTENCEPIECE = ["<unk>", "<bos>", "<eos>", *(f"<0x{byte:02X}>" for byte in range(256)), "  ", "\n\n", "<b>"]
MERGED = {"▁t": 0.0, "he": -1.0, "▁the": -2.0, "in": -3.0, "th": -4.0, "the": -5.0, "ab": -6.0, "ba": -7.0, "aba": -8.0}


def _sentencepiece(tiny_model, **fields):
    pieces = [*SENTENCEPIECE, *MERGED, *"▁theinabcd"]
    pieces += [f"<spare{i}>" for i in range(288 - len(pieces))]
    types = [{"<0": 6, "  ": 4, "\n\n": 4, "<b": 4, "<s": 3}.get(piece[:2], 1) for piece in pieces]
    types[:3] = 2, 3, 3
    scores = [MERGED.get(piece, -20.0) for piece in pieces]
    own = {"model": "llama", "tokens": pieces, "scores": scores, "token_type": types, "add_space_prefix": False}
    own |= {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "add_bos_token": True, "merges": None}
    return tiny_model(fields={f"tokenizer.ggml.{key}": value for key, value in (own | fields).items()})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the in", ["the", "▁", "in"]),
        ("in the", ["in", "▁the"]),
        ("abab", ["ab", "ab"]),
        ("babab", ["b", "ab", "ab"]),
        ("ba the", ["ba", "▁the"]),
        ("a  the\n\n<b>", ["a", "  ", "the", "\n\n", "<b>"]),
        ("é!", ["<0xC3>", "<0xA9>", "<0x21>"]),
    ],
)
def test_sentencepiece_merges_the_piece_of_the_highest_score_first(text, expected, tiny_model, tmp_path, find):
    path = _sentencepiece(tiny_model).write(tmp_path / "m.gguf")
    tokenizer = AutoTokenizer.from_pretrained(find(path).directory)
    assert tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids) == ["<bos>", *expected]
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"add_space_prefix": True}, "unsupported tokenizer 'llama'"),
        ({"scores": None}, "lists differ in length"),
        ({"scores": [1.0]}, "lists differ in length"),
        ({"scores": ["a"] * 288}, "scores are no numbers"),
        ({"unknown_token_id": None}, "unknown_token_id is missing"),
    ],
)
def test_sentencepiece_that_is_not_supported_is_named(fields, says, tiny_model, tmp_path, find):
    path = _sentencepiece(tiny_model, **fields).write(tmp_path / "m.gguf")
    with pytest.raises(DataError, match=says):
        find(path)


@pytest.mark.real
@pytest.mark.nightly
def test_gemmas_tokens_are_those_of_its_vocabulary(gemma3_files):
    tokenizer = AutoTokenizer.from_pretrained(gemma3_files.directory)
    texts = json.loads((Path(__file__).parent / "gemma3_tokens.json").read_text(encoding="utf-8"))
    for text, ids in texts.items():
        assert tokenizer(text, add_special_tokens=False).input_ids == ids
        assert tokenizer.decode(ids) == text


KEYS = [
    *(f"tokenizer.ggml.{key}" for key in ("model", "pre", "tokens", "token_type", "merges", "add_bos_token")),
    *(f"tokenizer.ggml.{key}_token_id" for key in ("bos", "eos", "eot", "padding", "unknown")),
    *("tokenizer.chat_template", "llama.rope.scaling.type", "llama.expert_count", "llama.attention.key_length"),
]


@pytest.mark.parametrize("key", KEYS)
def test_metadata_of_wrong_types_raises_our_errors(key, tiny_model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for value in (7, 1.5, True, "x", "", [1, 2], ["a", "b"]):
        path = tiny_model(fields={key: value}).write(tmp_path / "odd.gguf")
        with contextlib.suppress(ReasonError):
            convert(path, out, PullTask())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (lambda tiny: setattr(tiny, "kv_heads", 1), "has the shape|is missing"),
        (lambda tiny: setattr(tiny, "layers", 3), "has the shape|is missing"),
        (lambda tiny: setattr(tiny, "left_out", ("blk.1.ffn_up.weight",)), r"blk\.1\.ffn_up\.weight is missing"),
        (
            lambda tiny: _with_tensor(tiny, "output_norm.weight", [np.nan, *[1.0] * 31]),
            r"output_norm\.weight has values that are not finite",
        ),
    ],
    ids=["another width", "another depth", "a gap", "not finite"],
)
def test_tensors_that_do_not_fit_the_configuration_or_are_not_finite(changes, says, tiny_model, tmp_path, find):
    tiny = tiny_model()
    tensors = tiny._tensors()
    tiny._tensors = lambda: tensors
    changes(tiny)
    with pytest.raises(DataError, match=says):
        find(tiny.write(tmp_path / "odd.gguf"))


def test_truncated_file_is_damaged(tiny_gguf, tmp_path, find):
    whole = tiny_gguf.read_bytes()
    path = tmp_path / "cut.gguf"
    for cut in (0, 1, 4, 8, 24, 60, 500, *range(1000, len(whole), len(whole) // 40), len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError):
            find(path)
    assert not list((tmp_path / "cache" / "models").glob(".partial*"))


def test_flipped_bytes_raise_our_errors(tiny_gguf, tmp_path):
    whole = tiny_gguf.read_bytes()
    draw, failed, path = random.Random(7), 0, tmp_path / "flipped.gguf"
    (tmp_path / "out").mkdir()
    for _ in range(150):
        changed = bytearray(whole)
        # The head of the file steers the reader; the rest is mere numbers.
        changed[draw.randrange(3000)] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            convert(path, tmp_path / "out", PullTask())
        except ReasonError:
            failed += 1
    assert failed > 20


def test_no_such_file_and_no_gguf_file(tmp_path, find):
    with pytest.raises(DataError, match="no such model file"):
        find(tmp_path / "none.gguf")
    (tmp_path / "text.gguf").write_text("hello, this is not a model at all, only text")
    with pytest.raises(DataError, match="not a readable GGUF file"):
        find(tmp_path / "text.gguf")


def test_relative_path(tiny_gguf, tmp_path, find, monkeypatch):
    shutil.copy(tiny_gguf, tmp_path / "here.gguf")
    monkeypatch.chdir(tmp_path)
    assert find("here.gguf").source == str(Path.cwd() / "here.gguf")
