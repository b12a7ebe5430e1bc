"""`GlimpRouterFile`: exact quantiles, what holds of every threshold, and every way that its file can be wrong."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.core.errors import DataError, UserError
from reason.routers.router_files import PARTS, load_glimprouter_file, quantiles_of
from support.router_files import make_router, write_router

many = st.lists(st.floats(0, 12), min_size=1, max_size=400)
few_values = st.lists(st.sampled_from([0.0, 0.5, 0.5, 1.0, 2.0]), min_size=1, max_size=120)


def of(entropies: list[float], **changed: object) -> object:
    return make_router(quantiles=quantiles_of(entropies), steps=len(entropies), **changed)


def test_quantile_values():
    found = quantiles_of([4.0, 1.0, 3.0, 2.0])
    assert found[0] == 1.0
    assert (found[24], found[25], found[50], found[75], found[100]) == (1.0, 2.0, 3.0, 4.0, 4.0)
    assert quantiles_of([0.7]) == (0.7,) * (PARTS + 1)


def test_a_rate_gives_its_quantile():
    router = of([i / 100 for i in range(1000)])
    assert router.threshold_for(0.25) == 7.5
    assert router.threshold_for(0.3) == 7.0  # 1 - 0.3 is not 0.7 in binary
    assert router.threshold_for(1) == 0.0
    assert router.threshold_for(0.255) == pytest.approx(7.45)
    assert router.threshold_for(0) == math.nextafter(9.99, math.inf)


@pytest.mark.parametrize("rate", [-0.01, 1.01, math.nan])
def test_rates_outside_0_to_1_are_rejected(rate):
    with pytest.raises(UserError, match="rate must be in"):
        make_router().threshold_for(rate)


@given(st.one_of(many, few_values), st.integers(1, PARTS))
def test_threshold_routes_at_least_its_rate(entropies, hundredths):
    router, rate = of(entropies), hundredths / PARTS
    threshold = router.threshold_for(rate)
    n = len(entropies)
    assert sum(h >= threshold for h in entropies) >= math.ceil(n * rate - 1e-9)
    if len(set(entropies)) == n:
        assert sum(h >= threshold for h in entropies) == math.ceil(n * hundredths / PARTS)


@given(st.one_of(many, few_values), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_rate_never_has_a_higher_threshold(entropies, a, b):
    router = of(entropies)
    low, high = sorted((a, b))
    assert router.threshold_for(high) <= router.threshold_for(low)


def test_file_survives_writing_and_reading(tmp_path):
    router = make_router()
    path = write_router(router, tmp_path / "pair.json")
    found = load_glimprouter_file(path)
    assert found.name == "pair"
    assert found == router.model_copy(update={"name": "pair"})
    assert found.digest == router.digest  # whatever the file is called
    assert found.digest != make_router(threshold=0.9).digest
    assert str(found) == "pair (top-20, sums)"


def test_invalid_files(tmp_path):
    path = tmp_path / "r.json"
    with pytest.raises(DataError, match=r"there is no router file .*train_router.py glimprouter"):
        load_glimprouter_file(path)
    with pytest.raises(DataError, match="cannot read the router file"):
        load_glimprouter_file(tmp_path)
    whole = make_router().model_dump_json()
    for text, why in (
        ("", "not a complete JSON file"),
        (whole[:200], "not a complete JSON file"),
        ("[1]", "is no router file"),
        ('{"kind": "reason calibration map", "format": 1}', "is no router file"),
        (whole.replace('"format":1', '"format":2'), "has format 2; this version of reason reads 1"),
        (whole.replace('"rate":0.25', '"rate":1.25'), "is damaged: rate: "),
        (whole.replace('"steps":1000', '"steps":0'), "is damaged: steps: "),
        (whole.replace('"entropy":"top_k"', '"entropy":"full"'), "damaged: file: k is 0"),
        (whole.replace('"quantiles":[0.0', '"quantiles":[9.0'), "damaged: file: the quantiles must not fall"),
        (whole.replace('"quantiles":[0.0,', '"quantiles":['), "damaged: quantiles: "),
        (whole.replace('"main":', '"mein":'), "must name the identities of both models"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=why):
            load_glimprouter_file(path)


def test_invalid_values():
    for changed in ({"threshold": -0.1}, {"threshold": math.inf}, {"k": -1}, {"questions": 0}, {"surplus": 1}):
        with pytest.raises(ValidationError):
            make_router(**changed)


def test_other_models_and_entropies_are_rejected():
    router = make_router()
    same = {"small": "small@1", "large": "large@1", "entropy": "top_k", "k": 20}
    router.check_models(**same)
    for changed, why in (
        ({"small": "other@1"}, "small model small@1, not with other@1"),
        ({"large": "other@1"}, "large model large@1, not with other@1"),
        ({"entropy": "full", "k": 0}, "are of top-20 entropies, and those .* would be of full-vocabulary ones"),
        ({"entropy": "sampled", "k": 8}, "would be of 8-sample ones"),
        ({"k": 10}, "would be of top-10 ones"),
        ({"in_thought": True}, "are of steps of answers without a thought, and these are of steps of thoughts"),
    ):
        with pytest.raises(UserError, match=why):
            router.check_models(**{**same, **changed})


def test_different_step_parameters_are_reported():
    router = make_router(parameters={"temperature": 0.6, "think": False, "threshold": 100.0})
    assert router.differences({"temperature": 0.6, "think": False, "threshold": 1.0}) == ""
    told = router.differences({"temperature": 0.8, "think": False})
    assert told == f"the router file {router} was made with other parameters: temperature was 0.6 and is 0.8"
