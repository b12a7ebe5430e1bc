"""A particle filter over steps: continue all particles by one step, weigh them by the reward, resample.

    while some particle is active:
        propagate   one step for every active particle
        weigh       by log G of the step; a finished particle keeps its last
        resample    N of them in proportion to their weights, unless all have finished

Source: Puri et al., "Rollout Roulette: A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using
Particle-Based Monte Carlo Methods" (2025, arXiv:2502.01618), algorithm 1. Estimates of the normalising constant and of
unnormalised integrals are unbiased; the estimate of an expectation is consistent, and biased at finite N.

What a particle method records: `Particle`, a `Generation` for each step, a `Sweep` for each pass; its options.

What a step is worth to a particle: its potential, by its score and that of the prefix before it.

Ancestor sampling: behind which particle's prefix the rest of the reference goes on.

At step t the rest of the reference, x'_(t+1:T), goes on behind the prefix x^i with probability proportional to

    w^i · prod_(s>t) p_M(x'_s | x^i, x'_(t+1:s-1)) · G_s(x^i, x'_(t+1:s))

so that its first steps are renewed too, which a plain pass beside a reference rarely does: far back all particles
descend from the reference. Everything to come is weighed anew, for neither model nor reward model is Markovian.

Source: Lindsten, Jordan, Schön, "Particle Gibbs with Ancestor Sampling" (2014, JMLR 15), section 3 and, for models that
are not Markovian, section 4; there the product may be cut short, here it is not.

One pass of a particle filter over a tree that several passes may share: propagate, weigh, resample, to the end.

With a reference, which a pass of particle Gibbs is run beside, the last particle holds the reference's first t steps at
step t, whatever the weights say; the others compete with it.

Particle filtering: sample solutions in the proportions that the model and the scores of steps say, step by step.

    N empty replies
    until all are complete: sample one next step of each, weigh them by their scores, resample N by weight
    answer: a vote by weight

Source: Puri et al., "Rollout Roulette: A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using
Particle-Based Monte Carlo Methods" (2025, arXiv:2502.01618).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue

from ...core.answer import Solution
from ...core.errors import UserError
from ...core.question import Question
from ...core.run import Run
from ...serving.model import Feature
from ..strategy import Models, Stability
from .core import Expand, Heard, Outcome, SearchOptions, StepSearch
from .driver import SearchedSteps
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
from .tree import Continuation, Ledger, Node, Tree


@dataclass(slots=True)
class Particle(Node):
    """A prefix that particles hold; resampling lets several hold one.

    Attributes:
        log_g: log G of its last step at temperature 1; 0 at a root.
        level: Score of the prefix; where there is none, the last one before; None if there was none at all.
    """

    log_g: float = 0.0
    level: float | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """One step of a pass.

    Attributes:
        nodes: What each particle held when it was weighed, `[particles]`.
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

    @property
    def distinct(self) -> int:
        """Number of particles with descendants."""
        return len(set(self.ancestors))


@dataclass(frozen=True, slots=True)
class Sweep:
    """One pass of the filter that came to its end.

    Attributes:
        nodes: What each particle holds at the end, `[particles]`.
        theta: Their weights, `[particles]`, since the last resampling. Where that left finished particles alone they
            are equal, and copies bear the weight. So a vote that sums them up counts nothing twice.
        log_z: Logarithm of the estimated normalising constant; None where finished particles were set aside, since the
            weights then estimate none.
        generations: Its steps.
    """

    nodes: list[int]
    theta: list[float]
    log_z: float | None
    generations: list[Generation]


