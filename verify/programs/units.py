"""Conversions of units in claims: "5 km is 5000 m", "a day has 24 hours", "100 °C (212 °F)".

Factors are exact; a stated number may be exact or rounded at its precision. Ambiguous claims are not judged: sentences
with anything but a conversion, approximate numbers, and units with several meanings that disagree.

Factors: BIPM, "The International System of Units" (9th edition, 2019), tables 1 to 8; customary units by the
international yard and pound agreement of 1959 (yard 0.9144 m, pound 0.45359237 kg) and the gallons of 231 cubic inches
and of 4.54609 l; binary prefixes by IEC 80000-13. A unit with several meanings has them all.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from ...reasoning.answers.normalization import normalize_characters
from .text import MAX_CHARS, ProgramVerdict, has_quotes, is_filler, is_hedged, read_number

F = Fraction


class Meaning(NamedTuple):
    """One meaning of a unit: `value * factor + offset` in the dimension's first unit."""

    dimension: str
    factor: Fraction
    offset: Fraction = F(0)


class Quantity(NamedTuple):
    """A number with a unit.

    Attributes:
        value: The number.
        decimals: Digits after its decimal point; negative if a scale word replaces zeros.
        unit: The unit as written, singular where it is a word.
        meanings: Possible meanings of the unit.
        start: First character.
        end: One past the last.
    """

    value: Fraction
    decimals: int
    unit: str
    meanings: tuple[Meaning, ...]
    start: int
    end: int


