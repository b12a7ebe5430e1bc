"""`Question`: what is to be answered, with everything that came with it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from .messages import Frozen, Message
from .tools import FREE, NEVER, Tool, ToolChoice, check_choice

MAX_QUESTION_CHARS = 200_000
"""Longest question taken, in characters: beyond it the input is a file, and belongs into `documents`."""

MAX_CONVERSATION_CHARS = 1_000_000
"""Longest conversation taken beside the question, in characters, its tools and calls included."""

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
        conversation: Turns before the question. Those of the system stand at the head of every prompt, with whatever a
            strategy has to say there itself behind them (`reasoning.prompts.opening`).
        since: Turns behind the question, where what is asked for is how to go on: the calls that it led to and what the
            tools gave. Only a strategy that takes tools can be asked so.
        tools: What the model may ask to be called. A strategy either takes tools (`Strategy.takes_tools`) or cannot be
            asked with them. With the choice "none" they are shown to nobody.
        tool_choice: "auto", "none", "required", or the name of the tool that is to be called.
    """

    text: Annotated[str, StringConstraints(min_length=1)]
    choices: tuple[str, ...] = ()
    documents: tuple[Document, ...] = ()
    kind: AnswerKind = "auto"
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    # what is empty is in no dump: digests of questions that have nothing of it stay as they were
    conversation: tuple[Message, ...] = Field(default=(), exclude_if=lambda value: not value)
    since: tuple[Message, ...] = Field(default=(), exclude_if=lambda value: not value)
    tools: tuple[Tool, ...] = Field(default=(), exclude_if=lambda value: not value)
    tool_choice: ToolChoice = Field(default=FREE, exclude_if=lambda value: value == FREE)

    @model_validator(mode="after")
    def _turns_and_tools_fit(self) -> Self:
        if self.tools or self.tool_choice != FREE:
            check_choice(self.tools, self.tool_choice)
        if self.since and self.since[0].role != "assistant":
            raise ValueError("what follows the question begins with a turn of the assistant")
        return self

    @property
    def offered_tools(self) -> tuple[Tool, ...]:
        """The tools that a model is shown."""
        return () if self.tool_choice == NEVER else self.tools

    @property
    def needs_tools(self) -> bool:
        """Whether only a strategy that takes tools can be asked."""
        return bool(self.offered_tools or self.since)
