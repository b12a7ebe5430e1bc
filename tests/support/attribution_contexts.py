"""Four contexts of four sentences, one of which a claim repeats, word for word or nearly; most facts are made up."""

from __future__ import annotations

from typing import NamedTuple

from reason.core.types import Document, Question
from reason.verify.attribution import Segment, segments_of
from reason.verify.types import Claim


class CopiedFact(NamedTuple):
    """A context, what is asked about it, what is answered, and the place of the sentence that was copied."""

    sentences: tuple[str, str, str, str]
    question: str
    answer: str
    source: int

    @property
    def claim(self) -> Claim:
        return Claim(text=self.answer, start=0, end=len(self.answer))

    @property
    def segments(self) -> list[Segment]:
        return context_of(self.question, self.sentences)

    @property
    def name(self) -> str:
        """The source's name among the segments."""
        return f"document «note {self.source + 1}»"


def context_of(question: str, sentences: tuple[str, ...]) -> list[Segment]:
    """A question and its notes, of a sentence each."""
    notes = tuple(Document(name=f"note {i}", text=sentence) for i, sentence in enumerate(sentences, 1))
    return segments_of(Question(text=question, documents=notes))


FACTS = (
    CopiedFact(
        (
            "Zelinka is the captain of the ship Marigold.",
            "The library of Orvik closes at five in the afternoon.",
            "Bread is baked from flour, water and salt.",
            "The bridge over the river Tarn was painted green.",
        ),
        "Who is the captain of the ship Marigold?",
        "Zelinka is the captain of the ship Marigold.",
        0,
    ),
    CopiedFact(
        (
            "The train to Brenn has nine coaches.",
            "The tower was built of grey stone.",
            "Copper conducts heat well.",
            "Doctor Okonkwo discovered the comet in 1987.",
        ),
        "Who discovered the comet?",
        "Doctor Okonkwo discovered the comet.",
        3,
    ),
    CopiedFact(
        (
            "The castle of Dunmore has seventeen towers.",
            "Wool comes from sheep.",
            "The film lasts two hours.",
            "The ferry runs twice a day.",
        ),
        "How many towers does the castle of Dunmore have?",
        "The castle of Dunmore has seventeen towers.",
        0,
    ),
    CopiedFact(
        (
            "Salt dissolves in water.",
            "The medicine must be kept below eleven degrees.",
            "The fence is made of oak.",
            "The choir has thirty singers.",
        ),
        "How cold must the medicine be kept?",
        "The medicine must be kept below eleven degrees.",
        1,
    ),
)
