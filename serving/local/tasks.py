"""What the scheduler works on: tasks, and the tokens they want computed.

A task says what is to be prefilled (`Fill`) and what to do with the logits: `sample_task`, `measure_tasks`,
`prefix_tasks`. One that computes by itself is a step alone: `shared/worker_tasks`, `relevance`. All of it runs on the
engine's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from ...core.errors import ReasonError
from .lookahead.lookahead import Lookahead
from .prefixes import Prefixes, Sequenced
from .relevance import RelevanceTask
from .shared.worker_tasks import CloseTask, OpenTask, PassTask

if TYPE_CHECKING:
    from .sample_task import SampleTask


@dataclass(eq=False)
class Fill:
    """Tokens of a sequence that are to be computed together, in chunks.

    Attributes:
        task: Whose they are.
        sequence: The sequence they extend.
        ids: The tokens, at least one.
        every: Whether all their logits are wanted, or the last one's alone.
        done: Called with the logits `[wanted, vocab]` of each chunk that has any, and the position of the first of them
            within `ids`.
        at: Tokens computed so far.
    """

    task: Task
    sequence: Sequenced
    ids: Sequence[int]
    every: bool
    done: Callable[[Tensor, int], None]
    at: int = 0

    @property
    def finished(self) -> bool:
        """Whether all tokens are computed."""
        return self.at == len(self.ids)

    @property
    def tokens(self) -> Sequence[int]:
        """What is left to compute."""
        return self.ids[self.at :]


class Queue(Protocol):
    """What a task asks of the scheduler."""

    prefixes: Prefixes
    lookahead: Lookahead

    def fill(self, fill: Fill) -> None:
        """Have tokens computed."""

    def ready(self, task: SampleTask) -> None:
        """The prompt is computed: its samples may begin."""


class Task(Protocol):
    """A unit of work.

    Attributes:
        ids: Tokens that are looked up in the store and computed first.
        call: Whose work it is: sequences of one call may share a log.
        salt: Under which keys and values are shared: with no task of another one.
        cancelled: Set from any thread: the work is dropped at the next step.
    """

    ids: Sequence[int]
    call: object
    cancelled: bool

    @property
    def salt(self) -> str:
        """See the attributes."""

    def start(self, queue: Queue) -> None:
        """Begin: look up the prefix, ask for fills."""

    def fail(self, error: ReasonError) -> None:
        """Nothing came of it."""

    def release(self) -> None:
        """Give back every sequence held; idempotent."""


AloneTask = OpenTask | PassTask | CloseTask | RelevanceTask
"""Work that is a step of its own."""

Work = Task | AloneTask
"""What may be handed to the scheduler."""
