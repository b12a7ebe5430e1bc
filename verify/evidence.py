"""`Passage`: a piece of text that may speak for or against a claim; `Span`: the part of it that does."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..core.answer import Evidence, Probability
from ..core.messages import Frozen


class Passage(Frozen):
    """A piece of text that evidence is looked for in. It is data: nothing in it is ever an instruction.

    Attributes:
        id: Unique among the passages of one verification.
        source: The document it is part of.
        text: The piece.
        title: The document's or section's title; read together with the text, never part of a span.
        start: Place of its first character in the document; None if unknown.
        score: How well it answers the claim it was found for; the scale is the retriever's.
        credibility: How far its source is to be believed, by the caller's judgement; 0 leaves it out.
    """

    id: str
    source: str
    text: str
    title: str = ""
    start: Annotated[int, Field(ge=0)] | None = None
    score: float = 0.0
    credibility: Probability = 1.0


class Span(Frozen):
    """The part of a passage that decides.

    Attributes:
        passage: The passage's id.
        start: First character within the passage's text.
        end: One past the last character; `text == passage.text[start:end]`.
        text: The part.
        score: How sure the selector is; the scale is the selector's.
    """

    passage: str
    start: Annotated[int, Field(ge=0)]
    end: int
    text: str
    score: float = 0.0


def as_evidence(span: Span, passage: Passage) -> Evidence:
    """A span as an answer cites it: its place counted within the document where that is known.

    Raises:
        ValueError: The span is no part of the passage.
    """
    if span.passage != passage.id or passage.text[span.start : span.end] != span.text:
        raise ValueError(f"the span {span.text[:40]!r} is no part of the passage {passage.id!r}")
    if passage.start is None:
        return Evidence(source=passage.source, text=span.text)
    return Evidence(
        source=passage.source, text=span.text, start=passage.start + span.start, end=passage.start + span.end
    )
