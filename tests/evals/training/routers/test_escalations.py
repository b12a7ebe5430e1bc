"""Escalations on tables whose best policy is known."""

from __future__ import annotations

import numpy as np
from reason.core.files import question_digest
from reason.core.types import Question
from reason.evals.training.routers.arm_table import ArmSpec, ArmTable, Sample
from reason.evals.training.routers.auto import train_auto
from reason.evals.training.routers.escalations import fit_escalations, is_nested
from reason.evals.training.routers.fitting import QuestionSignals
from reason.routers.features import QuestionFeatures, named_features, observed

N = 100
CHEAP = ArmSpec("cot", {}, "main", (), "low", 1.0, 0.0)
DEAR = ArmSpec("cot", {}, "main", (), "high", 1.0, 0.0)


def table_of(arms, cells):
    """A table of cells[question][arm][seed]."""
    n = len(cells)
    return ArmTable(
        questions=(Question(text="?"),) * n,
        digests=tuple(question_digest(f"q{i}") for i in range(n)),
        groups=tuple(f"q{i}" for i in range(n)),
        arms=tuple(arms),
        samples=np.array(cells, dtype=float),
        models={"main": "m"},
        engines={"main": "m@1"},
        runs=(),
        datasets={"made": "0"},
        seeds=(0,),
    )


def signals_of(table):
    return [QuestionFeatures(named_features(q)) for q in table.questions]


def telling(i, *, confidence=True, answered=1.0):
    """Half of the cheap answers are right, and exactly those are confident; the dear ones are all right."""
    right = i % 2 == 0
    sure = (1.0 if right else 0.5) if confidence else np.nan
    return [[Sample(float(right), 10, 10, sure, 10, answered)], [Sample(1.0, 100, 100, np.nan, 100, 1.0)]]


def test_a_telling_confidence_sends_exactly_the_wrong_answers_on():
    table = table_of([CHEAP, DEAR], [telling(i) for i in range(N)])
    outcomes = [e.outcome for e in fit_escalations(table, signals_of(table))]
    best = next(o for o in outcomes if o.right.mean() == 1)
    assert best.right.tolist() == [1.0] * N
    assert best.cost.tolist() == [10.0 if i % 2 == 0 else 110.0 for i in range(N)]


def test_the_file_has_the_escalation_and_its_value_is_reported():
    table = table_of([CHEAP, DEAR], [telling(i) for i in range(N)])
    signals = signals_of(table)
    trained = train_auto(table, QuestionSignals(tuple(signals)), price=1.0)
    arm = next(a for a in trained.file.arms if a.escalation is not None and a.share_right == 1)
    assert (arm.effort, arm.escalation.then.effort, arm.mean_tokens) == ("low", "high", 60)
    assert [a.effort for a in arm.actions] == ["low", "high"]
    sure = QuestionFeatures(signals[0].named | observed(1.0, 10, answered=True))
    unsure = QuestionFeatures(signals[0].named | observed(0.5, 10, answered=True))
    assert arm.escalation.expected_gain(sure) <= arm.escalation.threshold < arm.escalation.expected_gain(unsure)
    at = next(p for p in trained.crossed.prices if p.price == 1.0)
    assert (at.right, at.cost) == (1.0, 60.0)
    assert at.over_random.interval.low > 0


def test_an_unanswered_question_goes_on_whatever_the_gain():
    cells = [telling(i) for i in range(N)]
    cells[0] = telling(0, answered=0.0)
    table = table_of([CHEAP, DEAR], cells)
    assert all(e.outcome.cost[0] == 110 for e in fit_escalations(table, signals_of(table)))


def test_without_a_sign_of_the_first_answer_there_is_no_escalation():
    cells = [telling(i, confidence=False) for i in range(N)]
    table = table_of([CHEAP, DEAR], cells)
    assert fit_escalations(table, signals_of(table)) == []


def test_a_sign_that_says_nothing_makes_no_escalation():
    rng = np.random.default_rng(0)
    cells = [telling(i) for i in range(N)]
    cells = [[[cheap[0]._replace(confidence=rng.random())], dear] for cheap, dear in cells]
    assert fit_escalations(table_of([CHEAP, DEAR], cells), signals_of(table_of([CHEAP, DEAR], cells))) == []


def test_samples_that_the_second_action_shares_are_paid_once():
    two, eight = (ArmSpec("self-consistency", {"n": n}, "main", (), None, 1.0, 0.0) for n in (2, 8))
    assert is_nested(two, eight)
    assert not is_nested(eight, two)
    assert not is_nested(two, ArmSpec("self-consistency", {"n": 8}, "main", (), "high", 1.0, 0.0))
    assert not is_nested(two, ArmSpec("self-consistency", {"n": 8, "temperature": 1}, "main", (), None, 1.0, 0.0))
    table = table_of([two, eight], [telling(i) for i in range(N)])
    best = next(e.outcome for e in fit_escalations(table, signals_of(table)) if e.outcome.right.mean() == 1)
    assert best.cost.tolist() == [10.0 if i % 2 == 0 else 100.0 for i in range(N)]


def test_seeds_are_decided_one_by_one():
    cells = [[[*telling(i)[0], *telling(i + 1)[0]], telling(i)[1] * 2] for i in range(N)]
    table = table_of([CHEAP, DEAR], cells)
    best = next(e.outcome for e in fit_escalations(table, signals_of(table)) if e.outcome.right.mean() == 1)
    assert best.cost.tolist() == [60.0] * N  # of every question one seed goes on


def test_rows_of_a_first_answer_are_those_that_the_router_sees():
    cells = [telling(i) for i in range(N)]
    table = table_of([CHEAP, DEAR], cells)
    signals = [QuestionFeatures({"length": float(i % 7)}) for i in range(N)]
    escalation = next(e for e in fit_escalations(table, signals) if e.outcome.right.mean() == 1)
    applied = escalation.apply(table, signals)
    for i, (cheap, _) in enumerate(cells):
        seen = observed(cheap[0].confidence, cheap[0].length, answered=True)
        row = escalation.space.row(QuestionFeatures(signals[i].named | seen))
        taken = escalation.gain.value(escalation.space, row) > escalation.threshold
        assert applied.cost[i] == (110 if taken else 10)
