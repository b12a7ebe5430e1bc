"""A particle filter over steps: continue all particles by one step, weight them by their scores, resample.

    while some particle is active:
        propagate   one step for every active particle
        weight      by log G of the step; a finished particle keeps its last
        resample    N of them in proportion to their weights, unless all have finished
    answer: a vote by weight

A pass may run with a reference, for particle Gibbs: the last particle then holds the reference's first t steps at step
t, whatever the weights are; the others compete with it. With ancestor sampling the rest of the reference, x'_(t+1:T),
may be attached to another prefix x^i after step t, with probability proportional to

    w^i · prod_(s>t) p_M(x'_s | x^i, x'_(t+1:s-1)) · G_s(x^i, x'_(t+1:s))

so that its first steps are renewed too, which a plain pass with a reference rarely does: early on all particles descend
from the reference. All remaining steps are scored again, for neither model nor reward model is Markovian.

Source: Puri et al., "Rollout Roulette: A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using
Particle-Based Monte Carlo Methods" (2025, arXiv:2502.01618), algorithm 1. Estimates of the normalising constant and of
unnormalised integrals are unbiased; the estimate of an expectation is consistent, and biased at finite N. Ancestor
sampling: Lindsten, Jordan, Schön, "Particle Gibbs with Ancestor Sampling" (2014, JMLR 15), section 3 and, for models
that are not Markovian, section 4; there the product may be truncated, here it is not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue

from ...core.errors import UserError
from ...core.run import Run
from ...core.types import Question, Solution
from ...serving.model import Feature
from ..limits import MAX_CHAINS, MAX_DEPTH, MAX_WEIGHT
from ..strategy import Models, Stability, Thinking
from .core import BatchResults, ExpandRequest, SearchOptions, SearchOutcome, StepSearch
from .driver import SearchResult, StepSearchConfig
from .resampling import (
    CLIP,
    EntropicForm,
    Level,
    WeightMode,
    annealed_temperature,
    effective_size,
    entropic_temperature,
    log_potential,
    log_sum,
    multinomial,
    softmax,
    systematic,
)
from .tree import Continuation, Node, SearchCost, Tree


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
        theta: The weights, summing to 1, `[particles]`; 0 for those that do not compete.
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
        log_z: Logarithm of the estimated normalising constant; None if finished particles were set aside, since the
            weights then estimate none.
    """

    nodes: list[int]
    theta: list[float]
    log_z: float | None
    steps: list[ParticleStep]


Factor = Annotated[float, Field(gt=0, le=MAX_WEIGHT)]


class ParticleOptions(SearchOptions):
    """Parameters of the particle filter.

    Differs: the authors allow 1,024 or 2,048 tokens a step; the maximum here is that of all searches.
    """

    round_size: ClassVar[Mapping[str, int]] = {"n": 1}

    n: Annotated[int, Field(ge=1, le=MAX_CHAINS, description="particles")] = 16
    weight_mode: Annotated[WeightMode, Field(description="form of a score's potential")] = "odds"
    level: Annotated[Level, Field(description="scale on which telescoped potentials are differences")] = "log"
    clip: Annotated[float, Field(gt=0, lt=0.5, description="how close to 0 and 1 a score may come")] = CLIP
    tau: Annotated[float, Field(gt=0, le=MAX_WEIGHT, description="temperature of the weights")] = 1.0
    anneal: Annotated[
        tuple[Factor, Factor, Annotated[int, Field(ge=1, le=MAX_DEPTH)]] | None,
        Field(description="factor of tau: at the first step, in the end, and after how many steps the end is reached"),
    ] = None
    entropic: Annotated[
        EntropicForm | None, Field(description="soften the weights while few particles carry them early on")
    ] = None
    resampling: Annotated[Literal["multinomial", "systematic"], Field(description="resampling scheme")] = "multinomial"
    ess_trigger: Annotated[
        float | None,
        Field(gt=0, le=1, description="resample only if ESS/N is at most this, else carry the weights over"),
    ] = None
    resample_stopped: Annotated[bool, Field(description="finished particles compete with the others")] = True
    stopped_weight: Annotated[
        Literal["last", "one"], Field(description="potential of a finished particle at later steps")
    ] = "last"
    select: Annotated[Literal["argmax", "sample"], Field(description="how one particle is chosen")] = "argmax"

    def annealing(self, step: int) -> float:
        """Factor of tau at a step; steps count from 1."""
        return 1.0 if self.anneal is None else annealed_temperature(step - 1, *self.anneal)

    def temperature_at(self, step: int) -> float:
        """Temperature of the weights at a step, without the entropic factor; steps count from 1."""
        return self.tau * self.annealing(step)

    def potential(self, text: str, score: float | None, previous: float | None) -> tuple[float | None, float | None]:
        """The potential of a step.

        Args:
            text: The step; one that adds nothing has the score of its prefix.
            score: Score of the prefix that ends with it, if there is one.
            previous: Level of the prefix before it.

        Returns:
            log G at temperature 1, None without a score; and the level of the prefix with the step.
        """
        r = previous if score is None and not text.strip() else score
        if r is None:
            return None, previous
        return log_potential(self.weight_mode, r, previous, self.level, self.clip), r


