"""The beginning of a reply, in whole steps, and how a model is asked to go on from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from ..core.messages import Message, Prompt
from ..core.run import Run
from ..serving.metered import MeteredModel

GO_ON = (
    "Your reply above is unfinished. Go on with it exactly where it stops, with the next step, as if you had never "
    "been interrupted. Do not repeat or comment on what you have written."
)
"""What a model is told that cannot be given the beginning of its reply."""


LEAST_TOKENS = 32
"""Where a budget does not cover all samples, fewer are asked for rather than giving one less than this."""


@dataclass(frozen=True)
class Prefix(Sequence[str]):
    """The beginning of a reply: a sequence of its steps' texts, and what is known of how they were generated.

    Attributes:
        steps: The steps, without the delimiters between them.
        text: All of it as it stands, delimiters included.
        token_ids: Its tokens, so that it is continued exactly and found in a cache; None where a backend hides them.
        logprobs: Summed raw log-probability of each step's tokens, in nats; None if unknown.
        lengths: Generated tokens of each step; 0 if unknown.
        terminal: Whether the reply has ended or stated its answer: there is nothing to go on with.
    """

    steps: tuple[str, ...] = ()
    text: str = ""
    token_ids: tuple[int, ...] | None = ()
    logprobs: tuple[float | None, ...] = ()
    lengths: tuple[int, ...] = ()
    terminal: bool = False

    @classmethod
    def of_steps(cls, steps: Sequence[str], delimiter: str = "\n\n") -> Prefix:
        """The beginning of a reply that was not generated here, by its text alone."""
        return cls(
            steps=tuple(steps),
            text="".join(step + delimiter for step in steps),
            token_ids=None if steps else (),
            logprobs=(None,) * len(steps),
            lengths=(0,) * len(steps),
        )

    def then(
        self,
        step: str,
        text: str,
        token_ids: tuple[int, ...] | None,
        logprob: float | None,
        length: int,
        *,
        terminal: bool = False,
    ) -> Prefix:
        """This beginning with one more step.

        Args:
            step: The step, without a delimiter.
            text: All of the reply with it.
            token_ids: All tokens of the reply with it; None if they are not known.
            logprob: Summed log-probability of the step's tokens, in nats; None if unknown.
            length: Generated tokens of the step.
            terminal: Whether the reply ends with it.
        """
        return Prefix(
            steps=(*self.steps, step),
            text=text,
            token_ids=token_ids,
            logprobs=(*self.logprobs, logprob),
            lengths=(*self.lengths, length),
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


def shared_out(tokens: float, wanted: int, most: int) -> tuple[int, int]:
    """How many of the wanted samples a rest of tokens serves, and how many of them each may have.

    Args:
        tokens: The rest, which does not cover all.
        wanted: Samples wanted.
        most: Most tokens of a sample that is not cut short.
    """
    left = int(tokens)
    count = min(wanted, max(left // min(LEAST_TOKENS, most), min(1, left)))
    return count, left // count if count else 0


class Continuations:
    """From the beginning of a reply to what a model is asked, and which of its samples are wanted.

    A beginning of known tokens is sent as these tokens: they are those that the backend has in its cache, while a text
    may be cut into others at the seam. Samples of equal prompts are numbered in order of asking: whoever asks for one
    prompt again gets new samples, and a run that is resumed and asks in the same order gets those it had. Every prompt
    has a seed of its own, a function of the run's: with one seed for all, sample 0 of any two prompts would draw from
    the same stream of random numbers.

    Args:
        model: The model.
        prompt: The question, perhaps with the beginning of every reply.
        run: The run; it is told where a beginning is not continued exactly.
        purpose: What the samples are for; other purposes draw other samples.
    """

    def __init__(self, model: MeteredModel, prompt: Prompt, run: Run, purpose: str) -> None:
        self.exact = model.capabilities.prefix
        self._prompt, self._run, self._purpose = prompt, run, purpose
        self._taken: dict[Prompt, int] = {}

    def prompt_after(self, text: str, token_ids: tuple[int, ...] | None) -> Prompt:
        """The prompt that asks for what follows.

        Args:
            text: The beginning of the reply; empty for the first step.
            token_ids: Its tokens; None if they are not known.
        """
        own = self._prompt.prefix
        if not text and not token_ids:
            return self._prompt
        if not self.exact and self._prompt.text is not None:
            return self._prompt.model_copy(update={"text": self._prompt.text + self._own_text() + text, "prefix": ""})
        if not self.exact:
            self._run.degrade(
                "approximate prefix: the model cannot be given the beginning of its reply; "
                "it was asked to go on from it, and what it repeated was cut"
            )
            said = Message(role="assistant", content=self._own_text() + text)
            turns = (*self._prompt.messages, said, Message(role="user", content=GO_ON))
            return self._prompt.model_copy(update={"messages": turns, "prefix": ""})
        if token_ids is not None and not own:
            return self._prompt.with_prefix(token_ids)
        if token_ids is not None and not isinstance(own, str):
            return self._prompt.with_prefix((*own, *token_ids))
        return self._prompt.with_prefix(self._own_text() + text)

    def approximate(self, prefix_text: str) -> bool:
        """Whether what follows this text can be had only by asking to go on from it."""
        return bool(prefix_text) and not self.exact and self._prompt.text is None

    def take(self, prompt: Prompt, count: int) -> tuple[int, ...]:
        """Indices of the next samples of a prompt."""
        first = self._taken.get(prompt, 0)
        self._taken[prompt] = first + count
        return tuple(range(first, first + count))

    def seed(self, prompt: Prompt) -> int:
        """The prompt's seed."""
        prefix = prompt.prefix if isinstance(prompt.prefix, str) else " ".join(map(str, prompt.prefix))
        said = [f"{m.role}: {m.content}" for m in prompt.messages]
        return self._run.derive_seed(self._purpose, prompt.text or "", *said, prefix)

    def _own_text(self) -> str:
        own = self._prompt.prefix
        return own if isinstance(own, str) else ""
