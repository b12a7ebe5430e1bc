"""A particle filter over steps, and particle Gibbs.

    while some particle is active:
        propagate   one step for every active particle
        weight      by log G of the step; a finished particle keeps its last
        resample    N of them in proportion to their weights, unless all have finished
    answer: a vote by weight

Particle Gibbs is J passes of it. Every pass but the first has a reference, sampled by the weights of the pass before:
the last particle holds the reference's first t steps at step t, whatever the weights are; the others compete with it.

Source: Puri et al., "Rollout Roulette: A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using
Particle-Based Monte Carlo Methods" (2025, arXiv:2502.01618), algorithms 1 and 2; Andrieu, Doucet, Holenstein,
"Particle Markov chain Monte Carlo methods" (2010); Doucet and Johansen, "A Tutorial on Particle Filtering and
Smoothing" (2009) for the resampling schemes; the entropic rule is that of the authors' library `its_hub`. Estimates of
the normalising constant and of unnormalised integrals are unbiased; the estimate of an expectation is consistent, and
biased at finite N. Differs: parallel tempering, which they tried only as chains without any swap, is left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from ...core.errors import UserError
from ...core.run import Run
from ...core.types import Question, Solution
from ...serving.model import Feature
from ..strategy import MAX_CHAINS, MAX_ROUNDS, MAX_WEIGHT, Models, Stability, Thinking
from .core import BatchResults, Continuation, ExpandRequest, Node, SearchOptions, SearchOutcome, StepSearch, Tree
from .driver import StepSearchConfig

CLIP = 1e-4
"""Scores count as at least this, and as logits at most 1 less this. Differs: the authors' programs clip at 2e-16 and
1e-7, so that a single saturated score takes all the weight."""
REFERENCE_CLIP = 1e-7
"""The clip of the authors' library `its_hub`."""

WeightMode = Literal["odds", "likelihood", "telescoped"]
EntropicForm = Literal["size", "entropy"]


def log_level(r: float, level: Literal["log", "logit"], clip: float = CLIP) -> float:
    """The logarithm or the logit of a score in [0, 1], finite at both ends."""
    low = max(r, clip)
    if level == "log":
        return math.log(low)
    low = min(low, 1 - clip)
    return math.log(low) - math.log1p(-low)


def log_potential(mode: WeightMode, r: float, previous: float | None, clip: float = CLIP) -> float:
    """The logarithm of a step's potential G, at temperature 1.

    - "odds": logit(r). The published method; r is the score of the prefix and acts again at every step.
    - "likelihood": log r, the paper's model; r is the score of the step, or of the prefix.
    - "telescoped": log r - log previous, without the latter for the first step; along a path they sum to the log of the
      last score, so only that counts.
    """
    if mode == "odds":
        return log_level(r, "logit", clip)
    if mode == "likelihood":
        return log_level(r, "log", clip)
    return log_level(r, "log", clip) - (0.0 if previous is None else log_level(previous, "log", clip))


def softmax(log_weights: Sequence[float]) -> list[float]:
    """theta_i = exp(w_i - max w) / sum_j exp(w_j - max w); of w, at least one is finite, and none is NaN or +inf."""
    top = max(log_weights, default=math.nan)
    if not math.isfinite(top) or any(math.isnan(w) for w in log_weights):
        raise UserError("log-weights need one finite value, and neither NaN nor +inf")
    raised = [math.exp(w - top) for w in log_weights]
    total = math.fsum(raised)
    return [value / total for value in raised]


def log_sum(log_weights: Sequence[float]) -> float:
    """The logarithm of sum_i exp(w_i), without overflow."""
    top = max(log_weights)
    return top + math.log(math.fsum(math.exp(w - top) for w in log_weights))


def effective_size(theta: Sequence[float]) -> float:
    """ESS = 1 / sum theta_i^2, from 1 to the number of particles; theta sums to 1."""
    return 1 / math.fsum(value * value for value in theta)


def multinomial(theta: Sequence[float], n: int, rng: Random) -> list[int]:
    """`n` indices sampled from theta with replacement; one uniform each."""
    return rng.choices(range(len(theta)), weights=theta, k=n)


