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
_CANDIDATE = re.compile(r"[0-9]|\b(?:is|are|equals|makes?|gives|yields|comes|adds)\b|[=≈]", re.IGNORECASE)
_TOKEN = re.compile(r"\s*(?:(?P<word>[^\W\d_]+(?:-[^\W\d_]+)*)|(?P<sign>[-+*/×·÷−()%,^]))")
_SHARE = re.compile(
    r"\s*(?:(?P<count>a|one|two|three|four|five|seven|nine)[\s-])?"
    r"(?P<part>half|third|quarter|fourth|fifth|sixth|eighth|tenth)s?\s+of\b",
    re.IGNORECASE,
)
_COUNTS = {"a": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "seven": 7, "nine": 9}
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
_CHANGES = (
    (("increased", "by"), "+"), (("raised", "by"), "+"), (("decreased", "by"), "-"), (("reduced", "by"), "-"),
)  # fmt: skip
_MULTIPLES = {"twice": "2", "double": "2", "thrice": "3", "triple": "3"}
_ADDITIVE = {"+": "+", "plus": "+", "-": "-", "−": "-", "minus": "-"}
_MULTIPLICATIVE = {"*": "*", "×": "*", "·": "*", "x": "*", "times": "*", "/": "/", "÷": "/"}
_CURRENCY = re.compile(r"[$£€¥](?=[0-9])")
_MAX_FACTORS = 40
_MAX_DEPTH = 12


class _Side(NamedTuple):
    """An expression in symbols, whether it has an operator, and its end."""

    symbols: str
    has_operator: bool
    end: int


class _Expression(NamedTuple):
    """A subexpression in symbols, and whether it has an operator."""

    symbols: str
    has_operator: bool


class _ParseError(Exception):
    """The text is not arithmetic."""


def check_arithmetic_claim(text: str) -> ProgramVerdict | None:
    """Check the arithmetic of a claim.

    Args:
        text: The claim.

    Returns:
        The verdict on the first wrong equality, else on the correct ones; None if there is none or it is ambiguous.
    """
    if len(text) > MAX_CHARS or not _CANDIDATE.search(text):
        return None
    plain = normalize_characters(text)
    if is_hedged(plain) or has_quotes(plain):
        return None
    return _check_symbols(plain) or _check_words(plain) or _check_money(plain)


# -- Symbols


def _check_symbols(text: str) -> ProgramVerdict | None:
    if "=" not in text and "≈" not in text and "\\approx" not in text:
        return None
    lines = check_arithmetic(text).lines
    wrong_line = next((line for line in lines if _is_beyond_rounding(line)), None)
    if wrong_line is not None:
        start, end = _equality_span(text, wrong_line.text)
        return ProgramVerdict(
            holds=False,
            detail=f"{wrong_line.text} is wrong: {_format_result(wrong_line.left)}",
            start=start,
            end=end,
            is_complete=False,
        )
    if not lines or any(line.verdict != "right" for line in lines):
        return None
    spans = [_equality_span(text, line.text) for line in lines]
    start, end = min(p[0] for p in spans), max(p[1] for p in spans)
    is_complete = is_filler(text[:start]) and is_filler(text[end:])
    return ProgramVerdict(
        holds=True, detail="; ".join(line.text for line in lines), start=start, end=end, is_complete=is_complete
    )


def _is_beyond_rounding(line: CheckedLine) -> bool:
    """Whether a line is wrong by more than the rounding of one side to an integer."""
    integers = line.left.denominator == line.right.denominator == 1
    return line.verdict == "wrong" and (integers or 2 * abs(line.left - line.right) > 1)


def _differs_by_scale(exact: Fraction, stated: Fraction) -> bool:
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


def _format_result(number: Fraction) -> str:
    return str(number) if number.denominator == 1 or len(str(number)) < 12 else f"{float(number):.6g}"


# -- Words


def _check_money(text: str) -> ProgramVerdict | None:
    """An equality of amounts in one currency, as in "20% of £50 is £10"."""
    signs = _CURRENCY.findall(text)
    if len(set(signs)) != 1:
        return None
    bare = _CURRENCY.sub(" ", text)
    verdict = _check_words(bare)
    if verdict is None:
        return None
    start = verdict.start - (verdict.start > 0 and text[verdict.start - 1] == signs[0])
    detail = verdict.detail.replace(bare[verdict.start : verdict.end].strip(), text[start : verdict.end].strip())
    return verdict.model_copy(update={"detail": detail, "start": start})


