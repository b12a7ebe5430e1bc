"""Kills of agents: the script kills where it says, and our loop repeats nothing."""

import pytest

pytest.importorskip("langchain.agents", reason="langchain is not installed")

from agent_kills import AGENTS, POINTS, measure


def test_a_graph_that_is_killed_in_its_tool_repeats_the_effect(tmp_path):
    cell = measure(tmp_path, AGENTS['nodes, AsyncSqliteSaver, `durability="sync"`'], POINTS[0], 1)
    assert (cell.kills, cell.doubled, cell.faults) == (1, 1, [])


@pytest.mark.parametrize("point", [POINTS[0], POINTS[3]])
def test_our_loop_repeats_no_effect_and_no_question(tmp_path, point):
    cell = measure(tmp_path, AGENTS["`Reasoner`"], point, 1)
    assert (cell.kills, cell.doubled, cell.asked_again, cell.faults) == (1, 0, 0, [])
    assert cell.outcomes_asked == (point == POINTS[0])
