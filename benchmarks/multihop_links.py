"""What a sentence says that leads from its page to another one: the first hop of a question.

A link is taken only where the sentence names one person or thing in that part ("directed by Peter Berg and starring …",
never "directed by A and B").
"""

# ruff: noqa: RUF001 (typographic signs of the texts are meant)
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from multihop_cast import of_actor, of_character, of_work
from multihop_corpus import Corpus, Sentence, bare
from multihop_facts import Definition, Fact, Kind, definition_of, facts_of, person_of
from multihop_names import Link, described, name_at, work_after

_FILM_PEOPLE = (
    r"\b(?:director|filmmaker|film maker|producer|screenwriter|writer|actor|actress|film|television|animator)\b"
)
_WRITERS = r"\b(?:writer|author|novelist|poet|playwright|journalist|screenwriter|philosopher|creator|artist|editor)\b"
_PERFORMERS = r"\b(?:singer|rapper|musician|songwriter|recording|guitarist|DJ|band|group|duo|trio|entertainer)\b"
_DONE = r"(?:directed|written|produced|edited|co-written|co-produced|executive produced|composed|shot|scored)"
_PERSON: tuple[Kind, ...] = ("person",)


@dataclass(frozen=True)
class _Rule:
    """A pattern on the page of a work, behind which one name stands."""

    of: tuple[Kind, ...]
    relation: str
    cue: str
    description: str
    fits: str
    kinds: tuple[Kind, ...] = _PERSON


_RULES = (
    _Rule(
        ("film",),
        "director",
        rf"(?<![\w-])(?i:directed(?:, {_DONE})*,? and {_DONE}|directed) by ",
        "the director of {x}",
        _FILM_PEOPLE,
    ),
    _Rule(
        ("film",),
        "writer",
        r"(?i)(?<!directed and )(?<!directed, )(?<!produced and )(?<![\w-])written by ",
        "the person who wrote {x}",
        _FILM_PEOPLE,
    ),
    _Rule(
        ("film",),
        "writer",
        r"\bscreenplay (?:is |was )?(?:written )?by ",
        "the person who wrote the screenplay of {x}",
        _FILM_PEOPLE,
    ),
    _Rule(
        ("film", "series"),
        "author of the source",
        r"based (?:up)?on (?:the|a|his|her) (?:[^.,;]*? )?(?:novel|book|memoir|play|short story) "
        r"(?:of the same (?:name|title) )?(?:written )?by ",
        "the author of the work that {x} is based on",
        _WRITERS,
    ),
    _Rule(
        ("series",),
        "creator",
        r"(?<![\w-])(?i:created)(?:, (?:written|produced|directed))*(?:,? and (?:written|produced|directed|developed))?"
        r"(?: for [A-Z]\w+)? by ",
        "the creator of {x}",
        rf"{_FILM_PEOPLE}|{_WRITERS}|\bcomedian\b|\bcartoonist\b",
    ),
    _Rule(
        ("series",),
        "host",
        r"(?<![\w-])hosted by ",
        "the host of {x}",
        r"\b(?:host|presenter|comedian|television|actor|actress|painter|personality|singer|chef)\b",
    ),
    _Rule(
        ("album", "song"),
        "performer",
        r"\b(?:album|mixtape|extended play|extended play \(EP\)|EP|song|single|track)"
        r"(?: recorded| performed| and [\w -]*? debut)? by ",
        "the performer of {x}",
        _PERFORMERS,
        ("person", "band"),
    ),
    _Rule(("novel",), "author", r"\bnovel(?: written)? by ", "the author of {x}", _WRITERS),
)
_NAMED_ANSWERS = {
    "director": "Who directed {x}?",
    "creator": "Who created {x}?",
    "performer": "Who performed {x}?",
}
_SUBJECT = re.compile(
    r"(?:The (?:film|movie|series|show|sitcom|album|song|novel|single)\b"
    r"|(?:(?:Written|Produced|Created)(?:,| and) )*(?:[Dd]irected|Created|Written) by\b"
    r"(?=.*\bthe (?:film|movie|series|show)\b))"
)
_WHOSE = re.compile(
    r"\bbased (?:up)?on (?P<name>[A-Z][\w.'’-]*(?: [A-Z][\w.'’-]*)+?)['’]s? (?:\d{4} )?"
    r"(?:[a-z][\w-]* )*(?:novel|book|memoir|play)\b"
)
_ALBUM_OF = re.compile(
    r"\b(?:from|off|on) (?:his|her|their|the|its) (?:[\w-]+(?: and [\w-]+)? ){0,3}?(?:studio |debut )?album,? "
    r"(?=[A-Z0-9])"
)
_PLAYS_IN = re.compile(
    r"\b(?P<part>lead singer|lead vocalist|frontman|drummer|bassist|lead guitarist|guitarist|keyboardist)"
    r"(?:, [^,;]*?(?:,| and)[^,;]*?)? (?:of|for) (?:the )?(?:(?:[A-Z][a-z]+ )?(?:[a-z][\w-]* )*band )?(?=[A-Z])"
)


