"""The kind of answer that a question requires, from its options and its wording."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from ...core.types import Question

# ruff: noqa: RUF001 (typographic signs of numbers are meant)


ResolvedKind = Literal["choice", "number", "math", "yes_no", "code", "text"]

_LATEX = re.compile(
    r"\\(?:[dt]?frac|sqrt|sum|int|left|begin|cdot|times|pi|theta|log|sin|cos|tan|mathbb|boxed)\b|\$[^$\n]{1,400}\$"
)
_SYMBOLIC = re.compile(
    r"\b(?:simplify|factor|expand|solve for|differentiate|integrate|derivative|polynomial|express)\b", re.I
)
_YES_NO = re.compile(
    r"(?:is|are|was|were|do|does|did|can|could|will|would|should|has|have|had|may|might|must|am|isn't|aren't|doesn't"
    r"|true or false|yes or no)\b",
    re.I,
)
_COUNT = re.compile(
    r"\bhow (?:many|much|old|far|tall|long|fast|big|heavy|wide|deep|high|large)\b|\bwhat (?:percent|number|fraction)"
    r"|\bwhat is the (?:total|sum|product|difference|average|mean|median|probability|area|volume|perimeter|value|cost"
    r"|price|speed|distance|remainder|percentage|ratio|profit)\b|\b(?:calculate|compute|evaluate)\b",
    re.I,
)
_ARITHMETIC = re.compile(r"[0-9)]\s{0,3}(?:[-+*/×÷^]|plus|minus|times|divided by|mod)\s{0,3}[-(]{0,3}[0-9]", re.I)
_WORDY = re.compile(r"\b(?:who|whom|whose|where|why|explain|describe|name|list|translate|summari[sz]e|which)\b", re.I)
_EXPLAINED = re.compile(
    r"\b(?:why|explain|describe|discuss|show|prove|derive|justify|compare|summari[sz]e|write|tell|reason|steps?"
    r"|how (?:do|does|did|to|can|could|would|should|is|are|was|were))\b",
    re.I,
)
_PERCENT = re.compile(r"\b(?:what|how many) percent|\bpercentage\b|\b(?:as|in) (?:a )?percent", re.I)


def answer_kind(question: Question) -> ResolvedKind:
    """The kind of answer: the question's own, or for "auto" the one that options and wording suggest.

    Options make it "choice", tests "code". Else the last sentence that asks decides: LaTeX or algebra makes it "math",
    an opening auxiliary verb without an "or" makes it "yes_no", a quantity or plain arithmetic makes it "number",
    anything else is "text".
    """
    if question.kind != "auto":
        return question.kind
    if question.choices:
        return "choice"
    if question.tests:
        return "code"
    return _kind_asked_for(question.text[-4000:])


def has_value_answer(question: Question) -> bool:
    """Whether the answer is a value that says everything by itself: an option, a number, a formula or tested code.

    A question that also asks for an explanation has no such answer.
    """
    kind = answer_kind(question)
    if kind in ("number", "math"):
        return not _EXPLAINED.search(question.text[-4000:])
    return kind in ("choice", "code")


@lru_cache(256)
def _kind_asked_for(text: str) -> ResolvedKind:
    question_sentence = _question_sentence(text)
    if _LATEX.search(text) or _SYMBOLIC.search(question_sentence):
        return "math"
    if _YES_NO.match(question_sentence) and not re.search(r"\bor\b(?! not\b| no\b| false\b)", question_sentence, re.I):
        return "yes_no"
    if _COUNT.search(question_sentence) or (
        _ARITHMETIC.search(question_sentence) and not _WORDY.search(question_sentence)
    ):
        return "number"
    return "text"


def asks_for_percentage(question: Question) -> bool:
    """Whether the answer's unit is percent, so that "50" and "50%" are the same."""
    return _PERCENT.search(question.text[-4000:]) is not None


def _question_sentence(text: str) -> str:
    pieces = [p.strip() for p in re.split(r"(?<=[.!?。？])\s+|\n+", text) if p.strip()]
    question_sentence = [p for p in pieces if p.endswith(("?", "？"))]
    return (question_sentence or pieces or [text])[-1]
