"""Labels: whether the right one was given; over many items accuracy, precision, recall and F1 of each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import Field

from ...core.answer import Answer
from ...core.errors import UserError
from ...core.messages import Frozen
from ...core.question import Question
from ..items import LabelGold, Score
from .choices import position_of
from .evidence import attribution, names_in


def score_label(question: Question, gold: LabelGold, answer: Answer) -> Score:
    """Score an answer that is to be one of the gold's labels.

    Where the gold knows the evidence and the answer names some, `metrics` has what `evidence.attribution` gives, and
    `label_and_evidence`: the right label on enough evidence (FEVER's score).
    """
    given = label_given(question, gold, answer)
    hit = given == gold.label
    metrics: dict[str, float] = {}
    named = names_in(question, answer)
    if gold.evidence is not None and gold.evidence.names and named:
        metrics = attribution(named, gold.evidence)
        metrics["label_and_evidence"] = float(hit and metrics["evidence_enough"] == 1.0)
    return Score(
        value=float(hit),
        correct=hit,
        parsed=given is not None,
        label=gold.label,
        prediction=given,
        confidence=answer.confidence,
        metrics=metrics,
        notes={"evidence": list(named)} if named else {},
    )


def label_given(question: Question, gold: LabelGold, answer: Answer) -> str | None:
    """The label that an answer names: by its choice, or written out; None if none."""
    if gold.shown:
        position = position_of(question, answer)
        return None if position is None else gold.shown[position]
    spoken = _plain(answer.answer or "")
    return next((label for label in gold.labels if _plain(label) == spoken), None)


def _plain(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").strip(" .").split())


class LabelFigures(Frozen):
    """How one label was given.

    Attributes:
        precision: Share of the items given this label that have it; None if none was given it.
        recall: Share of the items with this label that were given it; None if there are none.
        f1: Their harmonic mean; 0 if nothing was right; None if the label neither occurs nor was given.
        support: Items that have it.
        given: Items that were given it.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    given: int


class LabelReport(Frozen):
    """Labels over many items. An item without a readable answer is wrong: it counts against its label's recall alone.

    Attributes:
        accuracy: Share of right labels.
        macro_f1: Mean F1 of the labels that occur or were given.
        weighted_f1: Mean F1 of the labels, each weighted by its items.
        labels: Figures by label.
        confusion: Items by right label and given label; "" is no readable answer.
    """

    accuracy: float
    macro_f1: float
    weighted_f1: float
    labels: dict[str, LabelFigures] = Field(default_factory=dict)
    confusion: dict[str, dict[str, int]] = Field(default_factory=dict)


def label_report(pairs: Sequence[tuple[str, str | None]], labels: Sequence[str] = ()) -> LabelReport:
    """Accuracy, macro F1 and the confusion of labels.

    Args:
        pairs: Right label and given label of each item (`Score.label` and `Score.prediction`).
        labels: All labels in their order; by default those that occur.

    Raises:
        UserError: There are no pairs.
    """
    if not pairs:
        raise UserError("there are no labels to report on", hint="let the run finish an item first")
    seen = [label for pair in pairs for label in pair if label is not None]
    counts = Counter(pairs)
    figures = {label: _figures(label, pairs) for label in dict.fromkeys([*labels, *seen])}
    scored = [f for f in figures.values() if f.f1 is not None]
    rows = [label for label, f in figures.items() if f.support]
    columns: list[str | None] = [*figures, None]
    return LabelReport(
        accuracy=sum(right == given for right, given in pairs) / len(pairs),
        macro_f1=sum(f.f1 or 0.0 for f in scored) / len(scored),
        weighted_f1=sum((f.f1 or 0.0) * f.support for f in scored) / len(pairs),
        labels=figures,
        confusion={r: {c or "": counts[r, c] for c in columns if counts[r, c]} for r in rows},
    )


def _figures(label: str, pairs: Sequence[tuple[str, str | None]]) -> LabelFigures:
    support = sum(right == label for right, _ in pairs)
    given = sum(said == label for _, said in pairs)
    both = sum(right == label == said for right, said in pairs)
    return LabelFigures(
        precision=both / given if given else None,
        recall=both / support if support else None,
        f1=2 * both / (given + support) if given + support else None,
        support=support,
        given=given,
    )