_FOOT, _POUND = F(3048, 10000), F(45359237, 100_000_000)
_INCH = _FOOT / 12
_GALLON_US, _GALLON_UK = 231 * (_INCH * 100) ** 3 / 1000, F(454609, 100_000)  # in litres
_LENGTHS: dict[str, Fraction | int] = {
    "metre meter": 1, "kilometre kilometer": 1000, "centimetre centimeter": F(1, 100),
    "decimetre decimeter": F(1, 10), "millimetre millimeter": F(1, 1000), "micrometre micrometer": F(1, 10**6),
    "nanometre nanometer": F(1, 10**9), "inch inches": _INCH, "foot feet": _FOOT, "yard": 3 * _FOOT,
    "mile": 5280 * _FOOT,
}  # fmt: skip
_SHORT_LENGTHS: dict[str, Fraction | int] = {
    "m": 1, "km": 1000, "cm": F(1, 100), "dm": F(1, 10), "mm": F(1, 1000), "µm": F(1, 10**6), "nm": F(1, 10**9),
    "ft": _FOOT, "yd": 3 * _FOOT, "mi": 5280 * _FOOT,
}  # fmt: skip
_TIMES: dict[str, tuple[Fraction | int, ...]] = {
    "second s sec": (1,), "millisecond ms": (F(1, 1000),), "microsecond µs": (F(1, 10**6),),
    "nanosecond ns": (F(1, 10**9),), "minute min": (60,), "hour h hr": (3600,), "day": (86400,), "week": (604_800,),
    "fortnight": (1_209_600,),
    "year": tuple(86400 * days for days in (365, 366, F(36525, 100), F(3652425, 10_000), F(3652422, 10_000))),
}  # fmt: skip
_CALENDAR: dict[str, Fraction | int] = {
    "month": 1, "year": 12, "decade": 120, "century centuries": 1200, "millennium millennia": 12_000,
}  # fmt: skip
_MASSES: dict[str, tuple[Fraction | int, ...]] = {
    "kilogram kilogramme kg kilo": (1,), "gram gramme g": (F(1, 1000),), "milligram mg": (F(1, 10**6),),
    "microgram µg": (F(1, 10**9),), "tonne": (1000,), "ton": (1000, 2000 * _POUND, 2240 * _POUND),
    "pound lb": (_POUND,), "ounce oz": (_POUND / 16, F(311034768, 10**10)), "stone": (14 * _POUND,),
}  # fmt: skip
_VOLUMES: dict[str, tuple[Fraction | int, ...]] = {
    "litre liter l L": (1,), "millilitre milliliter ml mL": (F(1, 1000),), "centilitre centiliter cl": (F(1, 100),),
    "decilitre deciliter dl": (F(1, 10),), "hectolitre hectoliter": (100,),
    "gallon gal": (_GALLON_US, _GALLON_UK), "quart": (_GALLON_US / 4, _GALLON_UK / 4),
    "pint": (_GALLON_US / 8, _GALLON_UK / 8), "fluid-ounce ounce": (_GALLON_US / 128, _GALLON_UK / 160),
    "cup": (_GALLON_US / 16, F(24, 100), F(25, 100)),
    "tablespoon": (_GALLON_US / 256, F(15, 1000), F(20, 1000)), "teaspoon": (_GALLON_US / 768, F(5, 1000)),
}  # fmt: skip
_BITS: dict[str, tuple[Fraction | int, ...]] = {
    "bit": (1,), "byte": (8,), "nibble": (4,),
    **{f"{name}byte {short}B": (8 * 1000**i, 8 * 1024**i) for i, (name, short) in enumerate(
        [("kilo", "k"), ("mega", "M"), ("giga", "G"), ("tera", "T"), ("peta", "P")], 1)},
    "KB": (8000, 8 * 1024),
    **{f"{name}bit": (1000**i, 1024**i) for i, name in enumerate(("kilo", "mega", "giga", "tera"), 1)},
    **{f"{name}byte {short}iB": (8 * 1024**i,) for i, (name, short) in enumerate(
        [("kibi", "K"), ("mebi", "M"), ("gibi", "G"), ("tebi", "T")], 1)},
}  # fmt: skip
_DISTANCES: dict[str, tuple[Fraction | int, ...]] = {
    "light-year lightyear": tuple(299_792_458 * 86400 * d for d in (365, F(36525, 100), F(3652425, 10_000))),
    "astronomical-unit au AU": (149_597_870_700,),
    "nautical-mile": (1852,),
    "parsec": (F(30856775814913673),),
}
_ELECTRIC: dict[str, tuple[str, Fraction | int]] = {
    "watt W": ("power", 1), "kilowatt kW": ("power", 1000), "megawatt MW": ("power", 10**6),
    "gigawatt GW": ("power", 10**9), "milliwatt mW": ("power", F(1, 1000)),
    "watt-hour Wh": ("energy", 3600), "kilowatt-hour kWh": ("energy", 3_600_000),
    "megawatt-hour MWh": ("energy", 3_600_000_000), "joule J": ("energy", 1), "kilojoule kJ": ("energy", 1000),
    "megajoule MJ": ("energy", 10**6),
    "hertz Hz": ("frequency", 1), "kilohertz kHz": ("frequency", 1000), "megahertz MHz": ("frequency", 10**6),
    "gigahertz GHz": ("frequency", 10**9),
    "volt V": ("voltage", 1), "millivolt mV": ("voltage", F(1, 1000)), "kilovolt kV": ("voltage", 1000),
    "ampere amp A": ("current", 1), "milliampere milliamp mA": ("current", F(1, 1000)),
    "amp-hour Ah": ("charge", 3600), "milliamp-hour mAh": ("charge", F(36, 10)),
    "pascal Pa": ("pressure", 1), "hectopascal hPa": ("pressure", 100), "kilopascal kPa": ("pressure", 1000),
    "megapascal MPa": ("pressure", 10**6), "bar": ("pressure", 100_000), "millibar mbar": ("pressure", 100),
}  # fmt: skip
_TEMPERATURES = {
    "°c °celsius degree-celsius degree-centigrade celsius": Meaning("temperature", F(1), F(27315, 100)),
    "°f °fahrenheit degree-fahrenheit fahrenheit": Meaning("temperature", F(5, 9), F(45967, 100) * F(5, 9)),
    "K kelvin": Meaning("temperature", F(1)),
}


