"""Continuing a partial solution: `Prefix`, the prompts that continue it, its completion, and `StepSampler`.

The steps are those of the answer, before which the model does not think; or, for routers and workers that write one
thought together, those of an open thought, which is continued exactly.

`StepSampler` continues many partial solutions by one step each, in one batch. Steps end at a delimiter, which is given
to the backend as a stop string: that works everywhere, and no token is spent on it. A step that is too long simply
ends, so a search tree holds only text that the model generated.

Source: the step of A*-decoding (Chatziveroglou 2025, arXiv:2505.13672) and of particle filtering (Puri et al. 2025,
arXiv:2502.01618), which cut at blank lines. Differs: a blank line in fenced code or a displayed formula ends no step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Annotated, Final, Literal, overload

from pydantic import Field

from ..core.concurrency import paced
from ..core.errors import BudgetExceeded, UserError
from ..core.messages import Completion, FinishReason, Frozen, Message, Prompt, Request, SamplingParams, Thought
from ..core.run import Run
from ..core.types import Candidate, Question
from ..serving.metered.model import MeteredModel
from .answers.extraction import complete_sentences, extract_answer, read_candidate
from .segmentation import find_boundary, is_inside_block, normalize_step, strip_repeated_steps

CONTINUE_INSTRUCTION = (
    "Your response above is incomplete. Continue with the next step, picking up exactly where it left off. Do not "
    "repeat any of it or comment on it."
)
"""Instruction for a model that cannot continue a given prefix."""

MIN_SHARE_TOKENS = 32
"""If a budget does not cover all samples, fewer are requested rather than giving one less than this."""


@dataclass(frozen=True)
class Prefix(Sequence[str]):
    """A partial solution: the sequence of its steps' texts, and what is known of their generation.

    Attributes:
        steps: The steps, without the delimiters between them.
        text: The exact text, delimiters included.
        token_ids: Its tokens, so that it is continued exactly and matches a cache; None if the backend hides them.
        terminal: Whether the solution has ended or stated its answer, so that there is nothing to continue.
        is_cut: Whether its last step was cut at its maximum tokens or by the budget.
    """

    steps: tuple[str, ...] = ()
    text: str = ""
    token_ids: tuple[int, ...] | None = ()
    terminal: bool = False
    is_cut: bool = False

    def append(
        self,
        step: str,
        text: str,
        token_ids: tuple[int, ...] | None,
        *,
        terminal: bool = False,
    ) -> Prefix:
        """This prefix with one more step.

        Args:
            step: The step, without a delimiter.
            text: The complete text with it.
            token_ids: All tokens with it; None if unknown.
            terminal: Whether the solution ends with it.
        """
        return Prefix(
            steps=(*self.steps, step),
            text=text,
            token_ids=token_ids,
            terminal=terminal,
        )

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.steps)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...

    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        """A step, or several."""
        return self.steps[at]


def split_tokens(tokens: float, count: int, max_tokens: int) -> tuple[int, int]:
    """How many of `count` samples the remaining tokens serve, and the tokens of each.

    Args:
        tokens: Remaining tokens, which do not cover all samples.
        count: Number of samples.
        max_tokens: Maximum tokens of a sample that is not shortened.
    """
    left = int(tokens)
    num_served = min(count, max(left // min(MIN_SHARE_TOKENS, max_tokens), min(1, left)))
    return num_served, left // num_served if num_served else 0


class ContinuationRequests:
    """Builds the prompts, sample indices and seeds that continue prefixes of solutions.

    A prefix of known tokens is sent as these tokens: they match the backend's cache, while a text may be tokenized
    differently at the boundary. Samples of equal prompts are numbered in order of request: a repeated request of one
    prompt gets new samples, and a resumed run with the same order of requests gets the ones it had. Every prompt has
    its own seed, derived from the run's: with one seed for all, sample 0 of any two prompts would use the same stream
    of random numbers.

    Args:
        prompt: The prompt of every solution, possibly with a common prefix.
        run: The run; it is marked as degraded if a prefix cannot be continued exactly.
        purpose: Namespace of the samples; other purposes get other samples.
        in_thought: Whether the prefixes are beginnings of an open thought. The prompt then has no prefix of its own.
    """

    def __init__(
        self, model: MeteredModel, prompt: Prompt, run: Run, purpose: str, *, in_thought: bool = False
    ) -> None:
        self.is_exact, self.in_thought = model.capabilities.prefix, in_thought
        self._prompt, self._run, self._purpose = prompt, run, purpose
        self._num_taken: dict[Prompt, int] = {}

    def prompt_after(self, text: str, token_ids: tuple[int, ...] | None) -> Prompt:
        """The prompt that continues a prefix.

        Args:
            text: The prefix; empty for the first step.
            token_ids: Its tokens; None if unknown.
        """
        common = self._prompt.prefix
        if self.in_thought:
            return self._prompt.with_thought(Thought(text=text, token_ids=token_ids or (), closed=False))
        if not text and not token_ids:
            return self._prompt
        if not self.is_exact and self._prompt.text is not None:
            prompt_text = self._prompt.text + self._common_text() + text
            return self._prompt.model_copy(update={"text": prompt_text, "prefix": ""})
        if not self.is_exact:
            self._run.degrade(
                "approximate prefix: the model cannot continue a given prefix; "
                "it was instructed to continue it, and repeated text was removed"
            )
            partial = Message(role="assistant", content=self._common_text() + text)
            messages = (*self._prompt.messages, partial, Message(role="user", content=CONTINUE_INSTRUCTION))
            return self._prompt.model_copy(update={"messages": messages, "prefix": ""})
        if token_ids is not None and not common:
            return self._prompt.with_prefix(token_ids)
        if token_ids is not None and not isinstance(common, str):
            return self._prompt.with_prefix((*common, *token_ids))
        return self._prompt.with_prefix(self._common_text() + text)

    def prompt_of_answer(self, text: str) -> Prompt:
        """The prompt for the answer after a thought of this text."""
        return self._prompt.with_thought(Thought(text=text, closed=True))

    def is_approximate(self, prefix_text: str) -> bool:
        """Whether this text can be continued only by instruction, so that the model may repeat it."""
        return bool(prefix_text) and not self.is_exact and self._prompt.text is None

    def take_indices(self, prompt: Prompt, count: int) -> tuple[int, ...]:
        """Indices of the next samples of a prompt."""
        first = self._num_taken.get(prompt, 0)
        self._num_taken[prompt] = first + count
        return tuple(range(first, first + count))

    def seed(self, prompt: Prompt) -> int:
        """The prompt's seed."""
        prefix = prompt.prefix if isinstance(prompt.prefix, str) else " ".join(map(str, prompt.prefix))
        messages = [f"{m.role}: {m.content}" for m in prompt.messages]
        thought = [] if prompt.thought is None else [prompt.thought.model_dump_json()]
        return self._run.derive_seed(self._purpose, prompt.text or "", *messages, prefix, *thought)

    def _common_text(self) -> str:
        common = self._prompt.prefix
        return common if isinstance(common, str) else ""


