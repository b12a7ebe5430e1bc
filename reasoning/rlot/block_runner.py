"""`BlockRunner`: carries the logic blocks out with a model, and asks it about a trajectory.

    reason      one step                                                          1 request
    decompose   a list of subtasks, each solved after the ones before, a summary  m + 2
    debate      plans, a comparison, one step along the chosen plan               3
    refine      the last step, better                                             1
    answer      the final answer                                                  1
    assess, check, choose                                                         1 each

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, for the blocks; the prompts are ours.

`Asker`: puts requests behind a trajectory and sends those that do not depend on each other as one call.

Reading what the model replied: yes or no, a list, the number of a choice, a step.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import Field

from ...core.concurrency import gather
from ...core.errors import InvalidResponse, ReasonError
from ...core.messages import Completion, Frozen, Prompt, Request, SamplingParams
from ...core.run import Run
from ...serving.metered.model import MeteredModel
from ..answer_time import AnswerTime
from ..answers.normalization import visible_text
from ..candidates import complete_sentences
from ..prompts import answer_trigger, question_prompt
from . import prompts
from .assessment import ASPECTS, Assessment, read_assessment
from .blocks import Block, Legal, RefineMode, Trajectory


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to the model.

    Attributes:
        trajectory: The problem and its steps, which come first.
        parts: What stands behind them, the request itself last.
        tokens: Most tokens of the reply.
        begin: How the reply begins, for models that can be given that.
        stop: Strings that end it.
        creative: Whether it is sampled at the attempt's temperature; what is judged or read is greedy.
        last: Whether it is the final answer, which may take all of the time that is left.
    """

    trajectory: Trajectory
    parts: Sequence[str]
    tokens: int
    begin: str = ""
    stop: tuple[str, ...] = ()
    creative: bool = False
    last: bool = False


class Asker:
    """Asks one model about trajectories, for one attempt at a problem.

    Args:
        model: The model.
        run: The run.
        system: System message; empty leaves it to the model.
        temperature: Sampling temperature of steps, subtasks and plans; 0 is greedy.
        sample_index: Which sample of each request is wanted: attempts with different ones are independent, and each is
            found again in the run store.

    Attributes:
        calls: Requests so far.
        tokens: Tokens generated so far.
        cut: Whether the budget has cut a reply short.
        time: What is kept of a time limit for the final answer.
    """

    def __init__(self, model: MeteredModel, run: Run, *, system: str, temperature: float, sample_index: int) -> None:
        self.model, self.run = model, run
        self.calls, self.tokens = 0, 0
        self.cut = False
        self.time = AnswerTime(run)
        self.system = system
        self._temperature, self._index = temperature, sample_index

    async def ask(self, *asked: Asked) -> list[Completion]:
        """Send requests as one call.

        Returns:
            A reply for each; its text has the given beginning in front.

        Raises:
            LimitExceeded: The budget does not cover them, or the time for everything but the final answer is over.
            BadReply: The model gave no sample.
            BackendError: It failed altogether.
        """
        requests = [self._request(one) for one in asked]
        ledger = self.run.ledger
        began = ledger.elapsed_s
        last = any(one.last for one in asked)
        with nullcontext() if last else self.time.cutting() as enough:  # cut where the time for an answer begins
            replies = [reply for (reply,) in await self.model.generate(requests, enough=enough)]
        self.time.took(ledger.elapsed_s - began)
        self.calls += len(requests)
        self.tokens += sum(reply.usage.completion_tokens for reply in replies)
        self.cut = self.cut or any(reply.finish_reason == "budget" for reply in replies)
        if any(reply.finish_reason == "cancelled" for reply in replies):  # likewise when it is replayed
            raise ledger.refuse("seconds")
        for reply in replies:
            if reply.failure is not None:
                raise InvalidResponse(f"the model gave no sample: {reply.failure.message}")
        return [
            reply.model_copy(update={"text": f"{request.prompt.prefix}{reply.text}"})
            for request, reply in zip(requests, replies, strict=True)
        ]

    def _request(self, asked: Asked) -> Request:
        sampling = SamplingParams(
            temperature=self._temperature if asked.creative else 0.0,
            max_tokens=asked.tokens,
            stop=asked.stop,
            logprobs=False,
        )
        return Request(prompt=self._prompt(asked), sampling=sampling, samples=(self._index,))

    def _prompt(self, asked: Asked) -> Prompt:
        written = asked.trajectory.written
        behind = "\n\n".join([*([written] if written else []), *asked.parts])
        begin = asked.begin if self.model.capabilities.prefix else ""
        return question_prompt(asked.trajectory.question, behind, system=self.system, prefix=begin)