def systematic(theta: Sequence[float], n: int, rng: Random) -> list[int]:
    """`n` indices at evenly spaced points of theta's distribution function, ascending; one uniform in all.

    Index i comes floor or ceil of `n * theta_i` times, without exception, since the sums are exact.
    """
    shares = [Fraction(value) for value in theta]
    total = sum(shares, Fraction())
    start = Fraction(rng.random())
    chosen: list[int] = []
    reached = Fraction()
    for i, share in enumerate(shares):
        reached += share
        while len(chosen) < n and (start + len(chosen)) * total < reached * n:
            chosen.append(i)
    return chosen


def entropic_temperature(theta: Sequence[float], progress: float, form: EntropicForm = "size") -> float:
    """Temperature of the weights at a step: above 1 if few particles carry the weight early on.

    1 unless ESS/N and progress are both below 1/2. Else, at least 1:

    - "size": (1 - progress) / (ESS/N);
    - "entropy": 1 / (H + (1 - H) * progress), with H the entropy of theta over log N.

    Args:
        theta: Weights at temperature 1, summing to 1, `[particles]`.
        progress: Steps taken over the maximum steps, in [0, 1].
    """
    ratio = effective_size(theta) / len(theta)
    if ratio >= 0.5 or progress >= 0.5:
        return 1.0
    if form == "size":
        return max(1.0, (1 - progress) / ratio)
    entropy = -math.fsum(value * math.log(value) for value in theta if value > 0) / math.log(len(theta))
    share = entropy + (1 - entropy) * progress
    return max(1.0, 1 / share) if share > 0 else float(len(theta))  # before the first step there would be no bound


@dataclass(slots=True)
class Particle(Node):
    """A prefix that particles hold; after resampling several may hold the same.

    Attributes:
        log_g: log G of its last step at temperature 1; 0 at a root.
        level: Score of the prefix; if missing, the last one before; None if there was none at all.
    """

    log_g: float = 0.0
    level: float | None = None


@dataclass(frozen=True, slots=True)
class ParticleStep:
    """One step of a pass.

    Attributes:
        nodes: Node of each particle when it was weighted, `[particles]`.
        theta: The weights, summing to 1, `[particles]`.
        ancestors: For each particle afterwards its position in `nodes`.
        ess: Effective sample size of theta.
        tau: Temperature of the weights.
    """

    nodes: list[int]
    theta: list[float]
    ancestors: list[int]
    ess: float
    tau: float


@dataclass(frozen=True, slots=True)
class PassRecord:
    """One completed pass of the filter.

    Attributes:
        nodes: Final node of each particle, `[particles]`.
        theta: Their weights, `[particles]`, since the last resampling. If that left only finished particles they are
            equal, and copies carry the weight, so a vote that sums them counts nothing twice.
        log_z: Logarithm of the estimated normalising constant.
    """

    nodes: list[int]
    theta: list[float]
    log_z: float
    steps: list[ParticleStep]


class ParticleOptions(SearchOptions):
    """Parameters of particle methods: N particles in each of J passes, N·J in all.

    Differs: the authors allow 1,024 or 2,048 tokens a step; the maximum here is that of all searches.
    """

    round_size: ClassVar[Mapping[str, int]] = {"n": 1}

    n: Annotated[int, Field(ge=1, le=MAX_CHAINS, description="particles of a pass")] = 16
    iterations: Annotated[int, Field(ge=1, le=MAX_ROUNDS, description="passes; above 1 it is particle Gibbs")] = 1
    tau: Annotated[float, Field(gt=0, le=MAX_WEIGHT, description="temperature of the weights")] = 1.0
    weight_mode: Annotated[WeightMode, Field(description="form of a score's potential")] = "odds"
    entropic: Annotated[
        EntropicForm | None, Field(description="soften the weights while few particles carry them early on")
    ] = None
    resampling: Annotated[Literal["multinomial", "systematic"], Field(description="resampling scheme")] = "multinomial"
    stopped_weight: Annotated[
        Literal["last", "one"], Field(description="potential of a finished particle at later steps")
    ] = "last"
    parity: Annotated[
        Literal["", "reference"],
        Field(description="reference: clip scores and choose one particle as the authors' library does"),
    ] = ""

    @model_validator(mode="after")
    def _is_unbiased(self) -> Self:
        if self.iterations > 1 and self.resampling == "systematic":
            raise ValueError("systematic resampling around a fixed reference would be biased")
        return self

    def potential(self, text: str, score: float | None, previous: float | None) -> tuple[float | None, float | None]:
        """The potential of a step, log G at temperature 1, None without a score; and the level of the prefix with it.

        Args:
            score: Score of the prefix that ends with the step; one that adds nothing has that of the prefix before.
            previous: Level of the prefix before it.
        """
        r = previous if score is None and not text.strip() else score
        if r is None:
            return None, previous
        clip = REFERENCE_CLIP if self.parity == "reference" else CLIP
        return log_potential(self.weight_mode, r, previous, clip), r