class PrefixCompleter:
    """Completes prefixes of solutions to one question, greedily: the forced answer of a search.

    Args:
        question: The question, for parsing answers.
        purpose: Namespace of the samples; other purposes get other samples.

    Attributes:
        budget_exhausted: Whether the budget has cut or skipped a completion.
    """

    def __init__(self, model: MeteredModel, prompt: Prompt, question: Question, run: Run, purpose: str) -> None:
        self.budget_exhausted = False
        self._model, self._question, self._run = model, question, run
        self._continuations = ContinuationRequests(model, prompt, run, purpose)

    async def complete(self, prefix: Prefix, max_tokens: int, opener: str = "") -> Candidate | None:
        """The complete solution, prefix included; None if the sample failed or the budget does not cover it.

        Args:
            prefix: The prefix; a terminal one is its own completion.
            max_tokens: Maximum tokens after the prefix.
            opener: Text appended to the prefix, for example the answer trigger.
        """
        if prefix.terminal:
            return read_candidate(completion_of(prefix), self._question)
        ledger = self._run.ledger
        tokens = int(min(max_tokens, ledger.remaining("tokens")))
        if tokens < 1 or ledger.remaining("calls") < 1:
            self._run.record_limit(ledger.exceeded("tokens" if tokens < 1 else "calls"))
            self.budget_exhausted = True
            return None
        text = prefix.text + opener
        prompt = self._continuations.prompt_after(text, None if opener else prefix.token_ids)
        seed, indices = self._continuations.seed(prompt), self._continuations.take_indices(prompt, 1)
        sampling = SamplingParams(max_tokens=tokens, default_temperature=0.0, effort="none", seed=seed)
        try:
            ((completion,),) = await self._model.generate(
                [Request(prompt=prompt, sampling=sampling, sample_indices=indices)]
            )
        except BudgetExceeded as e:
            self._run.record_limit(e)
            self.budget_exhausted = True
            return None
        if not completion.ok:
            return None
        added, reason = completion.text, completion.finish_reason
        if self._continuations.is_approximate(text):
            added = strip_repeated_steps(prefix.steps, added)
        if reason == "cancelled" or (reason == "length" and tokens < max_tokens):
            reason = "budget"
        self.budget_exhausted = self.budget_exhausted or reason == "budget"
        return read_candidate(
            completion.model_copy(update={"text": text + added, "finish_reason": reason}), self._question
        )


