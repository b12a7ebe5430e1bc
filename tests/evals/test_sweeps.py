"""What a sweep's file may say, and which runs it makes."""

from __future__ import annotations

from pathlib import Path

import pytest
from reason.core.errors import UserError
from reason.core.settings import Settings
from reason.evals.datasets.items import Dataset, fingerprint
from reason.evals.plan import DatasetSource, EvalPlan
from reason.evals.run_directory import load_runs, run_folders
from reason.evals.runner import RunObserver
from reason.evals.sweep import (
    PlannedRun,
    Sweep,
    SweepDataset,
    SweepModels,
    SweepStrategy,
    expand_sweep,
    plan_sweep,
    read_sweep,
    run_sweep,
)
from support.eval_tasks import adder, sums
from support.scripted_model import THINKS, ScriptedModel, thinking

CHAINS = {"max_tokens": 40, "temperature": 1.0}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"verifiers": {"davinci": {"judge": "lexical"}}, "embedding_model": "none"})


@pytest.fixture
def run_jobs(settings: Settings, tmp_path: Path):
    """Runs a sweep's runs, two items at a time."""

    async def run_jobs(jobs, *, resume=False, watch=lambda _: RunObserver()):
        store = tmp_path / "store.sqlite3"
        return await run_sweep(jobs, settings, store, resume=resume, concurrency=2, watch=watch)

    return run_jobs


PLACES = {"sums-6": slice(0, 6), "sums-4": slice(10, 14), "sums-4:later": slice(20, 24)}
"""Which of the sums a dataset has; no two share one."""


def open_sums(source: DatasetSource) -> Dataset:
    """A dataset of some sums, by its name and variant."""
    whole = sums(24)
    items = whole.items[PLACES[source.dataset]]
    name, _, variant = source.dataset.partition(":")
    own = {"name": name, "variant": variant, "items": items, "size": len(items), "fingerprint": fingerprint(items)}
    return whole.model_copy(update=own)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_strategy_runs_only_on_its_datasets(tmp_path):
    text = (
        '[[dataset]]\nname = "fever:claim-only"\ncontext = ["notes", "mcp:python x.py"]\n'
        '[[dataset]]\nname = "gsm8k"\n'
        '[[strategy]]\nname = "cot"\nverify = ["davinci"]\n'
        '[[strategy]]\nname = "logprob"\non = ["fever:claim-only"]\n'
    )
    (tmp_path / "notes").mkdir()
    sweep = read_sweep(write(tmp_path / "sweep.toml", text))
    assert sweep.dataset[0].context == (str(tmp_path / "notes"), "mcp:python x.py")
    made = [(run.strategy, run.dataset.name, run.verify) for run in expand_sweep(sweep)]
    assert made == [
        ("cot", "fever:claim-only", ("davinci",)),
        ("logprob", "fever:claim-only", ()),
        ("cot", "gsm8k", ("davinci",)),
    ]


def planned(settings: Settings, out: Path) -> list[PlannedRun]:
    sweep = Sweep(
        seeds=[0],
        dataset=[
            SweepDataset(name="sums-6", context=("one",)),
            SweepDataset(name="sums-4"),
            SweepDataset(name="sums-4:later"),
        ],
        strategy=[
            SweepStrategy(name="self-consistency", parameters=dict(CHAINS), vary={"n": [3, 1]}),
            SweepStrategy(name="cot", parameters=dict(CHAINS), verify=("davinci",), on=("sums-4",)),
        ],
    )
    return plan_sweep(sweep, settings, out, open_sums)


async def test_runs_are_in_order_and_share_samples(model, settings, run_jobs, tmp_path):
    jobs = planned(settings, tmp_path)
    assert [job.label for job in jobs] == [
        "sums-6 self-consistency n=3",
        "sums-4 self-consistency n=3",
        "sums-4:later self-consistency n=3",
        "sums-6 self-consistency n=1",
        "sums-4 self-consistency n=1",
        "sums-4 cot + davinci",
        "sums-4:later self-consistency n=1",
    ]
    begun = []

    class Noting(RunObserver):
        def __init__(self, label: str) -> None:
            self.label = label

        def begin(self, total: int, rows: object) -> None:
            begun.append(self.label)

    made = await run_jobs(jobs, watch=Noting)
    assert [len(rows) for rows in made] == [6, 4, 4, 6, 4, 4, 4]
    # n=1 and cot ask what n=3 asked; a wrong sum is refuted by arithmetic, and repaired once
    assert len(model.made) == 3 * (6 + 4 + 4) + 1
    assert begun == [f"{job.label} ({number} of 7)" for number, job in enumerate(jobs, 1)]
    runs = load_runs(run_folders([tmp_path]))
    verified = next(run for run in runs if run.manifest.plan.verify)
    assert all(row.run_id for row in verified.rows)
    again = []

    class Counting(Noting):
        def begin(self, total: int, rows: object) -> None:
            again.append(f"{total} {len(list(rows))}")

    calls = len(model.generate_calls)
    await run_jobs(jobs, resume=True, watch=Counting)
    assert len(model.generate_calls) == calls
    assert sorted(again) == sorted(f"{len(rows)} {len(rows)}" for rows in made)


