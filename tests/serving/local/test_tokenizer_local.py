from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import DataError, UserError
from reason.core.messages import Message, Prompt
from reason.serving.local.tokenizer import TextAssembler, Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_directory) -> Tokenizer:
    return Tokenizer(tiny_directory("llama"), "local/tiny")


def assemble(
    tokenizer: Tokenizer, text: str, stops: tuple[str, ...] = (), before: str = "x"
) -> tuple[list[str], TextAssembler]:
    assembler = TextAssembler(tokenizer, tokenizer.encode(before), stops)
    pieces = []
    for token in tokenizer.encode(text):
        pieces.append(assembler.push(token))
        if assembler.stopped:
            return pieces, assembler
    pieces.append(assembler.finish())
    return pieces, assembler


@given(st.text(max_size=40))
def test_the_pieces_are_the_text(tokenizer, text):
    pieces, assembler = assemble(tokenizer, text)
    assert "".join(pieces) == assembler.text == text


@given(st.text("aböü", max_size=20), st.lists(st.text("aböü", min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_stop_string_is_never_shown(tokenizer, text, stops):
    pieces, assembler = assemble(tokenizer, text, tuple(stops))
    shown = "".join(pieces)
    # One token is at most one character here: the first stop to be complete ends the text.
    ends = [end for end in range(1, len(text) + 1) if any(text[:end].endswith(s) for s in stops)]
    if not ends:
        assert shown == text
        assert not assembler.stopped
        assert assembler.stop_reason == ""
    else:
        longest = max(len(s) for s in stops if text[: ends[0]].endswith(s))
        assert shown == assembler.text == text[: ends[0] - longest]
        assert assembler.stopped
        assert assembler.stop_reason == text[ends[0] - longest : ends[0]]


def test_what_may_become_a_stop_is_held_back(tokenizer):
    pieces, _ = assemble(tokenizer, "one\nQx", ("\nQ:",))
    assert pieces == ["o", "n", "e", "", "", "\nQx", ""]


def test_half_a_character_is_held_back(tokenizer):
    pieces, _ = assemble(tokenizer, "a\N{GRINNING FACE}b")
    assert pieces == ["a", "", "", "", "\N{GRINNING FACE}", "b", ""]


def test_bytes_that_never_become_a_character_come_out_in_the_end(tokenizer):
    half = tokenizer.encode("é")[:1]
    assembler = TextAssembler(tokenizer, tokenizer.encode("x"), ())
    assert assembler.push(half[0]) == ""
    assert assembler.finish() == "\N{REPLACEMENT CHARACTER}"


def test_a_long_run_of_broken_bytes_stays_short(tokenizer):
    half = tokenizer.encode("é")[0]
    assembler = TextAssembler(tokenizer, [], ())
    for _ in range(500):
        assembler.push(half)
    assert len(assembler._window) <= 65


def test_a_prompt_that_ends_within_a_character(tokenizer):
    first, second = tokenizer.encode("é")
    assembler = TextAssembler(tokenizer, [*tokenizer.encode("x"), first], ())
    assert assembler.push(second) == "é"


def test_prompts_with_template_and_prefix(tokenizer):
    prompt = Prompt(messages=(Message(role="system", content="S"), Message(role="user", content="U")))
    text = "<|start|>system\nS<|end|>\n<|start|>user\nU<|end|>\n<|start|>assistant\n"
    assert tokenizer.render(prompt) == text
    ids = tokenizer.prompt_ids(prompt)
    assert ids == tokenizer.encode(text)
    assert ids[0] == 1
    assert tokenizer.prompt_ids(prompt.with_prefix("ok")) == ids + tokenizer.encode("ok")
    assert tokenizer.prompt_ids(prompt.with_prefix((5, 6))) == [*ids, 5, 6]
    assert tokenizer.prompt_ids(Prompt(text="<|end|>a")) == [2, *tokenizer.encode("a")]


def test_prompts_that_cannot_be(tokenizer):
    with pytest.raises(UserError, match="no tokens"):
        tokenizer.prompt_ids(Prompt(text=""))
    with pytest.raises(UserError, match="token 999"):
        tokenizer.prompt_ids(Prompt(text="a", prefix=(999,)))


def test_a_continuation_is_tokenized_with_its_prompt(tokenizer):
    assert tokenizer.continuation(Prompt(text="ab"), "cd") == (tokenizer.encode("ab"), tokenizer.encode("cd"))
    assert tokenizer.continuation(Prompt(text="ab"), (7, 8)) == (tokenizer.encode("ab"), [7, 8])
    assert tokenizer.continuation(Prompt(text="ab", prefix=(9,)), "c") == (
        [*tokenizer.encode("ab"), 9],
        tokenizer.encode("c"),
    )


def test_a_model_without_template_or_tokenizer(tiny_directory, tmp_path):
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        Tokenizer(tmp_path, "local/x")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="cannot read"):
        Tokenizer(tmp_path, "local/x")
    (tmp_path / "tokenizer.json").write_text((tiny_directory("llama") / "tokenizer.json").read_text())
    with pytest.raises(UserError, match="no chat template"):
        Tokenizer(tmp_path, "local/x").render(Prompt.user("hi"))
    config = {"chat_template": "{{ raise_exception('no system') }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="no system"):
        Tokenizer(tmp_path, "local/x").render(Prompt.user("hi"))


def test_a_template_cannot_reach_outside(tiny_directory, tmp_path):
    (tmp_path / "tokenizer.json").write_text((tiny_directory("llama") / "tokenizer.json").read_text())
    (tmp_path / "chat_template.jinja").write_text("{{ messages.__class__.__mro__ }}")
    with pytest.raises(UserError, match="refuses"):
        Tokenizer(tmp_path, "local/x").render(Prompt.user("hi"))
