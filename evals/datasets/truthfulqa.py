"""TruthfulQA: questions that people often answer wrongly, as multiple choice (MC1, MC2) and answered freely.

Source: Lin, Hilton and Evans, "TruthfulQA: Measuring How Models Mimic Human Falsehoods" (ACL 2022), section 3.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...core.question import Question
from ..items import ChoiceGold, Item, TruthfulGold
from .hub import HubSource
from .recipe import Reading, Recipe
from .rows import RawRow

NO_COMMENT = "I have no comment."
"""Always a true answer, as the authors' evaluation has it."""

_REPO = "truthfulqa/truthful_qa"
_REVISION = "741b8276f2d1982aa3d5b832d3ee81ed3b896490"


def _hub(variant: str) -> tuple[HubSource, ...]:
    config = "generation" if variant == "generative" else "multiple_choice"
    return (HubSource(_REPO, "validation", config, revision=_REVISION),)


def _read(rows: Iterator[RawRow], reading: Reading) -> Iterator[Item]:
    for row in rows:
        name = row.text("id") if row.has("id") else f"tqa-{row.position:04d}"
        subject = row.optional("category")
        text = row.text("question")
        if reading.variant == "generative":
            gold = TruthfulGold(
                best=row.text("best_answer"),
                correct=tuple(dict.fromkeys([*row.texts("correct_answers"), NO_COMMENT])),
                incorrect=row.texts("incorrect_answers"),
            )
            yield Item(id=name, question=Question(text=text, kind="text"), gold=gold, subject=subject)
            continue
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


def _targets(row: RawRow, variant: str) -> tuple[tuple[str, ...], set[int]]:
    """The choices of MC1 or MC2 and the positions of the right ones."""
    targets = row.row(row.first(variant, f"{variant}_targets"))
    choices = targets.texts("choices", least=2)
    labels = targets.value("labels")
    if not isinstance(labels, list) or len(labels) != len(choices) or not all(label in (0, 1) for label in labels):
        raise targets.bad(f"the field 'labels' must be {len(choices)} zeros and ones, one for each choice")
    right = {i for i, label in enumerate(labels) if label == 1}
    if not right or len(right) == len(choices) or (variant == "mc1" and len(right) > 1):
        wanted = "exactly one right choice" if variant == "mc1" else "right and wrong choices"
        raise targets.bad(f"there must be {wanted}, not {len(right)} right of {len(choices)}")
    return choices, right


def _mass(row: RawRow, shown: tuple[str, ...], correct: tuple[int, ...]) -> ChoiceGold:
    """The gold of MC2; with MC1's inside it where MC1's choices are all among MC2's, so that one run gives both."""
    if row.has(row.first("mc1", "mc1_targets")):
        choices, right = _targets(row, "mc1")
        if len(set(shown)) == len(shown) and set(choices) <= set(shown):
            (best,) = right
            positions = tuple(sorted(shown.index(c) for c in choices))
            return ChoiceGold(correct=correct, rule="mass", mc1=positions, mc1_correct=shown.index(choices[best]))
    return ChoiceGold(correct=correct, rule="mass")


TRUTHFULQA = Recipe(
    name="truthfulqa",
    summary="TruthfulQA: questions that people often answer wrongly",
    licence="Apache-2.0",
    warning=(
        "Public for years: models may have seen it in training. MC1 has 2 to 13 choices, so chance is about 0.22; in "
        "the original file the right choice comes first, here the order is drawn by the seed. Published numbers use "
        "either of two versions of the choices."
    ),
    read=_read,
    hub=_hub,
    variants={
        "mc1": "one right choice",
        "mc2": "several right choices: the share of probability that they have",
        "generative": "answered freely, compared with true and false reference answers",
    },
    folders=("truthfulqa",),
    prompt="truthfulqa",
)
