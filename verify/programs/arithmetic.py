"""Arithmetic in claims: in symbols ("3 * 18 = 54") or in words ("15% of 80 is 12", "half of 90 is 45").

Words are translated to symbols here; `reasoning/arithmetic.py` computes the exact result. Ambiguous claims are not
judged: negations, suppositions, other bases, quotations, and numbers that may be rounded to an integer.
"""

# ruff: noqa: RUF001 (typographic signs of arithmetic are meant)
from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from ...reasoning.answers.normalization import normalize_characters
from ...reasoning.answers.numerals import find_numerals
from ...reasoning.arithmetic import CheckedLine, check_arithmetic
from .text import MAX_CHARS, ProgramVerdict, WrittenNumber, has_quotes, is_filler, is_hedged, read_number

_RELATION = re.compile(
    r"\s*(?:(?:is|are)\s+equal\s+to|equals|is|makes?|gives|yields|comes\s+to|adds\s+up\s+to|(?P<sign>[=≈]))"
    r"(?:\s+(?P<about>about|approximately|roughly|around|nearly|almost)(?=\s)|\s+exactly(?=\s))?\s*",
    re.IGNORECASE,
)
_MATCHED = re.compile(r"[0-9]|\b(?:is|are|equals|makes?|gives|yields|comes|adds)\b|[=≈]", re.IGNORECASE)
_TOKEN = re.compile(r"\s*(?:(?P<word>[^\W\d_]+(?:-[^\W\d_]+)*)|(?P<sign>[-+*/×·÷−()%,^]))")
_SHARE = re.compile(
    r"\s*(?:(?P<count>a|one|two|three|four|five|seven|nine)[\s-])?"
    r"(?P<part>half|third|quarter|fourth|fifth|sixth|eighth|tenth)s?\s+of\b",
    re.IGNORECASE,
)
_COUNTS = {"a": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "seven": 7, "nine": 9}
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
_MULTIPLES = {"twice": "2", "double": "2", "thrice": "3", "triple": "3"}
_ADDING = {"+": "+", "plus": "+", "-": "-", "−": "-", "minus": "-"}
_MULTIPLYING = {"*": "*", "×": "*", "·": "*", "x": "*", "times": "*", "/": "/", "÷": "/"}
_MAX_READ = 40
_MAX_DEPTH = 12


class _Side(NamedTuple):
    """An expression in symbols, whether it has an operation, and its end."""

    symbols: str
    computed: bool
    end: int


class _Read(NamedTuple):
    """A part in symbols, and whether it has an operation."""

    symbols: str
    computed: bool


class _Unreadable(Exception):
    """The text is not arithmetic."""


def check_arithmetic_claim(text: str) -> ProgramVerdict | None:
    """Check the arithmetic of a claim.

    Args:
        text: The claim.

    Returns:
        The verdict on the first wrong equality, else on the correct ones; None if there is none or it is ambiguous.
    """
    if len(text) > MAX_CHARS or not _MATCHED.search(text):
        return None
    plain = normalize_characters(text)
    if is_hedged(plain) or has_quotes(plain):
        return None
    return _in_signs(plain) or _in_words(plain)


# -- in symbols


def _in_signs(text: str) -> ProgramVerdict | None:
    if "=" not in text and "≈" not in text and "\\approx" not in text:
        return None
    lines = check_arithmetic(text).lines
    wrong = next((line for line in lines if _surely_wrong(line)), None)
    if wrong is not None:
        start, end = _equality_span(text, wrong.text)
        return ProgramVerdict(
            holds=False, detail=f"{wrong.text} is wrong: {_shown(wrong.left)}", start=start, end=end, is_complete=False
        )
    if not lines or any(line.verdict != "right" for line in lines):
        return None
    spans = [_equality_span(text, line.text) for line in lines]
    start, end = min(p[0] for p in spans), max(p[1] for p in spans)
    is_complete = is_filler(text[:start]) and is_filler(text[end:])
    return ProgramVerdict(
        holds=True, detail="; ".join(line.text for line in lines), start=start, end=end, is_complete=is_complete
    )


def _surely_wrong(line: CheckedLine) -> bool:
    """Whether a wrong line is more than one side rounded to an integer."""
    integers = line.left.denominator == line.right.denominator == 1
    return line.verdict == "wrong" and (integers or 2 * abs(line.left - line.right) > 1)


