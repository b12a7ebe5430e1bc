"""`Question`: what is to be answered, with everything that came with it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from .messages import Frozen

MAX_QUESTION_CHARS = 200_000
"""Longest question taken, in characters: beyond it the input is a file, and belongs into `documents`."""

AnswerKind = Literal["auto", "choice", "number", "math", "yes_no", "text"]


class Document(Frozen):
    """A text that came with the question.

    Attributes:
        name: Where it came from, for example a file name.
        text: Its content.
    """

    name: str
    text: str


class Question(Frozen):
    """What is to be answered.

    Attributes:
        text: The question.
        choices: The options of a multiple-choice question, in the order shown; the answer is a letter.
        documents: Texts the answer may rest on.
        kind: What the answer is: "auto" lets the extractor decide ("choice" wherever there are choices).
        metadata: Anything the caller wants back; no strategy reads it.
    """

    text: Annotated[str, StringConstraints(min_length=1)]
    choices: tuple[str, ...] = ()
    documents: tuple[Document, ...] = ()
    kind: AnswerKind = "auto"
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
