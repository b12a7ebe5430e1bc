"""Attribution: which texts an answer rests on, against those that it should."""

from __future__ import annotations

import re
from collections.abc import Collection

from ...core.answer import Answer
from ...core.question import Question
from ..items import EvidenceGold, EvidenceSets, Score


def score_evidence(question: Question, gold: EvidenceGold, answer: Answer) -> Score:
    """F1 of the texts named against the right ones is the score."""
    named = names_in(question, answer)
    metrics = attribution(named, gold.evidence) if gold.evidence.names else {}
    value = metrics.get("evidence_f1", float(not named))
    return Score(
        value=value,
        correct=set(named) == set(gold.evidence.names),
        parsed=bool(named) or not gold.evidence.names,
        label=", ".join(gold.evidence.names),
        prediction=", ".join(named) or None,
        confidence=answer.confidence,
        metrics=metrics,
        notes={"evidence": list(named)},
    )


def names_in(question: Question, answer: Answer) -> tuple[str, ...]:
    """Names of the texts that an answer rests on: those of its verification's evidence, else those it mentions."""
    if answer.verification is not None and answer.verification.claims:
        sources = [e.source for claim in answer.verification.claims for e in claim.evidence]
        return tuple(dict.fromkeys(sources))
    return tuple(d.name for d in question.documents if _mentions(answer.text, d.name))


def attribution(named: Collection[str], right: EvidenceSets) -> dict[str, float]:
    """Precision, recall and F1 of the named texts, and whether they are enough.

    Args:
        named: The texts that an answer rests on.
        right: The right ones; at least one.

    Returns:
        `evidence_precision` (0 if nothing was named), `evidence_recall`, `evidence_f1`, and `evidence_enough`: 1 if one
        of the sufficient sets was named whole, or all of them where no sets are known.
    """
    given, gold = set(named), set(right.names)
    both = len(given & gold)
    sets = right.sets or (right.names,)
    return {
        "evidence_precision": both / len(given) if given else 0.0,
        "evidence_recall": both / len(gold),
        "evidence_f1": 2 * both / (len(given) + len(gold)),
        "evidence_enough": float(any(set(one) <= given for one in sets)),
    }


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None
