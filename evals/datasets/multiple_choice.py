"""Multiple choice: GPQA and TruthfulQA.

Source: Rein et al., "GPQA: A Graduate-Level Google-Proof Q&A Benchmark" (COLM 2024). Lin, Hilton and Evans,
"TruthfulQA: Measuring How Models Mimic Human Falsehoods" (ACL 2022), section 3.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...core.types import Question
from .items import ChoiceGold, Item
from .records import HubSource, Record
from .spec import DatasetSpec, ReadOptions

_WRONG = tuple(f"Incorrect Answer {i}" for i in (1, 2, 3))


def _gpqa_hub(variant: str) -> tuple[HubSource, ...]:
    revision = "633f5ee89ab8ad4522a9f850766b73f62147ffdd"
    return (HubSource("Idavidrein/gpqa", "train", f"gpqa_{variant}", revision=revision, gated=True),)


def _read_gpqa(rows: Iterator[Record], reading: ReadOptions) -> Iterator[Item]:
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


GPQA = DatasetSpec(
    name="gpqa",
    summary="GPQA: graduate-level questions of biology, physics and chemistry, four choices",
    licence="CC BY 4.0",
    warning=(
        "Its authors ask that its questions be shown nowhere in plain text, so that no model is trained on them: keep "
        "traces and reports of it to yourself."
    ),
    read=_read_gpqa,
    hub=_gpqa_hub,
    variants={
        "diamond": "the 198 that experts answer and others do not",
        "main": "448 questions",
        "extended": "546 questions",
    },
    folders=("gpqa",),
)


_REPO = "truthfulqa/truthful_qa"
_REVISION = "741b8276f2d1982aa3d5b832d3ee81ed3b896490"


def _truthfulqa_hub(variant: str) -> tuple[HubSource, ...]:
    return (HubSource(_REPO, "validation", "multiple_choice", revision=_REVISION),)


def _read_truthfulqa(rows: Iterator[Record], reading: ReadOptions) -> Iterator[Item]:
    for row in rows:
        name = row.text("id") if row.has("id") else f"tqa-{row.position:04d}"
        subject = row.optional("category")
        text = row.text("question")
        choices, right = _targets(row, reading.variant)
        order = reading.order(name, len(choices))
        shown = tuple(choices[i] for i in order)
        correct = tuple(k for k, i in enumerate(order) if i in right)
        yield Item(
            id=name,
            question=Question(text=text, choices=shown, kind="choice"),
            gold=_mass(row, shown, correct) if reading.variant == "mc2" else ChoiceGold(correct=correct),
            subject=subject,
        )


def _targets(row: Record, variant: str) -> tuple[tuple[str, ...], set[int]]:
    """The choices of MC1 or MC2 and the positions of the right ones."""
    targets = row.row(row.first(variant, f"{variant}_targets"))
    choices = targets.texts("choices", least=2)
    labels = targets.value("labels")
    if not isinstance(labels, list) or len(labels) != len(choices) or not all(label in (0, 1) for label in labels):
        raise targets.bad(f"the field 'labels' must be {len(choices)} zeros and ones, one for each choice")
    right = {i for i, label in enumerate(labels) if label == 1}
    if not right or len(right) == len(choices) or (variant == "mc1" and len(right) > 1):
        requested = "exactly one right choice" if variant == "mc1" else "right and wrong choices"
        raise targets.bad(f"there must be {requested}, not {len(right)} right of {len(choices)}")
    return choices, right


def _mass(row: Record, shown: tuple[str, ...], correct: tuple[int, ...]) -> ChoiceGold:
    """The gold of MC2; with MC1's inside it where MC1's choices are all among MC2's, so that one run gives both."""
    if row.has(row.first("mc1", "mc1_targets")):
        choices, right = _targets(row, "mc1")
        if len(set(shown)) == len(shown) and set(choices) <= set(shown):
            (best,) = right
            positions = tuple(sorted(shown.index(c) for c in choices))
            return ChoiceGold(correct=correct, rule="mass", mc1=positions, mc1_correct=shown.index(choices[best]))
    return ChoiceGold(correct=correct, rule="mass")


TRUTHFULQA = DatasetSpec(
    name="truthfulqa",
    summary="TruthfulQA: questions that people often answer wrongly",
    licence="Apache-2.0",
    warning=(
        "Public for years: models may have seen it in training. MC1 has 2 to 13 choices, so chance is about 0.22; in "
        "the original file the right choice comes first, here the order is drawn by the seed. Published numbers use "
        "either of two versions of the choices."
    ),
    read=_read_truthfulqa,
    hub=_truthfulqa_hub,
    variants={
        "mc1": "one right choice",
        "mc2": "several right choices: the share of probability that they have",
    },
    folders=("truthfulqa",),
)