def _build_units() -> dict[str, tuple[Meaning, ...]]:
    table: dict[str, tuple[Meaning, ...]] = {}

    def add(names: str, dimension: str, *factors: Fraction | int) -> None:
        for name in names.split():
            table[name] = table.get(name, ()) + tuple(Meaning(dimension, F(f)) for f in factors)

    for names, factor in [*_LENGTHS.items(), *_SHORT_LENGTHS.items()]:
        add(names, "length", factor)
        for name in names.split():
            add(f"square-{name} {name}² {name}^2", "area", F(factor) ** 2)
            add(f"cubic-{name} {name}³ {name}^3", "volume", F(factor) ** 3 * 1000)
            add(f"{name}/s {name}-per-second", "speed", factor)
            add(f"{name}/h {name}-per-hour {name}-an-hour", "speed", F(factor) / 3600)
    for names, factors in _DISTANCES.items():
        add(names, "length", *factors)
    add("kph kmh", "speed", F(1000, 3600))
    add("mph", "speed", 5280 * _FOOT / 3600)
    add("knot", "speed", F(1852, 3600))
    add("hectare ha", "area", 10_000)
    add("acre", "area", 43560 * _FOOT**2)
    for dimension, units in (("time", _TIMES), ("mass", _MASSES), ("volume", _VOLUMES), ("data", _BITS)):
        for names, factors in units.items():
            add(names, dimension, *factors)
    for names, factor in _CALENDAR.items():
        add(names, "calendar", factor)
    for names, (dimension, factor) in _ELECTRIC.items():
        add(names, dimension, factor)
    for names, meaning in _TEMPERATURES.items():
        for name in names.split():
            table[name] = (*table.get(name, ()), meaning)
    return table


_UNITS = _build_units()
_PHRASE = re.compile(
    r"\s*(?P<unit>°\s?(?:[CF]\b|Celsius\b|Fahrenheit\b)"
    r"|(?:(?:kilo|mega)?watt|(?:milli)?amp)[\s-]hours?\b"
    r"|(?:degrees?|square|cubic|fluid|nautical|astronomical)[\s-][A-Za-z]{1,20}(?:\s(?:per|an)\s(?:second|hour)\b)?"
    r"|[A-Za-zµ]{1,20}(?:-years?)?(?:/[hs]\b|[²³]|\^[23]|\s(?:per|an)\s(?:second|hour)\b)?)(?![\w²³^/°-])",
    re.IGNORECASE,
)
_ONE = re.compile(r"(?:an?|one)\s+(?=[A-Za-z])", re.IGNORECASE)


def read_quantity(text: str, at: int) -> Quantity | None:
    """The quantity at a position: "5 km", "1.5 million square miles", "a mile"; None if there is none."""
    number = read_number(text, at)
    if number is not None and number.end < len(text):
        value, decimals, after = number.value, number.decimals, number.end
        if text[after] == "-":
            return None
    elif (article := _ONE.match(text, at)) is not None:
        value, decimals, after = F(1), 0, article.end()
    else:
        return None
    unit = read_unit(text, after)
    return None if unit is None else Quantity(value, decimals, unit.name, unit.meanings, at, unit.end)


class Unit(NamedTuple):
    """A unit in a text: its name, singular where it is a word, its possible meanings, and its end."""

    name: str
    meanings: tuple[Meaning, ...]
    end: int


def read_unit(text: str, at: int) -> Unit | None:
    """The unit at a position, after any white space; None if there is none that is known."""
    match = _PHRASE.match(text, at)
    if match is None:
        return None
    name, meanings = _look_up_unit(match["unit"])
    return Unit(name, meanings, match.end()) if meanings else None


def _look_up_unit(written: str) -> tuple[str, tuple[Meaning, ...]]:
    """A unit by its exact symbol, or by its name in any case, singular or plural."""
    if written in _UNITS:
        return written, _UNITS[written]
    name = re.sub(r"\s+", "-", written.replace("° ", "°").lower())
    name = name.replace("degrees-", "degree-")
    for form in (name, re.sub(r"s(?=-per-|-an-|$)", "", name)):
        if (len(form) > 2 or form.startswith("°")) and form in _UNITS:
            return form, _UNITS[form]
    return written, ()


