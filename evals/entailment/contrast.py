"""Pairs made from pairs by rule, so that nothing but the comparison of text and claim tells the label.

From a text that supports a claim come four pairs, by exchanging something that both share for another of its kind: both
as they are and both exchanged support, text or claim alone exchanged refutes. A claim alone and a text alone then say
nothing (the idea of FEVER Symmetric; Schuster et al. 2019, arXiv:1908.05267, section 4). The rules are our own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ...verify.entailment.embedded_words import Word, words_in
from ...verify.entailment.protocol import Pair
from ...verify.support import Label
from .cases import Labelled

# fmt: off
_MONTHS: Final = frozenset([
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
])
# fmt: on
_PEOPLES: Final = ("ish", "ese", "ian", "can", "ean")
_AUXILIARY = re.compile(
    r"\b(is|was|are|were|has been|had been|have been|has|had|did|does|can|will|could|would)\b(?! not\b)"
)
_NOT = re.compile(r"\b(is|was|are|were|has|had|did|does|can|will|could|would|do|have) not\b ?")
# fmt: off
_COMPARING: Final = frozenset([
    "than", "over", "under", "above", "below", "least", "most", "nearly", "about", "around", "approximately",
    "before", "after", "since", "until", "exceed", "exceeds", "exceeded", "exceeding", "to", "almost",
])
# fmt: on
"""A number after one of these may be exchanged for another without the claim becoming wrong."""
_MOST_NAMES: Final = 20_000
_TRIES: Final = 12


@dataclass(frozen=True, slots=True)
class Value:
    """Something in a text that can be exchanged.

    Attributes:
        start: Its first character.
        end: One past the last.
        text: It.
        kind: What it can be exchanged for.
        key: What it is compared by.
    """

    start: int
    end: int
    text: str
    kind: str
    key: str


@dataclass
class Pools:
    """What values can be exchanged for, by kind, from texts that are trained on."""

    values: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Pools:
        """The values of texts, each once, in order."""
        found: dict[str, dict[str, None]] = {}
        for text in texts:
            for value in values_in(text):
                found.setdefault(value.kind, {}).setdefault(value.text)
        return cls({kind: list(seen)[:_MOST_NAMES] for kind, seen in found.items()})

    def other(self, value: Value, shunned: set[str], rng: random.Random) -> str | None:
        """Another value of the kind, none of whose words are shunned; None if none was found."""
        if value.kind == "year":
            near = int(value.text) + rng.choice((-1, 1)) * rng.choice((1, 1, 2, 3, 4, 6, 9, 14, 25))
            return str(near) if str(near) not in shunned else None
        pool = self.values.get(value.kind, [])
        for _ in range(_TRIES if len(pool) > 1 else 0):
            chosen = rng.choice(pool)
            if not {w.stem for w in words_in(chosen)} & shunned and chosen.casefold() not in shunned:
                return chosen
        return None


def values_in(text: str) -> list[Value]:
    """Years, numbers, names and what follows "a": everything in a text that has others of its kind."""
    words = words_in(text)
    found: list[Value] = []
    i = 0
    while i < len(words):
        word = words[i]
        end = i + 1
        if word.kind == "name":
            while end < len(words) and words[end].kind == "name" and text[words[end - 1].end : words[end].start] == " ":
                end += 1
        kind = _kind(words, i, end, text)
        if kind:
            span = text[word.start : words[end - 1].end]
            key = " ".join(w.stem for w in words[i:end])
            found.append(Value(word.start, words[end - 1].end, span, kind, key))
        i = end
    return found


def _kind(words: Sequence[Word], i: int, end: int, text: str) -> str:
    word = words[i]
    span = text[word.start : words[end - 1].end]
    before = text[words[i - 1].start : words[i - 1].end].casefold() if i else ""
    if word.counts and before in _COMPARING:
        return ""
    if word.kind == "year":
        return "year"
    if word.counts:
        digits = span.replace(",", "")
        return f"number of {len(digits)} digits" if digits.isdigit() else ("percent" if word.percent else "")
    if word.kind == "name":
        if span in _MONTHS:
            return "month"
        if end - i == 1 and span.endswith(_PEOPLES) and len(span) > 5:
            return "people"
        return f"name after {before} of {min(3, end - i)}" if before in _BEFORE and len(span) > 2 else ""
    after = text[word.end : word.end + 1]
    if before in ("a", "an") and not word.plain and len(span) > 3:
        following = words[end] if end < len(words) else None
        if after in ("", ".", ",", ";") or (following is not None and following.plain):
            return "thing"
    return ""


# fmt: off
_BEFORE: Final = frozenset([
    "in", "by", "with", "from", "at", "on", "for", "and", "of", "to", "the", "starring", "directed",
])
# fmt: on


def quads(pair: Pair, pools: Pools, rng: random.Random, kind: str, group: str) -> list[Labelled]:
    """The three pairs that belong to one whose text supports its claim; empty if nothing can be exchanged."""
    ours = values_in(pair.claim)
    theirs = values_in(pair.evidence)
    keys = {v.key for v in theirs}
    titled = {w.stem for w in words_in(pair.title)}
    shared = [v for v in ours if v.key in keys and not set(v.key.split()) & titled]
    rng.shuffle(shared)
    shunned = {w.stem for text in (pair.claim, pair.evidence, pair.title) for w in words_in(text)}
    for value in shared:
        new = pools.other(value, shunned | {v.text.casefold() for v in (*ours, *theirs)}, rng)
        if new is None:
            continue
        claim = pair.claim[: value.start] + new + pair.claim[value.end :]
        evidence = exchanged(pair.evidence, theirs, value.key, new)
        return [
            Labelled(pair._replace(claim=claim), "refutes", f"{kind}: claim exchanged", group),
            Labelled(pair._replace(evidence=evidence), "refutes", f"{kind}: text exchanged", group),
            Labelled(pair._replace(claim=claim, evidence=evidence), "supports", f"{kind}: both exchanged", group),
        ]
    return []


def exchanged(text: str, values: Sequence[Value], key: str, new: str) -> str:
    """A text with every value of a key exchanged."""
    for value in reversed(values):
        if value.key == key:
            text = text[: value.start] + new + text[value.end :]
    return text


def set_right(pair: Pair, rng: random.Random, kind: str, group: str) -> list[Labelled]:
    """From a text that refutes a claim by one number or year: the pair in which both have the same, which supports.

    Empty if it is not one number of the claim against one of the text.
    """
    ours, theirs = values_in(pair.claim), values_in(pair.evidence)
    there, here = {v.key for v in theirs}, {v.key for v in ours}
    lacking = [v for v in ours if v.key not in there and v.kind.startswith(("year", "number", "percent", "month"))]
    if len(lacking) != 1:
        return []
    instead = [v for v in theirs if v.kind == lacking[0].kind and v.key not in here]
    if len({v.key for v in instead}) != 1:
        return []
    value, other = lacking[0], instead[0]
    if rng.random() < 0.5:
        claim = pair.claim[: value.start] + other.text + pair.claim[value.end :]
        return [Labelled(pair._replace(claim=claim), "supports", f"{kind}: claim set right", group)]
    evidence = exchanged(pair.evidence, theirs, other.key, value.text)
    return [Labelled(pair._replace(evidence=evidence), "supports", f"{kind}: text set right", group)]


def negated(pair: Pair, label: Label, kind: str, group: str) -> list[Labelled]:
    """The pair with the claim's "not" taken away or put in, and the other label; empty where that is not safe."""
    if label == "neutral" or re.search(r"\b(only|never|no|none|all|every|nor|any)\b|n't", pair.claim):
        return []
    if (denied := _NOT.search(pair.claim)) is not None:
        claim = f"{pair.claim[: denied.start()]}{denied[1]} {pair.claim[denied.end() :]}"
    elif (verb := _AUXILIARY.search(pair.claim)) is not None and verb.start() > 0:
        first = verb[1].split()[0]
        claim = f"{pair.claim[: verb.start()]}{first} not{pair.claim[verb.start() + len(first) :]}"
    else:
        return []
    other: Label = "refutes" if label == "supports" else "supports"
    return [Labelled(pair._replace(claim=claim), other, f"{kind}: claim negated", group)]
