"""Monte Carlo tree search against `StandardMCTS` of the library `treequest`, both over the same scores.

Both definitions agree that a node is scored once, at creation, with one visit; new scores are added once to all
ancestors; a leaf is selected from the root down, the older one of ties, and gets k children, one for each sample of
each action; and the next leaf is selected after all of them are reported. Visits and sums of all nodes therefore agree
as long as the selections do.

They differ in:

- The selection score. The library multiplies its exploration by a prior, the softmax of the siblings' *scores*:
  V + w P sqrt(ln N(parent) / N), though its docstring puts the prior at V. Our UCT has no prior; our PUCT uses the
  model's probabilities and a different exploration, w P sqrt(N(parent)) / (1 + N). Selections agree where the prior has
  no effect: without siblings it is 1; for equal sibling scores it is 1/k, so that k w there is w here; with w = 0 it
  does not count. Or the prior is set to 1 in the library's state. Elsewhere they differ, as the last test shows.
- The library has no complete solutions, depth limit, dead ends or duplicates, and closes no nodes. The world here
  avoids them.
- Parallel requests belong to one leaf there; there is no virtual loss, and results in excess of k are discarded.
- The result: the best scores of all nodes there, complete solutions here.
"""

from random import Random

import pytest
from reason.reasoning.coat.mcts import MCTSOptions, MonteCarloTreeSearch
from reason.reasoning.search.core import Continuation

treequest = pytest.importorskip("treequest", reason="treequest is not installed; the plain search is compared alone")


class Scores:
    """Scores in sixty-fourths, whose sums are exact; of siblings all different or, with `alike`, all the same."""

    def __init__(self, seed, *, alike=False):
        self.seed, self.alike = seed, alike

    def __call__(self, path):
        rng = Random(f"{self.seed}|{path[:-1] if self.alike else path}")
        return rng.randint(0, 64) / 64


def both(scores, k, w, *, theirs=None, actions=("a",), expansions=30, priors=True):
    """The leaves that each of the two expands, as paths, up to the first difference; statistics are compared so far."""
    ours = MonteCarloTreeSearch(MCTSOptions(k=k, w=w, expansions=expansions, max_depth=1000, tau=None))
    library = treequest.StandardMCTS(
        samples_per_action=k // len(actions), exploration_weight=w if theirs is None else theirs
    )
    state, leaves = library.init_tree(), ([], [])
    for _ in range(expansions):
        (expand,) = ours.ask()
        path = tuple(int(text) for text in ours.tree.steps(expand.node))
        if not priors:
            state.priors.clear()
        state, trials = library.ask_batch(state, k, list(actions))
        assert len(trials) == k
        assert len({trial.node_to_expand for trial in trials}) == 1
        leaves[0].append(path)
        leaves[1].append(trials[0].parent_state or ())
        if leaves[0][-1] != leaves[1][-1]:
            break
        assert trials[0].node_to_expand + 1 == expand.node  # both number nodes as they create them
        children = [(*path, i) for i in range(k)]
        ours.tell(expand, [Continuation(f"{i} ", 1, False, scores(child)) for i, child in enumerate(children)])
        for trial, child in zip(trials, children, strict=True):
            state = library.tell(state, trial.trial_id, (child, scores(child)))
        nodes = state.tree.get_nodes()
        assert len(nodes) == len(ours.tree)
        for mine, other in zip(ours.tree, nodes, strict=True):
            assert tuple(int(text) for text in ours.tree.steps(mine.id)) == (other.state or ())
            assert mine.visits == state.visit_counts[other.expand_idx]
            assert mine.total == state.value_sums[other.expand_idx]
    return leaves


def same(seeds, k, w, *, alike=False, **options):
    widest = 0
    for seed in seeds:
        ours, theirs = both(Scores(seed, alike=alike), k, w, **options)
        assert ours == theirs
        widest = max(widest, max(map(len, ours)))
    return widest


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("w", [0.25, 1.0, 2**0.5])
def test_without_the_prior_both_are_one_search(k, w):
    assert same(range(12), k, w, priors=False) >= 3
