"""Comparisons of a benchmark: Holm's correction over the table, the file, and the Markdown."""

from __future__ import annotations

from reason.evals.statistics.outcomes import Outcomes
from reason.evals.statistics.paired import compare_paired
from reporting import compared


def pair(wins: int, losses: int, ties: int = 20) -> tuple[Outcomes, Outcomes]:
    kinds = [(1, 0)] * wins + [(0, 1)] * losses + [(1, 1)] * ties
    a, b = (Outcomes.of({f"i{i}": {0: kind[side]} for i, kind in enumerate(kinds)}) for side in (0, 1))
    return a, b


def test_a_table_is_corrected_as_a_whole():
    results = [("t/a-vs-c", "a", "c", compare_paired(*pair(6, 0))), ("t/b-vs-c", "b", "c", compare_paired(*pair(8, 0)))]
    alone = compared(results[:1])
    both = compared(results)
    assert [(c.p, c.p_adjusted, c.status) for c in alone] == [(1 / 32, 1 / 32, "shown")]
    assert [(c.p_adjusted, c.status) for c in both] == [(1 / 32, "shown"), (1 / 64, "shown")]
    third = ("t/d-vs-c", "d", "c", compare_paired(*pair(0, 6)))
    assert [c.status for c in compared([*results, third])] == ["not shown", "shown", "not shown"]
    assert [c.status for c in compared([third])] == ["refuted"]
