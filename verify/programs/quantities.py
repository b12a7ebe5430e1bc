"""The quantities in a text with normalised values: numbers, measures, money, shares, dates, times of day, versions.

Two texts that name different quantities of the same thing contradict each other, however similar their words are.
"1.5 km" and "1500 m" are equal, as are "12 June 1926" and "1926-06-12", "half past nine" and "9:30", "5 %" and "5
percent", "three dozen" and "36"; "0.05" is no percentage. A quantity that can be read in several ways has a value for
each: "450 pounds" is money and a mass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from ...reasoning.answers.normalization import normalize_characters
from .dates import DATE, MONTHS, month_number, parse_date
from .text import SMALL_NUMBERS, WrittenNumber, read_number
from .units import Meaning, read_unit

# ruff: noqa: RUF001 (typographic signs are meant)

MAX_CHARS: Final = 100_000
"""Quantities after this position of a text are not read."""

Bound = Literal["exact", "about", "at least", "at most"]
CalendarPart = Literal["year", "month", "day", "decade", "century"]
Amount = Fraction | Mapping[CalendarPart, int] | str


class Value(NamedTuple):
    """One reading of a quantity.

    Attributes:
        dimension: "number", "share", "money", "date", "time of day", "ordinal", "version", or the dimension of a unit.
        amount: In the dimension's first unit (m, m², l, kg, s, m/s, bit, K, W, J, …; months for "calendar"); a share
            of 1; minutes since midnight; the parts of a date that are stated or follow from them; the text of a
            version.
        currency: Of an amount of money: a code, or "$" for any dollar; else empty.
        rounding: Half a unit of the last written place of the amount.
    """

    dimension: str
    amount: Amount
    currency: str = ""
    rounding: Fraction = Fraction(0)


@dataclass(frozen=True)
class Quantity:
    """A quantity in a text.

    Attributes:
        text: As it is written; `text == source[start:end]`.
        start: First character.
        end: One past the last.
        unit: The unit, singular where it is a word; empty for a plain number.
        values: Its readings, the most likely one first.
        bound: How the text limits it: "about 5", "over 5" (at least), "up to 5" (at most).
    """

    text: str
    start: int
    end: int
    unit: str
    values: tuple[Value, ...]
    bound: Bound = "exact"

    @property
    def dimension(self) -> str:
        """The dimension of the most likely reading."""
        return self.values[0].dimension

    @property
    def value(self) -> Amount:
        """The amount of the most likely reading."""
        return self.values[0].amount


def quantities(text: str) -> list[Quantity]:
    """The quantities of a text, in order, without overlaps. Never raises; linear in the text's length."""
    plain = normalize_characters(text[:MAX_CHARS]).translate(_PLAIN)
    found: list[Quantity] = []
    end = 0
    for match in _START.finditer(plain):
        start = match.start()
        reading = _read(plain, start) if start >= end else None
        if reading is None:
            continue
        end = reading.end
        is_date = reading.values[0].dimension == "date"
        bound = _bound_before(plain, start, _DATE_BOUND_BEFORE if is_date else _BOUND_BEFORE)
        found.append(Quantity(text[start:end], start, end, reading.unit, reading.values, bound))
    return _share_units(plain, found)


def comparable(a: Quantity, b: Quantity) -> bool:
    """Whether two quantities can be equal or different: they share a dimension, and dates also a part of the date."""
    return any(_are_comparable(x, y) for x in a.values for y in b.values)


def equal(a: Quantity, b: Quantity) -> bool:
    """Whether two quantities can be the same, exactly or as they are written.

    "About" allows a tenth more or less. In different units, or with "million" and the like, quantities are rounded to
    the last written place. "Over 300 m" and "330 m" can be the same, "June 1926" and "12 June 1926" too.
    """
    is_rounded = a.unit != b.unit or any(_SCALED.search(q.text) for q in (a, b))
    return any(
        _agree(x, y, (a.bound, b.bound), is_rounded=is_rounded)
        for x in a.values
        for y in b.values
        if _are_comparable(x, y)
    )


