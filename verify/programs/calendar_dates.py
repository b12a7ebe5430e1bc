"""Dates as they are written, the days between them, and their weekdays in the Gregorian and the Julian calendar.

Day numbers are Julian day numbers, by the integer formulas of Fliegel and Van Flandern (1968), "A Machine Algorithm for
Processing Calendar Dates", Communications of the ACM 11(10), in a form for both calendars.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_MONTH = "|".join([*MONTHS, *(m[:3] for m in MONTHS if len(m) > 3), "Sept"])
_YEAR = r"[0-9]{3,4}(?![0-9]|[.,:/-][0-9]|\s?(?:BC|B\.C|BCE|AH|%))"
_DAY = r"[0-9]{1,2}(?:st|nd|rd|th)?"
DATE = re.compile(
    rf"(?<![\w./:-])(?:"
    rf"(?P<d1>{_DAY})(?:\s+of)?\s+(?P<m1>{_MONTH})\b\.?,?\s+(?P<y1>{_YEAR})"
    rf"|(?P<m2>{_MONTH})\b\.?\s+(?P<d2>{_DAY}),?\s+(?P<y2>{_YEAR})"
    rf"|(?P<y3>[0-9]{{4}})-(?P<m3>[0-9]{{2}})-(?P<d3>[0-9]{{2}})(?![0-9-])"
    rf")"
)
"""A whole date: "1 January 2000", "January 1st, 2000", "the 1st of January 2000" without its article, "2000-01-01"."""


class Date(NamedTuple):
    """A date as it is written; it need not exist.

    Attributes:
        year: Of the common era.
        month: 1 to 12, or whatever two digits say.
        day: As written.
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
        """Whether either calendar has it."""
        return 1 <= self.month <= 12 and 1 <= self.day <= longest(self.year, self.month)

    @property
    def shown(self) -> str:
        """The date in plain form."""
        return f"{self.day} {MONTHS[self.month - 1]} {self.year}" if 1 <= self.month <= 12 else "no month"


def dates_of(text: str) -> Iterator[Date]:
    """The whole dates of a text, in order."""
    for match in DATE.finditer(text):
        yield date_of(match)


def date_of(match: re.Match[str]) -> Date:
    """The date that a match of `DATE` is."""
    month = match["m1"] or match["m2"]
    number = month_number(month) if month else int(match["m3"])
    day = re.sub(r"[a-z]+", "", match["d1"] or match["d2"] or match["d3"])
    year = int(match["y1"] or match["y2"] or match["y3"])
    return Date(year, number, int(day), match.start(), match.end())


def month_number(name: str) -> int:
    """1 to 12, of a month's name or its first three letters."""
    return next(i for i, month in enumerate(MONTHS, 1) if month.startswith(name[:3]))


def is_leap(year: int, *, julian: bool = False) -> bool:
    """Whether a year has 366 days."""
    return year % 4 == 0 and (julian or year % 100 != 0 or year % 400 == 0)


def longest(year: int, month: int) -> int:
    """The most days that a month may have had: in the Julian calendar too, which some used until 1923.

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
