"""Particle Gibbs: filter again and again, each time beside one particle of the pass before, the reference.

    run the filter
    J - 1 times: draw a reference by the final weights; run the filter with N - 1 free particles and the reference
    answer from the last pass

Source: Puri et al. 2025, arXiv:2502.01618, algorithm 2; Andrieu, Doucet, Holenstein, "Particle Markov chain Monte Carlo
methods" (2010).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .particle_pass import Pass
from .particles import ParticleFilter
from .population import ParticleOptions
from .resampling import multinomial
from .tree import Continuation


class GibbsOptions(ParticleOptions):
    """Parameters of particle Gibbs; N particles in each of J passes, N·J in all."""

    n: Annotated[int, Field(ge=2, description="particles of a pass, the reference included")] = 16
    iterations: Annotated[int, Field(ge=1, description="passes")] = 4
    resampling: Annotated[
        Literal["multinomial"], Field(description="systematic resampling around a fixed reference would be biased")
    ] = "multinomial"
    ancestor_sampling: Annotated[
        bool,
        Field(description="let the rest of the reference go on behind other particles; needs log-probabilities"),
    ] = False

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if self.ancestor_sampling and self.entropic is not None:
            raise ValueError("ancestor_sampling needs the temperatures of steps to come, which entropic leaves open")
        return self


class ParticleGibbs(ParticleFilter):
    """Particle Gibbs as ask and tell.

    A pass has a root of its own, so that no two passes ask for one node, and the reference is copied beneath it. At
    step t the reference competes with its potential of step t, and free particles may fork from its first t steps; only
    its own place is never drawn anew. Where the reference is longer than all others, it goes on alone.

    With `ancestor_sampling` the reference's steps to come are weighed behind the other particles' prefixes whenever
    these were resampled, and go on behind one of them (`ancestors`). `Expand.given` asks for that, in one batch with
    the next step. Where the owner knows no log-probability or no score, and where the passes of the reward model do not
    suffice, the reference stays as it is; `Ledger.unweighed` counts it. Weighing costs up to N·T²/2 passes of the
    reward model for T steps, and no generated tokens.

    The target is left unchanged where a solution's weight is the product of its own potentials: `stopped_weight` "one",
    "telescoped", or solutions of one length.

    Differs: the authors' programs let the reference compete with its potential of step t + 1, or with its final one at
    every step; neither leaves the target unchanged.
    """

    name = "particle-gibbs"
    Options = GibbsOptions
    options: GibbsOptions

    @property
    def _reattaches(self) -> bool:
        return self.options.ancestor_sampling

    def _again(self) -> bool:
        if len(self.sweeps) >= self.options.iterations:
            return False
        self.passes = [self._beside(chain, node_id) for chain, node_id in enumerate(self._references())]
        return True

    def _references(self) -> list[int]:
        """For each chain the particle that its next pass is run beside."""
        last = [history[-1] for history in self.histories]
        return [sweep.nodes[multinomial(sweep.theta, 1, self.rng)[0]] for sweep in last]

    def _beside(self, chain: int, node_id: int) -> Pass:
        """A pass with a copy of a prefix as its reference."""
        path = self.tree.path(self.tree[node_id])
        root = parent = self.tree.add_root()
        reference = []
        for node in path:
            step = Continuation(node.text, node.tokens, node.terminal, node.score, node.logprob)
            parent = self.tree.add(parent, step)
            parent.log_g, parent.level, parent.copied = node.log_g, node.level, node.id
            reference.append(parent.id)
        return self._pass(chain, root.id, reference)