class ParticleOptions(SearchOptions):
    """Parameters of the particle filter.

    Differs: the authors allow 1,024 or 2,048 tokens a step; the cap here is that of the whole family of searches.
    """

    n: Annotated[int, Field(ge=1, description="particles")] = 16
    weight_mode: Annotated[WeightMode, Field(description="what a score is as a potential")] = "odds"
    level: Annotated[Level, Field(description="scale on which telescoped potentials are differences")] = "log"
    clip: Annotated[float, Field(gt=0, lt=0.5, description="how close to 0 and 1 a score may come")] = CLIP
    tau: Annotated[float, Field(gt=0, description="temperature of the weights")] = 1.0
    anneal: Annotated[
        tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[int, Field(ge=1)]] | None,
        Field(description="what tau is multiplied by: at the first step, in the end, and after how many steps that is"),
    ] = None
    entropic: Annotated[
        EntropicForm | None, Field(description="soften the weights while few particles carry them early on")
    ] = None
    resampling: Annotated[Literal["multinomial", "systematic"], Field(description="how particles are drawn")] = (
        "multinomial"
    )
    ess_trigger: Annotated[
        float | None,
        Field(gt=0, le=1, description="resample only where ESS/N is at most this, else carry the weights on"),
    ] = None
    resample_stopped: Annotated[bool, Field(description="finished particles compete with the others")] = True
    stopped_weight: Annotated[
        Literal["last", "one"], Field(description="potential of a finished particle at later steps")
    ] = "last"
    select: Annotated[Literal["argmax", "sample"], Field(description="how the chosen particle is found")] = "argmax"

    def annealing(self, step: int) -> float:
        """What tau is multiplied by at a step; steps count from 1."""
        return 1.0 if self.anneal is None else annealed_temperature(step - 1, *self.anneal)

    def temperature_at(self, step: int) -> float:
        """Temperature of the weights at a step, but for what `entropic` adds; steps count from 1."""
        return self.tau * self.annealing(step)


def potential(
    options: ParticleOptions, text: str, score: float | None, before: float | None
) -> tuple[float | None, float | None]:
    """What a step is worth.

    Args:
        options: What a score is as a potential.
        text: The step; one that adds nothing has the score of its prefix.
        score: Score of the prefix that ends with it, if there is one.
        before: Level of the prefix before it.

    Returns:
        log G at temperature 1, None without a score; and the level of the prefix with the step.
    """
    r = before if score is None and not text.strip() else score
    if r is None:
        return None, before
    return log_potential(options.weight_mode, r, before, options.level, options.clip), r


Rivals = dict[int, float]
"""Prefixes of one length by id, with their log-weights; the reference's own is among them."""


@dataclass(frozen=True, slots=True)
class Way:
    """The rest of a reference behind a prefix.

    Attributes:
        log_weight: Log-probability of its steps plus their log-potentials over the temperatures.
        steps: They, as told.
        potentials: Of each step log G at temperature 1 and the level that the prefix has then.
    """

    log_weight: float
    steps: tuple[Continuation, ...]
    potentials: tuple[tuple[float, float | None], ...]


def alike(tree: Tree[Particle], own: int, others: Iterable[int]) -> dict[int, int]:
    """For each prefix the first that consists of the same steps, looked for at `own` first."""
    firsts: dict[tuple[str, ...], int] = {}
    return {node_id: firsts.setdefault(tuple(tree.steps(node_id)), node_id) for node_id in [own, *others]}


def behind(
    options: ParticleOptions, rest: Sequence[Particle], told: Sequence[Continuation] | None, prefix: Particle
) -> Way | None:
    """What the rest of a reference is behind a prefix.

    Args:
        options: Potentials and temperatures.
        rest: The reference's steps to come, with their log-probabilities.
        told: They behind the prefix; None if it is the reference's own, or says the same.
        prefix: The prefix.

    Returns:
        None if a log-probability or a score is missing.
    """
    potentials: list[tuple[float, float | None]] = []
    total, level = 0.0, prefix.level
    steps = told or [Continuation(node.text, 0, node.terminal, node.score, node.logprob) for node in rest]
    for node, step in zip(rest, steps, strict=True):
        log_g: float | None = node.log_g
        if told is not None:
            log_g, level = potential(options, node.text, step.score, level)
        if log_g is None or step.logprob is None:
            return None
        total = math.fsum((total, step.logprob, log_g / options.temperature_at(node.depth)))
        potentials.append((log_g, level))
    return Way(total, tuple(steps), tuple(potentials))


def graft(tree: Tree[Particle], prefix: Particle, rest: Sequence[Particle], way: Way) -> list[int]:
    """Put the rest of a reference behind a prefix.

    Returns:
        Ids of the steps of the reference that this makes, from the first on.
    """
    reference, parent = [node.id for node in tree.path(prefix)], prefix
    for node, step, (log_g, level) in zip(rest, way.steps, way.potentials, strict=True):
        parent = tree.add(parent, Continuation(node.text, node.tokens, node.terminal, step.score, step.logprob))
        parent.log_g, parent.level, parent.copied = log_g, level, node.id
        reference.append(parent.id)
    return reference


Told = Mapping[int, Sequence[Continuation]]
"""By id of a prefix what given steps come to behind it."""


