"""`SearchDriver` runs a pure search on models; `StepSearchConfig` holds the parameters that all such strategies share.

    while batch := search.ask():
        sample      the requested steps of all prefixes, as one batch
        score       the steps that need a score, as one batch
        search.tell(…)

A resumed run makes the same calls and finds their results in the run store, so the search continues where it was.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, JsonValue

from ...core.concurrency import off_loop, paced
from ...core.errors import BudgetExceeded
from ...core.events import CandidateAdded, NodesSearched, SearchEnded
from ...core.messages import Completion, Prompt
from ...core.run import Run
from ...core.types import Candidate, Question, Solution, Step, Stopped
from ...serving.metered.model import MeteredModel
from ...serving.rewards.model import Aggregation
from ..answers.extraction import extract_answer
from ..candidates import complete_sentences, read_candidate
from ..conclude import conclusion_request, with_conclusion
from ..continuations import ContinuationRequests, Prefix, PrefixCompleter, completion_of
from ..limits import MAX_CHAINS, MAX_DELIMITER_CHARS, MAX_TOKENS
from ..prompts import answer_trigger, question_prompt, question_text, steps_instruction
from ..step_rewards import StepReward, StepRewardConfig
from ..step_sampler import StepExpansion, StepOptions, StepSampler
from ..strategy import Models
from ..voting.answer_classes import weighted_vote
from ..voting.self_consistency import SelfConsistency
from .core import ExpandRequest, RequestKey, SearchLimits, SearchOptions, SearchOutcome, StepSearch
from .tree import Continuation, Node, search_node_event

N = TypeVar("N", bound=Node)
T = TypeVar("T")
O = TypeVar("O", bound=SearchOptions)  # noqa: E741

ANSWER_TOKENS = 32
"""Part of the tokens of a forced answer that is reserved for stating it if the completed solution does not."""

MIN_COMPLETION_TOKENS = 8
"""Tokens below which a solution is not completed, but the answer requested at once."""

MIN_ROUNDS = 4
"""Rounds of a search that a budget should cover; with fewer there is little to search."""

MAX_INLINE_NODES = 1000
"""Size of a tree, or of a batch, from which the search works in a thread: some 20 milliseconds of work."""
MAX_EVENT_NODES = 500
"""Maximum nodes of one event."""
MAX_PARTIAL_CANDIDATES = 100
"""Maximum solutions of a search that is stopped."""

Results = dict[RequestKey, list[tuple[Continuation, Prefix]]]
"""The results of each request: the steps, each with the resulting prefix."""


@dataclass(frozen=True)
class SearchResult(Generic[N]):
    """The result of a search as candidates.

    Attributes:
        outcome: The search's own outcome.
        candidates: Its complete solutions in order of creation, else the prefix that it chose, with the scores of the
            step reward.
        nodes: The node of each.
        budget_exhausted: Whether the run's budget ended it.
    """

    outcome: SearchOutcome[N]
    candidates: tuple[Candidate, ...]
    nodes: tuple[int, ...]
    budget_exhausted: bool = False

    @property
    def chosen(self) -> int | None:
        """Position of the search's choice."""
        chosen = self.outcome.chosen
        return None if chosen is None else self.nodes.index(chosen.id)

    @property
    def weights(self) -> list[float]:
        """Vote weight of each candidate by the search; 0 for an incomplete one."""
        weight = {node.id: w for node, w in zip(self.outcome.terminals, self.outcome.weights, strict=True)}
        return [weight.get(node_id, 0.0) for node_id in self.nodes]


