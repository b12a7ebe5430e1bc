"""The simulated worlds of `benchmarks/agent_search.py`."""

from random import Random

import pytest
from agent_search import SIGNALS, STEPS, State, World, beam, loops, state_of, turn


def test_a_node_names_its_state():
    state = State(progress=3, damage=2, turns=7, has_ended=True)
    assert state_of(repr(state)) == state
    assert state_of("") == State()


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
def test_an_agent_without_errors_needs_one_turn_a_step_and_one_to_end(signal):
    steps, world = [1.0] * STEPS, World(1.0, 0.0)
    solved, calls = beam(2, 2, signal, steps, world, Random(0))
    assert solved
    # equal continuations are one state, so after the root's four samples one prefix is left
    assert calls == (4 + 2 * STEPS) * (1 + signal.calls)


async def test_loops_cost_their_turns_and_a_race_ends_with_the_first():
    steps, world = [1.0] * STEPS, World(1.0, 0.0)
    race = await loops("race", SIGNALS[0], steps, world, Random(0))
    assert (race.solved[0], race.calls[:3]) == (True, [STEPS + 1, 2 * (STEPS + 1), 3 * (STEPS + 1)])


def test_what_is_broken_stays_broken_in_a_world_without_mending():
    state, rng = State(damage=1), Random(0)
    while not state.has_ended:
        state = turn(state, [0.9] * STEPS, World(0.9, 0.0), rng)
    assert not state.is_solved
