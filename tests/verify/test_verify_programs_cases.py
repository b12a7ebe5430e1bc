"""Claims that a program can check, and those that it must leave alone."""

from __future__ import annotations

import pytest
from reason.verify.programs.checker import ProgramVerdict, check_claim

HOLDS = [
    "3 * 18 = 54", "So 3 × 18 = 54.", "15% of 80 is 12", "12 is 15% of 80.", "half of 90 is 45",
    "Half of 90 equals 45.", "two plus two is four", "The sum of 3, 4 and 5 is 12.", "The product of 3 and 18 is 54.",
    "7 squared is 49", "The square root of 144 is 12", "A third of 100 is about 33.", "10 / 3 ≈ 3.33",
    "20 out of 80 is 25%", "two thirds of 90 is 60", "twice 21 is 42", "2 to the power of 10 is 1,024",
    "100 divided by 8 is 12.5", "The difference between 4 and 10 is 6", "1.5 million plus 500,000 is 2,000,000",
    "1 January 2000 was a Saturday.", "January 1st, 2000 was a Saturday", "2024-02-29 was a Thursday",
    "2000 was a leap year", "1900 was not a leap year.", "From 1914 to 1918 is 4 years.",
    "Between 1990 and 2010 there are 20 years.", "1912 was before 1914", "3 May 1990 was after 2 May 1990",
    "14 October 1066 was a Saturday.", "April has 30 days.", "5 km is 5000 m", "100 °C is 212 °F",
    "a mile is about 1.609 km", "A mile is 1.609 km.", "One hour has 60 minutes.", "There are 24 hours in a day.",
    "1 GB is 1024 MB", "1 GB is 1000 MB", "1 hectare is 10,000 square metres", "60 mph is 96.56 km/h",
    "1 litre is 1000 cubic centimetres", "A pound is 453.59237 grams.", "-40 °C is -40 °F", "0 °C is 273.15 K",
    "A gallon is about 3.785 litres", "A gallon is about 4.546 litres", "A century is 100 years.", "1 byte is 8 bits",
    "36 km/h is 10 m/s", "A year is 365 days.", "A foot is 12 inches.",
    "3/4 is more than 2/3", "0.5 is greater than 0.45", "7 is less than 9.", "1 mile is longer than 1 km",
    "20 °C is warmer than 60 °F", "Half is more than a third", "1/2 is equal to 50%", "0.25 is 25%",
    "1/4 equals 0.25", "5 dozen is 60", "2.5 million is 2,500,000", "5 feet 10 inches is about 178 cm",
    "3 hours and 20 minutes is 200 minutes", "£450 is 45,000 pence", "one in five is 20%",
    "12 apples plus 7 apples is 19 apples.", "12 apples and 7 apples are 19 apples", "3 is between 1 and 5",
    "From 9:00 to 17:30 is 8.5 hours", "From 9 am to 5 pm is 8 hours.", "9:00 to 17:30 is 8 hours and 30 minutes",
    "From 22:00 to 6:00 is 8 hours", "There are 30 days between 1 June 2024 and 1 July 2024.",
    "From 1 March 2024 to 15 March 2024 is 2 weeks", "12 June 1926 is 3 days before 15 June 1926",
    "1926 is 98 years before 2024", "XIV is 14", "The Roman numeral XIX is 19", "In Roman numerals, 14 is XIV",
    "17 is a prime number", "8 is an even number.", "15 is divisible by 5", "5 is a factor of 10",
    "10 factorial is 3628800", "5! is 120", "The average of 4, 6 and 8 is 6.", "50 increased by 10% is 55",
    "80 reduced by 25% is 60", "20% of £50 is £10", "the greatest common divisor of 12 and 18 is 6",
    "two hundred and fifty is half of five hundred", "100 degrees Celsius is 212 degrees Fahrenheit",
    "1 kWh is 3.6 MJ.", "1 bar is 100 kPa",
]  # fmt: skip
FAILS = [
    "3 * 18 = 55", "15% of 80 is 13", "half of 90 is 46", "Two plus two is five.", "The sum of 3, 4 and 5 is 13.",
    "20 out of 80 is 30%", "10 / 4 = 3.6", "2 to the power of 10 is 1,000", "12 is 20% of 80",
    "1 January 2000 was a Sunday", "1900 was a leap year.", "2000 was not a leap year",
    "From 1914 to 1918 is 7 years.", "1916 was before 1914.", "April has 31 days", "February has 30 days",
    "5 km is 5001 m", "100 °C is 210 °F", "A mile is about 3 km.", "There are 25 hours in a day.", "1 kg is 100 grams",
    "1 GB is 500 MB", "60 mph is 40 km/h", "1 byte is 10 bits", "A century is 10 years.",
    "2/3 is more than 3/4", "1 km is longer than 1 mile", "0.25 is 20%", "one in five is 25%", "$5 is 400 cents",
    "half is 40%", "12 apples plus 7 apples is 20 apples", "6 is between 2 and 4", "from 9:00 to 17:30 is 9 hours",
    "From 9 am to 5 pm is 10 hours", "From 1 March 2024 to 15 March 2024 is 20 days",
    "12 June 1926 is 3 days after 15 June 1926", "1926 is 90 years before 2024", "The Roman numeral XIV is 15",
    "15 is prime", "1 is prime", "100 is a multiple of 7", "5! is 125", "The average of 4, 6 and 8 is 7",
    "50 increased by 10% is 60", "20% of £50 is £12", "two hundred and fifty is half of 600",
]  # fmt: skip
PARTS = [
    ("Tom has 3 * 18 = 54 marbles.", True, "3 * 18 = 54"),
    ("Tom has 3 * 18 = 55 marbles.", False, "3 * 18 = 55"),
    ("Apollo 11 landed on Sunday, 20 July 1969.", True, "Sunday, 20 July 1969"),
    ("Apollo 11 landed on Monday, 20 July 1969.", False, "Monday, 20 July 1969"),
    ("She left on 30 February 2001.", False, "30 February 2001"),
    ("She left on 29 February 2023.", False, "29 February 2023"),
    ("On April 31, he resigned.", False, "April 31"),
    ("Einstein was born in 1879 and died in 1955 at 76.", True, "born in 1879 and died in 1955 at 76"),
    ("Vogt was born in 1879 in Ulm and died in 1955, aged 70.", False, "born in 1879 in Ulm and died in 1955, aged 70"),
    ("Vogt was born on 14 March 1879 and died on 18 April 1955 at the age of 75.", False, None),
    ("Vogt was born in 1955 and died in 1879.", False, "born in 1955 and died in 1879"),
    ("The war lasted 30 years, from 1618 to 1648.", True, "lasted 30 years, from 1618 to 1648"),
    ("The tower stands 330 m (1,083 ft) tall.", True, "330 m (1,083 ft"),
    ("The tower stands 330 m (1,500 ft) tall.", False, "330 m (1,500 ft"),
    ("Water boils at 100 °C (212 °F).", True, "100 °C (212 °F"),
    ("A warming of 1.5 °C (2.7 °F) was measured.", True, "1.5 °C (2.7 °F"),
]
SILENT = [
    "", "Paris is in France.", "2 + 2 is not 5", "It is false that 2 + 2 = 5.", "If 2 + 2 = 5, pigs fly.",
    "1 + 1 = 10 in binary", 'The slogan "2 + 2 = 5" is famous.', "10 + 4 = 2 on a clock",
    "Some believe that 3 * 3 = 6.", "x + 2 = 6", "100 / 3 = 33", "A third of 100 is 33.", "7 / 2 = 3",
    "half of the people is 45", "Half of 90 patients are 45 years old", "On Mars a day is 24.6 hours.",
    "In the race, a day is 20 minutes.", "A dog's year is 7 years.", "5 is 4 miles away", "100 miles is 160 km",
    "1 month is 4 weeks", "A ton is 1000 kg or so", "5 m is 5 million", "6 feet 2 inches is 188 cm",
    "A pound is 100 pence.", "10 to 20 km (6 miles) away", "He took a 12 months (2 years) loan.",
    "It may be that 5 km is 3 m.", "The day after 1 January 2000 was a Sunday.",
    "4 July 1776 was a Sunday in the Julian calendar", "23 April 1616 was a Tuesday", "From 1914 to 1918 is 5 years.",
    "The war lasted 6 years, from 1939 to 1944.", "In June 31 ships sank.", "30 February 1712 was cold.",
    "29 February 1900 was a Tuesday in Russia.", "Plato was born in 428 BC and died in 348 BC at 80.",
    "He was born in 1950 and his son died in 1940.", "There is no 30 February 2001.", "Is 2 + 2 = 5?",
    "1912 was before the war of 1914", "He died at 76.", "What is 15% of 80?", "A second is a minute",
    "He weighed 7 lb, 7 oz (3.373 kg).",
    "Chapter 12 is 15% of 80 pages", "Version 3.10 is after 3.9", "12 is 15% of 80 million", "3 plus 4 times x is 9",
    "It was 5 degrees warmer (9 °F)", "two and a half plus one is three", "Black Friday 26 May 1988 failed.",
    "5 is less than 10 miles", "10 is more than 5 people can handle", "2022 is higher than 2023",
    "9 is higher than 10 on the list", "5 percent is less than 10", "9:30 is between 9 am and 10 am",
    "9 to 5 is 8 hours", "12 men and 7 women are 19 people", "10 km and 5 miles is 18.05 km",
    "10 °C and 5 °C is 15 °C", "33% is 1/3", "1/2 is 50", "50% is 50", "5 dollars is 5 pounds",
    "5 pounds is more than 4 euros", "A dozen is 13", "From Monday 9:00 to Tuesday 10:00 is 25 hours",
    "From 9:00 to 9:30 is 24.5 hours", "The flight from 9:00 to 17:30 takes 8 hours",
    "From 1 March 2024 to 15 March 2024 is 15 days", "From 1 March 1750 to 15 March 1760 is 3 days",
    "1926 is 97 years before 2024", "XL is 42", "XIV is 15", "8 is odd", "Sales of 50 increased by 10% is 55",
    "The average of 4 and 6 years is 5", "3 kg is longer than 2 kg", "1 billion is 1,000,000 million",
    "17 is not a prime number", "version 3.10 is less than version 3.9",
]  # fmt: skip


