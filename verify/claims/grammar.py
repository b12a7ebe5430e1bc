"""Verbs and subjects of English sentences, by word forms only, without a parser or model."""

from __future__ import annotations

import re
from typing import NamedTuple

from .verbs import PARTICIPLES, PASTS, THIRD_PERSONS, UNAMBIGUOUS_BASES

# fmt: off
BE = frozenset(["is", "are", "was", "were", "isn't", "aren't", "wasn't", "weren't"])
AUXILIARIES = BE | frozenset([
    "has", "have", "had", "do", "does", "did", "can", "could", "will", "would", "shall", "should", "may", "might",
    "must", "cannot", "can't", "couldn't", "won't", "wouldn't", "doesn't", "don't", "didn't", "hasn't", "haven't",
    "hadn't",
])
SIMPLE_PAST = (PASTS - PARTICIPLES) | frozenset([
    "saw", "bore", "died", "lived", "occurred", "happened", "arrived", "remained", "emerged", "existed", "belonged",
    "consisted", "retired", "graduated", "emigrated", "resigned",
])
"""Past-tense verbs that are not participles, or participles that form no passive."""
_PAST = (PASTS & PARTICIPLES) | frozenset(["burnt", "cost", "cut", "hit", "put", "read", "set", "shut", "fed"])
PRESENT = frozenset([
    "absorbs", "accounts", "acts", "allows", "appears", "begins", "belongs", "borders", "boils", "breaks", "carries",
    "causes", "comes", "comprises", "connects", "consists", "contains", "controls", "converts", "costs", "covers",
    "creates", "depends", "describes", "differs", "eats", "emits", "ends", "equals", "exists", "falls", "flows",
    "forms", "freezes", "gives", "goes", "governs", "grows", "happens", "helps", "hosts", "houses", "includes",
    "increases", "involves", "joins", "keeps", "lasts", "lays", "leads", "lets", "lies", "lives", "loses", "makes",
    "means", "measures", "melts", "moves", "needs", "occupies", "occurs", "orbits", "owns", "plays", "produces",
    "protects", "provides", "pumps", "reaches", "reacts", "refers", "releases", "remains", "represents", "requires",
    "rises", "rotates", "rules", "runs", "says", "serves", "shows", "sits", "spans", "speaks", "stands", "starts",
    "states", "stores", "supplies", "supports", "takes", "tells", "turns", "uses", "weighs", "wins", "works", "writes",
])
_PLURAL_PRESENT = frozenset([
    "absorb", "appear", "belong", "border", "boil", "carry", "cause", "come", "consist", "contain", "convert", "cover",
    "depend", "differ", "eat", "emit", "exist", "fall", "flow", "form", "freeze", "give", "go", "grow", "happen",
    "include", "involve", "last", "lay", "lead", "lie", "live", "lose", "make", "mean", "melt", "need", "occur",
    "orbit", "own", "produce", "provide", "reach", "refer", "release", "remain", "require", "rise", "run", "serve",
    "speak", "stand", "take", "use", "vary", "weigh", "think", "believe", "know", "say", "want", "like", "hope",
    "find",
])
_NOT_PAST = frozenset([
    "red", "bed", "led", "shed", "speed", "seed", "need", "feed", "indeed", "hundred", "sacred", "breed", "exceed",
    "wed", "united", "unprecedented", "aged", "based", "talented", "renowned", "so-called", "embed", "sled", "bred",
    "weed", "deed", "biped", "kindred", "naked", "wicked", "greed", "reed", "creed", "steed", "limited", "advanced",
])
_NO_SUBJECT = frozenset([
    "the", "a", "an", "of", "in", "and", "or", "its", "his", "her", "their", "some", "many", "two", "all",
])
_NO_OBJECT = frozenset([
    "of", "in", "for", "and", "or", "by", "about", "on", "with", "to", "from", "at", "per", "as", "between",
])
_MAX_VERB_INDEX = 3
# fmt: on
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|[0-9]+(?:[.,][0-9]+)*|[^\s]")


def words(text: str) -> list[re.Match[str]]:
    """The words and punctuation of a text, in order."""
    return list(_WORD.finditer(text))


def is_past(word: str) -> bool:
    """Whether a word looks like a past tense; it may be a participle too."""
    return word in SIMPLE_PAST or word in _PAST or (len(word) > 3 and word.endswith("ed") and word not in _NOT_PAST)


