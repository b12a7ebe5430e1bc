"""`Shown`: how a part of a run's context is put before a model again, so that a claim can be scored behind it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from ...core.messages import Prompt
from ...core.question import Document, Question
from ...reasoning.prompts import ask
from .segments import Segment, given

BARE = "Say what is known."
"""What is asked where a claim came without a question."""


class Shown(NamedTuple):
    """What a run put before its model.

    Attributes:
        system: The system prompt; empty if there was none.
        question: The question, choices included.
        context: The parts of the context, in order (see `segments.given`).
    """

    system: str
    question: str
    context: tuple[Segment, ...]

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Shown:
        """What the parts of a run say that was shown; steps and samples came later, and are no part of it."""
        system = "\n\n".join(s.text for s in segments if s.kind == "system")
        question = "\n\n".join(s.text for s in segments if s.kind == "question")
        return cls(system, question or BARE, tuple(given(segments)))

    def prompt(self, kept: Sequence[bool] | None = None) -> Prompt:
        """The prompt with some parts of the context, as strategies put a question with documents (`prompts.ask`).

        The context comes first and keeps its order: prompts that begin with the same parts share their keys and values.

        Args:
            kept: Whether each part is shown; None shows all.
        """
        shown = [s for i, s in enumerate(self.context) if kept is None or kept[i]]
        documents = tuple(
            Document(name=source, text="\n".join(s.text for s in of_one))
            for source, of_one in groupby(shown, lambda s: s.source or s.name)
        )
        return ask(Question(text=self.question, documents=documents), system=self.system)
