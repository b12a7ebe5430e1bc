r"""Exact checks of arithmetic in text: lines of the form expression = value, also chains a = b = c.

"48 / 2 = 24 clips", "$5 \times 12 = $60", "\frac{3}{4} \cdot 100 = 75\%", "10 / 3 = 3.33". Both sides are evaluated in
fractions by a parser of this module, which evaluates nothing but what it parses. A value with decimals may be the other
side rounded to as many; an integer must be exact, unless the line mentions rounding or a remainder, or the sign is ≈.

Lines are normalized first: `\times`, `×`, `·` and an `x` between numbers become `*`, `\div` and `÷` become `/`, `plus`
becomes `+`; `\text{…}` and `\boxed{…}` lose their wrapping; a line that begins with `=` continues the line before.
Units are parsed and ignored ("12 apples * 3", "$5/hour * 4 hours").

Only arithmetic over numbers is checked: no variables, functions, or conversions such as "1 hour = 60 minutes". A
mismatch with another possible meaning is "unclear": a sum of different units or of a percentage and a number, a product
without a sign after a division. So a "wrong" line is certainly wrong.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from .answers.normalization import normalize_characters
from .answers.numerals import parse_numeral

# ruff: noqa: RUF001, RUF002 (typographic signs of arithmetic are meant)


TokenKind = Literal[
    "number", "sign", "open", "close", "frac", "root", "percent", "factorial", "equals", "word", "break", "other"
]

MAX_DIGITS = 60
"""Maximum length of a number, in characters."""


@dataclass(frozen=True, slots=True)
class ArithmeticToken:
    """A piece of a line.

    Attributes:
        kind: Its kind. "break" is punctuation, next to which an expression may begin or end; "other" is anything that
            an expression must not touch.
        text: Its text in the normalized line.
        start: First character in the normalized line.
        end: One past the last.
        value: Value of a number.
        decimals: Digits after a number's decimal point; None without one.
        currency: Whether a currency sign immediately precedes the number.
    """

    kind: TokenKind
    text: str
    start: int
    end: int
    value: Fraction = Fraction(0)
    decimals: int | None = None
    currency: bool = False


_VULGAR = re.compile(r"([0-9]{0,6})([¼-¾⅐-⅞])")
_ANNOTATION = re.compile(r"<<([^<>\n]{1,200})>>")
_CLEANING: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.MULTILINE), by)
    for pattern, by in (
        (r"(?<=[0-9])(?:,?\\[,!]|\{,\}|[\u2009\u202f\u00a0'’](?=[0-9]{3}))(?=[0-9]{3})", ","),
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s?", ""),
        (r"\\displaystyle(?![A-Za-z])", " "),
        (r"\\[\[\]]", " ; "),
        (r"\\\\(?:\[[^\]\n]{0,10}\])?", "\n"),
        (r"\\[,;:! ]|\\q?quad(?![A-Za-z])|~|&|\\[()]", " "),
        (r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathsf|mbox|operatorname)\s?\{([^{}\n]{0,80})\}", r" \1 "),
        (r"\\(?:boxed|fbox)(?![A-Za-z])", " "),
        (r"\^\s?\{?\s?\\circ\s?\}?|\\degree|°", " degrees "),
        (r"\\(?:times|cdot|ast)(?![A-Za-z])|[×·⋅∙✕✖]", " * "),
        (r"\\div(?![A-Za-z])|÷", " / "),
        (r"\\(?:approx|simeq|sim)(?![A-Za-z])|[≈≃≅]|~=", " ≈ "),
        (r"[=\-]>|[→⇒⟹]", " ; "),
        (r"\\([%$])", r"\1"),
        (r"\\[dtc]?frac\s?([0-9])([0-9])", r"\\frac{\1}{\2}"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"√", r"\\sqrt "),
        (r"²", "^2"),
        (r"³", "^3"),
        (r"(?<=[A-Za-z])\^\{?[0-9]\}?", ""),  # cm^2; of a variable, what stands there is no number either way
        (r"`", " "),
        (r"(?<!\S)\*{1,3}(?=\S)|(?<=\S)\*{1,3}(?!\S)", " "),  # emphasis
        (r"\*\*", "^"),
        (r"^[ \t]*(?:[-–—*+•][ \t]+|[0-9]{1,3}[.)][ \t]+)+", ""),
        (r"\bplus\b", " + "),
        (r"\bminus\b", " - "),
        (r"\b(?:times|multiplied by)\b", " * "),
        (r"\bdivided by\b", " / "),
        (r"\bper ?cent\b", "%"),
        (r"(?<=[0-9)}%])([ \t]?)x(?=[ \t]?[0-9($\\])", " * "),
        (r"(?:[ \t]{0,8}\n){1,3}[ \t$]{0,16}(?==[^=])", " "),
    )
)
_DASHES = str.maketrans({"–": "-", "−": "-"})
_TOKEN = re.compile(
    r"""
    (?P<clock>[0-9]+(?::[0-9]+)+)
    | (?P<number>(?P<currency>[$€£¥₹][ ]?)?
        (?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+))
    | (?P<equals>(?<![<>!:=≠])=(?![=>])|≈)
    | (?P<sign>[-+*/^])
    | (?P<open>[({]) | (?P<close>[)}])
    | (?P<frac>\\frac) | (?P<root>\\sqrt)
    | (?P<percent>%)
    | (?P<factorial>(?<=[0-9)])!(?=\s*[-+*/=)≈]))
    | (?P<word>[^\W\d_]+(?:['’-][^\W\d_]+)*)
    | (?P<blank>\s+|[$€£¥₹])
    | (?P<break>[,;:.?!"'“”…\[\]|•—])
    | (?P<other>\\[A-Za-z]+|\\?.)
    """,
    re.VERBOSE | re.DOTALL,
)


def arithmetic_lines(text: str) -> list[str]:
    """The cleaned lines of a text that have a sign of equality; a calculator's annotation (`<<48/2=24>>`) is a line."""
    text = _VULGAR.sub(_fraction, normalize_characters(text))
    annotations = [m[1] for m in _ANNOTATION.finditer(text)]
    text = _ANNOTATION.sub("", text)
    for pattern, by in _CLEANING:
        text = pattern.sub(by, text)
    lines = [*text.translate(_DASHES).split("\n"), *annotations]
    return [line for line in lines if "=" in line or "≈" in line]


def _fraction(vulgar: re.Match[str]) -> str:
    """¾ as (3/4), and 1¾ as (1+3/4)."""
    up, _, low = unicodedata.normalize("NFKC", vulgar[2]).partition("\u2044")
    return f"({vulgar[1]}+{up}/{low})" if vulgar[1] else f"({up}/{low})"


def tokens_of(line: str) -> list[ArithmeticToken]:
    """The tokens of a cleaned line, without blanks and the dollars of formulas."""
    tokens = []
    for match in _TOKEN.finditer(line):
        kind = match.lastgroup
        if match["number"] is not None:
            tokens.append(_number(match))
        elif match["clock"] is not None:
            tokens.append(ArithmeticToken("other", match[0], match.start(), match.end()))
        elif kind != "blank":
            tokens.append(ArithmeticToken(kind, match[0], match.start(), match.end()))  # type: ignore[arg-type]
    return tokens


def _number(match: re.Match[str]) -> ArithmeticToken:
    currency = match["currency"] is not None
    start = match.start() + len(match["currency"] or "")
    numeral = parse_numeral(match[0][start - match.start() :]) if match.end() - start <= MAX_DIGITS else None
    if numeral is None:
        return ArithmeticToken("other", match[0], match.start(), match.end())
    return ArithmeticToken("number", match[0], match.start(), match.end(), numeral.value, numeral.decimals, currency)


MAX_DEPTH = 40
"""Maximum nesting."""
MAX_BITS = 8000
"""Largest numerator or denominator, in bits."""
MAX_FACTORIAL = 200

_UNIT_WORDS = 3
_UNIT_LETTERS = frozenset("mgslLhKCFWNJV")
_NO_UNITS = frozenset(
    ["and", "or", "so", "then", "is", "are", "was", "were", "gives", "which", "that", "thus", "hence", "therefore"]
)
# fmt: off
NUMBER_WORDS = frozenset([
    "hundred", "thousand", "million", "billion", "dozen", "squared", "cubed", "half", "third", "quarter", "pi", "sin",
    "cos", "tan", "log", "ln", "sqrt", "mod", "choose", "k", "remainder", "r",
])
# fmt: on
"""Words for a number or an operation, which are not evaluated."""


class UnparsableExpression(Exception):
    """The tokens are no expression over numbers."""


@dataclass(frozen=True, slots=True)
class ArithmeticValue:
    """The value of an expression.

    Attributes:
        number: The exact value.
        operations: Number of operations; 0 for a single number.
        decimals: Digits after the decimal point of a single number, those of a percentage as a fraction of 1.
        percent: Whether it is a percentage, or a sum of percentages.
        unit: Its unit, lower-case and without a plural's s; empty if it has none or several.
        doubtful: Whether the expression may have another meaning.
    """

    number: Fraction
    operations: int = 0
    decimals: int | None = None
    percent: bool = False
    unit: str = ""
    doubtful: bool = False


class ExpressionParser:
    """Parses an expression at the beginning of some tokens.

    Args:
        start: Position of the first.
        stop: One past the last.

    Attributes:
        at: One past the last parsed token.
        broken: Whether a sign follows whose right side could not be parsed.
    """

    def __init__(self, tokens: Sequence[ArithmeticToken], start: int, stop: int) -> None:
        self._tokens, self._stop = tokens, stop
        self.at = start
        self.broken = False
        self._depth = 0

    def parse(self) -> ArithmeticValue:
        """The longest expression at the beginning.

        Raises:
            UnparsableExpression: There is none.
        """
        return self._sum()

    # -- grammar: sum, product, signed, power, primary

    def _sum(self) -> ArithmeticValue:
        value = self._product()
        while (sign := self._sign("+-")) is not None:
            right = self._right(self._product)
            if right is None:
                break
            number = value.number + right.number if sign == "+" else value.number - right.number
            mixed = bool(value.unit and right.unit and value.unit != right.unit) or value.percent != right.percent
            value = ArithmeticValue(
                _bounded(number),
                value.operations + right.operations + 1,
                percent=value.percent and right.percent,
                unit=value.unit or right.unit,
                doubtful=value.doubtful or right.doubtful or mixed,
            )
        return value

    def _product(self) -> ArithmeticValue:
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
                raise UnparsableExpression
            number = value.number / right.number if sign == "/" else value.number * right.number
            doubtful = value.doubtful or right.doubtful or (sign == "(" and divided)
            value = ArithmeticValue(_bounded(number), value.operations + right.operations + 1, doubtful=doubtful)
            divided = divided or sign == "/"

    def _signed(self) -> ArithmeticValue:
        sign = self._take_sign("+-")
        if sign is None:
            return self._power()
        value = self._nested(self._signed)
        return replace(value, number=-value.number) if sign == "-" else value

    def _power(self) -> ArithmeticValue:
        base = self._primary()
        if self._sign("^") is None:
            return base
        exponent = self._right(lambda: self._nested(self._signed))
        if exponent is None:
            return base
        is_integer = exponent.number.denominator == 1
        size = max(base.number.numerator.bit_length(), base.number.denominator.bit_length())
        power = exponent.number.numerator
        if not is_integer or abs(power) * size > MAX_BITS or (base.number == 0 and power < 0):
            raise UnparsableExpression
        doubtful = base.doubtful or exponent.doubtful or bool(base.unit)
        return ArithmeticValue(base.number**power, base.operations + exponent.operations + 1, doubtful=doubtful)

    def _primary(self) -> ArithmeticValue:
        token = self._peek()
        if token is None:
            raise UnparsableExpression
        self.at += 1
        if token.kind == "number":
            value = self._mixed(token) or ArithmeticValue(
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
            raise UnparsableExpression
        return self._with_marks(value)

    def _fraction(self) -> ArithmeticValue:
        self.at += 1
        above, below = self._nested(self._braced), self._nested(self._braced)
        if below.number == 0:
            raise UnparsableExpression
        doubtful = above.doubtful or below.doubtful
        return ArithmeticValue(above.number / below.number, above.operations + below.operations + 1, doubtful=doubtful)

    def _group(self) -> ArithmeticValue:
        value = self._sum()
        token = self._peek()
        if token is None or token.kind != "close":
            raise UnparsableExpression
        self.at += 1
        return value

    def _braced(self) -> ArithmeticValue:
        token = self._peek()
        if token is None or token.kind != "open":
            raise UnparsableExpression
        self.at += 1
        return self._group()

    def _mixed(self, integer: ArithmeticToken) -> ArithmeticValue | None:
        r"""A mixed number such as 1 3/4, or 1\frac{3}{4}, which may also be a product."""
        if (first := self._peek()) is not None and first.kind == "frac" and first.start == integer.end:
            at = self.at
            part = self._fraction()
            if integer.decimals is None and integer.value.denominator == 1 and 0 < part.number < 1:
                return ArithmeticValue(integer.value + part.number, part.operations + 1, doubtful=True)
            self.at = at
            return None
        up, slash, low = self._ahead(0), self._ahead(1), self._ahead(2)
        if up is None or slash is None or low is None or slash.text != "/" or integer.decimals is not None:
            return None
        plain = up.kind == low.kind == "number" and up.decimals is None and low.decimals is None
        if not plain or not 0 < up.value < low.value or up.start - integer.end != 1 or low.start - up.end != 1:
            return None
        self.at += 3
        return ArithmeticValue(integer.value + up.value / low.value, 1, unit="$" if integer.currency else "")

    def _with_marks(self, value: ArithmeticValue) -> ArithmeticValue:
        """The value with a following percent sign, factorial mark or unit."""
        token = self._peek()
        while token is not None and token.kind in ("percent", "factorial"):
            self.at += 1
            if token.kind == "percent":
                decimals = None if value.decimals is None else value.decimals + 2
                value = replace(value, number=value.number / 100, decimals=decimals, percent=True)
            else:
                n = value.number
                if n.denominator != 1 or not 0 <= n <= MAX_FACTORIAL:
                    raise UnparsableExpression
                value = ArithmeticValue(
                    Fraction(math.factorial(n.numerator)), value.operations + 1, doubtful=value.doubtful
                )
            token = self._peek()
        return self._with_unit(value)

    def _with_unit(self, value: ArithmeticValue) -> ArithmeticValue:
        """The value with the words up to the next sign, or the end, as its unit."""
        at = self.at
        words: list[str] = []
        value_end = self._tokens[at - 1].end
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
            raise UnparsableExpression  # a variable
        if following is not None and following.kind not in ("sign", "close", "equals"):
            if first.start == value_end and first.kind == "word":
                return replace(value, doubtful=True)
            self.at = at  # prose
            return value
        unit = words[0].lower()
        unit = unit[:-1] if unit.endswith("s") and len(unit) > 1 else unit
        doubtful = value.doubtful or len(words) > 1 or any(w.lower() in NUMBER_WORDS for w in words)
        return replace(
            value, unit=value.unit or unit, doubtful=doubtful or (first.start == value_end and len(unit) < 3)
        )

    # -- tokens

    def _peek(self) -> ArithmeticToken | None:
        return self._ahead(0)

    def _ahead(self, count: int) -> ArithmeticToken | None:
        return self._tokens[self.at + count] if self.at + count < self._stop else None

    def _take_sign(self, signs: str) -> str | None:
        token = self._peek()
        if token is None or token.kind != "sign" or token.text not in signs:
            return None
        self.at += 1
        return token.text

    def _sign(self, signs: str) -> str | None:
        """A sign between two operands; none after one whose right side could not be parsed."""
        return None if self.broken else self._take_sign(signs)

    def _implied(self, value: ArithmeticValue, divided: bool) -> str | None:
        """A product without a sign: a bracket after a factor, or "of" after a percentage or fraction."""
        token = self._peek()
        if token is None or self.broken:
            return None
        if token.kind in ("open", "frac", "root") and token.text != "{":
            return "("
        if token.kind == "word" and token.text.lower() == "of" and (value.percent or divided or value.operations == 1):
            self.at += 1
            return "of"
        return None

    def _right(self, read: Callable[[], ArithmeticValue]) -> ArithmeticValue | None:
        """The operand after a sign; without one the sign is not consumed."""
        sign = self.at - 1 if self._tokens[self.at - 1].kind in ("sign", "word") else self.at
        try:
            return read()
        except UnparsableExpression:
            self.at, self.broken = sign, True
            return None

    def _nested(self, read: Callable[[], ArithmeticValue]) -> ArithmeticValue:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnparsableExpression
        try:
            return read()
        finally:
            self._depth -= 1


def _bounded(number: Fraction) -> Fraction:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > MAX_BITS:
        raise UnparsableExpression
    return number


def _root(value: ArithmeticValue) -> ArithmeticValue:
    """The square root, if it is rational."""
    up, low = value.number.numerator, value.number.denominator
    if up < 0:
        raise UnparsableExpression
    root = Fraction(math.isqrt(up), math.isqrt(low))
    if root * root != value.number:
        raise UnparsableExpression
    return ArithmeticValue(root, value.operations + 1, doubtful=value.doubtful)


LineVerdict = Literal["right", "wrong", "unclear"]

MAX_CHARS = 200_000
"""Checked part of a text, in characters."""
MAX_SIDE = 80
"""Maximum tokens of one side."""

_LOOSE = re.compile(r"\b(?:round\w*|remainder|left ?over|whole|ceil\w*|floor\w*|nearest|estimate\w*)\b", re.IGNORECASE)
_ABOUT = frozenset(["about", "approximately", "approx", "roughly", "around", "nearly", "almost"])
_EXACTLY = frozenset(["exactly", "only", "just", "a", "total", "of"])
_BEFORE = NUMBER_WORDS | frozenset(["of", "by", "from", "than", "twice", "double", "triple", "over", "more", "less"])
_SYMBOLS = frozenset("bcdefghijklmnopqrstuvwxyzABCDEFGHJKLMNOPQRSTUVWXYZ")
"""Letters that are symbols."""
_STARTS = ("number", "open", "frac", "root")


@dataclass(frozen=True, slots=True)
class CheckedLine:
    """One equality and its verdict.

    Attributes:
        text: Both sides, with normalized signs.
        left: Value of the left side.
        right: Value of the right side.
        verdict: Whether they are equal.
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
    def has_wrong(self) -> bool:
        """Whether any is wrong."""
        return self.wrong > 0

    @property
    def share(self) -> float | None:
        """Share of right ones among right and wrong, in [0, 1]; None if there are neither."""
        judged = self.right + self.wrong
        return self.right / judged if judged else None


@dataclass(frozen=True, slots=True)
class _Side:
    value: ArithmeticValue
    text: str
    about: bool = False


def check_arithmetic(text: str) -> ArithmeticCheck:
    """Check the arithmetic of a text. Never raises.

    Args:
        text: A step, or a chain of reasoning; text beyond `MAX_CHARS` is not checked.
    """
    checked: dict[str, CheckedLine] = {}
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
                checked.setdefault(shown, CheckedLine(shown, left.value.number, right.value.number, verdict))
    return ArithmeticCheck(tuple(checked.values()))


# -- the two sides


def _left(line: str, tokens: Sequence[ArithmeticToken], start: int, sign: int) -> _Side | None:
    """The longest expression that ends at the equals sign and is not part of something else."""
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
        parser = ExpressionParser(tokens, i, sign)
        try:
            value = parser.parse()
        except UnparsableExpression:
            continue
        if parser.at != sign:
            continue
        if before is not None and _makes_doubtful(tokens, i, before):
            value = _doubted(value)
        return _Side(value, _shown(line, tokens, i, sign))
    return None


def _makes_doubtful(tokens: Sequence[ArithmeticToken], i: int, before: ArithmeticToken) -> bool:
    """Whether the token before an expression may belong to it."""
    if before.kind in ("number", "close"):
        return True
    if before.kind == "word":
        return before.text.lower() in _BEFORE
    within = before.end == tokens[i].start and i > 1 and tokens[i - 2].end == before.start
    return before.text in (",", ".", "'") and within and tokens[i - 2].kind == "number"


def _right(line: str, tokens: Sequence[ArithmeticToken], start: int, stop: int) -> _Side | None:
    """The longest expression after the equals sign."""
    about = False
    while start < stop and tokens[start].kind == "word" and tokens[start].text.lower() in _ABOUT | _EXACTLY:
        about = about or tokens[start].text.lower() in _ABOUT
        start += 1
    parser = ExpressionParser(tokens, start, min(stop, start + MAX_SIDE))
    try:
        value = parser.parse()
    except UnparsableExpression:
        return None
    at = parser.at
    if at - start >= MAX_SIDE:
        return None
    following = tokens[at] if at < stop else None
    if following is not None:
        touching = following.start == tokens[at - 1].end
        if following.kind in ("frac", "root", "percent", "factorial"):
            return None
        if (following.kind in ("other", "open") and touching) or following.text.startswith("\\"):
            return None
        next_token = tokens[at + 1] if at + 1 < stop else None
        joined = touching and next_token is not None and next_token.start == following.end
        if (
            following.text in (".", ",")
            and joined
            and next_token is not None
            and next_token.kind not in ("word", "break")
        ):
            return None  # "0.\overline{3}"
        if following.kind == "sign":
            dash = (
                following.text == "-" and not touching and next_token is not None and next_token.start > following.end
            )
            if next_token is not None and next_token.kind not in ("break", "close", "sign") and not dash:
                return None  # "= 7 + x" is not 7
            value = _doubted(value)
        elif (following.kind == "word" and touching) or following.kind == "number" or _worth(following):
            value = _doubted(value)
    return _Side(value, _shown(line, tokens, start, at), about)


def _worth(token: ArithmeticToken) -> bool:
    return token.kind == "word" and token.text.lower() in NUMBER_WORDS


def _doubted(value: ArithmeticValue) -> ArithmeticValue:
    return ArithmeticValue(value.number, value.operations, value.decimals, value.percent, value.unit, doubtful=True)


def _shown(line: str, tokens: Sequence[ArithmeticToken], start: int, stop: int) -> str:
    return " ".join(line[tokens[start].start : tokens[stop - 1].end].split())


# -- comparison


def _compare(left: _Side, right: _Side, *, about: bool, loose: bool) -> LineVerdict | None:
    """Whether two sides are equal; None if neither has an operation."""
    a, b = left.value, right.value
    if not a.operations and not b.operations:
        return None
    pairs = [(a.number, b.number)]
    if a.percent != b.percent:  # "50 / 200 * 100 = 25%"
        pairs += [(a.number * 100, b.number), (a.number, b.number * 100)]
    decimals = [p for side in (right, left) if (p := _decimals(side)) is not None]
    for one, other in pairs:
        gap = abs(one - other)
        if gap == 0 or any(2 * gap * Fraction(10) ** p <= 1 for p in decimals if p != 0):
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


def _decimals(side: _Side) -> int | None:
    """Decimals of a side that is a single number; negative for one such as 1.2 * 10^5. None if it is exact."""
    if side.value.operations == 0:
        return side.value.decimals
    numeral = parse_numeral(side.text) if "10" in side.text and "^" in side.text else None
    return None if numeral is None or numeral.text.count("/") else numeral.decimals


def _is_about(side: _Side, stated: Fraction, exact: Fraction) -> bool:
    """Whether a single number is the exact one, rounded or truncated."""
    decimals = _rounded(side)
    if decimals is None:
        return False
    gap = abs(stated - exact) * Fraction(10) ** decimals
    return 2 * gap <= 1 or (gap < 1 and abs(stated) < abs(exact))


def _rounded(side: _Side) -> int | None:
    """Decimals to which a single number may have been rounded: its own, or negative for zeros at its end."""
    decimals = _decimals(side)
    if decimals is not None or side.value.operations:
        return decimals
    number = side.value.number
    if number.denominator != 1:
        return None
    digits = str(abs(number.numerator))
    return -(len(digits) - len(digits.rstrip("0"))) if number else 0
