"""`reason train auto` and `question-router` as a user types them: trained, shown, used, refused."""

from __future__ import annotations

import asyncio
import json
import random
import shlex
from pathlib import Path

import pytest
from reason.cli.render.text_stream import TextStream
from reason.core.events import CallStarted, RunStarted, StrategyNote, TextDelta
from reason.core.store.sqlite import SqliteStore
from reason.core.types import Question
from reason.evals.training.routers import fitting as gathering
from reason.routers.router_files import load_auto_router_file, load_question_router_file, router_path
from support.logged_runs import RunLog
from support.scripted_model import ScriptedModel, replies
from support.trained_routers import hard, question_text, sums_file, write_way
from support.word_vectors import WordVectors

N = 60


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


def test_a_router_is_trained_shown_and_used(cli, ways, opened):
    status, out, err = cli("train", "auto", *ways, "--price", "6", "--out", "auto.json", "--store", "s.sqlite3")
    assert status == 0, err
    assert "cot max_tokens=30" in out
    assert "cross-validation, 60 questions" in out
    assert "auto - arm [95%]" in out
    assert "held out" not in out
    assert "60 questions of sums" in err
    file = load_auto_router_file(Path("auto.json"))
    assert file.price == 6
    message = shlex.split(err.splitlines()[-1].partition("; ")[2])
    assert message[:5] == ["reason", "ask", "QUESTION", "-s", "auto"]

    status, out, err = cli("train", "show", "auto.json")
    assert status == 0, err
    assert file.digest in out
    assert "self-consistency n=3 max_tokens=30" in out
    status, out, err = cli("train", "show", "auto.json", "--json")
    assert json.loads(out)["digest"] == file.digest

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
    arguments = ("--holdout", "0.3", "--no-entropy", "--folds", "3", "--json", "--store", "s.sqlite3")
    status, out, err = cli("train", "auto", *ways, "--out", "auto.json", *arguments)
    assert status == 0, err
    payload = json.loads(out)
    assert payload["arms"] == ["cot max_tokens=30", "self-consistency n=3 max_tokens=30"]
    assert payload["held"]["questions"] + payload["crossed"]["questions"] == N
    assert len(payload["crossed"]["comparisons"]) == 2
    assert not opened.made


def logged(shadow=None):
    """A store with verified runs: votes were right on every question, single chains on the short ones only."""

    async def write():
        store = await SqliteStore.open(Path("logged.sqlite3"))
        log = RunLog(store)
        for i in range(N):
            text, models = question_text(i), {"main": "scripted"}
            single = "refuted" if hard(i) else "supported"
            named = {"models": models, "identity": "scripted@1", "shadow": shadow}
            await log.add(text, verdicts=(single,), parameters={"max_tokens": 30}, tokens=20, **named)
            if i % 5:  # not every question has a run of every arm
                votes = {"strategy": "self-consistency", "parameters": {"n": 3, "max_tokens": 30}}
                await log.add(text, verdicts=("supported",), tokens=60, **votes, **named)
        await store.aclose()

    asyncio.run(write())
    return "--store", "logged.sqlite3"


