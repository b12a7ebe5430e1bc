"""`LabelledPair`: a text and a claim with the label that a training is to predict."""

from __future__ import annotations

from typing import NamedTuple

from ....verify.types import Label, Pair


class LabelledPair(NamedTuple):
    """A pair and its label.

    Attributes:
        pair: Text and claim.
        label: What the text states about the claim.
        kind: Where it comes from, or by which rule it was made.
        group: Pairs of one group belong into one batch: they differ in little.
    """

    pair: Pair
    label: Label
    kind: str
    group: str
