"""Models of the world for search tests: scripted or random continuations without a language model, and a run loop."""

from dataclasses import asdict, is_dataclass, replace
from random import Random

from hypothesis import strategies as st
from reason.reasoning.search.core import Continuation, ExpandRequest, SearchLimits, Tree
from reason.reasoning.search.particles import FilterPass

seeds = st.integers(0, 10**6)
some_limits = st.builds(
    SearchLimits,
    gen_tokens=st.none() | st.integers(20, 200),
    prm_passes=st.none() | st.integers(0, 30),
    expansions=st.none() | st.integers(0, 15),
    finish_tokens=st.integers(1, 20),
    min_step_tokens=st.integers(1, 9),
)
STEP = ExpandRequest(node=0, n=1, first=0, max_tokens=512)
WORDS = ["add", "carry", "check", "divide", "expand", "factor", "guess", "halve"]


class RandomWorld:
    """Random continuations and scores, determined by the seed, the prefix and the index.

    Some continuations are blank, some repeat a sibling, and some scores are missing.
    """

    def __init__(self, seed, *, words=8, blank=0.0, unscored=0.0, ending=0.25, scores=None):
        self.seed, self.words, self.blank, self.unscored, self.ending = seed, words, blank, unscored, ending
        self.scores = scores
        self.requests = []

    def sample(self, prefix, index, expand):
        rng = Random(f"{self.seed}|{prefix}|{index}|{expand.finish}")
        tokens = min(rng.randint(1, 9), expand.max_tokens)
        terminal = expand.finish or rng.random() < self.ending
        text = "\n\n" if rng.random() < self.blank else f"{rng.choice(WORDS[: self.words])}\n\n"
        score = rng.random() if rng.random() >= self.unscored else None
        if self.scores is not None:
            score = self.scores(prefix + text)
        return Continuation(text, tokens, terminal, score)

    def __call__(self, search, expand):
        prefix = search.tree.text(expand.node)
        self.requests.append((prefix, expand))
        results = [self.sample(prefix, expand.first + i, expand) for i in range(expand.n)]
        return as_requested(search, expand, results)

    def assert_no_sample_is_requested_twice(self):
        samples = [(prefix, expand.first + i) for prefix, expand in self.requests for i in range(expand.n)]
        assert len(set(samples)) == len(samples)

    def final_answers(self, search):
        """Depth of the prefix, number, token limit and scoring of the requests for final answers."""
        asked = [expand for _, expand in self.requests if expand.finish]
        return [(search.tree[e.node].depth, e.n, e.max_tokens, e.score) for e in asked]

    def chain(self):
        """The steps of plain sampling: the first sample of every prefix up to the end."""
        prefix, steps = "", []
        while not steps or not steps[-1].terminal:
            steps.append(self.sample(prefix, 0, STEP))
            prefix += steps[-1].text
        return steps


def random_worlds(*, ending, unscored=(0.0, 0.4)):
    return st.builds(
        RandomWorld,
        seeds,
        words=st.sampled_from([2, 8]),
        blank=st.sampled_from([0.0, 0.3]),
        unscored=st.sampled_from(unscored),
        ending=st.sampled_from(ending),
    )


def assert_within(limits, spent):
    """What the search spent is within its limits."""
    for kind in ("gen_tokens", "prm_passes", "expansions"):
        limit = getattr(limits, kind)
        assert limit is None or getattr(spent, kind) <= limit


def as_requested(search, expand, results):
    """The results without the scores that the search does not request, as a caller that saves reward passes reports."""
    indices = search.indices_to_score(expand, results)
    return [step if i in indices else replace(step, score=None) for i, step in enumerate(results)]


class FixedTree:
    """A complete tree: for each path its children as (name, h, terminal), with distinct names.

    An expansion returns the children of its node in order; surplus samples repeat the first child.
    """

    def __init__(self, children):
        self.children = children

    def __call__(self, search, expand):
        path = tuple(search.tree.steps(expand.node))
        listed = self.children.get(path, [])
        results = [Continuation(name, 1, terminal, 1 - h) for name, h, terminal in listed[: expand.n]]
        return results + [Continuation(listed[0][0], 1, listed[0][2])] * (expand.n - len(results))

    def terminals(self, path=()):
        """Paths of all complete solutions, each as its list of h."""
        for name, h, terminal in self.children.get(path, []):
            if terminal:
                yield (*path, name), [h]
            for deeper, hs in self.terminals((*path, name)):
                yield deeper, [h, *hs]


def random_tree(rng, *, depth=4, branching=3, ending=0.25, draw=None):
    """A `FixedTree` of complete solutions at several depths, with h uniform unless `draw` says otherwise."""
    draw = draw or rng.random
    children = {}

    def grow(path):
        children[path] = []
        for i in range(branching):
            terminal = len(path) + 1 == depth or rng.random() < ending
            name = f"{'abcdef'[i]}{len(children)}\n\n"
            children[path].append((name, draw(), terminal))
            if not terminal:
                grow((*path, name))

    grow(())
    return FixedTree(children)


def play(search, world, *, order=None, each=None):
    """Run a search to its end; `order` shuffles the results of a batch, `each` may replace the search after a tell."""
    rounds = 0
    while batch := search.ask():
        rounds += 1
        assert rounds < 5000
        if order is not None:
            order.shuffle(batch)
        for expand in batch:
            search.tell(expand, world(search, expand))
            if each is not None:
                search = each(search)
    return search


def state_of(search):
    """The complete state of a search in a form that can be compared."""
    return plain({name: value for name, value in vars(search).items() if name != "options"})


def plain(value):
    if isinstance(value, Random):
        return value.getstate()
    if isinstance(value, Tree):
        return plain(vars(value))
    if isinstance(value, FilterPass):
        return plain({k: v for k, v in vars(value).items() if k not in ("options", "_rng", "_tree", "_cost")})
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


class Chooser:
    """Scripted random generator: follows a script, then takes the first option; notes the options and probability."""

    def __init__(self, script):
        self.script, self.taken, self.num_options, self.p = script, [], [], 1.0
        self.counting = True

    def pick(self, probabilities):
        at = len(self.taken)
        chosen = self.script[at] if at < len(self.script) else 0
        self.taken.append(chosen)
        self.num_options.append(len(probabilities))
        if self.counting:
            self.p *= probabilities[chosen]
        return chosen

    def choices(self, population, weights, k):
        return [population[self.pick(weights)] for _ in range(k)]


def executions(run):
    """All executions: the probability of each random outcome, and the value of `run`."""
    scripts = [[]]
    while scripts:
        chance = Chooser(scripts.pop())
        value = run(chance)
        yield chance.p, value
        for at in range(len(chance.script), len(chance.taken)):
            scripts += [[*chance.taken[:at], option] for option in range(1, chance.num_options[at])]
