"""`Team`: what workers have written so far, finished and unfinished, and the answers in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from ...core.answer import Candidate, Solution
from ...core.events import StrategyNote
from ...core.question import Question
from ...core.run import Run
from ..answer_classes import AnswerLabels
from ..answers import extract
from ..equivalence import Equivalence
from .wording import UNFINISHED, opener, step_prefix

AnswerRule = Literal["first", "confirmed"]
"""Which answer ends the work: the first one, or the first that another worker states too."""

Ending = Literal["answer", "end of text", "passes", "budget", "context"]
"""Why workers stopped."""


@dataclass(frozen=True)
class Step:
    """A finished step.

    Attributes:
        worker: Who wrote it.
        text: All of it, its prefix included.
        at: Passes that had been run when it was finished.
    """

    worker: int
    text: str
    at: int


@dataclass(frozen=True)
class Stated:
    """An answer that stands in a box.

    Attributes:
        worker: Who states it.
        answer: It.
        label: Equal answers have equal numbers.
        at: Passes that had been run when it was there.
    """

    worker: int
    answer: str
    label: int
    at: int


class Team:
    """Workers' texts. What finishes a step, in which order, is its caller's business.

    Args:
        names: What the workers call themselves.
        question: What they work on.
        rule: Which answer ends the work.
        run: Is told of steps and answers.
        equivalence: Says which answers are equal.
    """

    def __init__(
        self, names: Sequence[str], question: Question, rule: AnswerRule, run: Run, equivalence: Equivalence
    ) -> None:
        self.names = tuple(names)
        self.finished: list[Step] = []
        self.writing = [step_prefix(name, 1) + opener(i, names) for i, name in enumerate(names)]
        self.answers: list[Stated] = []
        self._numbers = [1] * len(names)
        self._question, self._rule, self._run, self._equivalence = question, rule, run, equivalence
        self._labels = AnswerLabels(question)

    @property
    def workers(self) -> int:
        """How many they are."""
        return len(self.names)

    def begin(self) -> None:
        """Tell who they are and how they begin."""
        self.note("begin", {"names": list(self.names), "writing": list(self.writing)})

    def number(self, worker: int) -> int:
        """Which of its steps a worker is writing, from 1."""
        return self._numbers[worker]

    async def finish(self, worker: int, at: int, *, goes_on: bool = True) -> str:
        """A worker's step is finished.

        Args:
            worker: Whose.
            at: Passes that have been run.
            goes_on: Whether the worker begins another one.

        Returns:
            What its next step begins with; empty if it does not go on.
        """
        text = self.writing[worker]
        self.finished.append(Step(worker, text, at))
        number = self._numbers[worker]
        following = step_prefix(self.names[worker], number + 1) if goes_on else ""
        told: dict[str, JsonValue] = {"worker": worker, "number": number, "pass": at, "text": text.strip()}
        self.note("step", told | {"next": following})
        await self._read_answer(worker, text, at)
        self._numbers[worker] += 1
        self.writing[worker] = following
        return self.writing[worker]

    @property
    def answered(self) -> Stated | None:
        """The answer that ends the work; None while there is none."""
        if not self.answers:
            return None
        if self._rule == "first" or self.workers == 1:
            return self.answers[0]
        for i, later in enumerate(self.answers):
            if any(first.label == later.label and first.worker != later.worker for first in self.answers[:i]):
                return later
        return None

    def transcript(self) -> str:
        """All steps in the order in which they were finished, and behind them what is unfinished, with dots."""
        done = "\n\n".join(step.text.strip() for step in self.finished)
        rest = "\n\n".join(text.rstrip() + UNFINISHED for text in self.writing if text.strip())
        return "\n\n".join(part for part in (done, rest) if part)

    def note(self, name: str, data: dict[str, JsonValue]) -> None:
        """Tell of something that happened among the workers."""
        self._run.emit(StrategyNote(strategy="hogwild", name=f"workers.{name}", data=data))

    async def _read_answer(self, worker: int, text: str, at: int) -> None:
        found = extract(text, self._question)
        if found is None or found.how != "boxed":
            return
        label = await self._labels.label(found.value, self._equivalence)
        if label is not None:
            self.answers.append(Stated(worker, found.value, label, at))
            self.note("answer", {"worker": worker, "answer": found.value, "pass": at})
            best = Candidate(text=self.transcript(), answer=self.answers[0].answer)
            self._run.offer(Solution(chosen=0, candidates=(best,)))
