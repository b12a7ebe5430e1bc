"""From a model's sample to a candidate: its text, steps, and the answer it states."""

from __future__ import annotations

from ..core.answer import Candidate, Step
from ..core.messages import Completion
from ..core.question import Question
from .answers import extract
from .steps import split_steps


def read_candidate(completion: Completion, question: Question, score: float | None = None) -> Candidate:
    """Read a sample.

    A sample that was cut short is read too: it may have stated its answer before the cut.

    Args:
        completion: The sample.
        question: What it answers.
        score: The strategy's ranking score.
    """
    found = extract(completion.text, question)
    return Candidate(
        text=completion.text,
        answer=None if found is None else found.value,
        steps=tuple(Step(text=text) for text in split_steps(completion.text)),
        score=score,
        logprob=completion.logprob,
        tokens=completion.usage.completion_tokens,
        finish_reason=completion.finish_reason,
    )
