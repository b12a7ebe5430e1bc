"""Continuing a partial solution: `Prefix`, the prompts that continue it, and its completion.

The steps are those of the answer, before which the model does not think; or, for routers and workers that write one
thought together, those of an open thought, which is continued exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from ..core.errors import BudgetExceeded
from ..core.messages import Completion, FinishReason, Message, Prompt, Request, SamplingParams, Thought
from ..core.run import Run
from ..core.types import Candidate, Question
from ..serving.metered.model import MeteredModel
from .candidates import read_candidate
from .segmentation import strip_repeated_steps

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

    @classmethod
    def from_steps(cls, steps: Sequence[str], delimiter: str = "\n\n") -> Prefix:
        """A prefix that was not generated here, from its text only."""
        return cls(
            steps=tuple(steps),
            text="".join(step + delimiter for step in steps),
            token_ids=None if steps else (),
        )

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
