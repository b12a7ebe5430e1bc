"""What jurors' records are worth, and the file that holds them."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.core.errors import DataError, UserError
from reason.verify.edgejury.jurors import (
    MAX_WEIGHT,
    MIN_WEIGHT,
    JuryReliability,
    chance_of_errors,
    fit_reliability,
    juror_key,
    load_reliability,
    save_reliability,
)
from reason.verify.edgejury.jury import weighted_vote
from reason.verify.edgejury.types import Opinion

RECORDS = [("good", True)] * 80 + [("good", False)] * 20 + [("poor", True)] * 30 + [("poor", False)] * 70


def fitted(records: list[tuple[str, bool]] = RECORDS, chance: float = 0.25, strength: float = 10.0) -> JuryReliability:
    return fit_reliability(records, chance=chance, dataset="toy", strength=strength)


def test_estimates_shrink_towards_pool() -> None:
    found = fitted()
    pooled = 111 / 202
    good, poor = found.jurors
    assert (good.juror, good.right, good.num_answers) == ("good", 80, 100)
    assert good.estimate == pytest.approx((80 + 10 * pooled) / 110)
    assert poor.estimate == pytest.approx((30 + 10 * pooled) / 110)
    assert found.pooled == pytest.approx(pooled)


def test_weight_is_clipped_log_odds_over_chance() -> None:
    found = fitted(strength=0.0)
    assert found.weight("good") == pytest.approx(math.log(0.8 / 0.2) + math.log(3))
    assert found.weight("poor") == pytest.approx(math.log(0.3 / 0.7) + math.log(3))
    assert found.weight("never seen") == pytest.approx(math.log(111 / 91) + math.log(3))
    lucky = fitted([("lucky", True)] * 50 + [("unlucky", False)] * 50, strength=0.0)
    assert (lucky.weight("lucky"), lucky.weight("unlucky")) == (MAX_WEIGHT, MIN_WEIGHT)


def test_evenly_spread_errors_have_the_chance_of_a_guess() -> None:
    # every pair of the four wrong options of five is as likely: 1 of 4 pairs is equal
    pairs = [(a, b) for a in "BCDE" for b in "BCDE"] * 1000
    assert chance_of_errors(pairs) == pytest.approx(1 / 5, abs=1e-4)


def test_chance_of_errors_counts_equal_pairs_of_each_question() -> None:
    # 1 of 3 pairs, and 1 of 1; a single wrong answer is no pair
    q = (2 + 1) / (4 + 2)
    assert chance_of_errors([("B", "B", "C"), ("D", "D"), ("A",), ()]) == pytest.approx(q / (1 + q))


def test_chance_of_errors_needs_two_wrong_answers() -> None:
    with pytest.raises(UserError, match="two wrong answers"):
        chance_of_errors([("A",), ()])


def test_shared_errors_lower_the_weight_of_poor_jurors_most() -> None:
    even, shared = fitted(chance=0.1, strength=0.0), fitted(chance=0.25, strength=0.0)
    ratio = [one.weight("good") / one.weight("poor") for one in (even, shared)]
    assert ratio[1] > ratio[0]


def test_few_right_answers_give_moderate_weight() -> None:
    found = fitted([*RECORDS, ("new", True), ("new", True)])
    assert found.weight("new") < found.weight("good")


def test_weights_are_optimal_for_independent_jurors() -> None:
    # jurors right with these probabilities among 3 options: the weighted vote must choose the most probable option
    right = [0.8, 0.6, 0.45]
    records = [(str(i), k < p * 1000) for i, p in enumerate(right) for k in range(1000)]
    found = fitted(records, chance=1 / 3, strength=0.0)
    weights = found.weights_for({i: str(i) for i in range(3)})
    for said in product("ABC", repeat=3):
        likely = {o: math.prod(p if o == c else (1 - p) / 2 for p, c in zip(right, said, strict=True)) for o in "ABC"}
        vote = weighted_vote(
            [Opinion(juror=i, model="m", text="x", choice=c, ok=True) for i, c in enumerate(said)], weights
        )
        assert vote is not None
        assert likely[vote.choice] == pytest.approx(max(likely.values()))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=40), st.randoms())
def test_fit_is_independent_of_order_and_robust(records: list[tuple[str, bool]], shuffler: object) -> None:
    again = list(records)
    shuffler.shuffle(again)  # type: ignore[attr-defined]
    one, other = fitted(records), fitted(again)
    assert one == other
    assert one.digest == other.digest
    assert all(MIN_WEIGHT <= one.weight(j.juror) <= MAX_WEIGHT for j in one.jurors)


def test_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "jury.json"
    save_reliability(fitted(), path)
    found = load_reliability(path)
    assert found == fitted().model_copy(update={"name": "jury"})
    assert found.digest == fitted().digest
    assert str(found) == "jury (2 jurors, toy)"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"kind": "reason router"}, "no jury reliability"),
        ({"format": 2}, "format 2"),
        ({"pooled": 1.0}, "pooled"),
        ({"jurors": []}, "jurors"),
        ({"jurors": [{"juror": "a", "right": 3, "num_answers": 2, "estimate": 0.5}]}, "3 right answers of 2"),
    ],
)
def test_invalid_file_error_names_file(tmp_path: Path, change: dict[str, object], what: str) -> None:
    path = tmp_path / "jury.json"
    path.write_text(json.dumps(json.loads(fitted().model_dump_json()) | change), encoding="utf-8")
    with pytest.raises(DataError, match=what) as caught:
        load_reliability(path)
    assert str(path) in caught.value.message


def test_file_of_another_jury_raises() -> None:
    with pytest.raises(DataError, match="knows none of these jurors: else"):
        fitted().weights_for({0: "else"})
    assert fitted().weights_for({0: "else", 1: "good"})[0] == fitted().weight("never seen")


def test_invalid_input_raises() -> None:
    for wrong in ({"records": []}, {"chance": 1.0}, {"strength": -1.0}):
        with pytest.raises(UserError):
            fitted(**wrong)  # type: ignore[arg-type]


def test_juror_key_is_model_and_role() -> None:
    assert juror_key("local:abc") == "local:abc"
    assert juror_key("local:abc", "edge-case-finder") == "local:abc as edge-case-finder"