def is_finite(word: str) -> bool:
    """Whether a word, in lower case, looks like the verb of a clause."""
    normalized = word.replace("\u2019", "'")
    return (
        normalized in AUXILIARIES
        or normalized in PRESENT
        or normalized in THIRD_PERSONS
        or normalized in _PLURAL_PRESENT
        or is_past(normalized)
        or normalized.endswith("n't")
    )


def _is_possible_verb(word: str, context: list[re.Match[str]]) -> bool:
    """Whether an unknown word between two others may be a verb: "tin coats steel", not "the oats of" or "key facts"."""
    if len(context) < 3 or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return False
    before, after = context[0][0].lower(), context[2][0].lower()
    return before not in _NO_SUBJECT and after not in _NO_OBJECT and after[0].isalnum()


def has_verb(text: str) -> bool:
    """Whether a word of a text, except the first, looks like a verb.

    Unknown verbs are recognized among the first words, by the ending -s and a following object.
    """
    tokens = words(text[:2000])
    for i, match in enumerate(tokens[1:], 1):
        word = match[0]
        if (
            word.replace("\u2019", "'").lower().endswith(("'s", "'re", "'ve", "'ll", "'d", "'m"))
            and i < len(tokens) - 1
        ):
            return True
        if word.islower() and (
            is_finite(word) or (i <= _MAX_VERB_INDEX and _is_possible_verb(word, tokens[i - 1 : i + 2]))
        ):
            return True
    first = tokens[0][0].replace("\u2019", "'").lower() if tokens else ""
    if first in PRONOUNS and len(tokens) > 1 and tokens[1][0].islower():
        return True
    return first in {
        "it's",
        "he's",
        "she's",
        "there's",
        "that's",
        "they're",
        "i'm",
        "we're",
        "what's",
        "here's",
        "i've",
    }


PRONOUNS = frozenset(["he", "she", "it", "they", "we", "i", "you"])
POSSESSIVES = frozenset(["his", "her", "its", "their"])

