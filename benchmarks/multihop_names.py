"""Names within sentences, how a question names a work so that no other is meant, and links from a page to another."""

# ruff: noqa: RUF001 (typographic signs of the texts are meant)
from __future__ import annotations

import re
from dataclasses import dataclass

from multihop_corpus import Corpus, Sentence, bare, bracket
from multihop_facts import NATIONS, Definition, Kind, definition_of

PARTICLE = r"(?:de|da|di|del|della|von|van|der|den|la|le|el|al|bin|ibn|of the|of|the|and the)"
WORD = r"(?:[A-Z][\w'’.-]*)"
_NAME = re.compile(rf"{WORD}(?: (?:{PARTICLE} )?{WORD})*(?:,? [JS]r\.)?")
_BEFORE = re.compile(
    rf"(?:the |an? )?(?:(?:{NATIONS})(?:[-/ ](?:{NATIONS}))* (?=[a-zR]))?"
    r"(?:(?:R&B|[a-z][\w/&-]*,?|/) )*(?:DJ (?=[a-z]))?"
)
_ENDS = re.compile(
    r"$|[.;)]|,? (?:and (?=(?:co-)?(?:written|produced|edited|narrated|distributed|released|published|starring|stars"
    r"|featuring|based|set|was|is|has|originally|premiered|aired|first|the (?:protagonist|main))\b)"
    r"|(?!(?:and|with|featuring|alongside|or|along|together|as well|in collaboration|feat)\b)[a-z(])"
)
_TITLE_ENDS = re.compile(r"$|[.,;:]?(?= )|[.,;:]$|(?= ?\()|(?=[\"'’])")
_ON_THE_WAY = re.compile(
    r"^(?:(?:the|an?|[a-z][\w-]*|\d{4}|[A-Z]{2,5}(?:'s)?|[A-Z][a-z]+(?:'s| Channel| Network)|" + NATIONS + r")\s)*$"
)
LONGEST_TITLE = 80
"""Characters of a text within which a title must end."""


@dataclass(frozen=True)
class Link:
    """A way from a page to another.

    Attributes:
        sentence: What says so.
        relation: What the other page is to this one: "director", "actor of John McClane", …
        name: What the sentence calls the other page.
        description: How a question tells of the other page without naming it.
        fits: A pattern that the other page's words must meet, so that it is no namesake.
        kinds: What the other page may be.
        cue: A pattern that tells of the same part of the page in other sentences.
    """

    sentence: Sentence
    relation: str
    name: str
    description: str
    fits: str
    kinds: tuple[Kind, ...]
    cue: str


def name_at(text: str, start: int) -> str:
    """The one name that stands at a place, behind what it is called ("American singer …"); empty if it is not alone."""
    before = _BEFORE.match(text, start)
    found = _NAME.match(text, before.end() if before is not None else start)
    if found is None:
        return ""
    # a full stop that ends the sentence is no part of the name, one behind a letter or "Jr" is
    name = found[0] if re.search(r"(?:\b[A-Z]|\b[JS]r)\.$", found[0]) else found[0].rstrip(".")
    of_somebody = re.search(r"['’]s?$", name) is not None
    return "" if of_somebody or not _ENDS.match(text[found.start() + len(name) :]) else name


def title_at(corpus: Corpus, text: str) -> str:
    """The longest title that a text begins with, and that ends where a title can end; empty if there is none."""
    ends = [m.start() for m in _TITLE_ENDS.finditer(text[:LONGEST_TITLE])]
    return next((text[:e] for e in reversed(ends) if text[:e] in corpus.titles), "")


def work_after(corpus: Corpus, definitions: dict[str, Definition], text: str, kinds: tuple[Kind, ...]) -> str:
    """The title of a work that a text comes to after words that only say what it is ("the NBC sitcom …").

    Returns:
        The bare title; empty if there is none, or if something else stands before it.
    """
    for start in (m.start() for m in re.finditer(r"(?<![\w'’])(?=[A-Z0-9])", text[:LONGEST_TITLE])):
        title = title_at(corpus, text[start:])
        if title and any(p in definitions and definitions[p].kind in kinds for p in corpus.titles[title]):
            return title if _ON_THE_WAY.match(text[:start]) else ""
    return ""


def definitions_of(corpus: Corpus) -> dict[str, Definition]:
    """What kind of work each page is about: as a sentence of it says, else as the bracket of its title does."""
    found: dict[str, Definition] = {}
    for title, sentences in corpus.pages.items():
        told = [d for s in sentences if (d := definition_of(s)) is not None]
        inside = re.fullmatch(r"(?:(\d{4}) )?(film|TV series|album|song|novel)", bracket(title))
        if told:
            found[title] = next((d for d in told if d.year is not None), told[0])
        elif inside is not None:
            kind, noun = _BRACKETS[inside[2]]
            found[title] = Definition(kind, noun, int(inside[1]) if inside[1] else None)
    return found


_BRACKETS: dict[str, tuple[Kind, str]] = {
    "film": ("film", "film"),
    "TV series": ("series", "television series"),
    "album": ("album", "album"),
    "song": ("song", "song"),
    "novel": ("novel", "novel"),
}


def described(title: str, what: Definition) -> str:
    """How a question names a work, so that no other work of its kind is meant; empty if the title alone does not tell.

    A bracket that names somebody ("… (Linkin Park song)") says that there are others of that title.
    """
    told = re.fullmatch(
        r"(?:(?P<year>\d{4}) |(?P<us>U\.S\. ))?(?:film|TV series|television series|album|EP|mixtape|song|novel)?",
        bracket(title),
    )
    if told is None:
        return ""
    year = what.year or (int(told["year"]) if told["year"] else None)
    lead = f"{year} " if year else "American " if told["us"] else ""
    return f'the {lead}{what.noun} "{bare(title)}"'
