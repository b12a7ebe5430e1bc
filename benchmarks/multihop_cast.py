"""Links through parts that are played: from a film or series to an actor, from a character or an actor to the other."""

# ruff: noqa: RUF001 (typographic signs of the texts are meant)
from __future__ import annotations

import re
from collections.abc import Iterator

from multihop_corpus import Corpus, Sentence, bare
from multihop_facts import Definition, Kind, person_of
from multihop_names import PARTICLE, WORD, Link, name_at, work_after

ACTORS = r"\b(?:actor|actress|comedian|comedienne|entertainer|model)\b"
_PERSON: tuple[Kind, ...] = ("person",)
_SHOWN: tuple[Kind, ...] = ("film", "series")
_NOUNS: dict[Kind, str] = {"film": "film", "series": "television series"}
_FULL = rf"{WORD}(?: (?:{PARTICLE} )?{WORD})+"
_ROLE = r"(?P<role>(?:Dr\. )?[A-Z][\w'’-]+(?: (?:[A-Z]\. )?[A-Z][\w'’-]+)*)"
_STARS_AS = re.compile(
    rf"(?P<actor>{_FULL})(?: stars| starred)? (?:as|in the (?:\w+ )?role of) {_ROLE}(?=[.,;]| and [A-Z]| an? [a-z])"
)
_PLAYED_BY = re.compile(rf"{_ROLE},? (?:\(|who is |is )?(?:played|portrayed) by (?=\w)")
_IN_BRACKETS = re.compile(rf"{_ROLE} \((?:played by )?(?P<actor>{_FULL})\)")
_TITLE_ROLE = re.compile(rf"(?P<actor>{_FULL}) (?:in|as) the (?:title|titular|eponymous) (?:role|character)\b")
_CHARACTER = re.compile(r"\b(?:is|was) an? (?:[\w -]*?)\b(?:character|superhero|supervillain|protagonist|antagonist)\b")
_PART_OF = re.compile(r"\b(?:played|portrayed) by ")
_ROLE_IN = re.compile(
    rf"\b(?:role|roles|part|portrayal|performance) (?:as|of) (?:the )?(?:[a-z][\w-]* )*{_ROLE} (?:in|on) (?=[\w])"
)


def of_work(sentence: Sentence, x: str) -> Iterator[Link]:
    """From a film or a series to the actor of one part.

    Args:
        sentence: A sentence of its page.
        x: How a question names it.
    """
    text = sentence.text
    cast = [(m["role"], m["actor"]) for p in (_STARS_AS, _IN_BRACKETS) for m in p.finditer(text)]
    cast += [(m["role"], name_at(text, m.end())) for m in _PLAYED_BY.finditer(text)]
    for role, actor in cast:
        if actor and role not in ("The", "It", "He", "She", "They", "Himself", "Herself"):
            told = f"the actor who plays {role} in {x}"
            part = re.escape(role)
            cue = rf"\b(?:as|plays|role of) {part}\b|\b{part},? \(?(?:who is |is )?(?:played|portrayed) by\b"
            yield Link(sentence, f"actor of {role}", actor, told, ACTORS, _PERSON, cue)
    for title in _TITLE_ROLE.finditer(text):
        told = f"the actor in the title role of {x}"
        yield Link(sentence, "actor of the title role", title["actor"], told, ACTORS, _PERSON, r"\btitle role\b")


def of_character(sentence: Sentence) -> Iterator[Link]:
    """From a made-up person to the one actor."""
    name = bare(sentence.page or "")
    is_a = _CHARACTER.search(sentence.text)
    if is_a is None or person_of(sentence) is not None or len(name.split()) < 2:
        return
    places = list(_PART_OF.finditer(sentence.text))
    actor = name_at(sentence.text, places[0].end()) if len(places) == 1 else ""
    if actor and name.split()[-1] in sentence.text[: is_a.start()]:
        told = f"the actor who plays the fictional character {name}"
        yield Link(sentence, "actor", actor, told, ACTORS, _PERSON, _PART_OF.pattern)


def of_actor(sentence: Sentence, corpus: Corpus, definitions: dict[str, Definition]) -> Iterator[Link]:
    """From an actor to the film or series that a part was in."""
    page = sentence.page or ""
    name = bare(page)
    parts = list(_ROLE_IN.finditer(sentence.text))
    if len(parts) != 1 or name.split()[-1] not in sentence.text:
        return
    if all(person_of(s) is None for s in corpus.pages[page]):
        return
    rest, role = sentence.text[parts[0].end() :], parts[0]["role"]
    title = work_after(corpus, definitions, rest, _SHOWN)
    kind = _kind_of(title, corpus, definitions, rest) if title else None
    if kind is not None:
        year = next(
            (definitions[p].year for p in corpus.titles[title] if p in definitions and definitions[p].kind == kind),
            None,
        )
        if kind == "film" and year is None:
            return  # a part comes again in the next film
        told = f"the {f'{year} ' if kind == 'film' else ''}{_NOUNS[kind]} in which {name} played {role}"
        cue = rf"\b{re.escape(role)} (?:in|on)\b"
        yield Link(sentence, f"part of {role}", title, told, _NOUNS[kind], (kind,), cue)


def _kind_of(title: str, corpus: Corpus, definitions: dict[str, Definition], text: str) -> Kind | None:
    """Whether a title is that of a film or that of a series; where both have it, what the words before it say."""
    kinds = {definitions[p].kind for p in corpus.titles[title] if p in definitions} & set(_SHOWN)
    before = text[: text.index(title)]
    said: set[Kind] = {"film"} if re.search(r"\bfilm\b", before) else set()
    said |= {"series"} if re.search(r"\b(?:series|sitcom|show)\b", before) else set()
    left = kinds & said if said else kinds
    return left.pop() if len(left) == 1 else None
