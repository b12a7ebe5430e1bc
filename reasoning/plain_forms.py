r"""Sameness of answers that needs no algebra: letters, yes and no, numbers, texts up to case, articles, punctuation.

What is decided here, and how:

- Numbers are compared by exact value: `1/2`, `0.5`, `\frac12` and `50%` are the same, `-0` and `0`, `1,000` and `1000`.
- A percentage is worth a hundredth of its figure, so `50%` is not `50`; the extractor leaves the sign away where the
  question asks for a percentage. This keeps the relation transitive.
- A fraction and a decimal of at least four places are the same if the decimal is the fraction, rounded: `1/3` and
  `0.3333`, but not `0.33`.
- A unit may be left away (`5 km` and `5`); different units differ (`5 km`, `5 kg`).
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from ..core.question import AnswerKind
from .numerals import Numeral, read_numeral
from .reading import plain_characters
from .wrappings import MAX_ANSWER_CHARS, unwrap

_YES = frozenset({"yes", "true", "y", "correct"})
_NO = frozenset({"no", "false", "n", "incorrect"})
_LETTER = re.compile(r"[(\[]?\s?([A-Za-z])\s?[)\].:]?")
_ARTICLES = re.compile(r"\b(?:the|a|an)\b")
_PUNCTUATION = re.compile(r"[^\w\s%+\-/<>=^]|_")
_HYPHEN = re.compile("(?<=[^\\W\\d_])[-\u2010\u2011](?=[^\\W\\d_])")
_LIST_OR_DECIMAL = re.compile(r"-?[0-9]+,(?:[0-9]{1,2}|[0-9]{4,})")
_BLANKS = re.compile(r"\s+")
_FORMULA_NOISE = re.compile(r"\\(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])|\\[,;:! ]|\s+")
_WORDS = re.compile(r"[^\W\d_][^\W\d_'’\-]*(?:[\s,'’\-]+[^\W\d_]+)*")  # noqa: RUF001 (typographic apostrophe)
_LONG_RUN = re.compile(r"[^\W\d_]{3,}")
_FUNCTIONS = frozenset(
    ["sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "max", "min", "gcd", "lcm", "mod", "inf", "arg"]
)
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s?\{([^{}]*)\}")
_UNIT = re.compile(r"(?P<number>.{0,60}?[0-9}])[\s~]*(?P<unit>[^\W\d_][^\d=+*/^{}()\[\]\\<>$,;]{0,40})", re.DOTALL)
_MIN_DECIMALS = 4


def same_plainly(a: str, b: str, kind: AnswerKind) -> bool | None:
    """Whether two answers are the same, as far as that can be told without algebra.

    Args:
        a: An answer.
        b: Another.
        kind: What the answers are; for "choice", "yes_no" and "text" the answer is always decided here.

    Returns:
        Yes, no, or None where only mathematics can tell.
    """
    if a == b:
        return True
    a, b = a[: 4 * MAX_ANSWER_CHARS], b[: 4 * MAX_ANSWER_CHARS]
    match kind:
        case "choice":
            return _letter(a) == _letter(b)
        case "yes_no":
            return _assent(a) == _assent(b)
        case "text":
            return text_form(a) == text_form(b) or _same_number(a, b) is True
        case _:
            return _same_mathematics(a, b, kind)


def text_form(answer: str) -> str:
    """An answer without case, articles, punctuation, wrappings and blanks too many."""
    text = unicodedata.normalize("NFKC", plain_characters(answer))
    start, end = unwrap(text, 0, len(text))
    text = _TEXT_COMMAND.sub(r"\1", text[start:end]).casefold()
    text = _HYPHEN.sub(" ", text)
    bare = _BLANKS.sub(" ", _PUNCTUATION.sub(" ", text)).strip()
    return _BLANKS.sub(" ", _ARTICLES.sub(" ", bare)).strip() or bare or text


def formula_form(answer: str) -> str:
    """A formula without its dollars, spacing and size commands; the case of letters stays."""
    text = plain_characters(answer)
    start, end = unwrap(text, 0, len(text))
    text = text[start:end].replace("\\$", "")  # the currency is a unit
    if text.count("$") == 1:  # half of a pair
        text = text.replace("$", "")
    return text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").strip()


def _same_mathematics(a: str, b: str, kind: AnswerKind) -> bool | None:
    formula_a, formula_b = formula_form(a), formula_form(b)
    if _FORMULA_NOISE.sub("", formula_a) == _FORMULA_NOISE.sub("", formula_b):
        return True
    # In mathematics "1,2" is a list rather than a decimal.
    listed = kind == "math" and (_LIST_OR_DECIMAL.fullmatch(formula_a) or _LIST_OR_DECIMAL.fullmatch(formula_b))
    by_number = None if listed else _same_number(formula_a, formula_b)
    if by_number is not None:
        return by_number
    words_a, words_b = _is_words(formula_a), _is_words(formula_b)
    if words_a and words_b:
        return text_form(a) == text_form(b)
    if words_a or words_b:  # "no solution" is no formula
        return False
    if kind == "auto" and not any(re.search(r"[\d\\=^+<>]", f) for f in (formula_a, formula_b)):
        return text_form(a) == text_form(b)
    return None


def _letter(answer: str) -> str:
    start, end = unwrap(answer, 0, len(answer))
    letter = _LETTER.fullmatch(answer[start:end])
    return letter[1].upper() if letter else text_form(answer)


def _assent(answer: str) -> str:
    form = text_form(answer)
    return "yes" if form in _YES else "no" if form in _NO else form


def _same_number(a: str, b: str) -> bool | None:
    """Whether two numbers, with units or without, are the same; None if either is no number."""
    left, right = _quantity(a), _quantity(b)
    if left is None or right is None:
        return None
    return _values_agree(left[0], right[0]) and _units_agree(left[1], right[1])


def _quantity(answer: str) -> tuple[Numeral, str] | None:
    text = plain_characters(answer)
    start, end = unwrap(text, 0, len(text))
    text = text[start:end]
    numeral = read_numeral(text)
    if numeral is not None:
        return numeral, ""
    if len(text) > 200:
        return None
    text = _TEXT_COMMAND.sub(r" \1 ", text).replace("^\\circ", " degrees").replace("^{\\circ}", " degrees").strip()
    split = _UNIT.fullmatch(text.rstrip(" ."))
    numeral = read_numeral(split["number"]) if split else None
    # One letter right behind a figure is a variable ("2x"), a word apart is a unit.
    if split is None or numeral is None or (len(split["unit"]) == 1 and " " not in text):
        return None
    return numeral, split["unit"].casefold().strip(" .")


def _values_agree(a: Numeral, b: Numeral) -> bool:
    if a.value == b.value:
        return True
    if (a.decimals is None) == (b.decimals is None):
        return False
    places = a.decimals if a.decimals is not None else b.decimals
    exact = b if a.decimals is not None else a
    if places is None or places < _MIN_DECIMALS or exact.value.denominator == 1:
        return False
    return abs(a.value - b.value) * 2 * Fraction(10) ** places <= 1


def _units_agree(a: str, b: str) -> bool:
    """Whether two units may be one: either missing, the same up to a plural, or one the other's abbreviation."""
    short, long = sorted((a.rstrip("s"), b.rstrip("s")), key=len)
    if not short or short == long:
        return True
    if len(long) < 4 or short[0] != long[0]:
        return False
    letters = iter(long)
    return all(letter in letters for letter in short)


def _is_words(formula: str) -> bool:
    text = _TEXT_COMMAND.sub(r"\1", formula).strip()
    if not _WORDS.fullmatch(text):
        return False
    return any(run.lower() not in _FUNCTIONS for run in _LONG_RUN.findall(text))
