"""What the table of judges computes of recorded verdicts, on verdicts made by hand."""

import judges
import numpy as np


def test_one_order_shows_each_pair_once():
    first_always_wins = np.ones((1, 3, 3))
    one = judges.margin_of(first_always_wins, [0], "one")
    both = judges.margin_of(first_always_wins, [0], "both")
    assert (one(0, 1), one(1, 0), both(0, 1)) == (0.5, 0.5, 0.0)
    assert judges.round_robin((2, 0, 1), one) == 2  # it is shown first in both of its pairs
    assert judges.hold((2, 0, 1), both)[0] == 2  # nobody beats the pivot


def test_tournament_and_all_pairs_find_who_beats_all():
    strength = np.array([0.1, 0.4, 0.2, 0.9, 0.3])
    values = (0.5 + (strength[:, None] - strength[None, :]) / 2)[None]
    margin = judges.margin_of(values, [0], "both")
    for order in judges.ROTATIONS:
        assert judges.round_robin(order, margin) == 3
        chosen, comparisons = judges.hold(order, margin)
        assert chosen == 3
        assert comparisons < 10
