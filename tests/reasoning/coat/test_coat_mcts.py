"""Monte Carlo tree search: counts, formulas, closed nodes, end, results, and theoretical properties."""

import itertools
import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.reasoning.coat.mcts import MCTSOptions, uct
from reason.reasoning.search.core import Continuation, SearchLimits, step_key
from support.mcts_cases import (
    always,
    by_score,
    children,
    name,
    resampling,
    search,
    some_options,
    steps,
    subtree,
    uniform,
    with_rewards,
    worlds,
)
from support.search_models import FixedTree, RandomWorld, play, seeds
from support.tree_search_model import RaggedWorld

# -- mass


@given(worlds, some_options)
@settings(max_examples=150)
def test_mass_is_counted_once_at_every_ancestor(world, options):
    done, serve = search(**options), resampling(with_rewards(world))

    def check(now):
        for node in now.tree:
            below = [n for n in subtree(now, node) if n.visits]  # without a final answer requested after the end
            scored = [n.own_score for n in below if n.depth]
            assert node.visits == len(scored)
            assert node.visits == sum(child.visits for child in children(now, node)) + (node.visits > 0 < node.depth)
            assert node.mean == pytest.approx(math.fsum(scored) / len(scored) if scored else 0.0, abs=1e-9)
            assert node.score is None or not node.visits or node.own_score == node.score
        return now

    play(done, serve, each=check)
    last = [node for node in done.tree if node.forced and not node.visits]
    assert done.tree[0].visits == len(done.tree) - 1 - len(last)
    assert len(last) <= 1
    assert not last or [node for node in done.tree if node.terminal] == last


def test_the_worked_value():
    done = search(expansions=2)
    play(done, by_score({"": [0.5], "a": [0.9, 0.1]}))
    parent = done.tree[1]
    assert (parent.own_score, parent.visits, parent.mean) == (0.5, 3, pytest.approx(0.5, abs=1e-12))
    assert (done.tree[0].visits, done.tree[0].mean) == (3, pytest.approx(0.5, abs=1e-12))


