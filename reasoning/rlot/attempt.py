"""`Attempt`: one episode under a policy, from the problem to the answer, whatever the budget and the model do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import JsonValue

from ...core.answer import Candidate, Step
from ...core.budget import LimitKind
from ...core.errors import BackendError, LimitExceeded, StoreError
from ...core.events import StrategyNote
from ...core.run import Run
from ..answers import extract
from ..candidates import read_candidate
from .affording import lacks
from .aspects import State
from .blocks import LETTERS, NAMES, Block
from .episode import Episode
from .policies import Choice, Policy

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
            found = extract(trajectory.steps[-1], trajectory.question) if trajectory.steps else None
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