def completion_of(prefix: Prefix) -> Completion:
    """A prefix as a completion, which is cut by the budget unless it is terminal."""
    reason: FinishReason = "budget" if not prefix.terminal else "length" if prefix.is_cut else "stop"
    return Completion(text=prefix.text, finish_reason=reason)


EndReason = Literal["delimiter", "answer", "end", "cap", "budget", "cancelled"]
"""Why a step ended: at the delimiter, because it states the final answer (wherever it ended), with the text, at its
maximum tokens, by the budget, or cancelled."""

DEFAULT_TEMPERATURE: Final = 0.8
"""Sampling temperature of the particle filtering paper."""


class StepOptions(Frozen):
    """How steps are sampled.

    Attributes:
        delimiter: End of a step, outside of fenced code and displayed formulas.
        max_step_tokens: Maximum tokens of a step.
        temperature: Sampling temperature that the user set; None is `DEFAULT_TEMPERATURE` where the model takes one.
        top_p: Nucleus mass; None is the model's own.
    """

    delimiter: Annotated[str, Field(min_length=1)] = "\n\n"
    max_step_tokens: Annotated[int, Field(ge=1)] = 512
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None


@dataclass(frozen=True)
class StepSample:
    """One sampled step.

    Attributes:
        index: Sample index within its prefix, counted over all expansions of the prefix.
        text: The step, without the delimiter.
        token_ids: Its tokens, those of the delimiter or the text's end included; None if the backend hides them or the
            step is only a part of what was generated.
        tokens: Generated tokens, discarded ones included.
        end_reason: Why it ended.
        duplicate_of: The `index` of the first sample of the prefix with the same text that ends alike; None if this is
            the first.
        after: The prefix with this step.
    """

    index: int
    text: str
    token_ids: tuple[int, ...] | None
    tokens: int
    end_reason: EndReason
    duplicate_of: int | None
    after: Prefix

    @property
    def terminal(self) -> bool:
        """Whether the solution has ended or stated its answer."""
        return self.after.terminal

    @property
    def is_complete(self) -> bool:
        """Whether neither budget nor caller cut it."""
        return self.end_reason not in ("budget", "cancelled")


@dataclass(frozen=True)
class StepExpansion:
    """The samples of one prefix.

    Attributes:
        samples: Its steps in order of index, duplicates included.
        empty: Continuations without text: an immediate delimiter or end of text.
        num_failed: Samples that failed individually.
        num_skipped: Samples that the budget did not cover.
    """

    samples: tuple[StepSample, ...] = ()
    empty: tuple[StepSample, ...] = ()
    num_failed: int = 0
    num_skipped: int = 0

    @property
    def distinct(self) -> tuple[StepSample, ...]:
        """The complete steps that are no duplicates."""
        return tuple(s for s in self.samples if s.duplicate_of is None and s.is_complete)


