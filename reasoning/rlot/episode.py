"""`Episode`: one attempt at a problem, block by block, from the bare problem to its answer.

    begin   s = assess(problem)
    act(a)  a = Terminate:  the answer
            else:           the block adds its step; s = assess(steps); if the finish check says yes: the answer
    at most `max_blocks` blocks run before the answer

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140. Differs: Terminate takes one request, as the
assessment behind an answer is used by nobody; assessment and finish check are one call of two requests.
"""

from __future__ import annotations

from ...core.errors import UserError
from ...core.messages import Completion
from ...core.types import Question
from .assessment import Assessment, State
from .block_runner import BlockRunner
from .blocks import NAMES, Block, Legal, MaskMode, Trajectory, effective, legal

BLANK: State = (0, 0, 0, 0, 0, 0, 0)
"""The state of what nobody assessed."""


class Episode:
    """One attempt. An error leaves it where it was, or behind the block that had run by then; `finish` can be called.

    Requests: 1 for the bare problem; Reason and Refine 3, Debate 5, Decompose m + 4 with m subtasks, Terminate 1; one
    more where the finish check says yes. Without assessments each of them but Terminate takes one fewer.

    Args:
        runner: Carries blocks out.
        question: The problem.
        max_blocks: Most blocks before the answer.
        mask_mode: What becomes of actions that make no sense (see `blocks`).
        assesses: Whether the model assesses itself; otherwise the state is all zeros.

    Attributes:
        trajectory: The problem and the steps so far.
        assessment: What the last assessment said.
        ran: Blocks that ran.
        blocks: Those blocks; behind them `TERMINATE`, if that was chosen or forced.
        reply: The reply with the final answer; None before it.
        forced: Whether the answer was asked for because no further block could run.
    """

    def __init__(
        self,
        runner: BlockRunner,
        question: Question,
        *,
        max_blocks: int = 5,
        mask_mode: MaskMode = "mask",
        assesses: bool = True,
    ) -> None:
        legal(0, max_blocks, mask_mode)  # refuses impossible numbers
        self.runner = runner
        self.max_blocks = max_blocks
        self.mask_mode: MaskMode = mask_mode
        self.assesses = assesses
        self.trajectory = Trajectory(question)
        self.assessment = Assessment(BLANK, 0)
        self.blocks: list[Block] = []
        self.ran = 0
        self.reply: Completion | None = None
        self.forced = False

    @property
    def state(self) -> State:
        """The last assessment's scores."""
        return self.assessment.state

    @property
    def legal(self) -> Legal:
        """Which actions may be taken now."""
        return legal(self.ran, self.max_blocks, self.mask_mode)

    @property
    def full(self) -> bool:
        """Whether as many blocks ran as may."""
        return self.ran >= self.max_blocks

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.reply is not None

    async def begin(self) -> None:
        """Assess the bare problem, if assessments are wanted.

        Raises:
            LimitExceeded: The budget does not cover it.
            BackendError: The model failed.
        """
        self._refuse_ended()
        if self.assesses:
            self.assessment = await self.runner.assess(self.trajectory)

    async def act(self, action: int) -> Block:
        """Take an action.

        Args:
            action: Number of a block.

        Returns:
            The block that was run: another one than chosen only under "substitute".

        Raises:
            UserError: The episode has ended, or the action is masked.
            LimitExceeded: The budget does not cover it; if a block ran by then, its step stays.
            BackendError: The model failed; likewise.
        """
        block = self.would_run(action)
        if block is Block.TERMINATE:
            await self.finish(forced=self.full)
        else:
            await self.enter(block, await self.runner.run(block, self.trajectory))
        return block

    def would_run(self, action: int) -> Block:
        """The block that an action would run.

        Raises:
            UserError: The episode has ended, or the action is masked.
        """
        self._refuse_ended()
        block = effective(action, self.ran, self.max_blocks)
        if not self.legal[action]:
            raise UserError(
                f"block {NAMES[action]!r} may not run behind {self.ran} of at most {self.max_blocks} blocks",
                hint="Episode.legal says what may",
            )
        return block

    async def enter(self, block: Block, reached: Trajectory) -> None:
        """Go on with what a block has led to: assess it, and answer if it holds the final answer.

        Args:
            block: The block that ran.
            reached: What it led to.

        Raises:
            UserError: The episode has ended.
            LimitExceeded: The budget does not cover what is asked; the step stays.
            BackendError: The model failed; likewise.
        """
        self._refuse_ended()
        self.trajectory = reached
        self.blocks.append(block)
        self.ran += 1
        finished = False
        if self.assesses:
            self.assessment, finished = await self.runner.assess_and_check(reached)
        else:
            finished = await self.runner.check(reached)
        if finished:
            self.reply = await self.runner.answer(reached)

    async def finish(self, *, forced: bool = True) -> None:
        """Ask for the answer now.

        Args:
            forced: Whether because no further block can run.

        Raises:
            UserError: The episode has ended.
            LimitExceeded: The budget does not cover it.
            BackendError: The model failed.
        """
        self._refuse_ended()
        self.reply = await self.runner.answer(self.trajectory)
        self.blocks.append(Block.TERMINATE)
        self.forced = forced

    def _refuse_ended(self) -> None:
        if self.done:
            raise UserError("the episode has ended: it has its answer", hint="begin another one")
