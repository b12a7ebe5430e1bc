"""Continuing a partial solution: `Prefix`, the prompts that continue it, and rollouts that complete it.

Rollouts serve scores by outcome (how often does this prefix lead to the answer?), and the forced answer of a search
that has no steps or tokens left.

The steps are those of the answer, before which the model does not think, or those of an open thought, which is
continued exactly; the answer then follows the closed thought and is no part of the steps' text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, overload

from ..core.concurrency import paced
from ..core.errors import BudgetExceeded, UserError
from ..core.messages import Completion, FinishReason, Message, Prompt, Request, SamplingParams, Thought, Usage
from ..core.run import Run
from ..core.types import Candidate, Question
from ..serving.metered.model import MeteredModel
from .candidates import read_candidate
from .conclude import conclusion_request, with_conclusion
from .segmentation import strip_repeated_steps

CONTINUE_INSTRUCTION = (
    "Your reply above is unfinished. Go on with it exactly where it stops, with the next step, as if you had never "
    "been interrupted. Do not repeat or comment on what you have written."
)
"""Instruction for a model that cannot continue a given prefix."""

MIN_SHARE_TOKENS = 32
"""If a budget does not cover all samples, fewer are requested rather than giving one less than this."""

THOUGHT_ANSWER_TOKENS: Final = 256
"""Maximum tokens of the answer after a closed thought."""


@dataclass(frozen=True)
class Prefix(Sequence[str]):
    """A partial solution: the sequence of its steps' texts, and what is known of their generation.

    Attributes:
        steps: The steps, without the delimiters between them.
        text: The exact text, delimiters included.
        token_ids: Its tokens, so that it is continued exactly and matches a cache; None if the backend hides them.
        logprobs: Summed raw log-probability of each step's tokens, in nats; None if unknown.
        lengths: Generated tokens of each step; 0 if unknown.
        terminal: Whether the solution has ended or stated its answer, so that there is nothing to continue.
        answer: Of a closed thought, the answer after it; None for steps of an answer and for an open thought.
        is_cut: Whether its last step was cut at its maximum tokens or by the budget.
    """

    steps: tuple[str, ...] = ()
    text: str = ""
    token_ids: tuple[int, ...] | None = ()
    logprobs: tuple[float | None, ...] = ()
    lengths: tuple[int, ...] = ()
    terminal: bool = False
    answer: str | None = None
    is_cut: bool = False

    @property
    def solution(self) -> str:
        """The text, and the answer after a closed thought."""
        return self.text if self.answer is None else f"{self.text}\n\n{self.answer}"

    @classmethod
    def from_steps(cls, steps: Sequence[str], delimiter: str = "\n\n") -> Prefix:
        """A prefix that was not generated here, from its text only."""
        return cls(
            steps=tuple(steps),
            text="".join(step + delimiter for step in steps),
            token_ids=None if steps else (),
            logprobs=(None,) * len(steps),
            lengths=(0,) * len(steps),
        )

    def append(
        self,
        step: str,
        text: str,
        token_ids: tuple[int, ...] | None,
        logprob: float | None,
        length: int,
        *,
        terminal: bool = False,
        answer: str | None = None,
    ) -> Prefix:
        """This prefix with one more step.

        Args:
            step: The step, without a delimiter; the last step of a closed thought includes the answer.
            text: The complete text with it.
            token_ids: All tokens with it; None if unknown.
            logprob: Summed log-probability of the step's tokens, in nats; None if unknown.
            length: Generated tokens of the step.
            terminal: Whether the solution ends with it.
            answer: The answer after the thought that it closes.
        """
        return Prefix(
            steps=(*self.steps, step),
            text=text,
            token_ids=token_ids,
            logprobs=(*self.logprobs, logprob),
            lengths=(*self.lengths, length),
            terminal=terminal,
            answer=answer,
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
                "it was instructed to go on from it, and what it repeated was cut"
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


@dataclass(frozen=True)
class PrefixRollouts:
    """The rollouts of one prefix.

    Attributes:
        candidates: The complete solutions, prefix included, with their answers; `tokens` and `logprob` are those of the
            generated part. A terminal prefix is its own only rollout.
        num_failed: Rollouts that failed individually.
        num_skipped: Rollouts that the budget did not cover.
    """

    candidates: tuple[Candidate, ...] = ()
    num_failed: int = 0
    num_skipped: int = 0


@dataclass(frozen=True)
class RolloutBatch:
    """The result of one call.

    Attributes:
        prefixes: The rollouts of each prefix, in order.
        tokens: All generated tokens.
        budget_exhausted: Whether the budget cut or skipped a rollout.
    """

    prefixes: tuple[PrefixRollouts, ...]
    tokens: int = 0
    budget_exhausted: bool = False


@dataclass(frozen=True)
class _PendingRollout:
    position: int
    prefix: Prefix
    opener: str

    @property
    def text(self) -> str:
        return self.prefix.text + self.opener

    @property
    def token_ids(self) -> tuple[int, ...] | None:
        return None if self.opener else self.prefix.token_ids


class RolloutSampler:
    """Completes prefixes of solutions to one question, within one run. As with `StepSampler`, calls must be sequential.

    Args:
        question: The question, for parsing answers.
        max_tokens: Maximum tokens after a prefix; of an open thought, without the answer, which may have
            `THOUGHT_ANSWER_TOKENS` more.
        temperature: Sampling temperature that the user set; None leaves it to `default_temperature`.
        default_temperature: Sampling temperature where the model takes one.
        purpose: Namespace of the samples; other purposes get other samples.
        in_thought: Whether the prefixes are beginnings of an open thought.
    """

    def __init__(
        self,
        model: MeteredModel,
        prompt: Prompt,
        question: Question,
        run: Run,
        *,
        max_tokens: int = 512,
        temperature: float | None = None,
        default_temperature: float = 0.8,
        purpose: str = "rollout",
        in_thought: bool = False,
    ) -> None:
        self._model, self._question, self._run, self._in_thought = model, question, run, in_thought
        self._sampling = SamplingParams(
            max_tokens=max_tokens,
            temperature=temperature,
            default_temperature=default_temperature,
            effort=None if in_thought else "none",
        )
        self._continuations = ContinuationRequests(model, prompt, run, purpose, in_thought=in_thought)

    async def finish(
        self,
        prefixes: Sequence[Prefix],
        times: int = 1,
        *,
        opener: str = "",
        max_tokens: int | None = None,
        keep_tokens: int = 0,
    ) -> RolloutBatch:
        """Complete each prefix `times` times, all as one batch.

        Args:
            prefixes: The prefixes, most important first.
            times: Rollouts of each.
            opener: Text appended to each prefix, for example the answer trigger.
            max_tokens: Maximum tokens of each rollout, in place of the sampler's.
            keep_tokens: Tokens of the budget to leave unspent.

        Raises:
            UserError: `times` is not positive.
        """
        if times < 1:
            raise UserError(f"the number of rollouts must be positive, got {times}")
        positions = [i for i, prefix in enumerate(prefixes) if not prefix.terminal for _ in range(times)]
        full_tokens = self._sampling.max_tokens if max_tokens is None else max_tokens
        pending = [_PendingRollout(i, prefixes[i], opener) for i in positions]
        by_prompt, each_tokens = await self._covered(pending, full_tokens, keep_tokens)
        requests = [
            self._request(prompt, len(members), each_tokens) async for prompt, members in paced(by_prompt.items())
        ]
        exhausted = sum(map(len, by_prompt.values())) < len(positions)
        completions: list[list[Completion]] = []
        if requests:
            try:
                completions = await self._model.generate(requests)
            except BudgetExceeded as e:
                self._run.record_limit(e)
                by_prompt, exhausted = {}, True
            else:
                completions = await self._concluded(requests, completions)
        candidates: list[list[Candidate]] = [
            [self._as_candidate(p)] if p.terminal else [] async for p in paced(prefixes)
        ]
        num_failed = [0] * len(prefixes)
        finished = (
            (rollout, completion)
            for members, group in zip(by_prompt.values(), completions, strict=True)
            for rollout, completion in zip(members, group, strict=True)
        )
        async for rollout, completion in paced(finished):
            if not completion.ok:
                num_failed[rollout.position] += 1
                continue
            solution = self._joined(rollout, completion, shortened=each_tokens < full_tokens)
            exhausted = exhausted or solution.finish_reason == "budget"
            candidates[rollout.position].append(read_candidate(solution, self._question))
        results = tuple(
            PrefixRollouts(tuple(c), f, 0 if p.terminal else times - len(c) - f)
            for p, c, f in zip(prefixes, candidates, num_failed, strict=True)
        )
        return RolloutBatch(results, sum(c.usage.completion_tokens for group in completions for c in group), exhausted)

    async def _covered(
        self, pending: Sequence[_PendingRollout], max_tokens: int, keep_tokens: int
    ) -> tuple[dict[Prompt, list[_PendingRollout]], int]:
        """The rollouts that the budget covers, by prompt, and the maximum tokens of each."""
        ledger = self._run.ledger
        left, count = max(0.0, ledger.remaining("tokens") - keep_tokens), len(pending)
        answer = THOUGHT_ANSWER_TOKENS if self._in_thought else 0
        if left < count * (max_tokens + answer):
            count, share = split_tokens(left, count, max_tokens + answer)
            max_tokens = min(max_tokens, max(1, share - answer)) if count else max_tokens
        by_prompt: dict[Prompt, list[_PendingRollout]] = {}
        async for rollout in paced(pending[:count]):
            prompt = self._continuations.prompt_after(rollout.text, rollout.token_ids)
            if prompt not in by_prompt and len(by_prompt) >= ledger.remaining("calls"):
                break
            by_prompt.setdefault(prompt, []).append(rollout)
        if pending and not by_prompt:
            self._run.record_limit(ledger.exceeded("calls" if count else "tokens"))
        return by_prompt, max_tokens

    def _request(self, prompt: Prompt, count: int, max_tokens: int) -> Request:
        changes: dict[str, int] = {"max_tokens": max_tokens, "seed": self._continuations.seed(prompt)}
        if self._in_thought:
            changes |= {"thinking_tokens": max_tokens, "max_tokens": THOUGHT_ANSWER_TOKENS}
        indices = self._continuations.take_indices(prompt, count)
        return Request(prompt=prompt, sampling=self._sampling.model_copy(update=changes), sample_indices=indices)

    async def _concluded(
        self, requests: Sequence[Request], completions: list[list[Completion]]
    ) -> list[list[Completion]]:
        """The completions, those that were cut in their thought with the answers that are requested after them."""
        cut = [
            (i, j)
            for i, group in enumerate(completions)
            for j, completion in enumerate(group)
            if completion.finish_reason == "thinking"
        ]
        if not cut:
            return completions
        try:
            ends = await self._model.generate(
                [conclusion_request(self._model, requests[i].prompt, completions[i][j], self._question) for i, j in cut]
            )
        except BudgetExceeded as e:
            self._run.record_limit(e)
            return completions
        completions = [list(group) for group in completions]
        for (i, j), (end,) in zip(cut, ends, strict=True):
            if end.ok:
                completions[i][j] = with_conclusion(completions[i][j], end, self._question)
        return completions

    def _joined(self, rollout: _PendingRollout, completion: Completion, *, shortened: bool) -> Completion:
        """The completion with its prefix; a shortened one that met its limit was cut by the budget."""
        text = completion.text
        if self._in_thought:
            added = completion.thought or Thought()
            return completion.model_copy(
                update={"thought": added.model_copy(update={"text": rollout.text + added.text})}
            )
        if self._continuations.is_approximate(rollout.text):
            text = strip_repeated_steps(rollout.prefix.steps, text)
        was_cut = shortened and completion.finish_reason == "length"
        reason = "budget" if was_cut or completion.finish_reason == "cancelled" else completion.finish_reason
        return completion.model_copy(update={"text": rollout.text + text, "finish_reason": reason})

    def _as_candidate(self, prefix: Prefix) -> Candidate:
        """A terminal prefix as a candidate."""
        return read_candidate(completion_of(prefix), self._question)


def completion_of(prefix: Prefix, *, in_thought: bool = False) -> Completion:
    """A prefix as a completion, which is cut by the budget unless it is terminal.

    Args:
        in_thought: Whether an open prefix is the beginning of a thought.
    """
    reason: FinishReason = "budget" if not prefix.terminal else "length" if prefix.is_cut else "stop"
    if prefix.answer is None and not in_thought:
        return Completion(text=prefix.text, finish_reason=reason)
    tokens = sum(prefix.lengths)
    return Completion(
        text=prefix.answer or "",
        finish_reason=reason,
        thought=Thought(text=prefix.text, tokens=tokens, closed=prefix.answer is not None),
        usage=Usage(completion_tokens=tokens, thinking_tokens=tokens),
    )
