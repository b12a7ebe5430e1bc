"""A*-decoding: closed forms, guarantees on enumerated trees, equivalences, limits."""

import heapq
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.reasoning.search import astar
from reason.reasoning.search.astar import AStarNode, AStarOptions, AStarSearch, path_costs
from reason.reasoning.search.core import Continuation, SearchLimits, step_key
from support.search_models import (
    FixedTree,
    RandomWorld,
    assert_within,
    play,
    random_tree,
    random_worlds,
    seeds,
    some_limits,
)

KINDS = ["rise", "fall", "abs", "none"]
EVERYTHING = {"max_depth": 99}


def search(**options):
    return AStarSearch(AStarOptions(**{"k": 3, **EVERYTHING, **options}))


def along(kind, hs):
    """(g, f) of every prefix of a path with these h."""
    state, priorities = AStarNode(0, None, 0), []
    for depth, h in enumerate(hs, 1):
        g, f = path_costs(kind, state, h)
        state = AStarNode(depth, depth - 1, depth, g=g, h=h, f=f)
        priorities.append((g, f))
    return priorities


def closed_form(kind, hs):
    rises = sum(max(0.0, b - a) for a, b in pairwise(hs))
    return {"rise": hs[-1] + rises, "fall": hs[0] + rises, "abs": hs[0] + 2 * rises, "none": hs[-1]}[kind]


def f_of(kind, hs):
    return along(kind, hs)[-1][1]


# -- costs


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_costs_along_a_path(kind, hs):
    priorities = along(kind, hs)
    edge = {"rise": lambda d: max(0, d), "fall": lambda d: max(0, -d), "abs": abs, "none": lambda d: 0}[kind]
    for i, (g, f) in enumerate(priorities):
        assert f == pytest.approx(closed_form(kind, hs[: i + 1]), abs=1e-9)
        assert g == pytest.approx(sum(edge(b - a) for a, b in pairwise(hs[: i + 1])), abs=1e-9)
        assert f == pytest.approx(g + hs[i], abs=1e-9)
        assert f >= hs[i] - 1e-12
        if kind == "none":
            assert f == hs[i]
    for (g, f), (g2, f2) in pairwise(priorities):
        assert g2 >= g
        if kind in ("fall", "abs"):
            assert f2 >= f  # exactly: no rounding may break a tie


# -- the first solution popped

COUNTER_EXAMPLE = FixedTree(
    {
        (): [("s", 0.5, False)],
        ("s",): [("A", 0.3, True), ("B", 0.6, False)],
        ("s", "B"): [("C", 0.0, True)],
    }
)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("rise", {"A": 0.3, "C": 0.1}), ("fall", {"A": 0.5, "C": 0.6}), ("none", {"A": 0.3, "C": 0.0})],
)
def test_the_counter_example(kind, expected):
    assert play(search(k=2, edge_cost=kind), COUNTER_EXAMPLE).outcome().chosen.text == "A"
    everything = play(search(k=2, edge_cost=kind, m=2), COUNTER_EXAMPLE)
    assert {node.text: node.f for node in everything.tree if node.terminal} == pytest.approx(expected)
    assert everything.outcome().chosen.text == min(expected, key=expected.get)


def first_solutions(kind, count, **options):
    """For random trees: the f of the solution returned, the smallest there is, and the search."""
    rng = Random(7)
    for _ in range(count):
        tree = random_tree(rng)
        done = play(search(edge_cost=kind, **options), tree)
        best = min(closed_form(kind, hs) for _, hs in tree.terminals())
        yield done.outcome().chosen.f, best, done


@pytest.mark.parametrize("kind", ["fall", "abs"])
@pytest.mark.parametrize(("beam_pop", "count"), [(1, 2000), (2, 60), (3, 60), (5, 60)])
def test_with_consistent_costs_the_first_solution_is_the_best_of_the_tree(kind, beam_pop, count):
    for f, best, done in first_solutions(kind, count, beam_pop=beam_pop):
        assert f == pytest.approx(best, abs=1e-9)
        popped = [done.tree[node_id].f for node_id in done.popped]
        assert beam_pop > 1 or all(a <= b for a, b in pairwise(popped))


@pytest.mark.parametrize("weight", [1.0, 1.5, 3.0])
def test_a_weight_costs_no_more_than_its_factor(weight):
    looser = 0
    for f, best, _ in first_solutions("fall", 300, weight=weight):
        assert f <= weight * best + 1e-9
        looser += f > best + 1e-9
    assert (looser > 0) == (weight > 1)


# -- against a plain implementation


