"""A* that expands prefixes again, and samples warmer after duplicates."""

from __future__ import annotations

import heapq
from random import Random

import pytest
from reason.reasoning.search.astar import AStarNode, AStarOptions, AStarSearch, path_costs
from reason.reasoning.search.core import SearchLimits
from reason.reasoning.search.tree import Continuation
from support.search_models import RandomWorld, play, random_tree

KINDS = ["rise", "fall", "abs", "none"]


def search(**options):
    return AStarSearch(AStarOptions(**{"k": 3, "max_depth": 99, "open_limit": None, **options}))


class Endless:
    """Any number of continuations of each prefix, one for each index, some with equal texts."""

    def __init__(self, seed, *, words=6, ending=0.3):
        self.seed, self.words, self.ending = seed, words, ending

    def child(self, path, index):
        """(step, h, whether it is complete)."""
        name = f"{'abcdefgh'[Random(f'{self.seed}|{path}|{index}').randrange(self.words)]}|"
        rng = Random(f"{self.seed}|{path}|{name}")
        return name, rng.random(), rng.random() < self.ending

    def __call__(self, done, expand):
        path = tuple(done.tree.steps(expand.node))
        children = (self.child(path, expand.first + i) for i in range(expand.n))
        return [Continuation(name, 1, terminal, 1 - h) for name, h, terminal in children]


def plain(kind, world, k, penalty, max_pops=300):
    """A* that expands again: the order in which prefixes are popped, up to the first solution."""
    root = AStarNode(0, None, 0)
    heap, order, seq, num_drawn, times, nodes = [((0.0, 0, 0.0, 0), ())], [], 0, {}, {}, {(): (root, False, 0)}
    while len(order) < max_pops:
        _, path = heapq.heappop(heap)
        order.append(path)
        state, terminal, number = nodes[path]
        if terminal:
            return order
        first = num_drawn.get(path, 0)
        num_drawn[path] = first + k
        times[path] = times.get(path, 0) + 1
        new = False
        for i in range(first, first + k):
            name, h, ends = world.child(path, i)
            if (*path, name) in nodes:
                continue
            new, seq = True, seq + 1
            g, f = path_costs(kind, state, h)
            below = AStarNode(seq, None, len(path) + 1, g=g, h=h, f=f)
            nodes[*path, name] = below, ends, seq
            heapq.heappush(heap, ((f, -below.depth, h, seq), (*path, name)))
        if new:
            heapq.heappush(heap, ((state.f + penalty * times[path], -state.depth, state.h, number), path))
        if not heap:
            return order
    return order


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("penalty", [0.05, 0.3])
def test_the_order_of_popping_is_that_of_a_plain_implementation(kind, penalty):
    again = 0
    for seed in range(60):
        world = Endless(seed)
        expected = plain(kind, world, 2, penalty)
        done = play(search(k=2, edge_cost=kind, reexpand=penalty, limits=SearchLimits(expansions=250)), world)
        order = [tuple(done.tree.steps(node_id)) for node_id in done.popped]
        assert order == expected[: len(order)]
        assert len(order) == len(expected) or done.outcome().stopped == "expansions"
        again += len(order) > len(set(order))
    assert again > 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_penalty_that_nothing_outweighs_changes_nothing(kind):
    rng = Random(5)
    for _ in range(50):
        tree = random_tree(rng)
        base = play(search(edge_cost=kind), tree)
        for same in ({"reexpand": 1e9}, {"temperature_ladder": (1.0, 1.0)}):
            other = play(search(edge_cost=kind, **same), tree)
            assert (other.popped, other.outcome().chosen.f) == (base.popped, base.outcome().chosen.f)


@pytest.mark.parametrize("kind", ["fall", "abs"])
def test_with_consistent_costs_the_first_solution_is_still_the_best_generated(kind):
    for seed in range(100):
        done = play(search(k=2, edge_cost=kind, reexpand=0.1, limits=SearchLimits(expansions=200)), Endless(seed))
        outcome = done.outcome()
        if outcome.stopped == "done":
            assert outcome.chosen.f == min(node.f for node in done.tree if node.terminal)


def test_unlucky_first_samples_do_not_decide_everything():
    def world(done, expand):
        depth, first = done.tree[expand.node].depth, expand.first
        if depth == 0:
            name, r = ("wrong", 0.1) if first == 0 else ("right", 0.9)
        else:
            name, r = "on", 0.1 if done.tree.text(expand.node).startswith("wrong") else 0.9
        return [Continuation(f"{name} ", 1, depth == 2, r)]

    once = play(search(k=1), world)
    again = play(search(k=1, reexpand=0.2), world)
    assert once.tree.text(once.outcome().chosen.id) == "wrong on on "
    assert again.tree.text(again.outcome().chosen.id) == "right on on "
    root = again.tree[0]
    assert (root.num_expansions, root.num_requested) == (2, 2)


def test_what_brings_nothing_new_is_not_put_back():
    requests = []

    def world(done, expand):
        requests.append((expand.node, expand.attempt, expand.first, expand.temperature_factor))
        return (
            [Continuation("a ", 1, False, 0.5)] * expand.n
            if done.tree[expand.node].depth < 2
            else [Continuation(" ", 1)] * expand.n
        )

    done = play(search(k=2, reexpand=0.1), world)
    assert done.outcome().stopped == "exhausted"
    # root and its child bring one step at first and none the second time; the grandchild never brings any
    assert sorted(requests) == [(0, 0, 0, 1.0), (0, 1, 2, 1.0), (1, 0, 0, 1.0), (1, 1, 2, 1.0), (2, 0, 0, 1.0)]
    assert (done.cost.duplicates, done.cost.empties, done.cost.expansions) == (6, 2, 5)


def test_the_temperature_rises_while_expansions_bring_duplicates():
    warmth = []

    def world(done, expand):
        warmth.append((done.tree[expand.node].depth, expand.attempt, expand.temperature_factor))
        depth = done.tree[expand.node].depth
        texts = ["a ", "a ", "b "] if depth in (1, 2) else ["a ", "b ", "c "] if depth == 3 else ["a "] * 3
        return [Continuation(text, 1, depth == 5, 0.5) for text in texts]

    play(search(temperature_ladder=(1.25, 1.5)), world)
    # one of three is less than half, so depths 1 to 3 are sampled again
    assert warmth == [(0, 0, 1.0), (1, 0, 1.25), (2, 0, 1.0), (3, 0, 1.0), (4, 0, 1.0), (5, 0, 1.25)]


def test_a_prefix_is_expanded_again_as_long_as_it_gets_warmer():
    warmth = []

    def world(done, expand):
        warmth.append((expand.node, expand.temperature_factor))
        return [Continuation("a ", 1, False, 0.5)] * expand.n if not expand.node else [Continuation("", 0)] * expand.n

    done = play(search(k=2, reexpand=0.1, temperature_ladder=(1.2, 1.4, 1.6)), world)
    assert [t for node, t in warmth if node == 0] == [1.0, 1.2, 1.4, 1.6]
    assert [t for node, t in warmth if node == 1] == [1.2]
    assert done.outcome().stopped == "exhausted"


def test_a_spent_budget_completes_a_prefix_that_was_not_expanded():
    done = play(search(k=1, reexpand=0.01, limits=SearchLimits(expansions=6)), RandomWorld(4, ending=0.0))
    forced = done.outcome().chosen
    assert forced.forced
    assert done.tree[forced.parent].num_expansions == 0
