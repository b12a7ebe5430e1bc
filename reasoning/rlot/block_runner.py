"""`BlockRunner`: carries the logic blocks out with a model, and asks it about a trajectory.

    reason      one step                                                          1 request
    decompose   a list of subtasks, each solved after the ones before, a summary  m + 2
    debate      plans, a comparison, one step along the chosen plan               3
    refine      the last step, better                                             1
    answer      the final answer                                                  1
    assess, check, choose                                                         1 each

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, for the blocks; the prompts are ours.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from pydantic import Field

from ...core.messages import Completion, Frozen
from ...core.run import Run
from ...serving.metered import MeteredModel
from ..prompts import therefore
from . import wording
from .asking import Asked, Asker
from .assessment import ASPECTS, Assessment, read_assessment
from .blocks import Block, Legal
from .navigator_card import RefineMode
from .replies import read_list, read_number, read_step, read_yes_no
from .trajectory import Trajectory


class Limits(Frozen):
    """How long what is written may be, in tokens unless it says otherwise."""

    step_tokens: Annotated[int, Field(ge=1, description="most tokens of a step")] = 256
    plan_tokens: Annotated[int, Field(ge=1, description="most tokens of a list of plans or subtasks")] = 256
    pick_tokens: Annotated[int, Field(ge=1, description="most tokens of a comparison of plans")] = 48
    subtask_tokens: Annotated[int, Field(ge=1, description="most tokens of a subtask's result")] = 192
    summary_tokens: Annotated[int, Field(ge=1, description="most tokens of the summary of the subtasks")] = 192
    assess_tokens: Annotated[int, Field(ge=1, description="most tokens of a self-assessment")] = 96
    finished_tokens: Annotated[int, Field(ge=1, description="most tokens of the finish check's reply")] = 4
    choose_tokens: Annotated[int, Field(ge=1, description="most tokens of a choice among blocks")] = 4
    answer_tokens: Annotated[int, Field(ge=1, description="most tokens of the final answer")] = 128
    subtasks: Annotated[int, Field(ge=1, le=20, description="most subtasks")] = 5
    plans: Annotated[int, Field(ge=1, le=20, description="plans in a debate")] = 3
    carried_chars: Annotated[
        int, Field(ge=1, description="most characters of a subtask's result that later prompts see, from its end")
    ] = 800


class BlockRunner:
    """Runs blocks of one attempt at a problem. Nothing it sends is made of more than the trajectory and fixed words.

    Args:
        model: The model.
        run: The run.
        limits: How long what is written may be.
        refine_mode: Whether a refined step comes behind the one it refines, as the paper has it, or in its place.
        system: System message; empty leaves it to the model.
        temperature: Sampling temperature of what is written; 0 is greedy. What is judged is always greedy.
        sample_index: Which sample of each request is wanted; attempts with different ones are independent.

    Attributes:
        scores_asked: Scores that assessments should have had so far.
        scores_missing: Those of them that could not be read.
        unread: Other replies that could not be read, by what they should have been: "subtasks", "plans", "pick",
            "finished", "choice". A list becomes one generic item, a pick the first plan, the others None or no.
    """

    def __init__(
        self,
        model: MeteredModel,
        run: Run,
        limits: Limits,
        *,
        refine_mode: RefineMode = "append",
        system: str = "",
        temperature: float = 0.0,
        sample_index: int = 0,
    ) -> None:
        self.limits = limits
        self.sample_index = sample_index
        self.asker = Asker(model, run, system=system, temperature=temperature, sample_index=sample_index)
        self.scores_asked = 0
        self.scores_missing = 0
        self.unread: Counter[str] = Counter()
        self._refine_mode = refine_mode
        self._begins = model.capabilities.prefix

    @property
    def calls(self) -> int:
        """Requests so far."""
        return self.asker.calls

    @property
    def tokens(self) -> int:
        """Tokens generated so far."""
        return self.asker.tokens

    # -- blocks

    async def run(self, block: Block, trajectory: Trajectory) -> Trajectory:
        """Run a block; `TERMINATE` is none, see `answer`.

        Returns:
            The trajectory that it leads to; the same one if the model wrote nothing.

        Raises:
            LimitExceeded: The budget does not cover a request.
            BackendError: The model failed.
        """
        match block:
            case Block.REASON:
                return trajectory.with_step(await self._step(trajectory, wording.one_step(_next(trajectory))))
            case Block.DECOMPOSE:
                return trajectory.with_step(await self._decompose(trajectory))
            case Block.DEBATE:
                return trajectory.with_step(await self._debate(trajectory))
            case Block.REFINE:
                return await self._refine(trajectory)
            case Block.TERMINATE:
                return trajectory

    async def _step(self, trajectory: Trajectory, request: str, *parts: str) -> str:
        number = _next(trajectory)
        asked = self._written(trajectory, [*parts, request], self.limits.step_tokens, number)
        (reply,) = await self.asker.ask(asked)
        return read_step(reply)

    async def _decompose(self, trajectory: Trajectory) -> str:
        limits, number = self.limits, _next(trajectory)
        tasks = await self._list("subtasks", trajectory, wording.split(limits.subtasks), limits.subtasks)
        results: list[str] = []
        for at, task in enumerate(tasks, 1):
            parts = [*wording.subtasks(tasks, results), wording.solve_subtask(at, task)]
            begin, stop = wording.result(at), (wording.result(at + 1),)
            asked = Asked(trajectory, parts, limits.subtask_tokens, begin=begin, stop=stop, creative=True)
            (reply,) = await self.asker.ask(asked)
            results.append(read_step(reply)[-limits.carried_chars :])
        parts = [*wording.subtasks(tasks, results), wording.summarise(number)]
        (reply,) = await self.asker.ask(self._written(trajectory, parts, limits.summary_tokens, number))
        return read_step(reply)

    async def _debate(self, trajectory: Trajectory) -> str:
        limits, number = self.limits, _next(trajectory)
        plans = await self._list("plans", trajectory, wording.plan(number, limits.plans), limits.plans)
        listed = wording.planned(plans)
        pick = Asked(trajectory, [listed, wording.COMPARE], limits.pick_tokens, begin="Plan ")
        (reply,) = await self.asker.ask(pick)
        chosen = read_number(reply.text, len(plans))
        if chosen is None:
            self.unread["pick"] += 1
            chosen = 1
        text = plans[chosen - 1]
        return f"{text}\n{await self._step(trajectory, wording.follow(number, chosen, text), listed)}"

    async def _refine(self, trajectory: Trajectory) -> Trajectory:
        last = len(trajectory.steps)
        if last == 0:  # nothing to refine: the model wrote nothing so far
            return await self.run(Block.REASON, trajectory)
        begin, stop = wording.improved(last), (wording.label(last + 1),)
        asked = Asked(
            trajectory, [wording.refine(last)], self.limits.step_tokens, begin=begin, stop=stop, creative=True
        )
        (reply,) = await self.asker.ask(asked)
        text = read_step(reply)
        return trajectory.with_last(text) if self._refine_mode == "replace" else trajectory.with_step(text)

    async def _list(self, name: str, trajectory: Trajectory, request: str, most: int) -> list[str]:
        asked = Asked(trajectory, [request], self.limits.plan_tokens, begin="1.", creative=True)
        (reply,) = await self.asker.ask(asked)
        items = read_list(reply.text, most)
        if not items:
            self.unread[name] += 1
            items = [wording.GENERIC_SUBTASK if name == "subtasks" else wording.GENERIC_PLAN]
        return items

    def _written(self, trajectory: Trajectory, parts: list[str], tokens: int, number: int) -> Asked:
        """A request for the text of step `number`, which ends before another one begins."""
        begin, stop = wording.label(number), (wording.label(number + 1),)
        return Asked(trajectory, parts, tokens, begin=begin, stop=stop, creative=True)

    # -- questions about a trajectory

    async def assess(self, trajectory: Trajectory) -> Assessment:
        """Let the model assess where it stands (raises as `run`)."""
        (reply,) = await self.asker.ask(self._assessing(trajectory))
        return self._assessed(reply)

    async def check(self, trajectory: Trajectory) -> bool:
        """Whether the model says that the steps state the final answer (raises as `run`)."""
        (reply,) = await self.asker.ask(self._checking(trajectory))
        return self._checked(reply)

    async def assess_and_check(self, trajectory: Trajectory) -> tuple[Assessment, bool]:
        """Both, as one call: they depend on the same text (raises as `run`)."""
        assessed, checked = await self.asker.ask(self._assessing(trajectory), self._checking(trajectory))
        return self._assessed(assessed), self._checked(checked)

    async def answer(self, trajectory: Trajectory) -> Completion:
        """The final answer; its text has the beginning that the reply was given (raises as `run`)."""
        request = wording.answer(trajectory.question, begun=bool(trajectory.steps))
        begin = therefore(trajectory.question)
        stop = ("\n\n",) if self._begins else ()  # without a beginning, what comes first may be a heading
        asked = Asked(trajectory, [request], self.limits.answer_tokens, begin=begin, stop=stop, last=True)
        (reply,) = await self.asker.ask(asked)
        return reply

    async def choose_block(self, trajectory: Trajectory, legal: Legal) -> Block | None:
        """Let the model choose the next block (raises as `run`).

        Args:
            trajectory: Where it stands.
            legal: Which blocks it may choose.

        Returns:
            The block; None if the reply names none.
        """
        open_to = [block for block in Block if legal[block]]
        asked = Asked(trajectory, [wording.choose(open_to)], self.limits.choose_tokens)
        (reply,) = await self.asker.ask(asked)
        chosen = read_number(reply.text, len(open_to))
        self.unread["choice"] += chosen is None
        return None if chosen is None else open_to[chosen - 1]

    def _assessing(self, trajectory: Trajectory) -> Asked:
        request = wording.assess(begun=bool(trajectory.steps))
        return Asked(trajectory, [request], self.limits.assess_tokens, begin=wording.SCORES_BEGIN, stop=("}",))

    def _checking(self, trajectory: Trajectory) -> Asked:
        return Asked(trajectory, [wording.FINISHED], self.limits.finished_tokens)

    def _assessed(self, reply: Completion) -> Assessment:
        assessment = read_assessment(f"{reply.text}}}")  # the stop string is not part of the text
        self.scores_asked += len(ASPECTS)
        self.scores_missing += assessment.missing
        return assessment

    def _checked(self, reply: Completion) -> bool:
        said = read_yes_no(reply.text)
        self.unread["finished"] += said is None
        return said is True

    # -- what it may cost

    def most_tokens(self, block: Block, *, assesses: bool = True) -> int:
        """Most tokens that a block generates, with the finish check behind it.

        Args:
            block: The block.
            assesses: Whether the assessment comes with the check.
        """
        limits = self.limits
        if block is Block.TERMINATE:
            return limits.answer_tokens
        own = {
            Block.REASON: limits.step_tokens,
            Block.DECOMPOSE: limits.plan_tokens + limits.subtasks * limits.subtask_tokens + limits.summary_tokens,
            Block.DEBATE: limits.plan_tokens + limits.pick_tokens + limits.step_tokens,
            Block.REFINE: limits.step_tokens,
        }
        # a budget is shared out evenly among the requests of one call
        behind = 2 * max(limits.assess_tokens, limits.finished_tokens) if assesses else limits.finished_tokens
        return own[block] + behind

    def most_calls(self, block: Block, *, assesses: bool = True) -> int:
        """Most requests of a block, with the finish check behind it (see `most_tokens`)."""
        if block is Block.TERMINATE:
            return 1
        own = {Block.REASON: 1, Block.DECOMPOSE: self.limits.subtasks + 2, Block.DEBATE: 3, Block.REFINE: 1}
        return own[block] + (2 if assesses else 1)


def _next(trajectory: Trajectory) -> int:
    """Number of the next step."""
    return len(trajectory.steps) + 1
