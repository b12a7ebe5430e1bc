"""The verdict on evidence: labels, reasons, warnings, baselines, and what is no evidence at all."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError
from reason.core.errors import DataError
from reason.reasoning.retrieval.protocol import Passage
from reason.verify.fusion import (
    EvidenceItem,
    FusedVerdict,
    FusionParameters,
    clip_probabilities,
    evidence_item,
    fuse_evidence,
    hard_label,
    reason_for,
    smoothed_votes,
)
from reason.verify.types import Support
from support.evidence_items import A, B, Z, close, of, plain


def test_without_evidence_nothing_is_said():
    for pieces in ([], of(A, credibility=0)):
        found = fuse_evidence(pieces)
        assert (found.probs, found.label, found.confidence) == ((0, 0, 1), "neutral", 0)
        assert (found.reason, found.conflict, found.k_eff, found.total) == ("no_evidence", 0, 0, 0)
        assert found.item_logodds == (0.0,) * len(pieces)


def test_reasons():
    assert fuse_evidence(of(A), plain()).reason == "ok"
    assert fuse_evidence(of(Z), plain()).reason == "irrelevant"
    assert fuse_evidence(of(A, B), plain()).reason == "conflict"
    assert fuse_evidence(of(A), plain(threshold=0.9)).reason == "weak"
    assert fuse_evidence(of(A), plain(threshold=0.9, theta_c=0.1)).reason == "conflict"
    assert reason_for(Support(0.2, 0.3, 0.5), 1.0, 0.6, 0.7) == "irrelevant"
    assert reason_for(Support(0.6, 0.1, 0.3), 0.59, 0.6, 0.6) == "ok"


def test_disputes_need_two_strong_sides_and_a_label_for_them():
    assert fuse_evidence(of(A, B), plain()).label == "refutes"
    disputed = fuse_evidence(of(A, B), plain(disputed=True))
    assert (disputed.label, disputed.probs.label) == ("disputed", "refutes")
    weak = fuse_evidence(of(A, B, credibility=0.5), plain(disputed=True))
    assert weak.conflict == pytest.approx(1)
    assert weak.label != "disputed"
    assert fuse_evidence(of(A, A, A, B), plain(disputed=True, theta_c=0.9)).label == "supports"


def test_ties_go_to_the_more_careful_label():
    assert fuse_evidence(of(Support(0.4, 0.2, 0.4)), plain("mean")).label == "neutral"
    assert fuse_evidence(of(Support(0.4, 0.4, 0.2)), plain("mean")).label == "refutes"
    assert fuse_evidence(of(Support(1, 1, 1)._replace(supports=1 / 3)), plain("max")).label == "neutral"


def test_the_baselines():
    assert fuse_evidence(of(A, Z), plain("mean")).probs == close((0.46, 0.035, 0.505))
    weighted = [*of(A, credibility=1.0), *of(Z, credibility=0.25)]
    assert fuse_evidence(weighted, plain("mean")).probs == close((0.724, 0.044, 0.232))
    # three votes with half a vote more for each label
    assert fuse_evidence(of(A, Z, Z), plain("vote")).probs == close((1.5 / 4.5, 0.5 / 4.5, 2.5 / 4.5))
    assert fuse_evidence(of(Z, A, Z, Support(0.1, 0.8, 0.1)), plain("max")).probs == close(A)
    assert fuse_evidence([*of(A, credibility=0.5), *of(Support(0.1, 0.8, 0.1))], plain("max")).probs == close(
        (0.1, 0.8, 0.1)
    )
    assert fuse_evidence(of(A, B), plain("max")).probs == close((0.475, 0.475, 0.05))
    for mode in ("mean", "vote", "max"):
        assert fuse_evidence(of(A, B), plain(mode)).item_logodds == ()


def test_log_odds_tell_what_each_item_adds():
    by_product = fuse_evidence(of(A, B, Z), plain("product", beta=0.5))
    assert by_product.item_logodds == close((0.5 * math.log(18), -0.5 * math.log(18), 0.0), 1e-9)
    found = fuse_evidence(of(A, B, B), plain())
    odds = math.log(found.probs.supports / found.probs.refutes)
    assert math.fsum(found.item_logodds) == pytest.approx(odds, abs=1e-9)
    copies = fuse_evidence([*of(B), *of(A, A, id="same")], plain(merge=True))
    assert copies.duplicates == ((1, 2),)
    assert copies.item_logodds[1] > 0
    assert copies.item_logodds[2] == 0


def test_the_prior_of_truth():
    found = fuse_evidence(of(A), plain(pi=0.9))
    assert found.probs.neutral == pytest.approx(0.05)
    assert found.probs.supports / found.probs.refutes == pytest.approx(9 * 0.925 / 0.075)


def test_items_of_one_document_share_their_weight():
    found = fuse_evidence(of(A, B, A, document="d"), plain())
    assert found.k_eff == pytest.approx(3)
    alone, shared = fuse_evidence(of(A), plain()), fuse_evidence(of(A, Z, document="d"), plain())
    assert shared.item_logodds[0] < alone.item_logodds[0]
    apart = fuse_evidence([*of(A, document="d"), *of(Z, document="e")], plain())
    assert apart.item_logodds[0] == alone.item_logodds[0]
    assert fuse_evidence(of(A, Z, document="d"), plain(delta=0)).item_logodds[0] == alone.item_logodds[0]
    # copies are no crowd
    copies = fuse_evidence(of(A, A, A, document="d", text="the same few words again"), plain(merge=True))
    assert copies.item_logodds[0] == alone.item_logodds[0]


def test_many_pieces_of_little_relevance_are_not_heard():
    faint = Support(0.04, 0.04, 0.92)
    heard = fuse_evidence(of(*[faint] * 10, A), plain(cap=None))
    capped = fuse_evidence(of(*[faint] * 10, A), plain(cap=10))
    assert capped.probs == close(fuse_evidence(of(A), plain()).probs)
    assert heard.probs.neutral < capped.probs.neutral
    assert fuse_evidence(of(*[faint] * 9, A), plain(cap=10)).probs == close(
        fuse_evidence(of(*[faint] * 9, A), plain(cap=None)).probs
    )


def test_factors_are_divided_by_the_average_prediction():
    base = Support(0.2, 0.2, 0.6)
    assert fuse_evidence(of(base), plain("product", base=base)).probs == close((1 / 3, 1 / 3, 1 / 3))
    # the odds of each label are multiplied by the prior's once, not once a piece
    found = fuse_evidence(of(base, base, base), plain("product", base=base, prior=base))
    assert found.probs == close(base)


def test_the_final_temperature_sharpens():
    raw = fuse_evidence(of(A, Z), plain()).probs
    sharp = fuse_evidence(of(A, Z), plain(temperature=0.5)).probs
    total = sum(p * p for p in raw)
    assert sharp == close([p * p / total for p in raw], 1e-12)
    assert FusionParameters().final_temperature == 0.5
    assert FusionParameters(mode="product").final_temperature == 1.2
    assert FusionParameters(mode="mean").final_temperature == 1.0


def test_warnings():
    assert fuse_evidence(of(A)).warnings == ("unfitted",)
    assert fuse_evidence(of(A), FusionParameters(fitted="0123abcd")).warnings == ()
    bare = EvidenceItem((hard_label("supports"),), hard=True)
    assert fuse_evidence([bare], FusionParameters(fitted="0123abcd")).warnings == ("hard_labels",)


def test_labels_and_votes_become_probabilities():
    assert hard_label("refutes") == close((0.1, 0.8, 0.1))
    assert smoothed_votes(["supports", "supports", "neutral"]) == close((2.5 / 4.5, 0.5 / 4.5, 1.5 / 4.5))
    assert smoothed_votes([]) == close((1 / 3, 1 / 3, 1 / 3))
    assert clip_probabilities(Support(1, 0, 0)) == close((1 - 2e-6, 1e-6, 1e-6), 1e-11)


def test_a_passage_becomes_an_item():
    passage = Passage(id="p", source="d.txt", text="It rained.", credibility=0.5)
    assert evidence_item(passage, [A], relevance=0.25) == EvidenceItem((A,), 0.5, 0.25, "It rained.", "p", "d.txt")


@pytest.mark.parametrize(
    "wrong",
    [
        {"samples": ()},
        {"samples": (Support(math.nan, 0.5, 0.5),)},
        {"samples": (Support(-0.1, 0.6, 0.5),)},
        {"samples": (Support(0, 0, 0),)},
        {"samples": (A,), "credibility": 1.5},
        {"samples": (A,), "relevance": math.nan},
    ],
)
def test_what_is_no_evidence_is_refused_by_name(wrong):
    with pytest.raises(DataError, match="'p7'"):
        EvidenceItem(**wrong, id="p7")


@pytest.mark.parametrize("wrong", [{"a": 0}, {"beta": 1.1}, {"pi": 1}, {"prior": (0.5, 0.5, 0)}, {"temperature": 0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValidationError):
        FusionParameters(**wrong)


def test_a_fusion_and_its_parameters_are_plain_json():
    found = fuse_evidence(of(A, B), plain())
    assert FusedVerdict.model_validate_json(found.model_dump_json()) == found
    parameters = plain(base=Support(0.2, 0.2, 0.6))
    assert FusionParameters.model_validate_json(parameters.model_dump_json()) == parameters


def test_what_was_found_last_counts_least() -> None:
    first = EvidenceItem((Support(0.9, 0.05, 0.05),), text="one two three four", rank=1)
    last = EvidenceItem((Support(0.05, 0.9, 0.05),), text="five six seven eight", rank=4)
    plain = FusionParameters(a=1.0, temperature=1.0)
    alike, falling = (
        fuse_evidence([first, last], plain),
        fuse_evidence([first, last], plain.model_copy(update={"rank": 1.0})),
    )
    assert alike.probs.supports == pytest.approx(alike.probs.refutes)
    assert falling.probs.supports > 2 * falling.probs.refutes
    alone = fuse_evidence([last], plain.model_copy(update={"rank": 1.0}))
    assert alone.probs.refutes < 0.25  # a quarter of its 0.95, and some of that supports
    with pytest.raises(DataError, match="rank of a piece of evidence must be at least 1, got 0"):
        EvidenceItem((Support(1.0, 0.0, 0.0),), rank=0)
