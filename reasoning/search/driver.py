"""`search_steps`: moves batches between a pure search and the models, until the search is over.

    while batch := search.ask():
        sample      the wanted steps of all prefixes, as one batch
        score       those that the search wants scored, as one batch
        search.tell(…)

A run that is resumed makes the same calls and finds in the run store what it had; so a search goes on where it was.

`traced_node`: a node of a search as its events tell it.

`SearchedSteps`: the parameters of every strategy that searches over steps, and what they have in common.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field, JsonValue

from ...core.answer import Candidate, Solution, Step, Stopped
from ...core.errors import LimitExceeded
from ...core.events import CandidateFound, NodesSearched, SearchEnded, SearchNode
from ...core.messages import Completion, Prompt
from ...core.question import Question
from ...core.run import Run
from ...serving.metered import MeteredModel
from ...serving.rewards import Aggregation
from ..answers.extraction import extract
from ..candidates import read_candidate, whole_sentences
from ..continuations import Continuations, Finisher, Prefix
from ..prompts import as_problem, ask, in_steps, therefore
from ..step_rewards import StepReward, StepScoring
from ..step_sampler import Expansion, StepOptions, StepSampler
from ..strategy import Models
from ..voting.answer_classes import weighed_vote
from ..voting.self_consistency import SelfConsistency
from .core import Expand, Key, Limits, Outcome, SearchOptions, StepSearch
from .tree import Continuation, Node


def traced_node(node: Node, values: Mapping[str, float], text: str | None = None) -> SearchNode:
    """What events tell of a node.

    Args:
        node: The node.
        values: What the search orders its nodes by, under the names of its method.
        text: Its step as it is to be told; None is as the search has it.
    """
    return SearchNode(
        id=node.id,
        parent=node.parent,
        depth=node.depth,
        text=node.text if text is None else text,
        tokens=node.tokens,
        score=node.score,
        terminal=node.terminal,
        forced=node.forced,
        values=dict(values),
    )


N = TypeVar("N", bound=Node)
O = TypeVar("O", bound=SearchOptions)  # noqa: E741

ANSWER_TOKENS = 32
"""Of the tokens for a forced answer, those that are kept for saying it where the completed reply does not."""


Results = dict[Key, list[tuple[Continuation, Prefix]]]
"""What came back for each request: the steps, each with the prefix that it makes."""


@dataclass(frozen=True)
class Found(Generic[N]):
    """What a search has found.

    Attributes:
        outcome: What the search says.
        candidates: Its complete solutions in order of creation, else the prefix that it chose; each is scored by the
            reward source.
        nodes: The node of each.
        spent: Whether the run's budget ended it.
    """

    outcome: Outcome[N]
    candidates: tuple[Candidate, ...]
    nodes: tuple[int, ...]
    spent: bool = False

    @property
    def chosen(self) -> int | None:
        """Position of the solution that the search would return."""
        chosen = self.outcome.chosen
        return None if chosen is None else self.nodes.index(chosen.id)

    @property
    def weights(self) -> list[float]:
        """Weight of each candidate in a vote, as the search says; 0 for an incomplete one."""
        weight = {node.id: w for node, w in zip(self.outcome.terminals, self.outcome.weights, strict=True)}
        return [weight.get(node_id, 0.0) for node_id in self.nodes]


class SearchDesk(Generic[N, O]):
    """One search over the steps of one question: what it asks for is sampled, scored, told, and put into the trace.

    Args:
        search: The search.
        model: The model that reasons.
        prompt: The question as it is put to the model.
        question: The question.
        run: The run that pays.
        reward: What scores.
        aggregate: How the scores of steps become one.
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
        self._reward, self._aggregate, self._temperature = reward, aggregate, steps.temperature
        self._problem = as_problem(question)
        self._sampler = StepSampler(model, prompt, question, run, steps)
        self._finisher = Finisher(model, prompt, question, run, temperature=0.0, purpose="final answer")
        self._model, self._delimiter = model, steps.delimiter
        self._continuations = Continuations(model, prompt, run, "weigh")
        self._prefixes: dict[int, Prefix] = {}
        self._step_ids: dict[str, tuple[int, ...]] = {}
        self._read: dict[int, Candidate] = {}
        self._shown = 0
        self._begun = run.ledger.used("tokens")
        self._spent = False

    async def search(self) -> Found[N]:
        """Search to the end; the best solution so far is offered to the run while it goes on."""
        search, offered = self._search, None
        while batch := search.ask():
            results = await self._results(batch)
            before = len(search.tree)
            for expand in batch:
                search.tell(expand, [step for step, _ in results[expand.key]])
            self._name_new(before, results)
            self._trace(batch)
            found = self._found()
            best = found.chosen
            if best is not None and found.outcome.terminals and found.nodes[best] != offered:
                offered = found.nodes[best]
                self._run.offer(Solution(chosen=best, candidates=found.candidates, stopped="budget"))
            if not search.stopped:
                self._end_early()
        found = self._found()
        chosen = found.outcome.chosen
        cost = {name: int(amount) for name, amount in asdict(found.outcome.ledger).items()}
        self._run.emit(
            SearchEnded(
                search=search.name,
                chosen=None if chosen is None else chosen.id,
                stopped=found.outcome.stopped,
                cost=cost,
            )
        )
        return found

    def _end_early(self) -> None:
        """End the search where the run has nothing more to spend, or what scores has spent the search's own tokens."""
        limits = self._search.options.limits
        if self._spent or self._reward.spent:
            self._search.end("budget", complete=self._run.ledger.left("seconds") > 0)
        elif limits.gen_tokens is not None:
            # rollouts generate too, and no search knows of their tokens
            used = self._run.ledger.used("tokens") - self._begun
            if used > max(self._search.ledger.gen_tokens, limits.gen_tokens - limits.finish_tokens):
                self._search.end("tokens")

    # -- sample and score

    async def _results(self, batch: Sequence[Expand]) -> Results:
        results: Results = {}
        groups: dict[tuple[int, float], list[Expand]] = defaultdict(list)
        for expand in batch:
            if expand.finish:
                results[expand.key] = [await self._answer(self._prefix(expand.node), expand.max_tokens)]
            elif expand.given:
                results[expand.key] = await self._weighed(self._prefix(expand.node), expand.given)
            else:
                groups[expand.max_tokens, expand.temperature].append(expand)
        for (most, warmer), members in groups.items():
            results |= await self._steps(members, most, self._temperature * warmer)
        return await self._scored(batch, results)

    async def _steps(self, members: Sequence[Expand], most: int, temperature: float) -> Results:
        """One step more of each prefix, as often as is wanted."""
        limits = self._search.options.limits
        wanted = [expand for expand in members for _ in range(expand.n)]
        prefixes = [self._prefix(expand.node) for expand in wanted]
        made = await self._sampler.expand(
            prefixes, max_tokens=most, temperature=temperature, keep_tokens=limits.finish_tokens
        )
        self._spent = self._spent or made.spent
        results: Results = {expand.key: [] for expand in members}
        for expand, prefix, expansion in zip(wanted, prefixes, made.expansions, strict=True):
            results[expand.key].append(_result(prefix, expansion))
        return results

    async def _weighed(self, prefix: Prefix, given: Sequence[str]) -> list[tuple[Continuation, Prefix]]:
        """Given steps behind a prefix with their log-probabilities there, where the model can say them."""
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
            except LimitExceeded as e:
                self._run.note_limit(e)
                self._spent = True
        steps = []
        for text, tokens, logprob in zip(given, ids, logprobs, strict=True):
            reached = None if prefix.token_ids is None or tokens is None else (*prefix.token_ids, *tokens)
            step = text.removesuffix(self._delimiter)
            prefix = prefix.then(step, prefix.text + text, reached, logprob, len(tokens or ()))
            steps.append((Continuation(text, 0, logprob=logprob), prefix))
        return steps

    async def _answer(self, prefix: Prefix, most: int) -> tuple[Continuation, Prefix]:
        """The reply completed greedily; where that states no answer, the model is made to say one."""
        first = max(1, most - ANSWER_TOKENS)
        said = await self._complete(prefix, first)
        if (said is None or not self._states_answer(said.text)) and prefix.text and most > first:
            begun = prefix if said is None else _cut_whole(prefix, said)
            end = await self._complete(begun, most - first, opener=f"\n\n{therefore(self._question)}")
            if end is not None:
                said = end.model_copy(update={"tokens": end.tokens + (0 if said is None else said.tokens)})
        if said is None:
            return Continuation("", 0, terminal=True), replace(prefix, terminal=True)
        return Continuation(said.text[len(prefix.text) :], said.tokens, terminal=True), _after(prefix, said)

    def _states_answer(self, text: str) -> bool:
        """Whether a reply says, by a box or in so many words, what its answer is."""
        found = extract(text, self._question)
        return found is not None and found.stated

    async def _complete(self, prefix: Prefix, most: int, opener: str = "") -> Candidate | None:
        made = await self._finisher.finish([prefix], opener=opener, max_tokens=most)
        self._spent = self._spent or made.spent
        return next(iter(made.finished[0].candidates), None)

    async def _scored(self, batch: Sequence[Expand], results: Results) -> Results:
        """The results with the scores that the search wants."""
        places = [
            (expand.key, i)
            for expand in batch
            for i in self._search.to_score(expand, [step for step, _ in results[expand.key]])
        ]
        if places:
            wanted = [results[key][i][1] for key, i in places]
            scores = await self._reward.score(self._problem, wanted, self._aggregate)
            for (key, i), score in zip(places, scores, strict=True):
                step, prefix = results[key][i]
                results[key][i] = replace(step, score=score), prefix
        return results

    # -- nodes, prefixes and candidates

    def _prefix(self, node_id: int) -> Prefix:
        """The prefix of a node; that of a copy is made of its parent's and the copied step."""
        known = self._prefixes.get(node_id)
        if known is not None:
            return known
        node = self._search.tree[node_id]
        if node.parent is None:
            prefix = Prefix()
        else:
            assert node.copied is not None, "a node that was neither told nor copied"
            prefix = _behind(self._prefix(node.parent), self._prefix(node.copied), node.text)
        self._prefixes[node_id] = prefix
        return prefix

    def _name_new(self, before: int, results: Results) -> None:
        """Give the nodes that telling has made their prefixes: those of their parents' results, in order."""
        left: dict[int | None, list[tuple[Continuation, Prefix]]] = defaultdict(list)
        for (parent, _), told in results.items():
            left[parent] += told
        for node_id in range(before, len(self._search.tree)):
            node = self._search.tree[node_id]
            if node.copied is not None:
                continue
            told = left[node.parent]
            for i, (step, prefix) in enumerate(told):
                if (step.text, step.terminal or node.forced) == (node.text, node.terminal):
                    self._prefixes[node_id] = prefix
                    if prefix.token_ids is not None and prefix.lengths:
                        ids = prefix.token_ids
                        self._step_ids.setdefault(node.text, ids[len(ids) - prefix.lengths[-1] :])
                    del told[: i + 1]
                    break

    def _found(self) -> Found[N]:
        outcome = self._search.outcome()
        nodes = sorted(node.id for node in outcome.terminals)
        if outcome.chosen is not None and outcome.chosen.id not in nodes:
            nodes.append(outcome.chosen.id)
        return Found(outcome, tuple(self._candidate(i) for i in nodes), tuple(nodes), self._spent or self._reward.spent)

    def _candidate(self, node_id: int) -> Candidate:
        if node_id not in self._read:
            self._read[node_id] = self._as_candidate(node_id)
        return self._read[node_id]

    def _as_candidate(self, node_id: int) -> Candidate:
        node, prefix = self._search.tree[node_id], self._prefix(node_id)
        whole = Completion(text=prefix.text, finish_reason="stop" if prefix.terminal else "budget")
        path = self._search.tree.path(node)
        steps = tuple(
            Step(text=text, scores={} if step.score is None else {"reward": step.score})
            for text, step in zip(prefix.steps, path, strict=True)
        )
        known = [value for value in prefix.logprobs if value is not None]
        return read_candidate(whole, self._question, node.score).model_copy(
            update={
                "steps": steps,
                "tokens": sum(step.tokens for step in path),
                "logprob": math.fsum(known) if len(known) == len(prefix.logprobs) else None,
            }
        )

    # -- the trace

    def _trace(self, batch: Sequence[Expand]) -> None:
        """Tell the nodes that are new since the last time, those of passes that were begun meanwhile among them."""
        tree = self._search.tree
        new = [tree[node_id] for node_id in range(self._shown, len(tree))]
        self._shown = len(tree)
        sampled = [expand for expand in batch if not expand.given]
        born = sum(node.parent is not None and node.copied is None for node in new)
        self._run.emit(
            NodesSearched(
                search=self._search.name,
                expanded=tuple(expand.node for expand in sampled),
                nodes=tuple(map(_traced, new)),
                discarded=sum(expand.n for expand in sampled) - born,
            )
        )