_CANDIDATE = re.compile(r"[0-9]|\b(?:an?|one|in)\b", re.IGNORECASE)
_EQUALS = re.compile(
    r"\s*(?:(?:is|are)\s+equal\s+to|equals|is|are|makes?|corresponds?\s+to|converts?\s+to|(?:has|have|contains?)"
    r"|(?P<near>[=≈]))(?:\s+(?P<about>about|approximately|roughly|around|nearly|almost)(?=\s)|\s+exactly(?=\s))?\s*",
    re.IGNORECASE,
)
_THERE_ARE = re.compile(
    r"there\s+are\s+(?P<about>(?:about|approximately|roughly|around)\s+|exactly\s+)?", re.IGNORECASE
)
_IN = re.compile(r"\s+in\s+", re.IGNORECASE)
_OPEN_BRACKET = re.compile(r"\s*\(\s*(?P<about>(?:about|approximately|approx\.?|roughly|around|ca\.|c\.|~|≈|or|=)\s*)?")
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
_MAX_ERROR = Fraction(1, 10)
_MAX_DECIMAL_ROUNDING = Fraction(1, 20)
_MAX_INTEGER_ROUNDING = Fraction(1, 100)


class _Conversion(NamedTuple):
    """Two quantities that a text equates."""

    left: Quantity
    right: Quantity
    is_approximate: bool
    start: int
    end: int
    is_bracketed: bool = False


def check_units(text: str) -> ProgramVerdict | None:
    """Check the conversions of a claim.

    Args:
        text: The claim.

    Returns:
        The verdict; None if there is nothing to check or the text is ambiguous.
    """
    if len(text) > MAX_CHARS or not _CANDIDATE.search(text):
        return None
    plain = normalize_characters(text).replace("\u03bc", "µ")
    if is_hedged(plain) or has_quotes(plain):
        return None
    conversion = _find_conversion(plain)
    if conversion is not None:
        return _check_conversion(plain, conversion)
    verdicts = [
        v for conversion in _bracketed_conversions(plain) if (v := _check_conversion(plain, conversion)) is not None
    ]
    return min(verdicts, key=lambda verdict: verdict.holds, default=None)


def _find_conversion(text: str) -> _Conversion | None:
    """A conversion that is the complete claim."""
    starts = [m.start() for m in re.finditer(r"\S+", text)][:12]
    for start in starts:
        if not is_filler(text[:start]):
            return None
        conversion = _parse_equality(text, start) or _parse_there_are(text, start)
        if conversion is not None:
            return conversion if is_filler(text[conversion.end :]) else None
    return None


def _parse_equality(text: str, start: int) -> _Conversion | None:
    left = read_quantity(text, start)
    if left is None:
        return None
    relation = _EQUALS.match(text, left.end)
    right = read_quantity(text, relation.end()) if relation else None
    if relation is None or right is None or text[relation.end()] in "aA":  # "a second is a minute" is an idiom
        return None
    is_approximate = relation["about"] is not None or relation["near"] == "≈"
    return _Conversion(left, right, is_approximate, start, right.end)


def _parse_there_are(text: str, start: int) -> _Conversion | None:
    prefix = _THERE_ARE.match(text, start)
    right = read_quantity(text, prefix.end()) if prefix else None
    preposition = _IN.match(text, right.end) if right else None
    left = read_quantity(text, preposition.end()) if preposition else None
    if prefix is None or right is None or left is None:
        return None
    return _Conversion(left, right, "exactly" not in (prefix["about"] or "exactly"), start, left.end)


