"""How a claim is put as a question: documents, the question, a choice for each label."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.question import Document, Question
from ..items import EvidenceSets, Item, LabelGold
from .recipe import Reading
from .rows import RawRow

SUPPORTS, REFUTES, NOT_ENOUGH, DISPUTED = "SUPPORTS", "REFUTES", "NOT ENOUGH INFO", "DISPUTED"
THREE = (SUPPORTS, REFUTES, NOT_ENOUGH)
SPELLINGS = {
    "SUPPORTS": SUPPORTS,
    "SUPPORTED": SUPPORTS,
    "REFUTES": REFUTES,
    "REFUTED": REFUTES,
    "NOT ENOUGH INFO": NOT_ENOUGH,
    "NOT_ENOUGH_INFO": NOT_ENOUGH,
    "DISPUTED": DISPUTED,
}
"""What the sources call the labels."""

CLAIM_ONLY = "claim-only"
"""The variant without evidence: what a method gets from the claims' wording alone."""

_BY_DOCUMENTS = {
    SUPPORTS: "The documents support the claim.",
    REFUTES: "The documents refute the claim.",
    NOT_ENOUGH: "The documents do not hold enough information to tell.",
    DISPUTED: "Some documents support the claim and others refute it.",
}
_BY_ITSELF = {
    SUPPORTS: "The claim is true.",
    REFUTES: "The claim is false.",
    NOT_ENOUGH: "It cannot be told.",
    DISPUTED: "It is disputed.",
}


def claim_item(
    reading: Reading,
    *,
    name: str,
    claim: str,
    label: str,
    labels: Sequence[str],
    documents: Sequence[Document],
    evidence: EvidenceSets | None = None,
    subject: str = "",
    group: str = "",
) -> Item:
    """A claim with its documents as a multiple-choice question.

    The order of the documents is drawn by the seed, since a source may list the gold ones first; so is the order of the
    choices.

    Args:
        reading: The seed and whether the documents are shown.
        name: The item's name.
        claim: The claim.
        label: The right label.
        labels: All labels.
        documents: The evidence shown.
        evidence: What of it is right; names that are not shown are left out.
        subject: Of the item.
        group: Of the item.
    """
    alone = reading.variant == CLAIM_ONLY
    order = reading.order(name, len(labels))
    shown = tuple(labels[i] for i in order)
    texts = _BY_ITSELF if alone else _BY_DOCUMENTS
    asked = "Is the claim true?" if alone else "What do the documents say of the claim?"
    placed = () if alone else tuple(documents[i] for i in reading.order(f"{name}\x1fdocuments", len(documents)))
    return Item(
        id=name,
        question=Question(
            text=f"Claim: {claim}\n\n{asked}",
            choices=tuple(texts[one] for one in shown),
            documents=placed,
            kind="choice",
        ),
        gold=LabelGold(label=label, labels=tuple(labels), shown=shown, evidence=None if alone else evidence),
        subject=subject,
        group=group,
    )


def sentence(name: str, page: str, text: str) -> Document:
    """A sentence with the title of its page, without which many a pronoun hangs in the air."""
    return Document(name=name, text=f"{page}: {text}" if page else text)


def label_of(row: RawRow, field: str, labels: Sequence[str]) -> str:
    """A label field, in our spelling.

    Raises:
        DataError: It is none of the labels.
    """
    return row.label(field, {spelling: ours for spelling, ours in SPELLINGS.items() if ours in labels})
