"""Printed answers: citations, usage by role, and claims marked in the text."""

from __future__ import annotations

import sys

import pytest
from reason.cli.render.answer import (
    print_answer,
    print_notes,
    summary,
    usage_text,
)
from reason.core.budget import Budget, Ledger
from reason.core.messages import Usage
from reason.core.types import Answer, Evidence, Verification
from support.mcts_events import SOURCES, noted_answer
from support.scripted_model import replies

TWO = (*SOURCES, Evidence(source="the model itself", text="Ida Holm\n painted  lakes."))


def test_sources_follow_the_answer(capsys):
    answer = noted_answer(TWO)
    print_answer(answer)
    assert capsys.readouterr() == (
        answer.text
        + "\n\nSources\n[1] docs/ekeby.md:0-31: Ekeby castle was built in 1412.\n"
        + "[2] the model itself: Ida Holm painted lakes.\n",
        "",
    )


def test_streamed_text_is_not_printed_again_but_its_sources_are(capsys):
    answer = noted_answer()
    print_answer(answer, printed=answer.text)
    assert capsys.readouterr().out == "\n\nSources\n[1] docs/ekeby.md:0-31: Ekeby castle was built in 1412.\n"


def test_sources_contain_no_control_characters(monkeypatch, capsys):
    evil = "[b]\x1b[2J\r\n\x9b31m"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_answer(noted_answer((Evidence(source=evil, text=evil),)))
    assert capsys.readouterr().out.endswith("\nSources\n[1] [b][2J 31m: [b][2J 31m\n")


@pytest.fixture
def answer() -> Answer:
    ledger = Ledger(Budget())
    spent = Usage(prompt_tokens=12_000, cached_tokens=11_500, completion_tokens=80, thinking_tokens=30, cost_usd=0.25)
    ledger.charge("main", "local/a", spent, calls=3, replayed_tokens=20, working_s=0.75)
    ledger.charge("main", "local/a", Usage(prompt_tokens=1000, cached_tokens=900), calls=1)
    ledger.charge("judge", "local/b", Usage(prompt_tokens=7, cost_usd=None), calls=1)
    return Answer(
        answer="x",
        text="x",
        strategy="cot",
        model="local/a",
        confidence=None,
        candidates=(),
        verification=Verification(),
        usage=ledger.usage().model_copy(update={"wall_seconds": 1.5}),
        run_id="r",
        seed=1,
        stopped="done",
    )


def test_usage_is_one_line(answer):
    main = "4 calls, 13,000 prompt tokens (12,400 cached), 80 generated (30 thinking, 20 from the store), 0.2500 USD"
    assert usage_text(answer.usage.by_role["main:local/a"]) == f"{main}, 0.8 s"
    assert usage_text(answer.usage.by_role["judge:local/b"]) == (
        "1 call, 7 prompt tokens, 0 generated, unknown cost, 0.0 s"
    )
    assert usage_text(answer.usage).endswith("unknown cost, 1.5 s")


def noted(some: Answer, capsys: pytest.CaptureFixture[str], **changes: object) -> str:
    """What is printed to standard error about an answer."""
    print_notes(some.model_copy(update=changes), None)
    return capsys.readouterr().err


def test_early_and_missing_answers_are_noted(answer, capsys):
    early = {"stopped": "user", "based_on": "3 finished samples"}
    assert noted(answer, capsys, **early) == "answered early: it rests on 3 finished samples\n"
    said = ("it rests on 3 finished samples",)  # is not repeated
    assert noted(answer, capsys, **early, degraded=said) == "note: it rests on 3 finished samples\n"
    missing = {"answer": None, "text": "", "degraded": ("it was cut",)}
    assert noted(answer, capsys, **missing) == "note: it was cut\nno answer: the run ended without an answer\n"
    budget = noted(answer, capsys, **missing, stopped="budget")
    assert budget.splitlines()[1:] == ["budget exhausted: a limit stopped the run; there is no answer yet (run r)"]


def test_summary_names_an_option_by_its_text_and_letter(answer):
    chosen = answer.model_copy(update={"answer": "A", "option": "21"})
    assert summary(chosen).plain.startswith("answer: 21 (A)  ")


def test_text_that_goes_on_after_the_stream_is_printed_from_there(capsys):
    answer = noted_answer(()).model_copy(
        update={"answer": "4", "text": "Half an answer\n\nTherefore, the answer is 4."}
    )
    print_answer(answer, printed="Half an answer")
    assert capsys.readouterr().out == "\n\nTherefore, the answer is 4.\n"
    print_answer(answer, printed="Another")
    assert capsys.readouterr().out == f"\n\n{answer.text}\n"


def test_run_without_an_answer_exits_with_6(cli, scripted):
    scripted(replies(""))
    status, out, err = cli("ask", "What is 6 * 7?")
    assert (status, out) == (6, "")
    assert "no answer: the run ended without an answer" in err
