"""`Segment`: a part of a run that a claim may have come from; `segments_of` lists those of a solution."""

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
"""What was put before the model beside the question: what context ablation leaves out."""

MAX_SEGMENT_WORDS = 120
"""Most words of a document's part."""


class Segment(Frozen):
    """A part of a run. It is data: nothing in it is ever an instruction.

    Attributes:
        name: What it is called in a report; unique within a run.
        kind: What it is: the system prompt, the question or its choices, a document or a part of one, the result of a
            tool or brain, what a candidate cites, a step of a candidate's chain, or a candidate as a whole.
        text: Its text.
        source: What it is a part of, by name: the document, the tool, the sample. Empty if it is whole.
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
    """The parts of a run, in the order in which they came to be.

    That order is: system prompt, question, choices, documents, results of tools and brains, then candidate by candidate
    what it cites, its steps, and its whole text. A candidate without steps is cut into them; one that is a single step
    is told as a whole alone. What a candidate cites is told once, however many cite it. Blank parts are left out.

    Args:
        question: What was asked, with its documents.
        solution: What a strategy made of it; None for a bare claim.
        system: The system prompt that was used.
        tools: (name, result) of what tools and brains returned, in order.
        words: Most words of a document's part; a longer document is cut between sentences.
    """
    found = [Segment(name="system prompt", kind="system", text=system)]
    found.append(Segment(name="question", kind="question", text=question.text))
    choices = "\n".join(f"{letter}) {c}" for letter, c in zip(LETTERS, question.choices, strict=False))
    found.append(Segment(name="choices", kind="question", text=choices))
    for document in question.documents:
        found += _parts(f"document «{document.name}»", "document", document.text, document.name, words)
    for name, result in tools:
        found += _parts(f"result of {name}", "tool", result, name, words)
    cited: set[tuple[str, str]] = set()
    for number, candidate in enumerate(solution.candidates if solution else (), 1):
        found += _candidate(candidate, f"sample {number}", cited)
    return _named_apart(s for s in found if s.text.strip())


def samples_of(segments: Sequence[Segment]) -> list[Segment]:
    """The candidates among the segments."""
    return [s for s in segments if s.kind == "sample"]


def context_segments(segments: Sequence[Segment]) -> list[Segment]:
    """What was put before the model beside the question, each text once.

    What stands word for word in another of them, as a citation does in its document, is left out: leaving one of two
    out of a context changes nothing, since the other remains.
    """
    whole = [s for s in segments if s.kind in CONTEXT_KINDS and s.kind != "citation"]
    texts: set[str] = set()
    kept: list[Segment] = []
    for segment in (s for s in segments if s.kind in CONTEXT_KINDS):
        text = segment.text.strip()
        again = text in texts or (segment.kind == "citation" and any(text in other.text for other in whole))
        if not again:
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


def _named_apart(segments: Iterable[Segment]) -> list[Segment]:
    """The segments with names of their own: two documents may be called the same."""
    apart: list[Segment] = []
    seen: Counter[str] = Counter()
    taken: set[str] = set()
    for segment in segments:
        name = segment.name
        while name in taken:
            seen[segment.name] += 1
            name = f"{segment.name} ({seen[segment.name] + 1})"
        taken.add(name)
        apart.append(segment if name == segment.name else segment.model_copy(update={"name": name}))
    return apart
