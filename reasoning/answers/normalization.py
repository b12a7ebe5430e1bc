r"""Normalization of a model's text: without thoughts and invisible characters, digits in ASCII.

`unwrap` removes what surrounds an answer: markdown emphasis, quotes, `$…$`, `\(…\)`, `\text{…}`, full stops.

`find_numerals` finds numbers and their exact values: integers and decimals with thousands separators (`1,000`,
`1{,}000`, `1\,000`, `1'000`, no-break and thin spaces), signs, currencies, percent, `3/4`, `1 3/4`, `\frac{3}{4}`,
`\frac34`, `1.2e5` and `1.2 \times 10^{5}`. A comma before exactly three digits separates thousands (`1,000` is 1000),
any other single comma between digits is a decimal comma (`1,5` is 1.5) unless a list continues (`1,2,3` are three
numbers); a point is a decimal point (`1.000` is 1), except before a decimal comma (`1.000,5` is 1000.5).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

# ruff: noqa: RUF001 (typographic signs of numbers are meant)

_THOUGHT_TAG = re.compile(r"<(/?)(?:think|thinking|thought)>", re.IGNORECASE)
# Soft hyphen, zero-width characters, bidirectional marks and isolates, word joiners, byte-order mark.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_OTHER_DIGIT = re.compile(r"(?![0-9])\d")
# The full-width forms U+FF01..U+FF5E are the ASCII characters, shifted; the minus sign is U+2212.
_PLAIN = {0xFF01 + i: 0x21 + i for i in range(94)} | {0x2212: ord("-"), 0x3000: ord(" ")}


@dataclass(frozen=True, slots=True)
class VisibleText:
    """The visible part of a text.

    Attributes:
        origin: Position in the source of each character of `text`; None if nothing was removed.
    """

    text: str
    origin: Sequence[int] | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The source's span for a span of the visible text; an empty one is empty in the source too."""
        if self.origin is None or start >= end:
            return (start, end) if self.origin is None else (self._at(start), self._at(start))
        return self.origin[start], self.origin[end - 1] + 1

    def _at(self, position: int) -> int:
        origin = self.origin or ()
        return origin[position] if position < len(origin) else (origin[-1] + 1 if origin else 0)


def visible_text(text: str) -> VisibleText:
    """A model's text without thoughts and invisible characters, normalized.

    Every position maps back to the source, so that a match can be located there. Thoughts are enclosed in
    `<think>…</think>` (also `thinking`, `thought`). A thought that is never closed extends to the end; one that was
    opened in the prompt, so that only its end is in the text, starts at the beginning. Linear in the text's length.
    """
    visible = _visible_spans(text)
    is_unchanged = len(visible) == 1 and visible[0] == (0, len(text))
    if is_unchanged and text.isascii():
        return VisibleText(text)
    origin: list[int] | None = None
    shown = text
    if not is_unchanged or _INVISIBLE.search(text):
        origin = []
        pieces: list[str] = []
        for start, end in visible:
            if pieces:  # a thought removed from the middle separates the text around it
                pieces.append("\n")
                origin.append(start - 1)
            for piece_start, piece_end in _without_invisible(text, start, end):
                pieces.append(text[piece_start:piece_end])
                origin.extend(range(piece_start, piece_end))
        shown = "".join(pieces)
    return VisibleText(normalize_characters(shown), origin)


def normalize_characters(text: str) -> str:
    """The same text, character by character, with digits of any script and full-width forms in ASCII."""
    if text.isascii():
        return text
    return _OTHER_DIGIT.sub(lambda m: str(unicodedata.decimal(m[0])), text.translate(_PLAIN))


