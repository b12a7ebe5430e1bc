"""Which runs of a sweep share opened models: those for which whoever they ask is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import reason.agents.reasoner as reasoner_module
from reason.core.settings import Settings
from reason.evals.datasets.items import fingerprint
from reason.evals.plan import TaskSource
from reason.evals.runner import Nobody
from reason.evals.sweep import Sweep, SweptDataset, SweptModels, SweptStrategy, plan_sweep, run_sweep
from reason.evals.task import Task, task_of
from support.eval_tasks import TextJudge, adder, sums
from support.scripted_model import ScriptedModel


def open_sums(source: TaskSource) -> Task:
    three = sums(3)
    own = {"name": source.dataset, "fingerprint": fingerprint(three.items)}
    return task_of(three.model_copy(update=own), TextJudge)


async def test_runs_share_models_where_all_that_they_ask_are_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[str] = []

    async def open_model(name: str, *_: object) -> ScriptedModel:
        opened.append(name)
        return ScriptedModel(adder, name=name)

    monkeypatch.setattr(reasoner_module, "open_model", open_model)
    settings = Settings(
        model="m/main", strategy="cot", store=tmp_path / "unused", cache_dir=tmp_path / "cache", reuse="store"
    )
    sweep = Sweep(
        dataset=[SweptDataset(name="sums")],
        models=[
            SweptModels(main="m/main", small="s/one", judge="j/idle"),
            SweptModels(main="m/main", small="s/two"),
            SweptModels(main="m/main"),
        ],
        strategy=[
            SweptStrategy(name="cot", parameters={"max_tokens": 40}),
            SweptStrategy(name="cascade", parameters={"first": "cot", "threshold": 0.5}),
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
        jobs, settings, tmp_path / "store.sqlite3", resume=False, concurrency=2, watch=lambda _: Nobody()
    )
    # Nobody judges, so the judge is not opened; the last cascade asks the main model alone, not another's small one.
    assert opened == ["m/main", "s/one", "m/main", "s/two", "m/main"]
    assert [sorted({engine for row in rows for engine in row.engines}) for rows in made] == [
        ["main"],
        ["main", "small"],
        ["main", "small"],
        ["main"],
    ]