class FilterPass:
    """One pass of a particle filter over a tree that several passes may share: propagate, weight, resample, to the end.

    Args:
        rng: Samples ancestors.
        tree: The tree of its particles; the caller adds the requested steps.
        root: Id of the empty prefix that the particles start from.
        reference: Ids of the reference's steps, held by the last particle; empty without one.

    Attributes:
        population: Node of each particle, `[particles]`.
        theta: Their weights since the last resampling, `[particles]`.
        steps: Records of the steps so far.
        log_z: Logarithm of the estimated normalising constant so far.
    """

    def __init__(
        self,
        options: ParticleOptions,
        rng: Random,
        tree: Tree[Particle],
        root: int,
        reference: Sequence[int] = (),
    ) -> None:
        self.options, self._rng, self._tree = options, rng, tree
        self.step = 0
        self.population = [root] * options.n
        self.theta = [1 / options.n] * options.n
        self.reference = list(reference)
        self.steps: list[ParticleStep] = []
        self.log_z = 0.0

    @property
    def is_over(self) -> bool:
        """Whether all particles have finished."""
        return not any(map(self._is_active, self.population))

    @property
    def free(self) -> list[int]:
        """Nodes of all particles but the reference."""
        return self.population[: self.options.n - bool(self.reference)]

    def requests(self) -> list[tuple[Particle, int]]:
        """The prefixes to continue, each with the number of particles that hold it; none once the pass is over."""
        while True:
            counts = Counter(filter(self._is_active, self.free))
            if counts or self.is_over:
                return [(self._tree[node_id], n) for node_id, n in counts.items()]
            self.advance({})  # only the reference continues; others may fork from it

    def advance(self, children: Mapping[int, Sequence[Particle]]) -> None:
        """Process a step; `children` has the continuations of each requested prefix, as nodes."""
        born = [child for node_id in dict.fromkeys(self.free) for child in children.get(node_id, ())]
        self._weight_and_resample(self._moved(children), born)

    def abort(self, children: Mapping[int, Sequence[Particle]]) -> None:
        """Process a part of a step, which is never weighted: the pass ends here."""
        self.population = self._moved(children)

    def record(self) -> PassRecord:
        """The pass as a record."""
        return PassRecord(self.population, self.theta, self.log_z, self.steps)

    def _is_active(self, node_id: int) -> bool:
        node = self._tree[node_id]
        return not node.terminal and node.depth < self.options.max_depth

    def _moved(self, children: Mapping[int, Sequence[Particle]]) -> list[int]:
        """Nodes of the particles after a step; that of the reference does not change."""
        free = self.free
        left: dict[int, Iterator[Particle]] = {node_id: iter(nodes) for node_id, nodes in children.items()}
        return [next(left[i]).id if i in left else i for i in free] + self.population[len(free) :]

    def _weight_and_resample(self, nodes: list[int], born: Sequence[Particle]) -> None:
        has_scores = self._set_potentials(born)
        self.step += 1
        if self.reference:
            nodes[-1] = self.reference[min(self.step, len(self.reference)) - 1]
        gains = [self._gain(node_id) if has_scores else 0.0 for node_id in nodes]
        tau = self._temperature(gains)
        weights = [gain / tau for gain in gains]
        theta = softmax(weights)
        self.log_z += log_sum(weights) - math.log(len(nodes))
        ancestors = list(range(len(nodes)))
        self.theta = theta
        if has_scores and any(map(self._is_active, nodes)):
            num_free = len(self.free)
            resample = systematic if self.options.resampling == "systematic" else multinomial
            ancestors[:num_free] = resample(theta, num_free, self._rng)
            self.theta = [1 / len(nodes)] * len(nodes)
        self.population = [nodes[i] for i in ancestors]
        self.steps.append(ParticleStep(nodes, theta, ancestors, effective_size(theta), tau))

    def _set_potentials(self, born: Sequence[Particle]) -> bool:
        """Set log G of new steps; False if all scores are missing."""
        missing, known = [], []
        for child in born:
            previous = self._tree[child.parent or 0].level
            log_g, child.level = self.options.potential(child.text, child.score, previous)
            if log_g is None:
                missing.append(child)
            else:
                child.log_g = log_g
                known.append(log_g)
        if known and self.options.weight_mode != "telescoped":
            for child in missing:
                child.log_g = math.fsum(known) / len(known)
        return bool(known) or not born

    def _gain(self, node_id: int) -> float:
        """The log-weight that a particle gains at this step, at temperature 1."""
        node = self._tree[node_id]
        repeats = self.options.stopped_weight == "last" and self.options.weight_mode != "telescoped"
        return node.log_g if node.depth == self.step or repeats else 0.0

    def _temperature(self, gains: Sequence[float]) -> float:
        tau = self.options.tau
        if self.options.entropic is None:
            return tau
        theta = softmax([gain / tau for gain in gains])
        return tau * entropic_temperature(theta, self.step / self.options.max_depth, self.options.entropic)


