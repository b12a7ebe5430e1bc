"""Scripts of a judge whose every verdict has a known probability, for prompts of `reason.reasoning.judge`."""

from __future__ import annotations

import re
from collections.abc import Callable

from .scripted_model import END, Distribution, Script

_SHOWN = re.compile(r"^Answer( ?[A-Z]*):\n((?:> .*\n?)+)", re.MULTILINE)


def shown_answers(text: str) -> list[str]:
    """The answers that a judge's prompt shows, in order; none if it is no such prompt."""
    if not any(task in text for task in ("Compare the two answers", "Rate the answer")):
        return []
    return ["\n".join(line[2:] for line in block.strip().split("\n")) for _, block in _SHOWN.findall(text)]


def shown_letters(text: str) -> list[str]:
    """Their letters."""
    return [letter.strip() for letter, _ in _SHOWN.findall(text)]


def judging(
    otherwise: Script,
    *,
    prefers: Callable[[str, str], float] = lambda a, b: 0.5,
    mark: Callable[[str], Distribution] = lambda a: {"5": 1.0},
    bias: float = 0.0,
    off_scale: float = 0.0,
) -> Script:
    """A script that compares or rates, and does something else on other prompts.

    Args:
        otherwise: The script for other prompts.
        prefers: Probability that the first of two answers is better.
        mark: Distribution of an answer's mark.
        bias: What is added to the probability of the answer that is shown first.
        off_scale: Probability of a verdict that is no label.
    """

    def script(text: str) -> Distribution:
        answers = shown_answers(text)
        if not answers:
            return otherwise(text)
        if text[-1].isalnum():  # the verdict is written
            return {END: 1.0}
        if len(answers) == 1:
            chances = dict(mark(answers[0]))
        else:
            first = min(1.0, max(0.0, prefers(*answers) + bias))
            chances = dict(zip(shown_letters(text), (first, 1 - first), strict=True))
        chances = {label: p * (1 - off_scale) for label, p in chances.items() if p}
        return {**chances, "~": off_scale} if off_scale else chances

    return script