@dataclass(frozen=True, slots=True)
class ReferenceTail:
    """The rest of a reference, evaluated after a prefix.

    Attributes:
        log_weight: Log-probability of its steps plus their log-potentials over the temperatures.
        steps: The steps with their log-probabilities and scores.
        potentials: For each step log G at temperature 1 and the level of the prefix with it.
    """

    log_weight: float
    steps: tuple[Continuation, ...]
    potentials: tuple[tuple[float, float | None], ...]


def first_equal_prefixes(tree: Tree[Particle], own: int, others: Iterable[int]) -> dict[int, int]:
    """For each prefix the first one, starting with `own`, that consists of the same steps."""
    firsts: dict[tuple[str, ...], int] = {}
    return {node_id: firsts.setdefault(tuple(tree.steps(node_id)), node_id) for node_id in [own, *others]}


def evaluate_tail(
    options: ParticleOptions, rest: Sequence[Particle], rescored: Sequence[Continuation] | None, prefix: Particle
) -> ReferenceTail | None:
    """Evaluate the rest of a reference after a prefix.

    Args:
        options: Potentials and temperatures.
        rest: The remaining steps of the reference, with their log-probabilities.
        rescored: The steps scored after the prefix; None if it is the reference's own, or equal to it.

    Returns:
        None if a log-probability or a score is missing.
    """
    potentials: list[tuple[float, float | None]] = []
    total, level = 0.0, prefix.level
    steps = rescored or [Continuation(node.text, 0, node.terminal, node.score, node.logprob) for node in rest]
    for node, step in zip(rest, steps, strict=True):
        log_g: float | None = node.log_g
        if rescored is not None:
            log_g, level = options.potential(node.text, step.score, level)
        if log_g is None or step.logprob is None:
            return None
        total = math.fsum((total, step.logprob, log_g / options.temperature_at(node.depth)))
        potentials.append((log_g, level))
    return ReferenceTail(total, tuple(steps), tuple(potentials))


def attach_tail(tree: Tree[Particle], prefix: Particle, rest: Sequence[Particle], tail: ReferenceTail) -> list[int]:
    """Append the rest of a reference to a prefix.

    Returns:
        Ids of the steps of the resulting reference, from the first step on.
    """
    reference, parent = [node.id for node in tree.path(prefix)], prefix
    for node, step, (log_g, level) in zip(rest, tail.steps, tail.potentials, strict=True):
        parent = tree.add(parent, Continuation(node.text, node.tokens, node.terminal, step.score, step.logprob))
        parent.log_g, parent.level, parent.copied_from = log_g, level, node.id
        reference.append(parent.id)
    return reference