# -- comparison

_MAX_APPROXIMATION = Fraction(1, 10)
_MAX_ROUNDING = Fraction(1, 20)
_SCALED = re.compile(r"\b(?:thousand|million|billion|trillion)\b|[0-9] ?(?:k|mn?|bn?|tn)\b", re.IGNORECASE)


def _are_comparable(a: Value, b: Value) -> bool:
    if a.dimension != b.dimension:
        return False
    if isinstance(a.amount, Mapping) and isinstance(b.amount, Mapping):
        return not a.amount.keys().isdisjoint(b.amount.keys())
    return True


def _agree(a: Value, b: Value, bounds: tuple[Bound, Bound], *, is_rounded: bool) -> bool:
    if isinstance(a.amount, Mapping) and isinstance(b.amount, Mapping):
        return _dates_agree(a.amount, b.amount, bounds)
    if not isinstance(a.amount, Fraction) or not isinstance(b.amount, Fraction):
        return a.amount == b.amount
    if a.currency != b.currency:
        return False
    slack = max(a.rounding, b.rounding) if is_rounded else Fraction(0)
    slack = min(slack, _MAX_ROUNDING * max(abs(a.amount), abs(b.amount)))
    (low, high), (other_low, other_high) = _interval(a.amount, bounds[0]), _interval(b.amount, bounds[1])
    is_above = low is not None and other_high is not None and low > other_high + slack
    is_below = high is not None and other_low is not None and other_low > high + slack
    return not is_above and not is_below


_DATE_ORDER: tuple[CalendarPart, ...] = ("century", "decade", "year", "month", "day")
_YEARS_ABOUT = 5


def _dates_agree(a: Mapping[CalendarPart, int], b: Mapping[CalendarPart, int], bounds: tuple[Bound, Bound]) -> bool:
    """Whether all common parts are equal, or in the order that a bound allows; "about" allows five years."""
    different = next((part for part in _DATE_ORDER if part in a and part in b and a[part] != b[part]), None)
    if different is None:
        return True
    if "about" in bounds and "year" in a and "year" in b:
        return abs(a["year"] - b["year"]) <= _YEARS_ABOUT
    first, second = bounds if a[different] < b[different] else bounds[::-1]  # the earlier one first
    return first == "at least" or second == "at most"


def _interval(amount: Fraction, bound: Bound) -> tuple[Fraction | None, Fraction | None]:
    """Lowest and highest amount that a bound allows; None for no limit."""
    margin = abs(amount) * _MAX_APPROXIMATION if bound == "about" else Fraction(0)
    return None if bound == "at most" else amount - margin, None if bound == "at least" else amount + margin


_BOUNDS: dict[Bound, str] = {
    "about": r"about|approximately|approx\.|roughly|around|some|nearly|almost|circa|ca\.|c\.|an estimated|[~≈]",
    "at most": r"at most|(?:less|fewer) than|under|below|up to|(?:no|not) more than|within|a maximum of|<=?|≤",
    "at least": r"at least|more than|over|above|(?:no|not) (?:less|fewer) than|exceed(?:s|ed|ing)?|a minimum of|>=?|≥",
}
_DATE_BOUNDS: dict[Bound, str] = {
    "about": r"about|around|circa|ca\.|c\.|approximately|roughly|early|late|mid",
    "at most": r"before|until|till|by|prior to|no later than|earlier than",
    "at least": r"after|since|from|no earlier than|later than",
}


def _before(bounds: Mapping[Bound, str]) -> re.Pattern[str]:
    """A pattern for the words of a bound at the end of a text, with a group for each bound."""
    return re.compile(
        "|".join(rf"(?P<b{i}>(?<!\w)(?:{words})[ -]?(?:the )?)$" for i, words in enumerate(bounds.values())),
        re.IGNORECASE,
    )


_BOUND_BEFORE, _DATE_BOUND_BEFORE = _before(_BOUNDS), _before(_DATE_BOUNDS)


