"""`Team`: the workers' finished and unfinished steps and the answers in them; `ends_step`: where a step ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from ...core.events import StrategyNote
from ...core.run import Run
from ...core.types import Candidate, Question, Solution
from ..answers.equivalence import AnswerLabels, Equivalence
from ..answers.extraction import extract_answer
from .prompts import UNFINISHED, opener, step_prefix

SEPARATOR = "\n\n"
"""Text between two steps."""

_FULL_STOPS = ".?!…。．？！｡।॥۔؟։።᙮᠃"  # noqa: RUF001 (those of other scripts are meant)
_CLOSERS = " \t$\\)]}\"'*_`”’»」』）】"  # noqa: RUF001

AnswerRule = Literal["first", "confirmed"]
"""Which answer ends the work: the first one, or the first that a second worker states too."""

Ending = Literal["answer", "end of text", "passes", "budget", "context"]
"""Why the workers stopped."""


def ends_step(text: str, piece: str, separator: str = SEPARATOR) -> bool:
    """Whether the newest piece of a step finishes it: it completes the separator, and a sentence precedes that.

    Every code fence and displayed formula has to be closed.

    Source: Rodionov et al. 2025, Hogwild! Inference, arXiv:2504.06261, and the authors' program. Differs: a quotation
    mark, bracket or emphasis may follow the full stop.

    Args:
        text: The step so far, including the piece.
        piece: The text of the newest token.
    """
    fresh = text[max(0, len(text) - len(piece) - len(separator) + 1) :]
    if separator not in fresh:
        return False
    step = text[: text.rindex(separator)].rstrip()
    return is_closed(step) and step.rstrip(_CLOSERS).endswith(tuple(_FULL_STOPS))


def is_closed(text: str) -> bool:
    """Whether every code fence and every displayed formula that was opened is closed."""
    return text.count("```") % 2 == 0 and text.count("$$") % 2 == 0 and text.count("\\[") == text.count("\\]")


@dataclass(frozen=True)
class WorkerStep:
    """A finished step.

    Attributes:
        worker: Index of its writer.
        text: The complete text with its prefix.
        at: Passes run when it was finished.
    """

    worker: int
    text: str
    at: int


@dataclass(frozen=True)
class BoxedAnswer:
    """An answer in a box.

    Attributes:
        worker: Index of the worker that states it.
        label: Class of equal answers.
        at: Passes run when it was stated.
    """

    worker: int
    answer: str
    label: int
    at: int


class Team:
    """The workers' texts. When a step is finished, and in which order, is decided by the loop.

    Args:
        names: Names of the workers in their prompts.
        rule: Which answer ends the work.
        equivalence: Decides which answers are equal.
        in_thought: Whether the workers write a thought, which can have no answer of the run.

    Attributes:
        writing: The unfinished step of each worker.
    """

    def __init__(
        self,
        names: Sequence[str],
        question: Question,
        rule: AnswerRule,
        run: Run,
        equivalence: Equivalence,
        *,
        in_thought: bool = False,
    ) -> None:
        self.in_thought = in_thought
        self.names = tuple(names)
        self.finished: list[WorkerStep] = []
        self.writing = [step_prefix(name, 1) + opener(i, names) for i, name in enumerate(names)]
        self.answers: list[BoxedAnswer] = []
        self._numbers = [1] * len(names)
        self._question, self._rule, self._run, self._equivalence = question, rule, run, equivalence
        self._labels = AnswerLabels(question)

    @property
    def workers(self) -> int:
        """Number of workers."""
        return len(self.names)

    def begin(self) -> None:
        """Emit the names and openers."""
        self.emit("begin", {"names": list(self.names), "writing": list(self.writing)})

    def number(self, worker: int) -> int:
        """Number of the step that a worker is writing, from 1."""
        return self._numbers[worker]

    async def finish(self, worker: int, at: int, *, has_next: bool = True) -> str:
        """Finish a worker's current step.

        Args:
            at: Passes run so far.
            has_next: Whether the worker begins another step.

        Returns:
            The prefix of its next step; empty without one.
        """
        text = self.writing[worker]
        self.finished.append(WorkerStep(worker, text, at))
        number = self._numbers[worker]
        prefix = step_prefix(self.names[worker], number + 1) if has_next else ""
        self.emit("step", {"worker": worker, "number": number, "pass": at, "text": text.strip(), "next": prefix})
        await self._read_answer(worker, text, at)
        self._numbers[worker] += 1
        self.writing[worker] = prefix
        return self.writing[worker]

    @property
    def final_answer(self) -> BoxedAnswer | None:
        """The answer that ends the work; None until there is one."""
        if not self.answers:
            return None
        if self._rule == "first" or self.workers == 1:
            return self.answers[0]
        for i, later in enumerate(self.answers):
            if any(first.label == later.label and first.worker != later.worker for first in self.answers[:i]):
                return later
        return None

    def transcript(self) -> str:
        """All finished steps in order, followed by the unfinished ones with an ellipsis."""
        done = "\n\n".join(step.text.strip() for step in self.finished)
        rest = "\n\n".join(text.rstrip() + UNFINISHED for text in self.writing if text.strip())
        return "\n\n".join(part for part in (done, rest) if part)

    def emit(self, name: str, data: dict[str, JsonValue]) -> None:
        """Emit an event of the workers."""
        self._run.emit(StrategyNote(strategy="hogwild", name=f"workers.{name}", data=data))

    async def _read_answer(self, worker: int, text: str, at: int) -> None:
        answer = extract_answer(text, self._question)
        if answer is None or answer.method != "boxed":
            return
        label = await self._labels.label(answer.value, self._equivalence)
        if label is not None:
            self.answers.append(BoxedAnswer(worker, answer.value, label, at))
            self.emit("answer", {"worker": worker, "answer": answer.value, "pass": at})
            if not self.in_thought:
                best = Candidate(text=self.transcript(), answer=self.answers[0].answer)
                self._run.set_best(Solution(chosen=0, candidates=(best,)))
