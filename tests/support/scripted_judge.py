"""Scripts of a judge whose every verdict has a known probability, for prompts of `reason.reasoning.best_of_n`."""

from __future__ import annotations

import re
from collections.abc import Callable

from .scripted_model import END, Distribution, Script

_SHOWN = re.compile(r"^Answer( ?[A-Z]*):\n((?:> .*\n?)+)", re.MULTILINE)


def shown_answers(text: str) -> list[str]:
    """The answer that a judge's prompt shows; none if it is no such prompt."""
    if "Rate the answer" not in text:
        return []
    return ["\n".join(line[2:] for line in block.strip().split("\n")) for _, block in _SHOWN.findall(text)]


def judging(
    otherwise: Script,
    *,
    mark: Callable[[str], Distribution] = lambda a: {"5": 1.0},
    off_scale: float = 0.0,
) -> Script:
    """A script that rates, and does something else on other prompts.

    Args:
        otherwise: The script for other prompts.
        mark: Distribution of an answer's mark.
        off_scale: Probability of a verdict that is no label.
    """

    def script(text: str) -> Distribution:
        answers = shown_answers(text)
        if not answers:
            return otherwise(text)
        if text[-1].isalnum():  # the verdict is written
            return {END: 1.0}
        chances = {label: p * (1 - off_scale) for label, p in mark(answers[0]).items() if p}
        return {**chances, "~": off_scale} if off_scale else chances

    return script
