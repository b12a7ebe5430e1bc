"""Tokenizers made from GGUF metadata against a second, plain implementation of byte-level BPE."""

from __future__ import annotations

import json
import unicodedata
from itertools import pairwise

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from reason.serving.model_files.find import find_model
from tokenizers import Tokenizer

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
HEAD = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|"
CUTS = {
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "llama-bpe": [HEAD + r"\p{N}{1,3}" + TAIL],
    "qwen2": [HEAD + r"\p{N}" + TAIL],
}
NASTY = [
    "",
    " ",
    "   leading and trailing   ",
    "tabs\tand\r\nlines\n\n\n  indented",
    "123456789 1,000.50 3.14159 a1b22c333",
    "don't I'LL we'Ve she'd 's'S",
    "naïve café Ångström",
    "e\u0301 combining and \u00e9 composed",
    "日本語のテキスト 한국어 中文",
    "العربية ٣٤٥ हिन्दी ४५",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷",
    "x² + ½ = Ⅷ",
    "\u200b\u00a0\u3000\ufeff",
    "\x00\x01\x7f",
    "<|im_start|>user\nhi<|im_end|>",
    "<|im_start|",
    "def f(x):\n    return x**2  # comment\n",
    "\\frac{a}{b} \\boxed{42}",
    "a" * 500,
    " " * 100 + "\n" * 50,
]


def _cut(text: str, patterns: list[str]) -> list[str]:
    """Each pattern isolates its matches within the pieces of the one before."""
    pieces = [text]
    for pattern in patterns:
        cut = []
        for piece in pieces:
            end = 0
            for match in regex.finditer(pattern, piece):
                cut += [piece[end : match.start()], match[0]]
                end = match.end()
            cut.append(piece[end:])
        pieces = [p for p in cut if p]
    return pieces


def _stand_ins() -> dict[int, str]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(hidden)}}


def _encode(text: str, tokenizer_json: dict, patterns: list[str]) -> list[int]:
    vocabulary = tokenizer_json["model"]["vocab"]
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in tokenizer_json["model"]["merges"]]
    ranks = {pair: i for i, pair in enumerate(merges)}
    special = [t["content"] for t in tokenizer_json["added_tokens"]]
    stand_ins = _stand_ins()
    ids: list[int] = []
    for segment in regex.split("(" + "|".join(map(regex.escape, special)) + ")", text):
        if segment in special:
            ids.append(vocabulary[segment])
            continue
        for piece in _cut(segment, patterns):
            parts = [stand_ins[b] for b in piece.encode()]
            while pairs := [pair for pair in pairwise(parts) if pair in ranks]:
                best, merged = min(pairs, key=ranks.__getitem__), []
                while parts:
                    size = 2 if tuple(parts[:2]) == best else 1
                    merged.append("".join(parts[:size]))
                    parts = parts[size:]
                parts = merged
            ids += [vocabulary[p] for p in parts]
    return ids


def _normalized(text: str, rule: str) -> str:
    return unicodedata.normalize("NFC", text) if rule == "qwen2" else text


@pytest.fixture(scope="module", params=sorted(CUTS))
def tiny_tokenizer(request, tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    family = "qwen2" if request.param == "qwen2" else "llama"
    path = tiny_model(family=family, rule=request.param).write(folder / "t.gguf")
    made = find_model(f"local/{path}", cache_dir=folder).directory / "tokenizer.json"
    return request.param, Tokenizer.from_file(str(made)), json.loads(made.read_text(encoding="utf-8"))


@given(text=st.text(st.one_of(st.sampled_from(" \n\t\r'123sStT'llaheé٣²"), st.characters(exclude_categories=("Cs",)))))
def test_pretokenisation_and_merges_follow_the_rules(text, tiny_tokenizer):
    rule, tokenizer, written = tiny_tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == _encode(_normalized(text, rule), written, CUTS[rule])


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_difficult_texts_round_trip(text, tiny_tokenizer):
    rule, tokenizer, written = tiny_tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == _encode(_normalized(text, rule), written, CUTS[rule])
    assert tokenizer.decode(ids, skip_special_tokens=False) == _normalized(text, rule)


def test_bos_token_is_prepended_if_the_file_requires_it(tiny_model, tmp_path, find):
    path = tiny_model(fields={"tokenizer.ggml.add_bos_token": True}).write(tmp_path / "b.gguf")
    tokenizer = Tokenizer.from_file(str(find(path).directory / "tokenizer.json"))
    assert tokenizer.encode("he").ids == [1, *tokenizer.encode("he", add_special_tokens=False).ids]


@pytest.mark.real
@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_the_default_models_tokenizer(text, smollm2_files):
    path = smollm2_files.directory / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    ids = tokenizer.encode(text).ids
    assert ids == _encode(text, json.loads(path.read_text(encoding="utf-8")), CUTS["smollm"])
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
