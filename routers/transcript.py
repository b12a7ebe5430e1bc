"""A chain of thought written by two models: its steps, how they are joined, when it ends, and what it cost. Pure.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110: thinking ends when it is closed, with two equal steps in a
row, or when its tokens are used up. The other endings are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from pydantic import JsonValue

from ..core.messages import Completion
from ..core.types import Question
from ..reasoning.answers.extraction import complete_sentences, extract_answer

SEPARATOR = "\n\n"
"""Between two steps that are paragraphs."""

LINE_BREAK = "\n"
"""Between two steps that are lines."""

Writer = Literal["large", "small"]
"""Which model writes a step: the one in the role "main", or the one in the role "small"."""

StepEnd = Literal["separator", "closed", "end", "empty", "tokens", "context", "budget"]
"""What ended a step: the separator, the end of the thought, the end of the text, two empty completions, the tokens for
thinking, the model's context, or the run's budget."""

TRUNCATED: frozenset[StepEnd] = frozenset({"tokens", "context", "budget"})
"""What ends a step in the middle of a sentence."""

ThinkingEnd = Literal[
    "closed", "answer", "end", "repeated", "alternating", "tokens", "context", "empty", "budget", "failed", "whole"
]
"""What ended the thinking: what ended its last step; a step that states an answer; two equal steps; two steps that
alternate; a model that failed; "whole" where the complete response was routed at once."""

Purpose = Literal["probe", "step", "discarded", "answer"]
"""What a request was for; text that was generated and not kept is "discarded"."""

_COLUMNS: dict[Purpose, str] = {
    "probe": "probes",
    "step": "steps",
    "discarded": "discarded",
    "answer": "answer",
}


@dataclass(frozen=True, slots=True)
class RoutedStep:
    """A finished step.

    Attributes:
        text: The step without the separator and the blank lines before it.
        writer: The model that wrote it.
        tokens: Its generated tokens.
        thinking_tokens: Part of them that are a thought.
        ended: What ended it.
        entropy: Entropy of the small model's first token, in nats; None if there was no probe.
        mass: Probability mass of the tokens that the entropy is computed from; None if unknown.
    """

    text: str
    writer: Writer
    tokens: int
    ended: StepEnd = "separator"
    thinking_tokens: int = 0
    entropy: float | None = None
    mass: float | None = None


@dataclass
class Transcript:
    """The steps so far.

    Attributes:
        in_thought: Whether the steps are those of a thought, apart from the answer.
        separator: The text between two steps.
    """

    steps: list[RoutedStep] = field(default_factory=list)
    in_thought: bool = False
    separator: str = SEPARATOR

    @property
    def texts(self) -> list[str]:
        return [step.text for step in self.steps]

    @property
    def tokens(self) -> int:
        """Generated tokens of the steps."""
        return sum(step.tokens for step in self.steps)

    @property
    def thinking_tokens(self) -> int:
        """Those of them that are a thought."""
        return sum(step.thinking_tokens for step in self.steps)

    @property
    def counted_tokens(self) -> int:
        """Tokens as the limit for thinking counts them: at least one a step, so that any chain ends."""
        return sum(max(1, step.tokens) for step in self.steps)

    @property
    def joined(self) -> str:
        """The steps with a separator between them."""
        return self.separator.join(self.texts)

    @property
    def context(self) -> str:
        """The text that the next step follows: each step with a separator after it."""
        return self.joined + self.separator if self.steps else ""

    def ended(self, question: Question, thinking_tokens: int) -> ThinkingEnd | None:
        """What ends the thinking with the last step; None if it continues.

        Args:
            question: A step that states an answer of its kind ends a chain that is not a thought.
            thinking_tokens: Maximum tokens of all steps together.
        """
        if not self.steps:
            return None
        last = self.steps[-1]
        if not self.in_thought and self.states_answer(question):
            return "answer"
        if last.ended != "separator":
            return last.ended
        if repeats(self.texts):
            return "repeated"
        if alternates(self.texts):
            return "alternating"
        return "tokens" if self.counted_tokens >= thinking_tokens else None

    def states_answer(self, question: Question) -> bool:
        """Whether the last step states the answer explicitly, in a box or a sentence; there must be a step.

        A truncated step is read up to its last complete sentence.
        """
        last = self.steps[-1]
        before = self.separator.join([*self.texts[:-1], ""])
        match = extract_answer(
            before + (complete_sentences(last.text) if last.ended in TRUNCATED else last.text), question
        )
        return match is not None and match.is_explicit and match.start >= len(before)

    def notes(self) -> dict[str, JsonValue]:
        """Which model wrote each step and what the routing was based on, for a solution's notes."""
        steps = self.steps
        writers: list[Writer] = [step.writer for step in steps]
        return {
            "steps": len(steps),
            "writers": list(writers),
            "entropies": [step.entropy for step in steps],
            "masses": [step.mass for step in steps],
            "intervention_rate": large_share([(writer, 1) for writer in writers]),
            "large_share": large_share([(step.writer, step.tokens) for step in steps]),
            "handovers": handovers(writers),
        }


