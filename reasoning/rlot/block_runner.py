"""`BlockRunner`: executes the logic blocks with a model.

    reason      one step                                                          1 request
    decompose   a list of subtasks, each solved after the previous one, a summary m + 2
    debate      plans, a comparison, one step along the chosen plan               3
    refine      a better last step                                                1
    answer      the final answer                                                  1
    assess, check, choose                                                         1 each

The model does not think before any of them.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, for the blocks; the prompts are ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from ...core.errors import InvalidResponse
from ...core.messages import Completion, Prompt, Request, SamplingParams
from ...core.run import Run
from ...serving.metered.model import MeteredModel
from ...serving.quick_calls import quick_params
from ..answers.extraction import complete_sentences
from ..answers.normalization import visible_text
from ..prompts import answer_trigger, question_prompt
from . import prompts
from .assessment import ASPECTS, Assessment, read_assessment
from .blocks import Block, Legal, Trajectory


@dataclass(frozen=True, slots=True)
class TrajectoryRequest:
    """One request to the model.

    Attributes:
        trajectory: The problem and its steps, which come first.
        parts: Texts after them, the instruction last.
        prefix: Beginning of the completion, for models that support it.
        is_sampled: Whether it is text of a step, for which the attempt's temperature applies; judgements and the answer
            are greedy.
        is_final: Whether it is the final answer, which may use all remaining time.
    """

    trajectory: Trajectory
    parts: Sequence[str]
    max_tokens: int
    prefix: str = ""
    stop: tuple[str, ...] = ()
    is_sampled: bool = False
    is_final: bool = False


class TrajectoryClient:
    """Sends the requests of one attempt to the model.

    Args:
        temperature: Sampling temperature of steps, subtasks and plans that the user set; None leaves it to
            `default_temperature`.
        default_temperature: Their sampling temperature where the model takes one; 0 is greedy.
        sample_index: Sample index of every request: attempts with different ones are independent, and are found again
            in the run store.

    Attributes:
        calls: Requests so far.
        tokens: Tokens generated so far.
        cut: Whether the budget has truncated a completion.
        budget: The remaining budget, without the time kept for the final answer.
    """

    def __init__(
        self,
        model: MeteredModel,
        run: Run,
        *,
        temperature: float | None,
        default_temperature: float,
        sample_index: int,
    ) -> None:
        self.model, self.run = model, run
        self.calls, self.tokens = 0, 0
        self.is_truncated = False
        self.budget = run.ledger.view()
        self._temperature, self._default_temperature, self._index = temperature, default_temperature, sample_index

    async def complete(self, *items: TrajectoryRequest) -> list[Completion]:
        """Send independent requests as one call.

        Returns:
            A completion for each; its text includes the prefix.

        Raises:
            BudgetExceeded: The budget does not cover them, or only the time for the final answer is left.
            InvalidResponse: The model gave no sample.
            BackendError: The model failed.
        """
        requests = [self._request(item) for item in items]
        ledger = self.run.ledger
        started = ledger.elapsed_s
        is_final = any(item.is_final for item in items)
        with nullcontext() if is_final else self.budget.cutoff() as enough:
            completions = [completion for (completion,) in await self.model.generate(requests, enough=enough)]
        self.budget.observe_call(ledger.elapsed_s - started)
        self.calls += len(requests)
        self.tokens += sum(completion.usage.completion_tokens for completion in completions)
        self.is_truncated = self.is_truncated or any(completion.finish_reason == "budget" for completion in completions)
        if any(completion.finish_reason == "cancelled" for completion in completions):  # the same in a replay
            raise ledger.exceeded("seconds")
        for completion in completions:
            if completion.failure is not None:
                raise InvalidResponse(f"the model gave no sample: {completion.failure.message}")
        return [
            completion.model_copy(update={"text": f"{request.prompt.prefix}{completion.text}"})
            for request, completion in zip(requests, completions, strict=True)
        ]

    def _request(self, item: TrajectoryRequest) -> Request:
        if item.is_sampled:
            sampling = SamplingParams(
                temperature=self._temperature,
                default_temperature=self._default_temperature,
                max_tokens=item.max_tokens,
                stop=item.stop,
                effort="none",
            )
        else:
            sampling = quick_params(self.model, max_tokens=item.max_tokens, stop=item.stop)
        return Request(
            prompt=self._prompt(item),
            sampling=sampling,
            sample_indices=(self._index,),
            is_attempt=item.is_sampled or item.is_final,
        )

    def _prompt(self, item: TrajectoryRequest) -> Prompt:
        steps = item.trajectory.written
        suffix = "\n\n".join([*([steps] if steps else []), *item.parts])
        prefix = item.prefix if self.model.capabilities.prefix else ""
        return question_prompt(item.trajectory.question, suffix, prefix=prefix)


MAX_ITEM_CHARS = 400
"""Maximum characters of a list item; longer ones are truncated."""
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


def read_yes_no(text: str) -> bool | None:
    """Whether the first word is yes; None if it is neither yes nor no."""
    match = _YES_NO.match(visible_text(text).text)
    return None if match is None else match[1].lower() == "yes"


def read_list(text: str, max_items: int) -> list[str]:
    """The items of a list without their numbers; empty if there is no list.

    Items are lines that begin with a number or a heading such as "Subtask 2:", or else with a bullet, and the lines
    directly below them. Duplicates are dropped.
    """
    lines = visible_text(text).text.splitlines()
    marker = _NUMBERED if any(_NUMBERED.match(line) for line in lines) else _BULLET
    items: list[list[str]] = []
    is_open = False
    for line in lines:
        match = marker.match(line)
        if match is not None:
            heading = _HEADED.match(line, match.end())  # "1. Plan 1: …"
            items.append([line[heading.end() if heading else match.end() :]])
            is_open = True
        elif is_open and line.strip():
            items[-1].append(line)
        elif is_open:
            is_open = not "".join(items[-1]).strip(_DECORATION)  # below a heading there may be a blank line
    texts = [" ".join(" ".join(line.strip(_DECORATION) for line in item).split()) for item in items]
    texts = [text.replace("**", "").strip(_DECORATION + ":")[:MAX_ITEM_CHARS].rstrip() for text in texts]
    unique: dict[str, str] = {}
    for text in texts:
        if text:
            unique.setdefault(text.casefold(), text)
    return list(unique.values())[:max_items]


def read_number(text: str, maximum: int) -> int | None:
    """The number from 1 to `maximum` that a completion chooses; None if unclear.

    It is the number at the beginning, else the one called the best, else the only plan that is mentioned.
    """
    text = visible_text(text).text
    first = _FIRST.match(text)
    if first is not None and 1 <= int(first[1]) <= maximum:
        return int(first[1])
    praised = [int(m[1] or m[2]) for m in _PRAISED.finditer(text)]
    numbers = {number for number in praised if 1 <= number <= maximum}
    if not numbers:
        numbers = {int(m[1]) for m in _NAMED.finditer(text)}
    return numbers.pop() if len(numbers) == 1 and 1 <= min(numbers) <= maximum else None


def read_step(completion: Completion) -> str:
    """The step without thoughts and label; a truncated one up to its last complete sentence."""
    text = visible_text(completion.text).text
    label = _LABEL.match(text)
    text = text[label.end() :] if label else text
    if completion.finish_reason != "stop":
        text = complete_sentences(text).strip() or text
    return text.strip().rstrip(_DECORATION).rstrip()


MIN_BLOCK_TOKENS = 24
"""Length below which a budget does not shorten steps, plans and results."""


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """Maximum lengths, in tokens unless stated otherwise."""

    step_tokens: int = 256
    plan_tokens: int = 256
    """Of a list of plans or subtasks."""
    pick_tokens: int = 48
    """Of a comparison of plans."""
    subtask_tokens: int = 192
    """Of a subtask's result."""
    summary_tokens: int = 192
    assess_tokens: int = 96
    finished_tokens: int = 4
    choose_tokens: int = 4
    answer_tokens: int = 128
    subtasks: int = 5
    """Number of subtasks."""
    plans: int = 3
    """Number of plans in a debate."""
    carried_chars: int = 800
    """Characters of a subtask's result in later prompts, counted from its end."""

    def with_answer(self, max_tokens: int) -> BlockLimits:
        """The limits with an answer of at most `max_tokens` tokens."""
        return replace(self, answer_tokens=min(self.answer_tokens, max_tokens))

    def shortened(self, share: float) -> BlockLimits | None:
        """The limits with shorter steps, plans and results; None if one would be shorter than `MIN_BLOCK_TOKENS`.

        Args:
            share: Part of their lengths, below 1.
        """
        names = ("step_tokens", "plan_tokens", "pick_tokens", "subtask_tokens", "summary_tokens")
        lengths = {name: int(getattr(self, name) * share) for name in names}
        least = {name: 1 if name == "pick_tokens" else min(MIN_BLOCK_TOKENS, getattr(self, name)) for name in names}
        return None if any(lengths[name] < least[name] for name in names) else replace(self, **lengths)