class ParticleFilter(StepSearch[Particle, ParticleOptions]):
    """The particle filter and particle Gibbs as ask and tell.

    Particles that hold one prefix share one request of as many continuations. Duplicates and continuations that add
    nothing are kept, as the weights are about samples. With one particle it is plain sampling step by step.

    If a score is missing, the particle gets the mean log-potential of its step; under "telescoped" none, for its next
    score makes up for it. If all are missing, the step is not resampled. A continuation that adds nothing has the score
    of its prefix.

    All passes share tree, cost, limits and randomness. A pass has a root of its own, so that no two passes request one
    node, and its reference is copied below it. At step t the reference competes with its potential of step t, and free
    particles may fork from its first t steps; only its own slot is never resampled. If the reference is longer than all
    others, only it continues. The target is left unchanged if a solution's weight is the product of its own potentials:
    `stopped_weight` "one", "telescoped", or solutions of one length.

    Differs: only complete solutions are chosen, if there are any; if there are none, the final answer of the heaviest
    particle is requested. The authors' programs let the reference compete with its potential of step t + 1, or with its
    final one at every step; neither leaves the target unchanged.

    Attributes:
        current: The running pass.
        records: The completed passes.
    """

    name = "particle-filter"
    Node = Particle
    rng: Random

    def __init__(self, options: ParticleOptions, rng: Random) -> None:
        super().__init__(options, rng)
        self.current = FilterPass(options, rng, self.tree, 0)
        self.records: list[PassRecord] = []
        self._chosen: int | None = None

    @property
    def population(self) -> list[int]:
        """Nodes of the particles, `[particles]`."""
        return self.current.population

    @property
    def steps(self) -> list[ParticleStep]:
        """Steps of the current pass."""
        return self.current.steps

    def _next(self) -> list[ExpandRequest]:
        while True:
            requests = self.current.requests()
            if requests:
                batch = self._batch(requests)
                return self._wind_up(batch) if isinstance(batch, str) else batch
            self.records.append(self.current.record())
            nodes, theta = self._final()
            complete = [i for i, node_id in enumerate(nodes) if self.tree[node_id].terminal]
            self._chosen = nodes[self._heaviest_position(nodes, theta, complete)] if complete else self._chosen
            if len(self.records) >= self.options.iterations:
                return self._wind_up("done")
            (reference,) = multinomial(theta, 1, self.rng)
            self.current = self._pass_with_reference(nodes[reference])

    def _pass_with_reference(self, node_id: int) -> FilterPass:
        """A pass with a copy of a prefix as its reference."""
        root = parent = self.tree.add_root()
        reference = []
        for node in self.tree.path(self.tree[node_id]):
            step = Continuation(node.text, node.tokens, node.terminal, node.score)
            parent = self.tree.add(parent, step)
            parent.log_g, parent.level, parent.copied_from = node.log_g, node.level, node.id
            reference.append(parent.id)
        return FilterPass(self.options, self.rng, self.tree, root.id, reference)

    def _kept(self, request: ExpandRequest, results: Sequence[Continuation]) -> list[int]:
        return list(range(len(results)))

    def _update(self, results: BatchResults, withdrawn: list[ExpandRequest]) -> None:
        children: dict[int, list[Particle]] = {}
        for request, continuations in results:
            parent = self.tree[request.node]
            nodes = [self.tree.add(parent, step, forced=request.finish) for step in continuations]
            children[request.node] = nodes
            if request.finish:
                self._chosen = nodes[0].id
                return
            self.cost.empties += sum(step.is_blank and not step.terminal for step in continuations)
            self._count_unscored(request, continuations)
        if withdrawn:
            self.current.abort(children)
        else:
            self.current.advance(children)

    def _final(self) -> tuple[list[int], list[float]]:
        """The particles to answer from, with their weights: of the last completed pass, else the current ones."""
        last = self.records[-1] if self.records else self.current.record()
        return last.nodes, last.theta

    def _heaviest(self) -> Particle:
        nodes, theta = self._final()
        return self.tree[nodes[self._heaviest_position(nodes, theta, range(len(nodes)))]]

    def _heaviest_position(self, nodes: Sequence[int], theta: Sequence[float], among: Iterable[int]) -> int:
        """Position of the largest weight; after resampling all are equal, and the last potential decides."""
        return max(among, key=lambda i: (theta[i], self.tree[nodes[i]].log_g, -i))

    def _unfinished(self) -> Particle | None:
        return None if any(self.tree[node_id].terminal for node_id in self._final()[0]) else self._heaviest()

    @property
    def answered(self) -> float:
        """Weight of the particles with a complete solution; of a forced answer, of those whose prefix it completes."""
        nodes, theta = self._final()
        forced = None if self._chosen is None or self._chosen in nodes else self.tree[self._chosen].parent
        return math.fsum(
            weight
            for node_id, weight in zip(nodes, theta, strict=True)
            if (self.tree[node_id].terminal if forced is None else node_id == forced)
        )

    def outcome(self) -> SearchOutcome[Particle]:
        """The result so far; a solution weighs the sum of theta over the particles that hold it.

        The particles are those of the last completed pass, else the current ones. The weights sum to 1 less that of the
        incomplete ones; that of a forced answer is 1.
        """
        nodes, theta = self._final()
        weights: dict[int, float] = {}
        for node_id, weight in zip(nodes, theta, strict=True):
            if self.tree[node_id].terminal:
                weights[node_id] = weights.get(node_id, 0.0) + weight
        chosen = self._chosen
        if chosen is not None and chosen not in weights:  # a forced answer
            weights[chosen] = 1.0
        order = sorted(weights, key=lambda node_id: (-weights[node_id], node_id))
        best = self.tree[chosen] if chosen is not None else self.tree[order[0]] if order else self._heaviest()
        return self._outcome(best if best.depth else None, [self.tree[i] for i in order], [weights[i] for i in order])