async def test_an_error_ends_the_sweep(model, settings, run_jobs, tmp_path):
    jobs = planned(settings, tmp_path)
    jobs[0].out.mkdir(parents=True)
    (jobs[0].out / "run.json").write_text("{}")
    with pytest.raises(UserError):
        await run_jobs(jobs)


async def test_efforts_and_limits_of_thoughts_are_varied_like_budgets(settings, install, run_jobs, tmp_path):
    install(ScriptedModel(thinking("Let me add.", adder), profile=THINKS))
    text = """
effort = ["none", "high"]
thinking_tokens = [40]
[[dataset]]
name = "sums-4"
[[strategy]]
name = "cot"
parameters = {max_tokens = 40}
"""
    sweep = read_sweep(write(tmp_path / "sweep.toml", text))
    jobs = plan_sweep(sweep, settings, tmp_path / "out", open_sums)
    assert [(job.plan.effort, job.plan.thinking_tokens) for job in jobs] == [("none", 40), ("high", 40)]
    assert [job.label for job in jobs] == [f"cot effort={effort} thinking_tokens=40" for effort in ("none", "high")]
    rows = await run_jobs(jobs)
    assert [{row.ledger.thinking_tokens for row in own} for own in rows] == [{0}, {len("Let me add.") + 2}]


def test_unknown_names_of_a_sweep_are_refused(tmp_path):
    text = '[[dataset]]\nname = "fever:oracle"\n[[strategy]]\nname = "cot"\n'
    with pytest.raises(UserError, match=r"cot names 'fever' in .on., which is no dataset of the file") as refused:
        read_sweep(write(tmp_path / "sweep.toml", f'{text}on = ["fever"]\n'))
    assert "fever:oracle" in refused.value.hint
    with pytest.raises(UserError, match="'hard'.*'none', 'minimal', 'low', 'medium', 'high' or 'max'"):
        read_sweep(write(tmp_path / "sweep.toml", f'effort = ["hard"]\n{text}'))


def test_models_of_a_sweep_name_a_jury_for_strategies_that_have_one(settings, tmp_path):
    text = """
models = [{main = "m/main", jurors = ["a/one", "b/two", "c/three"]}, {main = "m/main", jurors = ["a/one", "b/two"]}]
dataset = [{name = "sums-4"}]
strategy = [{name = "edgejury"}, {name = "cot"}]
"""
    jobs = plan_sweep(read_sweep(write(tmp_path / "sweep.toml", text)), settings, tmp_path / "out", open_sums)
    juries = [(job.plan.strategy, job.plan.models.get("juror-3"), "juror-1" in job.plan.models) for job in jobs]
    assert sorted(juries, key=str) == [("cot", None, False), ("edgejury", "c/three", True), ("edgejury", None, True)]


def test_a_plan_is_not_compared_with_all_others(settings, tmp_path, monkeypatch):
    def equal(plan: EvalPlan, other: object) -> bool:
        raise AssertionError("two plans were compared")

    sweep = Sweep(
        dataset=[SweepDataset(name="sums-4")],
        models=[SweepModels(main="scripted/adder"), SweepModels(main="scripted/adder", small="scripted/small")],
        strategy=[
            SweepStrategy(name="cot", parameters=CHAINS),
            SweepStrategy(name="self-consistency", vary={"n": [2, 3]}),
        ],
    )
    monkeypatch.setattr(EvalPlan, "__eq__", equal)
    jobs = plan_sweep(sweep, settings, tmp_path, open_sums)
    assert [job.plan.strategy for job in jobs] == ["self-consistency", "self-consistency", "cot"]
    twice = sweep.model_copy(update={"strategy": [SweepStrategy(name="cot", parameters=CHAINS)] * 2})
    with pytest.raises(UserError, match="twice"):
        plan_sweep(twice, settings, tmp_path, open_sums)
