"""The verdict on evidence: baselines, weights, and what is no evidence at all."""

import pytest
from reason.verify.fusion import fuse_evidence, weigh_items
from reason.verify.types import Support
from support.evidence_items import MODES, A, B, Z, close, of


@pytest.mark.parametrize("mode", MODES)
def test_without_evidence_nothing_is_stated(mode):
    for pieces in ([], of(A, credibility=0)):
        assert fuse_evidence(pieces, mode) == ((0, 0, 1), 0.0)


def test_ties_go_to_the_more_careful_label():
    assert fuse_evidence(of(Support(0.4, 0.2, 0.4)), "mean").probs.label == "neutral"
    assert fuse_evidence(of(Support(0.4, 0.4, 0.2)), "mean").probs.label == "refutes"


def test_the_baselines():
    assert fuse_evidence(of(A, Z), "mean").probs == close((0.46, 0.035, 0.505))
    weighted = [*of(A, credibility=1.0), *of(Z, credibility=0.25)]
    assert fuse_evidence(weighted, "mean").probs == close((0.724, 0.044, 0.232))


def test_items_of_one_document_share_their_weight():
    assert [item.weight for item in weigh_items(of(A, B, A, document="d"))] == pytest.approx([3**-0.5] * 3)
    apart = weigh_items([*of(A, document="d"), *of(Z, document="e"), *of(B), *of(A)])
    assert [item.weight for item in apart] == [1.0] * 4
    # copies are no crowd
    copies = of(A, A, A, document="d", text="the same few words again")
    assert weigh_items(copies) == ((A, 1.0),)


def test_copies_are_one_item_of_the_largest_weight():
    pieces = [*of(A, id="same", credibility=0.2), *of(B, id="same", credibility=0.9)]
    ((probs, weight),) = weigh_items(pieces)
    assert (probs, weight) == (close((0.475, 0.475, 0.05)), 0.9)


def test_many_pieces_of_little_relevance_are_left_out():
    faint = Support(0.04, 0.04, 0.92)
    alone = fuse_evidence(of(A)).probs
    assert fuse_evidence(of(*[faint] * 10, A)).probs == close(alone)
    assert fuse_evidence(of(*[faint] * 9, A)).probs.neutral < alone.neutral