class ParticleFilterStrategy:
    """A particle filter over the steps of one model; with `iterations` above 1 particle Gibbs.

    The answer with the largest weight over all particles wins, or the heaviest particle if none states an answer or
    with `parity="reference"`.

    Model calls: one for each step of depth and pass, of up to `n` samples; a pass of the step reward for each
    of them. Confidence is the winning answer's share of the weight, or the particle's score.

    Differs: aggregation "last" is the default of all searches; the authors' is "model".
    """

    name: ClassVar[str] = "particle-filter"
    summary: ClassVar[str] = "run a particle filter over reasoning steps, weighted by a score of each step"
    paper: ClassVar[str] = "Puri et al. 2025, arXiv:2502.01618"
    confidence: ClassVar[str] = "The answer's share of the weights of all particles."
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "reward")
    thinking: ClassVar[Thinking] = "steps"

    class Config(StepSearchConfig, ParticleOptions):
        """Parameters of `particle-filter`."""

        @classmethod
        def sample_factors(cls, values: Mapping[str, Any]) -> dict[str, int]:
            factors = {"n": values["n"], "iterations": values["iterations"]}
            return factors | {"max_depth": values["max_depth"]} | super().sample_factors(values)

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def num_chains(self) -> int:
        """Chains of the self-consistency that replaces it where steps cannot be searched."""
        return self.config.n * self.config.iterations

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        config = self.config
        search = ParticleFilter(config.options(ParticleOptions, run), run.rng)
        result = await config.search(search, question, models, run)
        if result is None:
            return await config.without_search(self.num_chains, question, models, run)
        notes: dict[str, JsonValue] = {
            "ess": [[round(step.ess, 3) for step in record.steps] for record in search.records],
            "log_z": [record.log_z for record in search.records],
        }
        if config.parity == "reference":
            return config.chosen(result, run, **notes)
        solution = await config.vote(result, question, run, result.weights, **notes)
        if solution.confidence is None or "weights" not in solution.notes or math.isclose(search.answered, 1.0):
            return solution
        # the share is one of the weight of all particles, cut ones too
        return solution.model_copy(update={"confidence": solution.confidence * search.answered})