def _result(prefix: Prefix, expansion: Expansion) -> tuple[Continuation, Prefix]:
    """The only sample of an expansion as a search is told it; one that came to nothing adds nothing."""
    sample = next(iter((*expansion.samples, *expansion.empties)), None)
    if sample is None:
        return Continuation("", 0), prefix
    if not sample.whole:
        return Continuation("", sample.tokens), prefix
    said = sample.after.text[len(prefix.text) :]
    return Continuation(said, sample.tokens, terminal=sample.terminal, logprob=sample.logprob), sample.after


def _cut_whole(prefix: Prefix, said: Candidate) -> Prefix:
    """A prefix with all whole sentences behind it that a completed reply has, open to go on."""
    whole = prefix.text + whole_sentences(said.text[len(prefix.text) :]).rstrip()
    return replace(_after(prefix, said.model_copy(update={"text": whole})), terminal=False)


def _after(prefix: Prefix, said: Candidate) -> Prefix:
    """A prefix with all that a completed reply has behind it as its last step."""
    step = said.text[len(prefix.text) :].strip()
    return prefix.then(step, said.text, None, None, said.tokens, terminal=True)


def _behind(parent: Prefix, copied: Prefix, text: str) -> Prefix:
    """A prefix with the last step of another one behind it.

    Args:
        parent: The prefix.
        copied: The other.
        text: The step as it stands there, delimiter included.
    """
    if parent.steps == copied.steps[:-1]:
        return copied
    ids, length = copied.token_ids, copied.lengths[-1]
    known = ids is not None and sum(copied.lengths) == len(ids)
    reached = (*parent.token_ids, *ids[len(ids) - length :]) if known and ids and parent.token_ids else None
    return parent.then(copied.steps[-1], parent.text + text, reached, None, length, terminal=copied.terminal)


