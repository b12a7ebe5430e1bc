"""Dates in claims: weekdays, days that do not exist, spans of years, ages, leap years and order.

Ambiguous claims are not judged: negations and suppositions, years before the common era, spans that may be counted in
two ways (a year more or less), and weekdays that are correct in the calendar of their time and region.

Day numbers are Julian day numbers, by the integer formulas of Fliegel and Van Flandern (1968), "A Machine Algorithm for
Processing Calendar Dates", Communications of the ACM 11(10), in a form for both calendars.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ...reasoning.answers.normalization import normalize_characters
from .text import MAX_CHARS, ProgramVerdict, has_quotes, is_filler, is_hedged, read_number

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_MONTH = "|".join([*MONTHS, *(m[:3] for m in MONTHS if len(m) > 3), "Sept"])
_YEAR_OF_DATE = r"[0-9]{3,4}(?![0-9]|[.,:/-][0-9]|\s?(?:BC|B\.C|BCE|AH|%))"
_DAY = r"[0-9]{1,2}(?:st|nd|rd|th)?"
DATE = re.compile(
    rf"(?<![\w./:-])(?:"
    rf"(?P<d1>{_DAY})(?:\s+of)?\s+(?P<m1>{_MONTH})\b\.?,?\s+(?P<y1>{_YEAR_OF_DATE})"
    rf"|(?P<m2>{_MONTH})\b\.?\s+(?P<d2>{_DAY}),?\s+(?P<y2>{_YEAR_OF_DATE})"
    rf"|(?P<y3>[0-9]{{4}})-(?P<m3>[0-9]{{2}})-(?P<d3>[0-9]{{2}})(?![0-9-])"
    rf")"
)
"""A complete date: "1 January 2000", "January 1st, 2000", "1st of January 2000", "2000-01-01"."""


class Date(NamedTuple):
    """A written date, which need not exist.

    Attributes:
        year: Year of the common era.
        month: 1 to 12, or another number of two digits.
        day: The written day.
        start: First character.
        end: One past the last.
    """

    year: int
    month: int
    day: int
    start: int
    end: int

    @property
    def exists(self) -> bool:
        """Whether it exists in either calendar."""
        return 1 <= self.month <= 12 and 1 <= self.day <= max_days(self.year, self.month)

    @property
    def shown(self) -> str:
        """The date in plain form."""
        return f"{self.day} {MONTHS[self.month - 1]} {self.year}" if 1 <= self.month <= 12 else "no month"


def find_dates(text: str) -> Iterator[Date]:
    """The complete dates of a text, in order."""
    for match in DATE.finditer(text):
        yield parse_date(match)


def parse_date(match: re.Match[str]) -> Date:
    """The date of a match of `DATE`."""
    month = match["m1"] or match["m2"]
    number = month_number(month) if month else int(match["m3"])
    day = re.sub(r"[a-z]+", "", match["d1"] or match["d2"] or match["d3"])
    year = int(match["y1"] or match["y2"] or match["y3"])
    return Date(year, number, int(day), match.start(), match.end())


def month_number(name: str) -> int:
    """Number of a month (1 to 12), by its name or first three letters."""
    return next(i for i, month in enumerate(MONTHS, 1) if month.startswith(name[:3]))


def is_leap(year: int, *, julian: bool = False) -> bool:
    """Whether a year has 366 days."""
    return year % 4 == 0 and (julian or year % 100 != 0 or year % 400 == 0)


def max_days(year: int, month: int) -> int:
    """Maximum days of a month, also in the Julian calendar, which some countries used until 1923.

    February of 1712 had 30 days in Sweden.
    """
    if month == 2:
        if year == 1712:
            return 30
        return 29 if is_leap(year, julian=year <= 1923) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def day_number(year: int, month: int, day: int, *, julian: bool = False) -> int:
    """The Julian day number of a date; consecutive days have consecutive numbers."""
    shift = (14 - month) // 12
    y, m = year + 4800 - shift, month + 12 * shift - 3
    days = day + (153 * m + 2) // 5 + 365 * y + y // 4
    return days - 32083 if julian else days - y // 100 + y // 400 - 32045


def weekday(date: Date, *, julian: bool = False) -> str:
    """The name of a date's day of the week."""
    return WEEKDAYS[day_number(date.year, date.month, date.day, julian=julian) % 7]


# ruff: noqa: RUF001 (dashes are meant)


