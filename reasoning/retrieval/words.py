"""Tokenization for retrieval: folded words, content words, and the stop-word list."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from ...core.unicode_forms import normalize
from ..answers.normalization import find_numerals

_WORD = re.compile(r"\w+(?:['\u2019]\w+)?")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
_CAPITALISED = re.compile(r"[^\W\d_][\w'\u2019-]*")

NEGATIONS = frozenset(
    ["not", "no", "never", "none", "nobody", "nothing", "neither", "nor", "without", "cannot", "nowhere"]
)
_STOP_WORDS = """
    a about after all also am an and any are as at be because been before being between both but by can could
    did do does doing done during each either few for from further had has have having he her here hers him his how
    however i if in into is it its itself just many may me might more most much must my now
    of off on once one only onto or other our ours out over own same shall she should since so some step such than
    that the their theirs them then there these they this those though through thus to too under until up upon
    us very was we were what when where whether which while who whom whose why will with within would
    you your yours
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""English function words; negations are not among them."""


def split_words(text: str) -> list[str]:
    """Words without case, diacritics and the English genitive; each ideograph or kana is a word of its own."""
    folded = normalize("NFKD", text.casefold())
    plain = "".join(c for c in folded if not unicodedata.combining(c))
    words: list[str] = []
    for match in _WORD.finditer(plain):
        word = match[0].replace("\u2019", "'").removesuffix("'s")
        words += _CJK.findall(word) if any(c >= "\u3040" for c in word) else [word]
    return words


def content_words(text: str) -> list[str]:
    """The words of a text in order, without stop words and negations."""
    return [word for word in split_words(text) if word not in STOP_WORDS and not _is_negation(word)]


def content_terms(text: str) -> frozenset[str]:
    """The distinct content words of a text, with plurals reduced to singulars by their ending."""
    return frozenset(map(_singular, content_words(text)))


def is_negated(text: str) -> bool:
    """Whether an odd number of words negate."""
    return sum(map(_is_negation, split_words(text))) % 2 == 1


def number_values(text: str) -> frozenset[Fraction]:
    """Values of the numbers written in digits."""
    return frozenset(n.value for n in find_numerals(text))


def capitalised_words(text: str) -> frozenset[str]:
    """Content words that begin with a capital letter, folded, including the first word of a sentence."""
    capitals = (m[0] for m in _CAPITALISED.finditer(text) if m[0][0].isupper())
    return frozenset(word for capital in capitals for word in content_words(capital))


def sentence_scores(claim: str, texts: Sequence[str]) -> list[float]:
    """F1 of the content words that each text shares with a claim, each word weighted by its inverse document frequency.

    The weight is ln(1 + (N - n + 0.5) / (n + 0.5)) for N texts of which n contain the word (Robertson and Zaragoza
    2009, section 3.4). Scores are in [0, 1], in the order of `texts`; 0 without a common content word.
    """
    words_by_text = [frozenset(content_words(text)) for text in texts]
    document_frequency = Counter(word for words in words_by_text for word in words)
    claim_words = frozenset(content_words(claim))
    weights = {w: _idf(len(texts), document_frequency[w]) for w in claim_words | document_frequency.keys()}
    return [_f1(claim_words, words, weights) for words in words_by_text]


def _f1(claim: frozenset[str], words: frozenset[str], weights: Mapping[str, float]) -> float:
    shared = _total(claim & words, weights)
    return 2 * shared / (_total(claim, weights) + _total(words, weights)) if shared else 0.0


def _total(words: Iterable[str], weights: Mapping[str, float]) -> float:
    return math.fsum(weights[w] for w in words)


def _idf(num_texts: int, frequency: int) -> float:
    return math.log(1 + (num_texts - frequency + 0.5) / (frequency + 0.5))


def _is_negation(word: str) -> bool:
    return word in NEGATIONS or word.endswith("n't")


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
