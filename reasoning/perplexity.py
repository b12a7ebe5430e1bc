"""The most probable chain: no vote, the single chain of lowest perplexity.

Source: the baseline "PPL" of Zhou et al. 2025, arXiv:2510.15444, section 2.
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


class Perplexity:
    """Sample up to `n` chains and answer with the one of lowest perplexity.

    Confidence is its probability as a geometric mean over its tokens, which is far too high for a chance of being
    right: calibrate it before it is read as one. Model calls and what is done without log-probabilities: as `rpc`.
    """

    name: ClassVar[str] = "ppl"
    summary: ClassVar[str] = "many sampled chains, the most probable one answers"
    paper: ClassVar[str] = "Zhou et al. 2025, arXiv:2510.15444"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    takes_tools: ClassVar[bool] = True

    class Config(SampledChains):
        """Parameters of `ppl`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        return await sample_and_vote("ppl", self.config, VoteOptions(), question, models, run)
