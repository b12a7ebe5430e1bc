"""From a model's sample to a candidate: its text, steps, and the answer it states."""

from __future__ import annotations

import re

from ..core.answer import Candidate, Step
from ..core.messages import Completion
from ..core.question import Question
from ..core.tools import canonical_calls
from .answers.extraction import extract
from .segmentation import split_steps

_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n|\}|(?<!\d)[.!?]\Z")


def read_candidate(completion: Completion, question: Question, score: float | None = None) -> Candidate:
    """Read a sample.

    A sample that was cut short is read too, up to its last whole sentence: it may have stated its answer before the
    cut, but what stands right at the cut may be half a word or half a number.

    Where a sample calls tools, its answer is the canonical text of the calls, which stands as a last step behind
    whatever was said before them.

    Args:
        completion: The sample.
        question: What it answers.
        score: The strategy's ranking score.
    """
    if completion.tool_calls:
        return _calling(completion, score)
    whole = completion.text if completion.finish_reason == "stop" else whole_sentences(completion.text)
    found = extract(whole, question)
    return Candidate(
        text=completion.text,
        answer=None if found is None else found.value,
        steps=tuple(Step(text=text) for text in split_steps(completion.text)),
        score=score,
        logprob=completion.logprob,
        tokens=completion.usage.completion_tokens,
        finish_reason=completion.finish_reason,
    )


def shown_text(candidate: Candidate) -> str:
    """What a candidate says, with its calls behind it: what a judge of it reads."""
    if not candidate.tool_calls:
        return candidate.text
    return "\n\n".join(part for part in (candidate.text.strip(), candidate.answer) if part)


def _calling(completion: Completion, score: float | None) -> Candidate:
    called = canonical_calls(completion.tool_calls)
    return Candidate(
        text=completion.text,
        answer=called,
        steps=(*(Step(text=text) for text in split_steps(completion.text)), Step(text=called)),
        score=score,
        logprob=completion.logprob,
        tokens=completion.usage.completion_tokens,
        finish_reason=completion.finish_reason,
        tool_calls=completion.tool_calls,
    )


def whole_sentences(text: str) -> str:
    """A text that was cut short, up to the end of its last whole sentence, line or formula; empty if there is none.

    A point at the very end counts only where it cannot be the middle of a number.
    """
    end = max((m.end() for m in _SENTENCE_END.finditer(text)), default=0)
    return text[:end]
