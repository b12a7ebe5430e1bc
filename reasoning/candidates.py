"""From a model's sample to a candidate: its text, steps, and the answer it states."""

from __future__ import annotations

import re

from ..core.answer import Candidate, Step
from ..core.messages import Completion
from ..core.question import Question
from .answers import extract
from .steps import split_steps

_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n|\}|(?<!\d)[.!?]\Z")


def read_candidate(completion: Completion, question: Question, score: float | None = None) -> Candidate:
    """Read a sample.

    A sample that was cut short is read too, up to its last whole sentence: it may have stated its answer before the
    cut, but what stands right at the cut may be half a word or half a number.

    Args:
        completion: The sample.
        question: What it answers.
        score: The strategy's ranking score.
    """
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


def whole_sentences(text: str) -> str:
    """A text that was cut short, up to the end of its last whole sentence, line or formula; empty if there is none.

    A point at the very end counts only where it cannot be the middle of a number.
    """
    end = max((m.end() for m in _SENTENCE_END.finditer(text)), default=0)
    return text[:end]
