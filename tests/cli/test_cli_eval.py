"""`reason eval` as a user types it: run, interrupt, resume, sweep, compare, report, merge; and ways to get it wrong."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
from pathlib import Path

import pytest
from reason.cli.eval import EXAMPLES
from reason.cli.inputs import parse_texts
from reason.cli.render.console import duration
from reason.cli.render.evaluations import EvalView
from reason.core.errors import UserError
from reason.core.events import SampleFinished
from reason.core.messages import Completion, Usage
from reason.evals.datasets import loading
from reason.evals.datasets.records import Record
from reason.evals.results import ResultRow
from reason.evals.run_directory import read_rows
from support.eval_tasks import adder, write_sums
from support.scripted_model import replies

SET = ("--set", "n=3", "--set", "max_tokens=40", "--set", "temperature=1.0", "-m", "scripted/adder")


@pytest.fixture
def sums(home: Path) -> Path:
    return write_sums(home / "sums.jsonl", 8)


def test_run_resume_compare_report(cli, scripted, sums, home):
    model = scripted(adder)
    status, out, err = cli(
        "eval", str(sums), "--map", "question=q", "-s", "self-consistency", *SET, "--out", "votes", "--seeds", "2"
    )
    assert status == 0, err
    assert "self-consistency n=3" in out
    assert "two seeds disagree on" in out
    assert "licence" in err
    assert err.count("licence") == 1
    made = len(model.made)
    assert made == 8 * 2 * 3

    status, out, err = cli("eval", "--resume", "--out", "votes", "--json")
    assert status == 0, err
    summary = json.loads(out)
    assert (summary["items"], summary["rows"], summary["cost"]["paid_responses"]) == (8, 16, 48)
    assert len(model.made) == made

    status, out, err = cli(
        "eval", "run", str(sums), "--map", "question=q", "-s", "cot", *SET[2:], "--out", "cot", "--seeds", "2"
    )
    assert status == 0, err
    status, out, err = cli("eval", "compare", "cot", "votes")
    assert status == 0, err
    assert "also differs" not in out
    assert "sign-flip exact" in out
    assert "p (Holm)" not in out  # one comparison
    status, out, err = cli("eval", "compare", "cot", "votes", "--json")
    assert json.loads(out)[0]["score"]["items"] == 8

    status, out, err = cli("eval", "report", "votes", "cot", "--out", "report.html")
    assert status == 0, err
    assert Path("report.html").read_text().startswith("<!doctype html>")


@pytest.mark.nightly
def test_every_example_of_the_help_works(cli, scripted, monkeypatch):
    pytest.importorskip("matplotlib")
    records = [{"question": f"What is {i} + {i + 1}?", "answer": f"So\n#### {2 * i + 1}"} for i in range(24)]

    def read_hub(source):
        return (Record(r, f"row {i}", i, source.repo) for i, r in enumerate(records, 1)), "0" * 40

    monkeypatch.setattr(loading, "read_hub", read_hub)
    scripted(adder)
    Path("my.jsonl").write_text(json.dumps({"q": "What is 1 + 2?", "a": "3"}) + "\n")
    Path("sweep.toml").write_text('[[dataset]]\nname = "gsm8k"\n[[strategy]]\nname = "cot"\n')
    examples = [line for line in EXAMPLES.splitlines() if line.startswith("reason ") and "openai/" not in line]
    assert len(examples) == 8
    for line in examples:
        status, out, err = cli(*shlex.split(line)[1:])
        assert status == 0, f"{line}: {err}"
        if "compare" in line:  # the strategies sample at different temperatures by default
            assert "also differs: parameters.temperature: 0.7 and 0.0" in out


def test_sweep_runs_resumes_and_reports(cli, scripted, sums):
    model = scripted(adder)
    Path("sweep.toml").write_text(
        f"""
