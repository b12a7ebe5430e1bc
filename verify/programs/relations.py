"""Relations of quantities in claims: "3/4 is more than 2/3", "0.25 is 25%", "from 9:00 to 17:30 is 8.5 hours".

A claim is checked only if it consists of the relation alone: its quantities are replaced by a placeholder, and what is
left has to match one of a few patterns completely. Ambiguous claims are not judged: quantities that can be read in
several ways that disagree, numbers that may be rounded, days that may be counted in two ways, and clocks without "am".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import gcd, isqrt, prod
from typing import NamedTuple

from ...reasoning.answers.normalization import normalize_characters
from .dates import day_number, max_days
from .quantities import Quantity, Value, quantities
from .text import MAX_CHARS, ProgramVerdict, has_quotes, is_filler, is_hedged

_Q = "\ufffc"
"""Stands for a quantity."""
_IS = r"(?:is|are|equals?|is equal to|are equal to|makes?|gives|=)"
_ABOUT = r"(?P<about>(?:about|approximately|roughly|around|nearly|almost) |exactly )?"
_MORE = r"more|greater|larger|bigger|higher|longer|taller|farther|heavier|hotter|warmer|faster"
_LESS = r"less|fewer|smaller|lower|shorter|nearer|lighter|colder|cooler|slower"
_ADJECTIVES: dict[str, frozenset[str]] = {
    **dict.fromkeys(("longer", "shorter"), frozenset({"length", "time", "calendar"})),
    **dict.fromkeys(("taller", "farther", "nearer"), frozenset({"length"})),
    **dict.fromkeys(("heavier", "lighter"), frozenset({"mass"})),
    **dict.fromkeys(("hotter", "warmer", "colder", "cooler"), frozenset({"temperature"})),
    **dict.fromkeys(("faster", "slower"), frozenset({"speed"})),
}
"""The dimensions of adjectives that not every quantity can have."""
_MAX_ERROR = Fraction(1, 10)
_MIN_YEAR = 1924
"""First year in which all countries had the same calendar."""
_FULL_DATE = {"year", "month", "day"}
_DAY_S = 86_400


class _Match(NamedTuple):
    """A matched pattern, and the quantities in its placeholders."""

    words: re.Match[str]
    operands: list[Quantity]


def check_relations(text: str) -> ProgramVerdict | None:
    """Check a claim that consists of a relation of quantities or a property of a number.

    Args:
        text: The claim.

    Returns:
        The verdict; None if the claim is anything else or ambiguous.
    """
    if len(text) > MAX_CHARS or not _CANDIDATE.search(text):
        return None
    plain = normalize_characters(text)
    if is_hedged(plain) or has_quotes(plain) or _Q in plain:
        return None
    result = _check_pattern(plain) or _check_integer(plain) or _check_roman(plain)
    if result is None:
        return None
    holds, detail = result
    start = len(plain) - len(plain.lstrip())
    return ProgramVerdict(holds=holds, detail=detail, start=start, end=len(plain.rstrip()), is_complete=True)


_CANDIDATE = re.compile(r"\b(?:is|are|equals?|makes?|gives|lasts|takes|was|has)\b|=", re.IGNORECASE)


def _check_pattern(text: str) -> tuple[bool, str] | None:
    found = quantities(text)
    if not 2 <= len(found) <= 4:
        return None
    parts, end = [], 0
    for quantity in found:
        parts += [text[end : quantity.start], _Q]
        end = quantity.end
    skeleton = re.sub(r"\s+", " ", "".join([*parts, text[end:]])).strip().rstrip(".!").rstrip()
    first = skeleton.find(_Q)
    for pattern, decide in _PATTERNS:
        for start in (0, first):
            words = pattern.fullmatch(skeleton, start) if is_filler(skeleton[:start]) else None
            if words is not None:
                return decide(_Match(words, found))
    return None


# -- comparisons and equal values


def _comparison(match: _Match) -> tuple[bool, str] | None:
    left, right = match.operands
    adjective = match.words["adjective"].lower()
    if any(value.dimension == "date" for quantity in (left, right) for value in quantity.values):
        return None  # "2024 is higher than 2023" compares something else
    if _form(left) != _form(right) and (_may_omit_unit(left) or _may_omit_unit(right)):
        return None  # "5 percent is less than 10"
    signs = set()
    for a, b in _pairs(left, right):
        if a.dimension not in _ADJECTIVES.get(adjective, {a.dimension}) or a.dimension in _UNORDERED:
            return None
        signs.add((a.amount > b.amount) - (a.amount < b.amount))
    if len(signs) != 1:
        return None
    (sign,) = signs
    holds = sign == (1 if re.fullmatch(_MORE, adjective) else -1)
    relation = {1: "more than", 0: "equal to", -1: "less than"}[sign]
    return holds, f"{left.text} is {relation} {right.text}"


_UNORDERED = frozenset({"ordinal", "version", "date", "time of day"})


class _Amount(NamedTuple):
    dimension: str
    amount: Fraction
    rounding: Fraction


def _pairs(left: Quantity, right: Quantity) -> list[tuple[_Amount, _Amount]]:
    """The amounts of two quantities in a common dimension and currency; shares and plain numbers are one dimension."""
    return [
        (a, b)
        for x in left.values
        for y in right.values
        if (a := _amount(x)) is not None and (b := _amount(y)) is not None
        if a.dimension == b.dimension and x.currency == y.currency
    ]


def _amount(value: Value) -> _Amount | None:
    if not isinstance(value.amount, Fraction):
        return None
    return _Amount("number" if value.dimension == "share" else value.dimension, value.amount, value.rounding)


def _equality(match: _Match) -> tuple[bool, str] | None:
    left, right = match.operands
    if _form(left) == _form(right):
        return None
    is_about = match.words["about"] not in (None, "exactly ")
    results = [_same(a, b, is_about=is_about) for a, b in _pairs(left, right) if a.dimension not in _UNORDERED]
    if not results or (True not in results and None in results):
        return None
    holds = True in results
    if not holds and (_LONG_SCALE.search(left.text + right.text) or _may_omit_unit(left) or _may_omit_unit(right)):
        return None
    return holds, f"{left.text} is {'' if holds else 'not '}{right.text}"


_FORMS: dict[str, re.Pattern[str]] = {
    form: re.compile(pattern, re.IGNORECASE)
    for form, pattern in {
        "compound": r"[0-9][0-9.,]* ?[a-z]+,? (?:and )?[0-9]",
        "percentage": r"%|percent|per cent",
        "hundredth": r"[0-9]p$|\b(?:pence|pennies|cents?)\b",
        "dozen": r"\bdozen\b",
        "scale": r"\b(?:thousand|million|billion|trillion)\b",
        "fraction": r"[/½¼¾⅓⅔]|\b(?:half|third|quarter|fourth|fifth|sixth|eighth|tenth)s?\b",
    }.items()
}


def _form(quantity: Quantity) -> str:
    """How a quantity is written; two of the same form are equated by `units`, or not at all."""
    return next((form for form, pattern in _FORMS.items() if pattern.search(quantity.text)), "plain")


_LONG_SCALE = re.compile(r"\b(?:b|tr)illion\b", re.IGNORECASE)


def _may_omit_unit(quantity: Quantity) -> bool:
    """Whether a plain integer may lack "percent" or "thousand", as in "half is 50"."""
    amount = quantity.value
    return _form(quantity) == "plain" and not quantity.unit and isinstance(amount, Fraction) and amount.denominator == 1


def _same(a: _Amount, b: _Amount, *, is_about: bool) -> bool | None:
    """Whether two amounts are the same; None for one that may be rounded."""
    error = abs(a.amount - b.amount)
    if not error:
        return True
    if is_about and error <= max(a.rounding, b.rounding) and error <= max(abs(a.amount), abs(b.amount)) / 20:
        return True
    return None if error <= _MAX_ERROR * max(abs(a.amount), abs(b.amount)) else False


def _between(match: _Match) -> tuple[bool, str] | None:
    inner, low, high = match.operands
    holds = set()
    for (a, b), (_, c) in zip(_pairs(inner, low), _pairs(inner, high), strict=False):
        if a.dimension in _UNORDERED or a.amount in (b.amount, c.amount) or b.amount >= c.amount:
            return None
        holds.add(b.amount < a.amount < c.amount)
    if len(holds) != 1:
        return None
    (is_between,) = holds
    return is_between, f"{inner.text} is {'' if is_between else 'not '}between {low.text} and {high.text}"


# -- sums of counted things


def _sum(match: _Match) -> tuple[bool, str] | None:
    """A sum of the same counted thing or dimension, as in "12 apples plus 7 apples is 19 apples"."""
    first, second, total = match.operands
    names = {(match.words[name] or "").strip().lower().removesuffix("s") for name in ("a", "b", "c")}
    if len(names) != 1 or not (names - {""} or first.unit):
        return None
    sign = -1 if match.words["sign"] == "minus" else 1
    values = [q.values[0] for q in (first, second, total)]
    amounts = [_amount(value) for value in values]
    if None in amounts or len({(v.dimension, v.currency) for v in values}) != 1:
        return None
    a, b, c = (amount.amount for amount in amounts if amount is not None)
    if values[0].dimension not in ("number", "money", "length", "mass", "volume", "area", "time", "data", "energy"):
        return None
    exact = a + sign * b
    if (
        exact != c
        and abs(exact - c) <= max(amount.rounding for amount in amounts if amount is not None)
        and (a.denominator != 1 or b.denominator != 1 or first.unit)
    ):
        return None
    holds = exact == c
    return holds, f"{first.text} {match.words['sign']} {second.text} is {'' if holds else 'not '}{total.text}"


# -- times and dates


def _span(match: _Match) -> tuple[bool, str] | None:
    start, end, length = match.operands
    if start.dimension == end.dimension == "time of day":
        return _clock_span(start, end, length)
    return _day_span(start, end, length)


def _clock_span(start: Quantity, end: Quantity, length: Quantity) -> tuple[bool, str] | None:
    stated = [v.amount for v in length.values if v.dimension == "time" and isinstance(v.amount, Fraction)]
    if len(stated) != 1 or length.bound != "exact" or stated[0] >= _DAY_S:
        return None
    minutes = {
        (b.amount - a.amount) % 1440
        for a in start.values
        for b in end.values
        if isinstance(a.amount, Fraction) and isinstance(b.amount, Fraction)
    }
    if any(abs(60 * m - stated[0]) < 60 and 60 * m != stated[0] for m in minutes) or minutes == {0}:
        return None  # rounded to minutes, or a complete day
    holds = stated[0] in {60 * m for m in minutes}
    spans = " or ".join(f"{m // 60}:{m % 60:02}" for m in sorted(map(int, minutes)))
    return holds, f"from {start.text} to {end.text} is {spans} hours"


def _day_span(start: Quantity, end: Quantity, length: Quantity) -> tuple[bool, str] | None:
    """Days or weeks between complete dates; None for a day more, since both ends may count."""
    days = _days_between(start, end)
    stated = _stated_days(length)
    if days is None or stated is None or days <= 0 or stated == days + 1:
        return None
    return stated == days, f"from {start.text} to {end.text} is {days} days"


def _days_between(start: Quantity, end: Quantity) -> int | None:
    numbers = []
    for quantity in (start, end):
        if (
            len(quantity.values) != 1
            or not isinstance(parts := quantity.value, Mapping)
            or not parts.keys() >= _FULL_DATE
        ):
            return None
        year, month, day = parts["year"], parts["month"], parts["day"]
        if year < _MIN_YEAR or not 1 <= month <= 12 or not 1 <= day <= max_days(year, month):
            return None
        numbers.append(day_number(year, month, day))
    return numbers[1] - numbers[0]


def _stated_days(length: Quantity) -> int | None:
    if length.unit not in ("day", "days", "week", "weeks") or length.bound != "exact":
        return None
    seconds = [v.amount for v in length.values if v.dimension == "time" and isinstance(v.amount, Fraction)]
    days = seconds[0] / _DAY_S if len(seconds) == 1 else Fraction(1, 2)
    return int(days) if days.denominator == 1 else None


def _days_in_between(match: _Match) -> tuple[bool, str] | None:
    length, start, end = match.operands
    days, stated = _days_between(start, end), _stated_days(length)
    if days is None or stated is None or days <= 0 or stated in (days - 1, days + 1):
        return None
    return stated == days, f"between {start.text} and {end.text} are {days} days"


def _days_apart(match: _Match) -> tuple[bool, str] | None:
    """Days between two dates, as in "12 June 1926 is 3 days before 15 June 1926"."""
    first, length, second = match.operands
    days, stated = _days_between(first, second), _stated_days(length)
    if days is None or stated is None or days == 0:
        return None
    days = days if match.words["way"].lower() == "before" else -days
    if stated == abs(days) + 1 and days > 0:
        return None
    relation = "before" if (days > 0) == (match.words["way"].lower() == "before") else "after"
    return stated == days, f"{first.text} is {abs(days)} days {relation} {second.text}"


def _years_apart(first: Quantity, length: Quantity, second: Quantity, way: str) -> tuple[bool, str] | None:
    years = [q.value["year"] for q in (first, second) if isinstance(q.value, Mapping) and set(q.value) == _YEAR_ONLY]
    stated = [v.amount for v in length.values if v.dimension == "calendar" and isinstance(v.amount, Fraction)]
    if len(years) != 2 or len(stated) != 1 or length.unit not in ("year", "years") or stated[0] % 12:
        return None
    years_apart = years[1] - years[0] if way == "before" else years[0] - years[1]
    number = int(stated[0] / 12)
    if number != years_apart and abs(number - years_apart) <= 1:
        return None
    return number == years_apart, f"from {min(years)} to {max(years)} is {abs(years_apart)} years"


_YEAR_ONLY = {"year", "decade", "century"}


def _apart(match: _Match) -> tuple[bool, str] | None:
    first, length, second = match.operands
    return _years_apart(first, length, second, match.words["way"].lower()) or _days_apart(match)


_PATTERNS: tuple[tuple[re.Pattern[str], Callable[[_Match], tuple[bool, str] | None]], ...] = (
    (re.compile(rf"{_Q} (?:is|are) (?P<adjective>{_MORE}|{_LESS}) than {_Q}", re.IGNORECASE), _comparison),
    (re.compile(rf"{_Q} {_IS} {_ABOUT}{_Q}", re.IGNORECASE), _equality),
    (re.compile(rf"{_Q} (?:is|are|lies) between {_Q} and {_Q}", re.IGNORECASE), _between),
    (
        re.compile(
            rf"{_Q}(?P<a> [a-z]+)? (?P<sign>plus|and|minus) {_Q}(?P<b> [a-z]+)? (?:is|are|equals?|makes?|gives?) "
            rf"{_Q}(?P<c> [a-z]+)?",
            re.IGNORECASE,
        ),
        _sum,
    ),
    (
        re.compile(
            rf"(?:the (?:time|period) )?(?:from )?{_Q} ?(?:to|until|till|[\u2013-]) ?{_Q} "
            rf"(?:is|are|lasts|takes|makes|equals) {_Q}",
            re.IGNORECASE,
        ),
        _span,
    ),
    (re.compile(rf"there (?:is|are) {_Q} between {_Q} and {_Q}", re.IGNORECASE), _days_in_between),
    (re.compile(rf"{_Q} (?:is|was) {_Q} (?P<way>before|after) {_Q}", re.IGNORECASE), _apart),
)


# -- properties of integers

_INTEGER = r"([0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,12})"
_PROPERTY = re.compile(
    rf"(?:The number )?{_INTEGER} is (?:an? )?(?P<what>even|odd|prime|composite|square|perfect square)"
    r"(?P<noun> number)?\.?",
    re.IGNORECASE,
)
_DIVISIBILITY = re.compile(
    rf"{_INTEGER} is (?P<how>(?:evenly )?divisible by|a multiple of|a (?:factor|divisor) of) {_INTEGER}\.?",
    re.IGNORECASE,
)
_FACTORIAL = re.compile(
    rf"(?:The factorial of {_INTEGER}|{_INTEGER}(?:!| factorial)) (?:is|equals|=) {_INTEGER}\.?", re.I
)
_LARGEST_FACTORIAL = 20
_MULTIPLE_DIVISOR = re.compile(
    rf"The (?P<what>greatest common divisor|greatest common factor|least common multiple|lowest common multiple) of "
    rf"{_INTEGER} and {_INTEGER} is {_INTEGER}\.?",
    re.IGNORECASE,
)


def _check_integer(text: str) -> tuple[bool, str] | None:
    stripped = text.strip()
    if (match := _PROPERTY.fullmatch(stripped)) is not None:
        what = match["what"].lower()
        if what in ("odd", "square") and match["noun"] is None:
            return None  # "odd" may mean strange
        number = _integer(match[1])
        return _has_property(number, what), _property_detail(number, what)
    if (match := _DIVISIBILITY.fullmatch(stripped)) is not None:
        first, second = _integer(match[1]), _integer(match[3])
        is_part = match["how"].lower().endswith(("factor of", "divisor of"))
        dividend, divisor = (second, first) if is_part else (first, second)
        if divisor == 0:
            return None
        remainder = dividend % divisor
        return remainder == 0, f"{dividend} divided by {divisor} leaves {remainder}"
    if (match := _FACTORIAL.fullmatch(stripped)) is not None:
        number = _integer(match[1] or match[2])
        if number > _LARGEST_FACTORIAL:
            return None
        exact = prod(range(1, number + 1))
        return exact == _integer(match[3]), f"{number}! is {exact}"
    if (match := _MULTIPLE_DIVISOR.fullmatch(stripped)) is not None:
        first, second, stated = (_integer(match[i]) for i in (2, 3, 4))
        if not first or not second:
            return None
        exact = gcd(first, second) if "greatest" in match["what"].lower() else first * second // gcd(first, second)
        return exact == stated, f"the {match['what'].lower()} of {first} and {second} is {exact}"
    return None


def _integer(written: str) -> int:
    return int(written.replace(",", ""))


def _has_property(number: int, what: str) -> bool:
    if what in ("even", "odd"):
        return number % 2 == (what == "odd")
    if "square" in what:
        return isqrt(number) ** 2 == number
    is_prime = number > 1 and _smallest_factor(number) == number
    return is_prime if what == "prime" else number > 1 and not is_prime


def _property_detail(number: int, what: str) -> str:
    if what in ("even", "odd"):
        return f"{number} is {'odd' if number % 2 else 'even'}"
    if "square" in what:
        root = isqrt(number)
        return f"{number} is {'' if root**2 == number else 'not '}a square"
    if number < 2:
        return f"{number} is neither prime nor composite"
    factor = _smallest_factor(number)
    return (
        f"{number} is divisible by {factor}" if 1 < factor < number else f"{number} has no smaller factor than itself"
    )


def _smallest_factor(number: int) -> int:
    """The smallest factor above 1; at most a million divisions, since numbers have at most 12 digits."""
    if number % 2 == 0:
        return 2
    return next((factor for factor in range(3, isqrt(number) + 1, 2) if number % factor == 0), number)


# -- Roman numerals

_ROMAN = r"(?P<roman>M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3}))"
_ROMAN_CLAIM = re.compile(
    rf"(?:(?P<marked>The Roman numeral |In Roman numerals,? )?{_ROMAN}(?P<after> in Roman numerals)? "
    rf"(?:is|equals|means|stands for|=) (?P<number>{_INTEGER})"
    rf"|(?P<marked2>In Roman numerals,? )?(?P<number2>{_INTEGER}) is (?:written )?(?:as )?"
    rf"{_ROMAN.replace('roman', 'roman2')}(?P<after2> in Roman numerals)?)\.?"
)
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


def _check_roman(text: str) -> tuple[bool, str] | None:
    """Without the words "Roman numeral" only correct ones are decided: "XL is 42" may be a size."""
    match = _ROMAN_CLAIM.fullmatch(text.strip())
    roman = (match["roman"] or match["roman2"]) if match else ""
    if match is None or not roman:
        return None
    values = [_ROMAN_VALUES[letter] for letter in roman]
    exact = sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))
    holds = exact == _integer(match["number"] or match["number2"])
    is_marked = any(match[name] for name in ("marked", "after", "marked2", "after2"))
    return (holds, f"{roman} is {exact}") if is_marked or (holds and len(roman) > 2) else None