def _check_words(text: str) -> ProgramVerdict | None:
    """An equality that is the complete claim, except for words such as "so"."""
    starts = [m.start() for m in re.finditer(r"\S+", text)][:12]
    for start in starts:
        if not is_filler(text[:start]):
            return None
        verdict = _check_equality(text, start)
        if verdict is not None:
            return verdict
    return None


def _check_equality(text: str, start: int) -> ProgramVerdict | None:
    share = _parse_percentage(text, start)
    sides = share or _parse_sides(text, start)
    if sides is None:
        return None
    left, relation, right = sides
    if left.has_operator == right.has_operator or not is_filler(text[right.end :]):
        return None
    is_approximate = relation["about"] is not None or relation["sign"] == "≈"
    equality = f"{left.symbols} {'≈' if is_approximate else '='} {right.symbols}"
    lines = check_arithmetic(equality).lines
    if len(lines) != 1 or lines[0].verdict == "unclear":
        return None
    (line,) = lines
    if line.verdict == "wrong":
        exact, stated = (line.left, line.right) if left.has_operator else (line.right, line.left)
        if (
            not _is_beyond_rounding(line)
            or _differs_by_scale(exact, stated)
            or (is_approximate and 10 * abs(exact - stated) <= abs(exact))
        ):
            return None
        detail = f"{text[start : right.end].strip()!r} is wrong: it is {_format_result(exact)}{'%' if share else ''}"
    else:
        detail = text[start : right.end].strip()
    return ProgramVerdict(holds=line.verdict == "right", detail=detail, start=start, end=right.end, is_complete=True)


def _parse_sides(text: str, start: int) -> tuple[_Side, re.Match[str], _Side] | None:
    try:
        left = _Parser(text, start).parse()
        relation = _RELATION.match(text, left.end)
        return (left, relation, _Parser(text, relation.end()).parse()) if relation else None
    except _ParseError:
        return None


def _parse_percentage(text: str, start: int) -> tuple[_Side, re.Match[str], _Side] | None:
    """A share such as "20 out of 80 is 25%", in hundredths."""
    part = read_number(text, start)
    words = re.compile(r"\s+out\s+of\s+").match(text, part.end) if part else None
    of = read_number(text, words.end()) if words else None
    relation = _RELATION.match(text, of.end) if of else None
    percent = read_number(text, relation.end()) if relation else None
    sign = re.compile(r"\s?(?:%|percent\b|per cent\b)").match(text, percent.end) if percent else None
    if not (part and of and relation and percent and sign) or of.value == 0:
        return None
    left = _Side(f"({_format_fraction(part.value)} / {_format_fraction(of.value)} * 100)", True, of.end)
    return left, relation, _Side(_format_number(text, percent), False, sign.end())


