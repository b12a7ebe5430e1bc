"""Perplexity consistency: votes weighted by the chains' own probability.

Source: Zhou et al. 2025, arXiv:2510.15444, section 4 (the method without its pruning).
"""

from __future__ import annotations

from typing import ClassVar

from ..core.answer import Solution
from ..core.question import Question
from ..core.run import Run
from ..serving.model import Feature
from .consistency.voting import VoteOptions
from .sampled_chains import SampledChains
from .sampled_vote import sample_and_vote
from .strategy import Models, Stability


class PerplexityConsistency:
    """Sample up to `n` chains; each answer's confidence is its share of the probability of all distinct chains.

    The probability of a chain is the geometric mean of its tokens' (1 / perplexity). Model calls and what is done
    without log-probabilities: as `rpc`.
    """

    name: ClassVar[str] = "pc"
    summary: ClassVar[str] = "many sampled chains, votes weighted by their probability"
    paper: ClassVar[str] = "Zhou et al. 2025, arXiv:2510.15444"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    takes_tools: ClassVar[bool] = True

    class Config(SampledChains):
        """Parameters of `pc`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        return await sample_and_vote("pc", self.config, VoteOptions(), question, models, run)
