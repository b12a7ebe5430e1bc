"""Self-consistency: sample many chains and take the answer most of them reach.

Source: Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models" (ICLR 2023), section 2.
"""

from __future__ import annotations

from typing import ClassVar

from ...core.answer import Solution
from ...core.question import Question
from ...core.run import Run
from ...serving.model import Feature
from ..sampling import SampledChains
from ..strategy import Models, Stability
from .path_votes import VoteOptions
from .rpc import sample_and_vote


class SelfConsistency:
    """Sample up to `n` chains, let their answers vote: the paper's unweighted sum over chains.

    Model calls: 1 for all `n` samples. With a token budget that does not cover `n` full chains, as many as it covers at
    a time: chains are mostly shorter than their limit, so later calls spend what earlier ones left. With `stopping`, a
    call for each round or race.

    Confidence is the winner's share of all samples, those without an answer included. Ties go to the answer reached
    first. Answers are compared by mathematical equivalence, not as strings. Under the rule "confidence" votes are
    weighed as it says.
    """

    name: ClassVar[str] = "self-consistency"
    summary: ClassVar[str] = "many sampled chains, majority vote over their answers"
    paper: ClassVar[str] = "Wang et al. 2023, arXiv:2203.11171"
    stability: ClassVar[Stability] = "stable"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main",)
    takes_tools: ClassVar[bool] = True

    class Config(SampledChains):
        """Parameters of `self-consistency`."""

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        return await sample_and_vote("sc", self.config, VoteOptions(), question, models, run)