def _format_fraction(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"({value.numerator}/{value.denominator})"


def _format_number(text: str, number: WrittenNumber) -> str:
    """A number in digits; digits in the text are kept, since their decimal places are significant."""
    digits = text[number.start : number.end].replace("−", "-")
    return digits if re.fullmatch(r"-?[0-9][0-9,]*(?:\.[0-9]+)?", digits) else _format_fraction(number.value)


class _Parser:
    """Parser from arithmetic in words and symbols to symbols."""

    def __init__(self, text: str, at: int) -> None:
        self._text, self._position = text, at
        self._depth = self._num_factors = 0

    def parse(self) -> _Side:
        value = self._parse_sum()
        return _Side(value.symbols, value.has_operator, self._position)

    def _parse_sum(self) -> _Expression:
        left = self._parse_product()
        while sign := self._take_operator(_ADDITIVE):
            left = _Expression(f"{left.symbols} {sign} {self._parse_product().symbols}", True)
        for words, sign in _CHANGES:
            if self._take(*words):
                percent = self._parse_percent()
                return _Expression(f"(({left.symbols}) * (1 {sign} {percent}))", True)
        return _Expression(f"({left.symbols})", True) if left.has_operator else left

    def _parse_product(self) -> _Expression:
        left = self._parse_factor()
        while sign := self._take_multiplication():
            left = _Expression(f"{left.symbols} {sign} {self._parse_factor().symbols}", True)
        return left

    def _take_multiplication(self) -> str:
        if self._take("multiplied", "by"):
            return "*"
        return "/" if self._take("divided", "by") else self._take_operator(_MULTIPLICATIVE)

    def _parse_factor(self) -> _Expression:
        self._num_factors += 1
        self._depth += 1
        if self._num_factors > _MAX_FACTORS or self._depth > _MAX_DEPTH:
            raise _ParseError
        try:
            return self._parse_power(self._parse_base())
        finally:
            self._depth -= 1

    def _parse_base(self) -> _Expression:
        if self._take("("):
            inside = self._parse_sum()
            if not self._take(")"):
                raise _ParseError
            return _Expression(f"({inside.symbols})", inside.has_operator)
        for word in ("average", "mean"):
            if self._take("the", word, "of"):
                return self._parse_average()
        for words, sign in ((("the", "sum", "of"), "+"), (("the", "product", "of"), "*")):
            if self._take(*words) or self._take(*words[1:]):
                return self._parse_list(sign)
        if self._take("the", "difference", "between") or self._take("the", "difference", "of"):
            return self._parse_difference()
        if self._take("the", "square", "root", "of"):
            return _Expression(f"\\sqrt({self._parse_factor().symbols})", True)
        for word, power in (("square", 2), ("cube", 3)):
            if self._take("the", word, "of"):
                return _Expression(f"(({self._parse_factor().symbols})^{power})", True)
        share = _SHARE.match(self._text, self._position)
        if share is not None:
            self._position = share.end()
            count, parts = _COUNTS[(share["count"] or "a").lower()], _PARTS[share["part"].lower()]
            return _Expression(f"({count}/{parts} * {self._parse_factor().symbols})", True)
        word = self._next_token()
        if word in _MULTIPLES:
            self._take(word)
            return _Expression(f"({_MULTIPLES[word]} * {self._parse_factor().symbols})", True)
        return self._parse_number_or_percentage()

    def _parse_number_or_percentage(self) -> _Expression:
        number = self._parse_number()
        if self._take("%") or self._take("percent") or self._take("per", "cent"):
            if not self._take("of"):
                raise _ParseError
            return _Expression(f"({_format_fraction(number.value / 100)} * {self._parse_factor().symbols})", True)
        return _Expression(_format_number(self._text, number), False)

    def _parse_percent(self) -> str:
        number = self._parse_number()
        if not (self._take("%") or self._take("percent") or self._take("per", "cent")):
            raise _ParseError
        return _format_fraction(number.value / 100)

    def _parse_number(self) -> WrittenNumber:
        while self._position < len(self._text) and self._text[self._position].isspace():
            self._position += 1
        number = read_number(self._text, self._position)
        if number is None:
            raise _ParseError
        self._position = number.end
        return number

    def _parse_power(self, base: _Expression) -> _Expression:
        for word, power in (("squared", 2), ("cubed", 3)):
            if self._take(word):
                return _Expression(f"(({base.symbols})^{power})", True)
        if self._take("to", "the", "power", "of"):
            return _Expression(f"(({base.symbols})^{_format_number(self._text, self._parse_number())})", True)
        return base

    def _parse_list(self, sign: str) -> _Expression:
        """Numbers with commas and "and" between them."""
        parts = [_format_number(self._text, self._parse_number())]
        last = False
        while not last:
            comma = self._take(",")
            last = self._take("and")
            if not comma and not last:
                raise _ParseError
            parts.append(_format_number(self._text, self._parse_number()))
        return _Expression(f"({f' {sign} '.join(parts)})", True)

    def _parse_average(self) -> _Expression:
        start = self._position
        total = self._parse_list("+")
        count = 1 + total.symbols.count(" + ")
        if " - " in total.symbols or start == self._position:
            raise _ParseError
        return _Expression(f"({total.symbols} / {count})", True)

    def _parse_difference(self) -> _Expression:
        first = self._parse_number()
        if not self._take("and"):
            raise _ParseError
        second = self._parse_number()
        less, more = sorted((first, second), key=lambda number: number.value)
        return _Expression(f"({_format_number(self._text, more)} - {_format_number(self._text, less)})", True)

    # -- Tokens

    def _next_token(self) -> str:
        token = _TOKEN.match(self._text, self._position)
        return (token["word"] or token["sign"]).lower() if token else ""

    def _take(self, *words: str) -> bool:
        """Skip these words if they are next."""
        at = self._position
        for word in words:
            token = _TOKEN.match(self._text, at)
            if token is None or (token["word"] or token["sign"]).lower() != word:
                return False
            at = token.end()
        self._position = at
        return True

    def _take_operator(self, symbols: dict[str, str]) -> str:
        word = self._next_token()
        if word not in symbols:
            return ""
        self._take(word)
        return symbols[word]