def plain(kind, tree):
    """A* over a fixed tree with a heap: the order in which prefixes are popped, up to the first solution."""
    heap, order, seq = [((0.0, 0, 0.0, 0), (), [], False)], [], 0
    while True:
        _, path, hs, terminal = heapq.heappop(heap)
        order.append(path)
        if terminal:
            return order
        for name, h, ends in tree.children[path]:
            seq += 1
            key = (f_of(kind, [*hs, h]), -len(path) - 1, -(1 - h), seq)
            heapq.heappush(heap, (key, (*path, name), [*hs, h], ends))


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_popping_is_that_of_a_plain_implementation(kind):
    rng = Random(3)
    for coarse in (False, True):  # few values of h make many ties
        for _ in range(100):
            tree = random_tree(rng, draw=(lambda: rng.randrange(5) / 4) if coarse else None)
            done = play(search(edge_cost=kind), tree)
            assert [tuple(done.tree.steps(node_id)) for node_id in done.popped] == plain(kind, tree)


# -- behaviour of a search


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_model_that_likes_nothing_that_ends_cannot_keep_a_search_from_ending(kind):
    def world(done, expand):
        texts = [f"{expand.node}.{expand.first + i}\n\n" for i in range(expand.n)]
        return [Continuation(text, 5, expand.finish or i == 0, 0.0 if i == 0 else 1.0) for i, text in enumerate(texts)]

    limits = SearchLimits(gen_tokens=400, finish_tokens=20, min_step_tokens=5)
    done = play(search(k=3, edge_cost=kind, limits=limits, max_step_tokens=5), world)
    outcome = done.outcome()
    assert outcome.stopped == "tokens"
    assert done.cost.gen_tokens <= 400
    assert outcome.chosen.terminal
    assert outcome.chosen.f == min(node.f for node in outcome.terminals)


@given(seeds)
def test_one_continuation_each_is_plain_sampling(seed):
    world = RandomWorld(seed)
    done = play(search(k=1), world)
    nodes = list(done.tree)[1:]
    assert len(nodes) == done.cost.expansions
    assert [(node.text, node.terminal) for node in nodes] == [(step.text, step.terminal) for step in world.chain()]


some_options = st.fixed_dictionaries(
    {
        "k": st.integers(1, 4),
        "edge_cost": st.sampled_from(KINDS),
        "beam_pop": st.integers(1, 3),
        "m": st.sampled_from([1, 3]),
        "frontier": st.sampled_from(["global", "local"]),
        "max_depth": st.integers(1, 6),
        "weight": st.sampled_from([1.0, 2.0]),
    }
)


@given(random_worlds(ending=[0.05, 0.3]), some_options, some_limits)
def test_ledger_and_limits(world, options, limits):
    if limits.gen_tokens is limits.expansions is limits.prm_passes is None:
        limits = limits.model_copy(update={"expansions": 30})
    done = search(**options, limits=limits, max_step_tokens=9)
    spent = 0
    while batch := done.ask():
        for expand in batch:
            results = world(done, expand)
            spent += sum(step.tokens for step in results)
            done.tell(expand, results)
        if limits.gen_tokens is not None and not done.stopped:
            assert limits.gen_tokens - done.cost.gen_tokens >= limits.finish_tokens
    ledger, outcome, requests = done.cost, done.outcome(), [expand for _, expand in world.requests]
    assert len({(expand.node, expand.score == "none") for expand in requests}) == len(requests)  # expanded at most once
    for node in done.tree:
        children = [step_key(child) for child in done.tree if child.parent == node.id and not child.forced]
        assert len(set(children)) == len(children)
    assert ledger.gen_tokens == spent
    assert ledger.samples == sum(expand.n for expand in requests)
    assert ledger.expansions == sum(not expand.finish for expand in requests)
    assert len(done.tree) - 1 == ledger.samples - ledger.duplicates - ledger.empties
    scored = [node for node in done.tree if node.score is not None]
    assert ledger.prm_passes == len(scored)
    if world.blank == world.unscored == 0:
        assert len(scored) == len(done.tree) - 1 - sum(expand.score == "none" for expand in requests)
        assert ledger.unscored == 0
    assert_within(limits, ledger)
    world.assert_no_sample_is_requested_twice()
    # well-formed for any scores
    assert outcome.stopped in ("done", "exhausted", "tokens", "prm_passes", "expansions")
    assert outcome.chosen is None or outcome.chosen.terminal == bool(outcome.terminals)
    if outcome.chosen is not None and outcome.chosen.terminal:
        pool = [done.tree[i] for i in done.done] if outcome.stopped == "done" else list(outcome.terminals)
        assert outcome.chosen.f == min(node.f for node in pool)
    for node in done.tree:
        assert node.depth <= done.options.max_depth + node.forced
        assert node.parent is None or 0 <= node.h <= 1


