"""A new user is told once which models are better than the default one."""

import sys

import pytest

TIP = "reason models pull recommended"


@pytest.fixture
def terminal(monkeypatch, scripted):
    """Standard error is a terminal, and the default model is scripted."""
    scripted()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("_pytest.capture.CaptureIO.isatty", lambda self: self is sys.stderr)


def test_the_first_answer_tells_it_once(cli, terminal, home):
    status, out, err = cli("ask", "What is 6 times 7?")
    assert status == 0
    assert TIP in err
    assert TIP not in out
    assert (home / "data" / "reason" / "first-answer").exists()
    assert TIP not in cli("ask", "What is 6 times 8?")[2]


def test_another_model_or_a_pipe_is_told_nothing(cli, terminal, monkeypatch, home):
    assert TIP not in cli("ask", "What is 6 times 7?", "-m", "local/mine")[2]
    monkeypatch.setattr("_pytest.capture.CaptureIO.isatty", lambda _: False)
    assert TIP not in cli("ask", "What is 6 times 8?")[2]
    assert not (home / "data" / "reason" / "first-answer").exists()
