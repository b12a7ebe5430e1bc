"""Monte Carlo tree search over thoughts: CoAT without association.

    select the leaf of the largest V + w sqrt(ln N(parent) / N) on each level
    write k next thoughts, judge each, and add the scores to the statistics of the leaf and its ancestors
    the answer is the complete solution of the highest reward, or score

Source: the search of Pan, Deng, Huang, "CoAT" (2025, arXiv:2502.02390), in the manner of LATS (Zhou et al. 2023,
arXiv:2310.04406), section 4.
"""

from __future__ import annotations

from typing import ClassVar

from ...core.run import Run
from ...core.types import Question, Solution
from ...serving.model import Feature
from ..memory.working_memory import WorkingMemory
from ..search.mcts import MonteCarloTreeSearch
from ..strategy import Models, Stability, Thinking
from .driver import ThoughtParameters, ThoughtSearchDriver, make_solution
from .judge import ThoughtJudge
from .prompts import Conversation


class MonteCarloThoughts:
    """`mcts`: the tree of `coat` without its memory (see `search.mcts`).

    Model calls: two for each batch of leaves, one that writes `k` thoughts of each and one that judges them all; one
    more for each round of resampled duplicates. Confidence is the reward or score of the chosen solution.
    """

    name: ClassVar[str] = "mcts"
    summary: ClassVar[str] = "Monte Carlo tree search over thoughts, judged instead of rolled out"
    paper: ClassVar[str] = "Zhou et al. 2023, arXiv:2310.04406; Pan et al. 2025, arXiv:2502.02390"
    confidence: ClassVar[str] = (
        "The reward of the chosen solution, or its score without a reward model; with select=vote, its answer's share."
    )
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "judge", "reward")
    thinking: ClassVar[Thinking] = "steps"
    Config: ClassVar[type[ThoughtParameters]] = ThoughtParameters

    def __init__(self, config: ThoughtParameters) -> None:
        self.config = config

    @property
    def num_chains(self) -> int:
        """Chains of the self-consistency that replaces it where the model always thinks."""
        return self.config.k

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        config = self.config
        instruction = config.task(question, notes=False)
        conversation = Conversation(question, WorkingMemory(), instruction, config.system)
        search = MonteCarloTreeSearch(config.options(run))
        judge = ThoughtJudge(models.judge, conversation, run, config.judging, config.judge_tokens)
        reward = models.reward if models.has("reward") or config.score == "reward" else None
        driver = ThoughtSearchDriver(
            self.name, search, config, question, models.main, judge, conversation, None, reward, run
        )
        await driver.search()
        return await make_solution(driver, search, config, question, run)