@dataclass(frozen=True)
class StepBatch:
    """The result of one call.

    Attributes:
        expansions: One for each prefix, in order.
        tokens: All generated tokens, those of duplicates, empty and failed samples and discarded ends included.
        num_rounds: Number of generate calls: 1, and one more for each time that steps had to be continued.
        budget_exhausted: Whether the budget cut or skipped a sample.
    """

    expansions: tuple[StepExpansion, ...] = ()
    tokens: int = 0
    num_rounds: int = 0
    budget_exhausted: bool = False


@dataclass(eq=False)
class _PartialStep:
    """A step while it is sampled.

    Attributes:
        prefix_index: Index of the prefix that it continues.
        tokens_left: Tokens it may still have.
        position: Its index among all steps of the batch.
        ids: Its tokens; None once they are unknown.
        without_stop: Whether it is sampled without stop strings.
    """

    prefix_index: int
    prefix: Prefix
    tokens_left: int
    position: int
    index: int = -1
    text: str = ""
    ids: tuple[int, ...] | None = ()
    tokens: int = 0
    without_stop: bool = False
    end_reason: EndReason | None = None
    failed: bool = False

    @property
    def full_text(self) -> str:
        """The text of the solution so far."""
        return self.prefix.text + self.text

    @property
    def full_ids(self) -> tuple[int, ...] | None:
        """The tokens of the solution so far."""
        known = self.prefix.token_ids
        return None if known is None or self.ids is None else (*known, *self.ids)


@dataclass
class _BatchCounts:
    tokens: int = 0
    num_rounds: int = 0
    budget_exhausted: bool = False
    skipped: dict[int, int] = field(default_factory=lambda: defaultdict(int))


