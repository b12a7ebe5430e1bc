"""Quantities in texts: their normalised values, and which of them are equal or comparable."""

from __future__ import annotations

import datetime
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.verify.programs.dates import MONTHS
from reason.verify.programs.quantities import comparable, equal, quantities

EQUAL = [
    ("1.5 km", "1500 m"), ("12 June 1926", "June 12, 1926"), ("12 June 1926", "1926-06-12"),
    ("June 1926", "12 June 1926"), ("in 1926", "12 June 1926"), ("the 1920s", "12 June 1926"),
    ("the 20th century", "12 June 1926"), ("12/06/1926", "12 June 1926"), ("12/06/1926", "6 December 1926"),
    ("half past nine", "9:30"), ("9:30", "9.30 am"), ("half past nine", "21:30"), ("quarter to ten", "9:45 pm"),
    ("nine o'clock", "9 am"), ("noon", "12:00"), ("three dozen", "36"), ("half a dozen", "6"),
    ("half a million", "500,000"), ("two and a half hours", "150 minutes"), ("half an hour", "30 minutes"),
    ("1 hour and 30 minutes", "90 minutes"), ("2½ hours", "150 minutes"), ("£450", "450 pounds"),
    ("£5m", "5 million pounds"), ("50p", "£0.50"), ("$3.5 million", "$3,500,000"), ("5 %", "5 percent"),
    ("20%", "one in five"), ("three quarters of", "75%"), ("9 out of 10", "90%"), ("100 degrees Celsius", "212 °F"),
    ("a 12-metre bridge", "12 m"), ("2 kWh", "7.2 MJ"), ("v2.4.1", "version 2.4.1"), ("over 300 m", "330 m"),
    ("up to 12", "10"), ("about 50", "48"), ("1.5 million", "1,503,220"), ("5 km", "3.1 miles"),
    ("two hundred and five thousand", "205,000"), ("the third", "the 3rd"), ("44 BC", "44 BCE"),
    ("6 feet 2 inches", "188 cm"),
    ("after 1930", "12 June 1986"), ("before 2000", "in 1986"), ("since 1930", "1930"), ("by June 1986", "2 May 1986"),
    ("around 1930", "1932"),
]  # fmt: skip
DIFFERENT = [
    ("1.5 km", "1600 m"), ("12 June 1926", "13 June 1926"), ("June 1926", "12 July 1926"), ("in 1926", "1927-06-12"),
    ("9:30", "9:45"), ("9 am", "9 pm"), ("three dozen", "35"), ("£450", "450 euros"), ("£450", "£540"),
    ("5 %", "15 %"), ("over 300 m", "250 m"), ("up to 12", "15"), ("about 50", "70"), ("1.5 million", "1,703,220"),
    ("v2.4.1", "v2.4.2"), ("version 3.10", "version 3.1"), ("the third", "the 4th"), ("44 BC", "45 BC"),
    ("330 m", "331 m"),
    ("after 1930", "in 1926"), ("before 1930", "in 1986"), ("around 1930", "1950"), ("by June 1986", "2 July 1986"),
]  # fmt: skip
INCOMPARABLE = [
    ("5 %", "0.05"), ("12 June", "1926"), ("5 km", "5 kg"), ("9:30", "930"), ("5 km", "5"), ("£5", "5 kg"),
    ("the 3rd", "3"),
]  # fmt: skip
NOTHING = [
    "", "no one", "one of them", "May I?", "Paris is in France.", "A4", "3D", "10^6", "a second", "second to none",
]  # fmt: skip


def one(text: str):
    (quantity,) = quantities(text)
    return quantity


@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_same_quantities_are_equal(a: str, b: str) -> None:
    assert comparable(one(a), one(b))
    assert equal(one(a), one(b))
    assert equal(one(b), one(a))


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different_quantities_are_comparable_but_not_equal(a: str, b: str) -> None:
    assert comparable(one(a), one(b))
    assert not equal(one(a), one(b))
    assert not equal(one(b), one(a))


@pytest.mark.parametrize(("a", "b"), INCOMPARABLE)
def test_quantities_of_different_dimensions_are_not_comparable(a: str, b: str) -> None:
    assert not comparable(one(a), one(b))
    assert not equal(one(a), one(b))


@pytest.mark.parametrize("text", NOTHING)
def test_words_that_are_no_quantities(text: str) -> None:
    assert quantities(text) == []


def test_quantities_are_found_in_order_with_their_positions() -> None:
    text = "On 12 June 1926, over 1,200 people paid £2.50 to cross the 330 m bridge; 45 % came at 9:30."
    found = quantities(text)
    assert [text[q.start : q.end] for q in found] == [q.text for q in found]
    assert [q.text for q in found] == ["12 June 1926", "1,200", "£2.50", "330 m", "45 %", "9:30"]
    assert [q.dimension for q in found] == ["date", "number", "money", "length", "share", "time of day"]
    assert [q.bound for q in found] == ["exact", "at least", "exact", "exact", "exact", "exact"]


@pytest.mark.parametrize(
    ("text", "first"),
    [("10 to 15 km", "10 km"), ("10-15 km", "10 km"), ("12-14 June 1926", "12 June 1926"), ("5 to 8 percent", "5%")],
)
def test_ranges_share_their_unit(text: str, first: str) -> None:
    low, high = quantities(text)
    assert equal(low, one(first))
    assert comparable(low, high)
    assert not equal(low, high)


def test_a_year_may_be_a_count() -> None:
    assert one("1926 visitors").dimension == "number"
    assert one("built in 1926").dimension == "date"
    assert one("1926").dimension == "date"
    assert comparable(one("1926"), one("1926 visitors"))


def test_amounts_are_in_the_first_unit_of_their_dimension() -> None:
    assert [one(text).value for text in ("2 km", "90 minutes", "5 %", "half past nine", "2 years")] == [
        2000,
        5400,
        Fraction(1, 20),
        570,
        2 * 365 * 86_400,
    ]
    assert one("12 June 1926").value == {"year": 1926, "decade": 192, "century": 20, "month": 6, "day": 12}


@settings(deadline=None)
@given(st.dates(datetime.date(1000, 1, 1), datetime.date(2199, 12, 31)))
def test_a_date_is_the_same_in_every_form(date: datetime.date) -> None:
    month = MONTHS[date.month - 1]
    forms = [
        f"{date.day} {month} {date.year}",
        f"{month} {date.day}, {date.year}",
        date.isoformat(),
        f"{date.day}/{date.month}/{date.year}",
        f"{month} {date.year}",
    ]
    assert all(equal(one(a), one(b)) for a in forms for b in forms)
    other = date + datetime.timedelta(days=1)
    assert not equal(one(forms[0]), one(other.isoformat()))


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_plain_numbers_are_equal_only_if_their_values_are(a: int, b: int) -> None:
    assert equal(one(f"{a:,} tonnes"), one(f"{b} tonnes")) is (a == b)
    assert equal(one(f"{a} km"), one(f"{1000 * b} m")) is (a == b) or abs(a - b) * 20 <= max(a, b)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_no_text_is_too_strange(text: str) -> None:
    found = quantities(text + "\ud800")
    assert all(q.values and text[q.start : q.end] == q.text for q in found if q.end <= len(text))
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert all(equal(q, q) for q in found)


@pytest.mark.parametrize(
    "unit", ["9", "1,", "1/", "two hundred and ", "one in ", "half of ", "½", "£", "January 1, ", "5 ft "]
)
def test_reading_is_linear(unit: str) -> None:  # what is not runs into the limit of every test
    quantities(unit * (60_000 // len(unit)))