def _bound_before(text: str, start: int, pattern: re.Pattern[str]) -> Bound:
    match = pattern.search(text[max(0, start - 30) : start])
    return "exact" if match is None else next(bound for i, bound in enumerate(_BOUNDS) if match[f"b{i}"])


# -- reading


class _Reading(NamedTuple):
    end: int
    unit: str
    values: tuple[Value, ...]


_PLAIN = {0x3BC: "µ", 0xA0: " ", 0x202F: " ", 0x2009: " "}
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
          "ninth": 9, "tenth": 10}  # fmt: skip
_ORDINALS = [
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth",
    "twentieth", "twenty-first",
]  # fmt: skip
_SIGNS = {"½": Fraction(1, 2), "¼": Fraction(1, 4), "¾": Fraction(3, 4), "⅓": Fraction(1, 3), "⅔": Fraction(2, 3)}
_MONTH_NAMES = "|".join([*MONTHS, *(m[:3] for m in MONTHS if len(m) > 3), "Sept"])
_WORD_NUMBERS = "|".join(sorted(SMALL_NUMBERS, key=len, reverse=True))
_START = re.compile(
    rf"(?<![\w.,/^:])(?<![A-Za-z]-)(?:[-−]?[0-9]|[{''.join(_SIGNS)}])|(?<![\w.])(?:US|C|A|NZ|HK)?[$£€¥₹]"
    rf"|\bv[0-9]|\b(?:{_MONTH_NAMES})\b"
    rf"|\b(?i:{_WORD_NUMBERS}|{'|'.join([*_PARTS, *_ORDINALS])}|an?|dozen|noon|midday|midnight|EUR|USD|GBP|CHF)\b"
)

_PREPOSITION = re.compile(
    r"\b(?:in|since|by|until|till|of|from|to|through|during|before|after|between|and|early|late|mid|last|next|year"
    r"|around|about|on|circa)[ -](?:the )?$|\(\s*$",
    re.IGNORECASE,
)
_DATE_AFTER_DASH = re.compile(DATE.pattern.removeprefix(r"(?<![\w./:-])"))
_DAY_AND_MONTH = re.compile(
    rf"(?:(?P<d1>[0-9]{{1,2}})(?:st|nd|rd|th)?(?: of)? (?P<m1>{_MONTH_NAMES})\b"
    rf"|(?P<m2>{_MONTH_NAMES})\b\.? (?P<d2>[0-9]{{1,2}})(?:st|nd|rd|th)?(?![\w:]|[.,][0-9]))"
)
_MONTH_AND_YEAR = re.compile(
    rf"(?P<month>{_MONTH_NAMES})\b\.?(?:,? (?:of )?(?P<year>[12][0-9]{{3}})(?![\w%]|[.,][0-9]))?"
)
_NUMERIC_DATE = re.compile(r"([0-9]{1,2})([./-])([0-9]{1,2})\2([12][0-9]{3})(?![\w/-]|\.[0-9])")
_AMBIGUOUS_MONTHS = frozenset({"May", "March", "April", "June", "Mar", "Apr", "Jun", "Jan", "Sept", "Sep", "Dec"})
_YEAR = re.compile(r"[12][0-9]{3}(?![\w%]|[.,:/][0-9])")
_PLURAL_AFTER = re.compile(r" (?:[a-z]+ )?(?!(?:was|is|has|this|as|his|its|does|thus)\b)[a-z]{2,}s\b")
_DECADE = re.compile(r"([12][0-9]{2}0)['’]?s\b")
_CENTURY = re.compile(r"(?:[0-9]{1,2}(?:st|nd|rd|th)|[a-z]+(?:-first)?)[ -]centur(?:y|ies)\b", re.IGNORECASE)
_BEFORE_COMMON_ERA = re.compile(r"([0-9]{1,4}) ?(?:BCE?\b|B\.C\.)")

