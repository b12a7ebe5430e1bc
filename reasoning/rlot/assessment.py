"""Reading a self-assessment: seven scores from 0 to 3 out of whatever the model made of the request for them.

A reply is read as JSON where it holds JSON (`scores_in_json`), and by the names of the aspects for what JSON does not
name (`scores_in_text`). Scores are the whole numbers 0 to 3 as digits: `2`, `"2"`, `2.0`, `2/3`. Words, ranges (`0-3`),
other decimals and other numbers are none. An aspect without a score is 0, "not involved", *and* counted as missing. Of
an aspect that is scored several times the last score counts, as with final answers. What stands in `<think>` is not
read.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, for the aspects and the scale. Differs: the authors'
program reads free text with one regular expression, to which bold or bracketed names are "not involved", and does not
count what it could not read.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..reading import read
from .aspects import ASPECTS, State
from .scores_in_json import scores_in_json
from .scores_in_text import scores_in_text

__all__ = ["ASPECTS", "Assessment", "State", "read_assessment"]

_LONGEST = 20_000
"""Characters read of a reply, from its end; an assessment has a few hundred."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a model said of its own reasoning.

    Attributes:
        state: The scores; 0 where there was none.
        missing: Aspects without a score, 0 to 7.
    """

    state: State
    missing: int


def read_assessment(reply: str) -> Assessment:
    """The scores in a reply; never fails, for what cannot be read is counted."""
    text = read(reply[-_LONGEST:]).text
    in_json = scores_in_json(text)
    scores = {**scores_in_text(text), **in_json}
    a1, a2, a3, b1, b2, c1, c2 = (scores.get(aspect) for aspect in ASPECTS)
    return Assessment(
        state=(a1 or 0, a2 or 0, a3 or 0, b1 or 0, b2 or 0, c1 or 0, c2 or 0),
        missing=(a1, a2, a3, b1, b2, c1, c2).count(None),
    )
