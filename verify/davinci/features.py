"""What the decision on a claim rests on: numbers about the claim and its judged passages, all by program.

A judge errs most on names, numbers and negations that a text lacks, and on texts about something else. So the decision
reads, besides the judge's probabilities, how much of the claim the passages contain, whether a number or name that they
lack has a competitor there, and whether a passage is about the same statement at all (`bears_on`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from ...reasoning.knowledge import Passage
from ...reasoning.retrieval.deduplication import normalized_text
from ...reasoning.segmentation import sentence_spans
from ..entailment.embedded_features import (
    ABSOLUTES,
    MAX_CHARS,
    FeatureWord,
    are_comparable,
    comparison_sign,
    feature_words,
    stem,
)
from ..injection import without_instructions
from ..types import Pair, Support

# -- passages and claims as they are judged

_FILE_NAME = re.compile(
    r".*\.(?:txt|md|markdown|rst|html?|pdf|json|jsonl|csv|tsv|xml|docx?|odt|rtf|log|tex|yaml|yml|toml)", re.IGNORECASE
)


@lru_cache(maxsize=8192)
def _clean(text: str) -> str:
    """A text without instructions to its judge, of the same length; cached, since claims share passages."""
    return without_instructions(text)


def judged_claim(claim: str) -> str:
    """The claim as it is judged: without instructions to the judge, unless it is nothing else."""
    clean = _clean(claim)
    return claim if clean == claim else " ".join(clean.split()) or claim


def judged_passage(passage: Passage) -> Passage:
    """The passage as it is judged, compared and shown; its text has the length of the original.

    Instructions to the judge are blank in text and title, and a title that is the name of a file, which states nothing,
    is left out.
    """
    title = "" if _FILE_NAME.fullmatch(passage.title) else _clean(passage.title)
    title = title if title == passage.title else " ".join(title.split())
    text = _clean(passage.text)
    if (title, text) == (passage.title, passage.text):
        return passage
    return passage.model_copy(update={"title": title, "text": text})


def judged_pair(claim: str, passage: Passage) -> Pair:
    """A passage and a claim as the judge reads them."""
    judged = judged_passage(passage)
    return Pair(judged.text, judged_claim(claim), judged.title)


# -- terms of a text

TermKind = Literal["word", "name", "number"]


@dataclass(frozen=True)
class Term:
    """A content word, name or number of a text.

    Attributes:
        key: Stem of a word; numbers of equal value have the same.
        kind: What it is.
        start: Its first character.
        end: One past the last.
        number: The number; None of words.
        unit: Stem of the word after a number, or that it is the day of a date; empty for neither.
        bound: Positive of a number that is a lower bound ("more than 100"), negative of an upper one, else 0.
        is_first: Whether it begins a sentence, so that its capital says little.
    """

    key: str
    kind: TermKind
    start: int
    end: int
    number: FeatureWord | None = None
    unit: str = ""
    bound: int = 0
    is_first: bool = False


@dataclass(frozen=True)
class TextTerms:
    """The terms of a text.

    Attributes:
        terms: In order.
        keys: Their keys.
        negates: Whether it has a word that negates.
        absolutes: Its words such as "only" and "all".
    """

    terms: tuple[Term, ...]
    keys: frozenset[str]
    negates: bool
    absolutes: frozenset[str]


_IN_NAME = re.compile(r"[^\W\d_]-$")
"""Before a number that is part of a name: "COVID-19"."""


@lru_cache(maxsize=8192)
def text_terms(text: str) -> TextTerms:
    """The terms of the first `MAX_CHARS` characters of a text."""
    text = text[:MAX_CHARS]
    words = feature_words(text)
    starts = {start for start, _ in sentence_spans(text)}
    terms: list[Term] = []
    for position, word in enumerate(words):
        if word.plain or word.negates:
            continue
        if word.counts:
            if _IN_NAME.search(text, max(0, word.start - 2), word.start):
                continue
            after = words[position + 1] if position + 1 < len(words) else None
            has_unit = after is not None and not after.counts and not after.plain and after.start - word.end <= 1
            unit = after.stem if after is not None and has_unit else ""
            unit = _DAY if _is_day(words, position) else unit
            bound = comparison_sign(words, position, text)
            terms.append(Term(word.stem, "number", word.start, word.end, word, unit, bound))
            continue
        is_first = word.start in starts
        is_name = word.kind == "name" and not (is_first and not _is_name_at_start(words, position))
        terms.append(Term(word.stem, "name" if is_name else "word", word.start, word.end, is_first=is_first))
    return TextTerms(
        tuple(terms),
        frozenset(term.key for term in terms),
        any(word.negates for word in words),
        frozenset(lowered for w in words if (lowered := text[w.start : w.end].casefold()) in ABSOLUTES),
    )


_DAY: Final = "day of a month"
_MONTHS: Final = frozenset(
    {"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november"}
    | {"december"}
)
_MONTH_STEMS: Final = frozenset(map(stem, _MONTHS))


def _is_day(words: Sequence[FeatureWord], position: int) -> bool:
    """Whether a number is the day of a date: a month is next to it."""
    neighbours = (*words[max(0, position - 1) : position], *words[position + 1 : position + 2])
    return words[position].value <= 31 and any(word.stem in _MONTH_STEMS for word in neighbours)


def _is_name_at_start(words: Sequence[FeatureWord], position: int) -> bool:
    """Whether the first word of a sentence is a name: another name, or a word such as "is", follows."""
    after = words[position + 1] if position + 1 < len(words) else None
    return after is not None and (after.kind == "name" or after.plain)


# -- a claim and one passage


@dataclass(frozen=True, slots=True)
class PassageMatch:
    """How a passage and a claim compare.

    Attributes:
        found: The claim's terms that the passage or its title has, by position among the claim's terms.
        nearest: Start and end of the sentence that has the most of them, of those beyond the claim's subject first.
        bears: Whether the passage bears on the claim (see `bears_on`).
        negation: Whether just one of the claim and the nearest sentence negates.
        competitors: For positions of missing numbers and names: the term of the nearest sentence in their place.
    """

    found: frozenset[int]
    nearest: tuple[int, int]
    bears: bool
    negation: bool
    competitors: tuple[tuple[int, Term], ...]


def compare(claim: str, passage: Passage) -> PassageMatch:
    """Compare a claim with a passage as it is judged."""
    judged = judged_passage(passage)
    return match_passage(judged_claim(claim), judged.title, judged.text)


def bears_on(claim: str, passage: Passage) -> bool:
    """Whether a passage is about what a claim states, not only about the same subject.

    It has a content word, name or number of the claim beyond the claim's subject and the passage's title. It shares the
    subject alone, and still bears on the claim, where both say what or where the subject is ("Ann is a judge", "Ann is
    an actor"), where it has another number in the same unit, where it has the dates of a life that the claim is
    about, and where the claim says "only" or "all".
    """
    return compare(claim, passage).bears


@lru_cache(maxsize=8192)
def match_passage(claim: str, title: str, text: str) -> PassageMatch:
    """Compare a claim with a passage, given by its title and text."""
    own, heading, body = text_terms(claim), text_terms(title), text_terms(text)
    in_text = frozenset(i for i, term in enumerate(own.terms) if term.key in body.keys or _bound_holds(term, body))
    in_title = frozenset(i for i, term in enumerate(own.terms) if term.key in heading.keys)
    spans = list(sentence_spans(text[:MAX_CHARS])) or [(0, len(text))]
    subject = _subject(claim, own)
    found = [{i for i in in_text if own.terms[i].key in text_terms(text[start:end]).keys} for start, end in spans]
    start, end = spans[max(range(len(spans)), key=lambda n: (len(found[n] - subject), len(found[n])))]
    sentence = text_terms(text[start:end])
    nearest = text[start:end]
    missing = [i for i in range(len(own.terms)) if i not in in_text and i not in in_title]
    competitors = [
        (i, other) for i in missing if (other := _competitor(own.terms[i], own, sentence, heading)) is not None
    ]
    has_subject = bool(subject & (in_text | in_title)) or _PRONOUN.match(nearest) is not None
    bears = bool(in_text - in_title - subject) or (
        has_subject
        and (
            (_is_copular(claim) and _is_copular(nearest))
            or bool(_LIFE.search(claim) and _LIFE_DATES.search(nearest))
            or bool(own.absolutes)
            or bool(_LOCATION.search(claim) and _LOCATION.search(nearest))
            # any sentence about the same subject may have a year or a plain number, but not one in the same unit
            or any(own.terms[i].unit == other.unit != "" for i, other in competitors)
        )
    )
    return PassageMatch(in_text | in_title, (start, end), bears, own.negates != sentence.negates, tuple(competitors))


def _competitor(term: Term, own: TextTerms, sentence: TextTerms, heading: TextTerms) -> Term | None:
    """The term of the nearest sentence that may stand in place of a missing number or name."""
    others = [t for t in sentence.terms if t.key not in own.keys]
    if term.number is not None:
        numbers = [t for t in others if _may_replace(t, term)]
        return min(numbers, key=lambda t: abs(_value(t) - _value(term)), default=None)
    if term.kind == "name":
        return next((t for t in others if t.kind == "name" and not t.is_first and t.key not in heading.keys), None)
    return None


_MAX_RATIO: Final = 3.0
"""Of two numbers without a common unit that may be about the same thing."""


def _may_replace(other: Term, missing: Term) -> bool:
    """Whether a number may be a different value of the same thing: of one kind, with one unit or a similar size."""
    if other.number is None or missing.number is None or not are_comparable(missing.number, other.number):
        return False
    if other.unit == missing.unit != "":
        return True
    low, high = sorted((abs(_value(other)), abs(_value(missing))))
    are_alike = _value(other).is_integer() == _value(missing).is_integer() and _DAY not in (other.unit, missing.unit)
    return are_alike and high <= _MAX_RATIO * low


def _bound_holds(term: Term, body: TextTerms) -> bool:
    """Whether the nearest number of a text is on the right side of a bound."""
    numbers = [_value(other) for other in body.terms if term.bound and _may_replace(other, term)]
    nearest = min(numbers, key=lambda value: abs(value - _value(term)), default=None)
    return nearest is not None and (nearest > _value(term)) == (term.bound > 0)


def _value(term: Term) -> float:
    return 0.0 if term.number is None else term.number.value


_DETERMINERS: Final = frozenset({"the", "a", "an", "this", "these", "those", "its", "their", "his", "her", "our"})
_MAX_SUBJECT: Final = 4


def _subject(claim: str, own: TextTerms) -> frozenset[int]:
    """Positions of the claim's first terms, up to its verb as far as words show it; never all of them."""
    by_start = {term.start: i for i, term in enumerate(own.terms)}
    subject: list[int] = []
    words = feature_words(claim[:MAX_CHARS])
    has_determiner = bool(words) and claim[words[0].start : words[0].end].casefold() in _DETERMINERS
    for number, word in enumerate(words):
        written = claim[word.start : word.end]
        if word.plain or word.negates:
            if (number == 0 and has_determiner) or (written.casefold() == "of" and subject):
                continue
            break
        position = by_start.get(word.start)
        if position is None or own.terms[position].number is not None:
            break
        is_name = written[0].isupper()
        if subject and not is_name:
            last = own.terms[subject[-1]]
            starts_with_name = last.kind == "name" or (number == 1 and not has_determiner)
            if starts_with_name or written.endswith("ed") or (written.endswith("s") and not written.endswith("ss")):
                break
        subject.append(position)
        if len(subject) == _MAX_SUBJECT:
            break
    return frozenset(subject if len(subject) < len(own.terms) else subject[:-1])


_LOCATION = re.compile(
    r"\b(?:is|are|was|were|stands?|stood|lies|lay|located|situated|based)\s+(?:\w+\s+)?(?:in|at|near|on)\b",
    re.IGNORECASE,
)
_PRONOUN = re.compile(r"\s*(?:it|he|she|they|this|these)\b", re.IGNORECASE)
_COPULA = re.compile(
    r"\b(?:is|are|was|were|be|been|being)(?:n[\'\u2019]t)?\b(?:\s+(?:not|never|also|still|only))*\s+(?P<next>\w+)",
    re.IGNORECASE,
)
_PARTICIPLES: Final = frozenset({"made", "built", "born", "held", "set", "led", "won", "cut", "shot", "sent", "sold"})
_LIFE = re.compile(r"\b(?:born|died)\b", re.IGNORECASE)
_LIFE_DATES = re.compile(r"\([^()]{0,200}\b[0-9]{3,4}\b[^()]{0,60}\)")


def _is_copular(sentence: str) -> bool:
    """Whether a form of "be" is followed by what something is, not by the participle of a passive."""
    return any(
        not match["next"].endswith(("ed", "en", "ing", "wn", "ught", "lt"))
        and match["next"].casefold() not in _PARTICIPLES
        for match in _COPULA.finditer(sentence)
    )


# -- the features of a claim


FEATURE_NAMES: Final = (
    "supports",
    "refutes",
    "words found",
    "number missing",
    "another number instead",
    "names missing",
    "negation on one side",
)
"""The features, in order. "supports" and "refutes" are the largest log-ratio of a passage's probability to neutral.
"words found" and "names missing" are shares of the claim's; the others are 0 or 1.

Left out, since the fit on other datasets was worse with them: fused probabilities of all passages, probabilities of two
passages as one text, missing names with a competitor, "only" and "all", and relevance by words (`bears_on`), which the
judge knows better."""

_MIN_STATED_CHARS: Final = 8
MIN_RATIO: Final = 1e-3
"""Added to both probabilities of a log-ratio, which is thus in [-7, 7]."""


VERBATIM: Final = Support(0.98, 0.01, 0.01)
"""The support of a passage with a sentence that is the claim, whatever the judge says of it: no judge is needed."""


def with_verbatim(claim: str, passages: Sequence[Passage], supports: Sequence[Support | None]) -> list[Support | None]:
    """The supports, with `VERBATIM` of a passage that has the claim as a sentence of its own."""
    return [
        VERBATIM if one is not None and one.supports < VERBATIM.supports and states(claim, passage) else one
        for passage, one in zip(passages, supports, strict=True)
    ]


def states(claim: str, passage: Passage) -> bool:
    """Whether a sentence of a passage is the claim, but for case and punctuation."""
    judged, own = judged_passage(passage), judged_claim(claim)
    found = compare(claim, passage)
    start, end = found.nearest
    if len(own) < _MIN_STATED_CHARS or len(found.found) < len(text_terms(own).terms):
        return False  # seen without normalising both texts
    return normalized_text(judged.text[start:end]) == normalized_text(own)


def claim_features(claim: str, passages: Sequence[Passage], supports: Sequence[Support | None]) -> tuple[float, ...]:
    """The features of a claim with its judged passages (`FEATURE_NAMES`); pure.

    Args:
        claim: The claim.
        passages: Its passages, best first.
        supports: The judge's probabilities of each; None where a response could not be parsed.
    """
    stated = with_verbatim(claim, passages, supports)
    parsed = [(passage, one) for passage, one in zip(passages, stated, strict=True) if one is not None]
    own = text_terms(judged_claim(claim))
    matches = [compare(claim, passage) for passage, _ in parsed]
    best = max(
        range(len(parsed)),
        key=lambda i: (max(parsed[i][1].supports, parsed[i][1].refutes), len(matches[i].found), -i),
        default=None,
    )
    found: set[int] = set().union(*(m.found for m in matches))
    missing = [i for i in range(len(own.terms)) if i not in found]
    competing = {i for m in matches if m.bears for i, _ in m.competitors}
    numbers = [i for i in missing if own.terms[i].number is not None]
    names = [i for i in missing if own.terms[i].kind == "name"]
    num_names = sum(term.kind == "name" for term in own.terms)
    return (
        max((_log_ratio(s.supports, s.neutral) for _, s in parsed), default=_log_ratio(0, 1)),
        max((_log_ratio(s.refutes, s.neutral) for _, s in parsed), default=_log_ratio(0, 1)),
        len(found) / len(own.terms) if own.terms else 0.0,
        float(bool(numbers)),
        float(any(i in competing for i in numbers)),
        len(names) / num_names if num_names else 0.0,
        float(best is not None and matches[best].negation),
    )


def _log_ratio(a: float, b: float) -> float:
    return math.log((a + MIN_RATIO) / (b + MIN_RATIO))


# -- explanations

# fmt: off
_LIGHT_WORDS: Final = frozenset([
    "how", "more", "less", "most", "well", "still", "use", "used", "make", "made", "take", "took", "get", "got",
    "come", "comes", "came", "go", "goes", "went", "give", "gave", "keep", "kept", "need", "needs", "let", "put",
    "run", "ran", "want", "way", "matter", "some", "any", "other", "another", "many", "much", "every", "everyone",
    "someone", "because", "since", "while", "however", "really", "currently", "mainly", "usually", "often",
])
# fmt: on
"""Words whose absence explains nothing to a reader."""
_ARTICLE = re.compile(r"\b(?:an?|the)\s+$", re.IGNORECASE)


def missing_words(claim: str, passages: Sequence[Passage], limit: int = 2) -> list[str]:
    """What no passage or title has of a claim, for people; at most `limit`, in the claim's order.

    Numbers and names come first, then words with an article ("a toll"), then other words in quotation marks, except
    light ones. Neighbouring names are one: "Anna Berg".
    """
    claim = judged_claim(claim)
    own = text_terms(claim)
    found: set[int] = set().union(*(compare(claim, p).found for p in passages))
    phrases: list[tuple[int, int, str]] = []
    previous: Term | None = None
    named = 0
    for term in (term for i, term in enumerate(own.terms) if i not in found):
        if term.start < named:
            continue  # the unit of a number before it
        written = _with_unit(claim, term)
        named = term.start + len(written)
        article = _ARTICLE.search(claim[: term.start])
        joins = previous is not None and claim[previous.end : term.start].isspace() and previous.kind == term.kind
        if term.kind != "word":
            start = phrases.pop()[1] if joins and term.kind == "name" else term.start
            phrases.append((0, start, claim[start : term.start] + written))
        elif article is not None:
            phrases.append((1, term.start, article[0].lower() + written))
        elif written.casefold() not in _LIGHT_WORDS:
            phrases.append((2, term.start, f'"{written}"'))
        previous = term
    kept = sorted(phrases)[:limit]
    return list(dict.fromkeys(phrase for _, _, phrase in sorted(kept, key=lambda one: one[1])))


_UNIT = re.compile(r"[ -]?[^\W\d_]+")


def _with_unit(text: str, term: Term) -> str:
    """A number as it is written, with the word after it if that is its unit."""
    unit = _UNIT.match(text, term.end) if term.unit else None
    return text[term.start : unit.end() if unit else term.end]


def replaced_term(claim: str, passages: Sequence[Passage]) -> tuple[str, str] | None:
    """A number of the claim that no passage has, and what the passage that bears on it has instead, as written.

    Numbers alone: another name in the same sentence need not be in the place of the missing one.
    """
    claim = judged_claim(claim)
    own = text_terms(claim)
    matches = [(p, compare(claim, p)) for p in passages]
    found: set[int] = set().union(*(m.found for _, m in matches))
    for passage, match in sorted(matches, key=lambda one: -len(one[1].found)):
        start, end = match.nearest
        for i, other in match.competitors if match.bears else ():
            if own.terms[i].number is not None and i not in found:
                term = own.terms[i]
                return _with_unit(claim, term), _with_unit(passage.text[start:end], other)
    return None
