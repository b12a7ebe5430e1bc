"""Which runs of a sweep share opened models: those for which whoever they ask is the same."""

from __future__ import annotations

import reason.agents.reasoner as reasoner_module
from reason.evals.datasets.items import Dataset, fingerprint
from reason.evals.plan import DatasetSource
from reason.evals.runner import RunObserver
from reason.evals.sweep import Sweep, SweepDataset, SweepModels, SweepStrategy, plan_sweep, run_sweep
from support.eval_tasks import adder, sums
from support.scripted_model import ScriptedModel


def open_sums(source: DatasetSource) -> Dataset:
    three = sums(3)
    own = {"name": source.dataset, "fingerprint": fingerprint(three.items)}
    return three.model_copy(update=own)


async def test_runs_with_the_same_models_share_them(settings, monkeypatch, tmp_path):
    opened = []

    async def load_model(name: str, *_: object) -> ScriptedModel:
        opened.append(name)
        return ScriptedModel(adder, name=name)

    monkeypatch.setattr(reasoner_module, "load_model", load_model)
    settings = settings.model_copy(update={"model": "m/main"})
    sweep = Sweep(
        seeds=[0],
        dataset=[SweepDataset(name="sums")],
        models=[
            SweepModels(main="m/main", small="s/one", judge="j/idle"),
            SweepModels(main="m/main", small="s/two"),
            SweepModels(main="m/main"),
        ],
        strategy=[
            SweepStrategy(name="cot", parameters={"max_tokens": 40}),
            SweepStrategy(name="cascade", parameters={"first": "cot", "threshold": 0.5}),
        ],
    )
    jobs = plan_sweep(sweep, settings, tmp_path / "runs", open_sums)
    asked = [(job.plan.strategy, job.plan.models) for job in jobs]
    assert asked == [
        ("cot", {"main": "m/main"}),  # once: it asks none of those that differ
        ("cascade", {"main": "m/main", "small": "s/one"}),
        ("cascade", {"main": "m/main", "small": "s/two"}),
        ("cascade", {"main": "m/main"}),
    ]
    made = await run_sweep(
        jobs, settings, tmp_path / "store.sqlite3", resume=False, concurrency=2, watch=lambda _: RunObserver()
    )
    # Nobody judges, so the judge is not opened; the last cascade asks the main model alone, not another's small one.
    assert opened == ["m/main", "s/one", "m/main", "s/two", "m/main"]
    assert [sorted({engine for row in rows for engine in row.engines}) for rows in made] == [
        ["main"],
        ["main", "small"],
        ["main", "small"],
        ["main"],
    ]
