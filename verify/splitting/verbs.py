"""Where an English clause has its verb, told by the forms of words alone: no grammar, no model."""

from __future__ import annotations

import re

# fmt: off
BE = frozenset(["is", "are", "was", "were", "isn't", "aren't", "wasn't", "weren't"])
AUXILIARIES = BE | frozenset([
    "has", "have", "had", "do", "does", "did", "can", "could", "will", "would", "shall", "should", "may", "might",
    "must", "cannot", "can't", "couldn't", "won't", "wouldn't", "doesn't", "don't", "didn't", "hasn't", "haven't",
    "hadn't",
])
SIMPLE_PAST = frozenset([
    "ate", "became", "began", "bore", "broke", "came", "chose", "drank", "drew", "drove", "fell", "flew", "forgot",
    "gave", "grew", "knew", "ran", "rang", "rode", "rose", "sang", "sank", "saw", "spoke", "stole", "swam", "swore",
    "threw", "took", "went", "woke", "wore", "wrote", "died", "lived", "occurred", "happened", "arrived", "remained",
    "emerged", "existed", "belonged", "consisted", "retired", "graduated", "emigrated", "resigned",
])
"""Verbs of the past that are no participles, or participles that no passive is made with."""
_PAST = frozenset([
    "bought", "brought", "built", "burnt", "caught", "cost", "cut", "dealt", "fed", "felt", "fought", "found", "got",
    "held", "hit", "kept", "laid", "lay", "led", "left", "lent", "lost", "made", "meant", "met", "paid", "put", "read",
    "said", "sat", "sent", "set", "shot", "shut", "slept", "sold", "spent", "stood", "struck", "swept", "taught",
    "thought", "told", "understood", "won",
])
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
    "married",
])
_NO_SUBJECT = frozenset([
    "the", "a", "an", "of", "in", "and", "or", "its", "his", "her", "their", "some", "many", "two", "all",
])
_NO_OBJECT = frozenset([
    "of", "in", "for", "and", "or", "by", "about", "on", "with", "to", "from", "at", "per", "as", "between",
])
_NEAR = 3
# fmt: on
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|[0-9]+(?:[.,][0-9]+)*|[^\s]")


def words(text: str) -> list[re.Match[str]]:
    """The words and marks of a text, in order."""
    return list(_WORD.finditer(text))


def is_past(word: str) -> bool:
    """Whether a word looks like a verb of the past; it may be a participle too."""
    return word in SIMPLE_PAST or word in _PAST or (len(word) > 3 and word.endswith("ed") and word not in _NOT_PAST)


def is_finite(word: str) -> bool:
    """Whether a word, in lower case, looks like the verb of a clause."""
    plain = word.replace("\u2019", "'")
    return (
        plain in AUXILIARIES or plain in PRESENT or plain in _PLURAL_PRESENT or is_past(plain) or plain.endswith("n't")
    )


def _may_be_present(word: str, around: list[re.Match[str]]) -> bool:
    """Whether an unknown word between two others may be a verb: "tin coats steel", not "the oats of" or "key facts"."""
    if len(around) < 3 or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return False
    before, after = around[0][0].lower(), around[2][0].lower()
    return before not in _NO_SUBJECT and after not in _NO_OBJECT and after[0].isalnum()


def has_verb(text: str) -> bool:
    """Whether some word of a text looks like a verb; its first word does not count, which has no subject before it.

    A verb that is not known is told by its place and ending: one of the first words, in -s, with an object behind it.
    """
    found = words(text[:2000])
    for i, match in enumerate(found[1:], 1):
        word = match[0]
        if word.replace("\u2019", "'").lower().endswith(("'s", "'re", "'ve", "'ll", "'d", "'m")) and i < len(found) - 1:
            return True
        if word.islower() and (is_finite(word) or (i <= _NEAR and _may_be_present(word, found[i - 1 : i + 2]))):
            return True
    first = found[0][0].replace("\u2019", "'").lower() if found else ""
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