MOST_ITEM_CHARS = 400
"""Longest item of a list, in characters; what is longer is cut."""
_WRAPPING = r"[\s*_`\"'“”‘’(\[#>-]{0,8}"  # noqa: RUF001 (typographic quotes are meant)
_YES_NO = re.compile(rf"{_WRAPPING}(yes|no)(?![\w-]|['’]\w)", re.IGNORECASE)  # noqa: RUF001
_LABEL = re.compile(
    r"[\s#*_>]{0,8}(?:step|(?:result\sof\s)?subtask)\s{1,2}\d{1,3}(?:,?\s(?:improved|again))?[\s*_]{0,4}"
    r"(?:[:.)–—-][\s*_]{0,4}|\n)",  # noqa: RUF001 (dashes are meant)
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"[\s#*_>(]{0,8}(?:(?:sub-?task|plan|task|option)\s{1,2}\(?\d{1,2}[\s*_]{0,4}(?:[:.)–—-]|$)"  # noqa: RUF001
    r"|\d{1,2}\s?[.):](?!\d))",
    re.IGNORECASE,
)
_HEADED = re.compile(r"[\s*_]{0,4}(?:sub-?task|plan|task|option)\s{1,2}\d{1,2}[\s*_]{0,4}[:.)–—-]", re.IGNORECASE)  # noqa: RUF001
_BULLET = re.compile(r"\s{0,8}[-*•+]\s")
_DECORATION = " \t\r\n*_#`"
_ALONE = r"(?![\d.,]?\d)"
_FIRST = re.compile(
    rf"{_WRAPPING}(?:(?:plan|option|number|choice)\s{{0,2}}[#:]?\s{{0,2}})?{_WRAPPING}(\d{{1,2}}){_ALONE}"
    r"(?!\s{0,2}(?:,|/|&|and|or|vs\.?)\s{0,2}(?:plan\s{0,2})?\d)",
    re.IGNORECASE,
)
_PRAISED = re.compile(
    r"(?:best|promising|choose|chose|chosen|pick|prefer|preferred|select|selected)\b[^\d\n]{0,40}?(\d{1,2})(?![\d.,]?\d)"
    r"|plan\s{0,2}#?(\d{1,2})\b[^\d\n.]{0,40}?\b(?:best|most promising)\b",
    re.IGNORECASE,
)
_NAMED = re.compile(r"\bplan\s{0,2}#?(\d{1,2})\b", re.IGNORECASE)


def read_yes_no(reply: str) -> bool | None:
    """Whether a reply says yes; None if it says neither.

    Its first word decides, and nothing else: a "yes" further on, or as part of another word, is none.
    """
    found = _YES_NO.match(visible_text(reply).text)
    return None if found is None else found[1].lower() == "yes"


def read_list(reply: str, most: int) -> list[str]:
    """The items of a list, without their numbers; empty if there is no list.

    Items are lines that begin with a number or a heading such as "Subtask 2:"; where there are none, with a bullet.
    What stands on lines directly below belongs to the item; an item that only repeats another is left out.

    Args:
        reply: The reply.
        most: Most items; the others are dropped.
    """
    lines = visible_text(reply).text.splitlines()
    marker = _NUMBERED if any(_NUMBERED.match(line) for line in lines) else _BULLET
    items: list[list[str]] = []
    takes = False
    for line in lines:
        mark = marker.match(line)
        if mark is not None:
            again = _HEADED.match(line, mark.end())  # "1. Plan 1: …"
            items.append([line[again.end() if again else mark.end() :]])
            takes = True
        elif takes and line.strip():
            items[-1].append(line)
        elif takes:
            takes = not "".join(items[-1]).strip(_DECORATION)  # below a heading there may be a blank line
    texts = [" ".join(" ".join(line.strip(_DECORATION) for line in item).split()) for item in items]
    texts = [text.replace("**", "").strip(_DECORATION + ":")[:MOST_ITEM_CHARS].rstrip() for text in texts]
    different: dict[str, str] = {}
    for text in texts:
        if text:
            different.setdefault(text.casefold(), text)
    return list(different.values())[:most]


def read_number(reply: str, most: int) -> int | None:
    """The number, from 1 to `most`, of what a reply chooses; None if it cannot be told.

    It is what the reply begins with, else what it calls the best, else the only plan that it names.
    """
    text = visible_text(reply).text
    first = _FIRST.match(text)
    if first is not None and 1 <= int(first[1]) <= most:
        return int(first[1])
    praised = [int(m[1] or m[2]) for m in _PRAISED.finditer(text)]
    named = {number for number in praised if 1 <= number <= most}
    if not named:
        named = {int(m[1]) for m in _NAMED.finditer(text)}
    return named.pop() if len(named) == 1 and 1 <= min(named) <= most else None


