"""Splitting a sentence into clauses with one statement each, by word forms only.

A sentence is split at a semicolon, and at "and" or "but" before a second subject or verb ("A was born in X and died in
Y"). Where a clause lacks its subject, verb or negation, it is repeated from the clause before it, and a verb phrase
that is left out is restored ("Anna passed, and Ben did not"). A sentence that supposes, reports or compares is not
split, and negation, modality and quantifiers are not carried over: they may apply to both halves.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .grammar import AUXILIARIES, BE, PRESENT, PRONOUNS, SIMPLE_PAST, Subject, has_verb, is_past, subject_of, words
from .verbs import UNAMBIGUOUS_BASES, base_form, finite_phrase, is_participle, negated

_NEVER_SPLIT = re.compile(
    r"\b(?:if|unless|whether|neither|nor|either|or|than|would|could|should|might|because|although|though"
    r"|while|when|until|since|who|whom|which|whose|that|where|both|probably|possibly|perhaps|likely"
    r"|unlikely|reportedly|allegedly|supposedly|apparently|maybe|generally|usually|often|sometimes|typically|presumably"
    r"|believed|thought|considered|said|says|claimed|rumou?red|seems?|appears?|respectively|together|jointly"
    r"|between|simultaneously|think|believe|suggest\w*|according|estimated|so|as|not only)\b",
    re.IGNORECASE,
)
_SPLIT_AT_SUBJECTS = re.compile(
    r"\b(?:not|no|never|cannot|can|may|must|will|shall|only|every|each|some|most|many|few|all|hardly|without|longer"
    r"|none|nobody|nothing|barely|rarely|seldom)\b|n['\u2019]t\b|\bfails?\b|\bfailed\b",
    re.IGNORECASE,
)
"""Words whose scope ends before a second subject, but may include a second verb."""
_AND = re.compile(r"(?P<comma>,)?\s+(?P<word>and|but)\s+")
_ADVERBS = frozenset(
    ["later", "then", "also", "eventually", "subsequently", "finally", "soon", "now", "today", "still"]
)
_SEMICOLON = re.compile(r";\s+")
# fmt: off
_ALSO_NOUNS = frozenset([
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
_PREPOSITIONS = frozenset([
    "in", "on", "at", "by", "from", "to", "for", "with", "of", "about", "under", "during", "into", "until", "since",
    "after", "before", "near", "against",
])
_PASSIVE = frozenset([
    "raised", "educated", "buried", "built", "designed", "written", "published", "founded", "painted", "restored",
    "rebuilt", "named", "released", "directed", "produced", "sold", "made", "destroyed", "damaged", "elected",
    "appointed", "awarded", "completed", "constructed", "demolished", "composed", "discovered", "invented", "created",
    "established", "introduced", "acquired", "bought", "recorded", "born", "killed", "signed", "held", "replaced",
    "renamed", "replaced", "tested", "approved", "cancelled", "canceled", "tried", "released",
])
"""Participles of verbs that take an object, so that after "was … and" they are passive, too."""
# fmt: on
_TRANSITIVE_PAST = frozenset(["bore", "broke", "drank", "drove", "rang", "saw", "threw", "fell", "rose"])
_DO = frozenset(["do", "does", "did"])
_HAVE = frozenset(["has", "have", "had"])
_MODALS = frozenset(["can", "could", "will", "would", "shall", "should", "may", "might", "must"])
_NAME = r"[^\W\d_a-z][\w'\u2019-]*(?:\s+(?:(?:of|the|de|von|van|der|da|di|la|le|du)\s+)?[^\W\d_a-z][\w'\u2019-]*)*"
_NUMBER = (
    r"(?:about\s+|over\s+|nearly\s+)?[0-9][0-9.,]*(?:\s*%)?|one|two|three|four|five|six|seven|eight|nine|ten|none|no"
)
_GAPPING = re.compile(
    rf"(?P<subject>(?:[Tt]he\s+)?{_NAME}|[Tt]he\s+(?:first|second|third|other|latter|new|old))\s+(?P<rest>(?:{_NUMBER}|[a-z]+)\b.*)"
)
_BUT_NOT = re.compile(r",?\s+but\s+not\s+(?P<rest>[^,;:]+?)(?P<stop>[.!]?)\s*$")
_RELATIVE = re.compile(rf"(?P<name>(?:[Tt]he\s+)?{_NAME}),\s+(?P<clause>(?:who|which)\s+(?=[a-z]))")
_ELLIPTIC = re.compile(
    r"(?P<subject>[^,;:]{1,80}?)\s+(?P<aux>is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|may"
    r"|might|must|ca|wo)(?P<not>n['\u2019]t|\s?not)?(?P<too>\s+(?:either|too|as well|also))?[.!]?$"
)
_QUANTIFIER = re.compile(r"(?:only|all|most|some|many|few|no|every|each|both)\s+(?:of\s+)?", re.IGNORECASE)
_SO = re.compile(
    r"(?P<so>so|neither|nor)\s+(?P<aux>is|are|was|were|do|does|did|has|have|had|can|could|will|would|should|may"
    r"|might|must)\s+(?P<subject>[^,;:]{1,80}?)[.!]?$",
    re.IGNORECASE,
)


class Part(NamedTuple):
    """A part of a sentence with one statement.

    Attributes:
        start: First character in the sentence.
        end: One past the last character.
        subject: Span in the sentence of the subject that precedes the statement; None if the part has its own.
        verb: What stands between that subject and the text, such as an auxiliary ("was", "does not cover").
        text: First character of the text that is taken from the part, if it is not `start`.
        shared: Whether the subject is that of the preceding part, in which a pronoun may have been replaced.
    """

    start: int
    end: int
    subject: tuple[int, int] | None = None
    verb: str = ""
    text: int | None = None
    shared: bool = True


def split_parts(sentence: str) -> list[Part]:
    """The parts of a sentence, in order; the complete sentence if it must not be split.

    Args:
        sentence: One sentence, code, formulas and quotations covered (`cover_markup`).
    """
    parts: list[Part] = []
    for start, end in _split_semicolons(sentence):
        parts += _split_relative(sentence, start, end)
    return parts


def _split_semicolons(sentence: str) -> list[tuple[int, int]]:
    """Split at semicolons if both sides have verbs."""
    separators = list(_SEMICOLON.finditer(sentence))
    starts = [0, *(m.end() for m in separators), len(sentence)]
    ends = [*(m.start() for m in separators), len(sentence)]
    pieces = list(zip(starts, ends, strict=False))
    all_have_verbs = all(
        subject_of(sentence[a:b]) is not None or (has_verb(sentence[a:b]) and a == 0) for a, b in pieces
    )
    return pieces if len(pieces) > 1 and all_have_verbs else [(0, len(sentence))]


def _split_relative(sentence: str, start: int, end: int) -> list[Part]:
    """Split off a relative clause at the end of a sentence that describes the name before it."""
    clause = sentence[start:end]
    matches = list(_RELATIVE.finditer(clause)) if len(clause) <= 600 and clause.count(",") == 1 else []
    if matches:
        match = matches[-1]
        head, rest = clause[: match.start("clause")].rstrip(", "), clause[match.end("clause") :]
        subject = subject_of(head)
        tokens = words(rest[:80])
        is_statement = subject is not None and subject.verb_end <= match.start("name") and len(tokens) > 1
        is_statement = is_statement and not head[: match.start("name")].endswith((" of ", " of the "))
        if is_statement and not _NEVER_SPLIT.search(head) and _is_verb(tokens[0][0]) and not _AND.search(rest):
            return [
                *_split_conjunction(sentence, start, start + len(head)),
                Part(
                    start + match.start("clause"),
                    end,
                    (start + match.start("name"), start + match.end("name")),
                    text=start + match.end("clause"),
                    shared=False,
                ),
            ]
    return _split_conjunction(sentence, start, end)


def _is_verb(word: str) -> bool:
    return word in AUXILIARIES or word in PRESENT or is_past(word) or base_form(word) not in (None, word)


def _split_conjunction(sentence: str, start: int, end: int) -> list[Part]:
    unchanged = [Part(start, end)]
    clause = sentence[start:end]
    if len(clause) > 600 or _NEVER_SPLIT.search(clause):
        return unchanged
    subject = subject_of(clause)
    if subject is None:
        return unchanged
    span = (start + subject.start, start + subject.end)
    contrast = _BUT_NOT.search(clause, subject.verb_end)
    if contrast is not None:
        verb = _negated_verb(clause, subject.verb, subject.verb_end, contrast)
        if verb is None:
            return unchanged
        return [
            Part(start, start + contrast.start()),
            Part(start + contrast.start("rest"), end, span, verb),
        ]
    is_scoped = _SPLIT_AT_SUBJECTS.search(clause) is not None
    for match in _AND.finditer(clause, subject.verb_end):
        rest, before = clause[match.end() :], clause[: match.start()]
        if before.count("(") != before.count(")"):
            continue
        elliptic = _ELLIPTIC.match(rest)
        if elliptic is not None:
            if complete_ellipsis(rest, before) is None:
                return unchanged
            return [Part(start, start + match.start()), Part(start + match.end(), end)]
        if match["comma"] or rest.split(" ", 1)[0] in PRONOUNS:
            second_subject = subject_of(rest)
            if second_subject is not None and has_verb(before):
                return [Part(start, start + match.start()), *_split_conjunction(sentence, start + match.end(), end)]
        if is_scoped or match["word"] != "and":
            continue
        first = Part(start, start + match.start())
        if _has_second_verb(clause, subject, match):
            return [first, Part(start + match.end(), end, span)]
        if subject.verb in BE and _has_second_participle(clause, subject.verb_end, match):
            return [first, Part(start + match.end(), end, span, subject.verb)]
        gap = _gap(clause, subject, match)
        if gap is not None:
            at = start + match.end()
            number, object_ = gap["rest"], words(clause[subject.verb_end : match.start()])
            is_bare = re.fullmatch(_NUMBER, number) is not None and len(object_) > 1
            noun = clause[subject.verb_end + object_[0].end() : match.start()] + "." if is_bare else ""
            own = (at, at + gap.end("subject"))
            verb = f"{subject.verb} {number}{noun}" if is_bare else subject.verb
            return [first, Part(at, end, own, verb, end if is_bare else at + gap.start("rest"), shared=False)]
    return unchanged


def _negated_verb(clause: str, verb: str, verb_end: int, contrast: re.Match[str]) -> str | None:
    """The negated verb, and what stands between it and the contrasted words: "does not cover", "is not"."""
    if _SPLIT_AT_SUBJECTS.search(clause[: contrast.start()]) or has_verb(f"x {contrast['rest']}"):
        return None
    between = words(clause[verb_end : contrast.start()])
    prepositions = [m for m in between if m[0].lower() in _PREPOSITIONS]
    first = contrast["rest"].split()[0].lower().rstrip(".")
    is_modal = verb in _MODALS or (verb in _HAVE and bool(between) and is_participle(between[0][0]))
    kept_end = verb_end + (between[0].end() if is_modal and between and first not in UNAMBIGUOUS_BASES else 0)
    if first in _PREPOSITIONS:
        same = [m for m in prepositions if m[0].lower() == first] or prepositions
        kept_end = verb_end + same[-1].start() if same else contrast.start()
    elif prepositions:
        kept_end = verb_end + prepositions[-1].end()
    kept = clause[verb_end:kept_end].split()
    if verb in BE or is_modal:
        return " ".join([negated(verb), *kept])
    base = base_form(verb)
    if base is None:
        return None
    auxiliary = "did" if is_past(verb) and base != verb else "do" if base == verb else "does"
    return " ".join([auxiliary, "not", base, *kept])


def _has_second_participle(clause: str, verb_end: int, match: re.Match[str]) -> bool:
    """Whether a second participle of the same passive follows: "was born in Basel and raised in Chur"."""
    between, following = clause[verb_end : match.start()].split(), clause[match.end() :].split()
    return (
        len(between) > 1
        and is_participle(between[0])
        and len(following) > 1
        and following[0] in _PASSIVE
        and following[1].lower() in _PREPOSITIONS
    )


def _gap(clause: str, subject: Subject, match: re.Match[str]) -> re.Match[str] | None:
    """A second subject and object whose verb is left out: "Anna won gold and Ben silver"."""
    if subject.verb in AUXILIARIES and subject.verb not in _HAVE:
        return None
    gap = _GAPPING.fullmatch(clause[match.end() :].rstrip(".! "))
    first = clause[subject.verb_end : match.start()].split()
    if gap is None or not first:
        return None
    second = gap["rest"].split()
    is_number = [re.fullmatch(_NUMBER, w) is not None for w in (first[0], second[0])]
    if all(is_number):
        return gap
    if first[0] in _PREPOSITIONS or second[0] in _PREPOSITIONS:
        return gap if first[0] == second[0] and len(first) == len(second) else None
    is_single = len(first) == len(second) == 1 and first[0].islower() and second[0].islower()
    return gap if is_single and not any(is_number) and not has_verb(f"x {gap['rest']}") else None


def _has_second_verb(clause: str, subject: Subject, match: re.Match[str]) -> bool:
    """Whether the subject's second verb follows an "and", so that the subject can be repeated before it."""
    between = [w for w in words(clause[subject.verb_end : match.start()]) if w[0][0].isalnum()]
    following = words(clause[match.end() : match.end() + 120])
    if following and following[0][0] in _ADVERBS:
        following = following[1:]
    min_words = 2 if subject.verb in AUXILIARIES else 1  # "was born and died in Rome" is a single statement
    if len(between) < min_words or len(following) < 2:
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
        return not past and verb not in _ALSO_NOUNS and object_follows
    plain_past = is_past(subject.verb) and subject.verb not in AUXILIARIES
    return is_past(verb) and plain_past and object_follows


