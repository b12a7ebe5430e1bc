"""Candidates for questions: a link joined to a fact of the page it leads to, and two facts side by side."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from multihop_corpus import Corpus, Sentence, bare
from multihop_facts import OCCUPATIONS, Definition, Fact
from multihop_links import all_facts_of, links_of
from multihop_names import Link, definitions_of, described

_Dated = tuple[Fact, int]
"""A fact and its year."""


@dataclass(frozen=True)
class Candidate:
    """A question that has not been reviewed yet.

    Attributes:
        type: What kind of question: "director, birth year", "compare films", …
        question: Its text.
        answers: The right answer, then other ways to write it.
        sentences: The two gold sentences in the order of the hops.
        hops: What each of them tells.
        bridge: What the first sentence calls the second page; empty for a comparison.
        link: The first hop; None for a comparison.
        facts: The facts that are asked for: one, or the two that are compared.
        id: Made of the question, so that it stays the same whatever else is asked.
    """

    type: str
    question: str
    answers: tuple[str, ...]
    sentences: tuple[Sentence, Sentence]
    hops: tuple[str, str]
    bridge: str
    link: Link | None
    facts: tuple[Fact, ...]
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", "mh-" + hashlib.sha256(self.question.encode()).hexdigest()[:10])

    @property
    def is_comparison(self) -> bool:
        """Whether two pages are compared; else one leads to the other."""
        return self.link is None

    @property
    def pages(self) -> tuple[str, str]:
        """Titles of the two pages."""
        first, second = (s.page or "" for s in self.sentences)
        return first, second


def bridges(corpus: Corpus, may_be_gold: Callable[[Sentence], bool]) -> Iterator[Candidate]:
    """Every link with every fact of the page that it leads to.

    Args:
        corpus: The pool.
        may_be_gold: Whether a sentence may be one of the two that a question rests on.
    """
    definitions = definitions_of(corpus)
    gold = [s for s in corpus.sentences if may_be_gold(s)]
    facts: dict[str, list[Fact]] = {}
    for sentence in gold:
        for fact in all_facts_of(sentence, definitions):
            facts.setdefault(sentence.page or "", []).append(fact)
    for sentence in gold:
        for link in links_of(sentence, corpus, definitions):
            for page in corpus.titles.get(link.name, ()):
                for fact in facts.get(page, ()):
                    if page != sentence.page and fact.kind in link.kinds and re.search(link.fits, fact.words):
                        yield _bridge(link, fact)


def _bridge(link: Link, fact: Fact) -> Candidate:
    part = link.relation.split(" of ")[0]
    return Candidate(
        type=f"{part}, {fact.attribute}",
        question=fact.question.format(x=link.description),
        answers=fact.answers,
        sentences=(link.sentence, fact.sentence),
        hops=(link.relation, fact.attribute),
        bridge=link.name,
        link=link,
        facts=(fact,),
    )


def comparisons(corpus: Corpus, may_be_gold: Callable[[Sentence], bool]) -> Iterator[Candidate]:
    """Pairs of people with the same work, of films and of bands; each is in one pair of its sort."""
    definitions = definitions_of(corpus)
    people: dict[str, dict[str, _Dated]] = {}
    films: dict[str, _Dated] = {}
    bands: dict[str, _Dated] = {}
    directed: dict[str, Fact] = {}
    for sentence in filter(may_be_gold, corpus.sentences):
        title = sentence.page or ""
        for fact in all_facts_of(sentence, definitions):
            if fact.attribute == "birth year":
                work = re.search(rf"\b(?:{OCCUPATIONS})\b", fact.words)
                people.setdefault(work[0] if work else "", {}).setdefault(title, (fact, int(fact.answers[0])))
            elif fact.attribute in ("film year", "band year"):
                of = films if fact.attribute == "film year" else bands
                of.setdefault(title, (fact, int(fact.answers[0])))
            elif fact.attribute == "director":
                directed.setdefault(title, fact)
    for of_one_sort in people.values():
        yield from _in_order("people", "Who was born {when}, {a} or {b}?", of_one_sort, bare)
    yield from _in_order("films", "Which film was released {when}, {a} or {b}?", films, _quoted)
    yield from _in_order("bands", "Which band was formed {when}, {a} or {b}?", bands, bare)
    yield from _same_director(directed, definitions)


def _same_director(directed: dict[str, Fact], definitions: dict[str, Definition]) -> Iterator[Candidate]:
    """Pairs of films with one director, and as many with two."""
    told = {t: described(t, definitions[t]) for t in directed}
    by_director: dict[str, list[str]] = {}
    for title in sorted((t for t in directed if told[t]), key=_hash):
        by_director.setdefault(directed[title].answers[0], []).append(title)
    same = [(films[0], films[1]) for films in by_director.values() if len(films) > 1]
    alone = {films[0]: name for name, films in by_director.items() if len(films) == 1}
    other = list(_pairs(alone, lambda x, y: alone[x] != alone[y]))[: len(same)]
    for answer, pairs in (("yes", same), ("no", other)):
        for a, b in pairs:
            yield Candidate(
                type=f"compare directors, {answer}",
                question=f"Were {told[a]} and {told[b]} directed by the same person?",
                answers=(answer,),
                sentences=(directed[a].sentence, directed[b].sentence),
                hops=("director", "director"),
                bridge="",
                link=None,
                facts=(directed[a], directed[b]),
            )


def _in_order(sort: str, asked: str, dated: dict[str, _Dated], shown: Callable[[str], str]) -> Iterator[Candidate]:
    """Questions for the earlier or the later of two, whichever the hash of their titles says."""
    for a, b in _pairs(dated, lambda x, y: dated[x][1] != dated[y][1]):
        early, late = sorted((a, b), key=lambda t: dated[t][1])
        first = int(_hash(a + b), 16) % 2 == 0
        yield Candidate(
            type=f"compare {sort}",
            question=asked.format(when="first" if first else "later", a=shown(a), b=shown(b)),
            answers=(bare(early if first else late),),
            sentences=(dated[a][0].sentence, dated[b][0].sentence),
            hops=(dated[a][0].attribute, dated[b][0].attribute),
            bridge="",
            link=None,
            facts=(dated[a][0], dated[b][0]),
        )


def _pairs(titles: Iterable[str], differ: Callable[[str, str], bool]) -> Iterator[tuple[str, str]]:
    """Neighbours that differ, in the order of the titles' hashes: any other order would pair by name."""
    order = sorted(titles, key=_hash)
    while len(order) > 1:
        first = order.pop(0)
        other = next((t for t in order if differ(first, t)), None)
        if other is not None:
            order.remove(other)
            yield first, other


def _quoted(title: str) -> str:
    return f'"{bare(title)}"'


def _hash(title: str) -> str:
    return hashlib.sha256(title.encode()).hexdigest()
