"""The texts that a judge reads for a claim and a passage.

Two passages as one text, for claims that need both, were tried and left out: with them, more claims were wrongly called
supported than settled.
"""

from __future__ import annotations

from ...reasoning.knowledge import Passage
from ..types import Pair
from .features import same_quantity, text_terms
from .passages import judged_claim, judged_passage


def judged_pair(claim: str, passage: Passage) -> Pair:
    """A passage and a claim as the judge reads them: equal numbers are written alike (see `in_notation_of`)."""
    judged = judged_passage(passage)
    return Pair(judged.text, in_notation_of(judged.text, judged_claim(claim)), judged.title)


def in_notation_of(text: str, claim: str) -> str:
    """The claim with its quantities, dates and numbers as a text writes the same ones.

    A judge knows that 1,500 m is 1.5 km, or that June 12, 1926 is 12 June 1926, only by chance; a program knows.
    """
    terms = text_terms(text)
    parts: list[str] = []
    end = 0
    for quantity in text_terms(claim).quantities:
        other = same_quantity(quantity, terms)
        if other is not None:
            parts += [claim[end : quantity.start], other.text]
            end = quantity.end
    return "".join([*parts, claim[end:]])