class Pass:
    """One pass.

    Args:
        options: Its parameters.
        rng: Draws ancestors.
        tree: Where its particles live; whoever runs the pass adds the steps that it wants.
        ledger: Counts what could not be weighed.
        root: Id of the empty prefix that they start from.
        reference: Ids of the reference's steps; empty without one.
        reattach: Whether the rest of the reference may go on behind another particle (`ancestors`).

    Attributes:
        step: Steps so far.
        population: Ids of what the particles hold, `[particles]`.
        reference: Ids of the reference's steps, held by the last particle.
        generations: Steps so far.
        carried: Log-weights that no resampling has reset, `[particles]`.
        log_z: Logarithm of the estimated normalising constant so far.
    """

    def __init__(
        self,
        options: ParticleOptions,
        rng: Random,
        tree: Tree[Particle],
        ledger: Ledger,
        root: int,
        reference: Sequence[int] = (),
        *,
        reattach: bool = False,
    ) -> None:
        self.options, self._rng, self._tree, self._ledger, self._reattach = options, rng, tree, ledger, reattach
        self.step = 0
        self.population = [root] * options.n
        self.reference = list(reference)
        self.generations: list[Generation] = []
        self.carried = [0.0] * options.n
        self.log_z = 0.0
        self._rivals: Rivals = {}

    # -- propagate

    @property
    def over(self) -> bool:
        """Whether all particles have finished."""
        return not any(map(self._active, self.population))

    @property
    def free(self) -> list[int]:
        """Ids of what the particles but the reference hold."""
        return self.population[: self.options.n - bool(self.reference)]

    def wanted(self) -> list[tuple[Particle, int]]:
        """The prefixes to continue, each with the number of particles that hold it; none once the pass is over."""
        while True:
            free = self.free
            held = [self._tree[node_id] for node_id in dict.fromkeys(free) if self._active(node_id)]
            if held or self._rivals or self.over:
                return [(node, free.count(node.id)) for node in held]
            self.take({}, {})  # the reference goes on alone; others may fork from it

    def trials(self) -> list[tuple[Particle, tuple[str, ...]]]:
        """The prefixes behind which the rest of the reference is to be weighed."""
        given = tuple(self._tree[node_id].text for node_id in self.reference[self.step :])
        return [(self._tree[node_id], given) for node_id in self._to_weigh()]

    def decline(self) -> None:
        """Leave the rest of the reference where it is at this step."""
        self._ledger.unweighed += len(self._to_weigh())
        self._rivals = {}

    def take(self, fresh: Mapping[int, Sequence[Particle]], told: Told) -> None:
        """Take in the step that was wanted.

        Args:
            fresh: By id of each prefix wanted its continuations, as nodes.
            told: By id of each prefix of `trials` what was told of it.
        """
        if self._rivals:
            self._draw_ancestor(told)
        born = [child for node_id in dict.fromkeys(self.free) for child in fresh.get(node_id, ())]
        self._advance(self._moved(fresh), born)

    def halt(self, fresh: Mapping[int, Sequence[Particle]]) -> None:
        """Take in a part of a step, which is never weighed: the pass goes no further."""
        self.population, self._rivals = self._moved(fresh), {}

    def _active(self, node_id: int) -> bool:
        node = self._tree[node_id]
        return not node.terminal and node.depth < self.options.max_depth

    def _moved(self, fresh: Mapping[int, Sequence[Particle]]) -> list[int]:
        """What the particles hold after a step; the reference alone stays where it is."""
        free = self.free
        left: dict[int, Iterator[Particle]] = {node_id: iter(children) for node_id, children in fresh.items()}
        return [next(left[i]).id if i in left else i for i in free] + self.population[len(free) :]

    # -- weigh and resample

    def _advance(self, nodes: list[int], born: Sequence[Particle]) -> None:
        scored = self._set_potentials(born)
        self.step += 1
        if self.reference:
            nodes[-1] = self.reference[min(self.step, len(self.reference)) - 1]
        gains = [self._gain(node_id) if scored else 0.0 for node_id in nodes]

        rivals = [i for i, node_id in enumerate(nodes) if self.options.resample_stopped or self._active(node_id)]
        rivals = rivals or list(range(len(nodes)))
        tau = self._temperature(gains, rivals)
        weights = [carried + gain / tau for carried, gain in zip(self.carried, gains, strict=True)]
        theta = softmax([weights[i] for i in rivals])
        self.log_z += log_sum(weights) - log_sum(self.carried)

        ancestors = list(range(len(nodes)))
        ess = effective_size(theta)
        trigger = self.options.ess_trigger
        if scored and any(map(self._active, nodes)) and (trigger is None or ess <= trigger * len(rivals)):
            draw = systematic if self.options.resampling == "systematic" else multinomial
            free = [i for i in rivals if not self.reference or i < len(nodes) - 1]
            for i, pick in zip(free, draw(theta, len(free), self._rng), strict=True):
                ancestors[i] = rivals[pick]
            if self._reattach and self.step < len(self.reference):
                self._rival({nodes[i]: weights[i] for i in rivals if self._active(nodes[i])})
            for i in rivals:
                weights[i] = 0.0
        self.carried = weights
        self.population = [nodes[i] for i in ancestors]
        spread = dict(zip(rivals, theta, strict=True))
        self.generations.append(Generation(nodes, [spread.get(i, 0.0) for i in range(len(nodes))], ancestors, ess, tau))

    def _set_potentials(self, born: Sequence[Particle]) -> bool:
        """Set log G of new steps; False if no score is there."""
        missing, known = [], []
        for child in born:
            before = self._tree[child.parent or 0].level
            log_g, child.level = potential(self.options, child.text, child.score, before)
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
        """What a particle gains at this step, at temperature 1."""
        node = self._tree[node_id]
        if node.depth == self.step:
            return node.log_g
        again = self.options.resample_stopped and self.options.stopped_weight == "last"
        return node.log_g if again and self.options.weight_mode != "telescoped" else 0.0

    def _temperature(self, gains: Sequence[float], rivals: Sequence[int]) -> float:
        tau = self.options.temperature_at(self.step)
        if self.options.entropic is None:
            return tau
        theta = softmax([self.carried[i] + gains[i] / tau for i in rivals])
        return tau * entropic_temperature(theta, self.step / self.options.max_depth, self.options.entropic)

    # -- ancestor sampling

    def _rival(self, rivals: Rivals) -> None:
        """Let these compete for the rest of the reference, if it can be weighed and there is any choice."""
        self._rivals = rivals
        if any(self._tree[node_id].logprob is None for node_id in self.reference[self.step :]):
            self.decline()
        elif not self._to_weigh():
            self._rivals = {}

    def _to_weigh(self) -> list[int]:
        """Of the rivals that do not say what the reference says the first of each wording."""
        if not self._rivals:
            return []
        own = self.reference[self.step - 1]
        first = alike(self._tree, own, self._rivals)
        return [node_id for node_id in dict.fromkeys(first.values()) if node_id != own]

    def _draw_ancestor(self, told: Told) -> None:
        rivals, own = self._rivals, self.reference[self.step - 1]
        self._rivals = {}
        rest = [self._tree[node_id] for node_id in self.reference[self.step :]]
        first = alike(self._tree, own, rivals)
        ways = {
            node_id: behind(self.options, rest, None if first[node_id] == own else told[first[node_id]], node)
            for node_id, node in ((node_id, self._tree[node_id]) for node_id in rivals)
        }
        self._ledger.unweighed += sum(way is None and first[node_id] == node_id for node_id, way in ways.items())
        known = {node_id: way for node_id, way in ways.items() if way is not None}
        theta = softmax([rivals[node_id] + way.log_weight for node_id, way in known.items()])
        chosen = list(known)[multinomial(theta, 1, self._rng)[0]]
        if first[chosen] == own:
            return  # it says the same, so the reference stays as it is
        self.reference = graft(self._tree, self._tree[chosen], rest, known[chosen])
        self.generations[-1].ancestors[-1] = self.generations[-1].nodes.index(chosen)
        self.population[-1] = chosen

    # -- the end

    def sweep(self) -> Sweep:
        """The pass as a record."""
        log_z = self.log_z if self.options.resample_stopped else None
        return Sweep(self.population, softmax(self.carried), log_z, self.generations)

    def to_json(self) -> dict[str, Any]:
        """Its state as plain JSON."""
        return {
            "step": self.step,
            "population": self.population,
            "reference": self.reference,
            "generations": [asdict(generation) for generation in self.generations],
            "carried": self.carried,
            "log_z": self.log_z,
            "rivals": [[node_id, weight] for node_id, weight in self._rivals.items()],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take what `to_json` gave."""
        self.step, self.log_z = state["step"], state["log_z"]
        self.population, self.reference = list(state["population"]), list(state["reference"])
        self.generations = [Generation(**generation) for generation in state["generations"]]
        self.carried = list(state["carried"])
        self._rivals = dict(state["rivals"])


class ParticleFilter(StepSearch[Particle, ParticleOptions]):
    """The particle filter as ask and tell.

    Particles that hold one prefix are asked for together, in one `Expand` of as many continuations. Duplicates and
    continuations that add nothing are kept, as the weights are about samples. With one particle it is plain sampling
    step by step.

    A missing score: the particle gets the mean log-potential of its step; under "telescoped" none, for its next score
    makes up for it. Where all are missing, the step is not resampled. A continuation that adds nothing has the score of
    its prefix.

    Differs: only complete solutions are chosen, where there are any; where there are none, the final answer of the
    heaviest particle is asked for.

    Args:
        options: Its parameters.
        rng: Draws ancestors, and the chosen particle where it is sampled.

    Attributes:
        passes: What runs now: one pass, and where there are several chains one of each, in lock-step.
        histories: Of each chain the passes that came to their end.
    """

    name = "particle-filter"
    Options = ParticleOptions
    Node = Particle
    rng: Random

    def __init__(self, options: ParticleOptions, rng: Random) -> None:
        if rng is None:
            raise UserError("a particle filter needs randomness", hint="give a seeded random.Random")
        super().__init__(options, rng)
        chains = range(len(self.temperatures))
        self.passes = [self._pass(k, self.tree.add_root().id if k else 0) for k in chains]
        self.histories: list[list[Sweep]] = [[] for _ in chains]
        self._chosen: int | None = None

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Temperature of each chain, the last one's the lowest."""
        return (self.options.tau,)

    @property
    def sweeps(self) -> list[Sweep]:
        """Passes of the last chain that came to their end."""
        return self.histories[-1]

    @property
    def population(self) -> list[int]:
        """Ids of what the particles of the last chain hold, `[particles]`."""
        return self.passes[-1].population

    @property
    def generations(self) -> list[Generation]:
        """Steps of the last chain's current pass."""
        return self.passes[-1].generations

    def log_target(self, node_id: int) -> float:
        """L: the sum of the log-potentials of a prefix at temperature 1, annealing included."""
        path = self.tree.path(self.tree[node_id])
        return math.fsum(node.log_g / self.options.annealing(node.depth) for node in path)

    def _pass(self, chain: int, root: int, reference: Sequence[int] = ()) -> Pass:
        tau = self.temperatures[chain]
        options = self.options if tau == self.options.tau else self.options.model_copy(update={"tau": tau})
        return Pass(options, self.rng, self.tree, self.ledger, root, reference, reattach=self._reattaches)

    @property
    def _reattaches(self) -> bool:
        """Whether references are given new beginnings."""
        return False

    def _next(self) -> list[Expand]:
        while True:
            wanted = [entry for one in self.passes for entry in one.wanted()]
            trials = self._affordable(sum(n for _, n in wanted))
            if wanted or trials:
                batch = self._batch(wanted)
                return self._wind_up(batch) if isinstance(batch, str) else batch + trials
            if all(one.over for one in self.passes):
                self._close()
                if not self._again():
                    return self._wind_up("done")

    def _affordable(self, samples: int) -> list[Expand]:
        """What is to be weighed, as far as the passes of the reward model cover it beside those of the samples."""
        left, trials = self.options.limits.passes_left(self.ledger), []
        for one in self.passes:
            own = one.trials()
            passes = sum(len(given) for _, given in own)
            if left is not None and passes > left - samples:
                one.decline()
                continue
            left = None if left is None else left - passes
            trials += [Expand(node.id, len(given), 0, 0, given=given) for node, given in own]
        return trials

    def _kept(self, expand: Expand, results: Sequence[Continuation]) -> list[int]:
        return list(range(len(results)))

    def _take(self, heard: Heard, missed: list[Expand]) -> None:
        fresh: dict[int, list[Particle]] = {}
        told: dict[int, Sequence[Continuation]] = {}
        for expand, results in heard:
            if expand.given:
                told[expand.node] = results
                continue
            children = [self.tree.add(self.tree[expand.node], step, forced=expand.finish) for step in results]
            fresh[expand.node] = children
            if expand.finish:
                self._chosen = children[0].id
                return
            self.ledger.empties += sum(step.blank and not step.terminal for step in results)
            self._count_unscored(expand, results)
        for one in self.passes:
            if missed:
                one.halt(fresh)
            elif not one.over:
                one.take(fresh, told)

    # -- the end

    def _close(self) -> None:
        for one, history in zip(self.passes, self.histories, strict=True):
            history.append(one.sweep())
        nodes, theta = self._final()
        complete = [i for i, node_id in enumerate(nodes) if self.tree[node_id].terminal]
        if complete and self.options.select == "sample":
            self._chosen = nodes[complete[multinomial([theta[i] for i in complete], 1, self.rng)[0]]]
        elif complete:
            self._chosen = nodes[self._largest(nodes, theta, complete)]

    def _again(self) -> bool:
        """Begin another pass, if there is one."""
        return False

    def _final(self) -> tuple[list[int], list[float]]:
        """The particles to answer from, with their weights."""
        return self._last(-1)

    def _last(self, chain: int) -> tuple[list[int], list[float]]:
        """The particles of a chain's last pass that came to its end, else as they are; with their weights."""
        if self.histories[chain]:
            sweep = self.histories[chain][-1]
            return sweep.nodes, sweep.theta
        return self.passes[chain].population, softmax(self.passes[chain].carried)

    def _heaviest(self) -> Particle:
        nodes, theta = self._final()
        return self.tree[nodes[self._largest(nodes, theta, range(len(nodes)))]]

    def _largest(self, nodes: Sequence[int], theta: Sequence[float], among: Iterable[int]) -> int:
        """Position of the largest weight; after resampling all are equal, and the last potential decides."""
        return max(among, key=lambda i: (theta[i], self.tree[nodes[i]].log_g, -i))

    def _unfinished(self) -> Particle | None:
        return None if any(self.tree[node_id].terminal for node_id in self._final()[0]) else self._heaviest()

    def outcome(self) -> Outcome[Particle]:
        """See `StepSearch.outcome`; a solution weighs the sum of theta over the particles that hold it.

        It is that of the last pass that came to its end, else of the particles as they are. The weights sum to 1 less
        what the incomplete ones have.
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

    def _state(self) -> dict[str, Any]:
        return {
            "passes": [one.to_json() for one in self.passes],
            "histories": [[asdict(sweep) for sweep in history] for history in self.histories],
            "chosen": self._chosen,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._chosen = state["chosen"]
        self.passes = [self._pass(k, 0) for k in range(len(self.temperatures))]
        for one, held in zip(self.passes, state["passes"], strict=True):
            one.load(held)
        self.histories = [
            [Sweep(**{**sweep, "generations": [Generation(**g) for g in sweep["generations"]]}) for sweep in history]
            for history in state["histories"]
        ]


Pick = Literal["vote", "particle"]


class ParticleFiltering:
    """A particle filter over the steps of one model (see `search.particles`).

    With `pick="vote"` the answer with the largest weight over all particles wins, or the heaviest particle where none
    states an answer. With "particle" one particle wins, and `select` says which: the heaviest, or one drawn by weight.

    Model calls: one for each step of depth, of `n` samples at most; a pass of what scores for each of them. Confidence
    is the winning answer's share of the weight, or the particle's score.

    Differs: aggregation "last" is the default of the whole family of searches; the authors' is "model".
    """

    name: ClassVar[str] = "particle-filter"
    summary: ClassVar[str] = "a particle filter over reasoning steps, weighed by a score of each step"
    paper: ClassVar[str] = "Puri et al. 2025, arXiv:2502.01618"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "reward")

    class Config(SearchedSteps, ParticleOptions):
        """Parameters of `particle-filter`."""

        pick: Annotated[Pick, Field(description="a vote by weight, or one particle")] = "vote"

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        config = self.config
        search = ParticleFilter(config.options(ParticleOptions, run), run.rng)
        found = await config.search(search, question, models, run)
        if found is None:
            return await config.without_search(config.n, question, models, run)
        notes = sweep_notes(search)
        if config.pick == "particle":
            return config.best(found, run, **notes)
        return await config.vote(found, question, run, found.weights, **notes)


def sweep_notes(search: ParticleFilter) -> dict[str, JsonValue]:
    """Of each pass the effective sample sizes by step, and the logarithm of the estimated normalising constant."""
    return {
        "ess": [[round(g.ess, 3) for g in sweep.generations] for sweep in search.sweeps],
        "log_z": [sweep.log_z for sweep in search.sweeps],
    }