def test_the_table_is_large_enough() -> None:
    assert len(HOLDS) + len(FAILS) + len(PARTS) >= 60


@pytest.mark.parametrize("claim", HOLDS)
def test_right_claims_hold(claim: str) -> None:
    verdict = check_claim(claim)
    assert verdict is not None
    assert (verdict.holds, verdict.is_complete) == (True, True)


@pytest.mark.parametrize("claim", FAILS)
def test_wrong_claims_do_not(claim: str) -> None:
    verdict = check_claim(claim)
    assert verdict is not None
    assert not verdict.holds
    assert verdict.detail


@pytest.mark.parametrize(("claim", "holds", "part"), PARTS)
def test_a_part_of_a_claim_is_checked_and_shown(claim: str, holds: bool, part: str | None) -> None:
    verdict = check_claim(claim)
    assert verdict is not None
    assert (verdict.holds, verdict.is_complete) == (holds, False)
    assert part is None or claim[verdict.start : verdict.end] == part


@pytest.mark.parametrize("claim", SILENT)
def test_in_doubt_nothing_is_said(claim: str) -> None:
    assert check_claim(claim) is None


def test_a_wrong_part_outweighs_a_right_one() -> None:
    verdict = check_claim("On Sunday, 20 July 1969 he counted 3 * 18 = 55 stones.")
    assert verdict is not None
    assert not verdict.holds


def test_a_verdict_has_a_part() -> None:
    with pytest.raises(ValueError, match="before it begins"):
        ProgramVerdict(holds=True, detail="", start=3, end=3)