class SearchDriver(Generic[N, O]):
    """Runs one search over the steps of one question: samples, scores and reports its requests, and emits its events.

    Args:
        reward: Scores prefixes.
        aggregate: How step scores become one.
        steps: How steps are sampled.
    """

    def __init__(
        self,
        search: StepSearch[N, O],
        model: MeteredModel,
        prompt: Prompt,
        question: Question,
        run: Run,
        reward: StepReward,
        aggregate: Aggregation,
        steps: StepOptions,
    ) -> None:
        self._search, self._question, self._run = search, question, run
        self._reward, self._aggregate, self._in_thought = reward, aggregate, steps.in_thought
        self._problem = question_text(question)
        self._sampler = StepSampler(model, prompt, question, run, steps)
        self._finisher = PrefixCompleter(model, prompt, question, run, "final answer")
        self._model, self._prompt, self._delimiter = model, prompt, steps.delimiter
        self._continuations = ContinuationRequests(model, prompt, run, "weigh", in_thought=self._in_thought)
        self._prefixes: dict[int, Prefix] = {}
        self._step_ids: dict[str, tuple[int, ...]] = {}
        self._candidates: dict[int, Candidate] = {}
        self._num_emitted = self._num_assigned = 0
        self._tokens_before = run.ledger.used("tokens")
        self._budget_exhausted = False

    async def search(self) -> SearchResult[N]:
        """Search to the end; the best solution so far is the run's best meanwhile."""
        search = self._search
        before = self._run.best
        self._run.set_best(lambda: self._best_so_far() or before)
        while batch := await self._core(search.ask):
            results = await self._results(batch)
            num_nodes = len(search.tree)
            await self._core(partial(self._tell, batch, results), sum(map(len, results.values())))
            await self._assign_prefixes(num_nodes, results)
            await self._emit_nodes(batch)
            if not search.stopped:
                self._end_if_exhausted()
        result = await self._result()
        chosen = result.outcome.chosen
        if chosen is not None and not chosen.terminal:  # what an answer that is requested now continues
            cut = completion_of(self._prefix(chosen.id), in_thought=self._in_thought)
            self._run.partial_completions.append((self._prompt, cut))
        cost = {name: int(amount) for name, amount in asdict(result.outcome.cost).items()}
        self._run.emit(
            SearchEnded(
                search=search.name,
                chosen=None if chosen is None else chosen.id,
                stopped=result.outcome.stopped,
                cost=cost,
            )
        )
        return result

    async def _core(self, work: Callable[[], T], num_results: int = 0) -> T:
        """Work of the search itself, in a thread if it may take long."""
        return await off_loop(work, is_long=max(num_results, len(self._search.tree)) > MAX_INLINE_NODES)

    def _tell(self, batch: Sequence[ExpandRequest], results: Results) -> None:
        for request in batch:
            self._search.tell(request, [step for step, _ in results[request.key]])

    def _best_so_far(self) -> Solution | None:
        """The best complete solutions so far; None without any."""
        outcome = self._search.outcome()
        complete = [node for node in (outcome.chosen, *outcome.terminals) if node is not None and node.terminal]
        # a run may be stopped while the prefixes of the last batch are assigned
        best = [node.id for node in complete if node.id < self._num_assigned][:MAX_PARTIAL_CANDIDATES]
        if not best:
            return None
        nodes = sorted(set(best))
        candidates = tuple(map(self._candidate, nodes))
        return Solution(chosen=nodes.index(best[0]), candidates=candidates, stopped="budget")

    def _end_if_exhausted(self) -> None:
        """End the search if the run has nothing left to spend, or the step reward has spent the search's own tokens."""
        limits = self._search.options.limits
        if self._budget_exhausted or self._reward.budget_exhausted:
            ledger = self._run.ledger
            self._search.end("budget", complete=ledger.remaining("seconds") > 0 and not ledger.is_closed)
        elif limits.gen_tokens is not None:
            # forced answers are generated too, and no search counts their tokens
            used = self._run.ledger.used("tokens") - self._tokens_before
            if used > max(self._search.cost.gen_tokens, limits.gen_tokens - limits.finish_tokens):
                self._search.end("tokens")

    # -- sample and score

    async def _results(self, batch: Sequence[ExpandRequest]) -> Results:
        results: Results = {}
        groups: dict[tuple[int, float], list[ExpandRequest]] = defaultdict(list)
        for request in batch:
            if request.finish:
                results[request.key] = [await self._final_answer(self._prefix(request.node), request.max_tokens)]
            elif request.given_steps:
                results[request.key] = await self._score_given(self._prefix(request.node), request.given_steps)
            else:
                groups[request.max_tokens, request.temperature_factor].append(request)
        for (max_tokens, factor), members in groups.items():
            results |= await self._sample_steps(members, max_tokens, factor)
        return await self._with_scores(batch, results)

    async def _sample_steps(self, members: Sequence[ExpandRequest], max_tokens: int, factor: float) -> Results:
        limits = self._search.options.limits
        requests = [request for request in members for _ in range(request.n)]
        prefixes = [self._prefix(request.node) for request in requests]
        batch = await self._sampler.expand(
            prefixes, max_tokens=max_tokens, temperature_factor=factor, keep_tokens=limits.finish_tokens
        )
        self._budget_exhausted = self._budget_exhausted or batch.budget_exhausted
        results: Results = {request.key: [] for request in members}
        async for request, prefix, expansion in paced(zip(requests, prefixes, batch.expansions, strict=True)):
            results[request.key].append(_continuation(prefix, expansion))
        return results

    async def _score_given(self, prefix: Prefix, given: Sequence[str]) -> list[tuple[Continuation, Prefix]]:
        """Given steps after a prefix with their log-probabilities there, if the model can score them."""
        ids = [self._step_ids.get(text) for text in given]
        known = [tokens for tokens in ids if tokens is not None]
        logprobs: list[float | None] = [None] * len(given)
        if len(known) == len(given) and self._model.capabilities.scoring:
            prompt = self._continuations.prompt_after(prefix.text, prefix.token_ids)
            try:
                (scored,) = await self._model.score(prompt, [tuple(token for tokens in known for token in tokens)])
                ends = list(itertools.accumulate(map(len, known)))
                logprobs = [
                    math.fsum(scored.logprobs[end - len(tokens) : end]) for end, tokens in zip(ends, known, strict=True)
                ]
            except BudgetExceeded as e:
                self._run.record_limit(e)
                self._budget_exhausted = True
        steps = []
        for text, tokens, logprob in zip(given, ids, logprobs, strict=True):
            token_ids = None if prefix.token_ids is None or tokens is None else (*prefix.token_ids, *tokens)
            step = text.removesuffix(self._delimiter)
            prefix = prefix.append(step, prefix.text + text, token_ids, logprob, len(tokens or ()))
            steps.append((Continuation(text, 0, logprob=logprob), prefix))
        return steps

    async def _final_answer(self, prefix: Prefix, max_tokens: int) -> tuple[Continuation, Prefix]:
        """The solution completed greedily; if that states no answer, the answer trigger is appended.

        With fewer than `MIN_COMPLETION_TOKENS` for the former it is appended at once. An open thought is closed, and
        the answer requested after it.
        """
        if self._in_thought:
            return await self._concluded(prefix, max_tokens)
        first = max_tokens - ANSWER_TOKENS
        completed = await self._complete(prefix, first) if first >= MIN_COMPLETION_TOKENS else None
        if completed is None or not self._states_answer(completed.text):
            reopened = prefix if completed is None else _reopened(prefix, completed)
            trigger = answer_trigger(self._question)
            left = max_tokens - (0 if completed is None else completed.tokens)
            gap = "" if not reopened.text or reopened.text.endswith("\n\n") else "\n\n"
            end = await self._complete(reopened, left, opener=gap + trigger)
            if end is not None:
                # as after any request for an answer, one that fills the room for it is taken as it is
                has_room = end.finish_reason == "length" and left >= ANSWER_TOKENS
                completed = end.model_copy(
                    update={
                        "tokens": end.tokens + (0 if completed is None else completed.tokens),
                        "finish_reason": "stop" if has_room else end.finish_reason,
                    }
                )
        if completed is None or not completed.text:
            return Continuation("", 0, terminal=True), prefix.append("", prefix.text, None, None, 0, terminal=True)
        text = completed.text[len(prefix.text) :]
        return Continuation(text, completed.tokens, terminal=True), _with_completion(prefix, completed)

    async def _concluded(self, prefix: Prefix, max_tokens: int) -> tuple[Continuation, Prefix]:
        prompt = self._prompt if not prefix.text else self._continuations.prompt_after(prefix.text, None)
        cut = Completion(text="", finish_reason="thinking")
        request = conclusion_request(self._model, prompt, cut, self._question)
        sampling = request.sampling.model_copy(update={"max_tokens": min(max_tokens, request.sampling.max_tokens)})
        answer, tokens = "", 0
        try:
            ((end,),) = await self._model.generate([request.model_copy(update={"sampling": sampling})])
        except BudgetExceeded as e:
            self._run.record_limit(e)
            self._budget_exhausted = True
        else:
            tokens = end.usage.completion_tokens
            answer = with_conclusion(cut, end, self._question).text if end.ok else ""
        after = prefix.append(answer, prefix.text, None, None, 0, terminal=True, answer=answer)
        return Continuation(after.solution[len(prefix.text) :], tokens, terminal=True), after

    def _states_answer(self, text: str) -> bool:
        answer = extract_answer(text, self._question)
        return answer is not None and answer.is_explicit

    async def _complete(self, prefix: Prefix, max_tokens: int, opener: str = "") -> Candidate | None:
        candidate = await self._finisher.complete(prefix, max_tokens, opener)
        self._budget_exhausted = self._budget_exhausted or self._finisher.budget_exhausted
        return candidate

    async def _with_scores(self, batch: Sequence[ExpandRequest], results: Results) -> Results:
        num_results = sum(map(len, results.values()))
        positions = await self._core(partial(self._to_score, batch, results), num_results)
        if positions:
            prefixes = [results[key][i][1] for key, i in positions]
            scores = await self._reward.score(self._problem, prefixes, self._aggregate)
            async for (key, i), score in paced(zip(positions, scores, strict=True)):
                step, prefix = results[key][i]
                results[key][i] = replace(step, score=score), prefix
        return results

    def _to_score(self, batch: Sequence[ExpandRequest], results: Results) -> list[tuple[RequestKey, int]]:
        return [
            (request.key, i)
            for request in batch
            for i in self._search.indices_to_score(request, [step for step, _ in results[request.key]])
        ]

    # -- nodes, prefixes and candidates

    def _prefix(self, node_id: int) -> Prefix:
        """The prefix of a node; that of a copy is made of its parent's and the copied step."""
        known = self._prefixes.get(node_id)
        if known is not None:
            return known
        node = self._search.tree[node_id]
        if node.parent is None:
            prefix = Prefix()
        elif not node.text and not node.terminal:  # a copy of a step that was cut or failed
            prefix = self._prefix(node.parent)
        else:
            assert node.copied_from is not None, "a node without a result that is no copy"
            prefix = _with_copied_step(self._prefix(node.parent), self._prefix(node.copied_from), node.text)
        self._prefixes[node_id] = prefix
        return prefix

    async def _assign_prefixes(self, first: int, results: Results) -> None:
        """Assign to new nodes the prefixes of their parents' results, in order."""
        left: dict[int | None, list[tuple[Continuation, Prefix]]] = defaultdict(list)
        for (parent, _), steps in results.items():
            left[parent] += steps
        taken: dict[int | None, int] = defaultdict(int)
        async for node_id in paced(range(first, len(self._search.tree))):
            node = self._search.tree[node_id]
            if node.copied_from is not None:
                continue
            steps = left[node.parent]
            for i in range(taken[node.parent], len(steps)):
                step, prefix = steps[i]
                if (step.text, step.terminal or node.forced) == (node.text, node.terminal):
                    self._prefixes[node_id] = prefix
                    if prefix.token_ids is not None and prefix.lengths:
                        ids = prefix.token_ids
                        self._step_ids.setdefault(node.text, ids[len(ids) - prefix.lengths[-1] :])
                    taken[node.parent] = i + 1
                    break
        self._num_assigned = len(self._search.tree)

    async def _result(self) -> SearchResult[N]:
        outcome = await self._core(self._search.outcome)
        nodes = sorted(node.id for node in outcome.terminals)
        chosen = outcome.chosen
        if chosen is not None and chosen.id not in set(nodes):
            nodes.append(chosen.id)
        candidates = [self._candidate(node_id) async for node_id in paced(nodes)]
        exhausted = self._budget_exhausted or self._reward.budget_exhausted
        return SearchResult(outcome, tuple(candidates), tuple(nodes), exhausted)

    def _candidate(self, node_id: int) -> Candidate:
        if node_id not in self._candidates:
            self._candidates[node_id] = self._create_candidate(node_id)
        return self._candidates[node_id]

    def _create_candidate(self, node_id: int) -> Candidate:
        node, prefix = self._search.tree[node_id], self._prefix(node_id)
        completion = completion_of(prefix, in_thought=self._in_thought)
        path = self._search.tree.path(node)
        written = [step for step in path if step.text or step.terminal or step.forced]  # others were cut or failed
        steps = tuple(
            Step(text=text, scores={} if step.score is None else {"reward": step.score})
            for text, step in zip(prefix.steps, written, strict=True)
        )
        known = [value for value in prefix.logprobs if value is not None]
        return read_candidate(completion, self._question, node.score).model_copy(
            update={
                "steps": steps,
                "tokens": sum(step.tokens for step in path),
                "logprob": math.fsum(known) if len(known) == len(prefix.logprobs) else None,
            }
        )

    # -- events

    async def _emit_nodes(self, batch: Sequence[ExpandRequest]) -> None:
        """Emit the nodes that are new since the last event, those of passes that have started meanwhile included.

        Many nodes are several events, so that none is too large for its readers.
        """
        tree = self._search.tree
        new = [tree[node_id] for node_id in range(self._num_emitted, len(tree))]
        self._num_emitted = len(tree)
        sampled = [request for request in batch if not request.given_steps]
        expanded = tuple(request.node for request in sampled)
        num_sampled = sum(node.parent is not None and node.copied_from is None for node in new)
        discarded = sum(request.n for request in sampled) - num_sampled
        own = [f.name for f in fields(self._search.Node) if f.name not in _SHARED_FIELDS]
        async for start in paced(range(0, max(1, len(new)), MAX_EVENT_NODES)):
            nodes = [search_node_event(n, _own_values(n, own)) for n in new[start : start + MAX_EVENT_NODES]]
            self._run.emit(
                NodesSearched(search=self._search.name, expanded=expanded, nodes=tuple(nodes), discarded=discarded)
            )
            expanded, discarded = (), 0


