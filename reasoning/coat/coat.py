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
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import Field, JsonValue

from ...core.concurrency import off_loop, paced
from ...core.errors import BudgetExceeded, ReasonError
from ...core.events import CandidateAdded, LeafSelected, NodesSearched, SearchEnded, SearchNode
from ...core.messages import Completion, FinishReason, Prompt, Request, SamplingParams
from ...core.run import Run
from ...core.types import Candidate, Evidence, Question, Solution, Step
from ...serving.metered.model import MeteredModel
from ...serving.metered.scorers import MeteredReward
from ...serving.model import Feature
from ...serving.rewards.model import sigmoid
from ..answers.extraction import extract_answer, read_candidate
from ..continuations import ContinuationRequests
from ..knowledge import MemoryItem, knowledge_of
from ..memory.admission import AdmissionFilter, Similarity
from ..memory.working_memory import WorkingMemory
from ..prompts import answer_trigger, question_text
from ..retrieval.sources.client import KnowledgeClient
from ..retrieval.words import content_terms
from ..search.core import Continuation, ExpandRequest, SearchLimits, search_node_event
from ..search.driver import MAX_EVENT_NODES, MAX_INLINE_NODES, narrowed
from ..strategy import MAX_TOKENS, MAX_WEIGHT, Models, Parameters, Stability, Thinking
from . import prompts
from .association import MAX_NEW_NOTES, Association, Associator, estimate_tokens
from .judge import UNREADABLE_SCORE, Judging, ThoughtJudge, ThoughtScores, node_score
from .mcts import RESAMPLES, MCTSNode, MCTSOptions, MonteCarloTreeSearch
from .prompts import PathStep, ThoughtPrompts


class CoAT:
    """`coat`: Monte Carlo tree search with associative memory (see `mcts` and `memory`).

    Without a knowledge source (`--context`, `--memory`; the paper's "external brain") the model associates by itself.
    With `association="none"` it is plain tree search over thoughts, in the manner of LATS (Zhou et al. 2023,
    arXiv:2310.04406, section 4).

    Model calls: one for the question, and three for each batch of leaves (thoughts, associations, scores), whatever `k`
    and `leaves` are; one more for each round of resampled duplicates. Confidence is the reward or score of the chosen
    solution.

    Differs: backpropagation adds new mass only (see `mcts`). Complete solutions get no association, since
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
        knowledge = knowledge_of(models)
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
        named = knowledge_of(models).memory
        if named is None or chosen is None or not run.recording:
            return
        notes = memory.visible([0, *(node.id for node in search.tree.path(chosen))])
        items = [note for note in notes if note.source_kind != "memory"]  # recalled notes are stored already
        try:
            await named.add(items, run_id=run.id, question=run.question.text)
        except ReasonError as e:
            run.degrade(f"the notes could not be stored in memory {named.name}: {e.message}")


# -- citations

MIN_RESTATED_SHARE = 0.6
"""Share of a note's content words from which a text is taken to rest on it without citing it."""

_MARK = re.compile(r"\[(\d{1,3}(?:\s?[,;]\s?\d{1,3}){0,8})\]")


def cite(text: str, notes: Sequence[MemoryItem], *, question: str = "") -> tuple[str, tuple[Evidence, ...]]:
    """Renumber the citations in a text to the citations that it is returned with.

    Brackets with a number that is no note's stay unchanged.

    Args:
        text: The solution; `[2]` in it is the second note.
        notes: All notes that its steps saw, in order.
        question: Words of the question do not count as restated.

    Returns:
        The renumbered text and its citations in that order: cited notes by first mention, then restated ones.
    """
    order: list[int] = []
    for match in _MARK.finditer(text):
        numbers = _numbers(match)
        if all(1 <= number <= len(notes) for number in numbers):
            order += [number for number in dict.fromkeys(numbers) if number not in order]
    terms, question_terms = content_terms(_MARK.sub(" ", text)), content_terms(question)
    for number, note in enumerate(notes, 1):
        own = content_terms(note.text) - question_terms
        if number not in order and len(own) >= 2 and len(own & terms) >= MIN_RESTATED_SHARE * len(own):
            order.append(number)
    new_number = {number: index for index, number in enumerate(order, 1)}

    def renumbered(match: re.Match[str]) -> str:
        numbers = _numbers(match)
        if not all(number in new_number for number in numbers):
            return match[0]
        return "[" + ", ".join(str(new_number[number]) for number in numbers) + "]"

    cited = tuple(Evidence(source=source_of(notes[number - 1]), text=notes[number - 1].text) for number in order)
    return _MARK.sub(renumbered, text), cited


