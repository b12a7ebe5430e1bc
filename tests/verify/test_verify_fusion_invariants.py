"""Combining evidence: the invariants of the method with their numbers, and properties for any evidence."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.verify.fusion import (
    EvidenceItem,
    WeightedItem,
    clip_probabilities,
    conflict,
    effective_sample_size,
    fuse_evidence,
    paper_weight,
    product_fusion,
    split_variance,
    weigh_items,
    witness_fusion,
)
from reason.verify.fusion import witness_factor as told_by
from reason.verify.types import Support
from support.evidence_items import MODES, A, B, Z, close, items, of, plain, supports, swapped


def piece(draw, weight=1.0):
    return WeightedItem(draw, weight, (0,))


def test_1_product_of_one_piece():
    assert fuse_evidence(of(A), plain("product")).probs == close(A)
    assert fuse_evidence(of(A, credibility=0.5), plain("product")).probs == close((0.679623, 0.160189, 0.160189))
    assert product_fusion([piece(A, 0.0)]) == close((1 / 3, 1 / 3, 1 / 3))
    assert product_fusion([piece(A, 0.0)], prior=Support(0.2, 0.3, 0.5)) == close((0.2, 0.3, 0.5))


def test_2_product_of_the_same_piece_twice():
    assert fuse_evidence(of(A, A), plain("product")).probs == close((0.993865, 0.003067, 0.003067))
    assert fuse_evidence(of(A, A, credibility=0.5), plain("product")).probs == close(A)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("copies", [2, 3, 50])
def test_2_copies_change_nothing(mode, copies):
    parameters = plain(mode, merge=True)
    text = "The sea has risen by twenty centimetres since the year 1900."
    one = fuse_evidence(of(A, text=text), parameters)
    for how in ({"text": text}, {"id": "p1"}, {"text": text, "document": "d"}):
        many = fuse_evidence(of(*[A] * copies, **how), parameters)
        assert many.probs == one.probs
        assert (many.total, many.between, many.k_eff, many.conflict) == (one.total, one.between, 1.0, one.conflict)
        assert many.duplicates == (tuple(range(copies)),)
    assert fuse_evidence(of(*[A] * copies, text=text), plain(mode)).k_eff == pytest.approx(copies)


def test_3_product_of_opposites():
    assert fuse_evidence(of(A, B), plain("product")).probs == close((0.486486, 0.486486, 0.027027))


def test_4_irrelevant_pieces_outvote_in_the_product_and_not_in_witness():
    outvoted = fuse_evidence(of(A, Z, Z, Z, Z), plain("product")).probs
    assert (outvoted.supports, outvoted.neutral) == close((0.000003, 0.999996))
    assert fuse_evidence(of(A, Z, Z, Z, Z), plain()).probs == close((0.885718, 0.071815, 0.042467))


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
    assert fuse_evidence(pieces, plain()).probs == close(expected)


@pytest.mark.parametrize("mode", MODES)
@given(st.lists(items, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_6_order_does_not_matter_weightless_items_change_nothing_and_all_sums_to_one(mode, pieces, rng):
    parameters = plain(mode, merge=True, temperature=0.5)
    found = fuse_evidence(pieces, parameters)
    assert math.fsum(found.probs) == pytest.approx(1, abs=1e-9)
    assert found.total == pytest.approx(found.within + found.between, abs=1e-12)
    order = rng.sample(range(len(pieces)), len(pieces))
    other = fuse_evidence([pieces[i] for i in order], parameters)
    assert other.probs == close(found.probs, 1e-12)
    assert (other.label, other.reason) == (found.label, found.reason)
    assert (other.k_eff, other.conflict, other.within) == close((found.k_eff, found.conflict, found.within), 1e-9)
    weightless = EvidenceItem((B,), credibility=0, text="a b c d e f", document="x")
    unseen = EvidenceItem((A,), relevance=0, text="one two three four", document="y")
    with_them = fuse_evidence([weightless, *pieces, unseen], parameters)
    assert with_them.model_copy(update={"item_logodds": (), "duplicates": ()}) == found.model_copy(
        update={"item_logodds": (), "duplicates": ()}
    )


@pytest.mark.parametrize("mode", MODES)
@given(st.lists(items, min_size=1, max_size=6))
@settings(max_examples=20, deadline=None)
def test_7_swapping_the_sides_swaps_the_verdict(mode, pieces):
    parameters = plain(mode, merge=True)
    other = [
        EvidenceItem(tuple(map(swapped, i.samples)), i.credibility, i.relevance, i.text, i.id, i.document)
        for i in pieces
    ]
    found, mirrored = fuse_evidence(pieces, parameters), fuse_evidence(other, parameters)
    assert mirrored.probs == close(swapped(found.probs), 1e-12)
    unchanged = (mirrored.conflict, mirrored.total, mirrored.within, mirrored.between)
    assert unchanged == close((found.conflict, found.total, found.within, found.between), 1e-12)
    assert mirrored.item_logodds == close([-x for x in found.item_logodds], 1e-12)


def test_7_opposites_cancel_to_the_last_digit():
    found = fuse_evidence(of(A, B), plain())
    assert found.probs.supports == found.probs.refutes
    assert found.label == "refutes"  # among equals the more careful one
    assert sum(found.item_logodds) == 0


@given(st.lists(supports, max_size=8), supports, st.floats(0.05, 1), st.floats(0.05, 1))
@settings(max_examples=50, deadline=None)
def test_8_neutral_never_rises_with_a_piece_more(draws, more, a, credibility):
    parameters = plain(a=a)
    before = fuse_evidence(of(*draws), parameters).probs.neutral
    after = fuse_evidence([*of(*draws), *of(more, credibility=credibility)], parameters).probs.neutral
    assert after <= before + 1e-12


@given(supports, st.floats(0.001, 1), st.floats(0.1, 1))
def test_8_the_log_odds_of_a_piece_are_bounded(draw, weight, a):
    told = told_by(piece(clip_probabilities(draw), weight), a)
    q = told.informative
    assert abs(told.log_odds) <= math.log((1 + q) / (1 - q)) + 1e-12


def test_8_a_piece_that_leans_nowhere_leaves_the_odds():
    even = Support(0.45, 0.45, 0.1)
    assert told_by(piece(even), 1.0).log_odds == 0
    found = fuse_evidence(of(A, even), plain())
    assert found.item_logodds[1] == 0
    alone = fuse_evidence(of(A), plain()).probs
    assert found.probs.supports / found.probs.refutes == pytest.approx(alone.supports / alone.refutes)
    assert found.probs.neutral < alone.neutral


def test_9_the_split_of_the_variance():
    for mode in MODES:
        found = fuse_evidence(of(A, B), plain(mode))
        assert (found.total, found.within, found.between) == close((0.546250, 0.185, 0.361250))
    assert split_variance([A, A]) == close((0.185, 0.185, 0.0))
    assert split_variance([A, Z], [3, 1]) == close((0.458788, 0.158150, 0.300638))
    assert split_variance([]) == (0, 0, 0)


@given(st.lists(st.tuples(supports, st.floats(0, 1e6)), min_size=1, max_size=10))
def test_9_the_identity_holds(pairs):
    found = split_variance([d for d, _ in pairs], [w for _, w in pairs])
    assert found.total == pytest.approx(found.within + found.between, abs=1e-12)
    assert found.between >= 0


def test_10_conflict():
    assert fuse_evidence(of(A), plain()).conflict == pytest.approx(0.199446, abs=1e-6)
    assert fuse_evidence(of(A, B), plain()).conflict == pytest.approx(1.0, abs=1e-6)
    assert fuse_evidence([], plain()).conflict == 0
    assert conflict([]).degree == 0


@given(st.lists(st.tuples(supports, st.floats(0.01, 1)), min_size=1, max_size=6), st.floats(0.01, 1))
def test_10_conflict_does_not_depend_on_the_scale_of_the_weights(pairs, scale):
    def degree(factor):
        return conflict([told_by(piece(clip_probabilities(d), w * factor), 0.9) for d, w in pairs]).degree

    assert degree(scale) == pytest.approx(degree(1.0), abs=1e-9)


def test_11_effective_count():
    assert effective_sample_size([1, 1, 1, 1]) == pytest.approx(4)
    assert effective_sample_size([1, 0, 0]) == pytest.approx(1)
    assert effective_sample_size([2, 1, 1]) == pytest.approx(16 / 6)
    assert effective_sample_size([1e-200, 1e-200]) == pytest.approx(2)
    assert effective_sample_size([0, 0]) == effective_sample_size([]) == 0


@pytest.mark.parametrize(("mode", "cap"), [*((mode, 10) for mode in MODES), ("witness", None)])
def test_12_ten_thousand_pieces(mode, cap):
    rng = random.Random(1)
    certain = (Support(1, 0, 0), Support(0, 1, 0), Support(0, 0, 1), A)
    for pieces in (of(A) * 10_000, of(*rng.choices(certain, k=10_000))):
        found = fuse_evidence(pieces, plain(mode, cap=cap))
        numbers = [*found.probs, found.confidence, found.conflict, found.k_eff, found.total, *found.item_logodds]
        assert all(math.isfinite(x) for x in numbers)
        assert math.fsum(found.probs) == pytest.approx(1, abs=1e-9)


def test_12_zero_probabilities_are_cut_and_not_propagated():
    found = fuse_evidence(of(Support(1, 0, 0), Support(0, 1, 0)), plain("product"))
    assert found.probs == close((0.5, 0.5, 0.0), 1e-5)
    assert all(map(math.isfinite, found.item_logodds))
    # one piece cannot decide alone against many: it is cut at 1e-6, which seven pieces of 0.9 outweigh
    assert fuse_evidence(of(Support(0, 1, 0), *[A] * 7), plain("product")).label == "supports"


def test_13_the_published_weight():
    assert [paper_weight(0, alpha) for alpha in (0, 0.1, 2, 50)] == [0.5] * 4
    assert paper_weight(0.5, 2) == pytest.approx(0.179294, abs=1e-6)
    assert paper_weight(1, 0.1) == pytest.approx(0.237510, abs=1e-6)  # 0.5 / (1 + e^0.1); the spec has 0.237512
    by_paper = weigh_items([EvidenceItem((A,)), EvidenceItem((A, B))], plain(weighting="paper"))
    # the draws A and B differ by 0.425 from their mean in two labels, so the mean deviation is 0.85/3
    assert [p.weight for p in by_paper.items] == close((0.5, paper_weight(0.85 / 3, 2.0)), 1e-12)


def test_weights_fall_with_the_spread_of_the_draws():
    spread = split_variance([A, B]).between
    [same, differing] = weigh_items([EvidenceItem((A, A)), EvidenceItem((A, B))], plain()).items
    assert same.weight == 1
    assert differing.weight == pytest.approx(math.exp(-2 * spread))
    assert differing.probs == close((0.475, 0.475, 0.05))


def test_witness_is_the_sum_over_all_combinations():
    """The one pass against the sum over every way in which pieces may be informative."""
    told = [told_by(piece(d, w), 0.7) for d, w in ((A, 1.0), (B, 0.3), (Z, 0.8), (A, 0.5))]
    pi, holds, fails = 0.3, 0.0, 0.0
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
    found = witness_fusion(told, pi)
    assert found.supports / (found.supports + found.refutes) == pytest.approx(holds / (holds + fails), abs=1e-12)
