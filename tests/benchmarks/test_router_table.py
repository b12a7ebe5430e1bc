"""The sweeps that the table of routers is made from, and what its cells say."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import router_table
from reason.cli.main import main
from reason.core.settings import Settings
from reason.evals.results import RowLedger, RowTiming
from reason.reasoning.strategy import create_strategy
from router_table import (
    NotedRun,
    Observation,
    discarded_tokens,
    share_cells,
    speeds,
    text_share,
)
from support.calibration_maps import make_row, make_run
from support.small_and_large import LARGE, SMALL, both_models, entropy_of

PAIR = {"main": LARGE, "small": SMALL}


def run(*arguments, monkeypatch, capsys):
    """The script as a user runs it; what it prints."""
    monkeypatch.setattr(sys, "argv", ["router_table.py", *map(str, arguments)])
    capsys.readouterr()
    assert router_table.main() == 0
    return capsys.readouterr().out


# -- cells


def watched(notes=(), models=PAIR, strategy="glimprouter", timed=(), walls=(1.0,), spent=(), **parameters):
    """A run of one row for each number of seconds."""
    rows = [
        make_row(
            f"q{i}",
            None,
            True,
            timing=RowTiming(wall_s=wall or 0.0, uninterrupted=wall is not None),
            ledger=RowLedger(model_calls=3, tokens_by_role=dict(spent)),
        )
        for i, wall in enumerate(walls)
    ]
    complete = create_strategy(strategy, parameters)[1]
    return NotedRun(make_run(rows, strategy=strategy, parameters=complete, models=dict(models)), tuple(notes), timed)


def noted(writers, *, large=0, small=0, probes=0, discarded=0):
    tokens = {"large": {"steps": large}, "small": {"steps": small, "probes": probes, "discarded": discarded}}
    return {"writers": list(writers), "tokens": tokens}


def test_shares_are_of_all_steps_and_of_all_text():
    notes = [noted(["large"], large=30), noted(["small"] * 3, small=10, probes=4, discarded=5)]
    result = watched(notes)
    assert result.intervention_rate == 0.25
    assert text_share(notes) == 0.75
    assert [discarded_tokens(n) for n in notes] == [0, 9]
    assert share_cells(result) == ["4", "2.0", "25.0", "75.0"]
    assert share_cells(watched([None, None])) == ["", "", "", ""]
    asked = [{"asked_large": True}, {"asked_large": False}, None]
    assert share_cells(watched(asked, strategy="cascade")) == ["", "", "50.0", ""]


def test_speeds_are_of_step_loops():
    timed = [Observation("large", 100 * n, 10 * m, 0.1 * n + 0.5 * m) for n in (1, 2) for m in (1, 3)]
    broken = [Observation("large", 1, 1, 99.0)]
    rows = speeds([watched(timed=tuple(timed)), watched(strategy="cot", timed=tuple(broken))])
    assert rows == ["| large | 4 | 1.000 | 50.00 |"]
    assert speeds([watched(strategy="cot", timed=tuple(broken))]) == []


# -- a sweep


@pytest.fixture
def swept(tmp_path, monkeypatch, capsys):
    """A sweep over two scripted models, run."""
    opened = both_models()

    async def load_model(name: str, settings: Settings, *_):
        return opened[name]

    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.chdir(tmp_path)
    rows = [f'{{"id": "s{i}", "question": "What is {i} + {i + 1}?", "answer": "{2 * i + 1}"}}\n' for i in range(4)]
    Path("sums.jsonl").write_text("".join(rows))
    plan = ("--large", LARGE, "--small", SMALL, "--data", "sums.jsonl", "--kind", "number", "--out", "plans")
    methods = ("--thresholds", 1, "--random-rates", 1, "--cascade", 1.0, "--cascade-samples", 2)
    run("plan", *plan, *methods, monkeypatch=monkeypatch, capsys=capsys)
    for name in ("sums", "sums-small"):
        assert main(["eval", "sweep", f"plans/{name}.toml", "--out", f"runs/{name}", "--concurrency", "4"]) == 0
    return tmp_path / "runs"


def test_table_of_a_sweep(swept, monkeypatch, capsys):
    printed = run("table", swept / "sums", swept / "sums-small", monkeypatch=monkeypatch, capsys=capsys)
    main_part, _, rest = printed.partition("### ")
    lines = [line for line in main_part.splitlines() if line.startswith("| ")]
    head, _, *body = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    rows = {row[0]: dict(zip(head, row, strict=True)) for row in body}
    assert list(rows) == [
        "large, one request",
        "small, one request",
        "large, step by step",
        "small, step by step",
        "glimprouter, threshold 1",
        "by chance, rate 1.0",
        "cascade, self-consistency, n = 2, threshold 1.0",
    ]
    right = {name: row["right % [95 %]"].split()[0] for name, row in rows.items()}
    assert right["large, one request"] == right["large, step by step"] == right["by chance, rate 1.0"] == "100.0"
    assert right["small, one request"] == right["small, step by step"] == "50.0"  # it fails at every third sum
    assert rows["small, step by step"]["less large, step by step [95 %]"].startswith("-50.0 [")
    assert rows["small, step by step"]["less large, one request [95 %]"].startswith("-50.0 [")
    assert rows["large, step by step"]["less large, step by step [95 %]"] == ""
    assert {rows[f"{who}, step by step"]["to large %"] for who in ("large", "small")} == {"100.0", "0.0"}
    by_large = sum(entropy_of(i) >= 1 for i in range(4))  # the first of three steps
    routed = rows["glimprouter, threshold 1"]
    assert (routed["steps"], routed["to large %"]) == ("3.0", f"{100 * by_large / 12:.1f}")
    assert routed["discarded"] == "3"  # a probe a step
    assert rows["small, step by step"]["tokens large"] == rows["small, one request"]["tokens large"] == "0"
    assert rows["large, one request"]["tokens small"] == "0"
    assert rows["cascade, self-consistency, n = 2, threshold 1.0"]["to large %"] == "0.0"  # two alike are unanimous
    assert "| large | " in rest.partition("Seconds by token")[2]

    (directory,) = [p for p in (swept / "sums").iterdir() if "glimprouter" in p.name and routed_run(p)]
    assert router_table.measured_rate(directory) == round(by_large / 12, 3)
    store = swept / "sums" / "store.sqlite3"
    store.rename(swept / "moved.db")
    for more, steps in ((), ""), (("--store", swept / "moved.db"), "3.0"):
        printed = run("table", swept / "sums", *more, monkeypatch=monkeypatch, capsys=capsys)
        (line,) = [x for x in printed.splitlines() if x.startswith("| glimprouter, threshold 1")]
        assert line.split("|")[7].strip() == steps


def routed_run(directory):
    """Whether a run is of `glimprouter` by entropy."""
    text = (directory / "run.json").read_text()
    return '"policy": "entropy"' in text


def test_parts_of_a_dataset_are_pooled():
    def piece(number, threshold, wall):
        result = watched([noted([], probes=number)], walls=(wall,), threshold=threshold)
        row = result.rows[0].model_copy(update={"id": f"question {number}"})
        dataset = result.run.manifest.plan.dataset.model_copy(
            update={"name": f"q{number}", "fingerprint": f"{number}" * 64}
        )
        plan = result.run.manifest.plan.model_copy(update={"dataset": dataset})
        run = replace(result.run, rows=[row], manifest=result.run.manifest.model_copy(update={"plan": plan}))
        return replace(result, run=run)

    pieces = [piece(i, threshold, i) for i in (1, 2, 3) for threshold in (0.5, 0.7)]
    low, high = router_table.pooled(pieces)
    assert [row.id for row in low.rows] == [row.id for row in high.rows] == [f"question {i}" for i in (1, 2, 3)]
    assert [discarded_tokens(notes) for notes in high.notes] == [1, 2, 3]
