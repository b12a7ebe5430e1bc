"""`Navigation`: one episode on one problem, as trainer, validation and environment have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ...core.answer import Answer
from ...core.errors import BadReply, ContextTooLong, UserError
from ...reasoning.candidates import read_candidate
from ...reasoning.rlot.assessment import State
from ...reasoning.rlot.block_runner import BlockRunner
from ...reasoning.rlot.blocks import Block, Legal, effective
from ...reasoning.rlot.episode import Episode
from ...reasoning.rlot.rlot import RLoT
from .desk import Desk
from .problems import Problem
from .records import EpisodeRecord, letters_of
from .rewards import Rewards, discounted

EPISODE_FAILS = (ContextTooLong, BadReply)
"""What befalls one chain and no other: it ends without an answer, and earns nothing more."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What an action came to.

    Attributes:
        block: The block that ran; None if it failed.
        reward: What it earned.
        done: Whether the episode has ended with it.
        state: The assessment after it.
        legal: Which blocks may run next.
    """

    block: Block | None
    reward: float
    done: bool
    state: State
    legal: Legal


class Navigation:
    """One episode on one problem. Used by one task at a time; must be closed.

    Args:
        desk: Models, store and judges.
        problem: The problem.
        substitutes: Whether an action that is masked runs what `blocks.effective` puts in its place; else it is
            refused.

    Attributes:
        problem: As given.
        states: Assessments so far, the bare problem's first.
        actions: Actions so far.
        rewards: What each earned.
        done: Whether it has ended.
        correct: Whether its answer was right; False while there is none.
        answer: The answer that was read; None if none was.
        error: What ended it before its answer; empty if nothing did.
    """

    def __init__(self, desk: Desk, problem: Problem, *, substitutes: bool = False) -> None:
        config = desk.config
        self.problem = problem
        self.states: list[State] = []
        self.actions: list[int] = []
        self.rewards: list[float] = []
        self.done = False
        self.correct = False
        self.answer: str | None = None
        self.error = ""
        self._desk = desk
        self._substitutes = substitutes
        self._visit = visit = desk.visit(problem, RLoT.name, desk.plan.parameters)
        self._runner = BlockRunner(
            visit.main,
            visit.run,
            config.limits,
            refine_mode=config.refine_mode,
            system=config.system,
            temperature=config.temperature,
        )
        self._episode = Episode(
            self._runner, problem.item.question, max_blocks=config.max_blocks, mask_mode=config.mask_mode
        )
        self._earning = Rewards(desk.plan.reward, desk.plan.learning.gamma, visit.reward, visit.run)
        self._open = False
        self._whole: Answer | None = None

    @property
    def state(self) -> State:
        """The last assessment."""
        return self._episode.state

    @property
    def legal(self) -> Legal:
        """Which blocks may run next."""
        return self._episode.legal

    @property
    def length(self) -> int:
        """Blocks that ran before the answer."""
        return self._episode.ran

    @property
    def most_tokens(self) -> int:
        """Most tokens that an action could generate: its block, the questions behind it, and the answer."""
        runner = self._runner
        return max(runner.most_tokens(block) for block in Block) + runner.most_tokens(Block.TERMINATE)

    async def begin(self) -> None:
        """Begin: the model assesses the bare problem. A prompt that it cannot take ends the episode.

        Raises:
            LimitExceeded: The tokens of the training do not cover it.
            StoreError, UserError: The problem's run cannot be had.
            BackendError: The model failed.
        """
        with self._desk.reserve(self._runner.limits.assess_tokens):
            await self._desk.begin(self._visit)
            self._open = True
            try:
                await self._episode.begin()
            except EPISODE_FAILS as e:
                self._fail(e.message)
        self.states.append(self.state)

    async def act(self, action: int) -> Moved:
        """Run a block, and see what it earns.

        Raises:
            UserError: The episode has ended or not begun, or the block may not run.
            LimitExceeded: The tokens of the training do not cover it.
            BackendError: The model or the reward model failed; the episode cannot be gone on with then.
        """
        episode = self._episode
        if self.done or not self.states:
            raise UserError("the episode has ended or not begun", hint="begin another one")
        taken = action
        if self._substitutes and not episode.legal[action]:
            taken = int(effective(action, episode.ran, episode.max_blocks))
        block: Block | None = None
        with self._desk.reserve(self.most_tokens):
            try:
                block = await episode.act(taken)
                if episode.done:
                    reward = self._earning.ending(correct=await self._judged())
                    self.done = True
                else:
                    reward = await self._earning.going_on(episode.trajectory)
            except EPISODE_FAILS as e:
                self._fail(e.message)
                reward = self._earning.ending(correct=False)
        self.actions.append(action)
        self.rewards.append(reward)
        self.states.append(self.state)
        return Moved(block, reward, self.done, self.state, self.legal)

    async def close(self) -> None:
        """Give the problem's run back, finished or not; idempotent."""
        is_open, self._open = self._open, False
        if is_open:
            await self._desk.end(self._visit, "finished" if self.done else "interrupted", self._whole)

    def record(
        self,
        episode: int,
        *,
        epsilon: float = 0.0,
        learning_rate: float = 0.0,
        loss: float | None = None,
        steps: int = 0,
    ) -> EpisodeRecord:
        """What is to be noted of it, after its end; the arguments are what it does not know itself.

        Args:
            episode: Its number.
            epsilon: The chance of a random action at its last one.
            learning_rate: The learning rate at its end.
            loss: Mean loss of its updates.
            steps: Actions of the training so far.
        """
        runner, chain = self._runner, self._episode
        usage = self._visit.run.ledger.usage()
        return EpisodeRecord(
            episode=episode,
            dataset=self.problem.dataset,
            item=self.problem.item.id,
            blocks=letters_of(tuple(chain.blocks)),
            length=self.length,
            states=tuple(self.states),
            actions=tuple(self.actions),
            rewards=tuple(self.rewards),
            earned=discounted(self.rewards, self._desk.plan.learning.gamma),
            correct=self.correct,
            answer=self.answer,
            forced=chain.forced,
            scores_asked=runner.scores_asked,
            scores_missing=runner.scores_missing,
            unscored=self._earning.unscored,
            tokens=usage.completion_tokens,
            calls=usage.model_calls,
            epsilon=epsilon,
            learning_rate=learning_rate,
            loss=loss,
            steps=steps,
            error=self.error,
        )

    async def _judged(self) -> bool:
        """Whether the final answer is right; it is read from the final reply alone."""
        reply = self._episode.reply
        if reply is None:
            return False
        candidate = read_candidate(reply, self.problem.item.question)
        self._whole, score = await self._desk.judge(self._visit, candidate)
        self.answer, self.correct = candidate.answer, score.correct is True
        return self.correct

    def _fail(self, why: str) -> None:
        self.error, self.done = why, True


Navigate: TypeAlias = Callable[[Problem], Navigation]
"""Makes an episode on a problem."""