_CANDIDATE = re.compile(
    r"[0-9]|\b(?:January|February|March|April|May|June|July|August|September|October|November|December)\b"
)
_OTHER_ERA = re.compile(
    r"\b(?:B\.?\s?C\.?(?:E\.?)?|A\.?H\.?|A\.?M\.?|Julian|Old Style|O\.S\.|Hebrew|Islamic|Hijri"
    r"|lunar|fiscal|academic)(?!\w)"
)
_WEEKDAY = "|".join(WEEKDAYS)
_WEEKDAY_AFTER_DATE = re.compile(
    rf",?\s+(?:which\s+)?(?:was|is|were|fell|falls|will\s+be|will\s+fall)\s+(?:on\s+)?(?:an?\s+)?({_WEEKDAY})\b"
)
_WEEKDAY_BEFORE_DATE = re.compile(rf"\b({_WEEKDAY}),?\s+(?:the\s+)?$")
_RELATIVE = re.compile(
    r"\b(?:after|before|since|until|till|following|preceding|from|between|to|by|than|of|and|or|next|last|every"
    r"|first|second"
    r"|third|fourth|day|days|week|weeks|eve|through)\s+(?:on\s+)?(?:the\s+)?$",
    re.IGNORECASE,
)
_NAME_BEFORE = re.compile(r"[A-Z]\w*\s+$")
_YEAR_NUMBER = r"([0-9]{3,4})(?![0-9]|[.,:/-][0-9]|%)"
_LEAP = re.compile(
    rf"(?:The\s+year\s+|the\s+year\s+)?{_YEAR_NUMBER}\s+(?:was|is|will\s+be)\s+(not\s+)?a\s+leap\s+year\b"
)
_MONTH_DAYS = re.compile(
    rf"\b({'|'.join(MONTHS)})(?:\s+(?:of\s+)?{_YEAR_NUMBER})?\s+(?:has|had|will\s+have|have)\s+(?:exactly\s+)?(?=\S)"
)
_DAYS = re.compile(r"\s+days\b(?:\s+in\s+a\s+(?P<leap>leap|common)\s+year)?")
_DAY_WITHOUT_YEAR = re.compile(
    rf"\b[Oo]n\s+(?:the\s+)?(?:(?P<d1>[0-9]{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<m1>{'|'.join(MONTHS)})"
    rf"|(?P<m2>{'|'.join(MONTHS)})\s+(?P<d2>[0-9]{{1,2}})(?:st|nd|rd|th)?)(?=\s*(?:[,;.!)]\s*(?!\s*[0-9])|$))"
)
_SPAN = re.compile(
    rf"\b[Ff]rom\s+{_YEAR_NUMBER}\s+(?:to|until|till)\s+{_YEAR_NUMBER}\s+(?:is|was|are|were|makes|spans|covers|equals|it\s+is)\s+"
    r"(?:a\s+(?:period|span|total)\s+of\s+)?(?=\S)"
)
_BETWEEN = re.compile(
    rf"\b[Bb]etween\s+{_YEAR_NUMBER}\s+and\s+{_YEAR_NUMBER},?\s+(?:there\s+)?(?:is|are|lie|were|passed)\s+(?=\S)"
)
_LASTED = re.compile(r"\b(?:lasted|lasting|reigned|lived|ruled)\s+(?:for\s+)?(?=\S)")
_FROM_TO = re.compile(rf",?\s+\(?from\s+{_YEAR_NUMBER}\s*(?:to|until|till|–|-)\s*{_YEAR_NUMBER}")
_YEARS = re.compile(r"\s+years?\b(?!\s+(?:old|and|or|of age|less|more|later|earlier|longer))")
_PREPOSITION = r"(?:in|on)\s+(?:the\s+)?"
_BORN = re.compile(rf"\bborn\s+{_PREPOSITION}", re.IGNORECASE)
_DIED = re.compile(rf"\bdied\s+{_PREPOSITION}", re.IGNORECASE)
_AGE = re.compile(r",?\s+(?:at\s+(?:the\s+)?age\s+of\s+|at\s+age\s+|aged\s+|at\s+)(?=[0-9a-z])")
_OTHER_PERSON = re.compile(
    r"\b(?:he|she|they|his|her|their|whose|who|wife|husband|son|daughter|sons|daughters|father|mother|parents"
    r"|brother|sister"
    r"|widow|child|children|twin|friend|killed)\b|[.;:]",
    re.IGNORECASE,
)
_ORDER = re.compile(r",?\s+(?:was|is|came|comes|were)\s+(?P<how>before|after|earlier\s+than|later\s+than)\s+")
_YEAR = re.compile(rf"(?:the\s+year\s+)?{_YEAR_NUMBER}", re.IGNORECASE)


