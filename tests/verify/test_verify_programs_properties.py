"""What holds of all claims that a program checks: right ones hold, wrong ones do not, no text is too strange."""

from __future__ import annotations

import datetime
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reason.verify.programs.checker import check_claim
from reason.verify.programs.dates import MONTHS, WEEKDAYS, Date, day_number, is_leap, weekday

SMALL = st.integers(1, 10_000)
SIGNS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
WORDS = {"plus": "+", "minus": "-", "times": "*", "multiplied by": "*"}
SOUP_WORDS = (
    "3 18 54 1/2 0.5 15% % of half is are = ≈ + - * / ( ) and the sum product about January May 31 30 2000 1914 from to"
    " Saturday more less than between dozen prime XIV increased by 9:30 pm average £5 before after"
    " was born in died at aged km m °C °F mile an hour not years , . ^ ² million two twenty square"
)
SOUP = st.lists(st.sampled_from(SOUP_WORDS.split()), max_size=25).map(" ".join)


def holds(claim: str) -> bool | None:
    verdict = check_claim(claim)
    return None if verdict is None else verdict.holds


@settings(deadline=None)
@given(SMALL, SMALL, st.sampled_from([*SIGNS, *WORDS]), st.integers(-50, 50))
def test_equations(a: int, b: int, sign: str, off: int) -> None:
    result = SIGNS[WORDS.get(sign, sign)](a, b)
    assume(result >= 0 and result + off >= 0)
    relation = "=" if sign in SIGNS else "is"
    assert holds(f"{a} {sign} {b} {relation} {result}") is True
    if off:
        assert holds(f"{a} {sign} {b} {relation} {result + off}") is False
        assert holds(f"It costs {a:,} {sign} {b:,} = {result + off:,} dollars.") is False


@settings(deadline=None)
@given(st.integers(1, 99), st.integers(1, 500), st.integers(1, 9))
def test_percentages(percent: int, base: int, off: int) -> None:
    exact = Fraction(percent * base, 100)
    shown = f"{float(exact):.2f}"
    assert holds(f"{percent}% of {base} is {shown}") is True
    assert holds(f"{shown} is {percent} percent of {base}") is True
    assert holds(f"{percent}% of {base} is {float(exact) + off:.2f}") is False


@settings(deadline=None)
@given(st.dates(datetime.date(1924, 1, 1), datetime.date(2200, 12, 31)), st.integers(0, 6))
def test_weekdays(date: datetime.date, shift: int) -> None:
    name = WEEKDAYS[(date.weekday() + shift) % 7]
    month = MONTHS[date.month - 1]
    assert holds(f"{date.day} {month} {date.year} was a {name}") is (shift == 0)
    assert holds(f"They met on {name}, {month} {date.day}, {date.year}.") is (shift == 0)


@settings(deadline=None)
@given(st.dates())
def test_day_numbers_are_those_of_the_calendar(date: datetime.date) -> None:
    assert day_number(date.year, date.month, date.day) == date.toordinal() + 1721425
    assert weekday(Date(date.year, date.month, date.day, 0, 1)) == WEEKDAYS[date.weekday()]


def test_the_calendars_meet() -> None:
    assert day_number(1582, 10, 4, julian=True) + 1 == day_number(1582, 10, 15)
    assert [is_leap(y) for y in (1900, 2000, 2023, 2024)] == [False, True, False, True]
    assert is_leap(1900, julian=True)


@settings(deadline=None)
@given(st.integers(1, 5000), st.sampled_from([("km", "m", 1000), ("hours", "minutes", 60), ("kg", "grams", 1000),
       ("weeks", "days", 7), ("feet", "inches", 12), ("m/s", "km/h", Fraction(18, 5)), ("MiB", "KiB", 1024)]),
       st.integers(1, 9))  # fmt: skip
def test_conversions(value: int, units: tuple[str, str, Fraction], off: int) -> None:
    small, large, factor = units
    exact = value * Fraction(factor)
    shown = str(exact) if exact.denominator == 1 else f"{float(exact):.1f}"
    assert holds(f"{value} {small} is {shown} {large}") is True
    assert holds(f"{shown} {large} is {value} {small}") is True
    wrong = f"{float(exact) * (1 + off):.1f}"
    assert holds(f"{value} {small} is {wrong} {large}") is False


