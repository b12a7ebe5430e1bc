"""Two scripted models that write sums in steps; how sure the small one is of a step is known exactly."""

from __future__ import annotations

import math
import re
from typing import Any

from reason.core.types import Question
from reason.reasoning.prompts import answer_trigger

from support.scripted_model import END, Distribution, ScriptedModel

SMALL, LARGE = "s/small", "s/large"
BEGINNINGS = "ABCDEFGHIJKLMNOP"
CONCLUSION = answer_trigger(Question(text="?", kind="number"))


def ways_of(a: int) -> int:
    """How many equally likely beginnings the small model has for the first step of `a + (a + 1)`."""
    return 1 + a % 16


def entropy_of(a: int) -> float:
    """The entropy of that step's first token, in nats; those of the second and third are 0."""
    return math.log(ways_of(a))


def small_script(text: str) -> Distribution:
    """Two steps and the answer, which is one too small for every third sum."""
    question, _, written = text.rpartition("assistant: ")
    a, b = map(int, re.findall(r"What is (\d+) \+ (\d+)", question)[-1])
    rest = f" is how it begins.\n\nThen {a} and {b}.\n\nThe answer is {a + b - (a % 3 == 0)}.{END}"
    return _next(written, rest, BEGINNINGS[: ways_of(a)])


def large_script(text: str) -> Distribution:
    """The same, begun with Z where it has the first word; always right, and it gives every step an 8."""
    question, _, written = text.rpartition("assistant: ")
    a, b = map(int, re.findall(r"What is (\d+) \+ (\d+)", question)[-1])
    if written.startswith("Digit for"):
        return {"8": 1.0}
    before, concluded, after = written.partition(CONCLUSION)
    if concluded:  # it is asked for the answer behind the steps
        return _next("Z" + after, f" {a + b}.{END}", "Z")
    return _next(before, f" is how it begins.\n\nThen {a} and {b}.\n\nThe answer is {a + b}.{END}", "Z")


def _next(written: str, rest: str, beginnings: str) -> Distribution:
    if not written:
        return dict.fromkeys(beginnings, 1 / len(beginnings))
    follows = written[1:]
    return {rest[len(follows)]: 1.0} if rest.startswith(follows) and len(follows) < len(rest) else {END: 1.0}


def both_models(**options: Any) -> dict[str, ScriptedModel]:
    """The two by their names."""
    return {
        SMALL: ScriptedModel(small_script, name=SMALL, **options),
        LARGE: ScriptedModel(large_script, name=LARGE),
    }
