"""What the user gives a question with: parameters, choices, files, the question itself."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from reason.cli.inputs import (
    MAX_TEXT_BYTES,
    check_one_stdin,
    parse_choices,
    parse_parameters,
    read_contexts,
    read_question,
    split_contexts,
)
from reason.core.errors import DataError, UserError
from reason.core.types import MAX_QUESTION_CHARS


def give_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("n=8", {"n": 8}),
        ("t=0.7", {"t": 0.7}),
        ("t=-1e-3", {"t": -0.001}),
        ("x=true", {"x": True}),
        ("x=null", {"x": None}),
        ("x=True", {"x": "True"}),
        ('x="8"', {"x": "8"}),
        ("x=[1, 2]", {"x": [1, 2]}),
        ('x={"a": 1}', {"x": {"a": 1}}),
        ("x=Think step by step.", {"x": "Think step by step."}),
        ("x=a=b", {"x": "a=b"}),
        ("x=", {"x": ""}),
        ("x=8 # eggs", {"x": "8 # eggs"}),
        ("x=1979-05-27", {"x": "1979-05-27"}),
        ("x=[1979-05-27]", {"x": "[1979-05-27]"}),
        ("x=NaN", {"x": "NaN"}),
        ("x=inf", {"x": "inf"}),
        ("x=1\ny=2", {"x": "1\ny=2"}),
        ("x=" + "[" * 100_000, {"x": "[" * 100_000}),
        ("x=" + "9" * 5000, {"x": "9" * 5000}),
        ("a.b.c=1", {"a": {"b": {"c": 1}}}),
    ],
)
def test_parameter_values(argument, expected):
    assert parse_parameters([argument]) == expected


def test_parameters_accumulate_and_the_last_wins():
    assert parse_parameters(["a.x=1", "b=2", "a.y=3", "b=4"]) == {"a": {"x": 1, "y": 3}, "b": 4}


@pytest.mark.parametrize("argument", [["n"], ["=3"], ["a..b=1"], [".=1"], ["a=1", "a.b=2"], ["a.b=1", "a=2"]])
def test_contradictory_parameters_are_refused(argument):
    with pytest.raises(UserError) as error:
        parse_parameters(argument)
    assert repr(argument[-1]) in error.value.message


def test_choices():
    assert parse_choices(None) == ()
    assert parse_choices("red| green |blue") == ("red", "green", "blue")
    assert parse_choices(r"a\|b|c") == ("a|b", "c")


@pytest.mark.parametrize("argument", ["", "only", "a||b", "|", "a|"])
def test_invalid_choices_are_refused(argument):
    with pytest.raises(UserError, match="--choices"):
        parse_choices(argument)


def test_question_is_stripped_and_of_maximum_length():
    assert read_question("  why?\n") == "why?"
    assert len(read_question("ä" * MAX_QUESTION_CHARS)) == MAX_QUESTION_CHARS


@pytest.mark.parametrize(
    ("argument", "message"),
    [("", "empty"), (" \n\t", "empty"), ("ä" * (MAX_QUESTION_CHARS + 1), "--context"), ("a\udcff", "UTF-8")],
    ids=["empty", "blank", "too long", "surrogate"],
)
def test_invalid_questions_are_refused(argument, message):
    with pytest.raises(UserError, match=message):
        read_question(argument)


def test_question_on_stdin_is_text_of_less_than_a_megabyte(monkeypatch):
    give_stdin(monkeypatch, ("x" + "€" * 400_000).encode())  # what is read of it ends within a character
    with pytest.raises(UserError, match="--context"):
        read_question("-")
    give_stdin(monkeypatch, "\ufeffwhy, naïve one?\n".encode())
    assert read_question("-") == "why, naïve one?"
    give_stdin(monkeypatch, b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        read_question("-")


def test_contexts(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_bytes(b"\xef\xbb\xbfWith a mark.")
    two.write_text("Ohne.", encoding="utf-8")
    documents = read_contexts([two, one])
    assert [(d.name, d.text) for d in documents] == [(str(two), "Ohne."), (str(one), "With a mark.")]


def test_context_on_stdin(monkeypatch):
    give_stdin(monkeypatch, b"a report")
    (document,) = read_contexts([Path("-")])
    assert (document.name, document.text) == ("standard input", "a report")


def test_stdin_is_read_once():
    check_one_stdin([True, False])
    with pytest.raises(UserError, match="once"):
        check_one_stdin([True, False, True])


@pytest.mark.parametrize(
    ("content", "expected_text"),
    [
        (None, "does not exist"),
        (b"\x89PNG\r\n\x1a\n\xff", "not UTF-8"),
        (b"text\x00with zero", "binary"),
        (b"x" * (MAX_TEXT_BYTES + 1), "larger than 5 MB"),
    ],
)
def test_unreadable_contexts_are_refused(tmp_path, content, expected_text):
    path = tmp_path / "file.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=expected_text) as error:
        read_contexts([path])
    assert str(path) in error.value.message


def test_context_directory_is_refused_as_a_file(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_contexts([tmp_path])


def test_contexts_are_split_into_files_and_knowledge_sources(tmp_path):
    file, directory, odd = tmp_path / "a.txt", tmp_path / "docs", tmp_path / "mcp:x"
    file.write_text("a")
    odd.write_text("a file whatever its name looks like")
    directory.mkdir()
    own = ["model:some", "https://x.example/q", "mcp:python server.py"]
    files, sources = split_contexts([str(file), "-", str(directory), *own, str(odd), "gone.txt"])
    assert files == [file, Path("-"), odd, Path("gone.txt")]
    assert sources == [str(directory), *own]