@settings(deadline=None)
@given(st.integers(1000, 2000), st.integers(2, 90))
def test_ages(birth: int, years: int) -> None:
    said = f"Vogt was born in {birth} and died in {birth + years} at the age of "
    assert holds(f"{said}{years}.") is True
    assert holds(f"{said}{years - 1}.") is True
    assert holds(f"{said}{years + 1}.") is False
    assert holds(f"{said}{years - 2}.") is False if years > 2 else True


@settings(deadline=None)
@given(st.integers(1, 99), st.integers(1, 99), st.integers(1, 99), st.integers(1, 99))
def test_comparisons_of_fractions(a: int, more: int, c: int, more_too: int) -> None:
    b, d = a + more, c + more_too
    left, right = Fraction(a, b), Fraction(c, d)
    assert holds(f"{a}/{b} is more than {c}/{d}") is (left > right)
    assert holds(f"{a}/{b} is smaller than {c}/{d}.") is (left < right)
    assert holds(f"{a} km is longer than {c} miles") is (a * 1000 > c * Fraction(1609344, 1000))


@settings(deadline=None)
@given(st.integers(0, 1439), st.integers(1, 1438), st.integers(2, 600))
def test_hours_between_times(start: int, length: int, off: int) -> None:
    end = (start + length) % 1440
    times = f"{start // 60:02}:{start % 60:02}", f"{end // 60:02}:{end % 60:02}"
    assume(all(not "10" <= time[:2] <= "12" for time in times))  # those may be in the afternoon
    assert holds(f"From {times[0]} to {times[1]} is {length} minutes") is True
    assume(length + off < 1440)
    assert holds(f"From {times[0]} to {times[1]} is {length + off} minutes") is False


@settings(deadline=None)
@given(st.dates(datetime.date(1924, 1, 1), datetime.date(2200, 12, 31)), st.integers(2, 9999), st.integers(-50, 50))
def test_days_between_dates(first: datetime.date, days: int, off: int) -> None:
    second = first + datetime.timedelta(days=days)
    assume(second.year <= 2999 and days + off > 0 and off not in (-1, 1))
    claim = f"{first.isoformat()} is {days + off} days before {second.isoformat()}"
    assert holds(claim) is (off == 0)
    assert holds(f"There are {days + off} days between {first.isoformat()} and {second.isoformat()}") is (off == 0)


@settings(deadline=None)
@given(st.integers(0, 5000), st.integers(1, 5000))
def test_properties_of_integers(a: int, b: int) -> None:
    assert holds(f"{a} is a prime number") is (a > 1 and all(a % i for i in range(2, a)))
    assert holds(f"{a} is an odd number") is (a % 2 == 1)
    assert holds(f"{a} is divisible by {b}") is (a % b == 0)


@settings(deadline=None)
@given(st.integers(1, 3999), st.integers(1, 3999))
def test_roman_numerals(number: int, other: int) -> None:
    parts = zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        ("M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"),
        strict=True,
    )
    roman, rest = "", number
    for value, letters in parts:
        roman, rest = roman + letters * (rest // value), rest % value
    assert holds(f"The Roman numeral {roman} is {other}") is (number == other)
    assert holds(f"{number} is {roman} in Roman numerals") is True


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=200), SOUP))
def test_no_text_is_too_strange(text: str) -> None:
    verdict = check_claim(text)
    assert check_claim(text + "\ud800") == check_claim(text + "?")
    if verdict is not None:
        assert 0 <= verdict.start < verdict.end <= len(text)
        assert text[verdict.start : verdict.end].strip()


@settings(max_examples=200, deadline=None)
@given(SOUP)
def test_a_denial_silences(text: str) -> None:
    if "leap year" not in text:
        assert check_claim(f"It is not true that {text}") is None


@pytest.mark.parametrize(
    "unit", ["9", "(", "1+", "half of ", "2 is ", "January ", "-", "^", "a ", "1 km (", "in ", "1,", "\\frac"]
)
@pytest.mark.parametrize("size", [1_900, 1_000_000])
def test_hostile_text_is_no_claim(unit: str, size: int) -> None:  # what does not end runs into the limit of every test
    assert check_claim(unit * (size // len(unit))) is None
