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

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ...core.errors import ReasonError
from ...core.run import Run
from ...core.settings import Seconds
from ...core.types import Question, Solution
from ...serving.model import Feature
from ..limits import MAX_ITEMS, MAX_TOKENS, MAX_WEIGHT
from ..memory.admission import AdmissionFilter, AdmissionRules
from ..memory.similarity import RecordedSimilarity
from ..memory.working_memory import Scope, WorkingMemory
from ..retrieval.sources.client import TIMEOUT_S, KnowledgeClient
from ..search.mcts import MCTSNode, MonteCarloTreeSearch
from ..strategy import Models, Stability, Thinking
from .association import Association, AssociationOptions, Associator, QuerySource, estimate_tokens
from .driver import ThoughtParameters, ThoughtSearchDriver, make_solution
from .judge import ScoreForm, ThoughtJudge
from .prompts import Conversation


class CoAT:
    """`coat`: Monte Carlo tree search with associative memory (see `search.mcts` and `memory`).

    Without a knowledge source (`--context`, `--memory`; the paper's "external brain") the model associates by itself.

    Model calls: one for the question, and three for each batch of leaves (thoughts, associations, scores), whatever `k`
    and `leaves` are; one more for each round of resampled duplicates, and one for queries with `query="model"`.
    Confidence is the reward or score of the chosen solution.

    Differs: backpropagation adds new mass only (see `search.mcts`). Complete solutions get no association, since
        nothing
    follows them. At the depth limit the last thought is the final answer. Sources are queried with question and thought
    unless `query` is "model", which saves a call. With `associate_question` knowledge also joins the question before
    the first thought: models that answer in their first thought would otherwise never see any.
    """

    name: ClassVar[str] = "coat"
    summary: ClassVar[str] = "tree search over thoughts that bring knowledge into their branch as they need it"
    paper: ClassVar[str] = "Pan, Deng, Huang 2025, arXiv:2502.02390"
    confidence: ClassVar[str] = (
        "The reward of the chosen solution, or its score without a reward model; with select=vote, its answer's share."
    )
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "judge", "reward", "embedding", "knowledge")
    thinking: ClassVar[Thinking] = "steps"

    class Config(ThoughtParameters):
        """Parameters of `coat`."""

        beta: Annotated[float, Field(ge=0, le=MAX_WEIGHT, description="weight of the notes' score")] = 0.25
        score_form: Annotated[ScoreForm, Field(description="combination of the scores of step and notes")] = (
            "normalised"
        )
        associate_question: Annotated[
            bool, Field(description="bring knowledge to the question before the first thought")
        ] = True
        scope: Annotated[Scope, Field(description="notes visible to a thought: those of its path, or of the tree")] = (
            "path"
        )
        max_notes: Annotated[int, Field(ge=0, le=MAX_ITEMS, description="maximum notes in a prompt")] = 8
        snippets: Annotated[
            int, Field(ge=1, le=MAX_ITEMS, description="snippets requested from the sources for a thought")
        ] = 3
        max_items: Annotated[int, Field(ge=1, le=MAX_ITEMS, description="maximum new notes of a thought")] = 3
        association: Annotated[
            Association,
            Field(
                description="written: the model writes what helps; quoted: sentences of the snippets, without a call"
            ),
        ] = "written"
        association_tokens: Annotated[
            int, Field(ge=8, le=MAX_TOKENS, description="maximum tokens of an association or a quoted snippet")
        ] = 96
        association_temperature: Annotated[
            float | None,
            Field(
                ge=0,
                le=100,
                description="sampling temperature of associations; by default 0.3 where the model takes one",
            ),
        ] = None
        query: Annotated[
            QuerySource, Field(description="query of the sources: question and step, or written by the model")
        ] = "step"
        timeout_s: Annotated[Seconds, Field(description="maximum time for one query of a source, in seconds")] = (
            TIMEOUT_S
        )
        admission: Annotated[AdmissionRules, Field(description="thresholds of the memory")] = AdmissionRules()

        @classmethod
        def sample_factors(cls, values: Mapping[str, Any]) -> dict[str, int]:
            return super().sample_factors(values) | {"max_items": values["max_items"]}

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def num_chains(self) -> int:
        """Chains of the self-consistency that replaces it where the model always thinks."""
        return self.config.k

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        config, knowledge = self.config, models.knowledge
        memory = WorkingMemory(config.scope, config.max_notes)
        instruction = config.task(question, notes=True)
        conversation = Conversation(question, memory, instruction, config.system)
        sources = KnowledgeClient(knowledge.sources, run, timeout_s=config.timeout_s) if knowledge.sources else None
        associator = Associator(
            self.name,
            models.main,
            question,
            conversation,
            memory,
            self._admission(models, run),
            sources,
            run,
            self._association_options(),
        )
        search = MonteCarloTreeSearch(config.options(run))
        judge = ThoughtJudge(models.judge, conversation, run, config.judging, config.judge_tokens)
        reward = models.reward if models.has("reward") or config.score == "reward" else None
        driver = ThoughtSearchDriver(
            self.name,
            search,
            config,
            question,
            models.main,
            judge,
            conversation,
            associator,
            reward,
            run,
            beta=config.beta,
            form=config.score_form,
            associate_question=config.associate_question,
        )
        await driver.search()
        await self._remember(search, memory, models, run)
        return await make_solution(driver, search, config, question, run)

    def _association_options(self) -> AssociationOptions:
        config = self.config
        return AssociationOptions(
            snippets=config.snippets,
            max_tokens=config.association_tokens,
            max_items=config.max_items,
            association=config.association,
            query=config.query,
            temperature=config.association_temperature,
        )

    def _admission(self, models: Models, run: Run) -> AdmissionFilter:
        embedding = models.knowledge.embedding
        if embedding is None:
            run.degrade("no embedding model: notes were compared only by their words")
        rules = self.config.admission.model_copy(update={"max_tokens": self.config.association_tokens})
        similarity = None if embedding is None else RecordedSimilarity(embedding, run)
        return AdmissionFilter(rules, estimate_tokens, similarity)

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
