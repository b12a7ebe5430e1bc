"""Claims of arithmetic, which need no evidence: "3 * 18 = 54", "15% of 80 is 12", "12 plus 30 equals 42"."""

from __future__ import annotations

import re

from ...reasoning.answers.normalization import normalize_characters
from ...reasoning.arithmetic import CheckedLine, check_arithmetic
from ..types import Claim, ClaimReport

MAX_CHARS = 2000
"""A longer claim is not a single statement."""

_BACKEND = "program"
_REPORTED = re.compile(
    r"\b(?:not|no|never|if|suppos\w+|would|could|might|may|said|says?|claim\w*|believ\w+|thought|false|wrong|incorrect"
    r"|error|instead|base|binary|octal|hex|mod|modulo|clock)\b|n['\u2019]t\b|[0-9]-[0-9]|[?\"\u201c\u201e\u00ab]",
    re.IGNORECASE,
)
"""What negates, supposes or quotes arithmetic, is about another one, or is a range."""
_NUMBER = r"(?:[$\u20ac\u00a3]?[0-9][0-9,.]*%?)"
_SYMBOLS = tuple(
    (re.compile(pattern, re.IGNORECASE), symbol)
    for pattern, symbol in (
        (rf"(?<=[0-9])\s?(?:%|percent|per cent) of (?={_NUMBER})", "% * "),
        (rf"(?<=[0-9%]) plus (?={_NUMBER})", " + "),
        (rf"(?<=[0-9%]) minus (?={_NUMBER})", " - "),
        (rf"(?<=[0-9%]) (?:times|multiplied by) (?={_NUMBER})", " * "),
        (rf"(?<=[0-9%]) divided by (?={_NUMBER})", " / "),
        (rf"(?<=[0-9%]) (?:is equal to|equals|is|makes|gives) (?:exactly )?(?={_NUMBER})", " = "),
    )
)
_OPERATOR = re.compile(r"[0-9)%]\s*[-+*/\u00d7\u00f7\u00b7\u2212]\s*[$(0-9]|\\frac|\\times|\\cdot|\\div")
_SIGN = re.compile(r"=|\u2248|\\approx")
_WORD = re.compile(r"[^\W\d_]{2,}")


def check_claim_arithmetic(claim: Claim) -> ClaimReport | None:
    """The report on a claim with a wrong equality, or one that is only right equalities; None of any other claim.

    A right equality in a claim that states something else shows nothing about the rest. What is negated, supposed or
    quoted is not checked.
    """
    text = normalize_characters(claim.text)
    if len(text) > MAX_CHARS or _REPORTED.search(text):
        return None
    for pattern, symbol in _SYMBOLS:
        text = pattern.sub(symbol, text)
    if _OPERATOR.search(text) is None:
        return None
    lines = check_arithmetic(text).lines
    wrong = next((line for line in lines if _is_wrong(line)), None)
    if wrong is not None:
        shown = f"{wrong.text} is wrong: {_written(wrong)}"
        return ClaimReport.by_program(claim, holds=False, shown=shown, result=shown, backend=_BACKEND)
    if not lines or len(lines) != len(_SIGN.findall(text)):
        return None
    if _WORD.search(text) or any(line.verdict != "right" for line in lines):
        return None
    shown = "; ".join(line.text for line in lines)
    return ClaimReport.by_program(claim, holds=True, shown=shown, result=shown, backend=_BACKEND)


def _is_wrong(line: CheckedLine) -> bool:
    """Whether an equality is wrong by more than the rounding of one side to an integer."""
    are_integers = line.left.denominator == line.right.denominator == 1
    return line.verdict == "wrong" and (are_integers or 2 * abs(line.left - line.right) > 1)


def _written(line: CheckedLine) -> str:
    left = line.left
    return str(left) if left.denominator == 1 else f"{float(left):.6g}"
