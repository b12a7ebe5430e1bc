"""Forms of output: text that wraps at words on a terminal, plain tables in pipes, progress that does not mislead."""

import sys

import pytest
from reason.cli.render.console import TextWriter, byte_size, say
from reason.cli.render.status import stage_text
from reason.reasoning.strategy import STRATEGIES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The quick brown fox jumps over it.", "The quick brown fox\njumps over it.\n"),
        ("one\n\n  two  three", "one\n\n  two  three\n"),
        ("a " + 30 * "x" + " b", "a\n" + 30 * "x" + "\nb\n"),
        ("漢字漢字 漢字漢字 漢字漢字", "漢字漢字 漢字漢字\n漢字漢字\n"),
        ("```\nx = 1 + 2 + 3 + 4 + 5 + 6\n```\nThe quick brown fox jumps",
         "```\nx = 1 + 2 + 3 + 4 + 5 + 6\n```\nThe quick brown fox\njumps\n"),
    ],
)  # fmt: skip
def test_text_wraps_at_words_however_it_grows(text, expected, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for size in (1, 3, len(text)):
        writer = TextWriter()
        for start in range(0, len(text), size):
            writer.write(text[start : start + size])
        writer.write_line("")
        assert capsys.readouterr().out == expected


def test_text_in_a_pipe_is_unchanged(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    writer = TextWriter()
    writer.write_line("The quick brown fox jumps over it. ")
    assert capsys.readouterr().out == "The quick brown fox jumps over it. \n"


def test_notes_wrap_at_words_on_a_terminal_alone(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm")
    say("the quick brown fox jumps", label="note")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    say("the quick brown fox jumps", label="note")
    assert capsys.readouterr().err == "note: the quick brown fox jumps\nnote: the quick \nbrown fox jumps\n"


def test_tables_in_pipes_are_plain(cli):
    status, out, _ = cli("strategies", "list", "--all")
    head, *rows = out.splitlines()
    assert (status, head.split()) == (0, ["name", "stability", "summary", "source"])
    assert [row.split()[0] for row in rows] == sorted(STRATEGIES.names())  # one line each
    column = head.index("summary")
    assert all(row[column] != " " == row[column - 1] for row in rows)
    assert not [line for line in out.splitlines() if line != line.rstrip()]
    assert not set("\x1b…│─┃━") & set(out)


@pytest.mark.parametrize(
    ("stage", "shown"),
    [
        (("downloading", 200_000, 400_000), "downloading 200 kB of 400 kB"),
        (("downloading", 200_000, 88_000_000), "downloading 0.2 MB of 88.0 MB"),
        (("downloading", 0, 0), "downloading"),
        (("converting", 5_000_000, None), "converting 5.0 MB"),
        (("embedding", 300, 1547), "embedding 300 of 1,547 passages"),
        (("indexing words", 3, 7), "indexing words 3 of 7"),
        (("waiting for another process", 0, None), "waiting for another process"),
    ],
)
def test_a_stage_has_its_unit(stage, shown):
    assert stage_text(*stage) == shown


def test_sizes_have_their_unit():
    assert [byte_size(size) for size in (900, 5_000_000, 2_500_000_000)] == ["1 kB", "5.0 MB", "2.50 GB"]