_SHARED_FIELDS = frozenset(f.name for f in fields(Node))


def _own_values(node: Node, names: Sequence[str]) -> dict[str, float]:
    """The float fields among those that a search has added to its nodes."""
    values = ((name, getattr(node, name)) for name in names)
    return {name: value for name, value in values if isinstance(value, float)}


def _continuation(prefix: Prefix, expansion: StepExpansion) -> tuple[Continuation, Prefix]:
    """The only sample of an expansion as a result of the search; a failed one adds nothing."""
    sample = next(iter((*expansion.samples, *expansion.empty)), None)
    if sample is None:
        return Continuation("", 0), prefix
    if not sample.is_complete:
        return Continuation("", sample.tokens), prefix
    text = sample.after.solution[len(prefix.text) :]
    return Continuation(text, sample.tokens, terminal=sample.terminal, logprob=sample.logprob), sample.after


def _reopened(prefix: Prefix, completed: Candidate) -> Prefix:
    """A prefix with all complete sentences of a completion appended, open to be continued."""
    text = prefix.text + complete_sentences(completed.text[len(prefix.text) :]).rstrip()
    return replace(_with_completion(prefix, completed.model_copy(update={"text": text})), terminal=False)


def _with_completion(prefix: Prefix, completed: Candidate) -> Prefix:
    """A prefix with the rest of a completion appended as its last step."""
    step = completed.text[len(prefix.text) :].strip()
    is_cut = completed.finish_reason != "stop"
    return replace(prefix.append(step, completed.text, None, None, completed.tokens, terminal=True), is_cut=is_cut)


