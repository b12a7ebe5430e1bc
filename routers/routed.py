"""What two models did in one run, as a reader wants to know it: the tokens of each by purpose, and who wrote what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import JsonValue

from ..core.messages import Completion
from .step_rules import RoutedStep, Writer, handovers, large_share, writers_of

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
