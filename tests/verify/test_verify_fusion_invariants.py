"""Combining evidence: the invariants of the method with their numbers, and properties for any evidence."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.verify.fusion import (
    EvidenceItem,
    WeightedItem,
    clip_probabilities,
    conflict,
    fuse_evidence,
    product_fusion,
    witness_fusion,
)
from reason.verify.fusion import witness_factor as told_by
from reason.verify.types import Support
from support.evidence_items import MODES, A, B, Z, close, items, of, supports, swapped


def piece(draw, weight=1.0):
    return WeightedItem(draw, weight)


def product(*draws, weight=1.0):
    """The product of independent pieces."""
    return product_fusion([piece(draw, weight) for draw in draws], beta=1.0)


def test_1_product_of_one_piece():
    assert product(A) == close(A)
    assert product(A, weight=0.5) == close((0.679623, 0.160189, 0.160189))
    assert product(A, weight=0.0) == close((1 / 3, 1 / 3, 1 / 3))
    assert fuse_evidence(of(A), "product").probs == product(A, weight=0.3)


def test_2_product_of_the_same_piece_twice():
    assert product(A, A) == close((0.993865, 0.003067, 0.003067))
    assert product(A, A, weight=0.5) == close(A)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("copies", [2, 3, 50])
def test_2_copies_change_nothing(mode, copies):
    text = "The sea has risen by twenty centimetres since the year 1900."
    one = fuse_evidence(of(A, text=text), mode)
    for how in ({"text": text}, {"id": "p1"}, {"text": text, "document": "d"}):
        assert fuse_evidence(of(*[A] * copies, **how), mode) == one


def test_3_product_of_opposites():
    assert product(A, B) == close((0.486486, 0.486486, 0.027027))


def test_4_irrelevant_pieces_outvote_in_the_product_and_not_in_witness():
    outvoted = product(A, Z, Z, Z, Z)
    assert (outvoted.supports, outvoted.neutral) == close((0.000003, 0.999996))
    assert fuse_evidence(of(A, Z, Z, Z, Z)).probs == close((0.885718, 0.071815, 0.042467))


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (of(A), (0.878750, 0.071250, 0.050000)),
        (of(A, B), (0.498750, 0.498750, 0.002500)),
        (of(A, A, B), (0.924884, 0.074991, 0.000125)),
        (of(A, credibility=0.5), (0.338438, 0.136562, 0.525000)),
        ([], (0, 0, 1)),
    ],
)
def test_5_witness(pieces, expected):
    assert fuse_evidence(pieces).probs == close(expected)


@pytest.mark.parametrize("mode", MODES)
@given(st.lists(items, max_size=6), st.randoms(use_true_random=False))
def test_6_order_does_not_matter_weightless_items_change_nothing_and_all_sums_to_one(mode, pieces, rng):
    found = fuse_evidence(pieces, mode)
    assert math.fsum(found.probs) == pytest.approx(1, abs=1e-9)
    order = rng.sample(range(len(pieces)), len(pieces))
    other = fuse_evidence([pieces[i] for i in order], mode)
    assert other.probs == close(found.probs, 1e-12)
    assert other.conflict == pytest.approx(found.conflict, abs=1e-9)
    weightless = EvidenceItem(B, credibility=0, text="a b c d e f", document="x")
    assert fuse_evidence([weightless, *pieces], mode) == found


@pytest.mark.parametrize("mode", MODES)
@given(st.lists(items, min_size=1, max_size=6))
def test_7_swapping_the_sides_swaps_the_verdict(mode, pieces):
    other = [EvidenceItem(swapped(i.probs), i.credibility, i.text, i.id, i.document) for i in pieces]
    found, mirrored = fuse_evidence(pieces, mode), fuse_evidence(other, mode)
    assert mirrored.probs == close(swapped(found.probs), 1e-12)
    assert mirrored.conflict == pytest.approx(found.conflict, abs=1e-12)


def test_7_opposites_cancel_to_the_last_digit():
    found = fuse_evidence(of(A, B))
    assert found.probs.supports == found.probs.refutes
    assert found.probs.label == "refutes"  # among equals the more careful one


@given(st.lists(supports, max_size=8), supports, st.floats(0.05, 1))
def test_8_neutral_never_rises_with_a_piece_more(draws, more, credibility):
    before = fuse_evidence(of(*draws)).probs.neutral
    after = fuse_evidence([*of(*draws), *of(more, credibility=credibility)]).probs.neutral
    assert after <= before + 1e-12


@given(supports, st.floats(0.001, 1))
def test_8_the_log_odds_of_a_piece_are_bounded(draw, weight):
    told = told_by(piece(clip_probabilities(draw), weight))
    q = told.informative
    assert abs(told.log_odds) <= math.log((1 + q) / (1 - q)) + 1e-12


def test_8_a_piece_that_leans_nowhere_leaves_the_odds():
    even = Support(0.45, 0.45, 0.1)
    assert told_by(piece(even)).log_odds == 0
    found = fuse_evidence(of(A, even)).probs
    alone = fuse_evidence(of(A)).probs
    assert found.supports / found.refutes == pytest.approx(alone.supports / alone.refutes)
    assert found.neutral < alone.neutral


def test_10_conflict():
    assert fuse_evidence(of(A)).conflict == pytest.approx(0.199446, abs=1e-6)
    assert fuse_evidence(of(A, B)).conflict == pytest.approx(1.0, abs=1e-6)
    assert fuse_evidence([]).conflict == 0
    assert conflict([]) == 0


@given(st.lists(st.tuples(supports, st.floats(0.01, 1)), min_size=1, max_size=6), st.floats(0.01, 1))
def test_10_conflict_does_not_depend_on_the_scale_of_the_weights(pairs, scale):
    def degree(factor):
        return conflict([told_by(piece(clip_probabilities(d), 0.9 * w * factor)) for d, w in pairs])

    assert degree(scale) == pytest.approx(degree(1.0), abs=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_12_ten_thousand_pieces(mode):
    rng = random.Random(1)
    certain = (Support(1, 0, 0), Support(0, 1, 0), Support(0, 0, 1), A)
    for pieces in (of(A) * 10_000, of(*rng.choices(certain, k=10_000))):
        found = fuse_evidence(pieces, mode)
        assert all(math.isfinite(x) for x in (*found.probs, found.conflict))
        assert math.fsum(found.probs) == pytest.approx(1, abs=1e-9)


def test_12_zero_probabilities_are_cut_and_not_propagated():
    assert fuse_evidence(of(Support(1, 0, 0), Support(0, 1, 0)), "product").probs.neutral < 0.05
    # one piece cannot decide alone against many: it is cut at 1e-6, which seven pieces of 0.9 outweigh
    assert fuse_evidence(of(Support(0, 1, 0), *[A] * 7), "product").probs.label == "supports"


def test_witness_is_the_sum_over_all_combinations():
    """The one pass against the sum over every way in which pieces may be informative."""
    told = [told_by(piece(d, 0.7 * w)) for d, w in ((A, 1.0), (B, 0.3), (Z, 0.8), (A, 0.5))]
    pi, holds, fails = 0.5, 0.0, 0.0
    for informative in itertools.product((True, False), repeat=len(told)):
        true = pi * math.prod(
            t.informative * (1 + t.leaning) / 2 if i else (1 - t.informative) / 2
            for t, i in zip(told, informative, strict=True)
        )
        false = (1 - pi) * math.prod(
            t.informative * (1 - t.leaning) / 2 if i else (1 - t.informative) / 2
            for t, i in zip(told, informative, strict=True)
        )
        holds, fails = holds + true, fails + false
    found = witness_fusion(told)
    assert found.supports / (found.supports + found.refutes) == pytest.approx(holds / (holds + fails), abs=1e-12)