def _with_copied_step(parent: Prefix, copied: Prefix, text: str) -> Prefix:
    """A prefix with the last step of another one appended.

    Args:
        copied: The other.
        text: The step as it is there, delimiter included.
    """
    if parent.steps == copied.steps[:-1]:
        return copied
    if copied.answer is not None:
        text = text.removesuffix(f"\n\n{copied.answer}")
    ids, length = copied.token_ids, copied.lengths[-1]
    is_known = ids is not None and sum(copied.lengths) == len(ids)
    token_ids = (*parent.token_ids, *ids[len(ids) - length :]) if is_known and ids and parent.token_ids else None
    return parent.append(
        copied.steps[-1], parent.text + text, token_ids, None, length, terminal=copied.terminal, answer=copied.answer
    )


def narrowed(
    values: Mapping[str, Any], round_size: Mapping[str, int], samples: int, tokens: int, run: Run
) -> dict[str, int]:
    """The options that decide the samples of a round, reduced in turn, the largest first, until they are few enough.

    Args:
        values: All options.
        round_size: The names of these, with their minima.
        samples: Maximum number of samples in a round; the minima may be more.
        tokens: The budget, for the report.
    """
    own = {name: int(values[name]) for name in round_size}
    while math.prod(own.values()) > samples:
        reducible = [name for name, least in round_size.items() if own[name] > least]
        if not reducible:
            break
        own[max(reducible, key=own.__getitem__)] -= 1
    changed = [name for name in own if own[name] != values[name]]
    if changed:
        asked = ", ".join(f"{name}={values[name]}" for name in changed)
        taken = ", ".join(f"{name}={own[name]}" for name in changed)
        run.degrade(f"the search was narrowed to {taken} instead of {asked}: the budget has {tokens} tokens left")
    return own


