"""The script that trains `auto`, as a user runs it: trained, shown, used, refused."""

import json
import random
import shlex
from pathlib import Path

import fitting as gathering
import pytest
import train_router
from reason.cli.terminal_run import TextStream
from reason.core.events import CallStarted, RunStarted, StrategyNote, TextDelta
from reason.core.types import Question
from reason.routers.router_files import load_auto_router_file
from support.scripted_model import replies
from support.trained_routers import hard, question_text, sums_file, write_way
from support.word_vectors import WordVectors

N = 40


@pytest.fixture
def data(home):
    return sums_file(home / "sums.jsonl", N)


@pytest.fixture
def ways(home, data):
    """A cheap way that fails on the long questions, and a dear one that does not."""
    luck = random.Random(1)
    lost = [luck.random() < 0.1 for _ in range(N)]
    cheap = write_way(
        home / "cheap", data, "cot", lambda i: float(not hard(i) ^ lost[i]), lambda i: 20, parameters={"max_tokens": 30}
    )
    dear = write_way(
        home / "dear",
        data,
        "self-consistency",
        lambda i: float(not lost[i]),
        lambda i: 60,
        parameters={"n": 3, "max_tokens": 30},
    )
    return str(cheap), str(dear)


@pytest.fixture
def opened(monkeypatch, scripted):
    """Models and embedding that need no files, for training and for asking."""
    model, words = scripted(replies("The answer is 4.")), WordVectors(dimension=23)

    async def load_model(*_):
        return model

    async def load_embedding_model(*_):
        return words

    monkeypatch.setattr(gathering, "load_model", load_model)
    monkeypatch.setattr(gathering, "load_embedding_model", load_embedding_model)
    monkeypatch.setattr("reason.reasoning.retrieval.run_knowledge.load_embedding_model", load_embedding_model)
    return model


@pytest.mark.nightly
def test_a_router_is_trained_shown_and_used(cli, ways, opened):
    status, out, err = cli(
        "auto", *ways, "--price", "6", "--out", "auto.json", "--store", "s.sqlite3", app=train_router.app
    )
    assert status == 0, err
    assert "cot max_tokens=30" in out
    assert "cross-validation, 40 questions" in out
    assert "auto - arm [95%]" in out
    assert "held out" not in out
    assert "40 questions of sums" in err
    file = load_auto_router_file(Path("auto.json"))
    assert file.price == 6
    message = shlex.split(err.splitlines()[-1].partition("; ")[2])
    assert message[:5] == ["reason", "ask", "QUESTION", "-s", "auto"]

    status, out, err = cli("show", "auto.json", app=train_router.app)
    assert status == 0, err
    assert file.digest in out
    assert "self-consistency n=3 max_tokens=30" in out

    status, out, err = cli("ask", question_text(1001), *message[3:], "--store", "s.sqlite3", "--json")
    assert status == 0, err
    answer = json.loads(out)
    assert (answer["strategy"], answer["selected_strategy"]) == ("auto", "cot max_tokens=30")
    status, out, err = cli("ask", question_text(3000), *message[3:], "--store", "s.sqlite3")
    assert status == 0, err
    assert "by self-consistency n=3 max_tokens=30" in err
    status, out, err = cli("ask", question_text(3), *message[3:], "--store", "s.sqlite3")
    assert "trained on this question" in err


def test_json_has_the_values(cli, ways, opened):
    arguments = ("--holdout", "0.3", "--no-entropy", "--json", "--store", "s.sqlite3")
    status, out, err = cli("auto", *ways, "--out", "auto.json", *arguments, app=train_router.app)
    assert status == 0, err
    payload = json.loads(out)
    assert payload["arms"] == ["cot max_tokens=30", "self-consistency n=3 max_tokens=30"]
    assert payload["held"]["questions"] + payload["crossed"]["questions"] == N
    assert not opened.made
    assert json.loads(cli("show", "auto.json", "--json", app=train_router.app)[1])["digest"] == payload["digest"]


def test_invalid_trainings_are_refused_before_a_model_is_loaded(cli, ways, home, data):
    for runs, out, expected, message in (
        (ways[:1], "a.json", 2, "at least two arms"),
        ((ways[0], ways[0]), "a.json", 2, "twice"),
        (ways, str(home), 3, "it is a directory"),
        (("nowhere",), "a.json", 2, "holds no evaluation"),
    ):
        status, _, err = cli("auto", *runs, "--out", out, app=train_router.app)
        assert (status, message in err) == (expected, True), err


@pytest.mark.parametrize(("chosen", "printed"), [("cot", "once"), ("beam", "")])
def test_search_chosen_by_a_router_is_not_streamed(chosen, printed, capsys):
    stream = TextStream(lambda: None, lambda: None)
    stream(RunStarted(question=Question(text="?"), strategy="auto", models={}, seed=1))
    stream(
        StrategyNote(
            number=2, strategy="auto", name="auto.chosen", data={"selected_strategy": chosen, "chosen": chosen}
        )
    )
    stream(CallStarted(number=3, role="main", model="m", operation="generate", requests=1, samples=1, replayed=0))
    stream(TextDelta(parent=3, request=0, sample=0, text="once", tokens=1))
    assert capsys.readouterr().out == printed
