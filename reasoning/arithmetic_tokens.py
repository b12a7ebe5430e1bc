r"""Lines of arithmetic as tokens: LaTeX, typographic signs and markdown made plain, then numbers, signs and words.

`\times`, `×`, `·` and an `x` between figures become `*`, `\div` and `÷` become `/`, `plus` becomes `+`; `\text{…}` and
`\boxed{…}` lose their wrapping; a line that begins with `=` goes on with the line before.
"""

# ruff: noqa: RUF001, RUF002 (typographic signs of arithmetic are meant)
from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from .numerals import read_numeral
from .reading import plain_characters

Kind = Literal[
    "number", "sign", "open", "close", "frac", "root", "percent", "factorial", "equals", "word", "break", "other"
]

MAX_DIGITS = 60
"""Longest number read, in characters."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a line.

    Attributes:
        kind: What it is. "break" is punctuation, beside which an expression may begin or end; "other" is anything that
            an expression must not touch.
        text: As it stands in the cleaned line.
        start: First character in the cleaned line.
        end: One past the last.
        value: Of a number.
        decimals: Digits behind a number's decimal point; None without one.
        currency: Whether a dollar or another currency's sign stands right before the number.
    """

    kind: Kind
    text: str
    start: int
    end: int
    value: Fraction = Fraction(0)
    decimals: int | None = None
    currency: bool = False


_VULGAR = re.compile(r"([0-9]{0,6})([¼-¾⅐-⅞])")
_ANNOTATION = re.compile(r"<<([^<>\n]{1,200})>>")
_CLEANING: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.MULTILINE), by)
    for pattern, by in (
        (r"(?<=[0-9])(?:,?\\[,!]|\{,\}|[\u2009\u202f\u00a0'’](?=[0-9]{3}))(?=[0-9]{3})", ","),
        (r"\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s?", ""),
        (r"\\displaystyle(?![A-Za-z])", " "),
        (r"\\[\[\]]", " ; "),
        (r"\\\\(?:\[[^\]\n]{0,10}\])?", "\n"),
        (r"\\[,;:! ]|\\q?quad(?![A-Za-z])|~|&|\\[()]", " "),
        (r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathsf|mbox|operatorname)\s?\{([^{}\n]{0,80})\}", r" \1 "),
        (r"\\(?:boxed|fbox)(?![A-Za-z])", " "),
        (r"\^\s?\{?\s?\\circ\s?\}?|\\degree|°", " degrees "),
        (r"\\(?:times|cdot|ast)(?![A-Za-z])|[×·⋅∙✕✖]", " * "),
        (r"\\div(?![A-Za-z])|÷", " / "),
        (r"\\(?:approx|simeq|sim)(?![A-Za-z])|[≈≃≅]|~=", " ≈ "),
        (r"[=\-]>|[→⇒⟹]", " ; "),
        (r"\\([%$])", r"\1"),
        (r"\\[dtc]?frac\s?([0-9])([0-9])", r"\\frac{\1}{\2}"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"√", r"\\sqrt "),
        (r"²", "^2"),
        (r"³", "^3"),
        (r"(?<=[A-Za-z])\^\{?[0-9]\}?", ""),  # cm^2; of a variable, what stands there is no number either way
        (r"`", " "),
        (r"(?<!\S)\*{1,3}(?=\S)|(?<=\S)\*{1,3}(?!\S)", " "),  # emphasis
        (r"\*\*", "^"),
        (r"^[ \t]*(?:[-–—*+•][ \t]+|[0-9]{1,3}[.)][ \t]+)+", ""),
        (r"\bplus\b", " + "),
        (r"\bminus\b", " - "),
        (r"\b(?:times|multiplied by)\b", " * "),
        (r"\bdivided by\b", " / "),
        (r"\bper ?cent\b", "%"),
        (r"(?<=[0-9)}%])([ \t]?)x(?=[ \t]?[0-9($\\])", " * "),
        (r"(?:[ \t]{0,8}\n){1,3}[ \t$]{0,16}(?==[^=])", " "),
    )
)
_DASHES = str.maketrans({"–": "-", "−": "-"})
_TOKEN = re.compile(
    r"""
    (?P<clock>[0-9]+(?::[0-9]+)+)
    | (?P<number>(?P<currency>[$€£¥₹][ ]?)?
        (?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+))
    | (?P<equals>(?<![<>!:=≠])=(?![=>])|≈)
    | (?P<sign>[-+*/^])
    | (?P<open>[({]) | (?P<close>[)}])
    | (?P<frac>\\frac) | (?P<root>\\sqrt)
    | (?P<percent>%)
    | (?P<factorial>(?<=[0-9)])!(?=\s*[-+*/=)≈]))
    | (?P<word>[^\W\d_]+(?:['’-][^\W\d_]+)*)
    | (?P<blank>\s+|[$€£¥₹])
    | (?P<break>[,;:.?!"'“”…\[\]|•—])
    | (?P<other>\\[A-Za-z]+|\\?.)
    """,
    re.VERBOSE | re.DOTALL,
)


def arithmetic_lines(text: str) -> list[str]:
    """The cleaned lines of a text that have a sign of equality; a calculator's annotation (`<<48/2=24>>`) is a line."""
    text = _VULGAR.sub(_fraction, plain_characters(text))
    annotations = [m[1] for m in _ANNOTATION.finditer(text)]
    text = _ANNOTATION.sub("", text)
    for pattern, by in _CLEANING:
        text = pattern.sub(by, text)
    lines = [*text.translate(_DASHES).split("\n"), *annotations]
    return [line for line in lines if "=" in line or "≈" in line]


def _fraction(vulgar: re.Match[str]) -> str:
    """¾ as (3/4), and 1¾ as (1+3/4)."""
    up, _, low = unicodedata.normalize("NFKC", vulgar[2]).partition("\u2044")
    return f"({vulgar[1]}+{up}/{low})" if vulgar[1] else f"({up}/{low})"


def tokens_of(line: str) -> list[Token]:
    """The tokens of a cleaned line, without blanks and the dollars of formulas."""
    tokens = []
    for match in _TOKEN.finditer(line):
        kind = match.lastgroup
        if match["number"] is not None:
            tokens.append(_number(match))
        elif match["clock"] is not None:
            tokens.append(Token("other", match[0], match.start(), match.end()))
        elif kind != "blank":
            tokens.append(Token(kind, match[0], match.start(), match.end()))  # type: ignore[arg-type]
    return tokens


def _number(match: re.Match[str]) -> Token:
    currency = match["currency"] is not None
    start = match.start() + len(match["currency"] or "")
    numeral = read_numeral(match[0][start - match.start() :]) if match.end() - start <= MAX_DIGITS else None
    if numeral is None:
        return Token("other", match[0], match.start(), match.end())
    return Token("number", match[0], match.start(), match.end(), numeral.value, numeral.decimals, currency)
