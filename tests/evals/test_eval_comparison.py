"""When two runs may be compared, what is said when not, and what a report holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from reason.core.budget import Budget
from reason.core.errors import DataError, UserError
from reason.core.settings import Settings
from reason.evals.comparison import compare_runs, split_differences
from reason.evals.report.content import build_content
from reason.evals.report.page import render_html, write_report
from reason.evals.run_directory import EvalRun, load_run, load_runs, run_folders
from reason.evals.runner import evaluate, make_plan
from reason.evals.statistics.paired import holm
from reason.evals.sweep import (
    SweepModels,
    expand_sweep,
    read_sweep,
)
from support.eval_tasks import SOURCE, sums


async def make(settings: Settings, out: Path, items: int = 10, **parameters: object) -> Path:
    task = sums(items)
    plan = make_plan(task, settings, parameters={"max_tokens": 40, "temperature": 1.0, **parameters}, seeds=[0])
    await evaluate(plan, task, SOURCE, out, settings)
    return out


@pytest.mark.parametrize(
    ("left", "right", "compared", "besides"),
    [
        ({"parameters.n": 1}, {"parameters.n": 4}, ["parameters.n"], []),
        ({"budget.tokens": 100}, {"budget.tokens": None}, ["budget.tokens"], []),
        ({"models.main": "a", "engine.main": "x"}, {"models.main": "b", "engine.main": "y"},
         ["models.main", "engine.main"], []),
        ({"strategy": "cot", "parameters.system": ""}, {"strategy": "sc", "parameters.n": 4},
         ["strategy", "parameters.system", "parameters.n"], []),
        ({"strategy": "cot", "parameters.max_tokens": 1}, {"strategy": "sc", "parameters.max_tokens": 2},
         ["strategy"], ["parameters.max_tokens"]),
        ({"parameters.n": 1, "parameters.top_p": 1}, {"parameters.n": 4, "parameters.top_p": 0.9},
         [], ["parameters.n", "parameters.top_p"]),
        ({"engine.main": "vllm-1"}, {"engine.main": "vllm-2"}, [], ["engine.main"]),
        ({"version": "1"}, {"version": "2"}, [], ["version"]),
        ({"dataset.fingerprint": "1"}, {"dataset.fingerprint": "2"}, [], ["dataset.fingerprint"]),
        ({"a": 1}, {"a": 1}, [], []),
        ({"strategy": "cot", "seeds": [0]}, {"strategy": "sc", "seeds": [0, 1, 2]}, ["strategy", "seeds"], []),
        ({"strategy": "cot", "seeds": [0, 1]}, {"strategy": "sc", "seeds": [2, 3]}, ["strategy"], ["seeds"]),
        ({"seeds": [0]}, {"seeds": [0, 1]}, ["seeds"], []),
        ({"strategy": "cot"}, {"strategy": "sc", "effort": "low"}, ["strategy"], ["effort"]),
    ],
)  # fmt: skip
def test_one_difference_is_allowed(left, right, compared, besides):
    result = split_differences(left, right)
    assert [[d.name for d in part] for part in result] == [compared, besides]


async def test_default_temperatures_that_differ_are_listed(model, settings, tmp_path):
    runs = []
    for strategy, parameters in (("cot", {}), ("self-consistency", {"n": 2})):
        task = sums(3)
        plan = make_plan(task, settings.model_copy(update={"strategy": strategy}), parameters=parameters, seeds=[0])
        assert plan.parameters["temperature"] is None
        await evaluate(plan, task, SOURCE, tmp_path / strategy, settings)
        runs.append(load_run(tmp_path / strategy))
    assert [str(d) for d in compare_runs(runs[1], runs[0]).besides] == ["parameters.temperature: 0.7 and 0.0"]


async def test_runs_of_another_scorer_are_refused(model, settings, tmp_path):
    a, b = [load_run(await make(settings, tmp_path / str(t), temperature=t)) for t in (0.5, 1.0)]
    plan = b.manifest.plan
    other = plan.model_copy(update={"dataset": plan.dataset.model_copy(update={"scorer": "f1"})})
    with pytest.raises(UserError, match="scored in different ways, math and f1"):
        compare_runs(a, replace(b, manifest=b.manifest.model_copy(update={"plan": other})))


async def test_rows_that_one_run_lacks_do_not_count(model, settings, tmp_path):
    whole = await make(settings, tmp_path / "whole")
    part = await make(settings, tmp_path / "part", max_tokens=30)
    lines = (part / "items.jsonl").read_text().splitlines()
    (part / "items.jsonl").write_text("\n".join(lines[:6]) + "\n")
    result = compare_runs(load_run(whole), load_run(part))
    assert (result.score.items, result.missing) == (6, 4)


async def test_a_metric_that_no_item_has_in_both_runs_is_left_out(model, settings, tmp_path):
    a, b = [load_run(await make(settings, tmp_path / str(t), temperature=t)) for t in (0.5, 1.0)]

    def only(run: EvalRun, first: bool) -> EvalRun:
        scores = [{"f1": 1.0} if (i == 0) is first else {} for i in range(len(run.rows))]
        rows = [r.model_copy(update={"metrics": m}) for r, m in zip(run.rows, scores, strict=True)]
        return replace(run, rows=rows)

    result = compare_runs(only(a, first=True), only(b, first=False))
    assert result.score.items == 10
    assert result.metrics == {}


async def test_a_report_is_written_in_the_form_of_its_suffix(model, settings, tmp_path):
    runs = load_runs([await make(settings, tmp_path / str(t), items=4, temperature=t) for t in (0.5, 1.0)])
    content = build_content(runs, "Sums")
    write_report(content, tmp_path / "deep" / "report.JSON")
    plain = json.loads((tmp_path / "deep" / "report.JSON").read_text())
    assert [run["summary"]["items"] for run in plain["runs"]] == [4, 4]
    assert [pair["p_adjusted"] for pair in plain["pairs"]] == holm([pair.score.p for pair in content.pairs])
    with pytest.raises(UserError, match=r"\.pdf"):
        write_report(content, tmp_path / "report.pdf")


async def test_one_run_and_one_item_still_make_a_report(model, settings, tmp_path):
    pytest.importorskip("matplotlib")
    run = await make(settings, tmp_path / "one", items=1)
    page = render_html(build_content([load_run(run)], "One"))
    assert "<h1>One</h1>" in page


def test_directories_without_runs_are_named(tmp_path):
    with pytest.raises(UserError, match="holds no evaluation"):
        run_folders([tmp_path])
    with pytest.raises(DataError, match="holds no evaluation"):
        load_run(tmp_path)


def test_a_sweep_file(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(
        """
