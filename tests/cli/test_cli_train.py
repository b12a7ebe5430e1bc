"""`reason train` as a user types it: train, interrupt, go on, show, evaluate with it; and every way to get it wrong."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import time
from pathlib import Path

import pytest
from reason.cli.command import is_default
from reason.cli.options import EngineOptions
from reason.cli.render.train_view import TrainProgress, TrainView
from reason.cli.train import NavigatorOptions
from reason.core.events import SampleFinished
from reason.core.messages import Completion, Usage
from reason.evals.training.navigator import episodes
from reason.evals.training.navigator.episodes import EpisodeRecord, ValidationResult
from reason.evals.training.navigator.logs import read_records
from reason.reasoning.rlot.navigator import load_navigator
from support.navigation_model import SumsModel, SumsWorld, step_chance
from support.scripted_reward import ScriptedReward

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

    monkeypatch.setattr(episodes, "load_model", load_model)
    monkeypatch.setattr(episodes, "load_reward_model", load_reward_model)
    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    return model


@pytest.fixture
def data(home):
    path = home / "sums.jsonl"
    rows = [{"id": f"s{i}", "q": f"What is {i} + {i + 1}?", "a": str(2 * i + 1)} for i in range(24)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(data, *more, episodes=12):
    return (
        *("train", "navigator", "--data", str(data), "--map", "question=q,answer=a", "-m", "scripted/sums"),
        *("--run-dir", "work", "--episodes", str(episodes), "--parallel", "4", "--validation", "4", *QUICK, *more),
    )


def test_train_show_and_evaluate_on_held_out_questions(cli, world, data):
    status, out, err = cli(*train(data, "--out", "nav.safetensors", episodes=40))
    assert status == 0, err
    assert "held out, greedy" in out
    assert "training, exploring" in out
    assert "licence" in err
    assert re.search(r"\d+ training questions, \d+ held out", err)
    assert "40/40" not in out
    assert re.search(r"[\d,]+ tokens generated in [\d,]+ completions; [\d,]+ completions \([\d,]+ tokens\) reused", err)
    assert "after 0 episodes: " in err
    records = read_records(Path("work/episodes.jsonl"))
    assert len(records) == 40
    held_out = [json.loads(line) for line in Path("work/held_out.jsonl").read_text().splitlines()]
    trained = {r.item for r in records}
    assert {row["id"].partition("/")[2] for row in held_out} & trained == set()
    assert all(int(name[1:]) % 4 for name in trained)  # the others are right when asked directly

    status, out, _ = cli("train", "show", "nav.safetensors")
    assert status == 0
    assert "2,566" in out
    assert "40 episodes" in out
    assert "the bare problem" in out
    assert "times in training" in out
    status, out, _ = cli("train", "show", "nav.safetensors", "--json")
    shown = json.loads(out)
    assert shown["card"]["episodes"] == 40
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


def test_json(cli, world, data):
    status, out, err = cli(*train(data, "--json", "--problems", "all", "--reward", "prm", "--reward-model", "x/y"))
    assert status == 0, err
    payload = json.loads(out)
    assert (payload["stopped"], payload["episodes"]) == ("done", 12)
    assert payload["usage"]["scored"] > 0
    assert payload["card"]["reward"] == "prm"
    assert Path(payload["navigator"]) == Path("work/navigator.safetensors").absolute()
    assert [v["episode"] for v in payload["validations"]] == [0, 12]


def test_step_reward(cli, world, data):
    """--resume --run-dir resumes, also with the same options; other options are refused with their differences."""
    assert cli(*train(data))[0] == 0
    made, first = len(world.made), Path("work/episodes.jsonl").read_bytes()
    status, _, err = cli(*train(data))
    assert status == 2
    assert "holds a training already" in err
    status, _, err = cli("train", "navigator", "--resume", "--run-dir", "work")
    assert status == 0, err
    assert len(world.made) == made
    assert "12 of 12 episodes are finished" in err
    status, _, err = cli(*train(data, "--resume", episodes=15))
    assert status == 0, err
    assert Path("work/episodes.jsonl").read_bytes().startswith(first)
    assert len(read_records(Path("work/episodes.jsonl"))) == 15
    status, _, err = cli(*train(data, "--resume", "--seed", "4", "--gamma", "0.8"))
    assert status == 2
    assert "learning.gamma 0.9 → 0.8" in err
    assert "seed 0 → 4" in err


def test_token_limit_ends_and_resumes_a_training(cli, world, data):
    status, _, err = cli(*train(data, "--max-tokens", "9000", "--validate-every", "0", episodes=40))
    assert status == 0, err
    done = len(read_records(Path("work/episodes.jsonl")))
    assert 0 < done < 40
    assert f"ended by --max-tokens after {done} episodes" in err
    message = re.search(r"resume: (reason train .*) --max-tokens N", err)[1]
    status, _, err = cli(*shlex.split(message)[1:], "--max-tokens", "1000000")
    assert status == 0, err
    assert len(read_records(Path("work/episodes.jsonl"))) == 40
    status, _, err = cli(*train(data, "--max-tokens", "50")[:-2], "--run-dir", "other", "--max-tokens", "50")
    assert status == 4, err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--reward", "prm"), "no reward model is set"),
        (("--reward", "best"), "--reward must be one of outcome, prm, potential, got 'best'"),
        (("--problems", "few"), "--problems must be one of hard, all, got 'few'"),
        (("--learning", "pace=1"), "pace"),
        (("--learning", "lr=fast"), "lr"),
        (("--lr", "0.1", "--learning", "lr=0.2"), "names 'lr' twice"),
        (("--learning", "batch"), "is not key=value"),
        (("--set", "policy=fixed"), "cannot be set for a training"),
        (("--set", "depth=3"), "depth"),
        (("--data", "=x"), "is not NAME or NAME=FILE"),
        (("--data", "gsm8k=nowhere.jsonl"), "nowhere.jsonl"),
        (("--data", "nosuchdata"), "nosuchdata"),
        (("--holdout", "0.0"), "nothing to validate on"),
        (("--resume",), "holds no training"),
        (("--out", "sums.d/nav.safetensors/x"), "cannot write"),
    ],
)
def test_invalid_trainings_are_refused(cli, world, data, more, message):
    Path("sums.d").write_text("")
    status, _, err = cli(*train(data, *more))
    assert status == (3 if message == "cannot write" else 2)
    assert message in err
    assert world.made == []


def test_training_without_data_is_refused(cli, world):
    status, _, err = cli("train", "navigator", "-m", "scripted/sums")
    assert (status, "no dataset to train on is named" in err) == (2, True)
    status, _, err = cli("train", "navigator", "--resume")
    assert (status, "no training is named" in err) == (2, True)
    status, out, _ = cli("train")
    assert "navigator" in out
    status, _, err = cli("train", "show", "nowhere.safetensors")
    assert (status, "nowhere.safetensors" in err) == (2, True)


def test_plan_options_are_detected_as_set():
    assert is_default(NavigatorOptions(engine=EngineOptions()))
    assert not is_default(NavigatorOptions(seed=0, engine=EngineOptions()))
    assert not is_default(NavigatorOptions(data=["gsm8k"], engine=EngineOptions()))
    assert not is_default(NavigatorOptions(engine=EngineOptions(threads=1)))


def record(n, *, correct=True, length=2, episode_return=0.81, epsilon=0.5):
    return EpisodeRecord(
        episode=n,
        dataset="d",
        item="i",
        blocks=(),
        length=length,
        states=(),
        actions=(),
        rewards=(),
        episode_return=episode_return,
        correct=correct,
        epsilon=epsilon,
    )


def test_progress_averages_the_last_episodes(monkeypatch):
    now = 100.0
    progress = TrainProgress(lambda: now)
    progress.begin(200, [record(i, correct=False, length=5, episode_return=0.0) for i in range(1, 101)])
    assert progress.line() == "100/200 episodes, return 0.000, right 0.0%, 5.00 blocks, epsilon 0.50"
    for i in range(50):
        progress.episode(record(101 + i, epsilon=0.25))
    now = 130.0
    sample = Completion(text="x", token_ids=(), finish_reason="stop", usage=Usage(completion_tokens=60), sample_index=0)
    for replayed in (False, True):
        progress.event(SampleFinished(request=0, sample=0, completion=sample, replayed=replayed))
    progress.validation = ValidationResult(
        episode=150, problems=4, correct=3, episode_return=0, length=2, missing=0, tokens=1
    )
    assert progress.line() == (
        "150/200 episodes, return 0.405, right 50.0%, 3.50 blocks, epsilon 0.25, held out 75.0%, 2 tokens/s, "
        "1 completions reused, 30 s left"
    )


def test_training_view_prints_plain_lines(capsys):
    now = 0.0
    view = TrainView(lambda: now)
    view.begin_direct(2)
    view.direct_answer(False)
    now = 31.0
    view.direct_answer(True)
    assert "direct answers 2/2, 1 hard" in capsys.readouterr().err
    view.begin(10, [], 3)
    view.episode(record(1))
    assert "episodes, return" not in capsys.readouterr().err
    now = 95.0
    view.episode(record(2))
    assert "2/10 episodes, return 0.810" in capsys.readouterr().err
    from rich.console import Console

    console = Console(width=100, record=True)
    console.print(view.render())
    rendered = console.export_text()
    for word in ("episodes", "2/10", "right", "100.0%", "blocks", "2.00 before the answer", "epsilon", "0.500"):
        assert word in rendered


def test_training_view_prints_lines_before_the_first_episode(capsys):
    now = 0.0
    view = TrainView(lambda: now)
    view.begin(10, [], 3)
    view.begin_validation(32)
    sample = Completion(text="x", token_ids=(), finish_reason="stop", usage=Usage(completion_tokens=60), sample_index=0)
    now = 31.0
    view.event(SampleFinished(request=0, sample=0, completion=sample))
    assert "validating on 32 held-out questions: 0/10 episodes" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_work_resumes(process, tiny_model: Path, home: Path, number: signal.Signals) -> None:
    path = home / "questions.jsonl"
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    limits = [f"limits.{name}_tokens={n}" for name, n in (("step", 8), ("plan", 8), ("subtask", 8), ("summary", 8))]
    limits += ["limits.assess_tokens=8", "limits.answer_tokens=8", "limits.pick_tokens=8", "max_blocks=2"]
    payload = (
        *("train", "navigator", "--data", str(path), "-m", f"local/{tiny_model}", "--weight-format", "fp32"),
        *("--threads", "1", "--problems", "all", "--parallel", "2", "--episodes", "16", "--validate-every", "0"),
        *(word for text in limits for word in ("--set", text)),
    )
    child = process(*payload, "--run-dir", "work")
    episodes = Path("work") / "episodes.jsonl"
    for _ in range(6000):
        if (episodes.exists() and b"\n" in episodes.read_bytes()) or child.poll() is not None:
            break
        time.sleep(0.02)
    child.send_signal(number)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 130, err
    saved = read_records(episodes)
    assert 0 < len(saved) < 16
    message = re.search(r"the training so far is saved: (reason .*)", err)
    assert message is not None, err
    again = process(*shlex.split(message[1])[1:], "--json")
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    assert json.loads(out)["episodes"] == 16
    records = read_records(episodes)
    assert records[: len(saved)] == saved
    assert load_navigator("work/navigator.safetensors").card.episodes == 16


def test_cancelling_leaves_no_task_running(cli, world, data, monkeypatch):
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
    status, _, err = cli(*train(data))
    assert status == 130, err
    assert "interrupted; the training so far is saved: reason train navigator --resume --run-dir work" in err
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


def test_a_problems_run_can_be_shown(cli, world, data):
    """A problem's run has its completions and its last answer; the episodes are in the training's directory."""
    assert cli(*train(data, "--problems", "all"))[0] == 0
    status, out, _ = cli("runs", "list", "--store", "work/store.sqlite3", "--json")
    runs = json.loads(out)
    assert status == 0
    assert {run["status"] for run in runs} == {"finished"}
    for run in runs:
        status, out, err = cli("runs", "show", run["id"], "--store", "work/store.sqlite3")
        assert status == 0, err