class FilterPass:
    """One pass of a particle filter over a tree that several passes may share: propagate, weight, resample, to the end.

    Args:
        rng: Samples ancestors.
        tree: The tree of its particles; the caller adds the requested steps.
        cost: Counts skipped rescorings.
        root: Id of the empty prefix that the particles start from.
        reference: Ids of the reference's steps; empty without one.
        reattach: Whether the rest of the reference may be attached to another particle (ancestor sampling).

    Attributes:
        step: Number of steps so far.
        population: Node of each particle, `[particles]`.
        reference: Ids of the reference's steps, held by the last particle.
        steps: Records of the steps so far.
        carried: Log-weights that no resampling has reset, `[particles]`.
        log_z: Logarithm of the estimated normalising constant so far.
    """

    def __init__(
        self,
        options: ParticleOptions,
        rng: Random,
        tree: Tree[Particle],
        cost: SearchCost,
        root: int,
        reference: Sequence[int] = (),
        *,
        reattach: bool = False,
    ) -> None:
        self.options, self._rng, self._tree, self._cost, self._reattach = options, rng, tree, cost, reattach
        self.step = 0
        self.population = [root] * options.n
        self.reference = list(reference)
        self.steps: list[ParticleStep] = []
        self.carried = [0.0] * options.n
        self.log_z = 0.0
        self._competitors: dict[int, float] = {}
        """Prefixes that compete for the rest of the reference, with their log-weights; its own is among them."""

    # -- propagate

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
            free = self.free
            held = [self._tree[node_id] for node_id in dict.fromkeys(free) if self._is_active(node_id)]
            if held or self._competitors or self.is_over:
                counts = Counter(free)
                return [(node, counts[node.id]) for node in held]
            self.advance({}, {})  # only the reference continues; others may fork from it

    def rescoring_requests(self) -> list[tuple[Particle, tuple[str, ...]]]:
        """The prefixes after which the rest of the reference needs scores."""
        given = tuple(self._tree[node_id].text for node_id in self.reference[self.step :])
        return [(self._tree[node_id], given) for node_id in self._to_rescore()]

    def skip_rescoring(self) -> None:
        """Leave the rest of the reference where it is at this step."""
        self._cost.skipped_rescorings += len(self._to_rescore())
        self._competitors = {}

    def advance(
        self, children: Mapping[int, Sequence[Particle]], rescored: Mapping[int, Sequence[Continuation]]
    ) -> None:
        """Process the results of a step.

        Args:
            children: By id of each requested prefix its continuations, as nodes.
            rescored: By id of each prefix of `rescoring_requests` the scored steps.
        """
        if self._competitors:
            self._sample_ancestor(rescored)
        born = [child for node_id in dict.fromkeys(self.free) for child in children.get(node_id, ())]
        self._weight_and_resample(self._moved(children), born)

    def abort(self, children: Mapping[int, Sequence[Particle]]) -> None:
        """Process a part of a step, which is never weighted: the pass ends here."""
        self.population, self._competitors = self._moved(children), {}

    def _is_active(self, node_id: int) -> bool:
        node = self._tree[node_id]
        return not node.terminal and node.depth < self.options.max_depth

    def _moved(self, children: Mapping[int, Sequence[Particle]]) -> list[int]:
        """Nodes of the particles after a step; that of the reference does not change."""
        free = self.free
        left: dict[int, Iterator[Particle]] = {node_id: iter(nodes) for node_id, nodes in children.items()}
        return [next(left[i]).id if i in left else i for i in free] + self.population[len(free) :]

    # -- weight and resample

    def _weight_and_resample(self, nodes: list[int], born: Sequence[Particle]) -> None:
        has_scores = self._set_potentials(born)
        self.step += 1
        if self.reference:
            nodes[-1] = self.reference[min(self.step, len(self.reference)) - 1]
        gains = [self._gain(node_id) if has_scores else 0.0 for node_id in nodes]

        rivals = [i for i, node_id in enumerate(nodes) if self.options.resample_stopped or self._is_active(node_id)]
        rivals = rivals or list(range(len(nodes)))
        tau = self._temperature(gains, rivals)
        weights = [carried + gain / tau for carried, gain in zip(self.carried, gains, strict=True)]
        theta = softmax([weights[i] for i in rivals])
        self.log_z += log_sum(weights) - log_sum(self.carried)

        ancestors = list(range(len(nodes)))
        ess = effective_size(theta)
        trigger = self.options.ess_trigger
        if has_scores and any(map(self._is_active, nodes)) and (trigger is None or ess <= trigger * len(rivals)):
            resample = systematic if self.options.resampling == "systematic" else multinomial
            free = [i for i in rivals if not self.reference or i < len(nodes) - 1]
            for i, pick in zip(free, resample(theta, len(free), self._rng), strict=True):
                ancestors[i] = rivals[pick]
            if self._reattach and self.step < len(self.reference):
                self._start_competition({nodes[i]: weights[i] for i in rivals if self._is_active(nodes[i])})
            for i in rivals:
                weights[i] = 0.0
        self.carried = weights
        self.population = [nodes[i] for i in ancestors]
        spread = dict(zip(rivals, theta, strict=True))
        self.steps.append(ParticleStep(nodes, [spread.get(i, 0.0) for i in range(len(nodes))], ancestors, ess, tau))

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
        if node.depth == self.step:
            return node.log_g
        repeats = self.options.resample_stopped and self.options.stopped_weight == "last"
        return node.log_g if repeats and self.options.weight_mode != "telescoped" else 0.0

    def _temperature(self, gains: Sequence[float], rivals: Sequence[int]) -> float:
        tau = self.options.temperature_at(self.step)
        if self.options.entropic is None:
            return tau
        theta = softmax([self.carried[i] + gains[i] / tau for i in rivals])
        return tau * entropic_temperature(theta, self.step / self.options.max_depth, self.options.entropic)

    # -- ancestor sampling

    def _start_competition(self, competitors: dict[int, float]) -> None:
        """Let prefixes compete for the rest of the reference, if it can be scored and there is any choice."""
        self._competitors = competitors
        if any(self._tree[node_id].logprob is None for node_id in self.reference[self.step :]):
            self.skip_rescoring()
        elif not self._to_rescore():
            self._competitors = {}

    def _to_rescore(self) -> list[int]:
        """The competitors that differ from the reference, the first of each text."""
        if not self._competitors:
            return []
        own = self.reference[self.step - 1]
        first = first_equal_prefixes(self._tree, own, self._competitors)
        return [node_id for node_id in dict.fromkeys(first.values()) if node_id != own]

    def _sample_ancestor(self, rescored: Mapping[int, Sequence[Continuation]]) -> None:
        competitors, own = self._competitors, self.reference[self.step - 1]
        self._competitors = {}
        rest = [self._tree[node_id] for node_id in self.reference[self.step :]]
        first = first_equal_prefixes(self._tree, own, competitors)
        tails = {
            node_id: evaluate_tail(
                self.options, rest, None if first[node_id] == own else rescored[first[node_id]], self._tree[node_id]
            )
            for node_id in competitors
        }
        self._cost.skipped_rescorings += sum(
            tail is None and first[node_id] == node_id for node_id, tail in tails.items()
        )
        known = {node_id: tail for node_id, tail in tails.items() if tail is not None}
        theta = softmax([competitors[node_id] + tail.log_weight for node_id, tail in known.items()])
        chosen = list(known)[multinomial(theta, 1, self._rng)[0]]
        if first[chosen] == own:
            return  # equal text: the reference stays as it is
        self.reference = attach_tail(self._tree, self._tree[chosen], rest, known[chosen])
        self.steps[-1].ancestors[-1] = self.steps[-1].nodes.index(chosen)
        self.population[-1] = chosen

    def record(self) -> PassRecord:
        """The pass as a record."""
        log_z = self.log_z if self.options.resample_stopped else None
        return PassRecord(self.population, softmax(self.carried), log_z, self.steps)


