"""`Case`: a labelled claim with the texts that decide it and those that do not; `Labelled`: a pair with its label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from ...core.messages import Frozen
from ...verify.entailment.protocol import Pair
from ...verify.support import Label

_WORD = re.compile(r"\w+")

FOR_LABEL: Final[dict[str, Label]] = {
    "SUPPORTS": "supports",
    "SUPPORTED": "supports",
    "REFUTES": "refutes",
    "NOT ENOUGH INFO": "neutral",
    "NOT_ENOUGH_INFO": "neutral",
}
"""Our labels by what the sources call them."""


class Text(NamedTuple):
    """A text with the title of its page; empty if unknown."""

    title: str
    text: str


class Labelled(NamedTuple):
    """A pair and its label.

    Attributes:
        pair: Text and claim.
        label: What the text says of the claim.
        kind: Where it comes from, or by which rule it was made.
        group: Pairs of one group belong into one batch: they differ in little.
    """

    pair: Pair
    label: Label
    kind: str
    group: str


class Case(Frozen):
    """A labelled claim.

    Attributes:
        source: The dataset.
        name: Its name there.
        claim: The claim.
        label: What each of `texts` says of it.
        texts: Texts that decide it, each by itself; of a neutral claim texts that come near.
        retrieved: What a retriever found, best first; may hold deciding sentences.
        gold: The single sentences that belong to deciding texts.
        case: Name of the contrast group that the source put it into; empty if none.
    """

    source: str
    name: str
    claim: str
    label: Label
    texts: tuple[Text, ...] = ()
    retrieved: tuple[Text, ...] = ()
    gold: tuple[Text, ...] = ()
    case: str = ""

    @property
    def silent(self) -> tuple[Text, ...]:
        """What the retriever found that is no part of a deciding text."""
        gold = {t.text for t in self.gold}
        return tuple(t for t in self.retrieved if t.text not in gold)


def normal(claim: str) -> str:
    """A claim by its words alone: two claims with the same are the same claim."""
    return " ".join(_WORD.findall(claim.casefold()))


def joined(sentences: Sequence[Text]) -> Text:
    """Sentences as one text: under their page if it is one, else with each further page named before its sentences."""
    title, parts, page = sentences[0].title, [], sentences[0].title
    for one in sentences:
        parts.append(one.text if one.title == page or not one.title else f"{one.title}: {one.text}")
        page = one.title or page
    return Text(title, " ".join(parts))


def paired(text: Text, claim: str) -> Pair:
    """A text and a claim as a judge takes them."""
    return Pair(text.text, claim, text.title)
