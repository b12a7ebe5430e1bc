"""A router file from what a run noted: exact thresholds, and what is no run to calibrate on."""

from __future__ import annotations

import math
from typing import Any

import pytest
from glimprouter_training import fit_router, pool_entropies, save_router
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import UserError
from reason.evals.plan import EvalPlan
from reason.evals.results import ResultRow
from reason.routers.router_files import load_glimprouter_file
from support.calibration_maps import make_plan, make_row

ENGINES = {"main": "large@1", "small": "small@1"}


def plan(**parameters: Any) -> EvalPlan:
    models = parameters.pop("models", {"main": "large", "small": "small"})
    strategy = parameters.pop("strategy", "glimprouter")
    given = {"policy": "entropy", "threshold": 100.0, **parameters}
    return make_plan(strategy=strategy, parameters=given, models=models)


def row(name: str, **changed: Any) -> ResultRow:
    return make_row(name, None, True, engines=changed.pop("engines", ENGINES), **changed)


def noted(*entropies: float | None, kind: str = "top_k", k: int = 20, writers: list[str] | None = None) -> Any:
    return {
        "entropies": list(entropies),
        "entropy_kind": kind,
        "k": k,
        "writers": writers or ["small"] * len(entropies),
    }


def test_a_router_by_hand(tmp_path):
    rows = [row(f"q{i}") for i in range(4)]
    notes = [noted(i / 10, 1 + i / 10) for i in range(4)]  # 0, 0.1, 0.2, 0.3 and 1, 1.1, 1.2, 1.3
    router, pooled = fit_router(plan(temperature=0.6), rows, notes, 0.25)
    assert router.threshold == pytest.approx(1.2)
    assert router.measured_rate == 0.25
    assert (router.small, router.large, router.engines) == ("small", "large", ENGINES)
    assert (router.entropy, router.k, router.steps, router.questions) == ("top_k", 20, 8, 4)
    assert router.parameters["temperature"] == 0.6
    assert pooled.without == 0
    save_router(router, tmp_path / "deep" / "pair.json")
    assert load_glimprouter_file(tmp_path / "deep" / "pair.json") == router.model_copy(update={"name": "pair"})


@given(st.lists(st.lists(st.floats(0, 12), max_size=6), min_size=1, max_size=30), st.integers(1, 100))
def test_the_measured_rate_is_not_below_the_requested_rate(steps, hundredths):
    rows = [row(f"q{i}") for i in range(len(steps))]
    notes = [noted(*own) for own in steps]
    if not any(steps):
        with pytest.raises(UserError, match="no step of the run has an entropy"):
            fit_router(plan(), rows, notes, hundredths / 100)
        return
    router, pooled = fit_router(plan(), rows, notes, hundredths / 100)
    flat = [h for own in steps for h in own]
    assert router.measured_rate == sum(h >= router.threshold for h in flat) / len(flat)
    assert router.measured_rate >= hundredths / 100 - 1e-12
    assert router.steps == len(pooled.entropies) == len(flat)
    assert router.questions == sum(map(bool, steps))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"strategy": "cot"}, "the run is one of cot"),
        ({"policy": "random"}, "one of glimprouter with the policy random"),
        ({"models": {"main": "large"}}, "no small model of its own"),
    ],
)
def test_runs_that_cannot_be_calibrated_on(changed, why):
    with pytest.raises(UserError, match=why):
        fit_router(plan(**changed), [row("a")], [noted(1.0)], 0.25)


def test_notes_that_cannot_be_pooled():
    rows = [row("a"), row("b")]
    with pytest.raises(UserError, match=r"several kinds: full \(k=0\), top_k \(k=20\)"):
        pool_entropies(rows, [noted(1.0), noted(1.0, kind="full", k=0)])
    with pytest.raises(UserError, match="of a kind that is not known: guessed"):
        pool_entropies(rows, [noted(1.0), noted(1.0, kind="guessed")])
    with pytest.raises(UserError, match="no step of the run has an entropy"):
        pool_entropies(rows, [None, noted(None, None)])


def test_rows_of_several_models_are_refused():
    rows = [row("a"), row("b", engines={**ENGINES, "small": "small@2"})]
    with pytest.raises(UserError, match="several small models: small@1, small@2"):
        fit_router(plan(), rows, [noted(1.0)] * 2, 0.25)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, math.nan])
def test_a_rate_is_a_share(rate):
    with pytest.raises(UserError, match="no share of steps to send"):
        fit_router(plan(), [row("a")], [noted(1.0)], rate)
