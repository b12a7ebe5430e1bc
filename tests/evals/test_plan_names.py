"""Names of evaluations stay: a parameter that came later, and is not used, is in no digest."""

from __future__ import annotations

import pytest
from reason.evals.plan import DatasetInfo, EvalPlan
from reason.reasoning.strategy import create_strategy

NAMES = {
    "adaptive": "dcae464910f7",
    "astar": "c2d030dcb7d5",
    "auto": "07cd9b386676",
    "beam": "c5f5a3c42673",
    "best-of-n": "939a31fe0f13",
    "cascade": "cc22b36e0829",
    "coat": "631d30122676",
    "cot": "379f0fc8f940",
    "dvts": "5f7e380ff2d2",
    "edgejury": "e2cc1783b0e9",
    "glimprouter": "181d09587012",
    "hogwild": "293722cc530b",
    "logprob": "a77aeb243fc4",
    "mcts": "582508159fb5",
    "particle-filter": "812a77fcbb67",
    "particle-gibbs": "8892a12d7368",
    "pc": "e641d687617e",
    "ppl": "be368163c5a1",
    "question-router": "b2514d8bc5e6",
    "rag": "debfb5bca619",
    "ranked-vote": "a052fec7a67b",
    "rlot": "00b8de09fc18",
    "rpc": "00a63cab973a",
    "self-consistency": "82343d51dd7b",
    "specreason": "8863a8e6760e",
    "universal-self-consistency": "1e73e1d634c5",
    "weighted-vote": "d5910f8fe697",
}
"""Digest of a plan of each strategy with its defaults, as it was before answers could be held to JSON schemas."""


def digest(strategy: str, **parameters: object) -> str:
    _, complete = create_strategy(strategy, parameters)  # type: ignore[arg-type]
    data = DatasetInfo(name="gsm8k", source="x", fingerprint="ab" * 32, size=10)
    models = {"main": "local/smollm2-135m"}
    return EvalPlan(dataset=data, strategy=strategy, parameters=complete, models=models).digest


@pytest.mark.parametrize("strategy", NAMES)
def test_a_plan_with_defaults_has_the_name_that_it_had(strategy):
    assert digest(strategy) == NAMES[strategy]


def test_a_schema_makes_another_plan():
    schema = {"type": "object"}
    assert len({NAMES["cot"], digest("cot", json_schema=schema), digest("cot", json_schema={"type": "array"})}) == 3
    assert digest("cot", json_schema=None) == NAMES["cot"]
