"""A run whose answer was given to it: what its configuration says, and what stands in a strategy's place."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from ..core.answer import Candidate, Solution

GIVEN = "given"
"""Strategy of such a run. It is none that could be asked for: nothing is solved."""
ANSWER = "answer"
"""Its one parameter: the text that was given."""
NO_QUESTION = " "
"""Question of such a run where none came with the answer; a question has at least one character."""


def given_parameters(text: str) -> dict[str, JsonValue]:
    """The parameters of a run whose answer is a text."""
    return {ANSWER: text}


def given_text(parameters: Mapping[str, JsonValue]) -> str:
    """The text that was given."""
    return str(parameters[ANSWER])


def given_solution(parameters: Mapping[str, JsonValue]) -> Solution:
    """The given text as a solution."""
    text = given_text(parameters)
    return Solution(chosen=0, candidates=(Candidate(text=text, answer=text),))
