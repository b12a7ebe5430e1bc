"""The parts of a run from which a claim may come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from ...core.messages import Frozen
from ...core.types import Candidate, Question, Solution
from ...reasoning.prompts import LETTERS
from ...reasoning.retrieval.chunking import split_chunks
from ...reasoning.segmentation import split_steps

SegmentKind = Literal["system", "question", "document", "tool", "citation", "step", "sample"]

CONTEXT_KINDS: tuple[SegmentKind, ...] = ("document", "tool", "citation")
"""Parts of the prompt besides the question; context ablation leaves them out."""

MAX_SEGMENT_WORDS = 120
"""Maximum words of a document's part."""


class Segment(Frozen):
    """A part of a run. It is data; instructions in it are not followed.

    Attributes:
        name: Its name in a report, unique within a run.
        kind: The system prompt, the question or its choices, a document or a part of one, the result of a tool or
            knowledge source, a citation of a candidate, a step of a candidate, or a complete candidate.
        text: Its text.
        source: Name of the document, tool or sample that it is a part of; empty if it is complete.
    """

    name: str
    kind: SegmentKind
    text: str
    source: str = ""


def segments_of(
    question: Question,
    solution: Solution | None = None,
    *,
    system: str = "",
    tools: Iterable[tuple[str, str]] = (),
    words: int = MAX_SEGMENT_WORDS,
) -> list[Segment]:
    """The parts of a run, in the order of their creation.

    The order is: system prompt, question, choices, documents, results of tools and knowledge sources, then for each
    candidate its citations, its steps and its text. A candidate without steps is split into steps. A citation is listed
    once, even if several candidates have it. Blank parts are left out.

    Args:
        question: The question, with its documents.
        solution: The solution of a strategy; None for a claim without one.
        system: The system prompt.
        tools: (name, result) of tools and knowledge sources, in order.
        words: Maximum words of a document's part; a longer document is split between sentences.
    """
    segments = [Segment(name="system prompt", kind="system", text=system)]
    segments.append(Segment(name="question", kind="question", text=question.text))
    choices = "\n".join(f"{letter}) {c}" for letter, c in zip(LETTERS, question.choices, strict=False))
    segments.append(Segment(name="choices", kind="question", text=choices))
    for document in question.documents:
        segments += _parts(f"document «{document.name}»", "document", document.text, document.name, words)
    for name, result in tools:
        segments += _parts(f"result of {name}", "tool", result, name, words)
    cited: set[tuple[str, str]] = set()
    for number, candidate in enumerate(solution.candidates if solution else (), 1):
        segments += _candidate(candidate, f"sample {number}", cited)
    return _with_unique_names(s for s in segments if s.text.strip())


def samples_of(segments: Sequence[Segment]) -> list[Segment]:
    """The candidates among the segments."""
    return [s for s in segments if s.kind == "sample"]


def context_segments(segments: Sequence[Segment]) -> list[Segment]:
    """The parts of the prompt besides the question, each text once.

    A citation that is contained in a document is omitted: to leave out one of two copies would change nothing.
    """
    documents = [s for s in segments if s.kind in CONTEXT_KINDS and s.kind != "citation"]
    texts: set[str] = set()
    kept: list[Segment] = []
    for segment in (s for s in segments if s.kind in CONTEXT_KINDS):
        text = segment.text.strip()
        is_copy = text in texts or (segment.kind == "citation" and any(text in other.text for other in documents))
        if not is_copy:
            texts.add(text)
            kept.append(segment)
    return kept


def _parts(name: str, kind: SegmentKind, text: str, source: str, words: int) -> list[Segment]:
    pieces = split_chunks(text, words=words, overlap=0)
    if len(pieces) < 2:
        return [Segment(name=name, kind=kind, text=text, source=source)]
    return [
        Segment(name=f"{name}, part {i}", kind=kind, text=text[piece.start : piece.end], source=source)
        for i, piece in enumerate(pieces, 1)
    ]


def _candidate(candidate: Candidate, name: str, cited: set[tuple[str, str]]) -> Iterable[Segment]:
    for evidence in candidate.citations:
        if (evidence.source, evidence.text) not in cited:
            cited.add((evidence.source, evidence.text))
            label = f"citation {len(cited)} («{evidence.source}»)"
            yield Segment(name=label, kind="citation", text=evidence.text, source=evidence.source)
    steps = [s.text for s in candidate.steps] or split_steps(candidate.text)
    if len(steps) > 1:
        for i, step in enumerate(steps, 1):
            yield Segment(name=f"{name}, step {i}", kind="step", text=step, source=name)
    yield Segment(name=name, kind="sample", text=candidate.text)


def _with_unique_names(segments: Iterable[Segment]) -> list[Segment]:
    """The segments with unique names, since two documents may have the same name."""
    renamed: list[Segment] = []
    seen: Counter[str] = Counter()
    used_names: set[str] = set()
    for segment in segments:
        name = segment.name
        while name in used_names:
            seen[segment.name] += 1
            name = f"{segment.name} ({seen[segment.name] + 1})"
        used_names.add(name)
        renamed.append(segment if name == segment.name else segment.model_copy(update={"name": name}))
    return renamed
