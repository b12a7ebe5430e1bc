"""Expressions over figures, read and worked out exactly, in fractions. Nothing is evaluated but what is read here.

Units are read and left out ("12 apples * 3", "$5/hour * 4 hours"). What may be meant otherwise is worked out and marked
doubtful: a sum of different units or of a percentage and a number, a product without a sign behind a division.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from .arithmetic_tokens import Token

MAX_DEPTH = 40
"""Deepest nesting read."""
MAX_BITS = 8000
"""Largest numerator or denominator, in bits."""
MAX_FACTORIAL = 200

_UNIT_WORDS = 3
_UNIT_LETTERS = frozenset("mgslLhKCFWNJV")
_NO_UNITS = frozenset(
    ["and", "or", "so", "then", "is", "are", "was", "were", "gives", "which", "that", "thus", "hence", "therefore"]
)
# fmt: off
FIGURES = frozenset([
    "hundred", "thousand", "million", "billion", "dozen", "squared", "cubed", "half", "third", "quarter", "pi", "sin",
    "cos", "tan", "log", "ln", "sqrt", "mod", "choose", "k", "remainder", "r",
])
# fmt: on
"""Words that are worth a number or an operation, which is not worked out."""


class Unreadable(Exception):
    """These tokens are no expression over figures."""


@dataclass(frozen=True, slots=True)
class Value:
    """What an expression comes to.

    Attributes:
        number: Exactly.
        operations: How many operations it took; 0 for a number alone.
        decimals: Of a number alone: the digits behind its decimal point, those of a percentage as a fraction of 1.
        percent: Whether it is a percentage, or a sum of such.
        unit: Its unit, lower-case and without a plural's s; empty if it has none or several.
        doubtful: Whether something else may be meant.
    """

    number: Fraction
    operations: int = 0
    decimals: int | None = None
    percent: bool = False
    unit: str = ""
    doubtful: bool = False


class Reader:
    """Reads an expression from the beginning of some tokens.

    Args:
        tokens: A line's tokens.
        start: The first to be read.
        stop: One past the last.

    Attributes:
        at: One past the last token read.
        broken: Whether a sign follows whose right side could not be read.
    """

    def __init__(self, tokens: Sequence[Token], start: int, stop: int) -> None:
        self._tokens, self._stop = tokens, stop
        self.at = start
        self.broken = False
        self._depth = 0

    def read(self) -> Value:
        """The longest expression at the beginning.

        Raises:
            Unreadable: There is none.
        """
        return self._sum()

    # -- grammar: sum, product, signed, power, primary

    def _sum(self) -> Value:
        value = self._product()
        while (sign := self._sign("+-")) is not None:
            right = self._right(self._product)
            if right is None:
                break
            number = value.number + right.number if sign == "+" else value.number - right.number
            mixed = bool(value.unit and right.unit and value.unit != right.unit) or value.percent != right.percent
            value = Value(
                _bounded(number),
                value.operations + right.operations + 1,
                percent=value.percent and right.percent,
                unit=value.unit or right.unit,
                doubtful=value.doubtful or right.doubtful or mixed,
            )
        return value

    def _product(self) -> Value:
        value = self._signed()
        divided = False
        while True:
            sign = self._sign("*/") or self._implied(value, divided)
            if sign is None:
                return value
            right = self._right(self._signed if sign in ("*", "/") else self._power)
            if right is None:
                return value
            if sign == "/" and right.number == 0:
                raise Unreadable
            number = value.number / right.number if sign == "/" else value.number * right.number
            doubtful = value.doubtful or right.doubtful or (sign == "(" and divided)
            value = Value(_bounded(number), value.operations + right.operations + 1, doubtful=doubtful)
            divided = divided or sign == "/"

    def _signed(self) -> Value:
        sign = self._take_sign("+-")
        if sign is None:
            return self._power()
        value = self._nested(self._signed)
        return replace(value, number=-value.number) if sign == "-" else value

    def _power(self) -> Value:
        base = self._primary()
        if self._sign("^") is None:
            return base
        exponent = self._right(lambda: self._nested(self._signed))
        if exponent is None:
            return base
        whole = exponent.number.denominator == 1
        size = max(base.number.numerator.bit_length(), base.number.denominator.bit_length())
        power = exponent.number.numerator
        if not whole or abs(power) * size > MAX_BITS or (base.number == 0 and power < 0):
            raise Unreadable
        doubtful = base.doubtful or exponent.doubtful or bool(base.unit)
        return Value(base.number**power, base.operations + exponent.operations + 1, doubtful=doubtful)

    def _primary(self) -> Value:
        token = self._peek()
        if token is None:
            raise Unreadable
        self.at += 1
        if token.kind == "number":
            value = self._mixed(token) or Value(
                token.value, decimals=token.decimals, unit="$" if token.currency else ""
            )
        elif token.kind == "open":
            value = replace(self._nested(self._group), decimals=None)
        elif token.kind == "frac":
            self.at -= 1
            value = self._fraction()
        elif token.kind == "root":
            value = _root(self._nested(self._primary))
        else:
            raise Unreadable
        return self._with_marks(value)

    def _fraction(self) -> Value:
        self.at += 1
        above, below = self._nested(self._braced), self._nested(self._braced)
        if below.number == 0:
            raise Unreadable
        doubtful = above.doubtful or below.doubtful
        return Value(above.number / below.number, above.operations + below.operations + 1, doubtful=doubtful)

    def _group(self) -> Value:
        value = self._sum()
        token = self._peek()
        if token is None or token.kind != "close":
            raise Unreadable
        self.at += 1
        return value

    def _braced(self) -> Value:
        token = self._peek()
        if token is None or token.kind != "open":
            raise Unreadable
        self.at += 1
        return self._group()

    def _mixed(self, whole: Token) -> Value | None:
        r"""A mixed number such as 1 3/4, or 1\frac{3}{4}, which may also be a product."""
        if (first := self._peek()) is not None and first.kind == "frac" and first.start == whole.end:
            at = self.at
            part = self._fraction()
            if whole.decimals is None and whole.value.denominator == 1 and 0 < part.number < 1:
                return Value(whole.value + part.number, part.operations + 1, doubtful=True)
            self.at = at
            return None
        up, slash, low = self._ahead(0), self._ahead(1), self._ahead(2)
        if up is None or slash is None or low is None or slash.text != "/" or whole.decimals is not None:
            return None
        plain = up.kind == low.kind == "number" and up.decimals is None and low.decimals is None
        if not plain or not 0 < up.value < low.value or up.start - whole.end != 1 or low.start - up.end != 1:
            return None
        self.at += 3
        return Value(whole.value + up.value / low.value, 1, unit="$" if whole.currency else "")

    def _with_marks(self, value: Value) -> Value:
        """With a percent sign, a factorial's mark or a unit behind it."""
        token = self._peek()
        while token is not None and token.kind in ("percent", "factorial"):
            self.at += 1
            if token.kind == "percent":
                decimals = None if value.decimals is None else value.decimals + 2
                value = replace(value, number=value.number / 100, decimals=decimals, percent=True)
            else:
                n = value.number
                if n.denominator != 1 or not 0 <= n <= MAX_FACTORIAL:
                    raise Unreadable
                value = Value(Fraction(math.factorial(n.numerator)), value.operations + 1, doubtful=value.doubtful)
            token = self._peek()
        return self._with_unit(value)

    def _with_unit(self, value: Value) -> Value:
        """With the words between it and the next sign, or the end."""
        at = self.at
        words: list[str] = []
        behind = self._tokens[at - 1].end
        while len(words) < _UNIT_WORDS and (token := self._peek()) is not None:
            slash = token.text == "/" and (after := self._ahead(1)) is not None and after.kind == "word"
            if slash and (word := self._ahead(1)) is not None:
                self.at += 2
                words.append(word.text)
            elif token.kind == "word" and token.text.lower() not in _NO_UNITS and token.text.lower() != "of":
                self.at += 1
                words.append(token.text)
            else:
                break
        if not words:
            return value
        first = self._tokens[at]
        following = self._peek()
        lone = len(words) == 1 and len(words[0]) == 1 and first.kind == "word"
        if lone and (words[0] not in _UNIT_LETTERS or (following is not None and following.kind in ("sign", "open"))):
            raise Unreadable  # a variable
        if following is not None and following.kind not in ("sign", "close", "equals"):
            if first.start == behind and first.kind == "word":
                return replace(value, doubtful=True)
            self.at = at  # prose
            return value
        unit = words[0].lower()
        unit = unit[:-1] if unit.endswith("s") and len(unit) > 1 else unit
        doubtful = value.doubtful or len(words) > 1 or any(w.lower() in FIGURES for w in words)
        return replace(value, unit=value.unit or unit, doubtful=doubtful or (first.start == behind and len(unit) < 3))

    # -- tokens

    def _peek(self) -> Token | None:
        return self._ahead(0)

    def _ahead(self, count: int) -> Token | None:
        return self._tokens[self.at + count] if self.at + count < self._stop else None

    def _take_sign(self, signs: str) -> str | None:
        token = self._peek()
        if token is None or token.kind != "sign" or token.text not in signs:
            return None
        self.at += 1
        return token.text

    def _sign(self, signs: str) -> str | None:
        """A sign between two operands; none is taken behind one whose right side could not be read."""
        return None if self.broken else self._take_sign(signs)

    def _implied(self, value: Value, divided: bool) -> str | None:
        """A product without a sign: a bracket behind a factor, or "of" behind a percentage or fraction."""
        token = self._peek()
        if token is None or self.broken:
            return None
        if token.kind in ("open", "frac", "root") and token.text != "{":
            return "("
        if token.kind == "word" and token.text.lower() == "of" and (value.percent or divided or value.operations == 1):
            self.at += 1
            return "of"
        return None

    def _right(self, read: Callable[[], Value]) -> Value | None:
        """The operand behind a sign that was taken; without one the sign is given back."""
        sign = self.at - 1 if self._tokens[self.at - 1].kind in ("sign", "word") else self.at
        try:
            return read()
        except Unreadable:
            self.at, self.broken = sign, True
            return None

    def _nested(self, read: Callable[[], Value]) -> Value:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable
        try:
            return read()
        finally:
            self._depth -= 1


def _bounded(number: Fraction) -> Fraction:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > MAX_BITS:
        raise Unreadable
    return number


def _root(value: Value) -> Value:
    """The square root, where it is rational."""
    up, low = value.number.numerator, value.number.denominator
    if up < 0:
        raise Unreadable
    root = Fraction(math.isqrt(up), math.isqrt(low))
    if root * root != value.number:
        raise Unreadable
    return Value(root, value.operations + 1, doubtful=value.doubtful)
