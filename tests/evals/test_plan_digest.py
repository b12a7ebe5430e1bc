"""Digests of plans: parameters at their defaults change nothing, and every other value does."""

from __future__ import annotations

import pytest
from reason.evals.plan import DatasetInfo, EvalPlan
from reason.reasoning.strategy import STRATEGIES, create_strategy


def digest(strategy: str, **parameters: object) -> str:
    _, complete = create_strategy(strategy, parameters)
    data = DatasetInfo(name="gsm8k", source="x", fingerprint="ab" * 32, size=10)
    models = {"main": "local/smollm2-135m"}
    return EvalPlan(dataset=data, strategy=strategy, parameters=complete, models=models).digest


@pytest.mark.parametrize("strategy", STRATEGIES.names())
def test_a_plan_with_defaults_is_the_plan_with_these_values(strategy):
    assert digest(strategy) == digest(strategy, **create_strategy(strategy, {})[1])


def test_strategies_have_different_digests():
    assert len({digest(strategy) for strategy in STRATEGIES.names()}) == len(STRATEGIES.names())


def test_alternatives_make_another_plan():
    assert len({digest("cot"), digest("cot", top_logprobs=1), digest("cot", top_logprobs=2)}) == 3
    assert digest("cot", top_logprobs=0) == digest("cot")
