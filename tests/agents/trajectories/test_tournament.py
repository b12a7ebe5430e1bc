"""The pivot tournament against judges whose preferences are known."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.agents.trajectories.tournament import LEADERS, PivotTournament


def hold(count, margin):
    """A complete tournament, and the number of comparisons."""
    tournament, asked = PivotTournament(count), []
    while pairs := tournament.ask():
        assert len(set(pairs)) == len(pairs)
        for a, b in pairs:
            assert a != b
            tournament.tell((a, b), margin(a, b))
        asked += pairs
    assert len({frozenset(pair) for pair in asked}) == len(asked), "a pair was compared twice"
    return tournament, len(asked)


@st.composite
def preferences(draw, winner=True):
    """An antisymmetric matrix of margins; with a winner, one candidate beats all others."""
    count = draw(st.integers(1, 9))
    best = draw(st.integers(0, count - 1))
    table = {}
    for a, b in combinations(range(count), 2):
        value = draw(st.floats(0.001, 0.5)) if winner and best in (a, b) else draw(st.floats(-0.5, 0.5))
        table[a, b] = -value if winner and b == best else value
        table[b, a] = -table[a, b]
    return count, best, table


@given(preferences())
def test_the_condorcet_winner_wins(case):
    count, best, table = case
    tournament, asked = hold(count, lambda a, b: table[a, b])
    assert tournament.ranking[0] == best
    assert asked == tournament.comparisons <= 2 * count


@given(preferences(winner=False))
def test_comparisons_grow_linearly_and_everyone_is_ranked(case):
    count, _, table = case
    tournament, asked = hold(count, lambda a, b: table[a, b])
    assert sorted(tournament.ranking) == list(range(count))
    assert asked <= max(0, (count - 1) + max(0, count - 1 - LEADERS) + LEADERS * (LEADERS - 1) // 2)


@pytest.mark.parametrize("margin", [0.0, None])
def test_the_pivot_wins_if_the_judge_sees_no_difference(margin):
    tournament, asked = hold(7, lambda a, b: margin)
    assert tournament.ranking == list(range(7))
    assert asked == 6 + 1
    assert tournament.comparisons == (0 if margin is None else asked)
