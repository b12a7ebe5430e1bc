"""`Scorer`: what an answer to an item is worth, by the kind of its gold."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ...core.answer import Answer
from ...reasoning.equivalence import Equivalence
from ..items import ChoiceGold, EvidenceGold, Item, LabelGold, MathGold, Score, TextGold, TruthfulGold
from .choices import score_choice
from .evidence import score_evidence
from .labels import score_label
from .mathematics import compare_with_gold, is_same
from .texts import score_text, score_truthful


class Scorer:
    """Scores answers; an asynchronous context manager.

    Mathematics is compared in a process of its own, started when the first formula needs it and ended with this.

    Args:
        equivalence: Compares mathematics; None makes one.
    """

    def __init__(self, equivalence: Equivalence | None = None) -> None:
        self._equivalence = equivalence or Equivalence()

    async def score(self, item: Item, answer: Answer) -> Score:
        """What an answer is worth.

        An answer without anything to score counts 0 and is not parsed; it is no error.
        """
        match item.gold:
            case MathGold():
                return await self._score_math(item.gold, answer)
            case ChoiceGold():
                return score_choice(item.question, item.gold, answer)
            case LabelGold():
                return score_label(item.question, item.gold, answer)
            case TextGold():
                return score_text(item.gold, answer)
            case TruthfulGold():
                return score_truthful(item.gold, answer)
            case EvidenceGold():
                return score_evidence(item.question, item.gold, answer)

    async def _score_math(self, gold: MathGold, answer: Answer) -> Score:
        given = answer.answer
        compared = await compare_with_gold(given, gold, self._equivalence)
        hit = is_same(compared)
        undecided = [c.why for c in compared if c.verdict == "undecided"]
        return Score(
            value=float(hit),
            correct=hit,
            parsed=given is not None,
            label=gold.answer,
            prediction=given,
            confidence=answer.confidence,
            # what algebra could not decide counts as wrong; a reader may want to look
            notes={"compared_by": compared[-1].why} | ({"undecided": undecided[0]} if undecided and not hit else {})
            if compared
            else {},
        )

    async def aclose(self) -> None:
        """End the processes; idempotent."""
        await self._equivalence.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def score(item: Item, answer: Answer) -> Score:
    """Score one answer. For many, keep a `Scorer`: its processes start once."""
    async with Scorer() as scorer:
        return await scorer.score(item, answer)
