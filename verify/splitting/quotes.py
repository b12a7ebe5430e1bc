"""Where a model's quotation stands in an answer, and whether a model's claim adds to what the answer says."""

from __future__ import annotations

import re

from ...reasoning.brains.bm25 import words_of
from ..entailment.content_words import content_words, negated, numbers
from .subjects import subject_of

_MOST_QUOTED = 2000
_BLANK = r"(?:\s+>)?\s+"
_HEDGES = re.compile(
    r"\b(?:probably|possibly|perhaps|likely|unlikely|reportedly|allegedly|supposedly|apparently|maybe|may|might"
    r"|could|believed"
    r"|thought|said|claimed|rumou?red|seems?|appears?|suggests?|estimated|about|approximately|roughly|around|nearly"
    r"|almost"
    r"|usually|often|sometimes|generally|typically|mostly|if)\b",
    re.IGNORECASE,
)
_ENDINGS = ("ings", "ing", "edly", "ed", "es", "s", "ly", "d")
_LEAST_STEM = 3
_NAME = re.compile(r"(?<=\s)[^\W\d_a-z][\w'\u2019-]*")


def located(quote: str, answer: str, after: int = 0) -> tuple[int, int] | None:
    """Where a quotation stands in an answer: as it is, or else with other blanks; from `after` on if it does.

    Args:
        quote: What a model says the answer says.
        answer: The answer.
        after: Where to look first.

    Returns:
        Start and end in the answer; None if it does not stand there.
    """
    quote = quote.strip()
    if not quote or len(quote) > _MOST_QUOTED:
        return None
    for begin in (after, 0):
        at = answer.find(quote, begin)
        if at >= 0:
            return at, at + len(quote)
    pattern = re.compile(_BLANK.join(map(re.escape, quote.split())))
    match = pattern.search(answer, after) or pattern.search(answer)
    return match.span() if match else None


class Said:
    """What may be said again: the words and numbers of a text.

    Args:
        text: The text.
    """

    def __init__(self, text: str) -> None:
        self._words = frozenset(words_of(text))
        self._stems = frozenset(map(_stem, self._words))
        self.numbers = numbers(text)

    def lacks(self, word: str, *, exactly: bool) -> bool:
        """Whether a word is not said, or if it need not be the same exactly, no form of it."""
        return word not in self._words and (exactly or _stem(word) not in self._stems)


def added(claim: str, quote: str, before: str) -> str:
    """What a claim says that is not said; empty if it adds and leaves out nothing that matters.

    Every word with a meaning of its own must stand in the quotation, or in what is before it and may be meant by its
    pronouns: the answer so far and the question. Where the quotation has a subject of its own, only names may
    come from there. Names and numbers must be the same, other words may have another form; denials and hedges must be
    those of the quotation.

    Args:
        claim: The claim.
        quote: The part of the answer that it says again.
        before: The question and the answer up to the quotation.
    """
    own, around = Said(quote), Said(f"{before}\n{quote}")
    strange = numbers(claim) - around.numbers
    if strange:
        return f"the number {min(strange)}"
    names = {w for m in _NAME.finditer(claim) for w in content_words(m[0])}
    subject = subject_of(quote)
    complete = subject is not None and not subject.pronoun
    for word in content_words(claim):
        exactly = word in names or word[0].isdigit()
        said = own if complete and word not in names else around
        if said.lacks(word, exactly=exactly):
            return f"the word {word!r}"
    if negated(claim) != negated(quote):
        return "a denial, or the lack of one"
    if not _hedges(quote) <= _hedges(claim):
        return "certainty"
    return "" if set(map(_stem, content_words(claim))) & set(map(_stem, content_words(quote))) else "all of it"


def _hedges(text: str) -> set[str]:
    return {m[0].lower() for m in _HEDGES.finditer(text)}


def _stem(word: str) -> str:
    """A word without the commonest endings of English."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _LEAST_STEM:
            return word[: -len(ending)].removesuffix("e")
    return word.removesuffix("e") if len(word) > _LEAST_STEM else word