class StepSearchConfig(StepRewardConfig, SearchOptions):
    """Parameters of every strategy that searches over steps; a strategy adds those of its search."""

    steps: Annotated[
        Literal["answer", "thought"],
        Field(
            description="what is searched: the steps of the answer, before which the model does not think, or those of "
            "its thought"
        ),
    ] = "answer"
    temperature: Annotated[
        float | None, Field(gt=0, le=100, description="sampling temperature; by default 0.8 where the model takes one")
    ] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, description="nucleus mass; by default the model's own")] = None
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKENS, description="most likely tokens kept; 0 keeps all")] = 0
    delimiter: Annotated[
        str,
        Field(min_length=1, max_length=MAX_DELIMITER_CHARS, description="end of a step; by default a blank line"),
    ] = "\n\n"
    instruction: Annotated[
        str | None, Field(description="text after the question; by default it asks for numbered steps")
    ] = None
    system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""

    @property
    def in_thought(self) -> bool:
        return self.steps == "thought"

    def prompt(self, question: Question) -> Prompt:
        """The prompt of every solution."""
        return question_prompt(question, self._instruction(question), system=self.system)

    def _instruction(self, question: Question) -> str:
        return steps_instruction(question) if self.instruction is None else self.instruction

    def options(self, kind: type[O], run: Run, *, chains: int = 1) -> O:
        """The search's own part of the parameters, within the run's budget.

        If the tokens do not cover `MIN_ROUNDS` rounds of the shortest steps, the rounds are smaller, and the run
        says so.

        Args:
            chains: Searches that share the budget and have their rounds together.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in kind.model_fields}
        left, thinking_left = run.ledger.remaining("tokens"), run.ledger.remaining("thinking_tokens")
        tokens, finish = self.limits.gen_tokens, self.limits.finish_tokens
        if left < math.inf:
            tokens = max(1, min(int(left), tokens or int(left)))
            finish = min(finish, max(1, tokens // 4))
        if self.in_thought and thinking_left < math.inf:  # the answer after the thought is none of its tokens
            bound = int(thinking_left) + finish
            tokens = bound if tokens is None else min(tokens, bound)
        if left < math.inf and tokens is not None:
            per_round = MIN_ROUNDS * min(self.limits.min_step_tokens, self.max_step_tokens) * chains
            values |= narrowed(values, kind.round_size, (tokens - finish) // per_round, int(left), run)
        if (tokens, finish) != (self.limits.gen_tokens, self.limits.finish_tokens):
            limits = self.limits.model_dump() | {"gen_tokens": tokens, "finish_tokens": finish}
            values["limits"] = SearchLimits.model_validate(limits)
        return kind.model_validate(values)

    async def search(
        self, search: StepSearch[N, O], question: Question, models: Models, run: Run
    ) -> SearchResult[N] | None:
        """Run a search to its end.

        Returns:
            The result; None if this model's steps cannot be scored.

        Raises:
            UserError: The parameters name the reward model, and there is none.
            CapabilityMissing: The model lacks a feature that a named step reward needs.
        """
        prompt = self.prompt(question)
        reward = self.create_step_reward(prompt, models, run)
        if reward is None:
            return None
        steps = StepOptions(
            delimiter=self.delimiter,
            max_step_tokens=self.max_step_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            logprobs=(search.reads_logprobs or reward.reads_logprobs) and self._has_logprobs(models.main),
            in_thought=self.in_thought,
        )
        return await SearchDriver(search, models.main, prompt, question, run, reward, self.aggregate, steps).search()

    async def without_search(self, n: int, question: Question, models: Models, run: Run) -> Solution:
        """Self-consistency of `n` chains, for a model whose steps cannot be scored."""
        n = min(n, MAX_CHAINS)
        run.degrade(f"nothing can score the steps of {models.main.name}; used self-consistency of {n} chains")
        config = SelfConsistency.Config(
            n=n,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            instruction=self._instruction(question),
            system=self.system,
        )
        return await SelfConsistency(config).solve(question, models, run)

    def chosen(self, result: SearchResult[N], run: Run, **notes: JsonValue) -> Solution:
        """The search's choice; its confidence is its score."""
        chosen = result.chosen
        confidence = None if chosen is None else result.candidates[chosen].score
        return self._solution(result, run, chosen, confidence, notes)

    def highest_scored(self, result: SearchResult[N], run: Run, **notes: JsonValue) -> Solution:
        """The solution of the highest score, of equals the first; the search's choice if none has a score."""
        scored = [(c.score, -i) for i, c in enumerate(result.candidates) if c.score is not None]
        if not scored:
            return self.chosen(result, run, **notes)
        score, position = max(scored)
        return self._solution(result, run, -position, score, notes)

    async def vote(
        self,
        result: SearchResult[N],
        question: Question,
        run: Run,
        weights: Sequence[float] | None = None,
        **notes: JsonValue,
    ) -> Solution:
        """The answer with the largest sum of weights, and of its solutions the one of the largest weight.

        Its confidence is its share of all weights. Without any answer, or any weight, as `chosen`.

        Args:
            weights: Weight of each candidate, at least 0; by default its score, or 0 without one.
            **notes: For the solution's notes.
        """
        weights = [candidate.score or 0.0 for candidate in result.candidates] if weights is None else weights
        winner = await weighted_vote(result.candidates, weights, question, run)
        if winner is None:
            return self.chosen(result, run, **notes)
        return self._solution(result, run, winner.chosen, winner.share, {"weights": dict(winner.sums), **notes})

    def _solution(
        self,
        result: SearchResult[N],
        run: Run,
        chosen: int | None,
        confidence: float | None,
        notes: dict[str, JsonValue],
    ) -> Solution:
        candidates: tuple[Candidate, ...] = result.candidates
        for i, candidate in enumerate(candidates):
            run.emit(CandidateAdded(index=i, answer=candidate.answer, score=candidate.score))
        stopped: Stopped = "budget" if result.budget_exhausted or self._hit_run_tokens(result, run) else "done"
        cost = result.outcome.cost
        counts: dict[str, JsonValue] = {
            "tokens": cost.gen_tokens,
            "prm_passes": cost.prm_passes,
            "expansions": cost.expansions,
            "duplicates": cost.duplicates,
        }
        return Solution(
            chosen=chosen,
            candidates=candidates,
            confidence=None if confidence is None else min(1.0, confidence),
            stopped=stopped,
            notes={"search": counts, "ended": result.outcome.stopped, **notes},
        )

    def _hit_run_tokens(self, result: SearchResult[N], run: Run) -> bool:
        """Whether the search ended at the run's token limit rather than its own."""
        budget, own = run.config.budget, self.limits.gen_tokens
        is_thought = self.in_thought and budget.thinking_tokens is not None
        limit = budget.thinking_tokens if is_thought else budget.tokens
        if result.outcome.stopped != "tokens" or limit is None or (own is not None and own <= limit):
            return False
        run.record_limit(run.ledger.exceeded("thinking_tokens" if is_thought else "tokens"))
        return True
