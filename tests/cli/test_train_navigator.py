"""The script that trains a navigator: train, interrupt, run again, show, evaluate; and every way to get it wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shlex
import signal
import sqlite3
from pathlib import Path

import navigator_training as training
import pytest
import train_navigator
import train_router
from reason.reasoning.rlot.navigator import load_navigator
from support.eval_tasks import write_sums
from support.navigation_model import SumsModel, SumsWorld, step_chance
from support.scripted_reward import ScriptedReward
from support.waiting import wait_blocking

QUICK = tuple(
    word
    for text in ("batch=8", "learning_starts=16", "capacity=64", "sync_every=5", "eps_decay=0.97")
    for word in ("--learning", text)
)


@pytest.fixture
def world(monkeypatch):
    """The scripted model that every name opens, for trainings and for evaluations."""
    model = SumsModel(SumsWorld())

    async def load_model(*_):
        return model

    async def load_reward_model(*_):
        return ScriptedReward(step_chance)

    monkeypatch.setattr(training, "load_model", load_model)
    monkeypatch.setattr(training, "load_reward_model", load_reward_model)
    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    return model


@pytest.fixture
def data(home):
    return write_sums(home / "sums.jsonl", 24, "a")


def records(path="work/episodes.jsonl"):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.fixture
def train(cli, data):
    """Runs the script; returns exit status, standard output, standard error."""

    def run(*more, episodes=12):
        return cli(
            *("--data", str(data), "--map", "question=q,answer=a", "-m", "scripted/sums", "--run-dir", "work"),
            *("--episodes", str(episodes), "--parallel", "4", "--validation", "4", *QUICK, *more),
            app=train_navigator.app,
        )

    return run


@pytest.mark.nightly
def test_train_show_and_evaluate_on_held_out_questions(cli, train, world, data):
    status, out, err = train("--out", "nav.safetensors", episodes=12)
    assert status == 0, err
    assert "held out, greedy" in out
    assert "training, exploring" in out
    assert "licence" in err
    assert re.search(r"\d+ training questions, \d+ held out", err)
    assert "12/12" not in out
    assert re.search(r"[\d,]+ tokens generated in [\d,]+ completions; [\d,]+ completions \([\d,]+ tokens\) reused", err)
    assert "after 0 episodes: " in err
    assert len(records()) == 12
    held_out = [json.loads(line) for line in Path("work/held_out.jsonl").read_text().splitlines()]
    trained = {r["item"] for r in records()}
    assert {row["id"].partition("/")[2] for row in held_out} & trained == set()
    assert all(int(name[1:]) % 4 for name in trained)  # the others are right when asked directly

    status, out, _ = cli("show", "nav.safetensors", app=train_router.app)
    assert status == 0
    assert "2,566" in out
    assert "12 episodes" in out
    assert "the bare problem" in out
    status, out, _ = cli("show", "nav.safetensors", "--json", app=train_router.app)
    shown = json.loads(out)
    assert shown["card"]["episodes"] == 12
    navigator = load_navigator("nav.safetensors")
    for row in shown["states"]:
        q = row["q"]
        assert list(q) == ["reason", "decompose", "debate", "refine", "terminate"]
        assert q[row["later"]] == max(q.values())
        assert q[row["first"]] == max(value for name, value in q.items() if name != "refine")
        assert tuple(q.values()) == pytest.approx(navigator.q(tuple(row["state"])))

    # the command that is said evaluates on the held-out half with the navigator
    message = re.search(r"^reason eval .*", err, re.M)[0]
    status, out, err = cli(*shlex.split(message)[1:], "--out", "evaluated", "--json")
    assert status == 0, err
    summary = json.loads(out)
    assert summary["items"] == len(held_out)
    assert summary["degraded"] == {}  # none of them was trained on
    complete = ("eval", str(data), "--map", "question=q,answer=a", "-s", "rlot", "-m", "scripted/sums")
    status, out, err = cli(*complete, "--set", "navigator=nav.safetensors", "--out", "whole", "--json")
    assert status == 0, err
    assert sum(json.loads(out)["degraded"].values()) == load_navigator("nav.safetensors").card.problems


def test_a_training_reports_itself_and_its_runs_can_be_shown(cli, train, world):
    status, out, err = train("--json", "--problems", "all", "--reward", "prm", "--reward-model", "x/y")
    assert status == 0, err
    payload = json.loads(out)
    assert (payload["complete"], payload["episodes"], payload["card"]["reward"]) == (True, 12, "prm")
    assert Path(payload["navigator"]) == Path("work/navigator.safetensors").absolute()
    assert [v["episode"] for v in payload["validations"]] == [0, 12]
    runs = json.loads(cli("runs", "list", "--store", "work/store.sqlite3", "--json")[1])
    assert {run["status"] for run in runs} == {"finished"}
    for run in runs:
        status, _, err = cli("runs", "show", run["id"], "--store", "work/store.sqlite3")
        assert status == 0, err
    assert cli("show", payload["navigator"], app=train_router.app)[0] == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--reward", "prm"), "no reward model is set"),
        (("--learning", "pace=1"), "pace"),
        (("--learning", "lr=fast"), "lr"),
        (("--set", "policy=fixed"), "cannot be set for a training"),
        (("--data", "gsm8k=nowhere.jsonl"), "nowhere.jsonl"),
        (("--holdout", "0.0"), "nothing to validate on"),
    ],
)
def test_invalid_trainings_are_refused(train, world, more, message):
    status, _, err = train(*more)
    assert status == 2
    assert message in err
    assert world.made == []


def test_training_without_data_is_refused(cli, world):
    status, _, err = cli("-m", "scripted/sums", app=train_navigator.app)
    assert (status, "no dataset to train on is named" in err) == (2, True)
    status, _, err = cli("show", "nowhere.safetensors", app=train_router.app)
    assert (status, "nowhere.safetensors" in err) == (2, True)


def has_calls(store: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
            return bool(db.execute("SELECT 1 FROM calls LIMIT 1").fetchone())
    except sqlite3.OperationalError:  # no store or no table yet
        return False


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_work_resumes(process, tiny_model, home, number):
    path = home / "questions.jsonl"
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    payload = (
        *("--data", str(path), "-m", f"local/{tiny_model}"),
        *("--problems", "all", "--parallel", "2", "--episodes", "16", "--validation", "0"),
        *("--set", "max_blocks=2"),
    )
    script = Path(train_navigator.__file__)
    child = process(*payload, "--run-dir", "work", script=script)
    wait_blocking(lambda: child.poll() is not None or has_calls(Path("work") / "store.sqlite3"))
    child.send_signal(number)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 130, err
    assert "interrupted; run the same command again to continue" in err
    again = process(*payload, "--run-dir", "work", "--json", script=script)
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    assert json.loads(out)["usage"]["reused_completions"] > 0
    assert load_navigator("work/navigator.safetensors").card.episodes == 16


def test_cancelling_leaves_no_task_running(train, world, monkeypatch):
    """The first signal cancels; the loop ends with nothing under way."""
    left = []
    run = asyncio.Runner.run

    def watched(runner, work):
        async def inside():
            try:
                return await work
            finally:
                left.append(len(asyncio.all_tasks()))

        return run(runner, inside())

    monkeypatch.setattr(asyncio.Runner, "run", watched)
    world._step = _interrupting(60)
    status, _, err = train()
    assert status == 130, err
    assert "interrupted; run the same command again to continue" in err
    assert left == [1]
    assert world.running == 0


def _interrupting(after):
    count = 0

    def step():
        nonlocal count
        count += 1
        if count == after:
            signal.raise_signal(signal.SIGINT)

    return step
