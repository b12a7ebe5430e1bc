"""What a particle method records: `Particle`, a `Generation` for each step, a `Sweep` for each pass; its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from .limits import SearchOptions
from .resampling import CLIP, Level, WeightMode
from .tempering import EntropicForm, annealed_temperature
from .tree import Node


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