def links_of(sentence: Sentence, corpus: Corpus, definitions: dict[str, Definition]) -> list[Link]:
    """All ways from a sentence's page to others that it tells of.

    Args:
        sentence: The sentence.
        corpus: Whose titles are known.
        definitions: What kind of work each page is about (`multihop_names.definitions_of`).
    """
    if sentence.page is None:
        return []
    found = [*of_character(sentence), *of_actor(sentence, corpus, definitions), *_of_musician(sentence)]
    what = definitions.get(sentence.page)
    x = described(sentence.page, what) if what is not None else ""
    if what is not None and x:
        if what.kind in ("film", "series"):
            found += of_work(sentence, x)
        if definition_of(sentence) is not None or _SUBJECT.match(sentence.text):
            found += _of_work(sentence, corpus, definitions, what, x)
    return found


def _of_work(
    sentence: Sentence, corpus: Corpus, definitions: dict[str, Definition], what: Definition, x: str
) -> Iterator[Link]:
    for rule in _RULES:
        name = _named(rule, what.kind, sentence.text)
        if name:
            yield Link(sentence, rule.relation, name, rule.description.format(x=x), rule.fits, rule.kinds, rule.cue)
    whose = _WHOSE.search(sentence.text) if what.kind == "film" else None
    if whose is not None:
        told = f"the author of the work that {x} is based on"
        yield Link(sentence, "author of the source", whose["name"], told, _WRITERS, _PERSON, r"\bbased (?:up)?on\b")
    album = _ALBUM_OF.search(sentence.text) if what.kind == "song" else None
    title = work_after(corpus, definitions, sentence.text[album.end() :], ("album",)) if album is not None else ""
    if title:
        yield Link(sentence, "album", title, f"the album that {x} is from", "album", ("album",), r"\balbum\b")


def _named(rule: _Rule, kind: Kind, text: str) -> str:
    """The one name behind a rule's pattern; empty if the pattern is there twice."""
    cues = list(re.finditer(rule.cue, text)) if kind in rule.of else []
    return name_at(text, cues[0].end()) if len(cues) == 1 else ""


def _of_musician(sentence: Sentence) -> Iterator[Link]:
    """From a musician to the band."""
    name = bare(sentence.page or "")
    plays = _PLAYS_IN.search(sentence.text) if person_of(sentence) is not None else None
    band = name_at(sentence.text, plays.end()) if plays is not None else ""
    if plays is not None and band:
        told = f"the band whose {plays['part']} is {name}"
        cue = rf"\b{plays['part']} (?:of|for)\b"
        yield Link(sentence, "band", band, told, r"band|group|duo|trio", ("band",), cue)


def all_facts_of(sentence: Sentence, definitions: dict[str, Definition]) -> list[Fact]:
    """Every fact, those of works whose answer is a name included."""
    found = facts_of(sentence)
    what = definitions.get(sentence.page or "")
    if what is not None and definition_of(sentence) is not None:
        for rule in _RULES:
            name = _named(rule, what.kind, sentence.text) if rule.relation in _NAMED_ANSWERS else ""
            if len(name.split()) > 1:
                found.append(
                    Fact(sentence, rule.relation, _NAMED_ANSWERS[rule.relation], (name,), what.kind, what.noun)
                )
    return found
