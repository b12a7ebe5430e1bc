"""`WorkerUsage`: what the samples of a question say so far."""

import pytest
from reason.reasoning.stopping import Tally


def test_votes_and_shares_are_counted_by_class() -> None:
    tally = Tally(labels=(0, 1, None, 0), max_samples=8)
    assert (tally.num_finished, tally.votes, tally.top_two()) == (4, (2, 1), (2, 1))
    assert tally.shares == pytest.approx((2 / 3, 1 / 3))
    assert Tally(labels=(2,)).votes == (0, 0, 1)


def test_without_an_answer_there_are_no_classes() -> None:
    for empty in (Tally(), Tally(labels=(None, None))):
        assert (empty.votes, empty.shares, empty.top_two()) == ((), (), (0, 0))


def test_weights_share_whatever_they_add_up_to() -> None:
    assert Tally(labels=(0, 1, None), weights=(0.2, 0.3, 9.0)).shares == pytest.approx((0.4, 0.6))
    assert Tally(labels=(0, 1), weights=(0.0, 0.0)).shares == (0.0, 0.0)
    with pytest.raises(ValueError, match="shorter"):
        _ = Tally(labels=(0, 1), weights=(1.0,)).shares


def test_unless_more_are_allowed_one_sample_may_be_drawn() -> None:
    assert Tally().max_samples == 1


def test_more_samples_agree_with_the_leader_or_with_nobody() -> None:
    tally = Tally(labels=(0, 1, 1), quality=(0.5, None, 0.1), lowest_confidence=(None, 2.0, 3.0), max_samples=8)
    agreeing, split = tally.extended(2, agreeing=True), tally.extended(2, agreeing=False)
    assert agreeing.labels == (0, 1, 1, 1, 1)
    assert split.labels == (0, 1, 1, 2, 3)
    for more in (agreeing, split):
        assert more.weights == (1.0,) * 5
        assert more.quality == (0.5, None, 0.1, None, None)
        assert more.lowest_confidence == (None, 2.0, 3.0, None, None)
        assert more.max_samples == 8
    weighted = Tally(labels=(0, 1), weights=(0.25, 0.5)).extended(1, agreeing=True)
    assert weighted.weights == (0.25, 0.5, 1.0)
    assert Tally(labels=(0, 1)).extended(1, agreeing=True).labels == (0, 1, 0)  # of equals, the first


def test_the_first_samples_that_agree_make_the_first_class() -> None:
    assert Tally(labels=(None,)).extended(2, agreeing=True).labels == (None, 0, 0)
    assert Tally().extended(2, agreeing=False).labels == (0, 1)
