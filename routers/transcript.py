"""The steps of a chain that two models write, how they are joined, and when the thinking has ended. Pure.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110: thinking ends with the closing tag, with a step that is said
twice in a row, or when its tokens are used up. The other endings are ours.

What two models did in one run, as a reader wants to know it: the tokens of each by purpose, and who wrote what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from pydantic import JsonValue

from ..core.messages import Completion
from ..core.types import Question
from ..reasoning.answers.extraction import extract_answer
from ..reasoning.candidates import complete_sentences

SEPARATOR = "\n\n"
"""What stands between two steps that are paragraphs."""

LINE = "\n"
"""What stands between two steps that are lines."""

Writer = Literal["large", "small"]
"""Who writes a step: the model in the role "main", or the one in the role "small"."""

StepEnd = Literal["separator", "closed", "end", "empty", "tokens", "context", "budget"]
"""What ended a step: the separator, the closing tag within it, the end of the text, that nothing was written twice, the
tokens for thinking, the model's context, or the run's budget."""

CUT: frozenset[StepEnd] = frozenset({"tokens", "context", "budget"})
"""What ends a step in the middle of a sentence."""

Ended = Literal[
    "closed", "answer", "end", "repeated", "alternating", "tokens", "context", "empty", "budget", "failed", "whole"
]
"""Why thinking ended: beside what ended its last step, that a step states the answer, that the last two steps are the
same, that two steps alternate, or that a model failed; "whole" where the whole reply was written at once."""


@dataclass(frozen=True, slots=True)
class RoutedStep:
    """A finished step.

    Attributes:
        text: The step as it was written, without the separator and blank lines before it.
        writer: Who wrote it.
        tokens: Its generated tokens.
        ended: What ended it.
        entropy: Entropy of its first token in the small model's eyes, in nats; None if it was not asked for.
        mass: Probability of the tokens that the entropy is of; None if unknown.
        score: The digit from 0 to 9 that the large model gave it; None if it gave none.
    """

    text: str
    writer: Writer
    tokens: int
    ended: StepEnd = "separator"
    entropy: float | None = None
    mass: float | None = None
    score: float | None = None


@dataclass
class Transcript:
    """The steps so far.

    Attributes:
        steps: The finished steps.
        close_tag: The tag that closes the thinking; empty for models that do not think apart from their answer.
        separator: What stands between two steps.
    """

    steps: list[RoutedStep] = field(default_factory=list)
    close_tag: str = ""
    separator: str = SEPARATOR

    @property
    def texts(self) -> list[str]:
        """The steps' texts."""
        return [step.text for step in self.steps]

    @property
    def tokens(self) -> int:
        """Generated tokens of the steps."""
        return sum(step.tokens for step in self.steps)

    @property
    def spent(self) -> int:
        """The tokens as the limit for thinking counts them: at least one a step, so that any chain ends."""
        return sum(max(1, step.tokens) for step in self.steps)

    @property
    def joined(self) -> str:
        """The steps with a separator between them."""
        return self.separator.join(self.texts)

    @property
    def context(self) -> str:
        """What the next step follows: the steps, each with a separator behind it."""
        return self.joined + self.separator if self.steps else ""

    @property
    def thoughts(self) -> str:
        """The steps up to the closing tag, which is left out."""
        return self.joined.partition(self.close_tag)[0] if self.close_tag else self.joined

    def ended(self, question: Question, thinking_tokens: int) -> Ended | None:
        """Why the thinking has ended with its last step; None if it goes on.

        Args:
            question: What is answered: a step that states an answer of its kind ends a chain without a closing tag.
            thinking_tokens: Most tokens of all steps together.
        """
        if not self.steps:
            return None
        last = self.steps[-1]
        if self.close_tag and self.close_tag in last.text:
            return "closed"
        if not self.close_tag and self.states_answer(question):
            return "answer"
        if last.ended != "separator":
            return last.ended
        if repeats(self.texts):
            return "repeated"
        if alternates(self.texts):
            return "alternating"
        return "tokens" if self.spent >= thinking_tokens else None

    def states_answer(self, question: Question) -> bool:
        """Whether the last of the steps, of which there is at least one, says what the answer is.

        By a box or in so many words; one that was cut short is read up to its last whole sentence.
        """
        last = self.steps[-1]
        before = self.separator.join([*self.texts[:-1], ""])
        found = extract_answer(before + (complete_sentences(last.text) if last.ended in CUT else last.text), question)
        return found is not None and found.stated and found.start >= len(before)


