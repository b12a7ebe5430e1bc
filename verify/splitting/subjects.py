"""`Subject`: what a sentence is about, where its words make that plain: a name or short phrase before the verb."""

from __future__ import annotations

import re
from typing import NamedTuple

from .verbs import BE, PRESENT, is_finite, words

PRONOUNS = frozenset(["he", "she", "it", "they", "we", "i", "you"])
POSSESSIVES = frozenset(["his", "her", "its", "their"])

# fmt: off
_DETERMINERS = frozenset(["the", "a", "an", "this", "these", "those", "that"]) | POSSESSIVES
_CONNECTORS = frozenset(
    ["of", "de", "von", "van", "der", "da", "di", "la", "le", "du", "del", "bin", "al", "el", "the"]
)
_NO_SUBJECTS = frozenset([
    "in", "on", "at", "by", "with", "from", "to", "for", "after", "before", "during", "since", "until", "when",
    "while", "if", "because", "although", "though", "as", "there", "here", "however", "therefore", "thus", "and",
    "but", "or", "so", "who", "which", "what", "where", "why", "how", "that", "not", "no", "never", "every", "each",
    "all", "some", "many", "most", "few", "both", "neither", "either", "one", "according", "unlike", "like", "about",
    "over", "under", "between", "probably", "perhaps", "possibly", "maybe", "reportedly", "allegedly", "supposedly",
    "apparently", "usually", "often", "than", "also", "then", "later", "today", "currently", "only", "even", "whether",
    "unless", "nobody", "nothing", "let", "let's", "don't", "please",
])
_ADVERBS = frozenset(["also", "later", "then", "now", "still", "once", "soon", "eventually", "first"])
_MONTHS = frozenset([
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
])
# fmt: on
_LOCATIVES = frozenset(["in", "at", "near", "from", "across", "on", "into", "through"])
_PERSON_ARTICLES = frozenset(["the", "a", "an"])
_MOST_WORDS = 7
_LOOKED_AT = 600
_MARKS = re.compile(r"[*_]")
_DEFINES = re.compile(r"\s+(?:(?:also|both|probably|perhaps|now|still|once)\s+)?(?:an?|the|one\s+of)\s", re.IGNORECASE)


class Subject(NamedTuple):
    """The subject of a sentence and the verb behind it.

    Attributes:
        start: First character of the subject in the sentence.
        end: One past its last.
        verb: The verb, in lower case.
        verb_end: One past its last character.
        named: Whether it is a name, or a lone noun with a capital.
        pronoun: The pronoun in lower case, if it is or begins with one.
    """

    start: int
    end: int
    verb: str
    verb_end: int
    named: bool
    pronoun: str = ""


def subject_of(sentence: str) -> Subject | None:
    """The subject, if the sentence begins with it and a verb follows; None if that is not plain.

    "(1879-1955)" and a part between commas may stand between a name and its verb.

    Args:
        sentence: A sentence or clause.
    """
    found = words(_MARKS.sub(" ", sentence[:_LOOKED_AT]))
    i = 1 if found and found[0][0] in "\"'\u201c" else 0
    if len(found) < i + 2 or not (found[i][0][0].isalpha()) or found[i][0].lower() in _NO_SUBJECTS:
        return None
    first = found[i][0].lower()
    if first in PRONOUNS:
        return _with_verb(found, i, i + 1, named=False, pronoun=first)
    at = i + 1 if first in _DETERMINERS else i
    begun = at
    while at < len(found) and at - begun < _MOST_WORDS:
        word = found[at][0]
        lower = word.lower()
        if at > begun and word.islower() and (is_finite(lower) or lower in _ADVERBS or lower.endswith("ly")):
            break
        initial = word == "." and at > begun and len(found[at - 1][0]) == 1
        connector = lower in _CONNECTORS and at > begun
        if not initial and not connector and (not word[0].isalnum() or (lower in _NO_SUBJECTS and word.islower())):
            break
        at += 1
    if at == begun or found[at - 1][0].lower() in _CONNECTORS:
        return None
    inside = [m[0] for m in found[begun:at]]
    named = inside[0][0].isupper() and all(w[0].isupper() or not w[0].isalpha() or w in _CONNECTORS for w in inside)
    verb = _behind_aside(found, at) if named else at
    pronoun = first if first in POSSESSIVES else ""
    return _with_verb(found, i, at, named=named, pronoun=pronoun, verb=verb)


def _with_verb(
    found: list[re.Match[str]], first: int, after: int, *, named: bool, pronoun: str, verb: int | None = None
) -> Subject | None:
    at = after if verb is None else verb
    while at < len(found) and (found[at][0].lower() in _ADVERBS or found[at][0].lower().endswith("ly")):
        at += 1
    if at >= len(found) or not found[at][0].islower() or not is_finite(found[at][0]):
        return None
    match = found[at]
    end = found[after - 1].end()
    return Subject(found[first].start(), end, match[0], match.end(), named, pronoun)


def _behind_aside(found: list[re.Match[str]], at: int) -> int:
    """Past what stands in brackets or between commas behind a name."""
    if at < len(found) and found[at][0] in "(,":
        closing = ")" if found[at][0] == "(" else ","
        for j in range(at + 1, min(len(found) - 1, at + 16)):
            if found[j][0] == closing:
                return j + 1
    return at


def is_plural(subject: Subject) -> bool:
    """Whether a subject is of several, told by its verb."""
    return subject.verb in {"are", "were", "have"}


def is_described(subject: Subject) -> bool:
    """Whether the sentence says what its subject is or how it is, so that "it" behind it is likely the subject."""
    return subject.verb in BE or subject.verb in PRESENT & {"lies", "stands", "sits", "spans", "belongs", "rises"}


def is_defined(sentence: str, subject: Subject) -> bool:
    """Whether the sentence says what its subject is ("is a museum", "was one of the …"): it is about nothing else."""
    return subject.verb in BE and _DEFINES.match(sentence, subject.verb_end) is not None


def other_names(sentence: str, subject: Subject | None, *, persons: bool) -> bool:
    """Whether a sentence names something besides its subject that a pronoun behind it may mean.

    Names of places ("in Paris") and of months do not count; for persons neither do names with an article ("the Seine").
    """
    after = subject.end if subject is not None else 0
    found = words(_MARKS.sub(" ", sentence[after : after + 4 * _LOOKED_AT]))
    known = {w.lower() for w in re.findall(r"\w+", sentence[:after])} if subject is not None else set()
    within = False
    for i, match in enumerate(found):
        word = match[0]
        if not word[0].isupper() or (subject is None and i == 0):
            within = within and word.lower() in _CONNECTORS
            continue
        before = found[i - 1][0].lower() if i else ""
        exempt = (
            within
            or before in _LOCATIVES
            or (before == "of" and not persons)
            or word.lower() in _MONTHS
            or word.lower() in known
        )
        exempt = exempt or (i > 1 and before in _PERSON_ARTICLES and (persons or found[i - 2][0].lower() in _LOCATIVES))
        if not exempt:
            return True
        within = True
    return False
