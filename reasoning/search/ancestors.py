"""Ancestor sampling: behind which particle's prefix the rest of the reference goes on.

At step t the rest of the reference, x'_(t+1:T), goes on behind the prefix x^i with probability proportional to

    w^i · prod_(s>t) p_M(x'_s | x^i, x'_(t+1:s-1)) · G_s(x^i, x'_(t+1:s))

so that its first steps are renewed too, which a plain pass beside a reference rarely does: far back all particles
descend from the reference. Everything to come is weighed anew, for neither model nor reward model is Markovian.

Source: Lindsten, Jordan, Schön, "Particle Gibbs with Ancestor Sampling" (2014, JMLR 15), section 3 and, for models that
are not Markovian, section 4; there the product may be cut short, here it is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .population import Particle, ParticleOptions
from .potentials import potential
from .tree import Continuation, Tree

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
