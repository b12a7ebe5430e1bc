"""The runs of a store as a table, their labels, and what shadow mode recorded in them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from reason.core.budget import Budget
from reason.core.errors import UserError
from reason.core.store.sqlite import SqliteStore
from reason.evals.plan import DatasetSource
from reason.evals.task import open_task
from reason.evals.training.routers.stored_runs import read_runs, shadow_report, stored_table
from reason.reasoning.strategy import create_strategy
from support.logged_runs import RunLog
from support.trained_routers import question_text, sums_file


@pytest.fixture
async def store(tmp_path):
    opened = await SqliteStore.open(tmp_path / "runs.sqlite3")
    yield opened
    await opened.aclose()


@pytest.fixture
def log(store):
    return RunLog(store)


async def test_a_dataset_grades_the_runs_of_its_questions(store, log, tmp_path):
    task = open_task(DatasetSource(dataset=str(sums_file(tmp_path / "sums.jsonl", 4))))
    await log.add(question_text(1), "3", confidence=0.5, tokens=7)
    await log.add(question_text(1), "4")
    await log.add("another question", "3")
    other, wrong, right = await read_runs(store, [task])  # the newest first
    assert (right.value, right.label, right.tokens, right.dataset[0]) == (1.0, "graded", 7, "sums")
    assert (wrong.value, other.value, other.label) == (0.0, None, None)


async def test_the_label_and_the_cost_of_a_verified_run_are_those_before_its_repair(store, log, tmp_path):
    await log.add("a", verdicts=("supported",))
    await log.add("b", verdicts=("refuted", "supported"), tokens=20)
    await log.add("c", verdicts=("not_enough_evidence",))
    c, b, a = await read_runs(store)
    assert [(run.value, run.label) for run in (a, b, c)] == [(1.0, "verified"), (0.0, "verified"), (None, None)]
    assert (a.tokens, b.tokens) == (10, 20)
    # graded, the first answer counts too: it was wrong, and the repaired one right
    rows = [{"id": "b", "question": "b", "answer": "5"}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) for row in rows))
    task = open_task(DatasetSource(dataset=str(tmp_path / "b.jsonl")))
    graded = {run.config.question.text: run for run in await read_runs(store, [task])}
    assert (graded["b"].value, graded["b"].label) == (0.0, "graded")


async def test_runs_are_arms_by_action_and_need_not_share_questions(store, log):
    for i in range(6):
        await log.add(f"q{i}", verdicts=("supported" if i % 2 else "refuted",), confidence=0.25)
    for i in range(4, 10):
        await log.add(f"q{i}", strategy="self-consistency", parameters={"n": 3}, verdicts=("supported",), tokens=30)
    await log.add("q0", effort="high", verdicts=("supported",))
    found = stored_table(await read_runs(store), fewest=6)
    table = found.table
    assert sorted(arm.label for arm in table.arms) == ["cot", "self-consistency n=3"]
    assert len(table.questions) == 10
    assert int(np.isnan(table.right).sum()) == 8
    cot = [arm.label for arm in table.arms].index("cot")
    assert np.nanmean(table.right[:, cot]) == 0.5
    assert np.nanmean(table.field("confidence")[:, cot]) == 0.25
    assert np.nanmean(table.cost[:, 1 - cot]) == 30
    assert found.labels == {"verified": 12}
    assert found.left_out == {"its arm has fewer than 6 labelled questions": 1}
    assert (table.models, table.engines) == ({"main": "m"}, {"main": "m@1"})


async def test_several_runs_of_one_action_are_seeds_of_its_question(store, log):
    for verdict in ("supported", "refuted", "supported"):
        await log.add("q", verdicts=(verdict,))
    await log.add("q", strategy="self-consistency", verdicts=("supported",))
    table = stored_table(await read_runs(store), fewest=1).table
    assert table.samples.shape[:3] == (1, 2, 3)
    assert sorted(table.right[0].tolist()) == pytest.approx([2 / 3, 1.0])


async def test_what_says_nothing_of_an_arm_is_left_out_and_counted(store, log):
    for strategy in ("cot", "self-consistency"):
        await log.add("q", strategy=strategy, verdicts=("supported",))
    yes = ("supported",)
    await log.add("q", verdicts=yes, effort="auto")
    await log.add("q", strategy="auto", verdicts=yes)
    await log.add("q", verdicts=yes, context=("docs",))
    await log.add("q", verdicts=yes, budget=Budget(tokens=1), stopped="budget")
    await log.add("q", verdicts=yes, models={"main": "another"})
    await log.add("q")
    await log.add("q", verdicts=yes, finish="interrupted")
    runs = await read_runs(store)
    assert len(runs) == 8  # the interrupted one is not read
    assert stored_table(runs, fewest=1).left_out == {
        "its effort is not known": 1,
        "auto handed the question on": 1,
        "knowledge was looked up": 1,
        "it was stopped before it was done": 1,
        "the main model was another": 1,
        "neither graded nor verified": 1,
    }


async def test_runs_of_auto_are_those_of_the_action_that_was_chosen(store, log):
    yes, chain = ("supported",), {"strategy": "cot", "parameters": create_strategy("cot", {})[1], "label": "cot"}
    await log.add("a", verdicts=yes)
    await log.add("b", strategy="auto", verdicts=yes, notes={"auto.chosen": {"action": chain}})
    await log.add("c", strategy="auto", verdicts=yes, notes={"auto.chosen": {"action": {**chain, "effort": "low"}}})
    await log.add("d", effort="auto", verdicts=yes, notes={"effort.chosen": {"effort": "low"}})
    await log.add("e", effort="auto", verdicts=yes, notes={"effort.chosen": {"effort": None}})
    await log.add("f", strategy="auto", verdicts=yes, notes={"auto.chosen": {"selected_strategy": "cot; votes"}})
    found = stored_table(await read_runs(store), fewest=1)
    assert {arm.label: int((~np.isnan(found.table.right[:, a])).sum()) for a, arm in enumerate(found.table.arms)} == {
        "cot": 3,
        "cot effort=low": 2,
    }
    assert found.left_out == {"auto handed the question on": 1}


async def test_runs_of_older_weights_are_left_out(store, log):
    await log.add("q", verdicts=("refuted",), identity="m@0")
    for strategy in ("cot", "self-consistency"):
        await log.add("q", strategy=strategy, verdicts=("supported",))
    found = stored_table(await read_runs(store), fewest=1)
    assert found.table.engines == {"main": "m@1"}
    assert found.left_out == {"a model had other weights, or another engine": 1}


async def test_a_store_without_enough_labels_is_refused_with_the_remedy(store, log):
    await log.add("q", verdicts=("supported",))
    with pytest.raises(UserError, match=r"0 arms with 40 labelled questions.*cot: 1.*--data"):
        stored_table(await read_runs(store))
    with pytest.raises(UserError, match="no run of the store has a choice"):
        shadow_report(await read_runs(store))


def choice(name, right, tokens):
    return {"selected_strategy": name, "arms": [{"arm": name, "right": right, "tokens": tokens}]}


async def test_the_shadow_report_compares_the_choices_with_what_was_done(store, log):
    cheap, dear = choice("cot", 0.75, 20.0), choice("self-consistency n=3", 0.9, 60.0)
    votes = {"strategy": "self-consistency", "parameters": {"n": 3}}
    await log.add("a", tokens=100, shadow=cheap, verdicts=("supported",), **votes)
    await log.add("b", tokens=100, shadow=cheap, **votes)
    await log.add("c", tokens=70, shadow=dear, verdicts=("refuted",), **votes)  # it did what was chosen
    await log.add("d", tokens=10, shadow={"why_not": "no file"})
    await log.add("e", tokens=10)
    report = shadow_report(await read_runs(store))
    assert (report.runs, report.failed, report.same) == (3, {"no file": 1}, pytest.approx(1 / 3))
    assert report.tokens == 90
    assert report.expected_tokens == pytest.approx((20 + 20 + 70) / 3)  # of a choice that was followed, its own
    assert report.saved.value == pytest.approx(160 / 3)
    assert (report.labelled, report.right) == (2, 0.5)
    assert report.expected_right == pytest.approx((0.75 + 0.0) / 2)
    assert report.choices == {"cot": 2, "self-consistency n=3": 1}
    assert report.done == {"self-consistency n=3": 3}