def test_a_router_is_trained_from_the_run_store_and_used_without_naming_it(cli, home, opened):
    store = logged()
    status, out, err = cli("train", "auto", "--from-store", "--price", "6", "--no-entropy", *store)
    assert status == 0, err
    assert "saved" in out
    assert "as done" in out
    assert "area under the curve of quality over tokens" in out
    assert f"{N + N * 4 // 5} runs are verified" in err
    file = load_auto_router_file(router_path("scripted"))
    assert sorted(arm.label for arm in file.arms) == ["cot max_tokens=30", "self-consistency n=3 max_tokens=30"]
    status, out, err = cli("ask", question_text(3000), "-s", "auto", "-m", "scripted", *store)
    assert status == 0, err
    assert "by self-consistency n=3 max_tokens=30" in err
    status, out, err = cli("train", "auto", "--from-store", "--no-entropy", "--out", "a.json", "--json", *store)
    assert status == 0, err
    payload = json.loads(out)
    assert (payload["labels"], payload["runs_left_out"]) == (
        {"verified": N + N * 4 // 5},
        {"neither graded nor verified": 1},
    )
    assert payload["logged"]["questions"] == N


def test_a_dataset_grades_the_runs_of_the_store(cli, home, opened, data):
    status, _, err = cli(
        "train", "auto", "--from-store", "--data", str(data), "--no-entropy", "--out", "a.json", *logged()
    )
    assert status == 0, err
    assert f"{N + N * 4 // 5} runs are graded" in err


def test_shadow_choices_are_recorded_and_reported(cli, ways, opened):
    status, _, err = cli("train", "auto", *ways, "--price", "6", "--store", "s.sqlite3")
    assert status == 0, err
    for number in (1000, 3000):
        status, out, err = cli(
            "ask", question_text(number), "-m", "scripted", "--shadow", "--store", "s.sqlite3", "--json"
        )
        assert status == 0, err
        assert json.loads(out)["strategy"] == "cot"
    status, out, err = cli("train", "shadow", "--store", "s.sqlite3")
    assert status == 0, err
    assert "2 runs, of which 0% did what auto would have chosen" in out
    assert "self-consistency n=3 max_tokens=30" in out
    status, out, err = cli("train", "shadow", "--store", "s.sqlite3", "--json")
    assert json.loads(out)["choices"] == {"self-consistency n=3 max_tokens=30": 1, "cot max_tokens=30": 1}
    status, out, err = cli("train", "shadow", "--store", "empty.sqlite3")
    assert (status, "no run of the store has a choice" in err) == (2, True)


def test_the_source_of_the_runs_must_be_clear(cli, ways):
    status, _, err = cli("train", "auto", *ways, "--from-store")
    assert (status, "--from-store and evaluation runs are both given" in err) == (2, True)
    status, _, err = cli("train", "auto")
    assert (status, "no runs are given" in err) == (2, True)
    status, _, err = cli("train", "auto", *ways, "--data", "gsm8k")
    assert (status, "--data grades the runs of the run store" in err) == (2, True)


def test_invalid_trainings_are_refused_before_a_model_is_loaded(cli, ways, home, data):
    status, _, err = cli("train", "auto", ways[0], "--out", "a.json")
    assert (status, "at least two arms" in err) == (2, True)
    status, _, err = cli("train", "auto", ways[0], ways[0], "--out", "a.json")
    assert (status, "twice" in err) == (2, True)
    status, _, err = cli("train", "auto", *ways, "--out", str(home))
    assert (status, "it is a directory" in err) == (3, True)
    status, _, err = cli("train", "auto", "nowhere", "--out", "a.json")
    assert (status, "holds no evaluation" in err) == (2, True)
    status, _, err = cli("train", "question-router", *ways, "--out", "a.json")
    assert (status, "both runs use the model scripted" in err) == (2, True)


def test_a_question_router_is_trained_shown_and_used(cli, home, data, opened, monkeypatch):
    little, big = (
        ScriptedModel(replies("The answer is 5."), name="small"),
        ScriptedModel(replies("The answer is 4."), name="large"),
    )

    async def load_model(name, *_):
        return little if name == "small" else big

    monkeypatch.setattr(gathering, "load_model", load_model)
    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    small = write_way(home / "s", data, "cot", lambda i: float(not hard(i)), lambda i: 20, models={"main": "small"})
    large = write_way(home / "l", data, "cot", lambda i: 1.0, lambda i: 30, models={"main": "large"})
    arguments = ("--rate", "0.33", "--out", "router.json", "--store", "s.sqlite3")
    status, out, err = cli("train", "question-router", str(small), str(large), *arguments)
    message = shlex.split(err.splitlines()[-1].partition("; ")[2])
    assert status == 0, err
    assert "small model 66.7% right, large model 100.0%; 33.3% of 60 questions need the large one" in out
    assert "random" in out
    results = load_question_router_file(Path("router.json"))
    assert results.rate == 0.33
    status, out, err = cli("train", "show", "router.json")
    assert status == 0, err
    assert "signals of needing the large model: " in out

    for number, answer in ((1000, "5"), (3000, "4")):
        status, out, err = cli("ask", question_text(number), *message[3:], "--store", "s.sqlite3", "--json")
        assert status == 0, err
        assert json.loads(out)["answer"] == answer
    status, out, err = cli(
        "train", "question-router", str(small), str(large), "--out", "r.json", "--json", "--folds", "2", "--no-entropy"
    )
    payload = json.loads(out)
    assert payload["file"] == "r.json"
    assert len(payload["crossed"]) == 6


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
