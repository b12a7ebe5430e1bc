"""GPQA: multiple-choice questions of biology, physics and chemistry by experts.

Source: Rein et al., "GPQA: A Graduate-Level Google-Proof Q&A Benchmark" (COLM 2024).
"""

from __future__ import annotations

from collections.abc import Iterator

from ...core.question import Question
from ..items import ChoiceGold, Item
from .hub import HubSource
from .recipe import Reading, Recipe
from .rows import RawRow

_WRONG = tuple(f"Incorrect Answer {i}" for i in (1, 2, 3))


def _hub(variant: str) -> tuple[HubSource, ...]:
    revision = "633f5ee89ab8ad4522a9f850766b73f62147ffdd"
    return (HubSource("Idavidrein/gpqa", "train", f"gpqa_{variant}", revision=revision, gated=True),)


def _read(rows: Iterator[RawRow], reading: Reading) -> Iterator[Item]:
    for row in rows:
        name = row.text("Record ID") if row.has("Record ID") else f"gpqa-{row.position:03d}"
        choices = tuple(row.text(field).strip() for field in ("Correct Answer", *_WRONG))
        order = reading.order(name, len(choices))
        yield Item(
            id=name,
            question=Question(
                text=row.text("Question").strip(), choices=tuple(choices[i] for i in order), kind="choice"
            ),
            gold=ChoiceGold(correct=(order.index(0),)),
            subject=row.optional("High-level domain"),
        )


GPQA = Recipe(
    name="gpqa",
    summary="GPQA: graduate-level questions of biology, physics and chemistry, four choices",
    licence="CC BY 4.0",
    warning=(
        "Its authors ask that its questions be shown nowhere in plain text, so that no model is trained on them: keep "
        "traces and reports of it to yourself."
    ),
    read=_read,
    hub=_hub,
    variants={
        "diamond": "the 198 that experts answer and others do not",
        "main": "448 questions",
        "extended": "546 questions",
    },
    folders=("gpqa",),
)
