"""From stances to labels, scores and the confidence in an answer."""

from __future__ import annotations

import math

import pytest
from reason.verify.edgejury.labels import (
    Stance,
    confidence_of,
    label_claim,
    label_of,
    lexical_premise,
)
from reason.verify.edgejury.types import Agreement, ClaimLabel
from reason.verify.types import Claim

CLAIM = Claim(text="The tower is 300 m high.", start=0, end=24)
CASES: list[tuple[tuple[int, int, int], Agreement, float]] = [
    ((3, 0, 0), "consistent", 0.8),
    ((2, 0, 1), "consistent", 0.75),
    ((1, 0, 2), "uncertain", 2 / 3),
    ((2, 1, 0), "uncertain", 0.6),
    ((1, 1, 1), "uncertain", 0.5),
    ((0, 1, 2), "contradicted", 1 / 3),
    ((1, 2, 0), "contradicted", 0.4),
    ((0, 0, 3), "uncertain", 0.5),
]


def stances(support: int, contradict: int, silent: int) -> dict[int, Stance]:
    told: list[Stance] = [*["support"] * support, *["contradict"] * contradict, *["silent"] * silent]
    return dict(enumerate(told))


@pytest.mark.parametrize(("counts", "label", "score"), CASES)
def test_labels_and_scores_of_three_jurors(counts, label, score):
    claim = label_claim(CLAIM, stances(*counts))
    assert claim.label == label_of(*counts) == label
    assert claim.score == pytest.approx(score, abs=1e-12)
    assert tuple(map(len, (claim.support, claim.contradict, claim.silent))) == counts
    assert (claim.note == "") == (label == "consistent")


def test_claim_label_lists_jurors_by_stance():
    claim = label_claim(CLAIM, {4: "support", 1: "contradict", 0: "support", 2: "silent"})
    assert (claim.support, claim.contradict, claim.silent) == ((0, 4), (1,), (2,))
    assert claim.note == "contradicted by 1 of 3 opinions that mention it"
    assert label_claim(CLAIM, {}).note == "stated by no opinion"


def test_quorum_is_robust_to_rounding():
    assert label_of(3, 0, 27, 0.1) == "consistent"  # 0.1 * 30 is a little more than 3
    assert label_of(2, 0, 28, 0.1) == "uncertain"


def test_confidence_is_mean_score_times_uncontradicted_share():
    def label(s: int, x: int, o: int) -> ClaimLabel:
        return label_claim(CLAIM, stances(s, x, o))

    assert confidence_of([]) == 0.5
    assert confidence_of([label(3, 0, 0)]) == pytest.approx(0.8)
    assert confidence_of([label(3, 0, 0), label(1, 2, 0)]) == pytest.approx((0.8 + 0.4) / 2 * 0.5)
    assert confidence_of([label(0, 3, 0)]) == 0.0


def test_premise_is_best_sentence_with_predecessor():
    opinion = "Paris is large. The Eiffel tower stands there. It is 300 m high. Many people visit Paris."
    assert lexical_premise("The tower is 300 m high.", opinion) == "The Eiffel tower stands there. It is 300 m high."
    assert lexical_premise("Zinc is a metal.", opinion) == opinion
    assert lexical_premise("Zinc is a metal.", "") == ""


def test_juror_has_one_stance():
    with pytest.raises(ValueError, match="one stance"):
        ClaimLabel(claim=CLAIM, label="uncertain", support=(1,), silent=(1,), score=0.5)
    assert math.isclose(label_claim(CLAIM, {1: "support"}).score, 2 / 3)
