"""`Attempt`: one episode under a policy, from the problem to the answer, whatever the budget and the model do.

`lacks`: whether the budget covers blocks with the answer behind them; and `at_once`, what runs side by side.

A block is begun only if the most that it could cost fits in with the answer left over, so that an answer can always be
asked for. Everything but the time is a function of the replies alone, so that a replay decides alike.

`Ballot`: the attempts at one problem, made side by side, and the answer on which most of them agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from pydantic import JsonValue

from ...core.budget import LimitKind
from ...core.errors import BackendError, LimitExceeded, ReasonError, StoreError
from ...core.events import CandidateAdded, StrategyNote
from ...core.run import Run
from ...core.types import Candidate, Question, Solution, Step
from ..answers.extraction import extract_answer
from ..candidates import read_candidate
from ..sampling import leading_solution
from ..voting.answer_classes import weighted_vote
from .assessment import State
from .block_runner import BlockRunner, at_once
from .blocks import LETTERS, NAMES, Block, Trajectory
from .episode import Episode
from .policies import Choice, Policy

_FIXED_BYTES = 1_000
"""More than the fixed words of any prompt have."""


def lacks(
    run: Run,
    runner: BlockRunner,
    trajectory: Trajectory,
    blocks: Sequence[Block],
    *,
    assesses: bool,
    tokens: int = 0,
    calls: int = 0,
) -> LimitKind | None:
    """The limit that does not cover blocks and an answer behind them; None if all do.

    Time is short if what is left is no more than twice what is kept back for an answer (`AnswerTime.kept_s`).

    Args:
        run: The run.
        runner: What would run them.
        trajectory: Where they would begin.
        blocks: The blocks, all of them to be run; none is the answer alone.
        assesses: Whether the model assesses itself behind each.
        tokens: Tokens to be generated beside them.
        calls: Requests beside them.
    """
    ledger = run.ledger
    tokens += sum(runner.most_tokens(block, assesses=assesses) for block in blocks) + runner.limits.answer_tokens
    calls += sum(runner.most_calls(block, assesses=assesses) for block in blocks) + 1
    if tokens > ledger.left("tokens"):
        return "tokens"
    if calls > ledger.left("calls"):
        return "calls"
    if ledger.budget.usd is not None and _usd(runner, trajectory, tokens, calls) > ledger.left("usd"):
        return "usd"
    seconds = ledger.seconds_left()
    if seconds is not None and seconds <= 2 * runner.asker.time.kept_s:
        return "seconds"
    return None


def _usd(runner: BlockRunner, trajectory: Trajectory, tokens: int, calls: int) -> float:
    """The most that so many requests could cost, each of which may show all that the others have written."""
    can = runner.asker.model.capabilities
    question = trajectory.question
    texts = [
        runner.asker.system,
        question.text,
        *(turn.content for turn in question.conversation),
        *(call.model_dump_json() for turn in question.conversation for call in turn.tool_calls),
        *question.choices,
        *(document.text for document in question.documents),
        *trajectory.steps,
    ]
    # bytes and no count: no tokenizer makes more tokens of a text, and a replay has none
    shown = sum(len(text.encode()) + 8 for text in texts) + _FIXED_BYTES + tokens
    return calls * shown * (can.usd_per_prompt_token or 0.0) + tokens * (can.usd_per_completion_token or 0.0)


Ended = Literal["finished", "terminated", "limit", "budget", "failed"]
"""Why the answer was asked for: the finish check said yes, the policy chose to, no more blocks may run, the budget does
not cover another one, or a block failed."""

FAILED = "a block could not be run; the answer was asked for without it"


class Attempt:
    """One attempt at the problem.

    Args:
        episode: The episode, not begun.
        policy: What chooses its blocks.
        run: The run.

    Attributes:
        told: Called whenever it has got further.
        states: The state at each choice, of policies that look at it.
        ended: Why the answer was asked for; None while it was not.
        spent: Whether the budget has cut it short.
    """

    def __init__(self, episode: Episode, policy: Policy, run: Run) -> None:
        self.episode = episode
        self.states: list[State] = []
        self.ended: Ended | None = None
        self.spent = False
        self.told: Callable[[], None] = lambda: None
        self._policy, self._run = policy, run

    @property
    def vote(self) -> int:
        """Which attempt it is, from 0."""
        return self.episode.runner.sample_index

    @property
    def begun(self) -> bool:
        """Whether there is anything to show: a step or an answer."""
        return self.episode.done or bool(self.episode.trajectory.steps)

    @property
    def chain(self) -> list[str]:
        """Letters of its blocks."""
        return [LETTERS[block] for block in self.episode.blocks]

    async def make(self) -> None:
        """Go through it to its answer, or to the end of the budget.

        Raises:
            BackendError: The model failed, also at the answer itself.
        """
        episode = self.episode
        try:
            try:
                await self._advance()
            except LimitExceeded as e:
                self._spend(e)
            except (BackendError, StoreError) as e:
                if isinstance(e, StoreError) and self._run.recording:
                    raise
                self._fail(e)  # a replay finds nothing stored where the run had a failure
            if not episode.done:
                try:
                    await episode.finish()
                except LimitExceeded as e:
                    self._spend(e)
        finally:
            self.told()  # also when it is cancelled
        self.spent = self.spent or episode.runner.asker.cut
        self._note("navigated", self.facts())

    def covered(self) -> bool:
        """Whether the budget covers an answer at all; if not, the attempt is spent."""
        return not self._short(())

    async def _advance(self) -> None:
        """Run blocks until there is an answer or one has to be forced."""
        episode, policy = self.episode, self._policy
        limits = episode.runner.limits
        if self._short((), tokens=limits.assess_tokens if policy.assesses else 0, calls=int(policy.assesses)):
            return
        await episode.begin()
        while not episode.done:
            self.told()
            if episode.full:
                self.ended = "limit"
                await episode.finish()
                return
            if policy.asks and self._short((), tokens=limits.choose_tokens, calls=1):
                return
            choice = await policy.choose(episode)
            if policy.assesses:
                self.states.append(episode.state)
            blocks = [episode.would_run(action) for action in choice.actions]
            running = [block for block in blocks if block is not Block.TERMINATE]
            if running and self._short(running):
                return
            await self._take(choice)

    async def _take(self, choice: Choice) -> None:
        episode, runner = self.episode, self.episode.runner
        before: dict[str, JsonValue] = {
            "legal": [letter for letter, may in zip(LETTERS, episode.legal, strict=True) if may],
            "state": list(episode.state) if self._policy.assesses else None,
            "missing": episode.assessment.missing if self._policy.assesses else None,
            "q": None if choice.q is None else [round(value, 4) for value in choice.q],
        }
        calls, tokens = runner.calls, runner.tokens
        block = await self._policy.take(episode, choice)
        if episode.done:
            self.ended = "terminated" if block is Block.TERMINATE else "finished"
        self._note(
            "block.run",
            {
                "block": NAMES[block],
                "letter": LETTERS[block],
                **before,
                "finished": self.ended == "finished",
                "steps": len(episode.trajectory.steps),
                "calls": runner.calls - calls,
                "tokens": runner.tokens - tokens,
            },
        )

    # -- what may stop it

    def _short(self, blocks: Sequence[Block], *, tokens: int = 0, calls: int = 0) -> bool:
        episode = self.episode
        kind: LimitKind | None = lacks(
            self._run,
            episode.runner,
            episode.trajectory,
            blocks,
            assesses=self._policy.assesses,
            tokens=tokens,
            calls=calls,
        )
        if kind is not None:
            self._spend(self._run.ledger.refuse(kind))
        return kind is not None

    def _spend(self, error: LimitExceeded) -> None:
        if not self.spent:
            self._run.note_limit(error)
        self.spent = True
        self.ended = self.ended or "budget"

    def _fail(self, error: BackendError | StoreError) -> None:
        self.ended = self.ended or "failed"
        self._run.degrade(FAILED)
        self._note("block.failed", {"code": error.code, "message": error.message})

    # -- what came of it

    def candidate(self) -> Candidate:
        """What it has come to so far.

        The answer is read from the final reply alone. An attempt that was stopped before it has the answer that its
        last step states, if that says that it is the answer.
        """
        episode = self.episode
        trajectory, reply = episode.trajectory, episode.reply
        end = "" if reply is None else reply.text.strip()
        if reply is not None:
            answer = read_candidate(reply, trajectory.question).answer
        else:
            found = extract_answer(trajectory.steps[-1], trajectory.question) if trajectory.steps else None
            answer = found.value if found is not None and found.stated else None
        return Candidate(
            text="\n\n".join(part for part in (trajectory.written, end) if part),
            answer=answer,
            steps=tuple(Step(text=step) for step in (*trajectory.steps, end) if step),
            tokens=episode.runner.tokens,
            finish_reason="budget" if reply is None else reply.finish_reason,
        )

    def facts(self) -> dict[str, JsonValue]:
        """Its chain, the states it was at, and what could not be read, for the trace and the solution's notes."""
        episode, runner = self.episode, self.episode.runner
        return {
            "chain": list(self.chain),
            "states": [list(state) for state in self.states],
            "ended": self.ended,
            "forced": episode.forced,
            "calls": runner.calls,
            "tokens": runner.tokens,
            "scores_asked": runner.scores_asked,
            "scores_missing": runner.scores_missing,
            "unread": {name: count for name, count in runner.unread.items() if count},
        }

    def _note(self, name: str, data: dict[str, JsonValue]) -> None:
        self._run.emit(StrategyNote(strategy=self._run.config.strategy, name=name, data={**data, "vote": self.vote}))


