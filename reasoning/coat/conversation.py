"""`Conversation`: a path of thoughts and what was associated with them, as turns between user and assistant.

    user        the question, what a step is, and notes that came with the question
    assistant   the first step
    user        notes that came with it; "write the next step"
    assistant   the second step
    user        …

So the prompt of a child begins with that of its parent, whose keys and values the engine has; the judge and whoever
associates are asked one turn further, and share it too. Nothing in a prompt comes from elsewhere than the question, the
path, its notes and the fixed words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...core.messages import Message, Prompt
from ...core.question import Question
from ..brains.quoting import plain
from ..memory.item import MemoryItem
from ..memory.working import WorkingMemory
from ..prompts import ask
from . import wording

ROOT = 0
"""The node that holds the question."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A thought as it stands in a conversation.

    Attributes:
        node_id: The thought.
        text: The step.
    """

    node_id: int
    text: str


class Conversation:
    """How paths of one question are put to a model.

    Args:
        question: The question.
        memory: Notes of the thoughts.
        instruction: What stands behind the question.
        system: System message; empty leaves it to the model.
    """

    def __init__(self, question: Question, memory: WorkingMemory, instruction: str, system: str = "") -> None:
        self._opening = ask(question, instruction, system=system).messages
        self._memory = memory

    def after(self, path: Sequence[Turn], request: str, *, prefix: str = "") -> Prompt:
        """A request behind a path.

        Args:
            path: The thoughts from the first step on; with none, the question alone is asked, and the request goes
                behind it unless it is empty.
            request: What the user says last, behind the notes of the last thought.
            prefix: Beginning of the reply.
        """
        messages = list(self._opening)
        notes = self._notes(path)
        behind = wording.noted(notes[0], "" if path else request)
        if behind:
            messages[-1] = messages[-1].model_copy(update={"content": f"{messages[-1].content}\n\n{behind}"})
        for i, turn in enumerate(path, 1):
            said = request if i == len(path) else wording.GO_ON
            messages.append(Message(role="assistant", content=turn.text))
            messages.append(Message(role="user", content=wording.noted(notes[i], said)))
        return Prompt(messages=tuple(messages), prefix=prefix)

    def known(self, path: Sequence[Turn]) -> tuple[MemoryItem, ...]:
        """All notes that a path sees; what a number in its steps cites is the item at that place, from 1."""
        return self._memory.known([ROOT, *(turn.node_id for turn in path)])

    def has_notes(self, path: Sequence[Turn]) -> bool:
        """Whether notes came with the last thought."""
        return bool(path and self._memory.of(path[-1].node_id))

    def _notes(self, path: Sequence[Turn]) -> list[list[tuple[int, str]]]:
        """The numbered notes behind the question and each thought; those of other branches go behind the last."""
        ids = [ROOT, *(turn.node_id for turn in path)]
        shown = {item.hash for item in self._memory.shown(ids)}
        lines: list[list[tuple[int, str]]] = [[] for _ in ids]
        for number, item in enumerate(self._memory.known(ids), 1):
            if item.hash in shown:
                at = ids.index(item.node_id) if item.node_id in ids else len(ids) - 1
                lines[at].append((number, plain(item.text)))
        return lines
