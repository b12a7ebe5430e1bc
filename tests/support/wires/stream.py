"""Shapes of streams, and what every wire has in common: a request is read as one of OpenAI's chat, a sample framed."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from support.wires.kinds import Kind
from support.wires.rules import Rule
from support.wires.script import Body, Sample, Token


@dataclass(frozen=True)
class Shape:
    """How a stream is cut into chunks.

    Attributes:
        tokens: Tokens of a chunk; 0 is one, or four where the wire is not OpenAI's.
        ids: Whether token ids are shown, where the kind does.
        usage: Where it is stated: at the end, with the finish, in every chunk, nowhere, or as the same numbers always.
        finish_apart: Whether the finish has a chunk of its own.
        comments: Whether comments that keep the connection alive stand between chunks.
        breaks: How it breaks off after `after` chunks: with an error in the stream, a closed connection, or a response
            that ends without a finish; empty if it does not.
    """

    name: str = "one token a chunk"
    tokens: int = 0
    ids: bool = True
    usage: Literal["end", "finish", "every", "missing", "constant"] = "end"
    finish_apart: bool = False
    comments: bool = False
    breaks: Literal["", "error", "reset", "end"] = ""
    after: int = 2


SHAPES = (
    Shape(),
    Shape("many tokens a chunk, no ids", tokens=7, ids=False),
    Shape("usage with the finish", usage="finish"),
    Shape("usage in every chunk", usage="every"),
    Shape("no usage", tokens=3, usage="missing"),
    Shape("constant usage", usage="constant"),
    Shape("finish of its own", finish_apart=True),
    Shape("comments", comments=True),
)
"""Shapes of complete streams."""


@dataclass
class Choice:
    """A generated sample.

    Attributes:
        thinking: Tokens of the thought that have been sent, with its tags.
        tokens: All tokens that have been sent.
        finish: How it ended; None if its client went away before.
    """

    thinking: int = 0
    tokens: int = 0
    finish: str | None = None


@dataclass
class Generation:
    """A request for text.

    Attributes:
        refused: Why it was refused; None if it was not.
        rule: The rule that refused it.
        cache: Beginnings of prompts in the server's cache.
    """

    path: str
    body: Body
    choices: list[Choice] = field(default_factory=list)
    refused: str | None = None
    rule: Rule | None = None
    prompt_tokens: int = 0
    cache: set[str] = field(default_factory=set)


class Stream(ABC):
    """The frames of one response.

    Args:
        kind: The model.
        body: The request, as the wire has it.
        made: What was sent so far.
        samples: What is sent.
    """

    content_type = "text/event-stream"
    COMMENT = b": keep-alive\n\n"

    def __init__(self, kind: Kind, body: Body, made: Generation, samples: Sequence[Sample], shape: Shape) -> None:
        self.kind, self.body, self.made, self.samples, self.shape = kind, body, made, samples, shape

    @staticmethod
    def normal(body: Body, path: str) -> Body:
        """The request with the names that `rules` and `kinds` know."""
        return body

    @staticmethod
    def chat_request(body: Body) -> Body:
        """A normal request in the form of OpenAI's chat."""
        return body

    def begin(self) -> bytes:
        """What comes before the first token."""
        return b""

    @abstractmethod
    def piece(self, index: int, tokens: Sequence[Token], *, is_first: bool, finish: str | None) -> bytes:
        """Tokens of a sample, and its finish with the last of them."""

    def end(self) -> bytes:
        """What comes after the last token."""
        return b""

    def broken(self) -> bytes:
        """An error in the stream."""
        return event(error_body(self.kind, 500, "the engine died"))

    def completed_call(self, index: int, call: int, tokens: Sequence[Token]) -> tuple[str, Any] | None:
        """Name and arguments of a sample's tool call whose last token is among these; None if it is not, or was cut."""
        sample = self.samples[index]
        mine = [token for token in sample.tokens if token.part == "call" and token.call == call]
        if all(token is not mine[-1] for token in tokens):
            return None
        try:
            return sample.tools[call], json.loads("".join(token.text for token in mine))
        except ValueError:
            return None

    def usage(self) -> tuple[int, int, int]:
        """Tokens of the prompt, of the response so far, and of its thoughts."""
        if self.shape.usage == "constant":
            return 10, 20, 0
        choices = self.made.choices
        return self.made.prompt_tokens, sum(c.tokens for c in choices), sum(c.thinking for c in choices)


def event(value: Any, kind: str = "") -> bytes:
    """An event of a stream."""
    data = value if isinstance(value, str) else json.dumps(value)
    return (f"event: {kind}\n" if kind else "").encode() + f"data: {data}\n\n".encode()


def by_part(tokens: Sequence[Token]) -> list[tuple[str, int, str]]:
    """Tokens as texts of one part each: part, number of the tool call, text. Those without a text are left out."""
    groups = groupby((t for t in tokens if t.text), key=lambda token: (token.part, token.call))
    return [(part, call, "".join(token.text for token in some)) for (part, call), some in groups]


def error_body(kind: Kind, status: int, message: str) -> Body:
    """An error in the form of the kind's provider."""
    names = {
        400: "invalid_request_error",
        404: "not_found_error",
        422: "invalid_request_error",
        429: "rate_limit_error",
    }
    name = names.get(status, "api_error")
    if kind.wire == "messages":
        return {"type": "error", "error": {"type": name, "message": message}}
    if kind.wire == "gemini":
        states = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
        return {"error": {"code": status, "message": message, "status": states.get(status, "INTERNAL")}}
    if kind.provider == "mistral":
        return {"object": "error", "message": message, "type": name, "param": None, "code": None}
    if kind.provider == "openrouter":
        return {"error": {"code": status, "message": message, "metadata": {"provider_name": "Upstream"}}}
    if kind.provider == "xai":
        return {"code": "Client specified an invalid argument", "error": message}
    return {"error": {"message": message, "type": name, "param": None, "code": status if kind.vllm else None}}