# fmt: off
_DETERMINERS = frozenset(["the", "a", "an", "this", "these", "those", "that"]) | POSSESSIVES
CONNECTORS = frozenset(
    ["of", "de", "von", "van", "der", "da", "di", "la", "le", "du", "del", "bin", "al", "el", "the"]
)
_NO_SUBJECTS = frozenset([
    "in", "on", "at", "by", "with", "from", "to", "for", "after", "before", "during", "since", "until", "when",
    "while", "if", "because", "although", "though", "as", "there", "here", "however", "therefore", "thus", "and",
    "but", "or", "so", "who", "which", "what", "where", "why", "how", "that", "not", "no", "never", "every", "each",
    "all", "some", "many", "most", "few", "both", "neither", "either", "one", "according", "unlike", "like", "about",
    "over", "under", "between", "probably", "perhaps", "possibly", "maybe", "reportedly", "allegedly", "supposedly",
    "apparently", "usually", "often", "than", "also", "then", "later", "today", "currently", "only", "even", "whether",
    "unless", "nobody", "nothing", "nevertheless", "nonetheless", "moreover", "furthermore", "besides", "instead",
    "meanwhile", "hence", "otherwise", "yet", "still", "once", "such", "more", "less", "additionally", "indeed",
    "let", "let's", "don't", "please",
])
_SUBJECT_ADVERBS = frozenset([
    "also", "later", "then", "now", "still", "once", "soon", "first", "never", "ever", "always", "often", "sometimes",
    "seldom", "both",
])
MONTHS = frozenset([
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
])
# fmt: on
_TITLES = frozenset(["Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Gen", "Capt", "Col", "Lt", "Sen", "Gov", "Rev", "Sgt"])
_BEFORE_NOUNS = frozenset(["the", "a", "an", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
LOCATIVES = frozenset(["in", "at", "near", "from", "across", "on", "into", "through"])
_MAX_SUBJECT_WORDS = 7
_MAX_PREFIX = 600
_EMPHASIS = re.compile(r"[*_]")


class Subject(NamedTuple):
    """The subject of a sentence and the verb after it.

    Attributes:
        start: First character of the subject in the sentence.
        end: One past its last character.
        verb: The verb, in lower case.
        verb_end: One past its last character.
        named: Whether it is a name, or a single capitalised noun.
        pronoun: The pronoun in lower case, if it is or begins with one.
    """

    start: int
    end: int
    verb: str
    verb_end: int
    named: bool
    pronoun: str = ""


def subject_of(sentence: str) -> Subject | None:
    """The subject, if the sentence begins with it and a verb follows; None if that is not clear.

    "(1879-1955)" and a part between commas may be between a name and its verb.

    Args:
        sentence: A sentence or clause.
    """
    tokens = words(_EMPHASIS.sub(" ", sentence[:_MAX_PREFIX]))
    i = 1 if tokens and tokens[0][0] in "\"'\u201c" else 0
    if len(tokens) < i + 2 or not (tokens[i][0][0].isalpha()) or tokens[i][0].lower() in _NO_SUBJECTS:
        return None
    first = tokens[i][0].lower()
    if first.endswith("ly") and tokens[i + 1][0] == ",":
        return None
    if first in PRONOUNS:
        return _subject_with_verb(tokens, i, i + 1, named=False, pronoun=first)
    at = i + 1 if first in _DETERMINERS else i
    first_word = at
    while at < len(tokens) and at - first_word < _MAX_SUBJECT_WORDS:
        word = tokens[at][0]
        lower = word.lower()
        if (
            at > first_word
            and word.islower()
            and (_is_verb_at(tokens, at) or lower in _SUBJECT_ADVERBS or lower.endswith("ly"))
            and tokens[at - 1][0].lower() not in _BEFORE_NOUNS
            and not _is_noun(tokens, at)
        ):
            break
        before = tokens[at - 1][0] if at > first_word else ""
        initial = word == "." and (len(before) == 1 or before in _TITLES)
        connector = at > first_word and (lower in CONNECTORS or lower == "one" or _is_joined(tokens, at, first_word))
        if not initial and not connector and (not word[0].isalnum() or (lower in _NO_SUBJECTS and word.islower())):
            break
        at += 1
    if at == first_word or tokens[at - 1][0].lower() in CONNECTORS:
        return None
    inside = [m[0] for m in tokens[first_word:at]]
    if inside[-1].lower() == "and":
        return None
    named = inside[0][0].isupper() and all(
        w[0].isupper() or not w[0].isalpha() or w in CONNECTORS or w == "and" for w in inside
    )
    verb = _skip_parenthetical(tokens, at) if named else at
    pronoun = first if first in POSSESSIVES else ""
    return _subject_with_verb(tokens, i, at, named=named, pronoun=pronoun, verb=verb)


def _is_verb_at(tokens: list[re.Match[str]], at: int) -> bool:
    """Whether a word looks like a verb; a base form does after a plural: "employees receive"."""
    word = tokens[at][0]
    return is_finite(word) or (word in UNAMBIGUOUS_BASES and at > 0 and tokens[at - 1][0].endswith("s"))


def _is_noun(tokens: list[re.Match[str]], at: int) -> bool:
    """Whether a word that looks like a verb is a noun, since a verb or "of" follows: "the exact causes are"."""
    following = tokens[at + 1][0] if at + 1 < len(tokens) else ""
    return tokens[at][0] in PRESENT and (following in AUXILIARIES or following == "of")


def _is_joined(tokens: list[re.Match[str]], at: int, first_word: int) -> bool:
    """Whether the word at a position joins another part to a subject: "Anna and Ben", "the bridge in Oslo"."""
    word = tokens[at][0]
    following = [m[0] for m in tokens[at + 1 : at + 3]]
    if len(following) < 2 or not following[0][0].isalpha():
        return False
    if word == "and":
        return following[0][0].isupper() and tokens[at - 1][0][0].isupper()
    is_name = following[0][0].isupper() and following[0].lower() not in MONTHS
    return word in LOCATIVES and (is_name or following[0] == "the") and tokens[first_word][0].islower()


def _subject_with_verb(
    tokens: list[re.Match[str]], first: int, after: int, *, named: bool, pronoun: str, verb: int | None = None
) -> Subject | None:
    at = after if verb is None else verb
    while at < len(tokens) and (tokens[at][0].lower() in _SUBJECT_ADVERBS or tokens[at][0].lower().endswith("ly")):
        at += 1
    if at >= len(tokens) or not tokens[at][0].islower() or not _is_verb_at(tokens, at):
        return None
    match = tokens[at]
    end = tokens[after - 1].end()
    return Subject(tokens[first].start(), end, match[0], match.end(), named, pronoun)


def _skip_parenthetical(tokens: list[re.Match[str]], at: int) -> int:
    """Position after brackets or commas that follow a name."""
    if at < len(tokens) and tokens[at][0] in "(,":
        closing = ")" if tokens[at][0] == "(" else ","
        for j in range(at + 1, min(len(tokens) - 1, at + 16)):
            if tokens[j][0] == closing:
                return j + 1
    return at
