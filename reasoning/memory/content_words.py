"""`content_words`: the words of a text that say what it is about."""

from __future__ import annotations

from collections.abc import Iterable

from .duplicates import words_of

_EMPTY_WORDS = """
    a about after all also am an and any are as at be because been before being between both but by can could
    did do does doing done each either few for from further had has have having he her here hers him his how
    however i if in into is it its itself just many may me might more most much must my neither no nor not now
    of off on once one only or other our ours out over own same shall she should since so some step such than
    that the their theirs them then there these they this those though through thus to too under until up upon
    us very was we were what when where whether which while who whom whose why will with within without would
    you your yours
"""
_EMPTY = frozenset(_EMPTY_WORDS.split())


def content_words(text: str) -> frozenset[str]:
    """The words of a text without those that stand in any English text; words of other languages all count.

    A plural counts as its singular, by its ending alone.
    """
    return content_of(words_of(text))


def content_of(words: Iterable[str]) -> frozenset[str]:
    """Those of some words, in normal form, that say what a text is about (see `content_words`)."""
    return frozenset(_singular(word) for word in words if word not in _EMPTY)


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
