"""What an answer cites: below it on standard output, in its JSON, in a stored run."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from reason.cli.render.answer import print_answer, print_json, source_lines
from reason.core.events import RunStarted
from reason.core.run import RunConfig
from reason.core.settings import load_settings
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Evidence
from support.mcts_events import SOURCES, noted_answer, noted_run

Cli = Callable[..., tuple[int, str, str]]
TWO = (*SOURCES, Evidence(source="the model itself", text="Ida Holm\n painted  lakes."))


def test_sources_stand_below_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    answer = noted_answer(TWO)
    print_answer(answer)
    assert capsys.readouterr() == (
        answer.text
        + "\n\nSources\n[1] docs/ekeby.md:0-31: Ekeby castle was built in 1412.\n"
        + "[2] the model itself: Ida Holm painted lakes.\n",
        "",
    )


def test_an_answer_without_sources_is_its_text_alone(capsys: pytest.CaptureFixture[str]) -> None:
    answer = noted_answer(())
    print_answer(answer)
    assert capsys.readouterr() == (answer.text + "\n", "")


def test_what_was_streamed_is_not_printed_again_but_its_sources_are(capsys: pytest.CaptureFixture[str]) -> None:
    answer = noted_answer()
    print_answer(answer, answer.text)
    assert capsys.readouterr().out == "\n\nSources\n[1] docs/ekeby.md:0-31: Ekeby castle was built in 1412.\n"


def test_a_source_is_one_line_and_its_name_is_whole() -> None:
    long = Evidence(source="s" * 30, text="t" * 300)
    assert source_lines([long], 60) == [f"[1] {'s' * 30}: {'t' * 23}…"]
    assert source_lines([long], 10) == [f"[1] {'s' * 30}: {'t' * 19}…"]
    assert source_lines([Evidence(source="a", text="漢" * 50)], 26) == [f"[1] a: {'漢' * 9} …"]
    assert source_lines([Evidence(source="a", text="")], 60) == ["[1] a"]


def test_sources_do_not_steer_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "[b]\x1b[2J\r\n\x9b31m"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_answer(noted_answer((Evidence(source=evil, text=evil),)))
    assert capsys.readouterr().out.endswith("\nSources\n[1] [b][2J 31m: [b][2J 31m\n")


def test_they_are_in_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(noted_answer(TWO))
    cited = json.loads(capsys.readouterr().out)["citations"]
    assert [Evidence.model_validate(each) for each in cited] == list(TWO)


@pytest.fixture
def stored(home: Path) -> str:
    """Name of a stored run whose answer cites."""

    async def write() -> str:
        events = noted_run(TWO)
        started = events[0]
        assert isinstance(started, RunStarted)
        config = RunConfig(
            question=started.question, strategy="coat", parameters={}, models=started.models, seed=started.seed
        )
        store = await SqliteStore.open(load_settings().store)
        await store.create_run(started.run_id, config.model_dump(mode="json"))
        await store.add_events(started.run_id, events)
        await store.end_run(started.run_id, "finished", answer=noted_answer(TWO).model_dump(mode="json"))
        await store.aclose()
        return started.run_id

    return asyncio.run(write())


def test_a_stored_run_shows_them(cli: Cli, stored: str) -> None:
    status, out, err = cli("runs", "show", stored)
    assert (status, err) == (0, "")
    lines = [line.rstrip() for line in out.splitlines()]
    at = lines.index("sources")
    assert lines[at + 1 : at + 3] == [
        "  [1] docs/ekeby.md:0-31: Ekeby castle was built in 1412.",
        "  [2] the model itself: Ida Holm painted lakes.",
    ]


def test_its_tree_has_statistics_and_notes(cli: Cli, stored: str) -> None:
    status, out, err = cli("runs", "show", stored, "--tree")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[3].split() == ["step", "score", "V", "N", "step", "value", "notes", "value", "turn", "tokens"]
    assert [line.rstrip() for line in lines[4:11]] == [
        "✓    0      -  0.625  4           -            -    #1       -  ● start",
        "     1   0.30  0.300  1       0.300            -     -       9  ├─○ Ida Holm was a painter.",
        "✓    1   0.80  0.733  3       0.750            1    #2       9  ● Ida Holm was born in Ekeby.",
        " " * 66 + "+ Ekeby castle was built in 1412. [docs/ekeby.md:0-31]",
        " " * 66 + "+ Ida Holm painted lakes. [the model itself]",
        "     2   0.50  0.500  1       0.500            -     -       9  ├─○ Ekeby lies on a lake.",
        "✓    2   0.90  0.900  1       0.900            -     -       9  ■ The castle above Ekeby was built in 1412 "
        "[1]. The answer is 1412.",
    ]
    assert lines[-1].endswith("turn: when continued   + note")
    (search,) = json.loads(cli("runs", "show", stored, "--tree", "--json")[1])["searches"]
    assert search["notes"] == {
        "1": [
            {
                "text": "Ekeby castle was built in 1412.",
                "source_id": "docs/ekeby.md:0-31",
                "source_kind": "folder",
                "score": 0.9,
            },
            {"text": "Ida Holm painted lakes.", "source_id": "", "source_kind": "self", "score": 0.5},
        ]
    }
