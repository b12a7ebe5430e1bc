"""The rules that a candidate must pass to be asked. Each has a name, under which refusals are counted."""

from __future__ import annotations

import re
from collections.abc import Sequence

from multihop_candidates import Candidate
from multihop_corpus import Corpus, Sentence, bare, bracket
from multihop_facts import Definition, Fact
from multihop_links import all_facts_of, links_of
from multihop_names import Link, definitions_of
from reason.core.question import Question
from reason.evals.scoring.texts import squad_words
from reason.reasoning.answer_kind import answer_kind

_PRONOUN = re.compile(r"(?:It|He|She|They|This|These|That|His|Her|Its|Their)\b")

_BORN = re.compile(r"\bborn\b[^.;)]{0,60}?\b(\d{4})\b")


class Review:
    """Reviews candidates against the whole pool.

    Args:
        corpus: The pool; its sentences are looked through for a second answer, a contradiction or a short cut.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._definitions = definitions_of(corpus)
        self._words = [(s, " ".join(("", *squad_words(s.text), ""))) for s in corpus.sentences]
        self._facts: dict[str, list[Fact]] = {}
        self._links: dict[str, list[Link]] = {}
        for sentence in corpus.sentences:
            if sentence.page is not None:
                self._facts.setdefault(sentence.page, []).extend(all_facts_of(sentence, self._definitions))
                self._links.setdefault(sentence.page, []).extend(links_of(sentence, corpus, self._definitions))

    def refuses(self, one: Candidate) -> str:
        """Why a candidate is not asked; empty if it may be."""
        if answer_kind(Question(text=one.question)) not in ("text", "yes_no"):
            return "its words would be read as mathematics"
        if any(self._subject_is_lost(s, first=s is one.sentences[0] and not one.is_comparison) for s in one.sentences):
            return "a sentence's subject is lost"
        if any(self._contradicted(fact) for fact in one.facts):
            return "another sentence says otherwise"
        return self._refuses_comparison(one) if one.link is None else self._refuses_bridge(one, one.link)

    def _refuses_comparison(self, one: Candidate) -> str:
        a, b = one.pages
        if one.answers[0] in ("yes", "no"):
            return "" if self._is_alone(a) and self._is_alone(b) else "a page has a namesake"
        # a bracket that says more than the question does tells of namesakes outside the pool
        if any(len(self._corpus.titles[bare(t)]) > 1 or bracket(t) not in ("", "film", "band") for t in (a, b)):
            return "a page has a namesake"
        if {*squad_words(bare(a))} & {*squad_words(bare(b))}:
            return "the two names share a word"
        return ""

    def _refuses_bridge(self, one: Candidate, link: Link) -> str:
        first, second = one.sentences
        words = (*one.bridge.split()[-1:], one.bridge)
        for why, is_so in (
            ("the first sentence does not name the bridge", one.bridge not in first.text),
            ("the second sentence does not hold the answer", not _within(one.answers[0], second.text)),
            ("the question holds the answer", _holds_any(one.question, one.answers)),
            ("the question names the bridge", any(_within(word, one.question) for word in words)),
            ("the first sentence holds the answer already", _holds_any(first.text, one.answers)),
            ("a second page fits the bridge", sum(self._fits(p, link) for p in self._corpus.titles[one.bridge]) > 1),
            ("a second page fits the question", not self._is_alone(first.page or "")),
        ):
            if is_so:
                return why
        if self._leads_elsewhere(link):
            return "the bridge is not the only one"
        return "one sentence is enough" if self._short_cut(one) else ""

    def _subject_is_lost(self, sentence: Sentence, *, first: bool) -> bool:
        """Whether a sentence says neither its page's title nor, as a first hop may, "the film" or a part.

        Of a person or a character the last name is enough.
        """
        title = bare(sentence.page or "")
        last = squad_words(title)[-1:] if sentence.page not in self._definitions else ()
        if _within(title, sentence.text) or any(_within(word, sentence.text) for word in last):
            return False
        return not first or _PRONOUN.match(sentence.text) is not None

    def _fits(self, page: str, link: Link) -> bool:
        return any(f.kind in link.kinds and re.search(link.fits, f.words) for f in self._facts.get(page, ()))

    def _is_alone(self, page: str) -> bool:
        """Whether no other page has this title, kind and year; a person's name must be the only one."""
        own = self._definitions.get(page)

        def is_other(theirs: Definition | None) -> bool:
            """Whether the question cannot mean that page: it is of another kind, or of another year."""
            if own is None or theirs is None:
                return own is not None
            return theirs.kind != own.kind or (own.year is not None and theirs.year not in (None, own.year))

        return all(p == page or is_other(self._definitions.get(p)) for p in self._corpus.titles[bare(page)])

    def _leads_elsewhere(self, link: Link) -> bool:
        """Whether another sentence of the first page gives somebody else that part."""
        page = link.sentence.page or ""
        if any(x.relation == link.relation and x.name != link.name for x in self._links[page]):
            return True
        last = link.name.split()[-1].casefold()
        return any(
            re.search(link.cue, s.text) is not None and last not in s.text.casefold() for s in self._corpus.pages[page]
        )

    def _contradicted(self, fact: Fact) -> bool:
        page = fact.sentence.page or ""
        if fact.attribute in ("birth day", "birth year"):
            # less strict than the patterns of facts: any year behind "born" counts
            years = (m[1] for s in self._corpus.pages[page] for m in _BORN.finditer(s.text))
            if any(year not in fact.answers[0] for year in years):
                return True
        return any(f.attribute == fact.attribute and not {*f.answers} & {*fact.answers} for f in self._facts[page])

    def _short_cut(self, one: Candidate) -> bool:
        """Whether a sentence holds the answer, and is on the first page or tells of both."""
        first, second = one.pages
        title, bridge = _padded(bare(first)), _padded(one.bridge)
        answers = [_padded(a) for a in one.answers]
        return any(
            any(a in words for a in answers)
            and (s.page == first or (title in words and (s.page == second or bridge in words)))
            for s, words in self._words
        )


def _padded(text: str) -> str:
    return " ".join(("", *squad_words(text), ""))


def _within(part: str, text: str) -> bool:
    """Whether a text holds another, word by word after normalisation; a part without a word is nowhere."""
    return bool(squad_words(part)) and _padded(part) in _padded(text)


def _holds_any(text: str, answers: Sequence[str]) -> bool:
    """Whether a text holds an answer, also as a part of a word: "Australian-American" holds "Australian"."""
    return any(a.casefold() in text.casefold() or _within(a, text) for a in answers)