@given(st.floats(0, 1), st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_at_the_expanded_node_the_form_over_all_children_is_the_same(own, scores):
    k = len(scores)
    done = search(k=k, expansions=2)
    play(done, by_score({"": [own], "a": scores}))
    mean = (1 * own + sum(1 * e for e in scores)) / (1 + k)
    assert done.tree[1].mean == pytest.approx(mean, abs=1e-9)


def test_above_the_expanded_node_the_form_over_all_children_counts_twice():
    # 6 expansions of 2 make 12 scored nodes; adding all children at each ancestor each time gives 63
    done = play(search(expansions=6, w=1.0), uniform)
    assert done.tree[0].visits == 12


# -- formulas


def test_the_value_of_uct():
    assert uct(0.6, 3, 9, 1.0) == pytest.approx(1.455809, abs=5e-7)
    assert uct(0.6, 3, 9, 0.0) == 0.6
    assert uct(0.3, 1, 1, 5.0) == 0.3


def test_the_value_of_uct_in_a_tree():
    # below the root 9 scored nodes, 3 of them below the first child; V = 0.6
    done = search(k=3, expansions=3, w=1.0)
    play(done, by_score({"": [0.8, 0.7, 0.0], "a": [0.75, 0.25], "b": [0.1, 0.1, 0.1]}))
    node = done.tree[1]
    assert (node.visits, node.mean) == (3, pytest.approx(0.6))
    assert done.tree[0].visits == 8
    done.tree[0].visits = 9
    assert done.selection_score(node) == pytest.approx(1.455809, abs=5e-7)
    assert done.selection_score(node, {}) == done.selection_score(node)
    assert done.selection_score(node, {0: 1.0, 1: 2.0}) == pytest.approx(1.8 / 5 + math.sqrt(math.log(10) / 5))


@given(seed=seeds)
@settings(max_examples=30)
def test_without_exploration_it_is_greedy_in_the_value(seed):
    done, world = search(k=3, w=0.0, expansions=25), RaggedWorld(seed)
    while batch := done.ask():
        if batch[0].score == "none":
            break
        node = done.tree[0]
        while node.expanded:
            node = max(
                (child for child in children(done, node) if not child.closed),
                key=lambda child: (child.total / child.visits, -child.id),
            )
        assert [expand.node for expand in batch] == [node.id]
        done.tell(node.id, world(done, batch[0]))


def test_ties_go_to_the_one_created_first():
    done = play(search(k=3, expansions=13), always(*steps(0.5, 0.5, 0.5)))
    assert done.selected == [0, 1, 2, 3, 4, 7, 10, 5, 8, 11, 6, 9, 12]  # in turn, as all are equal


# -- closed nodes


def test_an_exhausted_subtree_is_left_for_good():
    tree = FixedTree(
        {
            (): [("good", 0.0, False), ("bad", 0.9, False)],
            ("good",): [("end", 0.0, True), ("stop", 0.0, True)],
            ("bad",): [("dull", 1.0, False), ("flat", 1.0, True)],
            ("bad", "dull"): [("late", 1.0, True), ("later", 1.0, True)],
        }
    )
    done = play(search(w=0.0, expansions=99), tree)
    names = ["".join(done.tree.steps(leaf)) for leaf in done.selected]
    assert names == ["", "good", "bad", "baddull"]
    assert done.outcome().stopped == "exhausted"
    assert all(node.closed for node in done.tree)
    assert done.tree.text(done.outcome().chosen.id) == "goodend"


def test_a_dead_end_closes_what_is_above_it_and_keeps_its_score():
    done = search(w=0.0, expansions=99)
    play(done, by_score({"": [0.9, 0.2], "a": [0.8], "aa": []}))
    assert [name(done, leaf) for leaf in done.selected] == ["", "a", "aa", "b"]
    assert [node.closed for node in done.tree if not node.forced] == [True, True, True, True]
    assert [node.visits for node in done.tree if not node.forced] == [3, 2, 1, 1]
    assert done.outcome().stopped == "exhausted"
    # nothing is complete: a final answer is requested from the leaf of the largest V
    forced = done.outcome().chosen
    assert (forced.forced, done.tree.text(forced.parent)) == (True, "a a ")


def test_where_nothing_comes_at_all_the_question_itself_is_answered():
    done = search(expansions=9)
    requests = []
    while batch := done.ask():
        (expand,) = batch
        requests.append((expand.node, expand.n, expand.finish, expand.score))
        done.tell(expand, [Continuation("42" if expand.finish else " ", 1)] * expand.n)
    assert requests == [(0, 2, False, "all"), (0, 1, True, "none")]
    assert (done.outcome().chosen.text, done.outcome().stopped, done.tree[0].visits) == ("42", "exhausted", 0)


@given(worlds, some_options)
@settings(max_examples=60)
def test_closed_is_what_nothing_open_is_below_of(world, options):
    def check(now):
        for at in now.tree:
            below = subtree(now, at)
            open_leaf = any(not n.expanded and not n.terminal for n in below)
            assert at.closed == (not open_leaf) or (at.forced and not at.visits)
        return now

    play(search(**options), with_rewards(world), each=check)


# -- how it ends


@given(worlds, some_options)
@settings(max_examples=150)
def test_it_ends_within_its_expansions_depth_and_reward(world, options):
    done, serve = search(**options), resampling(with_rewards(world))
    rounds = 0
    while batch := done.ask():
        rounds += 1
        assert rounds <= options["expansions"] + 1
        for expand in batch:
            assert expand.n == (1 if expand.score == "none" else options["k"])
            assert expand.finish == (expand.score == "none" or done.tree[expand.node].depth + 1 == options["max_depth"])
            done.tell(expand, serve(done, expand))
        reached = options["tau"] is not None and any(
            at.terminal and at.reward is not None and at.reward >= options["tau"] and at.visits for at in done.tree
        )
        assert reached == (done.stopped == "done")
    outcome = done.outcome()
    assert outcome.stopped in ("done", "expansions", "exhausted")
    assert len(done.selected) <= options["expansions"]
    assert outcome.stopped != "expansions" or len(done.selected) == options["expansions"]
    assert (outcome.stopped == "exhausted") <= done.tree[0].closed
    assert max(at.depth for at in done.tree) <= options["max_depth"]
    assert all(at.terminal for at in done.tree if at.depth == options["max_depth"])
    assert done.cost.samples == len(done.tree) - 1 + done.cost.duplicates + done.cost.empties
    assert outcome.chosen is None or outcome.chosen.terminal
    assert outcome.terminals == () or outcome.chosen is outcome.terminals[0]
    best = max((at.reward for at in done.tree if at.reward is not None), default=None)
    assert best is None or outcome.chosen.reward == best
    for at in done.tree:
        siblings = [step_key(child) for child in children(done, at) if child.visits]
        assert len(set(siblings)) == len(siblings) <= options["k"]


def test_the_reward_ends_it_and_not_the_score():
    def world(done, expand):
        results = [Continuation("x", 1, True, 1.0, reward=0.89), Continuation("y", 1, True, 0.1, reward=0.9)]
        return results if expand.node == 1 else steps(0.5, 0.4, reward=1.0)

    done = play(search(tau=0.9, expansions=9), world)
    assert (done.selected, done.outcome().stopped, done.outcome().chosen.text) == ([0, 1], "done", "y")
    assert [node.text for node in done.outcome().terminals] == ["y", "x"]
    assert done.outcome().weights == (0.9, 0.89)


def test_without_rewards_the_value_chooses_and_nothing_ends_it_early():
    done = play(search(k=3, tau=0.1, expansions=1), always(*steps(0.3, 0.8, 0.8, terminal=True)))
    assert (done.outcome().chosen.id, done.outcome().weights) == (2, (0.8, 0.8, 0.3))
    assert done.outcome().stopped == "exhausted"


def test_solutions_without_a_reward_come_after_those_that_have_one():
    world = always(Continuation("x", 1, True, 1.0), Continuation("y", 1, True, 0.0, reward=0.0))
    outcome = play(search(expansions=1), world).outcome()
    assert ([node.text for node in outcome.terminals], outcome.weights) == (["y", "x"], (0.0, 0.0))


def test_at_the_last_depth_as_many_final_answers_as_steps_are_requested():
    endless = RandomWorld(4, ending=0.0)
    done = play(search(k=3, max_depth=3, expansions=30, limits=SearchLimits(finish_tokens=7)), endless)
    finishing = endless.final_answers(done)
    assert set(finishing) == {(2, 3, 7, "all")}
    assert done.cost.completions == len(finishing) > 0
    assert done.cost.completions + done.cost.expansions == len(done.selected)
    forced = [at for at in done.tree if at.forced]
    assert {at.depth for at in forced} == {3}
    assert all(at.terminal and at.closed and at.visits == 1 for at in forced)  # they count like any other node
    assert done.outcome().chosen in forced


def test_spent_expansions_have_the_best_leaf_finished():
    done = search(expansions=2, w=0.0)
    play(done, by_score({"": [0.9, 0.85], "a": [0.2, 0.3]}))
    forced = done.outcome().chosen
    assert (done.outcome().stopped, forced.forced, done.tree.text(forced.parent)) == ("expansions", True, "b ")
    assert (forced.visits, done.tree[0].visits) == (0, 4)  # no part of the statistics


def test_before_any_complete_solution_the_best_leaf_is_chosen():
    done = search(expansions=9)
    assert done.outcome().chosen is None
    done.tell(done.ask()[0], steps(0.2, 0.7))
    assert (done.outcome().chosen.text, done.outcome().terminals) == ("b ", ())


# -- against the full tree


@pytest.mark.parametrize(("k", "leaves"), [(1, 1), (2, 1), (3, 1), (3, 5), (4, 100)])
def test_with_enough_expansions_the_complete_tree_is_visited(k, leaves):
    rng = Random(f"{k}{leaves}")
    rewards = {path: rng.random() for path in itertools.product(range(k), repeat=3)}

    def world(done, expand):
        path = tuple(int(text) for text in done.tree.steps(expand.node))
        fixed = Random(f"{path}")
        return [
            Continuation(f"{i} ", 1, len(path) == 2, fixed.random(), reward=rewards.get((*path, i))) for i in range(k)
        ]

    done = play(search(k=k, leaves=leaves, max_depth=3, expansions=10_000), world)
    assert done.outcome().stopped == "exhausted"
    assert len(done.selected) == 1 + k + k**2
    assert len(done.tree) == 1 + k + k**2 + k**3 == done.tree[0].visits + 1
    best = max(rewards, key=rewards.get)
    assert tuple(int(text) for text in done.tree.steps(done.outcome().chosen.id)) == best


# -- theoretical properties


@pytest.mark.parametrize("w", [0.5, 1.0, 2.0])
def test_visits_of_the_worse_ways_grow_like_the_logarithm(w):
    """Where the scores below a child of the root are alike, the root is a bandit: N <= (w / gap)² ln N(root)."""
    values = (0.8, 0.6, 0.4)

    def world(done, expand):
        steps_so_far = done.tree.steps(expand.node)
        return [
            Continuation(f"{i} ", 1, False, values[int(steps_so_far[0])] if steps_so_far else values[i])
            for i in range(3)
        ]

    done, visits = search(k=3, w=w, expansions=900), {}
    while (batch := done.ask()) and batch[0].score == "all":
        (expand,), root = batch, done.tree[0]
        ways = children(done, root)
        if expand.node:
            best, chosen = ways[0], done.tree.path(done.tree[expand.node])[0]
            log = math.log(root.visits)
            for child in ways[1:]:
                gap = best.mean - child.mean
                assert child.visits <= (w / gap) ** 2 * log + 3
                if chosen is child:
                    assert child.visits <= (w / gap) ** 2 * log
                elif chosen is best:  # so the others were not worth more
                    assert child.visits >= log * (w / (gap + w * math.sqrt(log / best.visits))) ** 2 * (1 - 1e-9)
        done.tell(expand, world(done, expand))
        visits[len(done.selected)] = [child.visits for child in children(done, root)]
    assert all(few < many for few, many in zip(visits[30], visits[900], strict=True))
    shares = [sum(visits[n][1:]) / sum(visits[n]) for n in (30, 100, 300, 900)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < shares[0] / 2 or w == 2.0


def test_options_are_checked():
    MCTSOptions(w=0.0, tau=1.0)
    for wrong in (
        {"expansions": 0},
        {"tau": 1.01},
        {"k": 0},
        {"w": -1.0},
        {"w": math.inf},
        {"leaves": 0},
        {"tau": 0.0},
        {"max_depth": 0},
        {"k": 257},
        {"leaves": 257},
    ):
        with pytest.raises(ValidationError):
            MCTSOptions(**wrong)
    MCTSOptions(k=256, leaves=256)
