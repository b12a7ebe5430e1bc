"""`SearchDriver` runs a pure search on models; `StepSearchConfig` holds the parameters that all such strategies share.

    while batch := search.ask():
        sample      the requested steps of all prefixes, as one batch
        score       the steps that need a score, as one batch
        search.tell(…)

A resumed run makes the same calls and finds their results in the run store, so the search continues where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, JsonValue

from ...core.concurrency import off_loop, paced
from ...core.events import CandidateAdded, NodesSearched, SearchEnded
from ...core.messages import Prompt
from ...core.run import Run
from ...core.types import Candidate, Question, Solution, Step, Stopped
from ...serving.metered.model import MeteredModel
from ...serving.rewards.model import Aggregation
from ..answers.extraction import complete_sentences, extract_answer, read_candidate
from ..continuations import Prefix, PrefixCompleter, StepExpansion, StepOptions, StepSampler, completion_of
from ..prompts import answer_trigger, question_prompt, question_text, steps_instruction
from ..step_rewards import StepReward, StepRewardConfig
from ..strategy import MAX_CHAINS, Models
from ..voting.self_consistency import SelfConsistency, weighted_vote
from .core import (
    Continuation,
    ExpandRequest,
    Node,
    SearchLimits,
    SearchOptions,
    SearchOutcome,
    StepSearch,
    search_node_event,
)

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

Results = dict[int, list[tuple[Continuation, Prefix]]]
"""The results of each request, by its node: the steps, each with the resulting prefix."""


@dataclass(frozen=True)
class SearchResult(Generic[N]):
    """The result of a search as candidates.

    Attributes:
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
        self._reward, self._aggregate = reward, aggregate
        self._problem = question_text(question)
        self._sampler = StepSampler(model, prompt, question, run, steps)
        self._finisher = PrefixCompleter(model, prompt, question, run, "final answer")
        self._prompt = prompt
        self._prefixes: dict[int, Prefix] = {}
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
            self._run.partial_completions.append((self._prompt, completion_of(self._prefix(chosen.id))))
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
            self._search.tell(request, [step for step, _ in results[request.node]])

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
        sampled = []
        for request in batch:
            if request.finish:
                results[request.node] = [await self._final_answer(self._prefix(request.node), request.max_tokens)]
            else:
                results[request.node] = []
                sampled += [request] * request.n
        if sampled:  # all steps of a batch have the same length
            prefixes = [self._prefix(request.node) for request in sampled]
            expanded = await self._sampler.expand(
                prefixes, max_tokens=sampled[0].max_tokens, keep_tokens=self._search.options.limits.finish_tokens
            )
            self._budget_exhausted = self._budget_exhausted or expanded.budget_exhausted
            async for request, prefix, expansion in paced(zip(sampled, prefixes, expanded.expansions, strict=True)):
                results[request.node].append(_continuation(prefix, expansion))
        return await self._with_scores(batch, results)

    async def _final_answer(self, prefix: Prefix, max_tokens: int) -> tuple[Continuation, Prefix]:
        """The solution completed greedily; if that states no answer, the answer trigger is appended.

        With fewer than `MIN_COMPLETION_TOKENS` for the former it is appended at once.
        """
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
            return Continuation("", 0, terminal=True), prefix.append("", prefix.text, None, terminal=True)
        text = completed.text[len(prefix.text) :]
        return Continuation(text, completed.tokens, terminal=True), _with_completion(prefix, completed)

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
            prefixes = [results[node_id][i][1] for node_id, i in positions]
            scores = await self._reward.score(self._problem, prefixes, self._aggregate)
            async for (node_id, i), score in paced(zip(positions, scores, strict=True)):
                step, prefix = results[node_id][i]
                results[node_id][i] = replace(step, score=score), prefix
        return results

    def _to_score(self, batch: Sequence[ExpandRequest], results: Results) -> list[tuple[int, int]]:
        return [
            (request.node, i)
            for request in batch
            for i in self._search.indices_to_score(request, [step for step, _ in results[request.node]])
        ]

    # -- nodes, prefixes and candidates

    def _prefix(self, node_id: int) -> Prefix:
        """The prefix of a node; a copy has that of the node it copies, and a root the empty one."""
        if node_id not in self._prefixes:
            node = self._search.tree[node_id]
            self._prefixes[node_id] = Prefix() if node.copied_from is None else self._prefix(node.copied_from)
        return self._prefixes[node_id]

    async def _assign_prefixes(self, first: int, results: Results) -> None:
        """Assign to new nodes the prefixes of their parents' results, in order."""
        left = {parent: iter(steps) for parent, steps in results.items()}
        async for node_id in paced(range(first, len(self._search.tree))):
            node = self._search.tree[node_id]
            if node.parent is None or node.copied_from is not None:
                continue
            self._prefixes[node_id] = next(
                prefix
                for step, prefix in left[node.parent]
                if (step.text, step.terminal or node.forced) == (node.text, node.terminal)
            )
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
        completion = completion_of(prefix)
        path = self._search.tree.path(node)
        written = [step for step in path if step.text or step.terminal or step.forced]  # others were cut or failed
        steps = tuple(
            Step(text=text, scores={} if step.score is None else {"reward": step.score})
            for text, step in zip(prefix.steps, written, strict=True)
        )
        return read_candidate(completion, self._question, node.score).model_copy(
            update={
                "steps": steps,
                "tokens": sum(step.tokens for step in path),
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
        expanded = tuple(request.node for request in batch)
        num_sampled = sum(node.parent is not None and node.copied_from is None for node in new)
        discarded = sum(request.n for request in batch) - num_sampled
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
    text = sample.after.text[len(prefix.text) :]
    return Continuation(text, sample.tokens, terminal=sample.terminal), sample.after


def _reopened(prefix: Prefix, completed: Candidate) -> Prefix:
    """A prefix with all complete sentences of a completion appended, open to be continued."""
    text = prefix.text + complete_sentences(completed.text[len(prefix.text) :]).rstrip()
    return replace(_with_completion(prefix, completed.model_copy(update={"text": text})), terminal=False)


def _with_completion(prefix: Prefix, completed: Candidate) -> Prefix:
    """A prefix with the rest of a completion appended as its last step."""
    step = completed.text[len(prefix.text) :].strip()
    is_cut = completed.finish_reason != "stop"
    return replace(prefix.append(step, completed.text, None, terminal=True), is_cut=is_cut)


def narrowed(
    values: Mapping[str, Any], round_size: Mapping[str, int], samples: int, tokens: int, run: Run
) -> dict[str, int]:
    """The options that decide the samples of a round, reduced in turn, the largest first, until they are few enough.

    Args:
        round_size: The names of these, with their minima.
        samples: Maximum number of samples in a round; the minima may be more.
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

    temperature: Annotated[
        float | None, Field(gt=0, le=100, description="sampling temperature; by default 0.8 where the model takes one")
    ] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, description="nucleus mass; by default the model's own")] = None
    instruction: Annotated[
        str | None, Field(description="text after the question; by default it asks for numbered steps")
    ] = None
    system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""

    def _instruction(self, question: Question) -> str:
        return steps_instruction(question) if self.instruction is None else self.instruction

    def options(self, kind: type[O], run: Run) -> O:
        """The search's own part of the parameters, within the run's budget.

        If the tokens do not cover `MIN_ROUNDS` rounds of the shortest steps, the rounds are smaller, and the run
        says so.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in kind.model_fields}
        left = run.ledger.remaining("tokens")
        tokens, finish = self.limits.gen_tokens, self.limits.finish_tokens
        if left < math.inf:
            tokens = max(1, min(int(left), tokens or int(left)))
            finish = min(finish, max(1, tokens // 4))
        if left < math.inf and tokens is not None:
            per_round = MIN_ROUNDS * min(self.limits.min_step_tokens, self.max_step_tokens)
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
        prompt = question_prompt(question, self._instruction(question), system=self.system)
        reward = self.create_step_reward(prompt, models, run)
        if reward is None:
            return None
        steps = StepOptions(
            max_step_tokens=self.max_step_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
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
        if result.outcome.stopped != "tokens" or budget.tokens is None or (own is not None and own <= budget.tokens):
            return False
        run.record_limit(run.ledger.exceeded("tokens"))
        return True