def _visible_spans(text: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    start = 0
    thinking = False
    for tag in _THOUGHT_TAG.finditer(text):
        if tag[1]:
            if not thinking:
                spans.clear()
            start, thinking = tag.end(), False
        elif not thinking:
            spans.append((start, tag.start()))
            thinking = True
    if not thinking:
        spans.append((start, len(text)))
    return [(a, b) for a, b in spans if a < b]


def _without_invisible(text: str, start: int, end: int) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for mark in _INVISIBLE.finditer(text, start, end):
        if start < mark.start():
            spans.append((start, mark.start()))
        start = mark.end()
    if start < end:
        spans.append((start, end))
    return spans


MAX_ANSWER_CHARS = 4000
"""Maximum length of an answer, in characters."""

_MAX_LAYERS = 16  # nested wrappings removed
_PAIRS = (
    ("$$", "$$"),
    ("$", "$"),
    ("\\(", "\\)"),
    ("\\[", "\\]"),
    ("***", "***"),
    ("**", "**"),
    ("__", "__"),
    ("*", "*"),
    ("_", "_"),
    ("```", "```"),
    ("`", "`"),
    ('"', '"'),
    ("“", "”"),
    ("«", "»"),
    ("「", "」"),
    ("'", "'"),
    ("‘", "’"),
)
_OPENINGS = frozenset(opening[0] for opening, _ in _PAIRS)
_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathsf|mbox|boxed|fbox|operatorname)\s?\{")
_EDGE_LEFT = " \t\r\n:=>*#,;"
_EDGE_RIGHT = " \t\r\n.,;:*。"
_SPACING = re.compile(r"\\(?:displaystyle|quad|qquad|[,;:!])\s?")


def closing_brace(text: str, after_open: int, end: int) -> int | None:
    r"""Position of the brace that closes the one just before `after_open`; escaped braces (`\{`) do not count."""
    end = min(end, len(text))
    depth = 1
    i = after_open
    while i < end:
        character = text[i]
        if character == "\\":
            i += 2
            continue
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return i
        i += 1
    return None


def unwrap(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without blanks, final punctuation and wrappings around it; may be empty."""
    for _ in range(_MAX_LAYERS):
        before = (start, end)
        start, end = _edges(text, start, end)
        start, end = _pair(text, start, end)
        start, end = _command(text, start, end)
        if (start, end) == before:
            break
    return start, end


def _edges(text: str, start: int, end: int) -> tuple[int, int]:
    """Without blanks and punctuation; emphasis at only one end is a leftover and removed, too."""
    while (
        start < end and (text[start] in _EDGE_LEFT or text[start].isspace()) and not text.startswith(("**", "*"), start)
    ):
        start += 1
    while end > start and (text[end - 1] in _EDGE_RIGHT or text[end - 1].isspace()) and text[end - 1] != "*":
        if text[end - 1] in " ," and _escaped(text, start, end - 1):  # "\ " and "\,": LaTeX space
            end -= 1
        end -= 1
    if end - start > 1 and text[end - 1] in "!?" and text[end - 2].isalpha() and end - start > 2:  # "n!" is a factorial
        end -= 1
    leading, trailing = text[start:end].startswith("*"), text[start:end].endswith("*")
    if leading != trailing:
        while start < end and text[start] == "*":
            start += 1
        while end > start and text[end - 1] == "*":
            end -= 1
    spacing = _SPACING.match(text, start, end)
    if spacing and spacing.end() < end:
        start = spacing.end()
    return start, end


def _escaped(text: str, start: int, position: int) -> bool:
    return position > start and text[position - 1] == "\\"


def _pair(text: str, start: int, end: int) -> tuple[int, int]:
    for opening, closing in _PAIRS if text[start : start + 1] in _OPENINGS else ():
        inner_start, inner_end = start + len(opening), end - len(closing)
        if (
            inner_start < inner_end
            and text.startswith(opening, start, end)
            and text.startswith(closing, inner_end)
            and text.find(closing, inner_start, inner_end) < 0
            and not _escaped(text, start, inner_end)
        ):
            return inner_start, inner_end
    if text.startswith("$", end - 1) and end - start > 1 and text.count("$", start, end) == 1:
        return start, end - 1  # the other half of a formula that began outside
    return start, end


def _command(text: str, start: int, end: int) -> tuple[int, int]:
    command = _COMMAND.match(text, start, end)
    if command and end - start <= MAX_ANSWER_CHARS and closing_brace(text, command.end(), end) == end - 1:
        return command.end(), end - 1
    return start, end


# -- numbers

MAX_DIGITS = 400
"""Maximum digits of a number; a longer run is noise."""

_SEPARATOR = r"(?:,(?:\\!)?|\{,\}|\\[,!]|['’\u00a0\u2009\u202f])"
_THOUSANDS = rf"[0-9]{{1,3}}(?:{_SEPARATOR}[0-9]{{3}})+(?![0-9])"
_CONTINENTAL = r"[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]{1,6}(?![0-9,])"
_DECIMAL_COMMA = r"(?<![0-9],)[0-9]{1,12},(?:[0-9]{1,2}|[0-9]{4,12})(?![0-9]|,[0-9])"
_PLAIN_NUMBER = r"[0-9]+(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+"
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\w)\]}}.])[-+–−])?                      # a minus between two terms is no sign
    (?P<currency>\\?\$|[€£¥₹₩])?[ ]?
    (?<![A-Za-z_])(?<![0-9]\.)
    (?:
      \\[dtc]?frac[ ]?(?:\{{[ ]?(?P<sign_up>[-−]?)(?P<up>[0-9]+)[ ]?\}}[ ]?\{{[ ]?(?P<low>[0-9]+)[ ]?\}}
                     |(?P<up1>[0-9])(?P<low1>[0-9]))
    |
      (?P<body>{_CONTINENTAL}|{_THOUSANDS}(?:\.[0-9]+)?|{_DECIMAL_COMMA}|{_PLAIN_NUMBER})
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
    """All numbers of a text, in order. Linear in the text's length."""
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