seeds = [1, 2]
models = [{main = "local/a"}, {main = "local/b", small = "local/c"}]
budget = [{tokens = 100}, {tokens = 200}]
[[dataset]]
name = "gsm8k"
data = "rows.jsonl"
[[strategy]]
name = "cot"
[[strategy]]
name = "self-consistency"
vary = {n = [1, 2, 4]}
"""
    )
    sweep = read_sweep(file)
    assert sweep.dataset[0].data == tmp_path / "rows.jsonl"
    runs = expand_sweep(sweep)
    assert len(runs) == 2 * 4 * 2
    assert [r.models.main for r in runs] == ["local/a"] * 8 + ["local/b"] * 8
    assert [r.parameters.get("n", 1) for r in runs[:8]] == [4, 4, 2, 2, 1, 1, 1, 1]
    assert runs[0].budget == Budget(tokens=100)
    assert runs[0].models == SweepModels(main="local/a")
    file.write_text("strategies = 1")
    with pytest.raises(UserError, match=r"s\.toml"):
        read_sweep(file)
    file.write_text("= broken")
    with pytest.raises(DataError, match=r"s\.toml"):
        read_sweep(file)
    with pytest.raises(DataError, match="nowhere"):
        read_sweep(tmp_path / "nowhere.toml")
    file.write_text("seeds = " + "[" * 5000)
    with pytest.raises(DataError, match="cannot read the sweep"):
        read_sweep(file)
