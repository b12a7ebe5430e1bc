"""`ThoughtDesk`: one tree search over thoughts: what it asks for is written, associated, judged, told, and traced.

    while batch := search.ask():
        expand       the next thoughts of all leaves, as one call; duplicates are sampled anew
        associate    with each new thought that goes on, as one call        (left out without association)
        evaluate     every new thought and its notes, as one call
        search.tell(…)                                                       backpropagates

A run that is resumed makes the same calls and finds in the run store what it had; so a search goes on where it was.

`ThoughtParameters`: the parameters of tree search over thoughts, with association or without.

What a solution cites: the notes that its steps name by number, and those that they say again.

From the tree of thoughts to a solution: the best one, or the answer on which most of them agree.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from ...core.errors import LimitExceeded
from ...core.events import CandidateAdded, LeafSelected, NodesSearched, SearchEnded, SearchNode
from ...core.messages import Completion, Prompt, Request, SamplingParams
from ...core.run import Run
from ...core.types import Candidate, Evidence, Question, Solution, Step, Stopped
from ...serving.metered.model import MeteredModel
from ...serving.metered.scorers import MeteredReward
from ...serving.rewards.model import sigmoid
from ..answers.extraction import extract_answer
from ..candidates import read_candidate
from ..continuations import ContinuationRequests
from ..memory.working_memory import MemoryItem
from ..prompts import answer_trigger, question_text
from ..retrieval.words import content_terms
from ..search.core import ExpandRequest, SearchLimits
from ..search.driver import search_node_event
from ..search.mcts import MCTSNode, MCTSOptions, MonteCarloTreeSearch
from ..search.tree import Continuation
from ..strategy import Parameters
from ..voting.answer_classes import weighted_vote
from . import prompts
from .association import Associator
from .judge import UNREAD, Judged, Judging, ScoreForm, ThoughtJudge, node_score
from .prompts import Conversation, Turn


class ThoughtParameters(Parameters, MCTSOptions):
    """Parameters of `mcts`; `coat` has those of association beside them."""

    max_step_tokens: Annotated[int, Field(ge=1, description="most tokens of a step")] = 160
    temperature: Annotated[float, Field(gt=0, le=100, description="sampling temperature of steps")] = 0.8
    top_p: Annotated[float, Field(gt=0, le=1, description="nucleus mass")] = 1.0
    score: Annotated[
        Literal["judge", "reward"], Field(description="what scores a step: the judge, or the reward model")
    ] = "judge"
    judging: Annotated[
        Judging,
        Field(
            description="merged: one reply with all scores; separate: one each; digits: the mean of the digit that "
            "comes next, without generating"
        ),
    ] = "merged"
    judge_tokens: Annotated[int, Field(ge=4, description="most tokens of the judge's reply")] = 32
    select: Annotated[
        Literal["best", "vote"], Field(description="among solutions: the best, or the answer with most weight")
    ] = "best"
    instruction: Annotated[str | None, Field(description="text behind the question; by default: a step at a time")] = (
        None
    )
    system: Annotated[str, Field(description="system message; empty leaves it to the model")] = ""

    def options(self, run: Run) -> MCTSOptions:
        """The search's own part, within what the run may spend."""
        chosen: dict[str, Any] = {name: getattr(self, name) for name in MCTSOptions.model_fields}
        left = run.ledger.left("tokens")
        if left < math.inf:
            finish = min(self.limits.finish_tokens, max(1, int(left) // 4))
            chosen["limits"] = SearchLimits.model_validate(self.limits.model_dump() | {"finish_tokens": finish})
        return MCTSOptions.model_validate(chosen)


SAID_AGAIN = 0.6
"""Share of a note's content words from which on a text that never names it is taken to rest on it."""

_MARK = re.compile(r"\[(\d{1,3}(?:\s?[,;]\s?\d{1,3}){0,8})\]")


def cite(text: str, notes: Sequence[MemoryItem], *, beyond: str = "") -> tuple[str, tuple[Evidence, ...]]:
    """Number anew what a text cites, so that its numbers are those of its citations.

    A number in brackets that is no note's stays as it is, and so does one beside it.

    Args:
        text: The solution. `[2]` in it is the second note.
        notes: All notes that its steps saw, in order.
        beyond: The question: words that are there already prove nothing.

    Returns:
        The text with its numbers changed, and what it cites in that order: named notes in the order of their first
        mention, then those whose content it has without naming them.
    """
    order: list[int] = []
    for match in _MARK.finditer(text):
        numbers = _numbers(match)
        if all(1 <= number <= len(notes) for number in numbers):
            order += [number for number in dict.fromkeys(numbers) if number not in order]
    said, known = content_terms(_MARK.sub(" ", text)), content_terms(beyond)
    for number, note in enumerate(notes, 1):
        own = content_terms(note.text) - known
        if number not in order and len(own) >= 2 and len(own & said) >= SAID_AGAIN * len(own):
            order.append(number)
    place = {number: at for at, number in enumerate(order, 1)}

    def renumbered(match: re.Match[str]) -> str:
        numbers = _numbers(match)
        if not all(number in place for number in numbers):
            return match[0]
        return "[" + ", ".join(str(place[number]) for number in numbers) + "]"

    cited = tuple(Evidence(source=source_of(notes[number - 1]), text=notes[number - 1].text) for number in order)
    return _MARK.sub(renumbered, text), cited


def source_of(note: MemoryItem) -> str:
    """Where a note comes from, for people to read."""
    return note.source_id or "the model itself"


def _numbers(match: re.Match[str]) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", match[1])]


_LEAST_STEP_TOKENS = 24
"""With fewer tokens than this for a step, a search ends for the run's budget."""


@dataclass
class _Grown:
    """What came back for one leaf.

    Attributes:
        expand: What was asked.
        path: The leaf's path.
        steps: All that was sampled.
        kept: Positions of those that become nodes.
        ids: The nodes that they will be.
        judged: What was said of each kept one.
    """

    expand: ExpandRequest
    path: tuple[Turn, ...]
    steps: list[Continuation] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    judged: dict[int, Judged] = field(default_factory=dict)

    def paths(self) -> list[tuple[Turn, ...]]:
        """The path of each node to be."""
        return [
            (*self.path, Turn(node_id, self.steps[at].text)) for at, node_id in zip(self.kept, self.ids, strict=True)
        ]


class ThoughtDesk:
    """One search over thoughts.

    Args:
        name: The method's name, for the trace.
        search: The pure search.
        config: The parameters.
        question: The question.
        model: The model that thinks.
        judge: Who scores.
        conversation: How paths are put.
        associator: Who brings knowledge in; None where nothing is associated.
        reward: The reward model: it scores complete solutions and, if the parameters say so, steps; None without one.
        run: The run.
        beta: Weight of the notes' score.
        form: Form of the score.
        at_once: Whether knowledge is brought to the question too, before the first thought.
    """

    def __init__(
        self,
        name: str,
        search: MonteCarloTreeSearch,
        config: ThoughtParameters,
        question: Question,
        model: MeteredModel,
        judge: ThoughtJudge,
        conversation: Conversation,
        associator: Associator | None,
        reward: MeteredReward | None,
        run: Run,
        *,
        beta: float = 0.0,
        form: ScoreForm = "normalised",
        at_once: bool = False,
    ) -> None:
        self._name, self._search, self._config, self._question = name, search, config, question
        self._model, self._judge, self._conversation = model, judge, conversation
        self._associator, self._reward, self._run = associator, reward, run
        self._beta, self._form, self._at_once = beta, form, at_once
        self._numbering = ContinuationRequests(model, Prompt.user(question.text), run, "thought")
        self._judged: dict[int, Judged] = {}
        self._begun = run.ledger.used("tokens")
        self._offered: int | None = None
        self.spent = False

    async def search(self) -> None:
        """Search to the end; the best solution so far is offered to the run while it goes on."""
        search = self._search
        await self._associate_question()
        while batch := search.ask():
            if not self._affordable(batch):
                self._end_for_budget()
                continue
            grown: list[_Grown] = []
            short = None
            try:
                grown = await self._expand(batch)
                await self._associate(grown)
                await self._evaluate(grown)
            except LimitExceeded as e:
                short, self.spent = e, True
                self._run.note_limit(e)
            if grown:  # what was written counts, even if nobody could judge it any more
                self._tell(grown)
                self._offer()
            if short is not None:
                search.end("budget", complete=not search.stopped)
        self._ended()

    # -- the budget

    def _left(self) -> float:
        """Tokens that may still be generated, by the run or by the search."""
        own, used = self._config.limits.gen_tokens, self._run.ledger.used("tokens") - self._begun
        return min(self._run.ledger.left("tokens"), math.inf if own is None else own - used)

    def _aside(self, expand: ExpandRequest) -> int:
        """Most tokens that associating with and judging what comes of a leaf takes."""
        if expand.score == "none":
            return 0
        associator = None if expand.finish else self._associator
        goes_on = associator is not None
        notes = 0 if associator is None else associator.most_tokens()
        judges = self._config.score == "judge" or goes_on
        return expand.n * (notes + (self._judge.most_tokens(notes=goes_on) if judges else 0))

    def _share(self, batch: Sequence[ExpandRequest]) -> float:
        """Tokens that each sample of a batch may have; what is generated beside it and a final answer are kept back."""
        left = self._left()
        if left == math.inf:
            return math.inf
        last = any(expand.score == "none" for expand in batch)
        keep = 0 if last else self._search.options.limits.finish_tokens
        return (left - keep - sum(map(self._aside, batch))) / sum(expand.n for expand in batch)

    def _affordable(self, batch: Sequence[ExpandRequest]) -> bool:
        if self._run.ledger.left("seconds") <= 0:
            return False
        least = min(_LEAST_STEP_TOKENS, *(expand.max_tokens for expand in batch))
        return self._share(batch) >= (1 if batch[0].score == "none" else least)

    def _end_for_budget(self) -> None:
        late = self._run.ledger.left("seconds") <= 0
        if (late or self._run.ledger.left("tokens") <= self._left()) and not self.spent:
            self.spent = True
            self._run.note_limit(self._run.ledger.refuse("seconds" if late else "tokens"))
        if self._search.stopped:  # not even the final answer can be paid
            self._search.end("budget", complete=False)
        else:
            self._search.end("budget", complete=self._run.ledger.left("seconds") > 0)

    # -- expand

    async def _expand(self, batch: Sequence[ExpandRequest]) -> list[_Grown]:
        """The next thoughts of all leaves; where some say the same or nothing, others are sampled in their place."""
        grown = [_Grown(expand, self._path(expand.node)) for expand in batch]
        for expand, one in zip(batch, grown, strict=True):
            if expand.score == "none":
                continue
            attractions = tuple(
                self._search.attraction(node) for node in self._search.tree.path(self._search.tree[expand.node])
            )
            ids = (0, *(turn.node_id for turn in one.path))
            self._run.emit(LeafSelected(search=self._name, path=ids, attractions=attractions))
        wanted = [(one, one.expand.n) for one in grown]
        for again in range(1 + self._search.options.resamples):
            if again and self._share([one.expand for one, _ in wanted]) < _LEAST_STEP_TOKENS:
                break
            try:
                await self._sample(wanted)
            except LimitExceeded:
                if not again:
                    raise
                break  # others in place of duplicates cannot be paid
            lacking = [(one, self._search.lacks(one.expand, one.steps)) for one in grown]
            wanted = [(one, n) for one, n in lacking if n > 0 and one.expand.score != "none"]
            if not wanted:
                break
        next_id = len(self._search.tree)
        for one in grown:
            one.kept = [0] if one.expand.score == "none" else self._search.kept(one.expand, one.steps)
            one.ids = list(range(next_id, next_id + len(one.kept)))
            next_id += len(one.kept)
        return grown

    async def _sample(self, wanted: Sequence[tuple[_Grown, int]]) -> None:
        """Sample so many thoughts of each leaf, all in one call."""
        share = self._share([one.expand for one, _ in wanted])
        requests = []
        for one, n in wanted:
            expand = one.expand
            last = expand.finish
            forced = answer_trigger(self._question) if last and self._model.capabilities.prefix else ""
            said = prompts.finish(self._question) if last else prompts.GO_ON if one.path else ""
            prompt = self._conversation.after(one.path, said, prefix=forced)
            sampling = SamplingParams(
                temperature=0.0 if expand.score == "none" else self._config.temperature,
                top_p=self._config.top_p,
                max_tokens=max(1, int(min(expand.max_tokens, share))),
                stop=("\n\n",),
                seed=self._numbering.seed(prompt),
            )
            requests.append(Request(prompt=prompt, sampling=sampling, samples=self._numbering.take(prompt, n)))
        replies = await self._model.generate(requests)
        for (one, _), request, completions in zip(wanted, requests, replies, strict=True):
            one.steps += [self._step(one.expand, request, completion) for completion in completions]

    def _step(self, expand: ExpandRequest, request: Request, completion: Completion) -> Continuation:
        said = completion.text.strip()
        if expand.finish and said:
            said = f"{request.prompt.prefix} {said}".strip() if request.prompt.prefix else said
        found = extract_answer(said, self._question) if said and completion.ok else None
        return Continuation(
            said,
            completion.usage.completion_tokens,
            terminal=expand.finish or (found is not None and found.stated),
            logprob=completion.logprob,
        )

    # -- associate and evaluate

    async def _associate_question(self) -> None:
        """Bring knowledge to the question before the first thought, where that is wanted and can be paid."""
        associator = self._associator
        limits = self._search.options.limits
        if associator is None or not self._at_once or self._left() < associator.most_tokens() + limits.finish_tokens:
            return
        try:
            await associator.associate([()])
        except LimitExceeded as e:
            self._run.note_limit(e)
            self.spent = True

    async def _associate(self, grown: Sequence[_Grown]) -> None:
        """Bring knowledge to every new thought below which the search can go on."""
        if self._associator is None:
            return
        open_ended = [
            path
            for one in grown
            for at, path in zip(one.kept, one.paths(), strict=True)
            if not one.steps[at].terminal and not one.steps[at].blank
        ]
        await self._associator.associate(open_ended)

    async def _evaluate(self, grown: Sequence[_Grown]) -> None:
        """Score every new thought, and complete solutions by the reward model too."""
        places = [(one, at) for one in grown for at in self._search.to_score(one.expand, one.steps)]
        if not places:
            return
        paths = [one.paths()[one.kept.index(at)] for one, at in places]
        by_reward = self._config.score == "reward"
        rewards = await self._rewards(
            [path if by_reward or one.steps[at].terminal else () for (one, at), path in zip(places, paths, strict=True)]
        )
        judged = await self._judge.judge(paths, steps=not by_reward)
        for (one, at), reward, said in zip(places, rewards, judged, strict=True):
            if by_reward:
                said = replace(said, step=UNREAD if reward is None else reward)
            one.judged[at] = said
            one.steps[at] = replace(
                one.steps[at],
                score=node_score(said.step, said.notes, self._beta, self._form),
                reward=reward if one.steps[at].terminal else None,
            )

    async def _rewards(self, paths: Sequence[Sequence[Turn]]) -> list[float | None]:
        """What the reward model says of each path; None of an empty one, and without a reward model."""
        asked = [i for i, path in enumerate(paths) if path]
        rewards: list[float | None] = [None] * len(paths)
        if self._reward is None or not asked:
            return rewards
        solutions = [[turn.text for turn in paths[i]] for i in asked]
        problem = question_text(self._question, self._question.text)
        made = await self._reward.score_steps(problem, solutions, "last")
        for i, scores in zip(asked, made, strict=True):
            rewards[i] = sigmoid(scores.log_odds[-1]) if scores.ok and scores.log_odds else None
        return rewards

    # -- tell and trace

    def _tell(self, grown: Sequence[_Grown]) -> None:
        search, before = self._search, len(self._search.tree)
        duplicates, empties = search.ledger.duplicates, search.ledger.empties
        for one in grown:
            search.tell(one.expand, one.steps)
            self._judged.update(
                {i: one.judged[at] for i, at in zip(one.ids, one.kept, strict=True) if at in one.judged}
            )
        new = [search.tree[node_id] for node_id in range(before, len(search.tree))]
        above = {0: search.tree[0]} if before > 1 else {}
        for one in grown:
            above |= {turn.node_id: search.tree[turn.node_id] for turn in one.path}
        root = [search.tree[0]] if before == 1 else []
        self._run.emit(
            NodesSearched(
                search=self._name,
                expanded=tuple(one.expand.node for one in grown),
                nodes=tuple(self._traced(node) for node in (*root, *above.values(), *new)),
                discarded=search.ledger.duplicates + search.ledger.empties - duplicates - empties,
            )
        )

    def _traced(self, node: MCTSNode) -> SearchNode:
        """A node with its statistics as they are now: one that was told before is told again after backpropagation."""
        values = {"V": node.mean, "N": float(node.visits)}
        said = self._judged.get(node.id)
        if said is not None:
            values |= {"step": said.step} | ({} if said.notes is None else {"notes": said.notes})
        if node.reward is not None:
            values["reward"] = node.reward
        parted = None if node.terminal or not node.text else f"{node.text}\n\n"
        return search_node_event(node, values, parted)

    def _offer(self) -> None:
        best = self._search.outcome().chosen
        if best is not None and best.terminal and best.id != self._offered:
            self._offered = best.id
            self._run.offer(Solution(chosen=0, candidates=(self.candidate(best),), stopped="budget"))

    def _ended(self) -> None:
        found = self._search.outcome()
        ledger = found.ledger
        cost = {
            "gen_tokens": int(self._run.ledger.used("tokens") - self._begun),
            "expansions": len(self._search.selected),
            "samples": ledger.samples,
            "duplicates": ledger.duplicates,
            "empties": ledger.empties,
            "unread": self._judge.unread,
            **self.association_cost(),
        }
        chosen = None if found.chosen is None else found.chosen.id
        self._run.emit(SearchEnded(search=self._name, chosen=chosen, stopped=found.stopped, cost=cost))

    def association_cost(self) -> dict[str, int]:
        """What associating has dropped and missed."""
        if self._associator is None:
            return {}
        return self._associator.cost()

    # -- candidates

    def candidate(self, node: MCTSNode) -> Candidate:
        """The solution that a node is, with what it cites."""
        path = self._search.tree.path(node)
        notes = self._conversation.known(self._path(node.id))
        text, citations = cite("\n\n".join(s.text for s in path if s.text), notes, beyond=self._question.text)
        reason = "stop" if node.terminal else "budget"
        candidate = read_candidate(Completion(text=text, finish_reason=reason), self._question)
        known = [step.logprob for step in path]
        return candidate.model_copy(
            update={
                "steps": tuple(Step(text=step.text, scores=self._scores(step)) for step in path),
                "score": node.reward if node.reward is not None else node.score,
                "tokens": sum(step.tokens for step in path),
                "logprob": math.fsum(p for p in known if p is not None) if None not in known else None,
                "citations": citations,
            }
        )

    def _scores(self, node: MCTSNode) -> dict[str, float]:
        said = self._judged.get(node.id)
        scores = {} if node.score is None else {"score": node.score}
        if said is not None:
            scores |= {"step": said.step} | ({} if said.notes is None else {"notes": said.notes})
        return scores

    def _path(self, node_id: int) -> tuple[Turn, ...]:
        tree = self._search.tree
        return tuple(Turn(node.id, node.text) for node in tree.path(tree[node_id]))


async def solution_of(
    desk: ThoughtDesk, search: MonteCarloTreeSearch, config: ThoughtParameters, question: Question, run: Run
) -> Solution:
    """The solution that a search over thoughts has found.

    The best is the complete solution of the highest reward, without a reward model that of the highest score; its
    confidence is that number. In a vote every complete solution weighs what its score is, and the confidence is the
    answer's share.

    Args:
        desk: The search's desk.
        search: The search, over.
        config: Its parameters.
        question: The question.
        run: The run.
    """
    found = search.outcome()
    nodes = sorted((*found.terminals,), key=lambda node: node.id)
    if found.chosen is not None and found.chosen not in nodes:
        nodes.append(found.chosen)
    candidates = tuple(desk.candidate(node) for node in nodes)
    for i, candidate in enumerate(candidates):
        run.emit(CandidateAdded(index=i, answer=candidate.answer, score=candidate.score))
    chosen = None if found.chosen is None else nodes.index(found.chosen)
    confidence = None if found.chosen is None else found.chosen.reward or found.chosen.score
    if config.select == "vote":
        weight = {node.id: value for node, value in zip(found.terminals, found.weights, strict=True)}
        voted = await weighted_vote(candidates, [weight.get(node.id, 0.0) for node in nodes], question, run)
        if voted is not None:
            chosen, confidence = voted.chosen, voted.share
    stopped: Stopped = "budget" if desk.spent else "done"
    cost: dict[str, JsonValue] = {
        "expansions": len(search.selected),
        "nodes": len(search.tree) - 1,
        "depth": max(node.depth for node in search.tree),
        "duplicates": found.ledger.duplicates,
        **desk.association_cost(),
    }
    return Solution(
        chosen=chosen,
        candidates=candidates,
        confidence=None if confidence is None else min(1.0, confidence),
        stopped=stopped,
        notes={"search": cost, "ended": found.stopped},
    )