def _bracketed_conversions(text: str) -> list[_Conversion]:
    """Conversions in brackets: "5 miles (8 km)"."""
    conversions = []
    for match in _START.finditer(text):
        left = read_quantity(text, match.start())
        opening = _OPEN_BRACKET.match(text, left.end) if left else None
        right = read_quantity(text, opening.end()) if opening else None
        if left is None or opening is None or right is None or not text[right.end :].lstrip().startswith(")"):
            continue
        before = text[max(0, match.start() - 24) : match.start()]
        numbers = re.search(r"[0-9][^.;()]{0,14}$", before)  # "7 lb, 7 oz (3.4 kg)"
        if numbers or _BY.search(before) or not _BEFORE.search(before):
            continue
        conversions.append(_Conversion(left, right, True, match.start(), right.end, is_bracketed=True))
    return conversions


# -- comparison


def _check_conversion(text: str, conversion: _Conversion) -> ProgramVerdict | None:
    left, right = conversion.left, conversion.right
    pairs = [(a, b) for a in left.meanings for b in right.meanings if a.dimension == b.dimension]
    if not pairs or left.unit == right.unit:
        return None
    dimension = pairs[0][0].dimension
    is_difference = dimension == "temperature" and bool(_DIFFERENCE.search(text))
    exact = [_convert(left.value, a, b, relative=is_difference) for a, b in pairs]
    fits = [_matches(left, right, value, is_approximate=conversion.is_approximate) for value in exact]
    holds: bool | None = True if True in fits else None if None in fits else False
    if holds is not True and dimension == "temperature":
        other = [
            _matches(left, right, _convert(left.value, a, b, relative=not is_difference), is_approximate=True)
            for a, b in pairs
        ]
        holds = None if True in other or None in other else holds
    is_uncertain = conversion.is_bracketed and dimension in ("time", "calendar", "data")
    if holds is None or (holds is False and is_uncertain):
        return None
    nearest = min(exact, key=lambda value: abs(value - right.value))
    detail = f"{_format_number(left.value)} {left.unit} is {_format_number(nearest)} {right.unit}"
    start, end = conversion.start, conversion.end
    is_complete = not conversion.is_bracketed
    return ProgramVerdict(holds=holds, detail=detail, start=start, end=end, is_complete=is_complete)


def _convert(value: Fraction, a: Meaning, b: Meaning, *, relative: bool) -> Fraction:
    """Convert a value from unit a to unit b; `relative` values are differences, so offsets are ignored."""
    return value * a.factor / b.factor if relative else (value * a.factor + a.offset - b.offset) / b.factor


def _matches(left: Quantity, right: Quantity, exact: Fraction, *, is_approximate: bool) -> bool | None:
    """Whether a stated number is the exact or the rounded one; None if it is only close."""
    stated = right.value
    if stated == exact:
        return True
    error = abs(stated - exact)
    magnitude = max(abs(exact), Fraction(1, 10**12))
    rounded = 2 * error * Fraction(10) ** right.decimals <= 1
    inexact = (exact * Fraction(10) ** max(0, right.decimals)).denominator != 1
    if rounded and (is_approximate or inexact):
        max_rounding = (
            _MAX_ERROR if is_approximate else _MAX_DECIMAL_ROUNDING if right.decimals > 0 else _MAX_INTEGER_ROUNDING
        )
        return True if error <= max_rounding * magnitude else None
    if error <= _MAX_ERROR * magnitude and (
        is_approximate or inexact or _looks_rounded(left) or not _is_exact_decimal(exact)
    ):
        return None
    return False


def _looks_rounded(quantity: Quantity) -> bool:
    """Whether a number looks rounded: with decimals, or a large one with zeros at its end."""
    return quantity.decimals > 0 or (quantity.value >= 1000 and quantity.value % 100 == 0 and quantity.decimals < 0)


def _is_exact_decimal(exact: Fraction) -> bool:
    """Whether an exact number can be written without rounding."""
    return (exact * 1000).denominator == 1


def _format_number(value: Fraction) -> str:
    if value.denominator == 1 and len(str(value)) < 16:
        return str(value)
    return f"{float(value):.7g}" if abs(value) < 10**300 else "a very large number"
