"""Comparisons of a benchmark: Holm's correction over the table, the file, and the Markdown."""

from __future__ import annotations

import json

import pytest
from reason.evals.statistics.outcomes import Outcomes
from reason.evals.statistics.paired import compare_paired
from reporting import compared, comparisons_table, write_comparisons


def pair(wins: int, losses: int, ties: int = 20) -> tuple[Outcomes, Outcomes]:
    kinds = [(1, 0)] * wins + [(0, 1)] * losses + [(1, 1)] * ties
    a, b = (Outcomes.of({f"i{i}": {0: kind[side]} for i, kind in enumerate(kinds)}) for side in (0, 1))
    return a, b


def test_a_table_is_corrected_as_a_whole() -> None:
    results = [("t/a-vs-c", "a", "c", compare_paired(*pair(6, 0))), ("t/b-vs-c", "b", "c", compare_paired(*pair(8, 0)))]
    alone = compared(results[:1])
    both = compared(results)
    assert [(c.p, c.p_adjusted, c.status) for c in alone] == [(1 / 32, 1 / 32, "shown")]
    assert [(c.p_adjusted, c.status) for c in both] == [(1 / 32, "shown"), (1 / 64, "shown")]
    third = ("t/d-vs-c", "d", "c", compare_paired(*pair(0, 6)))
    assert [c.status for c in compared([*results, third])] == ["not shown", "shown", "not shown"]
    assert [c.status for c in compared([third])] == ["refuted"]


def test_comparisons_are_written_as_json_and_printed_as_a_table(tmp_path) -> None:
    rows = compared(
        [("t/a-vs-c", "a", "c", compare_paired(*pair(6, 0))), ("t/b-vs-c", "b", "c", compare_paired(*pair(1, 1)))]
    )
    path = tmp_path / "comparisons" / "t.json"
    write_comparisons(path, rows)
    first, second = json.loads(path.read_text())
    assert list(first) == [
        *("id", "a", "b", "metric", "n", "clusters", "seeds", "difference", "low", "high", "test", "p", "p_adjusted"),
        "status",
    ]
    assert (first["difference"], first["p_adjusted"], second["status"]) == (0.230769, 0.0625, "not shown")
    line = comparisons_table(rows).splitlines()[2]
    assert line.startswith("| a minus c | 26 | +23.08 | [")
    assert line.endswith("| McNemar exact | 0.031 | 0.062 | not shown |")
    with pytest.raises(ValueError, match="'t/a-vs-c'"):
        write_comparisons(path, [*rows, rows[0]])