class ParticleFilter(StepSearch[Particle, ParticleOptions]):
    """The particle filter as ask and tell.

    Particles that hold one prefix share one request of as many continuations. Duplicates and continuations that add
    nothing are kept, as the weights are about samples. With one particle it is plain sampling step by step.

    If a score is missing, the particle gets the mean log-potential of its step; under "telescoped" none, for its next
    score makes up for it. If all are missing, the step is not resampled. A continuation that adds nothing has the score
    of its prefix.

    Differs: only complete solutions are chosen, if there are any; if there are none, the final answer of the heaviest
    particle is requested.

    Args:
        rng: Samples ancestors, and the chosen particle under `select="sample"`.

    Attributes:
        passes: The running pass of each chain; several chains run in lockstep.
        histories: The completed passes of each chain.
    """

    name = "particle-filter"
    Node = Particle
    rng: Random

    def __init__(self, options: ParticleOptions, rng: Random) -> None:
        if rng is None:
            raise UserError("a particle filter needs randomness", hint="give a seeded random.Random")
        super().__init__(options, rng)
        chains = range(len(self.temperatures))
        self.passes = [self._create_pass(k, self.tree.add_root().id if k else 0) for k in chains]
        self.histories: list[list[PassRecord]] = [[] for _ in chains]
        self._chosen: int | None = None

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Temperature of each chain, the last one's the lowest."""
        return (self.options.tau,)

    @property
    def records(self) -> list[PassRecord]:
        """The completed passes of the last chain."""
        return self.histories[-1]

    @property
    def population(self) -> list[int]:
        """Nodes of the last chain's particles, `[particles]`."""
        return self.passes[-1].population

    @property
    def steps(self) -> list[ParticleStep]:
        """Steps of the last chain's current pass."""
        return self.passes[-1].steps

    def log_target(self, node_id: int) -> float:
        """L: the sum of the log-potentials of a prefix at temperature 1, annealing included."""
        path = self.tree.path(self.tree[node_id])
        return math.fsum(node.log_g / self.options.annealing(node.depth) for node in path)

    def _create_pass(self, chain: int, root: int, reference: Sequence[int] = ()) -> FilterPass:
        tau = self.temperatures[chain]
        options = self.options if tau == self.options.tau else self.options.model_copy(update={"tau": tau})
        return FilterPass(options, self.rng, self.tree, self.cost, root, reference, reattach=self._reattaches)

    @property
    def _reattaches(self) -> bool:
        """Whether references may be attached to other particles."""
        return False

    def _next(self) -> list[ExpandRequest]:
        while True:
            requests = [entry for filter_pass in self.passes for entry in filter_pass.requests()]
            rescorings = self._affordable_rescorings(sum(n for _, n in requests))
            if requests or rescorings:
                batch = self._batch(requests)
                return self._wind_up(batch) if isinstance(batch, str) else batch + rescorings
            if all(filter_pass.is_over for filter_pass in self.passes):
                self._finish_passes()
                if not self._start_next_passes():
                    return self._wind_up("done")

    def _affordable_rescorings(self, samples: int) -> list[ExpandRequest]:
        """The rescorings that the passes of the reward model cover in addition to those of the samples."""
        left, requests = self.options.limits.passes_left(self.cost), []
        for filter_pass in self.passes:
            own = filter_pass.rescoring_requests()
            passes = sum(len(given) for _, given in own)
            if left is not None and passes > left - samples:
                filter_pass.skip_rescoring()
                continue
            left = None if left is None else left - passes
            requests += [ExpandRequest(node.id, len(given), 0, 0, given_steps=given) for node, given in own]
        return requests

    def _kept(self, request: ExpandRequest, results: Sequence[Continuation]) -> list[int]:
        return list(range(len(results)))

    def _update(self, results: BatchResults, withdrawn: list[ExpandRequest]) -> None:
        children: dict[int, list[Particle]] = {}
        rescored: dict[int, Sequence[Continuation]] = {}
        for request, continuations in results:
            if request.given_steps:
                rescored[request.node] = continuations
                continue
            parent = self.tree[request.node]
            nodes = [self.tree.add(parent, step, forced=request.finish) for step in continuations]
            children[request.node] = nodes
            if request.finish:
                self._chosen = nodes[0].id
                return
            self.cost.empties += sum(step.is_blank and not step.terminal for step in continuations)
            self._count_unscored(request, continuations)
        for filter_pass in self.passes:
            if withdrawn:
                filter_pass.abort(children)
            elif not filter_pass.is_over:
                filter_pass.advance(children, rescored)

    # -- the end

    def _finish_passes(self) -> None:
        for filter_pass, history in zip(self.passes, self.histories, strict=True):
            history.append(filter_pass.record())
        nodes, theta = self._final()
        complete = [i for i, node_id in enumerate(nodes) if self.tree[node_id].terminal]
        if complete and self.options.select == "sample":
            self._chosen = nodes[complete[multinomial([theta[i] for i in complete], 1, self.rng)[0]]]
        elif complete:
            self._chosen = nodes[self._heaviest_position(nodes, theta, complete)]

    def _start_next_passes(self) -> bool:
        """Start another pass of each chain; False if there is none."""
        return False

    def _final(self) -> tuple[list[int], list[float]]:
        """The particles to answer from, with their weights."""
        return self._last(-1)

    def _last(self, chain: int) -> tuple[list[int], list[float]]:
        """The particles of a chain's last completed pass, else the current ones; with their weights."""
        if self.histories[chain]:
            record = self.histories[chain][-1]
            return record.nodes, record.theta
        return self.passes[chain].population, softmax(self.passes[chain].carried)

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


