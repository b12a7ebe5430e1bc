"""Reasoning-pruned perplexity consistency: votes weighted by the chains' own probability, improbable chains left out.

Source: Zhou et al., "A Theoretical Study on Bridging Internal Probability and Self-Consistency for LLM Reasoning"
(NeurIPS 2025, arXiv:2510.15444), section 4, and the authors' program.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..core.answer import Solution
from ..core.question import Question
from ..core.run import Run
from ..serving.model import Feature
from .consistency.voting import VoteOptions
from .sampled_chains import SampledChains
from .sampled_vote import Scope, sample_and_vote
from .strategy import Models, Stability


class RPC:
    """Sample up to `n` chains, prune improbable ones, weight the votes of the rest by their probability.

    A mixture of two Weibull distributions over the chains' probabilities tells which are pruned; an answer's confidence
    is its share of the probability of the distinct chains that are left.

    Model calls: as `self-consistency`, and no further ones: a backend that hides log-probabilities but scores given
    text is asked once more, one that can do neither makes it self-consistency, which the answer tells.

    Differs: chains without an answer are left out of the fit and the vote, a text that was sampled twice counts once,
    and nothing is pruned where the fit says nothing (`consistency.pruning`); `init="reference"`, `dedup="reference"`,
    `unparsed="class"` and `guards="reference"` are the authors' readings. The paper draws 64 to 128 chains at
    temperature 1 and top-p 0.95; the defaults here are those of `self-consistency`, with more chains. Below about 16
    chains `pc` and `self-consistency` do as well.
    """

    name: ClassVar[str] = "rpc"
    summary: ClassVar[str] = "many sampled chains, votes weighted by their probability, improbable chains pruned"
    paper: ClassVar[str] = "Zhou et al. 2025, arXiv:2510.15444"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    takes_tools: ClassVar[bool] = True

    class Config(SampledChains):
        """Parameters of `rpc`."""

        n: Annotated[int, Field(ge=1, le=4096, description="most chains")] = 32
        init: Annotated[Literal["reference", "multistart"], Field(description="start of the fit")] = "reference"
        dedup: Annotated[Literal["max", "reference"], Field(description="what several chains of one text count")] = (
            "max"
        )
        unparsed: Annotated[Literal["drop", "class"], Field(description="chains without an answer")] = "drop"
        scope: Annotated[
            Scope, Field(description="tokens that make a chain's probability: all, or those behind its thoughts")
        ] = "all"
        guards: Annotated[Literal["full", "reference"], Field(description="when nothing is pruned")] = "full"

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        config = self.config
        options = VoteOptions(init=config.init, dedup=config.dedup, unparsed=config.unparsed, guards=config.guards)
        return await sample_and_vote("rpc", config, options, question, models, run, config.scope)
