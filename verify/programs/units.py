"""Conversions of units that a claim states: "5 km is 5000 m", "a day has 24 hours", "100 °C (212 °F)".

Factors are exact (`quantities.py`); a stated number may be the exact one, rounded at the precision shown. What may be
meant otherwise is not judged: anything else in the sentence but a conversion, roughly right numbers, other meanings.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from ...reasoning.reading import plain_characters
from .quantities import Meaning, Quantity, read_quantity
from .verdict import ProgramVerdict
from .wording import MAX_CHARS, doubtful, quoted, says_nothing

_MATCHED = re.compile(r"[0-9]|\b(?:an?|one|in)\b", re.IGNORECASE)
_IS = re.compile(
    r"\s*(?:(?:is|are)\s+equal\s+to|equals|is|are|makes?|corresponds?\s+to|converts?\s+to|(?:has|have|contains?)"
    r"|(?P<near>[=≈]))(?:\s+(?P<about>about|approximately|roughly|around|nearly|almost)(?=\s)|\s+exactly(?=\s))?\s*",
    re.IGNORECASE,
)
_THERE_ARE = re.compile(
    r"there\s+are\s+(?P<about>(?:about|approximately|roughly|around)\s+|exactly\s+)?", re.IGNORECASE
)
_IN = re.compile(r"\s+in\s+", re.IGNORECASE)
_OPENING = re.compile(r"\s*\(\s*(?P<about>(?:about|approximately|approx\.?|roughly|around|ca\.|c\.|~|≈|or|=)\s*)?")
_START = re.compile(r"(?<![\w.,/-])(?=[0-9])")
_JOINED = re.compile(r"(?:[\w)]|[0-9][^\w\s]?|[-–—×/+])\s*$")  # noqa: RUF001 (dashes)
_BEFORE = re.compile(
    r"(?:^|[,;:.(]|\b(?:of|is|was|are|were|about|at|to|by|in|for|over|than|reaches|measures|weighs|stands|covers"
    r"|has|spans|"
    r"runs|nearly|approximately|around|roughly|some|only|and|with|from|the|an?|travels|boils|freezes|melts))\s*$",
    re.IGNORECASE,
)
_BY = re.compile(r"\b(?:by|to|and|from|between|or|than)\s*$", re.IGNORECASE)
_DIFFERENCE = re.compile(
    r"\b(?:difference|ris\w*|rose|increas\w*|decreas\w*|warm\w*|cool\w*|drop\w*|fall\w*|fell|change\w*|range|by"
    r"|interval)\b",
    re.IGNORECASE,
)
_NEAR = Fraction(1, 10)
_SURE = Fraction(1, 20)
_INTEGER_SURE = Fraction(1, 100)


class _Conversion(NamedTuple):
    """Two quantities said to be the same."""

    left: Quantity
    right: Quantity
    about: bool
    start: int
    end: int
    aside: bool = False


def check_units(text: str) -> ProgramVerdict | None:
    """Check the conversions of a claim.

    Args:
        text: The claim.

    Returns:
        What was found; None if there is nothing to check, or in doubt.
    """
    if len(text) > MAX_CHARS or not _MATCHED.search(text):
        return None
    plain = plain_characters(text).replace("\u03bc", "µ")
    if doubtful(plain) or quoted(plain):
        return None
    conversion = _stated(plain)
    if conversion is not None:
        return _judged(plain, conversion)
    found = [v for conversion in _asides(plain) if (v := _judged(plain, conversion)) is not None]
    return min(found, key=lambda verdict: verdict.holds, default=None)


def _stated(text: str) -> _Conversion | None:
    """A conversion that is all of the claim."""
    starts = [m.start() for m in re.finditer(r"\S+", text)][:12]
    for start in starts:
        if not says_nothing(text[:start]):
            return None
        found = _equality(text, start) or _there_are(text, start)
        if found is not None:
            return found if says_nothing(text[found.end :]) else None
    return None


def _equality(text: str, start: int) -> _Conversion | None:
    left = read_quantity(text, start)
    if left is None:
        return None
    relation = _IS.match(text, left.end)
    right = read_quantity(text, relation.end()) if relation else None
    if relation is None or right is None or text[relation.end()] in "aA":  # "a second is a minute" is a way of speaking
        return None
    about = relation["about"] is not None or relation["near"] == "≈"
    return _Conversion(left, right, about, start, right.end)


def _there_are(text: str, start: int) -> _Conversion | None:
    there = _THERE_ARE.match(text, start)
    right = read_quantity(text, there.end()) if there else None
    within = _IN.match(text, right.end) if right else None
    left = read_quantity(text, within.end()) if within else None
    if there is None or right is None or left is None:
        return None
    return _Conversion(left, right, "exactly" not in (there["about"] or "exactly"), start, left.end)


def _asides(text: str) -> list[_Conversion]:
    """Conversions in brackets: "5 miles (8 km)"."""
    found = []
    for match in _START.finditer(text):
        left = read_quantity(text, match.start())
        opening = _OPENING.match(text, left.end) if left else None
        right = read_quantity(text, opening.end()) if opening else None
        if left is None or opening is None or right is None or not text[right.end :].lstrip().startswith(")"):
            continue
        before = text[max(0, match.start() - 24) : match.start()]
        numbers = re.search(r"[0-9][^.;()]{0,14}$", before)  # "7 lb, 7 oz (3.4 kg)"
        if numbers or _BY.search(before) or not _BEFORE.search(before):
            continue
        found.append(_Conversion(left, right, True, match.start(), right.end, aside=True))
    return found


# -- comparison


def _judged(text: str, conversion: _Conversion) -> ProgramVerdict | None:
    left, right = conversion.left, conversion.right
    pairs = [(a, b) for a in left.meanings for b in right.meanings if a.dimension == b.dimension]
    if not pairs or left.unit == right.unit:
        return None
    dimension = pairs[0][0].dimension
    differs = dimension == "temperature" and bool(_DIFFERENCE.search(text))
    exact = [_converted(left.value, a, b, relative=differs) for a, b in pairs]
    fits = [_fits(left, right, value, about=conversion.about) for value in exact]
    holds: bool | None = True if True in fits else None if None in fits else False
    if holds is not True and dimension == "temperature":
        other = [_fits(left, right, _converted(left.value, a, b, relative=not differs), about=True) for a, b in pairs]
        holds = None if True in other or None in other else holds
    unsure = conversion.aside and dimension in ("time", "calendar", "data")
    if holds is None or (holds is False and unsure):
        return None
    nearest = min(exact, key=lambda value: abs(value - right.value))
    shown = f"{_figure(left.value)} {left.unit} is {_figure(nearest)} {right.unit}"
    start, end = conversion.start, conversion.end
    whole = not conversion.aside
    return ProgramVerdict(holds=holds, detail=shown, start=start, end=end, whole=whole)


def _converted(value: Fraction, a: Meaning, b: Meaning, *, relative: bool) -> Fraction:
    """The number of units b that a number of units a is; `relative`: of a difference, which has no zero of its own."""
    return value * a.factor / b.factor if relative else (value * a.factor + a.offset - b.offset) / b.factor


def _fits(left: Quantity, right: Quantity, exact: Fraction, *, about: bool) -> bool | None:
    """Whether a stated number is the exact one or that one rounded; None if it is only near."""
    stated = right.value
    if stated == exact:
        return True
    gap = abs(stated - exact)
    size = max(abs(exact), Fraction(1, 10**12))
    rounded = 2 * gap * Fraction(10) ** right.places <= 1
    inexact = (exact * Fraction(10) ** max(0, right.places)).denominator != 1
    if rounded and (about or inexact):
        sure = _NEAR if about else _SURE if right.places > 0 else _INTEGER_SURE
        return True if gap <= sure * size else None
    if gap <= _NEAR * size and (about or inexact or _rounds(left) or not _is_short(exact)):
        return None
    return False


def _rounds(quantity: Quantity) -> bool:
    """Whether a number looks rounded: with decimals, or a large one with zeros at its end."""
    return quantity.places > 0 or (quantity.value >= 1000 and quantity.value % 100 == 0 and quantity.places < 0)


def _is_short(exact: Fraction) -> bool:
    """Whether an exact number can be stated as it is."""
    return (exact * 1000).denominator == 1


def _figure(value: Fraction) -> str:
    if value.denominator == 1 and len(str(value)) < 16:
        return str(value)
    return f"{float(value):.7g}" if abs(value) < 10**300 else "a very large number"
