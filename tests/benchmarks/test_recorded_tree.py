"""Replays over recorded trees: what a search gets, and where the record ends."""

from random import Random

import pytest
from reason.reasoning.coat.mcts import MCTSOptions, MonteCarloTreeSearch
from reason.reasoning.search.astar import AStarOptions, AStarSearch
from reason.reasoning.search.beam import BeamOptions, BeamSearch
from reason.reasoning.search.particles import ParticleFilter, ParticleOptions
from recorded_tree import RecordedTree, replay_search


def node(number, parent, depth, value=None, **more):
    thought = f"thought {number}" if parent is not None else ""
    return {"id": number, "parent": parent, "depth": depth, "thought": thought, "value": value, **more}


ROW = {
    "question_id": "q",
    "value_max": 10,
    "unknown": "ignored",
    "nodes": [
        node(0, None, 0),
        node(1, 0, 1, 10, selected=True),
        node(2, 0, 1, 8, selected=True),
        node(3, 0, 1, 6, selected=False),
        node(4, 1, 2, 4, answer="a", correct=False, selected=True),
        node(5, 2, 2, 9, answer="b", correct=True, selected=True),
        node(6, 2, 2, 1, correct=False, selected=False),
    ],
}
"""A beam of width 2 recorded it; the best first step leads to a wrong answer."""


def tree(**changes):
    return RecordedTree({**ROW, **changes})


def test_width_one_follows_the_best_value_into_the_wrong_answer():
    replay = replay_search(BeamSearch(BeamOptions(width=1, k=3)), tree())
    assert replay.chosen is not None
    assert (replay.chosen.answer, replay.num_opened) == ("a", 2)


def test_opened_node_outside_the_record_is_counted_and_has_no_continuations():
    recorded = tree()
    replay = replay_search(BeamSearch(BeamOptions(width=3, k=3)), recorded)
    assert replay.left_record == (3,)
    assert replay.num_opened == 3
    assert replay.chosen is recorded.nodes[5]


@pytest.mark.parametrize(
    ("search", "answer"),
    [
        (AStarSearch(AStarOptions(k=3, edge_cost="none")), "b"),
        (MonteCarloTreeSearch(MCTSOptions(k=3, max_depth=2, expansions=3, w=0.0, tau=None)), "b"),
        (BeamSearch(BeamOptions(width=1, k=3, diverse=True)), "a"),
        (ParticleFilter(ParticleOptions(n=8, max_depth=2), Random(1)), "a"),
    ],
    ids=["astar", "mcts", "dvts", "particles"],
)
def test_every_core_runs_over_a_record(search, answer):
    rng = Random(2) if isinstance(search, ParticleFilter) else None
    replay = replay_search(search, tree(), rng)
    assert replay.chosen is not None
    assert replay.chosen.answer == answer
    assert search.is_over


def test_sampling_is_uniform_over_the_recorded_continuations_and_repeatable():
    def first_steps(seed):
        search = ParticleFilter(ParticleOptions(n=900, max_depth=1), Random(0))
        replay_search(search, tree(), Random(seed))
        return [n.text for n in search.tree if n.depth == 1]

    steps = first_steps(7)
    assert steps == first_steps(7) != first_steps(8)
    counts = [steps.count(f"thought {i}\n") for i in (1, 2, 3)]
    assert sum(counts) == 900
    assert min(counts) > 240