def complete_ellipsis(clause: str, before: str) -> str | None:
    """A clause with the verb phrase that it leaves out: "Ben did not", after "Anna passed", is "Ben did not pass".

    Args:
        clause: The clause.
        before: The clause before it, without a pronoun that needs resolving.

    Returns:
        The complete clause; None if it leaves out nothing, or the clause before it does not decide what.
    """
    so = _SO.match(clause)
    match = so or _ELLIPTIC.match(clause)
    if match is None:
        return None
    auxiliary = match["aux"].lower()
    auxiliary = {"ca": "can", "wo": "will"}.get(auxiliary, auxiliary)
    is_negative = match["so"].lower() != "so" if so else match["not"] is not None
    predicate = _predicate(before, auxiliary)
    if predicate is None:
        return None
    subject = match["subject"][0].upper() + match["subject"][1:] if so else match["subject"]
    if is_negative:
        return f"{subject} {negated(auxiliary)} {predicate}."
    if auxiliary in _DO:
        return f"{subject} {finite_phrase(auxiliary, predicate.split())}."
    return f"{subject} {auxiliary} {predicate}."


def _predicate(clause: str, auxiliary: str) -> str | None:
    """The predicate of a clause in the form that follows an auxiliary."""
    quantifier = _QUANTIFIER.match(clause)
    clause = clause[quantifier.end() :] if quantifier else clause
    subject = subject_of(clause)
    if subject is None:
        return None
    verb = subject.verb.replace("\u2019", "'")
    rest = clause[subject.verb_end :].strip().rstrip(".!;,")
    is_negated = verb.endswith("n't") or rest.startswith("not ")
    verb = {"can't": "can", "won't": "will", "cannot": "can"}.get(verb, verb.removesuffix("n't"))
    rest = rest.removeprefix("not ").removesuffix(" too").removesuffix(" either")
    if not rest and verb in AUXILIARIES:
        return None
    has_participle = verb in _HAVE and bool(rest) and is_participle(rest.split()[0])
    if auxiliary in BE or verb in BE:
        return rest if auxiliary in BE and verb in BE else None
    if auxiliary in _HAVE or has_participle:
        return rest if auxiliary in _HAVE and has_participle else None
    if verb in _MODALS or (verb in _DO and is_negated):
        return rest if (verb in _MODALS) == (auxiliary in _MODALS) else None
    base = base_form(verb)
    return f"{base} {rest}".strip() if base is not None else None
