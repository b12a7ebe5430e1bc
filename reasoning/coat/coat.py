"""CoAT, Chain-of-Associated-Thoughts: tree search over thoughts, each of which may bring knowledge into its branch.

    select         the leaf of the largest V + w sqrt(ln N(parent) / N) on each level
    expand         write k next thoughts from the question, the path and its notes
    associate      AM = EB -> LLM(Q | G): query the knowledge sources; the model picks what helps
    admit          what is relevant to the thought, new on its path, and short
    evaluate       e = (Fg + beta Fa) / (1 + beta), instead of a rollout
    backpropagate  the scores to the leaf and its ancestors
    the answer is the complete solution of the highest reward, or score, with the notes that it cites

Source: Pan, Deng, Huang, "CoAT: Chain-of-Associated-Thoughts Framework for Enhancing Large Language Models Reasoning"
(2025, arXiv:2502.02390).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ...core.errors import ReasonError
from ...core.run import Run
from ...core.types import Question, Solution
from ...serving.model import Feature
from ..memory.admission import AdmissionFilter, Similarity
from ..memory.working_memory import WorkingMemory
from ..retrieval.sources.client import KnowledgeClient
from ..search.core import SearchLimits
from ..search.mcts import RESAMPLES, MCTSNode, MCTSOptions, MonteCarloTreeSearch
from ..strategy import MAX_TOKENS, MAX_WEIGHT, Models, Parameters, Stability, Thinking
from .association import MAX_NEW_NOTES, Association, Associator, estimate_tokens
from .driver import ThoughtSearchDriver
from .judge import Judging, ThoughtJudge
from .prompts import ThoughtPrompts


class CoAT:
    """`coat`: Monte Carlo tree search with associative memory (see `search.mcts` and `memory`).

    Without a knowledge source (`--context`, `--memory`; the paper's "external brain") the model associates by itself.
    With `association="none"` it is plain tree search over thoughts, in the manner of LATS (Zhou et al. 2023,
    arXiv:2310.04406, section 4).

    Model calls: one for the question, and three for each batch of leaves (thoughts, associations, scores), whatever `k`
    and `leaves` are; one more for each round of resampled duplicates. Confidence is the reward or score of the chosen
    solution.

    Differs: backpropagation adds new mass only (see `search.mcts`). Complete solutions get no association, since
    nothing follows them. At the depth limit the last thought is the final answer. Sources are queried with question and
    thought. Knowledge also joins the question before the first thought: models that answer in their first thought would
    otherwise never see any.
    """

    name: ClassVar[str] = "coat"
    summary: ClassVar[str] = "search a tree of thoughts, bringing knowledge into a branch as it needs it"
    paper: ClassVar[str] = "Pan, Deng, Huang 2025, arXiv:2502.02390"
    confidence: ClassVar[str] = "The reward of the chosen solution, or its score without a reward model."
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "judge", "reward", "embedding", "knowledge")
    thinking: ClassVar[Thinking] = "steps"

    class Config(Parameters, MCTSOptions):
        """Parameters of `coat`."""

        max_step_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS, description="maximum tokens of a step")] = 160
        beta: Annotated[float, Field(ge=0, le=MAX_WEIGHT, description="weight of the notes' score")] = 0.25
        association: Annotated[
            Association,
            Field(
                description="written: the model writes notes that help; quoted: notes are sentences of the snippets, "
                "without a call; none: no notes"
            ),
        ] = "written"
        judging: Annotated[
            Judging,
            Field(description="merged: one completion with all scores; reward: the reward model scores the steps"),
        ] = "merged"
        temperature: Annotated[
            float | None,
            Field(gt=0, le=100, description="sampling temperature of steps; by default 0.8 where the model takes one"),
        ] = None

        @classmethod
        def sample_factors(cls, values: Mapping[str, Any]) -> dict[str, int]:
            factors = {"k": values["k"], "expansions": values["expansions"], "resamples + 1": RESAMPLES + 1}
            return factors if values["association"] == "none" else factors | {"notes of a thought": MAX_NEW_NOTES}

        def options(self, run: Run) -> MCTSOptions:
            """The parameters of the search core; a small token budget also limits the final answer."""
            values: dict[str, Any] = {name: getattr(self, name) for name in MCTSOptions.model_fields}
            left = run.ledger.remaining("tokens")
            if left < math.inf:
                finish = min(self.limits.finish_tokens, max(1, int(left) // 4))
                values["limits"] = SearchLimits.model_validate(self.limits.model_dump() | {"finish_tokens": finish})
            return MCTSOptions.model_validate(values)

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def num_chains(self) -> int:
        """Chains of the self-consistency that replaces it where the model always thinks."""
        return self.config.k

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        config, memory = self.config, WorkingMemory()
        conversation = ThoughtPrompts(question, memory)
        search = MonteCarloTreeSearch(config.options(run))
        driver = ThoughtSearchDriver(
            self.name,
            search,
            question,
            models.main,
            ThoughtJudge(models.judge, conversation),
            conversation,
            None if config.association == "none" else self._associator(question, models, run, conversation, memory),
            models.reward if models.has("reward") or config.judging == "reward" else None,
            run,
            beta=config.beta,
            by_reward=config.judging == "reward",
            temperature=config.temperature,
        )
        await driver.search()
        await self._remember(search, memory, models, run)
        return driver.solution()

    def _associator(
        self, question: Question, models: Models, run: Run, conversation: ThoughtPrompts, memory: WorkingMemory
    ) -> Associator:
        knowledge = models.knowledge
        if knowledge.embedding is None:
            run.degrade("no embedding model: notes were compared only by their words")
        similarity = None if knowledge.embedding is None else Similarity(knowledge.embedding, run)
        admission = AdmissionFilter(estimate_tokens, similarity)
        sources = KnowledgeClient(knowledge.sources, run) if knowledge.sources else None
        return Associator(
            self.name, models.main, question, conversation, memory, admission, sources, run, self.config.association
        )

    async def _remember(self, search: MonteCarloTreeSearch, memory: WorkingMemory, models: Models, run: Run) -> None:
        """Store the notes of the chosen path in the named memory, if one is given."""
        chosen: MCTSNode | None = search.outcome().chosen
        if models.knowledge.memory is None or chosen is None or not run.recording:
            return
        notes = memory.visible([0, *(node.id for node in search.tree.path(chosen))])
        items = [note for note in notes if note.source_kind != "memory"]  # recalled notes are stored already
        try:
            await models.knowledge.memory.add(items, run_id=run.id, question=run.question.text)
        except ReasonError as e:
            run.degrade(f"the notes could not be stored in memory {models.knowledge.memory.name}: {e.message}")
