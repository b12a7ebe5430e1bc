"""`Episode`: one attempt at a problem, block by block, from the bare problem to its answer.

    begin   s = assess(problem)
    act(a)  a = Terminate:  the answer
            else:           the block adds its step; s = assess(steps); if the finish check is positive: the answer
    at most `max_blocks` blocks run before the answer

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140. Differs: Terminate takes one request, without the
unused assessment of the answer; assessment and finish check are one call of two requests.
"""

from __future__ import annotations

from ...core.errors import UserError
from ...core.messages import Completion
from ...core.types import Question
from .assessment import Assessment, State
from .block_runner import BlockRunner
from .blocks import NAMES, Block, Legal, Parity, Trajectory, effective_block, legal_blocks

EMPTY_STATE: State = (0, 0, 0, 0, 0, 0, 0)
"""The state without an assessment."""


class Episode:
    """One attempt. After an error it is unchanged or follows the block that had run; `finish` can still be called.

    Requests: 1 for the bare problem; Reason and Refine 3, Debate 5, Decompose m + 4 with m subtasks, Terminate 1; one
    more if the finish check is positive. Without assessments each of them but Terminate takes one fewer.

    Args:
        runner: Executes the blocks.
        max_blocks: Maximum blocks before the answer.
        parity: Treatment of illegal actions (see `blocks`).
        with_assessment: Whether the model assesses itself; otherwise the state is all zeros.

    Attributes:
        trajectory: The problem and the steps so far.
        assessment: The last assessment.
        num_blocks: Number of blocks run.
        blocks: Those blocks, followed by `TERMINATE` if it was chosen or forced.
        completion: The final answer; None until then.
        forced: Whether the answer was requested because no further block may run.
    """

    def __init__(
        self,
        runner: BlockRunner,
        question: Question,
        *,
        max_blocks: int = 5,
        parity: Parity = "none",
        with_assessment: bool = True,
    ) -> None:
        legal_blocks(0, max_blocks, parity)  # validates the arguments
        self.runner = runner
        self.max_blocks = max_blocks
        self.parity: Parity = parity
        self.with_assessment = with_assessment
        self.trajectory = Trajectory(question)
        self.assessment = Assessment(EMPTY_STATE, 0)
        self.blocks: list[Block] = []
        self.num_blocks = 0
        self.completion: Completion | None = None
        self.forced = False

    @property
    def state(self) -> State:
        """The scores of the last assessment."""
        return self.assessment.state

    @property
    def legal(self) -> Legal:
        """Legality of each action."""
        return legal_blocks(self.num_blocks, self.max_blocks, self.parity)

    @property
    def is_full(self) -> bool:
        """Whether the maximum number of blocks has run."""
        return self.num_blocks >= self.max_blocks

    @property
    def is_done(self) -> bool:
        """Whether it has its answer."""
        return self.completion is not None

    async def begin(self) -> None:
        """Assess the bare problem, if assessments are on.

        Raises:
            BudgetExceeded: The budget does not cover it.
            BackendError: The model failed.
        """
        self._require_open()
        if self.with_assessment:
            self.assessment = await self.runner.assess(self.trajectory)

    async def act(self, action: int) -> Block:
        """Take an action.

        Returns:
            The block that ran, which differs from the action only with `parity="reference"`.

        Raises:
            UserError: The episode has ended, or the action is masked.
            BudgetExceeded: The budget does not cover it; the step of a block that had run stays.
            BackendError: The model failed; likewise.
        """
        block = self.effective_block(action)
        if block is Block.TERMINATE:
            await self.finish(forced=self.is_full)
        else:
            await self._advance(block, await self.runner.run(block, self.trajectory))
        return block

    def effective_block(self, action: int) -> Block:
        """The block that an action would run.

        Raises:
            UserError: The episode has ended, or the action is masked.
        """
        self._require_open()
        block = effective_block(action, self.num_blocks, self.max_blocks)
        if not self.legal[action]:
            raise UserError(
                f"block {NAMES[action]!r} is not legal after {self.num_blocks} of up to {self.max_blocks} blocks",
                hint="choose an action that Episode.legal allows",
            )
        return block

    async def _advance(self, block: Block, trajectory: Trajectory) -> None:
        """Continue with the result of a block: assess it, and answer if it contains the final answer."""
        self.trajectory = trajectory
        self.blocks.append(block)
        self.num_blocks += 1
        finished = False
        if self.with_assessment:
            self.assessment, finished = await self.runner.assess_and_check(trajectory)
        else:
            finished = await self.runner.check(trajectory)
        if finished:
            self.completion = await self.runner.answer(trajectory)

    async def finish(self, *, forced: bool = True) -> None:
        """Request the answer now.

        Args:
            forced: Whether no further block may run.

        Raises:
            UserError: The episode has ended.
            BudgetExceeded: The budget does not cover it.
            BackendError: The model failed.
        """
        self._require_open()
        self.completion = await self.runner.answer(self.trajectory)
        self.blocks.append(Block.TERMINATE)
        self.forced = forced

    def _require_open(self) -> None:
        if self.is_done:
            raise UserError("the episode has ended: it has its answer", hint="begin another episode")