class BlockRunner:
    """Executes blocks for one attempt at a problem.

    Args:
        temperature: Sampling temperature of steps that the user set; None leaves it to `default_temperature`.
        default_temperature: Sampling temperature of steps where the model takes one; 0 is greedy. Judgements are always
            greedy.
        sample_index: Sample index of every request; attempts with different ones are independent.

    Attributes:
        scores_requested: Scores requested in assessments so far.
        scores_missing: Those that could not be parsed.
        unparsed: Other completions that could not be parsed, by kind: "subtasks", "plans", "pick", "finished",
            "choice". A list becomes one generic item, a pick the first plan, the others None or no.
    """

    def __init__(
        self,
        model: MeteredModel,
        run: Run,
        limits: BlockLimits,
        *,
        temperature: float | None = None,
        default_temperature: float = 0.0,
        sample_index: int = 0,
    ) -> None:
        self.limits = limits
        self.sample_index = sample_index
        self.client = TrajectoryClient(
            model,
            run,
            temperature=temperature,
            default_temperature=default_temperature,
            sample_index=sample_index,
        )
        self.scores_requested = 0
        self.scores_missing = 0
        self.unparsed: Counter[str] = Counter()
        self._supports_prefix = model.capabilities.prefix

    @property
    def calls(self) -> int:
        """Requests so far."""
        return self.client.calls

    @property
    def tokens(self) -> int:
        """Tokens generated so far."""
        return self.client.tokens

    # -- blocks

    async def run(self, block: Block, trajectory: Trajectory) -> Trajectory:
        """Run a block; for `TERMINATE` see `answer`.

        Returns:
            The resulting trajectory; unchanged if the model wrote nothing.

        Raises:
            BudgetExceeded: The budget does not cover a request.
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
        item = self._step_request(trajectory, [*parts, request], self.limits.step_tokens, number)
        (completion,) = await self.client.complete(item)
        return read_step(completion)

    async def _decompose(self, trajectory: Trajectory) -> str:
        limits, number = self.limits, _next(trajectory)
        tasks = await self._list("subtasks", trajectory, prompts.split(limits.subtasks), limits.subtasks)
        results: list[str] = []
        for i, task in enumerate(tasks, 1):
            parts = [*prompts.subtasks(tasks, results), prompts.solve_subtask(i, task)]
            prefix, stop = prompts.result(i), (prompts.result(i + 1),)
            request = TrajectoryRequest(
                trajectory, parts, limits.subtask_tokens, prefix=prefix, stop=stop, is_sampled=True
            )
            (completion,) = await self.client.complete(request)
            results.append(read_step(completion)[-limits.carried_chars :])
        parts = [*prompts.subtasks(tasks, results), prompts.summarise(number)]
        (completion,) = await self.client.complete(self._step_request(trajectory, parts, limits.summary_tokens, number))
        return read_step(completion)

    async def _debate(self, trajectory: Trajectory) -> str:
        limits, number = self.limits, _next(trajectory)
        plans = await self._list("plans", trajectory, prompts.plan(number, limits.plans), limits.plans)
        listed = prompts.planned(plans)
        request = TrajectoryRequest(trajectory, [listed, prompts.COMPARE], limits.pick_tokens, prefix="Plan ")
        (completion,) = await self.client.complete(request)
        chosen = read_number(completion.text, len(plans))
        if chosen is None:
            self.unparsed["pick"] += 1
            chosen = 1
        text = plans[chosen - 1]
        return f"{text}\n{await self._step(trajectory, prompts.follow(number, chosen, text), listed)}"

    async def _refine(self, trajectory: Trajectory) -> Trajectory:
        last = len(trajectory.steps)
        if last == 0:  # the model has written nothing so far
            return await self.run(Block.REASON, trajectory)
        prefix, stop = prompts.improved(last), (prompts.label(last + 1),)
        request = TrajectoryRequest(
            trajectory, [prompts.refine(last)], self.limits.step_tokens, prefix=prefix, stop=stop, is_sampled=True
        )
        (completion,) = await self.client.complete(request)
        return trajectory.with_step(read_step(completion))

    async def _list(self, name: str, trajectory: Trajectory, request: str, max_items: int) -> list[str]:
        query = TrajectoryRequest(trajectory, [request], self.limits.plan_tokens, prefix="1.", is_sampled=True)
        (completion,) = await self.client.complete(query)
        items = read_list(completion.text, max_items)
        if not items:
            self.unparsed[name] += 1
            items = [prompts.GENERIC_SUBTASK if name == "subtasks" else prompts.GENERIC_PLAN]
        return items

    def _step_request(
        self, trajectory: Trajectory, parts: list[str], max_tokens: int, number: int
    ) -> TrajectoryRequest:
        """Request for the text of step `number`, which ends before the next step."""
        prefix, stop = prompts.label(number), (prompts.label(number + 1),)
        return TrajectoryRequest(trajectory, parts, max_tokens, prefix=prefix, stop=stop, is_sampled=True)

    # -- questions about a trajectory

    async def assess(self, trajectory: Trajectory) -> Assessment:
        """The model's self-assessment (raises as `run`)."""
        (completion,) = await self.client.complete(self._assess_request(trajectory))
        return self._read_assessment(completion)

    async def check(self, trajectory: Trajectory) -> bool:
        """Whether the model states that the steps contain the final answer (raises as `run`)."""
        (completion,) = await self.client.complete(self._check_request(trajectory))
        return self._read_check(completion)

    async def assess_and_check(self, trajectory: Trajectory) -> tuple[Assessment, bool]:
        """`assess` and `check` as one call, since both depend on the same text (raises as `run`)."""
        assessed, checked = await self.client.complete(
            self._assess_request(trajectory), self._check_request(trajectory)
        )
        return self._read_assessment(assessed), self._read_check(checked)

    async def answer(self, trajectory: Trajectory) -> Completion:
        """The final answer, including the prefix (raises as `run`)."""
        request = prompts.answer(trajectory.question, has_steps=bool(trajectory.steps))
        prefix = answer_trigger(trajectory.question)
        stop = ("\n\n",) if self._supports_prefix else ()  # without a prefix the completion may begin with a heading
        query = TrajectoryRequest(
            trajectory, [request], self.limits.answer_tokens, prefix=prefix, stop=stop, is_final=True
        )
        (completion,) = await self.client.complete(query)
        return completion

    async def choose_block(self, trajectory: Trajectory, legal: Legal) -> Block | None:
        """The legal block that the model chooses; None if the completion names none (raises as `run`)."""
        options = [block for block in Block if legal[block]]
        request = TrajectoryRequest(trajectory, [prompts.choose(options)], self.limits.choose_tokens)
        (completion,) = await self.client.complete(request)
        chosen = read_number(completion.text, len(options))
        self.unparsed["choice"] += chosen is None
        return None if chosen is None else options[chosen - 1]

    def _assess_request(self, trajectory: Trajectory) -> TrajectoryRequest:
        request = prompts.assess(has_steps=bool(trajectory.steps))
        return TrajectoryRequest(
            trajectory, [request], self.limits.assess_tokens, prefix=prompts.SCORES_BEGIN, stop=("}",)
        )

    def _check_request(self, trajectory: Trajectory) -> TrajectoryRequest:
        return TrajectoryRequest(trajectory, [prompts.FINISHED], self.limits.finished_tokens)

    def _read_assessment(self, completion: Completion) -> Assessment:
        assessment = read_assessment(f"{completion.text}}}")  # the stop string is not part of the text
        self.scores_requested += len(ASPECTS)
        self.scores_missing += assessment.missing
        return assessment

    def _read_check(self, completion: Completion) -> bool:
        verdict = read_yes_no(completion.text)
        self.unparsed["finished"] += verdict is None
        return verdict is True

    # -- maximum cost

    def max_tokens(self, block: Block, *, with_assessment: bool = True) -> int:
        """Maximum tokens of a block and the finish check after it, with or without an assessment."""
        limits = self.limits
        if block is Block.TERMINATE:
            return limits.answer_tokens
        block_tokens = {
            Block.REASON: limits.step_tokens,
            Block.DECOMPOSE: limits.plan_tokens + limits.subtasks * limits.subtask_tokens + limits.summary_tokens,
            Block.DEBATE: limits.plan_tokens + limits.pick_tokens + limits.step_tokens,
            Block.REFINE: limits.step_tokens,
        }
        return block_tokens[block] + self.check_tokens(with_assessment=with_assessment)

    def check_tokens(self, *, with_assessment: bool) -> int:
        """Maximum tokens of the finish check after a block, with or without an assessment."""
        limits = self.limits
        # the budget is shared equally among the requests of one call
        return 2 * max(limits.assess_tokens, limits.finished_tokens) if with_assessment else limits.finished_tokens

    def max_calls(self, block: Block, *, with_assessment: bool = True) -> int:
        """Maximum requests of a block and the finish check after it."""
        if block is Block.TERMINATE:
            return 1
        block_calls = {Block.REASON: 1, Block.DECOMPOSE: self.limits.subtasks + 2, Block.DEBATE: 3, Block.REFINE: 1}
        return block_calls[block] + (2 if with_assessment else 1)


def _next(trajectory: Trajectory) -> int:
    return len(trajectory.steps) + 1