def _scaled(exact: Fraction, stated: Fraction) -> bool:
    """Whether two numbers differ by an omitted "thousand" or "million", as in "12 is 15% of 80 million"."""
    return any(exact == stated * 1000**i or stated == exact * 1000**i for i in range(1, 5))


def _equality_span(text: str, equality: str) -> tuple[int, int]:
    """Span of an equality, by its numbers in order; the complete text if they are not in it."""
    operands = [n.value for n in find_numerals(equality)]
    numerals = list(find_numerals(text))
    values = [n.value for n in numerals]
    for i in range(len(values) - len(operands) + 1):
        if operands and values[i : i + len(operands)] == operands:
            start, end = numerals[i].start, numerals[i + len(operands) - 1].end
            while start > 0 and text[start - 1] in "(-−":
                start -= 1
            return start + len(text[start:end]) - len(text[start:end].lstrip()), end
    stripped = text.strip()
    start = text.find(stripped)
    return start, start + len(stripped)


def _shown(number: Fraction) -> str:
    return str(number) if number.denominator == 1 or len(str(number)) < 12 else f"{float(number):.6g}"


# -- Arithmetic in words


def _in_words(text: str) -> ProgramVerdict | None:
    """An equality that is the complete claim, except for words such as "so"."""
    starts = [m.start() for m in re.finditer(r"\S+", text)][:12]
    for start in starts:
        if not is_filler(text[:start]):
            return None
        verdict = _equality(text, start)
        if verdict is not None:
            return verdict
    return None


def _equality(text: str, start: int) -> ProgramVerdict | None:
    share = _share_of(text, start)
    sides = share or _two_sides(text, start)
    if sides is None:
        return None
    left, relation, right = sides
    if left.computed == right.computed or not is_filler(text[right.end :]):
        return None
    about = relation["about"] is not None or relation["sign"] == "≈"
    equality = f"{left.symbols} {'≈' if about else '='} {right.symbols}"
    lines = check_arithmetic(equality).lines
    if len(lines) != 1 or lines[0].verdict == "unclear":
        return None
    (line,) = lines
    if line.verdict == "wrong":
        exact, stated = (line.left, line.right) if left.computed else (line.right, line.left)
        if not _surely_wrong(line) or _scaled(exact, stated) or (about and 10 * abs(exact - stated) <= abs(exact)):
            return None
        detail = f"{text[start : right.end].strip()!r} is wrong: it is {_shown(exact)}{'%' if share else ''}"
    else:
        detail = text[start : right.end].strip()
    return ProgramVerdict(holds=line.verdict == "right", detail=detail, start=start, end=right.end, is_complete=True)


def _two_sides(text: str, start: int) -> tuple[_Side, re.Match[str], _Side] | None:
    try:
        left = _Words(text, start).read()
        relation = _RELATION.match(text, left.end)
        return (left, relation, _Words(text, relation.end()).read()) if relation else None
    except _Unreadable:
        return None


def _share_of(text: str, start: int) -> tuple[_Side, re.Match[str], _Side] | None:
    """A share such as "20 out of 80 is 25%", in hundredths."""
    part = read_number(text, start)
    words = re.compile(r"\s+out\s+of\s+").match(text, part.end) if part else None
    of = read_number(text, words.end()) if words else None
    relation = _RELATION.match(text, of.end) if of else None
    percent = read_number(text, relation.end()) if relation else None
    sign = re.compile(r"\s?(?:%|percent\b|per cent\b)").match(text, percent.end) if percent else None
    if not (part and of and relation and percent and sign) or of.value == 0:
        return None
    left = _Side(f"({_figure(part.value)} / {_figure(of.value)} * 100)", True, of.end)
    return left, relation, _Side(_decimal(text, percent), False, sign.end())