def read_step(reply: Completion) -> str:
    """The step in a reply, without thoughts and without its number; cut short, up to its last whole sentence."""
    text = visible_text(reply.text).text
    label = _LABEL.match(text)
    text = text[label.end() :] if label else text
    if reply.finish_reason != "stop":
        text = complete_sentences(text).strip() or text
    return text.strip().rstrip(_DECORATION).rstrip()


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
                return trajectory.with_step(await self._step(trajectory, prompts.one_step(_next(trajectory))))
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
        tasks = await self._list("subtasks", trajectory, prompts.split(limits.subtasks), limits.subtasks)
        results: list[str] = []
        for at, task in enumerate(tasks, 1):
            parts = [*prompts.subtasks(tasks, results), prompts.solve_subtask(at, task)]
            begin, stop = prompts.result(at), (prompts.result(at + 1),)
            asked = Asked(trajectory, parts, limits.subtask_tokens, begin=begin, stop=stop, creative=True)
            (reply,) = await self.asker.ask(asked)
            results.append(read_step(reply)[-limits.carried_chars :])
        parts = [*prompts.subtasks(tasks, results), prompts.summarise(number)]
        (reply,) = await self.asker.ask(self._written(trajectory, parts, limits.summary_tokens, number))
        return read_step(reply)

    async def _debate(self, trajectory: Trajectory) -> str:
        limits, number = self.limits, _next(trajectory)
        plans = await self._list("plans", trajectory, prompts.plan(number, limits.plans), limits.plans)
        listed = prompts.planned(plans)
        pick = Asked(trajectory, [listed, prompts.COMPARE], limits.pick_tokens, begin="Plan ")
        (reply,) = await self.asker.ask(pick)
        chosen = read_number(reply.text, len(plans))
        if chosen is None:
            self.unread["pick"] += 1
            chosen = 1
        text = plans[chosen - 1]
        return f"{text}\n{await self._step(trajectory, prompts.follow(number, chosen, text), listed)}"

    async def _refine(self, trajectory: Trajectory) -> Trajectory:
        last = len(trajectory.steps)
        if last == 0:  # nothing to refine: the model wrote nothing so far
            return await self.run(Block.REASON, trajectory)
        begin, stop = prompts.improved(last), (prompts.label(last + 1),)
        asked = Asked(
            trajectory, [prompts.refine(last)], self.limits.step_tokens, begin=begin, stop=stop, creative=True
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
            items = [prompts.GENERIC_SUBTASK if name == "subtasks" else prompts.GENERIC_PLAN]
        return items

    def _written(self, trajectory: Trajectory, parts: list[str], tokens: int, number: int) -> Asked:
        """A request for the text of step `number`, which ends before another one begins."""
        begin, stop = prompts.label(number), (prompts.label(number + 1),)
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
        request = prompts.answer(trajectory.question, begun=bool(trajectory.steps))
        begin = answer_trigger(trajectory.question)
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
        asked = Asked(trajectory, [prompts.choose(open_to)], self.limits.choose_tokens)
        (reply,) = await self.asker.ask(asked)
        chosen = read_number(reply.text, len(open_to))
        self.unread["choice"] += chosen is None
        return None if chosen is None else open_to[chosen - 1]

    def _assessing(self, trajectory: Trajectory) -> Asked:
        request = prompts.assess(begun=bool(trajectory.steps))
        return Asked(trajectory, [request], self.limits.assess_tokens, begin=prompts.SCORES_BEGIN, stop=("}",))

    def _checking(self, trajectory: Trajectory) -> Asked:
        return Asked(trajectory, [prompts.FINISHED], self.limits.finished_tokens)

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


T = TypeVar("T")


def unbounded(run: Run) -> bool:
    """Whether nothing but time limits the run.

    Then work may go on side by side: how much of a limit is left for one never depends on how far the others are, and
    a replay asks what the run asked.
    """
    budget = run.ledger.budget
    return budget.tokens is None and budget.calls is None and budget.usd is None and budget.reward_calls is None


async def at_once(works: Sequence[Callable[[], Awaitable[T]]], run: Run) -> list[T | ReasonError]:
    """What works come to, side by side where nothing but time limits the run, else one after another.

    Returns:
        For each its result, or the error that it ended with.
    """

    async def one(work: Callable[[], Awaitable[T]]) -> T | ReasonError:
        try:
            return await work()
        except ReasonError as e:
            return e

    if not unbounded(run):
        return [await one(work) for work in works]
    return await gather([one(work) for work in works])
