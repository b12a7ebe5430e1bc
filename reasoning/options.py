"""Which option of a multiple-choice question a text names: by letter, by its words, or by being the only one mentioned.

A letter counts only if the question has that many options. The article "A" and the pronoun "I" are no letters: alone,
they need a bracket, a full stop or the end behind them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .numerals import read_numeral

_BRACKETED = re.compile(r"(?<![\w(\[])[(\[]\s?([A-Za-z])\s?[)\]]|\\text\{\s?\(?([A-Z])\)?\s?\}")
_NAMED = re.compile(
    r"\b(?:option|choice|letter|answer)\s{1,3}(?:is\s{1,3})?[*_(\[\"']{0,4}([A-Za-z])\b(?!')", re.IGNORECASE
)
_LEADING = re.compile(r"[\s*_`\"'#>$]{0,8}(?:\\(?:text|textbf|mathrm|mathbf)\{)?[(\[]?\s?([A-Za-z])(?![^\W_])(?!')")
_AFTER_BARE = re.compile(r"[\s*_`\"'$}]{0,8}(?:$|[).:,;\]\-–—\n]|(?:because|since|as|is|and|or|which|due|with)\b)")  # noqa: RUF001
_NEGATION = re.compile(
    r"(?:\bnot|n't|\bneither|\bexclude|\beliminate|\brule out|\bincorrect)\s{1,3}(?:option |choice |be )?$"
)
_ALSO = re.compile(r"[\s*)_.\]]{0,6}(?:and|or|&|/|,)\s{0,3}(?:option\s|choice\s)?[(\[*]{0,3}([A-Za-z])(?![^\W_])(?!')")
_TRAILING = re.compile(r"(?<=\s)[*_(\"']{0,3}([A-Z])[*_)\"'.!]{0,4}\s{0,8}\Z")
_LETTER_BEFORE = re.compile(r"(?<![^\W_])[A-Z][)*_.\s,/]{1,4}(?:(?:and|or|&)\s{1,2})?[*_(\"']{0,3}$")
_WORD_BREAKS = re.compile(r"[\s\-_]+")


def letter_of(index: int) -> str:
    """The letter of an option: 0 is "A"."""
    return chr(ord("A") + index)


def named_option(text: str, choices: Sequence[str]) -> tuple[str, int, int] | None:
    """The option that a short text names: a letter at its beginning, else an option's own words.

    Where letter and words disagree, the letter is believed. Several letters ("B and C") name none.

    Args:
        text: A short text: what follows "the answer is", or a box's content.
        choices: The options in order.

    Returns:
        Letter, start and end of what named it.
    """
    leading = _LEADING.match(text)
    if leading and _is_letter(text, leading, len(choices)):
        also = _ALSO.match(text, leading.end())
        if also and _index(also[1], len(choices)) is not None and _ends_letter(text, also):
            return None
        return leading[1].upper(), leading.start(1), leading.end(1)
    by_words = _by_words(text, choices)
    if len(by_words) == 1:
        return by_words[0]
    named = _letters(text, choices)
    return named[0] if len({letter for letter, _, _ in named}) == 1 else None


def only_option(text: str, choices: Sequence[str]) -> tuple[str, int, int] | None:
    """The option that a longer text mentions when it mentions no other; the last mention."""
    mentions = _letters(text, choices) or _by_words(text, choices)
    return mentions[-1] if len({letter for letter, _, _ in mentions}) == 1 else None


def _index(letter: str, count: int) -> int | None:
    index = ord(letter.upper()) - ord("A")
    return index if 0 <= index < count else None


def _is_letter(text: str, match: re.Match[str], count: int) -> bool:
    letter = match[1]
    if _index(letter, count) is None:
        return False
    bracketed = text[match.start(1) - 1 : match.start(1)] in {"(", "["} or text[match.end(1) : match.end(1) + 1] == ")"
    if bracketed:
        return True
    if letter.islower() or letter in "AI":
        return _AFTER_BARE.match(text, match.end(1)) is not None and not text[match.end(1) :].startswith("-")
    return True


def _ends_letter(text: str, match: re.Match[str]) -> bool:
    return match[1].isupper() or text[match.end(1) : match.end(1) + 1] == ")"


def _letters(text: str, choices: Sequence[str]) -> list[tuple[str, int, int]]:
    found = []
    for pattern in (_BRACKETED, _NAMED, _TRAILING):
        for match in pattern.finditer(text):
            group = 1 if match[1] or pattern.groups == 1 else 2
            letter, start, end = match[group], match.start(group), match.end(group)
            denied = _NEGATION.search(text, max(0, match.start() - 24), match.start())
            if denied or _index(letter, len(choices)) is None:
                continue
            if pattern is _NAMED and (letter.islower() or letter in "AI") and not _AFTER_BARE.match(text, end):
                continue
            if pattern is _TRAILING and _LETTER_BEFORE.search(text, max(0, start - 12), start):
                continue  # "B, C" and "B or C" name none
            found.append((letter.upper(), start, end))
            also = _ALSO.match(text, end)
            if also and _index(also[1], len(choices)) is not None and _ends_letter(text, also):
                found.append((also[1].upper(), also.start(1), also.end(1)))
    return sorted(found, key=lambda mention: mention[1])


def _by_words(text: str, choices: Sequence[str]) -> list[tuple[str, int, int]]:
    """Options whose words stand in the text, an option inside a longer one not counted; last mention of each."""
    number = read_numeral(text)
    mentions: list[tuple[int, int, int]] = []
    for i, choice in enumerate(choices):
        worth = read_numeral(choice)
        if number is not None and worth is not None:
            if number.value == worth.value:
                mentions.append((i, 0, len(text)))
            continue
        pattern = _choice_pattern(choice)
        if pattern is None:
            continue
        for match in pattern.finditer(text):
            if not _NEGATION.search(text, max(0, match.start() - 24), match.start()):
                mentions.append((i, match.start(), match.end()))
    outer = [m for m in mentions if not any(_holds(other, m) for other in mentions[:200])]
    last = {i: (letter_of(i), start, end) for i, start, end in sorted(outer[:1000], key=lambda m: m[1])}
    return sorted(last.values(), key=lambda mention: mention[1])


def _holds(outer: tuple[int, int, int], inner: tuple[int, int, int]) -> bool:
    """Whether a mention lies inside a longer one."""
    return outer[1] <= inner[1] and inner[2] <= outer[2] and outer[2] - outer[1] > inner[2] - inner[1]


def _choice_pattern(choice: str) -> re.Pattern[str] | None:
    words = [re.escape(w) for w in _WORD_BREAKS.split(choice.strip().rstrip(".").strip()) if w]
    if not words or len(words) > 60:
        return None
    body = r"[\s\-_]{1,3}".join(words)
    return re.compile(rf"(?<![^\W_])(?<![0-9][.,]){body}(?![^\W_])(?![.,][0-9])", re.IGNORECASE)