def test_at_the_depth_limit_the_final_answer_is_forced_and_competes():
    endless = RandomWorld(4, ending=0.0)
    done = play(search(k=2, max_depth=3, limits=SearchLimits(finish_tokens=7)), endless)
    chosen, finishing = done.outcome().chosen, endless.final_answers(done)
    assert set(finishing) == {(3, 1, 7, "all")}
    assert (chosen.forced, chosen.terminal, chosen.depth) == (True, True, 4)
    assert done.popped[-1] == chosen.id  # pushed back and popped, not returned at once
    assert done.cost.completions == len(finishing)


def test_a_spent_budget_completes_the_best_open_prefix():
    done = play(search(k=2, limits=SearchLimits(expansions=3)), RandomWorld(4, ending=0.0))
    forced = done.outcome().chosen
    assert (done.outcome().stopped, forced.forced, done.cost.completions) == ("expansions", True, 1)
    open_nodes = [node for node in done.tree if node.depth and not node.forced and node.id not in done.popped]
    assert forced.parent == min(open_nodes, key=done._key).id


def test_a_spent_budget_returns_the_best_solution_there_is_popped_or_not():
    tree = FixedTree({(): [("A", 0.9, True), ("B", 0.1, False)], ("B",): [("C", 0.2, False), ("D", 0.8, True)]})
    done = play(search(k=2, edge_cost="none", limits=SearchLimits(expansions=2)), tree)
    assert done.outcome().chosen.text == "D"
    assert [node.text for node in done.outcome().terminals] == ["D", "A"]
    assert done.cost.completions == 0


# 340: 300 without the reserve, two expansions of 100, then one of 2 x 50, and none for a fourth
@pytest.mark.parametrize(("gen_tokens", "third"), [(340, 50), (290, 25)])
def test_steps_are_cut_shorter_as_the_tokens_run_out(gen_tokens, third):
    caps = []

    def world(done, expand):
        caps.append((expand.finish, expand.max_tokens))
        return [Continuation(f"{expand.node}.{i}\n\n", expand.max_tokens, False, 0.5) for i in range(expand.n)]

    limits = SearchLimits(gen_tokens=gen_tokens, finish_tokens=40, min_step_tokens=20)
    done = play(search(k=2, max_step_tokens=50, limits=limits), world)
    assert caps == [(False, 50), (False, 50), (False, third), (True, 40)]
    assert done.outcome().stopped == "tokens"


def test_a_full_frontier_drops_the_worst(monkeypatch):
    monkeypatch.setattr(astar, "OPEN_LIMIT", 2)

    def check(now):
        assert len(now._open) <= 2
        return now

    done = play(search(), random_tree(Random(2), ending=0.0), each=check)
    assert done.num_evicted > 0
    assert done.outcome().chosen.terminal


def test_a_local_frontier_never_turns_back():
    rng = Random(8)
    was_closed = 0
    for _ in range(50):
        tree = random_tree(rng, ending=0.0)
        local = play(search(frontier="local"), tree)
        path = [node.id for node in local.tree.path(local.outcome().chosen)]
        assert local.popped == [0, *path]
        assert local.cost.expansions == 4
        was_closed += play(search(), tree).cost.expansions > 4
    assert was_closed > 0


def test_best_of_m_continues_to_m_solutions():
    rng = Random(6)
    for _ in range(20):
        tree = random_tree(rng)
        first = play(search(edge_cost="rise"), tree)
        three = play(search(edge_cost="rise", m=3), tree)
        assert three.popped[: len(first.popped)] == first.popped
        assert len(three.done) == 3
        assert three.outcome().chosen.f == min(three.tree[i].f for i in three.done)


def test_where_everything_ends_in_nothing_the_best_dead_end_is_chosen():
    def world(done, expand):
        if done.tree[expand.node].depth:
            return [Continuation("  \n", 1)] * expand.n
        return [Continuation(name, 1, False, r) for name, r in (("a", 0.2), ("b", 0.7), ("c", 0.4))]

    done = play(search(), world)
    chosen = done.outcome().chosen
    assert (done.outcome().stopped, chosen.text, chosen.terminal) == ("exhausted", "b", False)
    assert (done.cost.empties, done.cost.completions) == (9, 0)
    nothing = play(search(), lambda done, expand: [Continuation("", 0)] * expand.n).outcome()
    assert (nothing.chosen, nothing.terminals, nothing.stopped) == (None, (), "exhausted")
