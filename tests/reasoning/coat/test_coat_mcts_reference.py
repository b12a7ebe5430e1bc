"""Monte Carlo tree search against a recursive reference: the same selections and statistics on random trees.

The reference follows the definitions literally and stores no statistics: it recomputes N, V and whether a node is open
from the subtree on each use.
"""

import math
from random import Random

from reason.reasoning.coat.mcts import MCTSOptions, MonteCarloTreeSearch
from support.search_models import play
from support.tree_search_model import RaggedWorld


class Plain:
    """UCT or PUCT over a known tree, with evaluation at creation and, for several leaves at once, virtual loss."""

    def __init__(self, world, options):
        self.world, self.options = world, options
        self.root = {"path": (), "e": None, "below": None, "ended": False, "prior": 1.0, "born": 0}
        self.selected, self.loss, self.chosen, self.count = [], {}, set(), 1
        self.reached = False

    # -- the definitions for one node

    def scores(self, node):
        """e of every scored node of a subtree."""
        own = [] if node["e"] is None else [node["e"]]
        return own + [e for child in node["below"] or [] for e in self.scores(child)]

    def open(self, node):
        if node["ended"]:
            return False
        return node["below"] is None or any(self.open(child) for child in node["below"])

    def value(self, parent, node):
        lost, w = self.loss.get(node["path"], 0), self.options.w
        scores = self.scores(node)
        n = len(scores) + lost
        above = len(self.scores(parent)) + self.loss.get(parent["path"], 0)
        return sum(scores) / n + w * math.sqrt(math.log(above) / n)

    # -- the search

    def choose(self, node):
        """A leaf below a node, and the loss on the way to it; None if there is none left for this batch."""
        if not self.open(node) or node["path"] in self.chosen:
            return None
        selected = None
        if node["below"] is None:
            self.chosen.add(node["path"])
            selected = node
        else:
            tried = []
            while selected is None and len(tried) < len(node["below"]):
                rest = [child for child in node["below"] if child["born"] not in tried]
                best = max(rest, key=lambda child: (self.value(node, child), -child["born"]))
                tried.append(best["born"])
                selected = self.choose(best)
        if selected is not None:
            self.loss[node["path"]] = self.loss.get(node["path"], 0) + 1
        return selected

    def grow(self, leaf):
        self.selected.append(leaf["path"])
        twigs = self.world.twigs(leaf["path"])[: self.options.k]
        last = len(leaf["path"]) + 1 == self.options.max_depth
        leaf["below"] = []
        for twig in twigs:
            leaf["below"].append(
                {
                    "path": (*leaf["path"], twig.name),
                    "e": twig.score,
                    "below": None,
                    "ended": twig.terminal or last,
                    "born": self.count,
                    "reward": twig.reward,
                }
            )
            self.count += 1
            tau = self.options.tau
            self.reached = self.reached or (leaf["below"][-1]["ended"] and tau is not None and twig.reward >= tau)

    def search(self):
        while not self.reached and self.open(self.root) and len(self.selected) < self.options.expansions:
            self.loss, self.chosen = {}, set()
            room = min(self.options.leaves, self.options.expansions - len(self.selected))
            leaves = [leaf for leaf in (self.choose(self.root) for _ in range(room)) if leaf is not None]
            for leaf in leaves:
                self.grow(leaf)
        return self

    def nodes(self, node=None):
        node = node or self.root
        return [node] + [below for child in node["below"] or [] for below in self.nodes(child)]


def compared(world, options):
    """Play both and assert that they did the same; gives the core's search."""
    ours, plain = play(MonteCarloTreeSearch(options), world), Plain(world, options).search()
    assert [tuple(ours.tree.steps(leaf)) for leaf in ours.selected] == plain.selected
    assert ours.outcome().stopped == (
        "done" if plain.reached else "expansions" if plain.open(plain.root) else "exhausted"
    )
    statistics = {tuple(ours.tree.steps(node.id)): node for node in ours.tree if not (node.forced and not node.visits)}
    assert statistics.keys() == {node["path"] for node in plain.nodes()}
    for node in plain.nodes():
        mine, scores = statistics[node["path"]], plain.scores(node)
        assert (mine.visits, mine.total) == (len(scores), sum(scores))
        assert mine.closed == (not plain.open(node))
        assert mine.expanded == (node["below"] is not None)
    complete = sorted((n for n in plain.nodes() if n["ended"]), key=lambda n: (-n["reward"], n["born"]))
    if complete:
        assert tuple(ours.tree.steps(ours.outcome().chosen.id)) == complete[0]["path"]
        assert [tuple(ours.tree.steps(node.id)) for node in ours.outcome().terminals] == [n["path"] for n in complete]
    else:  # a final answer below the leaf of the largest V, of equals the deepest, then the oldest
        leaves = [n for n in plain.nodes() if not n["below"] and n["path"]]
        best = max(leaves, key=lambda n: (n["e"], len(n["path"]), -n["born"]))["path"] if leaves else ()
        (forced,) = [node for node in ours.tree if node.forced]
        assert tuple(ours.tree.steps(forced.parent)) == best
    return ours


def random_options(rng, **fixed):
    return MCTSOptions(
        **{
            "k": rng.randint(1, 4),
            "max_depth": rng.choice([1, 2, 3, 6, 20]),
            "expansions": rng.randint(1, 40),
            "w": rng.choice([0.0, 0.3, 1.0, 2.5]),
            "tau": rng.choice([None, 0.75, 1.0]),
            **fixed,
        }
    )


def test_one_leaf_at_a_time_is_the_plain_search():
    rng, sizes = Random(3), []
    for seed in range(300):
        world = RaggedWorld(seed, ending=rng.choice([0.0, 0.2]))
        sizes.append(len(compared(world, random_options(rng)).tree))
    assert max(sizes) > 60


def test_several_leaves_at_a_time_are_those_of_the_plain_search():
    rng, batches = Random(5), 0
    for seed in range(100):
        leaves = rng.choice([2, 3, 8])
        world = RaggedWorld(seed, ending=rng.choice([0.0, 0.2]))
        done = compared(world, random_options(rng, leaves=leaves))
        batches += len(done.selected) > 2 * leaves
    assert batches > 10