seeds = [0]
models = [{{main = "scripted/adder"}}]
[[dataset]]
name = "{sums}"
map = {{question = "q"}}
limit = 5
[[strategy]]
name = "self-consistency"
parameters = {{max_tokens = 40, temperature = 1.0}}
vary = {{n = [1, 4]}}
"""
    )
    status, out, err = cli("eval", "sweep", "sweep.toml", "--out", "swept", "--json")
    assert status == 0, err
    runs = json.loads(out)
    assert [r["summary"]["cost"]["paid_responses"] for r in runs] == [20, 0]
    assert len(model.made) == 20
    status, out, err = cli("eval", "sweep", "sweep.toml", "--out", "swept", "--resume")
    assert (status, len(model.made)) == (0, 20)


def test_too_many_unparsed_answers_are_a_warning(cli, scripted, sums):
    scripted(replies("Hm."))
    numbers = ("--map", "question=q", "--option", "kind=number", "--out", "run2")
    status, _, err = cli("eval", str(sums), *numbers, "-s", "cot", "-m", "scripted/y")
    assert status == 0
    assert "100.0% of the answers could not be parsed" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "run"], "no dataset is named"),
        (["eval", "--resume", "--out", "nowhere"], "holds no evaluation"),
        (["eval", "gsm9k"], "unknown dataset 'gsm9k'"),
        (["eval", "compare", "nowhere"], "holds no evaluation"),
        (["eval", "report", "nowhere", "--out", "r.pdf"], "not a report format"),
        (["eval", "sweep", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_usage_errors_name_the_problem(arguments, message, cli, scripted):
    scripted(adder)
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert not Path("eval-runs").exists()


def test_run_directory_is_not_reused(cli, scripted, sums):
    scripted(adder)
    command = ("eval", str(sums), "--map", "question=q", "-s", "cot", *SET[2:], "--seeds", "1")
    assert cli(*command)[0] == 0
    (directory,) = Path("eval-runs").iterdir()
    assert directory.name.startswith("sums-adder-cot-")
    status, _, err = cli(*command)
    assert status == 2
    assert "--resume" in err
    assert "the work so far is saved" not in err  # nothing was
    status, out, _ = cli(*command, "--resume")
    assert (status, "one seed: the variation between seeds is not estimable" in out) == (0, True)
    status, _, err = cli("eval", "--resume", "--out", str(directory), "--set", "temperature=0")
    assert (status, "a resumed run keeps its own options" in err) == (2, True)


def test_texts_by_key():
    assert parse_texts(["a=1", "b = x=y"], "--option") == {"a": "1", "b": "x=y"}
    with pytest.raises(UserError, match="twice"):
        parse_texts(["a=1", "a=2"], "--option")


def test_progress_rate_counts_new_rows_only():
    now = [100.0]
    progress = EvalView("gsm8k", lambda: now[0])
    progress.note("")

    def row(name: str, value: float, *, parsed: bool = True) -> ResultRow:
        return ResultRow(
            id=name, seed=0, item_seed=1, run_id="r", question="q", strategy="cot", models={"main": "m"}, version="1",
            value=value, parsed=parsed,
        )  # fmt: skip

    progress.begin(10, [row("a", 1.0), row("b", 0.0)])
    assert progress.line() == "gsm8k: 2/10, accuracy 50.0% [9.5, 90.5]"
    now[0] = 110.0
    completion = Completion(text="x", finish_reason="stop", usage=Usage(completion_tokens=50))
    progress.event(SampleFinished(request=0, sample=0, completion=completion))
    progress.event(SampleFinished(request=0, sample=1, completion=completion, replayed=True))
    progress.row(row("c", 1.0))
    progress.row(row("d", 1.0, parsed=False))
    assert progress.line() == ("gsm8k: 4/10, accuracy 75.0% [30.1, 95.4], 5 tokens/s, 30 s left, unparsed answers 1")
    assert (duration(89), duration(600), duration(7200)) == ("89 s", "10 min", "2.0 h")


def test_interrupted_work_resumes(cli, scripted, sums):
    generated = 0

    async def interrupt() -> None:
        nonlocal generated
        generated += 1
        if generated == 60:  # characters: after some items of up to 18 each
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()

    model = scripted(adder, step=interrupt)
    status, _, err = cli(
        "eval", str(sums), "--map", "question=q", "-s", "cot", *SET[2:], "--seeds", "1", "--concurrency", "1", "--out",
        "run",
    )  # fmt: skip
    assert status == 130, err
    saved = read_rows(Path("run"), torn_end=True)
    assert 0 < len(saved) < 8
    message = re.search(r"the finished items are saved: (reason .*)", err)
    assert message is not None, err
    status, out, err = cli(*shlex.split(message[1])[1:], "--json")
    assert status == 0, err
    summary = json.loads(out)
    assert (summary["rows"], summary["cost"]["paid_responses"]) == (8, 8)
    assert len(model.made) <= 9  # of finished items nothing was generated again
    finished = {r.key: r for r in read_rows(Path("run"))}
    assert all(finished[r.key] == r for r in saved)
