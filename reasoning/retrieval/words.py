"""words.

`content_terms`: the words of a text that say what it is about.

What a claim and a text have in common word by word: words with a meaning of their own, negations, numbers, names.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from ..answers.numerals import find_numerals
from ..segmentation import sentence_spans
from .deduplication import normalized_words as normal_words_of

_WORD = re.compile(r"\w+(?:['\u2019]\w+)?")


def split_words(text: str) -> list[str]:
    """The words of a text as they are compared: without case, marks over letters and the English genitive.

    Ideographs and kana, which have no blanks between words, are words of one character each.
    """
    folded = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in folded if not unicodedata.combining(c))
    found: list[str] = []
    for match in _WORD.finditer(plain):
        word = match[0].replace("\u2019", "'").removesuffix("'s")
        found += _split(word) if any(c >= "\u3040" for c in word) else [word]
    return found


def _split(word: str) -> list[str]:
    return re.findall(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+", word)


_EMPTY_WORDS = """
    a about after all also am an and any are as at be because been before being between both but by can could
    did do does doing done each either few for from further had has have having he her here hers him his how
    however i if in into is it its itself just many may me might more most much must my neither no nor not now
    of off on once one only or other our ours out over own same shall she should since so some step such than
    that the their theirs them then there these they this those though through thus to too under until up upon
    us very was we were what when where whether which while who whom whose why will with within without would
    you your yours
"""
_EMPTY_SET = frozenset(_EMPTY_WORDS.split())


def content_terms(text: str) -> frozenset[str]:
    """The words of a text without those that stand in any English text; words of other languages all count.

    A plural counts as its singular, by its ending alone.
    """
    return terms_of(normal_words_of(text))


def terms_of(words: Iterable[str]) -> frozenset[str]:
    """Those of some words, in normal form, that say what a text is about (see `content_terms`)."""
    return frozenset(_singular(word) for word in words if word not in _EMPTY_SET)


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


# fmt: off
_NEGATIONS = frozenset([
    "not", "no", "never", "none", "nobody", "nothing", "neither", "nor", "without", "cannot", "nowhere",
])
_IDLE = frozenset([
    "a", "an", "the", "this", "that", "these", "those", "some", "any", "such", "both", "each", "its", "his", "her",
    "their", "my", "your", "our", "it", "he", "she", "they", "we", "you", "i", "him", "them", "me", "us", "who",
    "whom", "whose", "which", "what", "where", "when", "why", "how", "there", "here", "of", "in", "on", "at", "to",
    "for", "by", "from", "with", "and", "or", "but", "as", "if", "than", "then", "so", "also", "into", "onto", "is",
    "are", "was", "were", "be", "been", "being", "am", "has", "have", "had", "having", "do", "does", "did", "can",
    "could", "will", "would", "shall", "should", "may", "might", "must", "about", "because", "while", "during",
])
# fmt: on
_CAPITALISED = re.compile(r"[^\W\d_][\w'\u2019-]*")


def content_words(text: str) -> list[str]:
    """The words of a text that mean something by themselves, folded as `split_words` folds; negations are none of them."""
    return [w for w in split_words(text) if w not in _IDLE and not _denies(w)]


def is_negated(text: str) -> bool:
    """Whether an odd number of words of the text deny: two denials are none."""
    return sum(map(_denies, split_words(text))) % 2 == 1


def number_values(text: str) -> frozenset[Fraction]:
    """What the numbers written in digits are worth."""
    return frozenset(n.value for n in find_numerals(text))


def capitalised_words(text: str) -> frozenset[str]:
    """Words with a capital letter, folded; a sentence's first word too, unless it means nothing by itself."""
    capitals = (m[0] for m in _CAPITALISED.finditer(text) if m[0][0].isupper())
    return frozenset(w for capital in capitals for w in content_words(capital))


def sentences(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence of a text."""
    return list(sentence_spans(text))


def sentence_scores(claim: str, texts: Sequence[str]) -> list[float]:
    """How much each text has in common with a claim: an F1 of words, each weighed by how rare it is among the texts.

    The weight is BM25's inverse document frequency, ln(1 + (N - n + 0.5) / (n + 0.5)), with N texts of which n have the
    word (Robertson and Zaragoza 2009, section 3.4, in the form that is never negative).

    Args:
        claim: The claim.
        texts: Sentences, or parts of one document in any other cut.

    Returns:
        Scores in [0, 1], in order; 0 where no word with a meaning of its own is shared.
    """
    found = [frozenset(content_words(text)) for text in texts]
    holders = Counter(word for words in found for word in words)
    wanted = frozenset(content_words(claim))
    weights = {w: _rarity(len(texts), holders[w]) for w in wanted | holders.keys()}
    return [_f1(wanted, words, weights) for words in found]


def _f1(wanted: frozenset[str], words: frozenset[str], weights: Mapping[str, float]) -> float:
    shared = _weight(wanted & words, weights)
    both = _weight(wanted, weights) + _weight(words, weights)
    return 2 * shared / both if shared else 0.0


def _weight(words: Iterable[str], weights: Mapping[str, float]) -> float:
    return math.fsum(weights[w] for w in words)


def _rarity(texts: int, holders: int) -> float:
    return math.log(1 + (texts - holders + 0.5) / (holders + 0.5))


def _denies(word: str) -> bool:
    return word in _NEGATIONS or word.endswith("n't")