MISSING = 0.05
"""Share of missing scores above which an answer says that the navigator saw too little."""
LOST = "an attempt failed; the others voted without it"


class Ballot:
    """Makes attempts and counts their answers.

    Attempts go on side by side where nothing but time limits the run; under another limit they are made one after
    another, each with what the ones before have left, so that a replay asks what the run asked.

    Args:
        question: The problem.
        run: The run.
        attempts: The attempts; a single one does not vote.
    """

    def __init__(self, question: Question, run: Run, attempts: Sequence[Attempt]) -> None:
        self._question, self._run, self._attempts = question, run, list(attempts)
        self._counted = self._attempts
        for attempt in self._attempts:
            attempt.told = self._offer

    async def make(self) -> None:
        """Make all attempts; the best so far is offered to the run while they go on.

        Raises:
            BackendError: All of them failed.
        """
        made = await at_once([partial(self._make, attempt) for attempt in self._attempts], self._run)
        failed: list[ReasonError] = []
        counted: list[Attempt] = []
        for attempt, error in zip(self._attempts, made, strict=True):
            if error is None:
                counted.append(attempt)
            elif isinstance(error, BackendError) or (isinstance(error, StoreError) and not self._run.recording):
                failed.append(error)  # a replay finds nothing stored where the run had a failure
            else:
                raise error
        if failed and not any(attempt.begun for attempt in counted):
            raise failed[0]
        if failed:
            self._run.degrade(LOST)
        self._counted = counted

    async def _make(self, attempt: Attempt) -> None:
        if attempt.vote == 0 or attempt.covered():
            await attempt.make()

    async def solution(self) -> Solution:
        """What they came to."""
        run, counted = self._run, [attempt for attempt in self._counted if attempt.begun]
        candidates = tuple(attempt.candidate() for attempt in counted)
        for i, candidate in enumerate(candidates):
            run.emit(CandidateAdded(index=i, answer=candidate.answer))
        chosen: int | None = 0 if candidates else None
        confidence: float | None = None
        if len(self._attempts) > 1 and candidates:
            voted = await weighted_vote(candidates, [1.0] * len(candidates), self._question, run)
            chosen, confidence = (0, 0.0) if voted is None else (voted.chosen, voted.share)
        scores = self._tell_missing()
        facts = {} if chosen is None else counted[chosen].facts()
        if len(self._attempts) > 1:
            facts |= {"votes": len(candidates), "chains": [list(attempt.chain) for attempt in counted]}
        return Solution(
            chosen=chosen,
            candidates=candidates,
            confidence=confidence,
            stopped="budget" if any(attempt.spent for attempt in self._attempts) else "done",
            notes=facts | scores,
        )

    def _tell_missing(self) -> dict[str, JsonValue]:
        """Scores asked for and missing, over all attempts; where too many are missing, the answer says so."""
        asked = sum(attempt.episode.runner.scores_asked for attempt in self._attempts)
        missing = sum(attempt.episode.runner.scores_missing for attempt in self._attempts)
        if missing > MISSING * asked:
            self._run.degrade(
                f"{missing} of {asked} scores of the model's self-assessments could not be read; the navigator took "
                "them for 0, not involved"
            )
        return {"scores_asked": asked, "scores_missing": missing}

    def _offer(self) -> None:
        begun = [attempt for attempt in self._attempts if attempt.begun]
        if not begun:
            return
        finished = [attempt for attempt in begun if attempt.episode.done]
        candidates: list[Candidate] = [attempt.candidate() for attempt in finished or begun]
        best = leading_solution(candidates)
        if len(self._attempts) == 1:
            best = best.model_copy(update={"confidence": None})
        self._run.offer(best.model_copy(update={"stopped": "cancelled"}))
