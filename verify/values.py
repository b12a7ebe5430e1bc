"""Values in one form, so that texts can be compared by value: dates, times, amounts of money, numbers.

"December 24th, 2026" and "24.12.2026" become 2026-12-24, "6 pm" 18:00, "€15" and "15.00 euros" 15 eur, "1,200" 1200,
"two" 2. A date whose order of day and month is open (03/04/2026) stays as it is.
"""

from __future__ import annotations

import re
from typing import Final

from ..core.unicode_forms import normalize

_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        (
            "january jan", "february feb", "march mar", "april apr", "may", "june jun", "july jul", "august aug",
            "september sept sep", "october oct", "november nov", "december dec",
        ),
        1,
    )
    for name in names.split()
}  # fmt: skip
_CURRENCIES: Final = {
    "€": "eur", "eur": "eur", "euro": "eur", "euros": "eur", "$": "usd", "usd": "usd", "us$": "usd", "dollar": "usd",
    "dollars": "usd", "£": "gbp", "gbp": "gbp", "pound": "gbp", "pounds": "gbp", "chf": "chf", "francs": "chf",
    "¥": "jpy", "jpy": "jpy", "yen": "jpy",
}  # fmt: skip
_NUMBERS: Final = {
    name: str(number)
    for number, name in enumerate(
        (
            "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
            "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
        )
    )
}  # fmt: skip
for _i, _name in enumerate(("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2):
    _NUMBERS[_name] = str(10 * _i)
    _NUMBERS.update({f"{_name}-{digit}": str(10 * _i + k) for k, digit in enumerate(tuple(_NUMBERS)[1:10], 1)})
_MONTH: Final = rf"(?P<month>{'|'.join(_MONTHS)})\b\.?"
_DAY: Final = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_YEAR: Final = r"(?P<year>(?:19|20)\d\d)\b"
_DATES: Final = (
    re.compile(rf"\b(?:the\s+)?{_DAY}\s+(?:of\s+)?{_MONTH},?\s+{_YEAR}"),
    re.compile(rf"\b{_MONTH}\s+(?:the\s+)?{_DAY},?\s+{_YEAR}"),
    re.compile(r"\b(?P<day>[0-3]?\d)\.(?P<month>[01]?\d)\.(?P<year>(?:19|20)\d\d)\b"),
    re.compile(r"\b(?P<year>(?:19|20)\d\d)/(?P<month>[01]?\d)/(?P<day>[0-3]?\d)\b"),
    re.compile(r"\b(?P<day>1[3-9]|2\d|3[01])/(?P<month>[01]?\d)/(?P<year>(?:19|20)\d\d)\b"),
    re.compile(r"\b(?P<month>[01]?\d)/(?P<day>1[3-9]|2\d|3[01])/(?P<year>(?:19|20)\d\d)\b"),
)
_SHORT_DATES: Final = (
    re.compile(rf"\b(?:the\s+)?{_DAY}\s+(?:of\s+)?{_MONTH}(?![\w-])"),
    re.compile(rf"\b{_MONTH}\s+(?:the\s+)?{_DAY}(?![\w:.]\d|\w)"),
)
_ISO_TIME: Final = re.compile(r"(?<=\d-\d\d)[t ](?=\d\d:\d\d)")
_NO_SECONDS: Final = re.compile(r"\b(\d\d:\d\d):00(?:\.0+)?(?:z|\+00:00)?(?![\d:])")
_TWELVE: Final = re.compile(r"\b(\d{1,2})(?:[:.](\d\d))?\s?([ap])\.?m\b\.?")
_SHORT_TIME: Final = re.compile(r"(?<![\d:.])(\d):(\d\d)(?![\d:])")
_SYMBOL: Final = r"us\$|[€$£¥]"
_UNIT: Final = "|".join(name for name in _CURRENCIES if name.isalpha())
_AMOUNT: Final = r"\d+(?:\.\d+)?"
_MONEY_BEFORE: Final = re.compile(rf"(?:(?P<unit>{_SYMBOL})\s?|\b(?P<code>eur|usd|gbp|chf|jpy)\s)(?P<amount>{_AMOUNT})")
_MONEY_AFTER: Final = re.compile(rf"(?P<amount>{_AMOUNT})\s?(?P<unit>{_SYMBOL}|(?:{_UNIT})\b)")
_THOUSANDS: Final = re.compile(r"(?<![\w.,/-])\d{1,3}(?:,\d{3})+(?![\w/-]|,\d)")
_ZEROS: Final = re.compile(r"(?<![\w.,:/-])(\d+)(?:\.0+|(\.\d*[1-9])0+)(?![\w/-]|\.\w)")
_NUMBER_WORD: Final = re.compile(
    rf"(?<!\bthis )(?<!\bthat )(?<!\bwhich )(?<!\bthe )(?<![\w'-])(?:{'|'.join(_NUMBERS)})(?![\w'-])"
)


def plain(text: str) -> str:
    """A text for comparisons: one case, one kind of apostrophe."""
    return normalize("NFKC", text).replace("’", "'").casefold()  # noqa: RUF001 (typographic apostrophe)


def canonical(text: str) -> str:
    """A text for comparisons by value."""
    text = plain(text)
    for pattern in _DATES:
        text = pattern.sub(_date, text)
    text = _NO_SECONDS.sub(r"\1", _ISO_TIME.sub(" ", text))
    text = _TWELVE.sub(_twelve, text)
    text = _SHORT_TIME.sub(r"0\1:\2", text)
    text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    text = _ZEROS.sub(lambda match: match[1] + (match[2] or ""), text)
    text = _NUMBER_WORD.sub(lambda match: _NUMBERS[match[0]], text)
    text = _MONEY_BEFORE.sub(lambda m: f"{m['amount']} {_CURRENCIES[m['unit'] or m['code']]}", text)
    return _MONEY_AFTER.sub(lambda m: f"{m['amount']} {_CURRENCIES[m['unit']]}", text)


def short_dates(text: str) -> str:
    """A canonical text with its dates without a year as --MM-DD."""
    for pattern in _SHORT_DATES:
        text = pattern.sub(lambda m: f"--{_MONTHS[m['month']]:02}-{int(m['day']):02}", text)
    return text


def _date(match: re.Match[str]) -> str:
    month, day = match["month"], int(match["day"])
    number = _MONTHS[month] if month in _MONTHS else int(month)
    if not 1 <= number <= 12 or not 1 <= day <= 31:
        return match[0]
    return f"{match['year']}-{number:02}-{day:02}"


def _twelve(match: re.Match[str]) -> str:
    hour = int(match[1])
    if not 1 <= hour <= 12:
        return match[0]
    return f"{hour % 12 + 12 * (match[3] == 'p'):02}:{match[2] or '00'}"
