"""From a completion to a candidate: its text, steps, and the answer it states."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..core.messages import Completion, canonical_calls
from ..core.types import Candidate, Question, Step
from .answers.extraction import ExtractedAnswer, extract_answer
from .segmentation import split_steps

_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n|\}|(?<!\d)[.!?]\Z")


def read_candidate(completion: Completion, question: Question, score: float | None = None) -> Candidate:
    """Parse a completion.

    The answer is read from the completion's text (`read_answer`), never from its thought.

    If a completion calls tools, its answer is the canonical text of the calls, which is appended as a last step.

    Args:
        score: The strategy's ranking score.
    """
    if completion.tool_calls:
        return _read_tool_calls(completion, score)
    answer = read_answer(completion.text, question, is_cut=completion.finish_reason != "stop")
    return _candidate(
        completion,
        None if answer is None else answer.value,
        [Step(text=s) for s in split_steps(completion.text)],
        score,
    )


def read_answer(text: str, question: Question, *, is_cut: bool) -> ExtractedAnswer | None:
    """The answer of a text.

    A text that was cut has one only if a box or a marker ("the answer is …") states it, or complete code is it, within
    its complete sentences: what else comes before a cut is a step on the way, and the text right at the cut may be half
    a word or half a number.
    """
    if not is_cut:
        return extract_answer(text, question)
    answer = extract_answer(complete_sentences(text), question)
    return answer if answer is not None and (answer.is_explicit or answer.method == "code") else None


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


def is_unfinished(candidate: Candidate) -> bool:
    """Whether a candidate was cut before it stated an answer: it takes part in no vote and no choice."""
    return candidate.answer is None and candidate.finish_reason != "stop"


def finished_or_all(candidates: Sequence[Candidate]) -> list[int]:
    """Positions of the candidates among which one is chosen: the finished ones, or all if none is."""
    finished = [i for i, candidate in enumerate(candidates) if not is_unfinished(candidate)]
    return finished or list(range(len(candidates)))


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
