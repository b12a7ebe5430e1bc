"""CoAT, Chain-of-Associated-Thoughts: tree search over thoughts, each of which may bring knowledge into its branch.

    select         the leaf of the largest V + w sqrt(ln N(parent) / N) on each level
    expand         write k next thoughts from the question, the path and its notes
    associate      AM = EB -> LLM(Q | G): ask the external brains, and let the model say what of it helps
    admit          what bears on the thought, is new on its path, and is short
    evaluate       e = (Fg + beta Fa) / (1 + beta), in place of a rollout
    backpropagate  the scores to the leaf and all above it
    the answer is the complete solution of the highest reward, or score, with the notes that it cites

Source: Pan, Deng, Huang, "CoAT: Chain-of-Associated-Thoughts Framework for Enhancing Large Language Models Reasoning"
(2025, arXiv:2502.02390).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ...core.errors import ReasonError
from ...core.run import Run
from ...core.types import Question, Solution
from ...serving.model import Feature
from ..memory.admission import AdmissionFilter, AdmissionRules
from ..memory.similarity import RecordedSimilarity
from ..memory.working_memory import Scope, WorkingMemory
from ..retrieval.sources.client import TIMEOUT_S, KnowledgeClient
from ..search.mcts import MCTSNode, MonteCarloTreeSearch
from ..strategy import Models, Stability
from . import prompts
from .association import Associating, Association, Associator, Querying, approximate_tokens
from .driver import ThoughtDesk, ThoughtParameters, solution_of
from .judge import ScoreForm, ThoughtJudge
from .prompts import Conversation


class CoAT:
    """`coat`: Monte Carlo tree search with associative memory (see `search.monte_carlo` and `memory`).

    Without an external brain (`--context`, `--memory`) the model associates by itself.

    Model calls: one for the question, and three for each batch of leaves (thoughts, associations, scores), whatever `k`
    and `leaves` are; one more each time that duplicates are sampled anew, and one for queries if the model writes them.
    Confidence is the reward or score of the chosen solution.

    Differs: backpropagation adds new mass only (see `search.monte_carlo`). A complete solution is not associated with:
    nothing is written below it. At the depth limit the last thought is itself the final answer. Brains are asked with
    question and thought as they stand unless `querying` is "model", which spares a call. With `at_once` knowledge also
    comes to the question, before the first thought: models that answer in their first thought would otherwise never see
    any.
    """

    name: ClassVar[str] = "coat"
    summary: ClassVar[str] = "tree search over thoughts that bring knowledge into their branch as they need it"
    paper: ClassVar[str] = "Pan, Deng, Huang 2025, arXiv:2502.02390"
    stability: ClassVar[Stability] = "beta"
    requires: ClassVar[frozenset[Feature]] = frozenset()
    roles: ClassVar[tuple[str, ...]] = ("main", "judge", "reward", "embedding", "brain")

    class Config(ThoughtParameters):
        """Parameters of `coat`."""

        beta: Annotated[float, Field(ge=0, allow_inf_nan=False, description="weight of the notes' score")] = 0.25
        score_form: Annotated[ScoreForm, Field(description="how step and notes are one score")] = "normalised"
        at_once: Annotated[
            bool, Field(description="whether knowledge comes to the question too, before any thought")
        ] = True
        scope: Annotated[Scope, Field(description="whose notes a thought sees: those of its path, or all")] = "path"
        shown: Annotated[int, Field(ge=0, description="most notes in a prompt")] = 8
        snippets: Annotated[int, Field(ge=1, description="snippets wanted of the brains for a thought")] = 3
        items: Annotated[int, Field(ge=1, description="most notes that a thought brings in")] = 3
        association: Annotated[
            Association,
            Field(description="written: the model says what of the snippets helps; quoted: their own sentences"),
        ] = "written"
        association_tokens: Annotated[
            int, Field(ge=8, description="most tokens of an association, or of a quoted snippet")
        ] = 96
        association_temperature: Annotated[float, Field(ge=0, le=100, description="its temperature")] = 0.3
        querying: Annotated[Querying, Field(description="who words what the brains are asked")] = "step"
        deadline_s: Annotated[float, Field(gt=0, description="longest time for a query of a brain, in seconds")] = (
            TIMEOUT_S
        )
        rules: Annotated[AdmissionRules, Field(description="what may enter the memory")] = AdmissionRules()

    def __init__(self, config: Config) -> None:
        self.config = config

    async def solve(self, question: Question, models: Models, run: Run) -> Solution:
        """See `Strategy.solve`."""
        config, knowledge = self.config, models.knowledge
        memory = WorkingMemory(config.scope, config.shown)
        asked = prompts.instruction(question, notes=True) if config.instruction is None else config.instruction
        conversation = Conversation(question, memory, asked, config.system)
        consultant = KnowledgeClient(knowledge.brains, run, deadline_s=config.deadline_s) if knowledge.brains else None
        associator = Associator(
            self.name,
            models.main,
            question,
            conversation,
            memory,
            self._admission(models, run),
            consultant,
            run,
            self._associating(),
        )
        search = MonteCarloTreeSearch(config.options(run))
        judge = ThoughtJudge(models.judge, conversation, run, config.judging, config.judge_tokens)
        reward = models.reward if models.has("reward") or config.score == "reward" else None
        desk = ThoughtDesk(
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
            at_once=config.at_once,
        )
        await desk.search()
        await self._remember(search, memory, models, run)
        return await solution_of(desk, search, config, question, run)

    def _associating(self) -> Associating:
        config = self.config
        return Associating(
            snippets=config.snippets,
            tokens=config.association_tokens,
            items=config.items,
            association=config.association,
            querying=config.querying,
            temperature=config.association_temperature,
        )

    def _admission(self, models: Models, run: Run) -> AdmissionFilter:
        embedding = models.knowledge.embedding
        if embedding is None:
            run.degrade("no embedding model: notes were compared by their words alone")
        rules = self.config.rules.model_copy(update={"max_tokens": self.config.association_tokens})
        similarity = None if embedding is None else RecordedSimilarity(embedding, run)
        return AdmissionFilter(rules, approximate_tokens, similarity)

    async def _remember(self, search: MonteCarloTreeSearch, memory: WorkingMemory, models: Models, run: Run) -> None:
        """Keep the notes of the chosen path for other runs, where a memory is given."""
        chosen: MCTSNode | None = search.outcome().chosen
        if models.knowledge.memory is None or chosen is None or not run.recording:
            return
        notes = memory.known([0, *(node.id for node in search.tree.path(chosen))])
        kept = [note for note in notes if note.source_kind != "memory"]  # what it recalled, it has already
        try:
            await models.knowledge.memory.add(kept, run_id=run.id, question=run.question.text)
        except ReasonError as e:
            run.degrade(f"the notes could not be kept in memory {models.knowledge.memory.name}: {e.message}")