def repeats(steps: Sequence[str]) -> bool:
    """Whether the last two of at least three steps are equal."""
    return len(steps) > 2 and steps[-1] == steps[-2]


def alternates(steps: Sequence[str]) -> bool:
    """Whether the last four steps are two different ones in turn."""
    return len(steps) > 3 and steps[-1] == steps[-3] != steps[-2] == steps[-4]


def handovers(writers: Sequence[Writer]) -> int:
    """Number of steps whose writer differs from that of the step before."""
    return sum(a != b for a, b in pairwise(writers))


def large_share(weights: Sequence[tuple[Writer, int]]) -> float | None:
    """The large model's share of a total of amounts, each with its writer; None if the total is 0."""
    total = sum(amount for _, amount in weights)
    return sum(amount for writer, amount in weights if writer == "large") / total if total else None


@dataclass(frozen=True, slots=True)
class RequestTokens:
    """Tokens of one request.

    Attributes:
        computed: Prompt tokens that were not in a cache; 0 for a request that was cancelled, for which no backend
            reports them.
        generated: Generated tokens of all its samples.
    """

    writer: Writer
    purpose: Purpose
    computed: int
    generated: int


class TokenAccounting:
    """Tokens of all requests of one run, by model and purpose. They add up to the ledger's totals of the two models."""

    def __init__(self) -> None:
        self.entries: list[RequestTokens] = []

    def add(self, writer: Writer, purpose: Purpose, completions: Sequence[Completion]) -> int:
        """Add the samples of a request; returns the position of the entry."""
        reported = [c.usage for c in completions if c.finish_reason != "cancelled"]
        entry = RequestTokens(
            writer=writer,
            purpose=purpose,
            computed=sum(max(0, usage.prompt_tokens - usage.cached_tokens) for usage in reported),
            generated=sum(c.usage.completion_tokens for c in completions),
        )
        self.entries.append(entry)
        return len(self.entries) - 1

    def set_purpose(self, purpose: Purpose, positions: Sequence[int]) -> None:
        """Change the purpose of entries, once it is known."""
        for position in positions:
            self.entries[position] = replace(self.entries[position], purpose=purpose)

    def generated(self) -> dict[Writer, dict[str, int]]:
        """Generated tokens by model and purpose."""
        table: dict[Writer, dict[str, int]] = {w: dict.fromkeys(_COLUMNS.values(), 0) for w in ("large", "small")}
        for entry in self.entries:
            table[entry.writer][_COLUMNS[entry.purpose]] += entry.generated
        return table

    def computed(self) -> dict[Writer, int]:
        """Computed prompt tokens by model."""
        table: dict[Writer, int] = {"large": 0, "small": 0}
        for entry in self.entries:
            table[entry.writer] += entry.computed
        return table

    def notes(self) -> dict[str, JsonValue]:
        """The totals and all entries, for a solution's notes."""
        return {
            "tokens": {writer: dict(row) for writer, row in self.generated().items()},
            "computed": {writer: tokens for writer, tokens in self.computed().items()},  # noqa: C416 (other keys)
            "calls": [[e.writer, e.purpose, e.computed, e.generated] for e in self.entries],
        }