_HALF_OF_DAY = r"(?P<half> ?[ap]\.?m\b\.?| in the (?:morning|afternoon|evening)| at night)"
_TIME = re.compile(
    rf"(?:(?P<hour>[01]?[0-9]|2[0-4])(?::(?P<minute>[0-5][0-9])(?::[0-5][0-9])?(?![\w:]|\.[0-9]){_HALF_OF_DAY}?"
    rf"|\.(?P<minute2>[0-5][0-9])(?P<half2> ?[ap]\.?m\b\.?)"
    rf"|(?P<half3> ?[ap]\.?m\b\.?)| o['’]clock\b{_HALF_OF_DAY.replace('<half>', '<half4>')}?)"
    r"|(?P<part>half|quarter|five|ten|twenty|twenty-five)(?: minutes)? (?P<way>past|to) "
    rf"(?P<spoken>{_WORD_NUMBERS}|[0-9]{{1,2}})\b"
    rf"{_HALF_OF_DAY.replace('<half>', '<half5>')}?"
    rf"|(?P<clock>{_WORD_NUMBERS}) o['’]clock\b{_HALF_OF_DAY.replace('<half>', '<half6>')}?"
    r"|(?P<name>noon|midday|midnight)\b)",
    re.IGNORECASE,
)
_SPOKEN_MINUTES = {"half": 30, "quarter": 15, "five": 5, "ten": 10, "twenty": 20, "twenty-five": 25}

_VERSION = re.compile(r"v?([0-9]+(?:\.[0-9]+){2,}|(?<=v)[0-9]+(?:\.[0-9]+)*)(?![\w/-]|\.[0-9])", re.IGNORECASE)
_MARKED_VERSION = re.compile(r"([0-9]+(?:\.[0-9]+)+)(?![\w/-]|\.[0-9])")
_VERSION_BEFORE = re.compile(r"\b(?:version|release|v\.?)\s?$", re.IGNORECASE)

_CURRENCY_SIGNS = {"£": "GBP", "€": "EUR", "¥": "JPY", "₹": "INR"}
_CURRENCY_WORDS = {
    "pound": "GBP", "pounds": "GBP", "quid": "GBP", "gbp": "GBP", "euro": "EUR", "euros": "EUR", "eur": "EUR",
    "dollar": "$", "dollars": "$", "usd": "$", "yen": "JPY", "jpy": "JPY", "rupees": "INR", "francs": "CHF",
    "chf": "CHF", "kroner": "NOK", "kronor": "SEK",
}  # fmt: skip
_MONEY_BEFORE = re.compile(r"(?:(?:US|C|A|NZ|HK)?(?P<sign>[$£€¥₹])|(?P<code>EUR|USD|GBP|CHF)) ?(?=[0-9])")
_CURRENCY_AFTER = re.compile(r"[ -](?:US |Canadian |Australian )?([A-Za-z]{3,7})(?: sterling)?\b")
_PENCE = re.compile(r"(?:p| pence| pennies)\b")
_CENTS = re.compile(r"(?:c| cents?)\b")
_LETTER_SCALE = re.compile(r" ?(k|mn|m|bn|b|tn)\b", re.IGNORECASE)
_LETTER_ZEROS = {"k": 3, "m": 6, "mn": 6, "bn": 9, "b": 9, "tn": 12}
_PERCENT = re.compile(r"(?: ?%|[ -](?:percent|per cent|pct)\b)(?:age points?\b)?| percentage points?\b", re.IGNORECASE)
_OUT_OF = re.compile(r" (?:out of (?:every )?|in (?:every )?)(?=[0-9a-z])", re.IGNORECASE)
_SHARE = re.compile(
    rf"(?:(?P<count>an?|one|two|three|four|five|seven|nine)[ -])?(?P<parts>(?P<part>{'|'.join(_PARTS)})s?)\b"
    r"(?:(?: of)? (?P<article>an?)\b)?",
    re.IGNORECASE,
)
_ORDINAL = re.compile(
    rf"(?:(?P<digits>[0-9]{{1,4}})(?:st|nd|rd|th)|(?P<word>{'|'.join(reversed(_ORDINALS))}))\b", re.IGNORECASE
)
_ORDINAL_BEFORE = re.compile(r"\b(?:the|his|her|its|their|our|my|every|and)\s$", re.IGNORECASE)
_FRACTION = re.compile(r"(?:([0-9]{1,6}) )?([0-9]{1,6})[/⁄]([0-9]{1,6})(?![\w/]|\.[0-9])")
_SIGNED_FRACTION = re.compile(rf"([0-9]{{1,6}})?([{''.join(_SIGNS)}])")
_AND_A_HALF = re.compile(
    rf"(?P<whole>[0-9]{{1,4}}|{_WORD_NUMBERS})(?: and an?|-and-a)[ -](?P<part>half|quarter|third)\b", re.IGNORECASE
)
_DOZEN = re.compile(rf"(?:(?P<count>half an?|an?|[0-9]{{1,4}}|{_WORD_NUMBERS})[ -])?dozen\b", re.IGNORECASE)
_PRONOUN_BEFORE = re.compile(r"\b(?:no|this|that|the|any|every|each|which|another|only|last|next)[ -]$", re.IGNORECASE)
_PRONOUN_AFTER = re.compile(r" (?:of|another|day|who|that|which|can|is|was|to|or|more)\b|[^\w ]|$", re.IGNORECASE)


