"""The pivot tournament against judges whose preferences are known."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pivot_tournament import LEADERS, PivotTournament
from reason.core.errors import UserError


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


@given(st.permutations(range(8)))
def test_a_transitive_judge_ranks_the_leaders_as_it_prefers(order):
    strength = {candidate: -place for place, candidate in enumerate(order)}
    tournament, _ = hold(8, lambda a, b: (strength[a] - strength[b]) / 20)
    assert tournament.ranking[:LEADERS] == list(order[:LEADERS])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_candidates_are_all_compared(count):
    _, asked = hold(count, lambda a, b: 0.1)
    assert asked == count * (count - 1) // 2


@pytest.mark.parametrize("margin", [0.0, None])
def test_the_pivot_wins_if_the_judge_sees_no_difference(margin):
    tournament, asked = hold(7, lambda a, b: margin)
    assert tournament.ranking == list(range(7))
    assert asked == 6 + 1
    assert tournament.comparisons == (0 if margin is None else asked)


def test_a_candidate_that_all_beat_is_the_pivot_and_the_knockout_is_played():
    tournament, asked = hold(9, lambda a, b: (a - b) / 20)  # 8 is the best, and all beat 0
    assert tournament.ranking == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert asked == 8 + 5 + 3
    assert tournament.win(8) > tournament.win(7) > 0.5
    assert tournament.win(0) == pytest.approx(0.5 - sum(range(1, 9)) / 20 / 8)


def test_a_cycle_is_decided_by_the_mean_win():
    table = {(1, 0): 0.3, (2, 1): 0.1, (0, 2): 0.1}
    tournament, _ = hold(3, lambda a, b: table[a, b] if (a, b) in table else -table[b, a])
    assert tournament.ranking == [1, 2, 0]  # means of 0.1, 0 and -0.1


def test_nobody_to_compare_is_an_error():
    with pytest.raises(UserError, match="at least one candidate, got 0"):
        PivotTournament(0)