def _figure(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"({value.numerator}/{value.denominator})"


def _decimal(text: str, number: WrittenNumber) -> str:
    """A number in digits; written digits are kept, since their decimal places count."""
    shown = text[number.start : number.end].replace("−", "-")
    return shown if re.fullmatch(r"-?[0-9][0-9,]*(?:\.[0-9]+)?", shown) else _figure(number.value)


class _Words:
    """Parser from arithmetic in words and symbols to symbols."""

    def __init__(self, text: str, at: int) -> None:
        self._text, self._at = text, at
        self._depth = self._read = 0

    def read(self) -> _Side:
        value = self._sum()
        return _Side(value.symbols, value.computed, self._at)

    def _sum(self) -> _Read:
        left = self._product()
        while sign := self._take_sign(_ADDING):
            left = _Read(f"{left.symbols} {sign} {self._product().symbols}", True)
        return _Read(f"({left.symbols})", True) if left.computed else left

    def _product(self) -> _Read:
        left = self._factor()
        while sign := self._multiplying():
            left = _Read(f"{left.symbols} {sign} {self._factor().symbols}", True)
        return left

    def _multiplying(self) -> str:
        if self._take("multiplied", "by"):
            return "*"
        return "/" if self._take("divided", "by") else self._take_sign(_MULTIPLYING)

    def _factor(self) -> _Read:
        self._read += 1
        self._depth += 1
        if self._read > _MAX_READ or self._depth > _MAX_DEPTH:
            raise _Unreadable
        try:
            return self._powered(self._unpowered())
        finally:
            self._depth -= 1

    def _unpowered(self) -> _Read:
        if self._take("("):
            inside = self._sum()
            if not self._take(")"):
                raise _Unreadable
            return _Read(f"({inside.symbols})", inside.computed)
        for words, sign in ((("the", "sum", "of"), "+"), (("the", "product", "of"), "*")):
            if self._take(*words) or self._take(*words[1:]):
                return self._listed(sign)
        if self._take("the", "difference", "between") or self._take("the", "difference", "of"):
            return self._difference()
        if self._take("the", "square", "root", "of"):
            return _Read(f"\\sqrt({self._factor().symbols})", True)
        for word, power in (("square", 2), ("cube", 3)):
            if self._take("the", word, "of"):
                return _Read(f"(({self._factor().symbols})^{power})", True)
        share = _SHARE.match(self._text, self._at)
        if share is not None:
            self._at = share.end()
            count, parts = _COUNTS[(share["count"] or "a").lower()], _PARTS[share["part"].lower()]
            return _Read(f"({count}/{parts} * {self._factor().symbols})", True)
        word = self._word()
        if word in _MULTIPLES:
            self._take(word)
            return _Read(f"({_MULTIPLES[word]} * {self._factor().symbols})", True)
        return self._number_or_percentage()

    def _number_or_percentage(self) -> _Read:
        number = self._number()
        if self._take("%") or self._take("percent") or self._take("per", "cent"):
            if not self._take("of"):
                raise _Unreadable
            return _Read(f"({_figure(number.value / 100)} * {self._factor().symbols})", True)
        return _Read(_decimal(self._text, number), False)

    def _number(self) -> WrittenNumber:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        number = read_number(self._text, self._at)
        if number is None:
            raise _Unreadable
        self._at = number.end
        return number

    def _powered(self, base: _Read) -> _Read:
        for word, power in (("squared", 2), ("cubed", 3)):
            if self._take(word):
                return _Read(f"(({base.symbols})^{power})", True)
        if self._take("to", "the", "power", "of"):
            return _Read(f"(({base.symbols})^{_decimal(self._text, self._number())})", True)
        return base

    def _listed(self, sign: str) -> _Read:
        """Numbers with commas and "and" between them."""
        parts = [_decimal(self._text, self._number())]
        last = False
        while not last:
            comma = self._take(",")
            last = self._take("and")
            if not comma and not last:
                raise _Unreadable
            parts.append(_decimal(self._text, self._number()))
        return _Read(f"({f' {sign} '.join(parts)})", True)

    def _difference(self) -> _Read:
        first = self._number()
        if not self._take("and"):
            raise _Unreadable
        second = self._number()
        less, more = sorted((first, second), key=lambda number: number.value)
        return _Read(f"({_decimal(self._text, more)} - {_decimal(self._text, less)})", True)

    # -- Tokens

    def _word(self) -> str:
        token = _TOKEN.match(self._text, self._at)
        return (token["word"] or token["sign"]).lower() if token else ""

    def _take(self, *words: str) -> bool:
        """Skip these words if they are next."""
        at = self._at
        for word in words:
            token = _TOKEN.match(self._text, at)
            if token is None or (token["word"] or token["sign"]).lower() != word:
                return False
            at = token.end()
        self._at = at
        return True

    def _take_sign(self, symbols: dict[str, str]) -> str:
        word = self._word()
        if word not in symbols:
            return ""
        self._take(word)
        return symbols[word]
