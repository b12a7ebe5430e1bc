"""The page of `benchmarks/auto_router.py`, from runs whose truth is known."""

from __future__ import annotations

import auto_router
from reason.evals.training.routers.arm_table import arm_table
from reason.evals.training.routers.auto import train_auto
from reason.evals.training.routers.fitting import QuestionSignals
from reason.routers.features import QuestionFeatures, named_features
from support.trained_routers import hard, sums_file, way


def test_page_compares_auto_with_every_fixed_strategy_on_held_out_questions(tmp_path):
    data = sums_file(tmp_path / "sums.jsonl", 90)
    cheap = way(data, "cot", lambda i: float(not hard(i)), lambda i: 20)
    dear = way(data, "self-consistency", lambda i: 1.0, lambda i: 60, parameters={"n": 3})
    table = arm_table([cheap, dear])
    gathered = QuestionSignals(
        tuple(QuestionFeatures(named_features(q)) for q in table.questions), missing="there is none"
    )
    trained = train_auto(table, gathered, price=3.0, holdout=0.5)
    page = auto_router.report(table, gathered, trained)
    held = trained.held
    assert held is not None
    assert f"## Kept back, {held.questions} questions" in page
    assert page.index("## Kept back") < page.index("## Cross-validation")
    kept = page.partition("## Kept back")[2].partition("## Cross")[0]
    (row,) = [line for line in kept.splitlines() if line.startswith("| self-consistency n=3 |")]
    assert row.split(" | ")[1:3] == ["100.0", "60"]
    (at,) = [line for line in kept.splitlines() if line.startswith("| 3 |")]
    assert at.split(" | ")[1] == "100.0"
    assert "No embedding: there is none." in page