def _traced(node: Node) -> SearchNode:
    shared = {f.name for f in fields(Node)}
    own = {f.name: getattr(node, f.name) for f in fields(node) if f.name not in shared}
    values = {name: float(value) for name, value in own.items() if isinstance(value, float)}
    return traced_node(node, values)


class SearchedSteps(StepScoring, SearchOptions):
    """Parameters of a strategy that searches over steps; those of its search come beside them."""

    temperature: Annotated[float, Field(gt=0, le=100, description="sampling temperature")] = 0.8
    top_p: Annotated[float, Field(gt=0, le=1, description="nucleus mass")] = 1.0
    top_k: Annotated[int, Field(ge=0, description="most likely tokens kept; 0 keeps all")] = 0
    delimiter: Annotated[str, Field(min_length=1, description="what ends a step; by default a blank line")] = "\n\n"
    instruction: Annotated[str | None, Field(description="text behind the question; by default: in steps")] = None
    system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""

    def prompt(self, question: Question) -> Prompt:
        """What is continued step by step."""
        return ask(question, self._instruction(question), system=self.system)

    def _instruction(self, question: Question) -> str:
        return in_steps(question) if self.instruction is None else self.instruction

    def options(self, kind: type[O], run: Run) -> O:
        """The search's own part of the parameters, within what the run may spend."""
        chosen: dict[str, Any] = {name: getattr(self, name) for name in kind.model_fields}
        left = run.ledger.left("tokens")
        if left < math.inf:
            tokens = max(1, min(int(left), self.limits.gen_tokens or int(left)))
            finish = min(self.limits.finish_tokens, max(1, tokens // 4))
            own = self.limits.model_dump() | {"gen_tokens": tokens, "finish_tokens": finish}
            chosen["limits"] = Limits.model_validate(own)
        return kind.model_validate(chosen)

    async def search(self, search: StepSearch[N, O], question: Question, models: Models, run: Run) -> Found[N] | None:
        """Search to the end.

        Returns:
            What was found; None if nothing can score this model's steps.

        Raises:
            UserError: A reward model is to score, and none was given.
            CapabilityMissing: The model cannot do what scores.
        """
        prompt = self.prompt(question)
        reward = self.source(prompt, question, models, run)
        if reward is None:
            return None
        steps = StepOptions(
            delimiter=self.delimiter,
            max_step_tokens=self.max_step_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
        )
        desk = SearchDesk(search, models.main, prompt, question, run, reward, self.aggregate, steps)
        return await desk.search()

    async def without_search(self, n: int, question: Question, models: Models, run: Run) -> Solution:
        """Self-consistency of `n` chains, for a model whose steps nothing can score."""
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

    def best(self, found: Found[N], run: Run, **notes: JsonValue) -> Solution:
        """The solution that the search would return; its confidence is the score that it has."""
        chosen = found.chosen
        return self._solution(found, run, chosen, None if chosen is None else found.candidates[chosen].score, notes)

    def highest(self, found: Found[N], run: Run, **notes: JsonValue) -> Solution:
        """The solution of the highest score, of equals the one found first; the search's own choice if none has one."""
        scored = [(c.score, -i) for i, c in enumerate(found.candidates) if c.score is not None]
        if not scored:
            return self.best(found, run, **notes)
        score, place = max(scored)
        return self._solution(found, run, -place, score, notes)

    async def vote(
        self,
        found: Found[N],
        question: Question,
        run: Run,
        weights: Sequence[float] | None = None,
        **notes: JsonValue,
    ) -> Solution:
        """The answer with the largest sum of weights, and of its solutions the one of the largest weight.

        Its confidence is its share of all weights. Without any answer, or any weight, it is as `best`.

        Args:
            found: What was found.
            question: The question.
            run: The run.
            weights: Weight of each candidate, at least 0; by default its score, or 0 without one.
            **notes: For the solution's notes.
        """
        weights = [candidate.score or 0.0 for candidate in found.candidates] if weights is None else weights
        voted = await weighed_vote(found.candidates, weights, question, run)
        if voted is None:
            return self.best(found, run, **notes)
        return self._solution(found, run, voted.chosen, voted.share, {"weights": dict(voted.sums), **notes})

    def _solution(
        self, found: Found[N], run: Run, chosen: int | None, confidence: float | None, notes: dict[str, JsonValue]
    ) -> Solution:
        candidates: tuple[Candidate, ...] = found.candidates
        for i, candidate in enumerate(candidates):
            run.emit(CandidateFound(index=i, answer=candidate.answer, score=candidate.score))
        stopped: Stopped = "budget" if found.spent or self._short_of(found, run) else "done"
        ledger = found.outcome.ledger
        cost: dict[str, JsonValue] = {
            "tokens": ledger.gen_tokens,
            "prm_passes": ledger.prm_passes,
            "expansions": ledger.expansions,
            "duplicates": ledger.duplicates,
        }
        return Solution(
            chosen=chosen,
            candidates=candidates,
            confidence=None if confidence is None else min(1.0, confidence),
            stopped=stopped,
            notes={"search": cost, "ended": found.outcome.stopped, **notes},
        )

    def _short_of(self, found: Found[N], run: Run) -> bool:
        """Whether the search ended for the run's tokens rather than its own limit."""
        limit, own = run.config.budget.tokens, self.limits.gen_tokens
        if found.outcome.stopped != "tokens" or limit is None or (own is not None and own <= limit):
            return False
        run.note_limit(run.ledger.refuse("tokens"))
        return True