def source_of(note: MemoryItem) -> str:
    """The source of a note as displayed."""
    return note.source_id or "the model itself"


def _numbers(match: re.Match[str]) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", match[1])]


# -- the driver of the search

_TEMPERATURE = 0.8
MIN_EXPANSIONS = 2
"""Expansions that a budget should cover; the search is narrowed to that."""
MIN_STEP_TOKENS = 24
"""Below this many tokens a step the search ends for lack of budget."""


@dataclass
class _Expansion:
    """The expansion of one leaf.

    Attributes:
        path: The leaf's path.
        steps: All sampled steps.
        kept: Indices of those that become nodes.
        ids: Ids of these nodes.
        scores: Scores by index.
    """

    request: ExpandRequest
    path: tuple[PathStep, ...]
    steps: list[Continuation] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    scores: dict[int, ThoughtScores] = field(default_factory=dict)

    def paths(self) -> list[tuple[PathStep, ...]]:
        """The path of each new node."""
        return [
            (*self.path, PathStep(node_id, self.steps[i].text)) for i, node_id in zip(self.kept, self.ids, strict=True)
        ]


class ThoughtSearchDriver:
    """Runs one search over thoughts.

    A resumed run makes the same calls and finds their results in the run store, so the search continues where it
    stopped.

    Args:
        name: The strategy's name, for events.
        associator: Brings knowledge in; None without association.
        reward: Scores complete solutions; None without a reward model.
        beta: Weight of the notes' score.
        by_reward: Whether the reward model scores the steps, and the judge only the notes.
        temperature: Sampling temperature of steps that the user set.
    """

    def __init__(
        self,
        name: str,
        search: MonteCarloTreeSearch,
        question: Question,
        model: MeteredModel,
        judge: ThoughtJudge,
        conversation: ThoughtPrompts,
        associator: Associator | None,
        reward: MeteredReward | None,
        run: Run,
        *,
        beta: float,
        by_reward: bool,
        temperature: float | None,
    ) -> None:
        self._name, self._search, self._question, self._model = name, search, question, model
        self._judge, self._conversation, self._associator = judge, conversation, associator
        self._reward, self._run, self._beta, self._by_reward = reward, run, beta, by_reward
        self._sampling = SamplingParams(
            temperature=temperature, default_temperature=_TEMPERATURE, stop=("\n\n",), effort="none"
        )
        self._requests = ContinuationRequests(model, Prompt.user(question.text), run, "thought")
        self._scores: dict[int, ThoughtScores] = {}
        self._budget = run.ledger.view(max_tokens=search.options.limits.gen_tokens)
        self.spent = False

    async def search(self) -> None:
        """Search to the end; the best solution so far is the run's best meanwhile."""
        search = self._search
        self._narrow()
        await self._associate_question()
        before = self._run.best
        self._run.set_best(lambda: self._best_so_far() or before)
        while batch := search.ask():
            if not self._fits_budget(batch):
                self._end_for_budget()
                continue
            expansions: list[_Expansion] = []
            exceeded = None
            try:
                expansions = await self._expand(batch)
                await self._associate(expansions)
                await self._evaluate(expansions)
            except BudgetExceeded as e:
                exceeded, self.spent = e, True
                self._run.record_limit(e)
            if expansions:  # sampled steps count even if the budget did not cover their scores
                await self._report(expansions)
            if exceeded is not None:
                search.end("budget", complete=not search.stopped and not self._run.ledger.is_closed)
        self._emit_end()

    # -- the budget

    def _narrow(self) -> None:
        """Make the search smaller if the budget does not cover several expansions, and report that."""
        left, options = self._budget.remaining("tokens"), self._search.options
        if left == math.inf:
            return
        free = left - options.limits.finish_tokens
        needed = MIN_STEP_TOKENS + self._side_tokens_per_thought(self._associator)
        if self._associator is not None and free < needed:
            self._run.degrade(
                f"no knowledge was brought to the thoughts: one takes up to {needed} tokens with its notes and scores, "
                f"and the budget has {left:g} tokens left"
            )
            self._associator = None
            needed = MIN_STEP_TOKENS + self._side_tokens_per_thought(None)
        if free < needed:
            self._run.degrade(
                f"the answer was requested without a search: a thought takes up to {needed} tokens with its scores, "
                f"and the budget has {left:g} tokens left"
            )
            return
        smaller = narrowed(
            options.model_dump(), options.round_size, int(free // (MIN_EXPANSIONS * needed)), int(left), self._run
        )
        self._search.options = options.model_copy(update=dict(smaller))

    def _side_tokens_per_thought(self, associator: Associator | None) -> int:
        """Maximum tokens for associating with and judging a thought."""
        notes = 0 if associator is None else associator.max_tokens_per_thought()
        return notes + self._judge.max_tokens_per_thought

    def _side_tokens(self, request: ExpandRequest) -> int:
        """Maximum tokens for associating with and judging the samples of a leaf."""
        if request.score == "none":
            return 0
        return request.n * self._side_tokens_per_thought(None if request.finish else self._associator)

    def _tokens_per_sample(self, batch: Sequence[ExpandRequest]) -> float:
        """Tokens for each sample of a batch, after those for association, judging and the final answer."""
        left = self._budget.remaining("tokens")
        if left == math.inf:
            return math.inf
        is_final = any(request.score == "none" for request in batch)
        reserved = 0 if is_final else self._search.options.limits.finish_tokens
        return (left - reserved - sum(map(self._side_tokens, batch))) / sum(request.n for request in batch)

    def _fits_budget(self, batch: Sequence[ExpandRequest]) -> bool:
        if self._run.ledger.remaining("seconds") <= 0:
            return False
        min_tokens = min(MIN_STEP_TOKENS, *(request.max_tokens for request in batch))
        return self._tokens_per_sample(batch) >= (1 if batch[0].score == "none" else min_tokens)

    def _end_for_budget(self) -> None:
        is_late = self._run.ledger.remaining("seconds") <= 0 or self._run.ledger.is_closed
        if (is_late or self._run.ledger.remaining("tokens") <= self._budget.remaining("tokens")) and not self.spent:
            self.spent = True
            self._run.record_limit(self._run.ledger.exceeded("seconds" if is_late else "tokens"))
        if self._search.stopped:  # the budget does not cover the final answer either
            self._search.end("budget", complete=False)
        else:
            self._search.end("budget", complete=not is_late)

    # -- expand

    async def _expand(self, batch: Sequence[ExpandRequest]) -> list[_Expansion]:
        """Sample the next steps of all leaves; duplicates and empty steps are sampled again."""
        expansions = [_Expansion(request, self._path(request.node)) for request in batch]
        for request, expansion in zip(batch, expansions, strict=True):
            if request.score == "none":
                continue
            attractions = tuple(
                self._search.selection_score(node) for node in self._search.tree.path(self._search.tree[request.node])
            )
            ids = (0, *(step.node_id for step in expansion.path))
            self._run.emit(LeafSelected(search=self._name, path=ids, attractions=attractions))
        pending = [(expansion, expansion.request.n) for expansion in expansions]
        for attempt in range(1 + RESAMPLES):
            if attempt and self._tokens_per_sample([expansion.request for expansion, _ in pending]) < MIN_STEP_TOKENS:
                break
            try:
                await self._sample(pending)
            except BudgetExceeded:
                if not attempt:
                    raise
                break  # the budget does not cover replacements of duplicates
            missing = [
                (expansion, self._search.num_missing(expansion.request, expansion.steps)) for expansion in expansions
            ]
            pending = [(expansion, n) for expansion, n in missing if n > 0 and expansion.request.score != "none"]
            if not pending:
                break
        next_id = len(self._search.tree)
        async for expansion in paced(expansions):
            expansion.kept = (
                [0] if expansion.request.score == "none" else self._search.kept(expansion.request, expansion.steps)
            )
            expansion.ids = list(range(next_id, next_id + len(expansion.kept)))
            next_id += len(expansion.kept)
        return expansions

    async def _sample(self, pending: Sequence[tuple[_Expansion, int]]) -> None:
        """Sample the given numbers of steps in one call."""
        share = self._tokens_per_sample([expansion.request for expansion, _ in pending])
        requests = []
        for expansion, n in pending:
            expand = expansion.request
            is_final = expand.finish
            prefix = answer_trigger(self._question) if is_final and self._model.capabilities.prefix else ""
            text = prompts.finish(self._question) if is_final else prompts.GO_ON if expansion.path else ""
            prompt = self._conversation.after(expansion.path, text, prefix=prefix)
            greedy = {"temperature": None, "default_temperature": 0.0} if expand.score == "none" else {}
            max_tokens = max(1, int(min(expand.max_tokens, share)))
            sampling = self._sampling.model_copy(
                update={"max_tokens": max_tokens, "seed": self._requests.seed(prompt), **greedy}
            )
            requests.append(
                Request(prompt=prompt, sampling=sampling, sample_indices=self._requests.take_indices(prompt, n))
            )
        results = await self._model.generate(requests)
        sampled = (
            (expansion, request, completion)
            for (expansion, _), request, completions in zip(pending, requests, results, strict=True)
            for completion in completions
        )
        async for expansion, request, completion in paced(sampled):
            expansion.steps.append(self._step(expansion.request, request, completion))

    def _step(self, expand: ExpandRequest, request: Request, completion: Completion) -> Continuation:
        text = completion.text.strip()
        if expand.finish and text:
            text = f"{request.prompt.prefix} {text}".strip() if request.prompt.prefix else text
        answer = extract_answer(text, self._question) if text and completion.ok else None
        return Continuation(
            text,
            completion.usage.completion_tokens,
            terminal=expand.finish or (answer is not None and answer.is_explicit),
        )

    # -- associate and evaluate

    async def _associate_question(self) -> None:
        """Bring knowledge to the question before the first step."""
        associator = self._associator
        limits = self._search.options.limits
        if (
            associator is None
            or self._budget.remaining("tokens") < associator.max_tokens_per_thought() + limits.finish_tokens
        ):
            return
        try:
            await associator.associate([()])
        except BudgetExceeded as e:
            self._run.record_limit(e)
            self.spent = True

    async def _associate(self, expansions: Sequence[_Expansion]) -> None:
        """Bring knowledge to every new step that the search can continue."""
        if self._associator is None:
            return
        paths = [
            path
            for expansion in expansions
            for i, path in zip(expansion.kept, expansion.paths(), strict=True)
            if not expansion.steps[i].terminal and not expansion.steps[i].is_blank
        ]
        await self._associator.associate(paths)

    async def _evaluate(self, expansions: Sequence[_Expansion]) -> None:
        """Score every new step, and complete solutions by the reward model too."""
        items: list[tuple[_Expansion, int]] = []
        paths: list[tuple[PathStep, ...]] = []
        async for expansion in paced(expansions):
            by_step = dict(zip(expansion.kept, expansion.paths(), strict=True))
            for i in self._search.indices_to_score(expansion.request, expansion.steps):
                items.append((expansion, i))
                paths.append(by_step[i])
        if not items:
            return
        rewarded = [
            path if self._by_reward or expansion.steps[i].terminal else ()
            for (expansion, i), path in zip(items, paths, strict=True)
        ]
        rewards = await self._rewards(rewarded)
        results = await self._judge.judge(paths, steps=not self._by_reward)
        for (expansion, i), reward, scores in zip(items, rewards, results, strict=True):
            if self._by_reward:
                scores = replace(scores, step=UNREADABLE_SCORE if reward is None else reward)
            expansion.scores[i] = scores
            step = expansion.steps[i]
            expansion.steps[i] = replace(
                step,
                score=node_score(scores.step, scores.notes, self._beta),
                reward=reward if step.terminal else None,
            )

    async def _rewards(self, paths: Sequence[Sequence[PathStep]]) -> list[float | None]:
        """The reward of each path; None of an empty one and without a reward model."""
        indices = [i for i, path in enumerate(paths) if path]
        rewards: list[float | None] = [None] * len(paths)
        if self._reward is None or not indices:
            return rewards
        solutions = [[step.text for step in paths[i]] for i in indices]
        problem = question_text(self._question, self._question.text)
        results = await self._reward.score_steps(problem, solutions, "last")
        for i, scores in zip(indices, results, strict=True):
            rewards[i] = sigmoid(scores.log_odds[-1]) if scores.ok and scores.log_odds else None
        return rewards

    # -- report and emit

    async def _report(self, expansions: Sequence[_Expansion]) -> None:
        search, first_new = self._search, len(self._search.tree)
        duplicates, empties = search.cost.duplicates, search.cost.empties
        async for expansion in paced(expansions):
            tell = partial(search.tell, expansion.request, expansion.steps)
            await off_loop(tell, is_long=len(expansion.steps) > MAX_INLINE_NODES)
            self._scores.update(
                {
                    i: expansion.scores[j]
                    for i, j in zip(expansion.ids, expansion.kept, strict=True)
                    if j in expansion.scores
                }
            )
        new = [search.tree[node_id] for node_id in range(first_new, len(search.tree))]
        ancestors = {0: search.tree[0]} if first_new > 1 else {}
        for expansion in expansions:
            ancestors |= {step.node_id: search.tree[step.node_id] for step in expansion.path}
        root = [search.tree[0]] if first_new == 1 else []
        nodes = (*root, *ancestors.values(), *new)
        expanded = tuple(expansion.request.node for expansion in expansions)
        discarded = search.cost.duplicates + search.cost.empties - duplicates - empties
        async for start in paced(range(0, len(nodes), MAX_EVENT_NODES)):
            shown = tuple(map(self._node_event, nodes[start : start + MAX_EVENT_NODES]))
            self._run.emit(NodesSearched(search=self._name, expanded=expanded, nodes=shown, discarded=discarded))
            expanded, discarded = (), 0

    def _node_event(self, node: MCTSNode) -> SearchNode:
        """A node with its current statistics; ancestors are emitted again after backpropagation."""
        values = {"V": node.mean, "N": float(node.visits)}
        scores = self._scores.get(node.id)
        if scores is not None:
            values |= {"step": scores.step} | ({} if scores.notes is None else {"notes": scores.notes})
        if node.reward is not None:
            values["reward"] = node.reward
        prefix = None if node.terminal or not node.text else f"{node.text}\n\n"
        return search_node_event(node, values, prefix)

    def _best_so_far(self) -> Solution | None:
        """The best complete solution so far; None without any."""
        best = self._search.outcome().chosen
        if best is None or not best.terminal:
            return None
        return Solution(chosen=0, candidates=(self._candidate(best),), stopped="budget")

    def _emit_end(self) -> None:
        outcome = self._search.outcome()
        cost = outcome.cost
        if outcome.chosen is not None and not outcome.chosen.terminal:  # what an answer requested now continues
            partial = self._completion(self._search.tree.path(outcome.chosen))
            self._run.partial_completions.append((self._conversation.after((), ""), partial))
        counts = {
            "gen_tokens": self._budget.spent_tokens,
            "expansions": len(self._search.selected),
            "samples": cost.samples,
            "duplicates": cost.duplicates,
            "empties": cost.empties,
            "unread": self._judge.unreadable,
            **self._association_cost(),
        }
        chosen = None if outcome.chosen is None else outcome.chosen.id
        self._run.emit(SearchEnded(search=self._name, chosen=chosen, stopped=outcome.stopped, cost=counts))

    def _association_cost(self) -> dict[str, int]:
        return {} if self._associator is None else self._associator.cost()

    # -- candidates

    def _candidate(self, node: MCTSNode) -> Candidate:
        """The solution of a node, with its citations."""
        path = self._search.tree.path(node)
        notes = self._conversation.known(self._path(node.id))
        partial = self._completion(path)
        text, citations = cite(partial.text, notes, question=self._question.text)
        candidate = read_candidate(partial.model_copy(update={"text": text}), self._question)
        return candidate.model_copy(
            update={
                "steps": tuple(Step(text=step.text, scores=self._step_scores(step)) for step in path),
                "score": node.reward if node.reward is not None else node.score,
                "tokens": sum(step.tokens for step in path),
                "citations": citations,
            }
        )

    def _completion(self, path: Sequence[MCTSNode]) -> Completion:
        """A path as one completion, cut by the budget unless it is complete."""
        texts = [step.text for step in path if step.text]
        last = path[-1] if path else None
        reason: FinishReason = "stop" if last is not None and last.terminal else "budget"
        return Completion(text="\n\n".join(texts), finish_reason=reason)

    def _step_scores(self, node: MCTSNode) -> dict[str, float]:
        scores = {} if node.score is None else {"score": node.score}
        judged = self._scores.get(node.id)
        if judged is not None:
            scores |= {"step": judged.step} | ({} if judged.notes is None else {"notes": judged.notes})
        return scores

    def _path(self, node_id: int) -> tuple[PathStep, ...]:
        tree = self._search.tree
        return tuple(PathStep(node.id, node.text) for node in tree.path(tree[node_id]))

    def solution(self) -> Solution:
        """The complete solution of the highest reward, or score without a reward model, which is the confidence."""
        outcome = self._search.outcome()
        nodes = sorted(outcome.terminals, key=lambda node: node.id)
        if outcome.chosen is not None and outcome.chosen not in nodes:
            nodes.append(outcome.chosen)
        candidates = tuple(map(self._candidate, nodes))
        for i, candidate in enumerate(candidates):
            self._run.emit(CandidateAdded(index=i, answer=candidate.answer, score=candidate.score))
        chosen = None if outcome.chosen is None else nodes.index(outcome.chosen)
        confidence = None if chosen is None else candidates[chosen].score
        counts: dict[str, JsonValue] = {
            "expansions": len(self._search.selected),
            "nodes": len(self._search.tree) - 1,
            "depth": max(node.depth for node in self._search.tree),
            "duplicates": outcome.cost.duplicates,
            **self._association_cost(),
        }
        return Solution(
            chosen=chosen,
            candidates=candidates,
            confidence=None if confidence is None else min(1.0, confidence),
            stopped="budget" if self.spent else "done",
            notes={"search": counts, "ended": outcome.stopped},
        )