class StepSampler:
    """Continues partial solutions to one question, within one run.

    Calls must be sequential: which samples of a prefix a call gets depends on the calls before it. A resumed run that
    makes the same calls gets the same steps and pays for none that the run store has.

    Models that cannot continue a given prefix are instructed to continue it; what they repeat is cut.

    Args:
        question: The question; the kind of its answer decides when a step states it.
        options: How steps are sampled.
    """

    def __init__(
        self, model: MeteredModel, prompt: Prompt, question: Question, run: Run, options: StepOptions | None = None
    ) -> None:
        self.options = options or StepOptions()
        self._model, self._question, self._run = model, question, run
        self._continuations = ContinuationRequests(model, prompt, run, "step")
        self._seen: dict[Prompt, dict[tuple[str, bool], int]] = {}

    async def expand(
        self,
        prefixes: Sequence[Prefix],
        k: int = 1,
        *,
        max_tokens: int | None = None,
        keep_tokens: int = 0,
    ) -> StepBatch:
        """Sample `k` next steps of each prefix, all of them as one batch.

        A prefix that is given twice gets twice as many samples. A token budget that does not cover `max_step_tokens`
        for all is shared equally, and what it cuts is continued as long as something is left.

        Args:
            prefixes: The prefixes, most important first: these are sampled if the budget does not cover all.
            k: Samples of each.
            max_tokens: Maximum tokens of a step, if fewer than the options allow.
            keep_tokens: Tokens of the budget to leave unspent.

        Raises:
            UserError: A prefix is terminal, or `k` is not positive.
        """
        if k < 1:
            raise UserError(f"the number of continuations must be positive, got {k}")
        cap = min(self.options.max_step_tokens, max_tokens or self.options.max_step_tokens)
        steps: list[_PartialStep] = []
        async for i, prefix in paced(enumerate(prefixes)):
            if prefix.terminal:
                raise UserError(f"prefix {i} has ended: there is no next step", hint="expand only open prefixes")
            steps += [_PartialStep(i, prefix, cap, position=len(steps) + j) for j in range(k)]
        counts = _BatchCounts()
        pending = steps
        while pending:
            pending = await self._round(pending, self._sampling(), keep_tokens, counts)
        expansions: list[StepExpansion] = []
        async for i, prefix in paced(enumerate(prefixes)):
            expansions.append(self._expansion(prefix, steps[i * k : (i + 1) * k], counts.skipped[i]))
        return StepBatch(tuple(expansions), counts.tokens, counts.num_rounds, counts.budget_exhausted)

    def _sampling(self) -> SamplingParams:
        options = self.options
        return SamplingParams(
            temperature=options.temperature,
            default_temperature=DEFAULT_TEMPERATURE,
            top_p=options.top_p,
            effort="none",
        )

    # -- one round

    async def _round(
        self, pending: list[_PartialStep], sampling: SamplingParams, keep_tokens: int, counts: _BatchCounts
    ) -> list[_PartialStep]:
        """Sample as many of these as the budget covers; returns those to continue and those not sampled yet."""
        batch, share = await self._covered(pending, keep_tokens)
        rest = pending[len(batch) :]
        if not batch:
            self._skip(rest, counts)
            return []
        try:
            return [*await self._generate(batch, share, sampling, counts), *rest]
        except BudgetExceeded as e:
            self._run.record_limit(e)
            self._skip(pending, counts)
            return []

    async def _covered(self, pending: list[_PartialStep], keep_tokens: int) -> tuple[list[_PartialStep], int | None]:
        """The first ones that the budget covers, and the maximum tokens of each if that is less than they may have."""
        ledger = self._run.ledger
        left = max(0.0, ledger.remaining("tokens") - keep_tokens)
        count, share, limit = len(pending), None, None
        if left < sum(step.tokens_left for step in pending):
            count, share = split_tokens(left, count, self.options.max_step_tokens)
            limit = None if count else "tokens"
        groups: set[tuple[Prompt, int, bool]] = set()
        async for i, step in paced(enumerate(pending[:count])):
            groups.add(self._group_key(step, share))
            if len(groups) > ledger.remaining("calls"):
                count = i
                limit = None if count else "calls"
                break
        if limit is not None:
            self._run.record_limit(ledger.exceeded("tokens" if limit == "tokens" else "calls"))
        return pending[:count], share

    def _skip(self, steps: Sequence[_PartialStep], counts: _BatchCounts) -> None:
        """End steps that the budget does not cover."""
        counts.budget_exhausted = counts.budget_exhausted or bool(steps)
        for step in steps:
            if step.index < 0:
                counts.skipped[step.prefix_index] += 1
            else:
                step.end_reason = "budget"

    def _group_key(self, step: _PartialStep, share: int | None) -> tuple[Prompt, int, bool]:
        """What samples of one request have in common: prompt, maximum tokens, whether there are stop strings."""
        prompt = self._continuations.prompt_after(step.full_text, step.full_ids)
        max_tokens = step.tokens_left if share is None else min(step.tokens_left, share)
        return prompt, max_tokens, not step.without_stop

    async def _generate(
        self, batch: list[_PartialStep], share: int | None, sampling: SamplingParams, counts: _BatchCounts
    ) -> list[_PartialStep]:
        groups: dict[tuple[Prompt, int, bool], list[_PartialStep]] = defaultdict(list)
        async for step in paced(batch):
            groups[self._group_key(step, share)].append(step)
        requests = []
        async for (prompt, max_tokens, has_stop), members in paced(groups.items()):
            params = sampling.model_copy(
                update={
                    "max_tokens": max_tokens,
                    "stop": (self.options.delimiter,) if has_stop else (),
                    "seed": self._continuations.seed(prompt),
                }
            )
            indices = self._continuations.take_indices(prompt, len(members))
            requests.append(Request(prompt=prompt, sampling=params, sample_indices=indices))
        results = await self._model.generate(requests)
        counts.num_rounds += 1
        sampled = (
            (request, step, completion)
            for request, members, completions in zip(requests, groups.values(), results, strict=True)
            for step, completion in zip(members, completions, strict=True)
        )
        unfinished: list[_PartialStep] = []
        async for request, step, completion in paced(sampled):
            counts.tokens += completion.usage.completion_tokens
            step.index = completion.sample_index if step.index < 0 else step.index
            if not completion.ok:
                step.failed = True
                continue
            self._append(step, completion)
            at_stop = completion.finish_reason == "stop" and request.sampling.stop
            if self._end_at_stop(step, completion) if at_stop else self._end_without_stop(step, completion):
                unfinished.append(step)
        counts.budget_exhausted = counts.budget_exhausted or any(step.end_reason == "budget" for step in batch)
        return sorted(unfinished, key=attrgetter("position"))

    def _append(self, step: _PartialStep, completion: Completion) -> None:
        text, count = completion.text, completion.usage.completion_tokens
        if self._continuations.is_approximate(step.full_text):
            text = strip_repeated_steps((*step.prefix.steps, step.text), text)
            step.ids = None
        is_known = bool(completion.token_ids) or not count
        step.text += text
        step.tokens += count
        step.tokens_left -= count
        step.ids = (*step.ids, *completion.token_ids) if is_known and step.ids is not None else None

    def _end_at_stop(self, step: _PartialStep, completion: Completion) -> bool:
        """End a step that met a delimiter or the text's end; returns whether it must be continued."""
        if not step.text.strip() and completion.text.strip():
            # the model repeats its solution from the start: all of it is needed to see what it adds
            step.without_stop, step.ids = True, None
            step.tokens_left = self.options.max_step_tokens + len(step.prefix.text)
            return True
        is_inside = is_inside_block(step.full_text)
        if not is_inside and self._states_answer(step, step.text):
            step.end_reason = "answer"
        elif self._ends_text(completion):
            step.end_reason = "end"
        elif not is_inside:
            step.end_reason = "delimiter"
        else:
            step.text += self.options.delimiter
            if step.tokens_left > 0:
                return True
            step.end_reason = "cap"
        return False

    def _ends_text(self, completion: Completion) -> bool:
        """Whether the text ended with this sample; if the backend does not report it, only the step counts as ended."""
        if completion.stop_reason is None:
            self._run.degrade(
                f"{self._model.name} does not distinguish the end of a step from the end of the text; "
                "a step that states no answer was taken for one to continue"
            )
        return completion.stop_reason == ""

    def _end_without_stop(self, step: _PartialStep, completion: Completion) -> bool:
        """End a step that no stop string ended; returns whether it must be continued."""
        reason = completion.finish_reason
        if step.without_stop:
            at = find_boundary(step.text, self.options.delimiter, step.prefix.text)
            if at is not None:
                step.text, step.end_reason = step.text[:at], "delimiter"
                step.ids = None
                if self._states_answer(step, step.text):
                    step.end_reason = "answer"
                return False
        if reason == "stop":
            step.end_reason = "end"
        elif self._states_answer(step, complete_sentences(step.text)):
            step.end_reason = "answer"
        elif reason == "cancelled":
            step.end_reason = "cancelled"
        elif reason == "length" and step.tokens_left <= 0:
            step.end_reason = "cap"
        elif reason == "length" and step.full_ids is not None and self._continuations.is_exact:
            return True  # its share of the budget is spent: it is continued if others have left something
        else:
            step.end_reason = "budget"
        return False

    def _states_answer(self, step: _PartialStep, text: str) -> bool:
        """Whether the step states the final answer explicitly."""
        before = step.prefix.text
        answer = extract_answer(before + text, self._question)
        return answer is not None and answer.is_explicit and answer.start >= len(before)

    # -- results

    def _expansion(self, prefix: Prefix, steps: Sequence[_PartialStep], num_skipped: int) -> StepExpansion:
        prompt = self._continuations.prompt_after(prefix.text, prefix.token_ids)
        seen = self._seen.setdefault(prompt, {})
        samples: list[StepSample] = []
        empty: list[StepSample] = []
        for step in steps:
            if step.end_reason is None:
                continue
            sample = self._sample(step)
            if not sample.text.strip():
                empty.append(sample)
                continue
            if sample.is_complete:
                first = seen.setdefault((normalize_step(sample.text), sample.terminal), sample.index)
                sample = replace(sample, duplicate_of=None if first == sample.index else first)
            samples.append(sample)
        num_failed = sum(step.failed for step in steps)
        return StepExpansion(tuple(samples), tuple(empty), num_failed, num_skipped)

    def _sample(self, step: _PartialStep) -> StepSample:
        assert step.end_reason is not None
        closing = self.options.delimiter if step.end_reason == "delimiter" else ""
        after = step.prefix.append(
            step.text,
            step.full_text + closing,
            step.full_ids,
            terminal=step.end_reason in ("answer", "end"),
        )
        return StepSample(
            index=step.index,
            text=step.text,
            token_ids=step.ids,
            tokens=step.tokens,
            end_reason=step.end_reason,
            duplicate_of=None,
            after=after,
        )