def _read(text: str, at: int) -> _Reading | None:
    """The quantity at a position: the first kind that fits, the most specific ones first."""
    for read in (_read_date, _read_time, _read_version, _read_money, _read_share, _read_ordinal, _read_number):
        reading = read(text, at)
        if reading is not None:
            return reading
    return None


def _read_date(text: str, at: int) -> _Reading | None:
    parts: list[Mapping[CalendarPart, int]] = []
    if (match := DATE.match(text, at)) is not None or (match := _DATE_AFTER_DASH.match(text, at)) is not None:
        date = parse_date(match)
        parts = [_date_parts(date.year, date.month, date.day)]
    elif (match := _NUMERIC_DATE.match(text, at)) is not None:
        first, second, year = int(match[1]), int(match[3]), int(match[4])
        pairs = {(m, d) for m, d in ((second, first), (first, second)) if 1 <= m <= 12 and 1 <= d <= 31}
        parts = [_date_parts(year, month, day) for month, day in sorted(pairs, key=lambda pair: pair[0] != second)]
    elif (match := _CENTURY.match(text, at)) is not None:
        ordinal = _ORDINAL.match(text, at)
        if ordinal is None:
            return None
        parts = [{"century": _ordinal_number(ordinal)}]
    elif (match := _DAY_AND_MONTH.match(text, at)) is not None:
        parts = [{"month": month_number(match["m1"] or match["m2"]), "day": int(match["d1"] or match["d2"])}]
    elif (match := _MONTH_AND_YEAR.match(text, at)) is not None:
        if match["year"]:
            parts = [_date_parts(int(match["year"]), month_number(match["month"]))]
        elif match["month"] not in _AMBIGUOUS_MONTHS or _PREPOSITION.search(text[max(0, at - 12) : at]):
            parts = [{"month": month_number(match["month"])}]
    elif (match := _DECADE.match(text, at)) is not None:
        decade = int(match[1]) // 10
        parts = [{"decade": decade, "century": decade // 10 + 1} if decade % 10 else {"century": decade // 10 + 1}]
    elif (match := _BEFORE_COMMON_ERA.match(text, at)) is not None:
        parts = [{"year": -int(match[1])}]
    if match is None or not parts:
        return None
    return _Reading(match.end(), "", tuple(Value("date", part) for part in parts))


def _date_parts(year: int, month: int | None = None, day: int | None = None) -> Mapping[CalendarPart, int]:
    """The parts of a date, with the decade and century that follow from the year."""
    parts: dict[CalendarPart, int] = {"year": year, "decade": year // 10, "century": (year - 1) // 100 + 1}
    if month is not None:
        parts["month"] = month
    if day is not None:
        parts["day"] = day
    return parts


def _read_time(text: str, at: int) -> _Reading | None:
    match = _TIME.match(text, at)
    if match is None:
        return None
    half = next((match[name] for name in ("half", "half2", "half3", "half4", "half5", "half6") if match[name]), "")
    minute = int(match["minute"] or match["minute2"] or 0)
    if match["name"]:
        return _Reading(
            match.end(), "", (Value("time of day", Fraction(0 if match["name"].lower() == "midnight" else 720)),)
        )
    if match["part"]:
        if match["way"] == "to" and match["part"].lower() not in ("half", "quarter"):
            return None
        spoken = match["spoken"].lower()
        hour = int(spoken) if spoken.isdecimal() else SMALL_NUMBERS[spoken]
        minute = _SPOKEN_MINUTES[match["part"].lower()]
        hour, minute = (hour, minute) if match["way"].lower() == "past" else (hour - 1, 60 - minute)
    else:
        hour = int(match["hour"]) if match["hour"] else SMALL_NUMBERS[match["clock"].lower()]
    if not 0 <= hour <= 24 or (half and hour > 12):
        return None
    is_exact = hour > 12 or hour == 0 or (match["hour"] or "").startswith("0")
    if half:
        is_afternoon = half.strip().lower().startswith(("p", "in the a", "in the e", "at"))
        hours = [hour % 12 + 12 * is_afternoon]
    else:
        hours = [hour] if is_exact else [hour % 12 + 12, hour % 12] if hour == 12 else [hour, hour + 12]
    return _Reading(match.end(), "", tuple(Value("time of day", Fraction(60 * (h % 24) + minute)) for h in hours))


def _read_version(text: str, at: int) -> _Reading | None:
    match = _VERSION.match(text, at)
    if match is None and _VERSION_BEFORE.search(text[max(0, at - 10) : at]):
        match = _MARKED_VERSION.match(text, at)
    return None if match is None else _Reading(match.end(), "", (Value("version", match[1]),))


def _read_money(text: str, at: int) -> _Reading | None:
    match = _MONEY_BEFORE.match(text, at)
    number = read_number(text, match.end()) if match else None
    if match is None or number is None:
        return None
    currency = (
        _CURRENCY_SIGNS.get(match["sign"] or "", "$") if match["sign"] else _CURRENCY_WORDS[match["code"].lower()]
    )
    scale = _LETTER_SCALE.match(text, number.end)
    if scale is not None:
        zeros = _LETTER_ZEROS[scale[1].lower()]
        number = WrittenNumber(number.value * 10**zeros, number.decimals - zeros, at, scale.end())
    return _Reading(number.end, currency, (_money(number, currency),))


def _money(number: WrittenNumber, currency: str, factor: Fraction = Fraction(1)) -> Value:
    return Value("money", number.value * factor, currency, _rounding(number) * factor)


def _read_share(text: str, at: int) -> _Reading | None:
    """Shares in words ("two thirds", "one in five"), and halves and quarters of units ("half an hour")."""
    match = _SHARE.match(text, at)
    if _DOZEN.match(text, at):
        return None
    if match is not None and (match["count"] is not None or match["part"].lower() in ("half", "quarter")):
        count = {"a": 1, "an": 1}.get((match["count"] or "a").lower()) or SMALL_NUMBERS[match["count"].lower()]
        amount = Fraction(count, _PARTS[match["part"].lower()])
        if match["article"]:
            unit = read_unit(text, match.end())
            number = read_number(text, match.start("article"))
            if unit is not None:
                return _Reading(
                    unit.end, unit.name, _measures(WrittenNumber(amount, 3, at, match.end()), unit.meanings)
                )
            if number is not None:  # "half a million"
                return _Reading(number.end, "", (Value("number", amount * number.value),))
        if match["count"] is None and match["part"].lower() == "quarter":
            return None
        return _Reading(match.end("parts"), "", (Value("share", amount),))
    first = read_number(text, at)
    link = _OUT_OF.match(text, first.end) if first else None
    second = read_number(text, link.end()) if link else None
    if first is None or second is None or not 0 <= first.value <= second.value or second.value == 0:
        return None
    is_year = second.value >= 1000 and " in " in text[first.end : second.start]
    if is_year or (read_unit(text, second.end) is not None and "out" not in text[first.end : second.start]):
        return None  # "12 in 1926", "5 in 10 minutes"
    return _Reading(second.end, "", (Value("share", first.value / second.value),))


def _read_ordinal(text: str, at: int) -> _Reading | None:
    match = _ORDINAL.match(text, at)
    if match is None or (match["word"] and not _ORDINAL_BEFORE.search(text[max(0, at - 6) : at])):
        return None
    return _Reading(match.end(), "", (Value("ordinal", Fraction(_ordinal_number(match))),))


def _ordinal_number(match: re.Match[str]) -> int:
    return int(match["digits"]) if match["digits"] else _ORDINALS.index(match["word"].lower()) + 1


def _read_number(text: str, at: int) -> _Reading | None:
    """A number with what follows it: percent, a unit, a currency, or nothing."""
    number = _number_at(text, at)
    if number is None:
        return None
    after = number.end
    if (percent := _PERCENT.match(text, after)) is not None:
        return _Reading(percent.end(), "%", (Value("share", number.value / 100, "", _rounding(number) / 100),))
    if (pence := _PENCE.match(text, after)) is not None:
        return _Reading(pence.end(), "pence", (_money(number, "GBP", Fraction(1, 100)),))
    if (cents := _CENTS.match(text, after)) is not None:
        hundredths = tuple(_money(number, currency, Fraction(1, 100)) for currency in ("$", "EUR"))
        return _Reading(cents.end(), "cent", hundredths)
    values: tuple[Value, ...] = ()
    end, name = after, ""
    unit = read_unit(text, after + 1 if text[after : after + 1] == "-" else after)
    if unit is not None:
        values, end, name = _measures(number, unit.meanings), unit.end, unit.name
        values, end = _with_smaller_unit(text, values, end)
    currency = _CURRENCY_AFTER.match(text, after)
    if currency is not None and currency[1].lower() in _CURRENCY_WORDS:
        code = _CURRENCY_WORDS[currency[1].lower()]
        values, end, name = (_money(number, code), *values), max(end, currency.end()), name or code
    scale = _LETTER_SCALE.match(text, after)
    if scale is not None and scale[0][0] != " " and (not values or end == scale.end()):
        zeros = _LETTER_ZEROS[scale[1].lower()]
        values = (*values, Value("number", number.value * 10**zeros, "", _rounding(number) * 10**zeros))
        end = max(end, scale.end())
    if values:
        return _Reading(end, name, values)
    if text[at:after].lower() == "one" and (
        _PRONOUN_AFTER.match(text, after) or _PRONOUN_BEFORE.search(text[max(0, at - 9) : at])
    ):
        return None
    if after < len(text) and (text[after].isalpha() or text[after] in "_^"):
        return None  # "3D", "10^6"
    plain = Value("number", number.value, "", _rounding(number))
    if _YEAR.match(text, at) is None or text[at:after] != f"{number.value}":
        return _Reading(after, "", (plain, *_fraction_share(text, at, number)))
    year = Value("date", _date_parts(int(number.value)))
    if _PREPOSITION.search(text[max(0, at - 12) : at]) is None:
        return _Reading(after, "", (plain,) if _PLURAL_AFTER.match(text, after) else (year, plain))
    return _Reading(after, "", (year,))


def _fraction_share(text: str, at: int, number: WrittenNumber) -> tuple[Value, ...]:
    """The share that a fraction below 1 in digits can be."""
    is_fraction = 0 < number.value < 1 and ("/" in text[at : number.end] or text[at] in _SIGNS)
    return (Value("share", number.value),) if is_fraction else ()


def _number_at(text: str, at: int) -> WrittenNumber | None:
    """The number at a position, also with a fraction or "dozen"."""
    if (match := _FRACTION.match(text, at)) is not None and int(match[3]):
        value = int(match[1] or 0) + Fraction(int(match[2]), int(match[3]))
        return WrittenNumber(value, 3, at, match.end())
    if (match := _SIGNED_FRACTION.match(text, at)) is not None:
        return WrittenNumber(int(match[1] or 0) + _SIGNS[match[2]], 3, at, match.end())
    if (match := _AND_A_HALF.match(text, at)) is not None:
        value = _small(match["whole"]) + Fraction(1, _PARTS[match["part"].lower()])
        number = WrittenNumber(value, 1, at, match.end())
        zeros = re.compile(r"[ -](thousand|million|billion)\b", re.IGNORECASE).match(text, match.end())
        if zeros is None:
            return number
        scale = {"thousand": 3, "million": 6, "billion": 9}[zeros[1].lower()]
        return WrittenNumber(value * 10**scale, 1 - scale, at, zeros.end())
    if (match := _DOZEN.match(text, at)) is not None:
        count = (match["count"] or "a").lower()
        dozens = Fraction(1, 2) if count.startswith("half") else Fraction(1) if count in ("a", "an") else _small(count)
        return WrittenNumber(12 * dozens, 0, at, match.end())
    return read_number(text, at)


def _small(written: str) -> Fraction:
    return Fraction(int(written) if written.isdecimal() else SMALL_NUMBERS[written.lower()])


def _measures(number: WrittenNumber, meanings: tuple[Meaning, ...]) -> tuple[Value, ...]:
    return tuple(
        Value(m.dimension, number.value * m.factor + m.offset, "", _rounding(number) * m.factor) for m in meanings
    )


def _rounding(number: WrittenNumber) -> Fraction:
    return Fraction(1, 2) / Fraction(10) ** number.decimals


_SMALLER = re.compile(r",? (?:and )?(?=[0-9a-z])", re.IGNORECASE)


def _with_smaller_unit(text: str, values: tuple[Value, ...], end: int) -> tuple[tuple[Value, ...], int]:
    """A quantity with its continuation in a smaller unit: "6 feet 2 inches", "1 hour and 30 minutes"."""
    link = _SMALLER.match(text, end)
    number = read_number(text, link.end()) if link else None
    unit = read_unit(text, number.end) if number else None
    if number is None or unit is None:
        return values, end
    smaller = {v.dimension: v for v in reversed(_measures(number, unit.meanings))}
    joined = tuple(
        Value(v.dimension, v.amount + other.amount, "", other.rounding)
        for v in values
        if (other := smaller.get(v.dimension)) is not None
        and isinstance(v.amount, Fraction)
        and isinstance(other.amount, Fraction)
        and 0 < other.amount < 2 * v.rounding
    )
    return (joined, unit.end) if joined else (values, end)


_RANGE = re.compile(r" ?(?:-|–|—|to|and|or) ?", re.IGNORECASE)


def _share_units(text: str, found: list[Quantity]) -> list[Quantity]:
    """Plain numbers of ranges with the unit of the second: "10 to 15 km", "12-14 June 1926"."""
    shared = list(found)
    for i, (first, second) in enumerate(pairwise(found)):
        if first.dimension != "number" or first.unit or not _RANGE.fullmatch(text, first.end, second.start):
            continue
        number = _number_at(text, first.start)
        if number is None or number.end != first.end:
            continue
        values: tuple[Value, ...] = ()
        amount = second.value
        if second.dimension == "date" and isinstance(amount, Mapping) and "day" in amount and number.value <= 31:
            values = (Value("date", {**amount, "day": int(number.value)}),)
        elif second.unit == "%":
            values = (Value("share", number.value / 100, "", _rounding(number) / 100),)
        elif second.dimension == "money":
            values = (_money(number, second.values[0].currency),)
        elif second.unit and (after := _number_at(text, second.start)) is not None:
            unit = read_unit(text, after.end)
            values = () if unit is None else _measures(number, unit.meanings)
        if values:
            shared[i] = replace(first, unit=second.unit, values=values)
    return shared
