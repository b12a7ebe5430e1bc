r"""Numerals in text and their values: exact fractions, never floats.

Recognised are integers and decimals with thousands separators (`1,000`, `1{,}000`, `1\,000`, `1'000`, no-break and thin
spaces), signs, currencies, percent, `3/4`, `1 3/4`, `\frac{3}{4}`, `\frac34`, `1.2e5` and `1.2 \times 10^{5}`.

Ambiguous commas and points: a comma before exactly three digits separates thousands (`1,000` is 1000), any
other single comma between digits is a decimal comma (`1,5` is 1.5) unless a list continues (`1,2,3` are three numbers);
a point is a decimal point (`1.000` is 1), except before a decimal comma (`1.000,5` is 1000.5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

# ruff: noqa: RUF001 (typographic signs of numbers are meant)


MAX_DIGITS = 400
"""Maximum digits of a number; a longer run is noise."""

_SEPARATOR = r"(?:,(?:\\!)?|\{,\}|\\[,!]|['’\u00a0\u2009\u202f])"
_THOUSANDS = rf"[0-9]{{1,3}}(?:{_SEPARATOR}[0-9]{{3}})+(?![0-9])"
_CONTINENTAL = r"[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]{1,6}(?![0-9,])"
_DECIMAL_COMMA = r"(?<![0-9],)[0-9]{1,12},(?:[0-9]{1,2}|[0-9]{4,12})(?![0-9]|,[0-9])"
_PLAIN = r"[0-9]+(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+"
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\w)\]}}.])[-+–−])?                      # a minus between two terms is no sign
    (?P<currency>\\?\$|[€£¥₹₩])?[ ]?
    (?<![A-Za-z_])(?<![0-9]\.)
    (?:
      \\[dtc]?frac[ ]?(?:\{{[ ]?(?P<sign_up>[-−]?)(?P<up>[0-9]+)[ ]?\}}[ ]?\{{[ ]?(?P<low>[0-9]+)[ ]?\}}
                     |(?P<up1>[0-9])(?P<low1>[0-9]))
    |
      (?P<body>{_CONTINENTAL}|{_THOUSANDS}(?:\.[0-9]+)?|{_DECIMAL_COMMA}|{_PLAIN})
      (?:
        [eE](?P<exponent>[-+]?[0-9]{{1,4}})(?!\w)
      |
        [ ]?(?:×|x|\*|\\times|\\cdot)[ ]?10[ ]?(?:\^[ ]?|\*\*)\{{?[ ]?(?P<power>[-−+]?[0-9]{{1,4}})(?![0-9])[ ]?\}}?
      |
        [ ]?(?:/|⁄)[ ]?(?P<denominator>[0-9]+)(?![0-9]|\.[0-9]|[ ]?/)
      |
        [ ](?P<mixed_up>[0-9]{{1,6}})[ ]?/[ ]?(?P<mixed_low>[0-9]{{1,6}})(?![0-9/])
      )?
    )
    (?P<percent>[ ]?(?:\\?%|percent\b|per[ ]cent\b|pct\b))?
    """,
    re.VERBOSE,
)
_NOT_DIGIT = re.compile(r"[^0-9]+")


@dataclass(frozen=True, slots=True)
class Numeral:
    """A written number.

    Attributes:
        value: Exact value; a percentage is a hundredth of the written number.
        text: Plain form: no separators, no currency, `3/4` for any fraction, with `%`.
        start: First character in the searched text, sign and currency included.
        end: One past the last.
        decimals: Digits after the decimal mark; None if it is written exactly (an integer or a fraction).
    """

    value: Fraction
    text: str
    start: int
    end: int
    decimals: int | None = None

    @property
    def percent(self) -> bool:
        """Whether it is written as a percentage."""
        return self.text.endswith("%")


def find_numerals(text: str, start: int = 0, end: int | None = None) -> Iterator[Numeral]:
    """All numbers of a text, in order. Linear in the text's length.

    Args:
        text: Any text, digits in ASCII (`normalization.normalize_characters`).
        start: Start of the search.
        end: End of the search; None is the end of the text.
    """
    for match in _NUMBER.finditer(text, start, len(text) if end is None else end):
        numeral = _numeral(match)
        if numeral is not None:
            yield numeral


def parse_numeral(text: str) -> Numeral | None:
    """The number that the complete text is, without surrounding blanks; None if it is anything else."""
    stripped = text.strip()
    if len(stripped) > 2 * MAX_DIGITS:
        return None
    match = _NUMBER.fullmatch(stripped)
    return _numeral(match) if match else None


def _numeral(match: re.Match[str]) -> Numeral | None:
    if match.end() - match.start() > 2 * MAX_DIGITS:
        return None
    up, low = match["up"] or match["up1"], match["low"] or match["low1"]
    minus = "-" if (match["sign"] or "") in {"-", "−", "–"} else ""
    decimals: int | None = None
    if up is not None:
        minus = "" if minus and match["sign_up"] else minus or ("-" if match["sign_up"] else "")
        return _finish(match, minus, f"{up}/{low}", _ratio(up, low), None)
    integer, fraction = _integer_and_fraction(match["body"])
    value = Fraction(int(integer or "0")) + (Fraction(int(fraction), 10 ** len(fraction)) if fraction else 0)
    text = f"{integer or '0'}.{fraction}" if fraction else integer
    if fraction:
        decimals = len(fraction)
    power = match["exponent"] or match["power"]
    if power is not None:
        shift = int(power.replace("−", "-"))
        return _finish(match, minus, f"{text}e{shift}", value * Fraction(10) ** shift, (decimals or 0) - shift)
    if match["denominator"] is not None:
        below = _ratio("1", match["denominator"])
        return _finish(match, minus, f"{text}/{match['denominator']}", below and value * below, None)
    if match["mixed_up"] is not None:
        part = _ratio(match["mixed_up"], match["mixed_low"])
        mixed = f"{text} {match['mixed_up']}/{match['mixed_low']}"
        return _finish(match, minus, mixed, None if part is None or fraction else value + part, None)
    return _finish(match, minus, text, value, decimals)


def _ratio(up: str, low: str) -> Fraction | None:
    return Fraction(int(up), int(low)) if int(low) else None


def _integer_and_fraction(body: str) -> tuple[str, str]:
    """Digits before and after the decimal mark."""
    if re.fullmatch(_CONTINENTAL, body) or re.fullmatch(_DECIMAL_COMMA, body):
        integer, _, fraction = body.rpartition(",")
    else:
        integer, _, fraction = body.partition(".")
    return _NOT_DIGIT.sub("", integer), fraction


def _finish(
    match: re.Match[str], minus: str, text: str, value: Fraction | None, decimals: int | None
) -> Numeral | None:
    if value is None or len(text) > MAX_DIGITS:
        return None
    if match["percent"]:
        value, text = value / 100, f"{text}%"
        decimals = None if decimals is None else decimals + 2
    return Numeral(-value if minus else value, minus + text, match.start(), match.end(), decimals)
