"""Runs put together into a table, and every run that cannot be."""

import json

import numpy as np
import pytest
from arm_table import arm_table
from reason.core.budget import Budget
from reason.core.errors import DataError, UserError
from reason.core.files import question_digest
from reason.evals.results import RowLedger
from support.trained_routers import question_text, sums_file, way


@pytest.fixture
def data(tmp_path):
    return sums_file(tmp_path / "sums.jsonl", 12)


def cot(data, **more):
    return way(data, "cot", lambda i: float(i % 2), lambda i: 10 + i, **more)


def votes(data, **more):
    return way(data, "self-consistency", lambda i: 1.0, lambda i: 100, **{"parameters": {"n": 3}, **more})


def test_a_table_has_a_column_for_each_arm(data):
    table = arm_table([cot(data), votes(data)], fewest=12)
    assert [w.label for w in table.arms] == ["cot", "self-consistency n=3"]
    assert [w.role for w in table.arms] == ["main", "main"]
    assert table.right.tolist() == [[float(i % 2), 1.0] for i in range(12)]
    assert table.tokens.tolist() == [[10.0 + i, 100.0] for i in range(12)]
    assert (table.cost == table.tokens).all()
    assert table.digests == tuple(question_digest(question_text(i)) for i in range(12))
    assert [q.text for q in table.questions] == [question_text(i) for i in range(12)]
    assert (table.models, table.engines) == ({"main": "scripted"}, {"main": "scripted@1"})
    assert table.only([3, 1]).right.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_seeds_are_averaged(data):
    run = way(data, "cot", lambda i: 1.0, lambda i: 10, seeds=(0, 1))
    rows = [r.model_copy(update={"value": 0.0}) if r.seed == 1 and r.id == "s000" else r for r in run.rows]
    run.rows[:] = rows
    table = arm_table([run, votes(data)], fewest=12)
    assert table.right[0, 0] == 0.5
    assert table.seeds == (0, 1)


def test_only_shared_questions_remain_and_runs_of_one_arm_are_joined(data, tmp_path):
    other = sums_file(tmp_path / "more.jsonl", 5)
    short = votes(data)
    short.rows[:] = short.rows[2:]
    table = arm_table([cot(data), short, cot(other), votes(other)], fewest=10)
    assert len(table.questions) == 15
    assert len(table.arms) == 2
    assert table.left_out == 2
    assert len(table.datasets) == 2
    # the same text in both data sets: one group, which no fold cuts
    assert len(set(table.groups)) == 12
    with pytest.raises(UserError, match=r"two runs of cot have the question 's000'"):
        arm_table([cot(data), cot(data), short], fewest=1)


def test_own_groups_are_kept(data):
    rows = [json.loads(row) | {"group": "g"} for row in data.read_text().splitlines()]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = [cot(data), votes(data)]
    for run in runs:
        run.rows[:] = [r.model_copy(update={"group": "g"}) for r in run.rows]
    assert len(set(arm_table(runs, fewest=12).groups)) == 1


def test_runs_of_the_small_model_are_arms_of_the_small_role(data):
    little = cot(data, models={"main": "small"})
    both = votes(data, models={"main": "scripted", "small": "small"})
    ledger = RowLedger(completion_tokens=100, tokens_by_role={"main:scripted": 40, "small:small": 60})
    both.rows[:] = [r.model_copy(update={"ledger": ledger}) for r in both.rows]
    table = arm_table([little, both, cot(data)], small_cost=0.1, fewest=12)
    assert [(w.role, w.needs) for w in table.arms] == [("small", ()), ("main", ("small",)), ("main", ())]
    assert np.allclose(table.cost[0], [1.0, 46.0, 10.0])
    assert np.allclose(table.tokens[0], [10.0, 100.0, 10.0])
    assert table.engines == {"main": "scripted@1", "small": "small@1"}
    named = arm_table([little, cot(data)], main="scripted", small="small", fewest=12)
    assert [w.role for w in named.arms] == ["small", "main"]


def test_runs_that_differ_in_effort_are_arms(data):
    table = arm_table([cot(data), cot(data, effort="low"), cot(data, effort="high")], fewest=12)
    assert [(a.label, a.effort) for a in table.arms] == [
        ("cot", None),
        ("cot effort=low", "low"),
        ("cot effort=high", "high"),
    ]


def test_runs_that_cannot_be_arms_are_refused_with_a_hint(data, tmp_path):
    with pytest.raises(UserError, match="at least two arms"):
        arm_table([cot(data)], fewest=1)
    with pytest.raises(UserError, match=r"12 questions .* at least 40"):
        arm_table([cot(data), votes(data)])
    with pytest.raises(UserError, match=r"several main models: scripted, other.*--small-model"):
        arm_table([cot(data), votes(data, models={"main": "other"})], fewest=1)
    with pytest.raises(UserError, match=r"has the model|have the model other"):
        arm_table([cot(data), votes(data, models={"main": "other"})], main="scripted", fewest=1)
    with pytest.raises(UserError, match="can be no arm: it had a budget"):
        arm_table([cot(data, budget=Budget(tokens=50)), votes(data)], fewest=1)
    with pytest.raises(UserError, match="can be no arm: its strategy auto hands"):
        arm_table([way(data, "auto", lambda i: 1.0, lambda i: 1), votes(data)], fewest=1)
    with pytest.raises(UserError, match="can be no arm: it looked things up"):
        arm_table([cot(data, context=("docs",)), votes(data)], fewest=1)
    mixed = cot(data)
    mixed.rows[0] = mixed.rows[0].model_copy(update={"engines": {"main": "scripted@2"}})
    with pytest.raises(UserError, match=r"several main models: scripted@1, scripted@2"):
        arm_table([mixed, votes(data)], fewest=1)
    runs = [cot(data), votes(data)]
    sums_file(data, 11)
    with pytest.raises(DataError, match="no longer has the rows of the run"):
        arm_table(runs, fewest=1)
