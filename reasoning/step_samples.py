"""What comes of sampling steps: `StepSample`, `Expansion`, `Expanded`; and `StepOptions`, how they are sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from ..core.messages import Frozen
from .reply_prefix import Prefix

Ended = Literal["delimiter", "answer", "end", "cap", "budget", "cancelled"]
"""Why a step ended: at the delimiter, since it states the final answer (wherever it ended), with the text, at its most
tokens, by the budget, or cancelled."""


class StepOptions(Frozen):
    """How steps are sampled.

    Attributes:
        delimiter: What ends a step, outside of fenced code and displayed formulas.
        max_step_tokens: Most tokens of a step.
        temperature: Of sampling; the default is that of the particle filtering paper.
        top_p: Nucleus mass.
        top_k: Most likely tokens kept; 0 keeps all.
    """

    delimiter: Annotated[str, Field(min_length=1)] = "\n\n"
    max_step_tokens: Annotated[int, Field(ge=1)] = 512
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class StepSample:
    """One sampled step.

    Attributes:
        index: Which sample of its prefix it is, counted over all expansions of the prefix.
        text: The step, without the delimiter.
        token_ids: Its tokens, those of the delimiter or the text's end included; None if the backend hides them or the
            step is only a part of what was generated.
        tokens: Generated tokens, what was cut included.
        logprob: Summed raw log-probability of its tokens, in nats; None if unknown.
        ended: Why it ended.
        duplicate_of: The `index` of the first sample of the prefix that says the same and goes on or ends alike; None
            if this is the first.
        after: The prefix with this step.
    """

    index: int
    text: str
    token_ids: tuple[int, ...] | None
    tokens: int
    logprob: float | None
    ended: Ended
    duplicate_of: int | None
    after: Prefix

    @property
    def terminal(self) -> bool:
        """Whether the reply has ended or stated its answer."""
        return self.after.terminal

    @property
    def whole(self) -> bool:
        """Whether neither budget nor caller cut it."""
        return self.ended not in ("budget", "cancelled")


@dataclass(frozen=True)
class Expansion:
    """What became of one prefix.

    Attributes:
        samples: Its steps in order of index, duplicates among them.
        empties: Continuations without a text: a delimiter or the text's end at once.
        failed: Samples that failed alone.
        unasked: Samples that the budget did not cover.
    """

    samples: tuple[StepSample, ...] = ()
    empties: tuple[StepSample, ...] = ()
    failed: int = 0
    unasked: int = 0

    @property
    def distinct(self) -> tuple[StepSample, ...]:
        """The steps that are whole and say something new: what a search goes on with."""
        return tuple(s for s in self.samples if s.duplicate_of is None and s.whole)


@dataclass(frozen=True)
class Expanded:
    """What one call made.

    Attributes:
        expansions: One for each prefix, in order.
        tokens: All tokens generated, those of duplicates, empties, failures and cut ends included.
        rounds: Batches it took: 1, and one more for each time that steps had to go on.
        spent: Whether the budget kept something from being sampled to its end.
    """

    expansions: tuple[Expansion, ...] = ()
    tokens: int = 0
    rounds: int = 0
    spent: bool = False