def split(joined: str, separator: str = SEPARATOR) -> list[str]:
    """The steps of a joined text, where none of them has a separator in it."""
    return joined.split(separator) if joined else []


def repeats(steps: Sequence[str]) -> bool:
    """Whether the last two of at least three steps are the same."""
    return len(steps) > 2 and steps[-1] == steps[-2]


def alternates(steps: Sequence[str]) -> bool:
    """Whether the last four steps are two different ones said twice in turn."""
    return len(steps) > 3 and steps[-1] == steps[-3] != steps[-2] == steps[-4]


def writers_of(steps: Sequence[RoutedStep]) -> list[Writer]:
    """Who wrote each step."""
    return [step.writer for step in steps]


def handovers(writers: Sequence[Writer]) -> int:
    """How often the next step is another's than the last."""
    return sum(a != b for a, b in pairwise(writers))


def large_share(weights: Sequence[tuple[Writer, int]]) -> float | None:
    """The large model's share of a total; None if the total is nothing.

    Args:
        weights: Who each amount belongs to, and the amount.
    """
    whole = sum(amount for _, amount in weights)
    return sum(amount for writer, amount in weights if writer == "large") / whole if whole else None


Purpose = Literal["probe", "step", "discarded", "score", "answer"]
"""What a request was for; what was written and not kept is "discarded", whatever it was to become."""

COLUMNS: dict[Purpose, str] = {
    "probe": "probes",
    "step": "steps",
    "discarded": "discarded",
    "score": "scores",
    "answer": "answer",
}
"""What the tokens of each purpose are called in a solution's notes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One request and what it has cost.

    Attributes:
        writer: Which model was asked.
        purpose: What for.
        computed: Tokens of the prompt that were not found in a cache; 0 for a request that was cut off while it ran,
            of which no backend tells it.
        generated: Generated tokens over its samples.
    """

    writer: Writer
    purpose: Purpose
    computed: int
    generated: int


class Books:
    """Keeps the entries of one run. They add up to what the run's ledger has of the two models."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def enter(self, writer: Writer, purpose: Purpose, completions: Sequence[Completion]) -> int:
        """Book the samples of a request; returns the entry's number."""
        whole = [c.usage for c in completions if c.finish_reason != "cancelled"]
        self.entries.append(
            Entry(
                writer=writer,
                purpose=purpose,
                computed=sum(max(0, usage.prompt_tokens - usage.cached_tokens) for usage in whole),
                generated=sum(c.usage.completion_tokens for c in completions),
            )
        )
        return len(self.entries) - 1

    def book_as(self, purpose: Purpose, numbers: Sequence[int]) -> None:
        """Say what entries were for, once it is known."""
        for number in numbers:
            self.entries[number] = replace(self.entries[number], purpose=purpose)

    def tokens(self) -> dict[Writer, dict[str, int]]:
        """Generated tokens by model and purpose."""
        table: dict[Writer, dict[str, int]] = {w: dict.fromkeys(COLUMNS.values(), 0) for w in ("large", "small")}
        for entry in self.entries:
            table[entry.writer][COLUMNS[entry.purpose]] += entry.generated
        return table

    def computed(self) -> dict[Writer, int]:
        """Computed prompt tokens by model."""
        table: dict[Writer, int] = {"large": 0, "small": 0}
        for entry in self.entries:
            table[entry.writer] += entry.computed
        return table

    def notes(self) -> dict[str, JsonValue]:
        """What they come to, for a solution's notes."""
        return {
            "tokens": {writer: dict(row) for writer, row in self.tokens().items()},
            "computed": {writer: tokens for writer, tokens in self.computed().items()},  # noqa: C416 (other keys)
            "calls": [[e.writer, e.purpose, e.computed, e.generated] for e in self.entries],
        }


def notes_of(steps: Sequence[RoutedStep]) -> dict[str, JsonValue]:
    """Who wrote the steps and by what they were routed, for a solution's notes."""
    writers = writers_of(steps)
    return {
        "steps": len(steps),
        "writers": list(writers),
        "entropies": [step.entropy for step in steps],
        "masses": [step.mass for step in steps],
        "scores": [step.score for step in steps],
        "intervention_rate": large_share([(writer, 1) for writer in writers]),
        "large_share": large_share([(step.writer, step.tokens) for step in steps]),
        "handovers": handovers(writers),
    }