def check_dates(text: str) -> ProgramVerdict | None:
    """Check the dates of a claim.

    Args:
        text: The claim.

    Returns:
        The verdict; None if there is nothing to check or the text is ambiguous.
    """
    if len(text) > MAX_CHARS or not _CANDIDATE.search(text):
        return None
    plain = normalize_characters(text)
    if _OTHER_ERA.search(plain) or has_quotes(plain):
        return None
    leap = _check_leap_year(plain)
    if leap is not None or is_hedged(plain):
        return leap
    checks: tuple[Callable[[str], ProgramVerdict | None], ...] = (
        _check_existence, _check_weekday, _check_month_length, _check_span, _check_life, _check_order,
    )  # fmt: skip
    verdicts = [verdict for check in checks if (verdict := check(plain)) is not None]
    return min(verdicts, key=lambda verdict: (verdict.holds, not verdict.is_complete), default=None)


def _verdict(text: str, holds: bool, detail: str, start: int, end: int) -> ProgramVerdict:
    is_complete = is_filler(text[:start]) and is_filler(text[end:])
    return ProgramVerdict(holds=holds, detail=detail, start=start, end=end, is_complete=is_complete)


# -- days that do not exist


def _check_existence(text: str) -> ProgramVerdict | None:
    for date in find_dates(text):
        if not date.exists and 1 <= date.month <= 12 and date.day <= 99:
            return _verdict(text, False, f"there is no {date.shown}", date.start, date.end)
    for match in _DAY_WITHOUT_YEAR.finditer(text):
        month, day = month_number(match["m1"] or match["m2"]), int(match["d1"] or match["d2"])
        if not 1 <= day <= max_days(2000, month):
            start = match.start() + 3
            return _verdict(text, False, f"there is no {day} {MONTHS[month - 1]}", start, match.end())
    return None


# -- weekdays


def _check_weekday(text: str) -> ProgramVerdict | None:
    correct: ProgramVerdict | None = None
    for match in DATE.finditer(text):
        date = parse_date(match)
        before, start, end = text[: date.start], date.start, date.end
        phrase = _WEEKDAY_AFTER_DATE.match(text, date.end)
        if phrase is not None:
            name, end = phrase[1], phrase.end()
        else:
            phrase = _WEEKDAY_BEFORE_DATE.search(before[-40:])
            if phrase is None:
                continue
            start = date.start - len(before[-40:]) + phrase.start()
            name, before = phrase[1], text[:start]
        if not date.exists or _RELATIVE.search(before[-40:]):
            continue
        holds = _is_on_weekday(date, name)
        if holds is False and _NAME_BEFORE.search(before[-40:]):
            holds = None  # the weekday may be part of a name
        if holds is None:
            continue
        verdict = _verdict(text, holds, f"{date.shown} was a {weekday(date, julian=date.year < 1583)}", start, end)
        if not holds:
            return verdict
        correct = correct or verdict
    return correct


def _is_on_weekday(date: Date, name: str) -> bool | None:
    """Whether a date fell on a weekday; None if it did in the other calendar, or its year is ambiguous."""
    is_julian = date.year < 1583
    if weekday(date, julian=is_julian) == name:
        return True
    if weekday(date, julian=not is_julian) == name and date.year <= 1923:
        return None
    return None if date.year <= 1752 and date.month <= 3 else False


# -- years and months


def _check_leap_year(text: str) -> ProgramVerdict | None:
    match = _LEAP.search(text)
    if match is None or not is_filler(text[: match.start()]) or not is_filler(text[match.end() :]):
        return None
    year = int(match[1])
    leap = is_leap(year)
    if leap != is_leap(year, julian=True) and year < 1583:
        return None
    detail = f"{year} {'is' if leap else 'is not'} a leap year"
    return _verdict(text, leap != bool(match[2]), detail, match.start(), match.end())


def _check_month_length(text: str) -> ProgramVerdict | None:
    match = _MONTH_DAYS.search(text)
    number = read_number(text, match.end()) if match else None
    days = _DAYS.match(text, number.end) if number else None
    if match is None or number is None or days is None or not is_filler(text[: match.start()] + text[days.end() :]):
        return None
    month, year = month_number(match[1]), int(match[2]) if match[2] else None
    if month == 2 and (year is None or year <= 1923):
        february = {"leap": {29}, "common": {28}}.get(days["leap"] or "", {28, 29})
        expected = february if year is None else {28, 29} if is_leap(year, julian=True) else {28}
        if number.value not in expected:
            return _verdict(
                text, False, f"February has {min(february)} or {max(february)} days", match.start(), days.end()
            )
        return _verdict(text, True, "", match.start(), days.end()) if len(expected) == 1 else None
    length = max_days(year or 2001, month)
    detail = f"{match[1]} has {length} days"
    return _verdict(text, number.value == length, detail, match.start(), days.end())


