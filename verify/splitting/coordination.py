"""A sentence cut where it says two things: "A was born in X and died in Y", two clauses, a semicolon. Only where safe.

Nothing is cut in sentences that suppose, deny, hedge, report or compare: both halves may stand under one such word.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .subjects import PRONOUNS, Subject, subject_of
from .verbs import AUXILIARIES, BE, PRESENT, SIMPLE_PAST, has_verb, is_past, words

_UNSAFE = re.compile(
    r"\b(?:if|unless|whether|neither|nor|either|or|than|would|could|should|might|may|can|must|will|because|although"
    r"|though"
    r"|while|when|until|since|who|whom|which|whose|that|where|both|not|no|never|cannot|probably|possibly|perhaps|likely"
    r"|unlikely|reportedly|allegedly|supposedly|apparently|maybe|generally|usually|often|sometimes|typically|presumably"
    r"|believed|thought|considered|said|says|claimed|rumou?red|seems?|appears?|respectively|together|jointly|only|every"
    r"|each|some|most|many|few|all|between|simultaneously|think|believe|suggest\w*|according|estimated|so|as)\b"
    r"|n['\u2019]t\b",
    re.IGNORECASE,
)
_AND = re.compile(r"(?P<comma>,)?\s+(?P<word>and|but)\s+")
_ADVERBS = frozenset(
    ["later", "then", "also", "eventually", "subsequently", "finally", "soon", "now", "today", "still"]
)
_SEMICOLON = re.compile(r";\s+")
# fmt: off
_NOUNISH = frozenset([
    "plays", "works", "states", "houses", "rules", "turns", "uses", "forms", "starts", "ends", "covers", "costs",
    "runs", "needs", "falls", "rises", "acts", "shows", "causes", "measures", "controls", "accounts", "supplies",
    "supports", "orbits", "moves", "means", "stores", "flows", "breaks", "borders", "hosts", "helps", "stands",
    "reaches", "lives", "lies", "increases", "leads", "joins", "lets", "lasts", "boils", "eats", "lays", "sits",
    "spans", "wins",
])
_OBJECT_STARTS = frozenset([
    "the", "a", "an", "his", "her", "its", "their", "in", "to", "from", "at", "on", "for", "with", "into", "several",
    "two", "three", "four", "five", "there", "until", "after", "over", "about", "under", "through", "back", "part",
])
# fmt: on
_TRANSITIVE_PAST = frozenset(["bore", "broke", "drank", "drove", "rang", "saw", "threw", "fell", "rose"])


class Part(NamedTuple):
    """A part of a sentence that says one thing.

    Attributes:
        start: First character in the sentence.
        end: One past the last.
        subject: Start and end of the words in the sentence that it needs in front; None if it has its own.
    """

    start: int
    end: int
    subject: tuple[int, int] | None = None


def parts(sentence: str) -> list[Part]:
    """The parts of a sentence, in order; the whole sentence where it must not be cut.

    Args:
        sentence: One sentence, code, formulas and quotations covered (`masking.masked`).
    """
    found: list[Part] = []
    for start, end in _clauses(sentence):
        found += _halves(sentence, start, end)
    return found


def _clauses(sentence: str) -> list[tuple[int, int]]:
    """At semicolons, where both sides have verbs."""
    cuts = list(_SEMICOLON.finditer(sentence))
    edges = [0, *(m.end() for m in cuts), len(sentence)]
    ends = [*(m.start() for m in cuts), len(sentence)]
    pieces = list(zip(edges, ends, strict=False))
    whole = all(subject_of(sentence[a:b]) is not None or (has_verb(sentence[a:b]) and a == 0) for a, b in pieces)
    return pieces if len(pieces) > 1 and whole else [(0, len(sentence))]


def _halves(sentence: str, start: int, end: int) -> list[Part]:
    whole = [Part(start, end)]
    clause = sentence[start:end]
    if len(clause) > 600 or _UNSAFE.search(clause):
        return whole
    subject = subject_of(clause)
    if subject is None:
        return whole
    for match in _AND.finditer(clause, subject.verb_end):
        rest = clause[match.end() :]
        if match["comma"] or rest.split(" ", 1)[0] in PRONOUNS:
            own = subject_of(rest)
            if own is not None and has_verb(clause[: match.start()]):
                return [Part(start, start + match.start()), *_halves(sentence, start + match.end(), end)]
        if match["word"] == "and" and _second_verb(clause, subject, match):
            first = Part(start, start + match.start())
            return [first, Part(start + match.end(), end, (start + subject.start, start + subject.end))]
    return whole


def _second_verb(clause: str, subject: Subject, match: re.Match[str]) -> bool:
    """Whether the subject's second verb follows an "and", so that the subject may be said again before it."""
    between = [w for w in words(clause[subject.verb_end : match.start()]) if w[0][0].isalnum()]
    following = words(clause[match.end() : match.end() + 120])
    if following and following[0][0] in _ADVERBS:
        following = following[1:]
    least = 2 if subject.verb in AUXILIARIES else 1  # "was born and died in Rome" is one thing
    if len(between) < least or len(following) < 2:
        return False
    verb, after = following[0][0], following[1][0]
    if not verb.islower() or not after[0].isalnum():
        return False
    past = is_past(subject.verb) or subject.verb in ("was", "were", "had", "did")
    if verb in BE:
        return (verb in ("was", "were")) == past or subject.verb in ("has", "have")
    if verb in ("has", "have"):
        return not past and after.lower() not in ("been",)
    if verb in SIMPLE_PAST:
        return past and (verb not in _TRANSITIVE_PAST or subject.verb not in AUXILIARIES)
    object_follows = after.lower() in _OBJECT_STARTS or after[0].isupper() or after[0].isdigit()
    if verb in PRESENT:
        return not past and verb not in _NOUNISH and object_follows
    plain_past = is_past(subject.verb) and subject.verb not in AUXILIARIES
    return is_past(verb) and plain_past and object_follows