ParticlePick = Literal["vote", "particle"]


class ParticleFilterStrategy:
    """A particle filter over the steps of one model.

    With `pick="vote"` the answer with the largest weight over all particles wins, or the heaviest particle if none
    states an answer. With "particle" one particle wins, by `select`: the heaviest, or one sampled by weight.

    Model calls: one for each step of depth, of up to `n` samples; a pass of the step reward for each of them.
    Confidence is the winning answer's share of the weight, or the particle's score.

    Differs: aggregation "last" is the default of all searches; the authors' is "model".
    """

    name: ClassVar[str] = "particle-filter"
    summary: ClassVar[str] = "a particle filter over reasoning steps, weighted by a score of each step"
    paper: ClassVar[str] = "Puri et al. 2025, arXiv:2502.01618"
    confidence: ClassVar[str] = (
        "The answer's share of the weights of all particles; with pick=particle, that particle's score."
    )
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "reward")
    thinking: ClassVar[Thinking] = "steps"

    class Config(StepSearchConfig, ParticleOptions):
        """Parameters of `particle-filter`."""

        pick: Annotated[ParticlePick, Field(description="a vote by weight, or one particle")] = "vote"

        @classmethod
        def sample_factors(cls, values: Mapping[str, Any]) -> dict[str, int]:
            return {"n": values["n"], "max_depth": values["max_depth"]} | super().sample_factors(values)

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def num_chains(self) -> int:
        """Chains of the self-consistency that replaces it where steps cannot be searched."""
        return self.config.n

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        config = self.config
        search = ParticleFilter(config.options(ParticleOptions, run), run.rng)
        result = await config.search(search, question, models, run)
        if result is None:
            return await config.without_search(self.num_chains, question, models, run)
        notes = pass_notes(search)
        if config.pick == "particle":
            return config.chosen(result, run, **notes)
        return await vote_of_particles(config, search, result, question, run)


async def vote_of_particles(
    config: StepSearchConfig,
    search: ParticleFilter,
    result: SearchResult[Particle],
    question: Question,
    run: Run,
) -> Solution:
    """The answer with the largest weight; its confidence is its share of the weight of all particles, cut ones too."""
    solution = await config.vote(result, question, run, result.weights, **pass_notes(search))
    if solution.confidence is None or "weights" not in solution.notes or math.isclose(search.answered, 1.0):
        return solution
    return solution.model_copy(update={"confidence": solution.confidence * search.answered})


def pass_notes(search: ParticleFilter) -> dict[str, JsonValue]:
    """Effective sample sizes by step, and the logarithm of the estimated normalising constant, of each pass."""
    return {
        "ess": [[round(step.ess, 3) for step in record.steps] for record in search.records],
        "log_z": [record.log_z for record in search.records],
    }