def _check_span(text: str) -> ProgramVerdict | None:
    """Spans: "from 1914 to 1918 is 4 years", "between … and … there are 4 years", "lasted 4 years, from … to …"."""
    for pattern in (_SPAN, _BETWEEN):
        match = pattern.search(text)
        number = read_number(text, match.end()) if match else None
        years = _YEARS.match(text, number.end) if number else None
        if match and number and years:
            return _check_years(text, match.start(), years.end(), int(match[1]), int(match[2]), float(number.value))
    match = _LASTED.search(text)
    number = read_number(text, match.end()) if match else None
    years = _YEARS.match(text, number.end) if number else None
    period = _FROM_TO.match(text, years.end()) if years else None
    if match and number and period:
        stated = float(number.value)
        return _check_years(text, match.start(), period.end(), int(period[1]), int(period[2]), stated, partial=True)
    return None


def _check_years(
    text: str, start: int, end: int, first: int, last: int, stated: float, *, partial: bool = False
) -> ProgramVerdict | None:
    """Verdict on a span; None for a year more or less, since both ends may count or years be incomplete."""
    years = last - first
    if years <= 0 or (stated != years and abs(stated - years) <= 1):
        return None
    verdict = _verdict(text, stated == years, f"from {first} to {last} is {years} years", start, end)
    return verdict.model_copy(update={"is_complete": False}) if partial else verdict


# -- lives


def _check_life(text: str) -> ProgramVerdict | None:
    """Birth, death and age of one person."""
    born, died = _BORN.search(text), _DIED.search(text)
    if born is None or died is None or died.start() < born.end():
        return None
    if len(_BORN.findall(text)) > 1 or len(_DIED.findall(text)) > 1:
        return None
    birth, death = _date_or_year(text, born.end()), _date_or_year(text, died.end())
    if birth is None or death is None or birth.end > died.start():
        return None
    between = text[birth.end : died.start()]
    if len(between) > 80 or _OTHER_PERSON.search(between):
        return None
    if _first_day(death) < _first_day(birth) and death.year < birth.year:
        detail = f"{death.year} was before {birth.year}"
        return _verdict(text, False, detail, born.start(), death.end).model_copy(update={"is_complete": False})
    return _check_age(text, born.start(), birth, death)


def _check_age(text: str, start: int, birth: Date, death: Date) -> ProgramVerdict | None:
    age_match = next((m for m in _AGE.finditer(text, death.end)), None)
    number = read_number(text, age_match.end()) if age_match else None
    if age_match is None or number is None or len(text[death.end : age_match.start()]) > 60:
        return None
    after = text[number.end :]
    if _OTHER_PERSON.search(text[death.end : age_match.start()]) or not re.match(
        r"(?:\s+years?(?:\s+old)?)?\s*(?:[.,;!)]|$)", after
    ):
        return None
    if birth.month and death.month:
        if not (birth.exists and death.exists):
            return None
        had_birthday = (death.month, death.day) >= (birth.month, birth.day)
        ages = {death.year - birth.year - (not had_birthday)}
    else:
        ages = {death.year - birth.year - 1, death.year - birth.year}
    stated = number.value
    expected = " or ".join(map(str, sorted(ages)))
    verdict = _verdict(
        text, stated in ages, f"from {birth.year} to {death.year} gives an age of {expected}", start, number.end
    )
    return verdict.model_copy(update={"is_complete": False})


def _date_or_year(text: str, at: int) -> Date | None:
    """A date, or a year with month and day 0."""
    match = DATE.match(text, at)
    if match is not None:
        return parse_date(match)
    year = _YEAR.match(text, at)
    return None if year is None else Date(int(year[1]), 0, 0, year.start(), year.end())


def _first_day(date: Date) -> int:
    return day_number(date.year, max(1, date.month), max(1, date.day))


# -- order


def _check_order(text: str) -> ProgramVerdict | None:
    """Order of years or dates, as in "1912 was before 1914"; the text must be only that."""
    start = len(text) - len(text.lstrip())
    first = _date_or_year(text, start)
    if first is None:
        return None
    relation = _ORDER.match(text, first.end)
    second = _date_or_year(text, relation.end()) if relation else None
    if relation is None or second is None or not is_filler(text[second.end :]):
        return None
    if bool(first.month) != bool(second.month) and first.year == second.year:
        return None
    if not all(d.month == 0 or d.exists for d in (first, second)):
        return None
    first_day, second_day = _first_day(first), _first_day(second)
    earlier = relation["how"].lower().startswith(("before", "earlier"))
    holds = first_day < second_day if earlier else first_day > second_day
    return _verdict(
        text,
        holds,
        f"{first.year} and {second.year} in this order" if holds else "the order is reversed",
        start,
        second.end,
    )
