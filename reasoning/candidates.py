"""From a completion to a candidate: its text, steps, and the answer it states."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..core.messages import Completion, canonical_calls
from ..core.types import Candidate, Question, Step
from .answers.extraction import extract_answer
from .segmentation import split_steps

_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n|\}|(?<!\d)[.!?]\Z")


def read_candidate(completion: Completion, question: Question, score: float | None = None) -> Candidate:
    """Parse a completion.

    The answer is read from the completion's text, never from its thought. A truncated completion is parsed up to its
    last complete sentence: it may have stated its answer before the cut, but the text right at the cut may be half a
    word or half a number.

    If a completion calls tools, its answer is the canonical text of the calls, which is appended as a last step.

    Args:
        score: The strategy's ranking score.
    """
    if completion.tool_calls:
        return _read_tool_calls(completion, score)
    text = completion.text if completion.finish_reason == "stop" else complete_sentences(completion.text)
    answer = extract_answer(text, question)
    return _candidate(
        completion,
        None if answer is None else answer.value,
        [Step(text=s) for s in split_steps(completion.text)],
        score,
    )


def _candidate(completion: Completion, answer: str | None, steps: Sequence[Step], score: float | None) -> Candidate:
    thought = completion.thought
    return Candidate(
        text=completion.text,
        answer=answer,
        steps=tuple(steps),
        score=score,
        logprob=completion.logprob,
        tokens=completion.usage.completion_tokens,
        thought="" if thought is None else thought.text.strip(),
        thinking_tokens=completion.usage.thinking_tokens,
        finish_reason=completion.finish_reason,
        tool_calls=completion.tool_calls,
    )


def text_with_calls(candidate: Candidate) -> str:
    """A candidate's text with its tool calls appended: what a judge of it reads."""
    if not candidate.tool_calls:
        return candidate.text
    return "\n\n".join(part for part in (candidate.text.strip(), candidate.answer) if part)


def _read_tool_calls(completion: Completion, score: float | None) -> Candidate:
    calls = canonical_calls(completion.tool_calls)
    steps = [*(Step(text=text) for text in split_steps(completion.text)), Step(text=calls)]
    return _candidate(completion, calls, steps, score)


def complete_sentences(text: str) -> str:
    """A truncated text up to the end of its last complete sentence, line or formula; empty if there is none.

    A full stop at the very end counts only if it cannot be the middle of a number.
    """
    end = max((m.end() for m in _SENTENCE_END.finditer(text)), default=0)
    return text[:end]
