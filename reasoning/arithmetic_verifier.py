r"""Arithmetic in a text, checked exactly: lines of the form expression = value, also chains a = b = c.

"48 / 2 = 24 clips", "$5 \times 12 = $60", "\frac{3}{4} \cdot 100 = 75\%", "10 / 3 = 3.33". Both sides are worked out in
fractions by a parser of our own. A value with decimals may be the other side rounded to as many; an integer must be
exact, unless the line speaks of rounding or a remainder, or the sign is ≈.

What is no arithmetic over figures (variables, functions, conversions such as "1 hour = 60 minutes") is not judged, and
a mismatch that may be meant otherwise is "unclear": a wrong line is one that is surely wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from .arithmetic_expressions import FIGURES, Reader, Unreadable, Value
from .arithmetic_tokens import Token, arithmetic_lines, tokens_of
from .numerals import read_numeral

LineVerdict = Literal["right", "wrong", "unclear"]

MAX_CHARS = 200_000
"""How much of a text is looked at."""
MAX_SIDE = 80
"""Most tokens of one side."""

_LOOSE = re.compile(r"\b(?:round\w*|remainder|left ?over|whole|ceil\w*|floor\w*|nearest|estimate\w*)\b", re.IGNORECASE)
_ABOUT = frozenset(["about", "approximately", "approx", "roughly", "around", "nearly", "almost"])
_EXACTLY = frozenset(["exactly", "only", "just", "a", "total", "of"])
_BEFORE = FIGURES | frozenset(["of", "by", "from", "than", "twice", "double", "triple", "over", "more", "less"])
_SYMBOLS = frozenset("bcdefghijklmnopqrstuvwxyzABCDEFGHJKLMNOPQRSTUVWXYZ")
"""Letters that are no words."""
_STARTS = ("number", "open", "frac", "root")


@dataclass(frozen=True, slots=True)
class CheckedLine:
    """One equality and what became of it.

    Attributes:
        text: Both sides, with signs made plain.
        left: What the left side comes to.
        right: What the right side comes to.
        verdict: Whether they are the same.
    """

    text: str
    left: Fraction
    right: Fraction
    verdict: LineVerdict


@dataclass(frozen=True, slots=True)
class ArithmeticCheck:
    """All equalities of a text.

    Attributes:
        lines: Each different one once, in order.
    """

    lines: tuple[CheckedLine, ...] = ()

    @property
    def right(self) -> int:
        """Number of right ones."""
        return sum(line.verdict == "right" for line in self.lines)

    @property
    def wrong(self) -> int:
        """Number of wrong ones."""
        return sum(line.verdict == "wrong" for line in self.lines)

    @property
    def any_wrong(self) -> bool:
        """Whether any is wrong."""
        return self.wrong > 0

    @property
    def share(self) -> float | None:
        """Share of right ones among right and wrong, in [0, 1]; None if there are neither."""
        judged = self.right + self.wrong
        return self.right / judged if judged else None


@dataclass(frozen=True, slots=True)
class _Side:
    value: Value
    text: str
    about: bool = False


def check_arithmetic(text: str) -> ArithmeticCheck:
    """Check the arithmetic of a text. Never raises, whatever the text is.

    Args:
        text: A step, or a whole chain of reasoning; what lies beyond `MAX_CHARS` is not looked at.
    """
    found: dict[str, CheckedLine] = {}
    for line in arithmetic_lines(text[:MAX_CHARS]):
        tokens = tokens_of(line)
        loose = _LOOSE.search(line) is not None
        signs = [i for i, token in enumerate(tokens) if token.kind == "equals"]
        ends = [-1, *signs, len(tokens)]
        for before, sign, after in zip(ends, signs, ends[2:], strict=False):
            left = _left(line, tokens, before + 1, sign)
            right = _right(line, tokens, sign + 1, after) if left is not None else None
            if left is None or right is None:
                continue
            about = tokens[sign].text != "=" or right.about
            verdict = _compare(left, right, about=about, loose=loose)
            if verdict is not None:
                shown = f"{left.text} {tokens[sign].text} {right.text}"
                found.setdefault(shown, CheckedLine(shown, left.value.number, right.value.number, verdict))
    return ArithmeticCheck(tuple(found.values()))


# -- the two sides


def _left(line: str, tokens: Sequence[Token], start: int, sign: int) -> _Side | None:
    """The longest expression that ends at the sign of equality and is not part of something else."""
    for i in range(max(start, sign - MAX_SIDE), sign):
        token = tokens[i]
        signed = token.kind == "sign" and token.text in "+-"
        if token.kind not in _STARTS and not signed:
            continue
        before = tokens[i - 1] if i > start else None
        attached = before is not None and before.end == token.start
        if before is not None:
            if before.kind in ("sign", "other", "percent", "factorial", "frac", "root"):
                continue
            if before.kind == "word" and (attached or signed or before.text in _SYMBOLS):
                continue
            if before.kind in ("number", "close") and (attached or signed):
                continue
        reader = Reader(tokens, i, sign)
        try:
            value = reader.read()
        except Unreadable:
            continue
        if reader.at != sign:
            continue
        if before is not None and _makes_doubtful(tokens, i, before):
            value = _doubted(value)
        return _Side(value, _shown(line, tokens, i, sign))
    return None


def _makes_doubtful(tokens: Sequence[Token], i: int, before: Token) -> bool:
    """Whether what stands before an expression may belong to it."""
    if before.kind in ("number", "close"):
        return True
    if before.kind == "word":
        return before.text.lower() in _BEFORE
    within = before.end == tokens[i].start and i > 1 and tokens[i - 2].end == before.start
    return before.text in (",", ".", "'") and within and tokens[i - 2].kind == "number"


def _right(line: str, tokens: Sequence[Token], start: int, stop: int) -> _Side | None:
    """The longest expression behind the sign of equality."""
    about = False
    while start < stop and tokens[start].kind == "word" and tokens[start].text.lower() in _ABOUT | _EXACTLY:
        about = about or tokens[start].text.lower() in _ABOUT
        start += 1
    reader = Reader(tokens, start, min(stop, start + MAX_SIDE))
    try:
        value = reader.read()
    except Unreadable:
        return None
    at = reader.at
    if at - start >= MAX_SIDE:
        return None
    following = tokens[at] if at < stop else None
    if following is not None:
        touching = following.start == tokens[at - 1].end
        if following.kind in ("frac", "root", "percent", "factorial"):
            return None
        if (following.kind in ("other", "open") and touching) or following.text.startswith("\\"):
            return None
        behind = tokens[at + 1] if at + 1 < stop else None
        joined = touching and behind is not None and behind.start == following.end
        if following.text in (".", ",") and joined and behind is not None and behind.kind not in ("word", "break"):
            return None  # "0.\overline{3}"
        if following.kind == "sign":
            dash = following.text == "-" and not touching and behind is not None and behind.start > following.end
            if behind is not None and behind.kind not in ("break", "close", "sign") and not dash:
                return None  # "= 7 + x" is not 7
            value = _doubted(value)
        elif (following.kind == "word" and touching) or following.kind == "number" or _worth(following):
            value = _doubted(value)
    return _Side(value, _shown(line, tokens, start, at), about)


def _worth(token: Token) -> bool:
    return token.kind == "word" and token.text.lower() in FIGURES


def _doubted(value: Value) -> Value:
    return Value(value.number, value.operations, value.decimals, value.percent, value.unit, doubtful=True)


def _shown(line: str, tokens: Sequence[Token], start: int, stop: int) -> str:
    return " ".join(line[tokens[start].start : tokens[stop - 1].end].split())


# -- comparison


def _compare(left: _Side, right: _Side, *, about: bool, loose: bool) -> LineVerdict | None:
    """Whether two sides are the same; None where nothing is worked out on either."""
    a, b = left.value, right.value
    if not a.operations and not b.operations:
        return None
    pairs = [(a.number, b.number)]
    if a.percent != b.percent:  # "50 / 200 * 100 = 25%"
        pairs += [(a.number * 100, b.number), (a.number, b.number * 100)]
    places = [p for side in (right, left) if (p := _places(side)) is not None]
    for one, other in pairs:
        gap = abs(one - other)
        if gap == 0 or any(2 * gap * Fraction(10) ** p <= 1 for p in places if p != 0):
            return "right"
        if about and (_is_about(right, other, one) or _is_about(left, one, other)):
            return "right"
        if (
            loose
            and gap < 1
            and any(s.value.operations == 0 and s.value.number.denominator == 1 for s in (left, right))
        ):
            return "right"
    unlike = bool(a.unit and b.unit and a.unit != b.unit)
    defined = not a.operations and bool(a.unit)  # "5 hours = 5 * 60 minutes"
    return "unclear" if a.doubtful or b.doubtful or unlike or defined else "wrong"


def _places(side: _Side) -> int | None:
    """Decimal places of a side that is a number alone; negative for one such as 1.2 * 10^5. None if it is exact."""
    if side.value.operations == 0:
        return side.value.decimals
    numeral = read_numeral(side.text) if "10" in side.text and "^" in side.text else None
    return None if numeral is None or numeral.figure.count("/") else numeral.decimals


def _is_about(side: _Side, stated: Fraction, exact: Fraction) -> bool:
    """Whether a number alone is the exact one, rounded or with its last digits left away."""
    places = _rounded(side)
    if places is None:
        return False
    gap = abs(stated - exact) * Fraction(10) ** places
    return 2 * gap <= 1 or (gap < 1 and abs(stated) < abs(exact))


def _rounded(side: _Side) -> int | None:
    """Places to which a number alone may have been rounded: those of its decimals, or the zeros at its end."""
    places = _places(side)
    if places is not None or side.value.operations:
        return places
    number = side.value.number
    if number.denominator != 1:
        return None
    digits = str(abs(number.numerator))
    return -(len(digits) - len(digits.rstrip("0"))) if number else 0
