r"""Multi-hop questions from a pool of encyclopaedia sentences, by patterns and rules only, without a language model.

    python benchmarks/multihop_questions.py --corpus sentences.jsonl --out questions.jsonl --documents docs/ \
        [--count 80] [--most 12] [--source fever]

A *bridge* question describes a page by a statement of another page: "In which year was the director of the 2013 film
"Brick" born?" needs a sentence that names the director and a sentence of the director's page. A *comparison* needs a
fact of two pages. So: a `Fact` is a statement about a sentence's own page, the second hop; a `Link` leads from a page
to another one, the first hop, and is used only where the sentence names one person or thing in that part ("directed by
Peter Berg and starring …", never "directed by A and B"); a `Candidate` joins them; `Review` has the rules that a
candidate must pass, and the number refused by each rule is printed. An uncertain pattern gives nothing. The same pool
gives the same questions, byte by byte.

A record of the pool is a JSON object a line: `id`, `text`, and where known `page` (the title), `page_source`, `source`.
The questions are rows of the dataset `file` (`reason eval questions.jsonl`): `question`, `answer` (the right answer and
other spellings), `id`, `subject` (the type), `gold_sentences`, `gold_pages`, `bridge` and `hops`. `--documents` writes
the pool as text files, one for each page, for a knowledge source that has to find the pages. Neither the pool nor its
questions belong into the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from reason.core.errors import DataError
from reason.core.types import Question
from reason.evals.scoring import squad_words
from reason.reasoning.answers.extraction import answer_kind

_BRACKET = re.compile(r"\s*\(([^()]*)\)$")
_NOT_A_NAME = re.compile(r"[^\w]+")
LONGEST_STEM = 60
"""Characters of a title that a document's file name keeps."""


@dataclass(frozen=True)
class Sentence:
    """A sentence of the pool.

    Attributes:
        id: Its name, unique in the pool.
        page: Title of its page; None where the pool does not know it.
        text: What it states.
        source: Which of the pool's collections it is from.
    """

    id: str
    page: str | None
    text: str
    source: str = ""


@dataclass(frozen=True)
class Corpus:
    """The pool.

    Attributes:
        sentences: All of them, in the file's order.
        pages: Those of each title.
        titles: Titles by the title without the bracket that distinguishes namesakes ("Creed" of "Creed (film)").
    """

    sentences: tuple[Sentence, ...]
    pages: dict[str, tuple[Sentence, ...]] = field(init=False)
    titles: dict[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        pages: dict[str, list[Sentence]] = {}
        for sentence in self.sentences:
            if sentence.page is not None:
                pages.setdefault(sentence.page, []).append(sentence)
        titles: dict[str, list[str]] = {}
        for title in pages:
            titles.setdefault(bare(title), []).append(title)
        object.__setattr__(self, "pages", {k: tuple(v) for k, v in pages.items()})
        object.__setattr__(self, "titles", {k: tuple(v) for k, v in titles.items()})


def bare(title: str) -> str:
    """A title without its closing bracket."""
    return _BRACKET.sub("", title)


def bracket(title: str) -> str:
    """What is in a title's closing bracket; empty if there is none."""
    result = _BRACKET.search(title)
    return result[1] if result else ""


def read_corpus(path: Path) -> Corpus:
    """Read a pool of sentences.

    Raises:
        DataError: A line is no record with an `id` and a `text`, an id occurs twice, or there is no sentence at all.
    """
    results: dict[str, Sentence] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                one = Sentence(
                    str(record["id"]),
                    _plain(record.get("page")) or None,
                    _plain(record["text"]),
                    record.get("source", ""),
                )
            except (ValueError, KeyError, AttributeError, TypeError) as wrong:
                raise DataError(f"{path} line {number}: no record with id and text ({wrong!r})") from None
            if one.id in results:
                raise DataError(f"{path} line {number}: the id {one.id!r} occurs twice")
            results[one.id] = one
    if not results:
        raise DataError(f"{path} holds no sentence")
    return Corpus(tuple(results.values()))


def _plain(text: str | None) -> str:
    """A text with each letter as one character, so that a title is the same wherever it is (Unicode's NFC)."""
    return "" if text is None else unicodedata.normalize("NFC", text)


def write_documents(corpus: Corpus, directory: Path) -> int:
    """Write a text file for each page: its title, an empty line, then its sentences, one a line, each once.

    A sentence without a page gets a file of its own, named by its id and without a title.

    Returns:
        The number of files.

    Raises:
        DataError: The directory holds files that this did not write; a knowledge source would read them too.
    """
    made = {_file_name(title): _document([title, ""], of) for title, of in corpus.pages.items()}
    made |= {_file_name(s.id): _document([], [s]) for s in corpus.sentences if s.page is None}
    directory.mkdir(parents=True, exist_ok=True)
    foreign = sorted({p.name for p in directory.iterdir()} - set(made))
    if foreign:
        raise DataError(f"{directory} holds {len(foreign)} other files ({foreign[0]}, …); name an empty directory")
    for name, text in made.items():
        (directory / name).write_text(text, encoding="utf-8")
    return len(made)


def _document(head: Sequence[str], sentences: Iterable[Sentence]) -> str:
    return "\n".join([*head, *dict.fromkeys(s.text.strip() for s in sentences)]) + "\n"


def _file_name(title: str) -> str:
    """Readable, and different for titles that differ in case or signs only."""
    stem = _NOT_A_NAME.sub("-", title).strip("-")[:LONGEST_STEM]
    return f"{stem}-{hashlib.sha256(title.encode()).hexdigest()[:8]}.txt"


# ruff: noqa: RUF001 (typographic signs of the texts are meant)


Kind = Literal["person", "band", "film", "series", "album", "song", "novel"]

NATIONS = (
    "American|British|English|Scottish|Welsh|Irish|Northern Irish|Canadian|Australian|New Zealand|French|German|Italian"
    "|Spanish|Portuguese|Dutch|Belgian|Swiss|Austrian|Danish|Swedish|Norwegian|Finnish|Icelandic|Polish|Czech|Hungarian"
    "|Romanian|Bulgarian|Greek|Turkish|Russian|Ukrainian|Israeli|Iranian|Indian|Pakistani|Bangladeshi|Chinese|Japanese"
    "|South Korean|Korean|Taiwanese|Hong Kong|Filipino|Thai|Malaysian|Mexican|Brazilian|Argentine|Chilean|Colombian"
    "|Cuban|Jamaican|Barbadian|Puerto Rican|South African|Nigerian|Kenyan|Egyptian|Serbian|Croatian|Luxembourgish"
)
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_MONTH = "|".join(MONTHS)
_DATE = rf"(?:(?:{_MONTH}) ?\d{{1,2}}, \d{{4}}|\d{{1,2}} (?:{_MONTH}) \d{{4}})"
OCCUPATIONS = (
    "actor|actress|director|filmmaker|film maker|producer|screenwriter|writer|author|novelist|poet|playwright"
    "|journalist|singer|songwriter|singer-songwriter|rapper|musician|guitarist|drummer|bassist|composer|DJ|dancer|model"
    "|comedian|animator|cartoonist|artist|politician|footballer|basketball player|wrestler|boxer|entrepreneur"
    "|businessman|philosopher|economist|lawyer|entertainer|showrunner|presenter|television personality|statesman"
    "|stateswoman|painter|architect|fashion designer|cricketer|tennis player|quarterback|pianist|mathematician|chef"
    "|surfer|explorer"
)
_LIFE = re.compile(
    r"^(?P<name>[^()]{2,80}?),*\s*\((?P<life>(?:[^()]|\([^()]*\))*)\),?\s"
    r"(?P<rest>(?:[^.]|\.(?! [A-Z]))*?\b(?:is|was)\b.*)$"
)
_IS_A = re.compile(r"\b(?:is|was) (?:an?|the)\b(?P<what>.*)")
_NATION = re.compile(
    rf"^\s*(?:former |retired |prolific )?(?P<nation>{NATIONS})\b(?![- ]?(?:born|based|raised|and\b|/))(?!-)"
)
_BIRTH_NAME = re.compile(
    r"^(?:\[[^\]]*\][,;]? )?born (?P<name>[A-Z][\w.'’-]+(?: [A-Z][\w.'’-]+)+(?:, [JS]r\.)?)(?:,? (?:on|in)\b|;)"
)


@dataclass(frozen=True)
class Fact:
    """A statement about a page that a question can be about.

    Attributes:
        sentence: What states so.
        attribute: What of the page is posed: "birth year", "network", …; one page has one value of it.
        question: The question, with `{x}` where the page is described.
        answers: The answer as the sentence has it, then other spellings.
        kind: What the page is.
        words: What the sentence states about it ("American film director and actor"), to distinguish namesakes.
    """

    sentence: Sentence
    attribute: str
    question: str
    answers: tuple[str, ...]
    kind: Kind
    words: str = ""


@dataclass(frozen=True)
class Definition:
    """What a work is: its kind, and the year that its sentence names."""

    kind: Kind
    noun: str
    year: int | None


@dataclass(frozen=True)
class Person:
    """What the first sentence of a person's article states.

    Attributes:
        born: Day of birth; None if the day is not known.
        died: Day of death likewise.
        birth_year: Year of birth.
        birth_name: Name at birth, where it is another.
        nation: A nationality, where the sentence names one only.
        words: Description of the person.
    """

    born: date | None
    died: date | None
    birth_year: int
    birth_name: str
    nation: str
    words: str


def person_of(sentence: Sentence) -> Person | None:
    """The person that a sentence introduces; None if it introduces none, or in a form that leaves room for doubt."""
    if sentence.page is None:
        return None
    result = _LIFE.match(sentence.text)
    if result is None or bare(sentence.page).split()[-1].casefold() not in sentence.text.casefold():
        return None
    life = result["life"].replace("--", "–")
    words = _first_words(result["rest"])
    if not re.search(rf"\b(?:{OCCUPATIONS})\b", words) or re.search(r"\b(?:circa|c\.|ca\.|or|between|BC|AD)\b", life):
        return None
    days = re.findall(_DATE, life)
    if not days:
        year = re.fullmatch(r"(?:.*\b)?born (?:in )?(\d{4})", life)
        born, died, birth_year = None, None, int(year[1]) if year else 0
    else:
        if len(days) > 2 or (len(days) == 2) != ("–" in life):
            return None
        born, died = _day(days[0]), _day(days[1]) if len(days) == 2 else None
        if born is None or (len(days) == 2 and died is None):
            return None
        birth_year = born.year
    if not birth_year or len(re.findall(r"\b\d{4}\b", life)) != max(1, len(days)):
        return None
    name = _BIRTH_NAME.match(life)
    nation = _NATION.match(words)
    return Person(born, died, birth_year, name["name"] if name else "", nation["nation"] if nation else "", words)


def _first_words(rest: str) -> str:
    """What follows "is a", up to the end of the clause."""
    result = _IS_A.search(rest)
    return (
        re.split(r"[.;]|\b(?:who|whose|which|that|best known|known for)\b", result["what"])[0].strip() if result else ""
    )


def _day(text: str) -> date | None:
    day, month, year = re.search(r"\b\d{1,2}\b", text), re.search(_MONTH, text), re.search(r"\d{4}", text)
    if day is None or month is None or year is None:
        return None
    try:
        return date(int(year[0]), MONTHS.index(month[0]) + 1, int(day[0]))
    except ValueError:
        return None


def day_answers(day: date) -> tuple[str, ...]:
    """The spellings of a day."""
    month = MONTHS[day.month - 1]
    return (f"{month} {day.day}, {day.year}", f"{day.day} {month} {day.year}")


def definition_of(sentence: Sentence) -> Definition | None:
    """What kind of work a sentence states its page is; it must name the page first."""
    if sentence.page is None:
        return None
    title = re.escape(bare(sentence.page))
    result = re.match(
        rf'^"?{title}"?,?(?: \((?:[^()]|\([^()]*\))*\))?(?: \[[^\]]*\])*,? (?:is|was) (?:an?|the)\b(?P<what>.*)',
        sentence.text,
        re.I,
    )
    if result is None:
        return None
    what = re.split(
        r"\b(?:by|of|from|which|that|based|starring|featuring|released|created|developed|in)\b|[.;]", result["what"]
    )[0]
    year = re.match(r"^ (\d{4})\b", what)
    for pattern, kind, noun in _KINDS:
        if re.search(pattern, what):
            return Definition(kind, noun, int(year[1]) if year else None)
    return None


_KINDS: tuple[tuple[str, Kind, str], ...] = (
    (
        r"\b(?:film|movie)\b(?! (?:series|franchise|studio|festival|genre|actor|award|director|score|character))",
        "film",
        "film",
    ),
    (
        r"\b(?:television|TV|web|animated|drama|comedy|anthology) (?:drama )?series\b|\bsitcom\b|\btelevision show\b",
        "series",
        "television series",
    ),
    (r"\b(?:album|mixtape|extended play|EP)\b", "album", "album"),
    (r"\b(?:song|single)\b", "song", "song"),
    (r"\bnovel\b(?! series)", "novel", "novel"),
)  # fmt: skip


def facts_of(sentence: Sentence) -> list[Fact]:
    """All facts of a sentence about its page."""
    if sentence.page is None:
        return []
    return [*_of_person(sentence), *_of_work(sentence), *_of_band(sentence)]


def _of_person(sentence: Sentence) -> list[Fact]:
    person = person_of(sentence)
    if person is None:
        return []
    results: list[tuple[str, str, tuple[str, ...]]] = [
        ("birth year", "In which year was {x} born?", (str(person.birth_year),))
    ]
    if person.born is not None:
        results.append(("birth day", "On what date was {x} born?", _as_written(sentence, day_answers(person.born))))
    if person.died is not None:
        results.append(("death day", "On what date did {x} die?", _as_written(sentence, day_answers(person.died))))
        results.append(("death year", "In which year did {x} die?", (str(person.died.year),)))
    if person.birth_name:
        results.append(("birth name", "What is the birth name of {x}?", (person.birth_name,)))
    # "American" is too easily guessed, and "British" is often stated more precisely
    if person.nation not in ("", "American", "British"):
        alias = ("British",) if person.nation in ("English", "Scottish", "Welsh") else ()
        results.append(("nationality", "What is the nationality of {x}?", (person.nation, *alias)))
    return [Fact(sentence, a, q, answers, "person", person.words) for a, q, answers in results]


def _as_written(sentence: Sentence, answers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(answers, key=lambda a: a not in sentence.text))


def _of_work(sentence: Sentence) -> list[Fact]:
    """Release and premiere of works."""
    what = definition_of(sentence)
    if what is None:
        return []
    results: list[Fact] = []
    if what.kind == "film" and what.year is not None:
        results.append(
            Fact(sentence, "film year", "In which year was {x} released?", (str(what.year),), "film", what.noun)
        )
    day = re.search(rf"\breleased on (?P<day>{_DATE})", sentence.text)
    if what.kind == "album" and day is not None and (on := _day(day["day"])) is not None:
        answers = _as_written(sentence, day_answers(on))
        results.append(Fact(sentence, "release day", "On what date was {x} released?", answers, "album", what.noun))
    if what.kind == "series":
        first = re.search(
            rf"\b(?:premiered|aired|airs|ran|broadcast)\b[^.;]*?\b(?:on|from) (?P<day>{_DATE})", sentence.text
        )
        if first is not None and (on := _day(first["day"])) is not None:
            answers = _as_written(sentence, day_answers(on))
            results.append(Fact(sentence, "premiere", "On what date did {x} premiere?", answers, "series", what.noun))
    return results


_BAND = re.compile(
    rf"\b(?:is|was|are|were) an? (?P<nation>{NATIONS}) (?P<words>[\w /&-]*?(?:band|group|duo|trio))\b(?P<rest>.*)"
)


def _of_band(sentence: Sentence) -> list[Fact]:
    """Where a band is from, and since when it is one."""
    assert sentence.page is not None
    title = bare(sentence.page)
    if not re.match(rf"^(?:The )?{re.escape(title)}\b", sentence.text):
        return []
    results: list[Fact] = []
    band = _BAND.search(sentence.text)
    if band is not None and "label" not in band["words"]:
        position = re.search(
            r"\b(?P<how>formed in|from) "
            r"(?P<place>[A-Z][\w'’-]+(?: [A-Z][\w'’-]+)*(?:, [A-Z][\w'’-]+(?: [A-Z][\w'’-]+)*)*)"
            r"(?=[.,;]| in \d| by | and (?!(?:the )?[A-Z])|$)",
            band["rest"],
        )
        year = re.search(r"\bformed (?:in|by) [^.;]*?\b(?P<year>\d{4})\b", band["rest"])
        if position is not None and not re.match(_MONTH, position["place"]):
            answers = _place_names(position["place"])
            requests = "Where was {x} formed?" if position["how"] == "formed in" else "Where is {x} from?"
            results.append(Fact(sentence, "band place", requests, answers, "band", band["words"]))
        if year is not None:
            results.append(
                Fact(sentence, "band year", "In which year was {x} formed?", (year["year"],), "band", band["words"])
            )
    return results


def _place_names(position: str) -> tuple[str, ...]:
    """A place as it is written, and without the region."""
    parts = position.split(", ")
    return tuple(dict.fromkeys([position, *([", ".join(parts[:2])] if len(parts) > 2 else []), parts[0]]))


# ruff: noqa: RUF001 (typographic signs of the texts are meant)


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
    """A link from a page to another.

    Attributes:
        sentence: What states so.
        relation: What the other page is to this one: "director", "actor of John McClane", …
        name: What the sentence calls the other page.
        description: How a question describes the other page without naming it.
        fits: A pattern that the other page's words must meet, so that it is no namesake.
        kinds: What the other page may be.
        cue: A pattern of the same part of the page in other sentences.
    """

    sentence: Sentence
    relation: str
    name: str
    description: str
    fits: str
    kinds: tuple[Kind, ...]
    cue: str


def name_at(text: str, start: int) -> str:
    """The one name at a position, after its description ("American singer …"); empty if there are several."""
    before = _BEFORE.match(text, start)
    result = _NAME.match(text, before.end() if before is not None else start)
    if result is None:
        return ""
    # a full stop that ends the sentence is no part of the name, one after a letter or "Jr" is
    name = result[0] if re.search(r"(?:\b[A-Z]|\b[JS]r)\.$", result[0]) else result[0].rstrip(".")
    of_somebody = re.search(r"['’]s?$", name) is not None
    return "" if of_somebody or not _ENDS.match(text[result.start() + len(name) :]) else name


def title_at(corpus: Corpus, text: str) -> str:
    """The longest title that a text begins with, and that ends where a title can end; empty if there is none."""
    ends = [m.start() for m in _TITLE_ENDS.finditer(text[:LONGEST_TITLE])]
    return next((text[:e] for e in reversed(ends) if text[:e] in corpus.titles), "")


def work_after(corpus: Corpus, definitions: dict[str, Definition], text: str, kinds: tuple[Kind, ...]) -> str:
    """The title of a work in a text after words that only describe it ("the NBC sitcom …").

    Returns:
        The bare title; empty if there is none, or if something else is before it.
    """
    for start in (m.start() for m in re.finditer(r"(?<![\w'’])(?=[A-Z0-9])", text[:LONGEST_TITLE])):
        title = title_at(corpus, text[start:])
        if title and any(p in definitions and definitions[p].kind in kinds for p in corpus.titles[title]):
            return title if _ON_THE_WAY.match(text[:start]) else ""
    return ""


def definitions_of(corpus: Corpus) -> dict[str, Definition]:
    """What kind of work each page is about: as a sentence of it states, else as the bracket of its title does."""
    results: dict[str, Definition] = {}
    for title, sentences in corpus.pages.items():
        values = [d for s in sentences if (d := definition_of(s)) is not None]
        inside = re.fullmatch(r"(?:(\d{4}) )?(film|TV series|album|song|novel)", bracket(title))
        if values:
            results[title] = next((d for d in values if d.year is not None), values[0])
        elif inside is not None:
            kind, noun = _BRACKETS[inside[2]]
            results[title] = Definition(kind, noun, int(inside[1]) if inside[1] else None)
    return results


_BRACKETS: dict[str, tuple[Kind, str]] = {
    "film": ("film", "film"),
    "TV series": ("series", "television series"),
    "album": ("album", "album"),
    "song": ("song", "song"),
    "novel": ("novel", "novel"),
}


def described(title: str, what: Definition) -> str:
    """How a question names a work unambiguously among works of its kind; empty if the title does not suffice.

    A bracket with a name ("… (Linkin Park song)") implies other works of that title.
    """
    values = re.fullmatch(
        r"(?:(?P<year>\d{4}) |(?P<us>U\.S\. ))?(?:film|TV series|television series|album|EP|mixtape|song|novel)?",
        bracket(title),
    )
    if values is None:
        return ""
    year = what.year or (int(values["year"]) if values["year"] else None)
    lead = f"{year} " if year else "American " if values["us"] else ""
    return f'the {lead}{what.noun} "{bare(title)}"'


# ruff: noqa: RUF001 (typographic signs of the texts are meant)


ACTORS = r"\b(?:actor|actress|comedian|comedienne|entertainer|model)\b"
_CAST_PERSON: tuple[Kind, ...] = ("person",)
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
    """From a film or a series to the actor of one part."""
    text = sentence.text
    cast = [(m["role"], m["actor"]) for p in (_STARS_AS, _IN_BRACKETS) for m in p.finditer(text)]
    cast += [(m["role"], name_at(text, m.end())) for m in _PLAYED_BY.finditer(text)]
    for role, actor in cast:
        if actor and role not in ("The", "It", "He", "She", "They", "Himself", "Herself"):
            values = f"the actor who plays {role} in {x}"
            part = re.escape(role)
            cue = rf"\b(?:as|plays|role of) {part}\b|\b{part},? \(?(?:who is |is )?(?:played|portrayed) by\b"
            yield Link(sentence, f"actor of {role}", actor, values, ACTORS, _CAST_PERSON, cue)
    for title in _TITLE_ROLE.finditer(text):
        values = f"the actor in the title role of {x}"
        yield Link(sentence, "actor of the title role", title["actor"], values, ACTORS, _CAST_PERSON, r"\btitle role\b")


def of_character(sentence: Sentence) -> Iterator[Link]:
    """From a made-up person to the one actor."""
    name = bare(sentence.page or "")
    is_a = _CHARACTER.search(sentence.text)
    if is_a is None or person_of(sentence) is not None or len(name.split()) < 2:
        return
    positions = list(_PART_OF.finditer(sentence.text))
    actor = name_at(sentence.text, positions[0].end()) if len(positions) == 1 else ""
    if actor and name.split()[-1] in sentence.text[: is_a.start()]:
        values = f"the actor who plays the fictional character {name}"
        yield Link(sentence, "actor", actor, values, ACTORS, _CAST_PERSON, _PART_OF.pattern)


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
        values = f"the {f'{year} ' if kind == 'film' else ''}{_NOUNS[kind]} in which {name} played {role}"
        cue = rf"\b{re.escape(role)} (?:in|on)\b"
        yield Link(sentence, f"part of {role}", title, values, _NOUNS[kind], (kind,), cue)


def _kind_of(title: str, corpus: Corpus, definitions: dict[str, Definition], text: str) -> Kind | None:
    """Whether a title is that of a film or that of a series; where both have it, by the words before it."""
    kinds = {definitions[p].kind for p in corpus.titles[title] if p in definitions} & set(_SHOWN)
    before = text[: text.index(title)]
    named: set[Kind] = {"film"} if re.search(r"\bfilm\b", before) else set()
    named |= {"series"} if re.search(r"\b(?:series|sitcom|show)\b", before) else set()
    left = kinds & named if named else kinds
    return left.pop() if len(left) == 1 else None


# ruff: noqa: RUF001 (typographic signs of the texts are meant)


_FILM_PEOPLE = (
    r"\b(?:director|filmmaker|film maker|producer|screenwriter|writer|actor|actress|film|television|animator)\b"
)
_WRITERS = r"\b(?:writer|author|novelist|poet|playwright|journalist|screenwriter|philosopher|creator|artist|editor)\b"
_PERFORMERS = r"\b(?:singer|rapper|musician|songwriter|recording|guitarist|DJ|band|group|duo|trio|entertainer)\b"
_DONE = r"(?:directed|written|produced|edited|co-written|co-produced|executive produced|composed|shot|scored)"
_PERSON: tuple[Kind, ...] = ("person",)


@dataclass(frozen=True)
class _Rule:
    """A pattern on the page of a work, after which one name is."""

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
    """All links from a sentence's page to others."""
    if sentence.page is None:
        return []
    results = [*of_character(sentence), *of_actor(sentence, corpus, definitions), *_of_musician(sentence)]
    what = definitions.get(sentence.page)
    x = described(sentence.page, what) if what is not None else ""
    if what is not None and x:
        if what.kind in ("film", "series"):
            results += of_work(sentence, x)
        if definition_of(sentence) is not None or _SUBJECT.match(sentence.text):
            results += _link_of_work(sentence, corpus, definitions, what, x)
    return results


def _link_of_work(
    sentence: Sentence, corpus: Corpus, definitions: dict[str, Definition], what: Definition, x: str
) -> Iterator[Link]:
    for rule in _RULES:
        name = _named(rule, what.kind, sentence.text)
        if name:
            yield Link(sentence, rule.relation, name, rule.description.format(x=x), rule.fits, rule.kinds, rule.cue)
    whose = _WHOSE.search(sentence.text) if what.kind == "film" else None
    if whose is not None:
        values = f"the author of the work that {x} is based on"
        yield Link(sentence, "author of the source", whose["name"], values, _WRITERS, _PERSON, r"\bbased (?:up)?on\b")
    album = _ALBUM_OF.search(sentence.text) if what.kind == "song" else None
    title = work_after(corpus, definitions, sentence.text[album.end() :], ("album",)) if album is not None else ""
    if title:
        yield Link(sentence, "album", title, f"the album that {x} is from", "album", ("album",), r"\balbum\b")


def _named(rule: _Rule, kind: Kind, text: str) -> str:
    """The one name after a rule's pattern; empty if the pattern is there twice."""
    cues = list(re.finditer(rule.cue, text)) if kind in rule.of else []
    return name_at(text, cues[0].end()) if len(cues) == 1 else ""


def _of_musician(sentence: Sentence) -> Iterator[Link]:
    """From a musician to the band."""
    name = bare(sentence.page or "")
    plays = _PLAYS_IN.search(sentence.text) if person_of(sentence) is not None else None
    band = name_at(sentence.text, plays.end()) if plays is not None else ""
    if plays is not None and band:
        values = f"the band whose {plays['part']} is {name}"
        cue = rf"\b{plays['part']} (?:of|for)\b"
        yield Link(sentence, "band", band, values, r"band|group|duo|trio", ("band",), cue)


def all_facts_of(sentence: Sentence, definitions: dict[str, Definition]) -> list[Fact]:
    """Every fact, those of works whose answer is a name included."""
    result = facts_of(sentence)
    what = definitions.get(sentence.page or "")
    if what is not None and definition_of(sentence) is not None:
        for rule in _RULES:
            name = _named(rule, what.kind, sentence.text) if rule.relation in _NAMED_ANSWERS else ""
            if len(name.split()) > 1:
                result.append(
                    Fact(sentence, rule.relation, _NAMED_ANSWERS[rule.relation], (name,), what.kind, what.noun)
                )
    return result


_Dated = tuple[Fact, int]
"""A fact and its year."""


@dataclass(frozen=True)
class Candidate:
    """A question that has not been reviewed yet.

    Attributes:
        type: What kind of question: "director, birth year", "compare films", …
        question: Its text.
        answers: The right answer, then other spellings.
        sentences: The two gold sentences in the order of the hops.
        hops: The statement of each of them.
        bridge: What the first sentence calls the second page; empty for a comparison.
        link: The first hop; None for a comparison.
        facts: The facts that are posed for: one, or the two that are compared.
        id: Made of the question, so that it stays the same whatever else is posed.
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
    """Every link with every fact of the page that it leads to."""
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
    values = {t: described(t, definitions[t]) for t in directed}
    by_director: dict[str, list[str]] = {}
    for title in sorted((t for t in directed if values[t]), key=_hash):
        by_director.setdefault(directed[title].answers[0], []).append(title)
    same = [(films[0], films[1]) for films in by_director.values() if len(films) > 1]
    single = {films[0]: name for name, films in by_director.items() if len(films) == 1}
    other = list(_pairs(single, lambda x, y: single[x] != single[y]))[: len(same)]
    for answer, pairs in (("yes", same), ("no", other)):
        for a, b in pairs:
            yield Candidate(
                type=f"compare directors, {answer}",
                question=f"Were {values[a]} and {values[b]} directed by the same person?",
                answers=(answer,),
                sentences=(directed[a].sentence, directed[b].sentence),
                hops=("director", "director"),
                bridge="",
                link=None,
                facts=(directed[a], directed[b]),
            )


def _in_order(sort: str, requests: str, dated: dict[str, _Dated], shown: Callable[[str], str]) -> Iterator[Candidate]:
    """Questions for the earlier or the later of two, whichever the hash of their titles states."""
    for a, b in _pairs(dated, lambda x, y: dated[x][1] != dated[y][1]):
        early, late = sorted((a, b), key=lambda t: dated[t][1])
        first = int(_hash(a + b), 16) % 2 == 0
        yield Candidate(
            type=f"compare {sort}",
            question=requests.format(when="first" if first else "later", a=shown(a), b=shown(b)),
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


_PRONOUN = re.compile(r"(?:It|He|She|They|This|These|That|His|Her|Its|Their)\b")

_BORN = re.compile(r"\bborn\b[^.;)]{0,60}?\b(\d{4})\b")


class Review:
    """Reviews candidates against the pool."""

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
        """Why a candidate is refused; empty if it is accepted."""
        if answer_kind(Question(text=one.question)) not in ("text", "yes_no"):
            return "its words would be read as mathematics"
        if any(self._subject_is_lost(s, first=s is one.sentences[0] and not one.is_comparison) for s in one.sentences):
            return "a sentence's subject is lost"
        if any(self._contradicted(fact) for fact in one.facts):
            return "another sentence contradicts it"
        return self._refuses_comparison(one) if one.link is None else self._refuses_bridge(one, one.link)

    def _refuses_comparison(self, one: Candidate) -> str:
        a, b = one.pages
        if one.answers[0] in ("yes", "no"):
            return "" if self._has_no_namesake(a) and self._has_no_namesake(b) else "a page has a namesake"
        # a bracket that states more than the question does implies namesakes outside the pool
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
            ("a second page fits the question", not self._has_no_namesake(first.page or "")),
        ):
            if is_so:
                return why
        if self._leads_elsewhere(link):
            return "the bridge is not the only one"
        return "one sentence is enough" if self._short_cut(one) else ""

    def _subject_is_lost(self, sentence: Sentence, *, first: bool) -> bool:
        """Whether a sentence states neither its page's title nor, as a first hop may, "the film" or a part.

        Of a person or a character the last name is enough.
        """
        title = bare(sentence.page or "")
        last = squad_words(title)[-1:] if sentence.page not in self._definitions else ()
        if _within(title, sentence.text) or any(_within(word, sentence.text) for word in last):
            return False
        return not first or _PRONOUN.match(sentence.text) is not None

    def _fits(self, page: str, link: Link) -> bool:
        return any(f.kind in link.kinds and re.search(link.fits, f.words) for f in self._facts.get(page, ()))

    def _has_no_namesake(self, page: str) -> bool:
        """Whether no other page has this title, kind and year; a person's name must be the only one."""
        own = self._definitions.get(page)

        def is_other(theirs: Definition | None) -> bool:
            """Whether the question cannot mean that page: it is of another kind, or of another year."""
            if own is None or theirs is None:
                return own is not None
            return theirs.kind != own.kind or (own.year is not None and theirs.year not in (None, own.year))

        return all(p == page or is_other(self._definitions.get(p)) for p in self._corpus.titles[bare(page)])

    def _leads_elsewhere(self, link: Link) -> bool:
        """Whether another sentence of the first page gives another person that part."""
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
            # less strict than the patterns of facts: any year after "born" counts
            years = (m[1] for s in self._corpus.pages[page] for m in _BORN.finditer(s.text))
            if any(year not in fact.answers[0] for year in years):
                return True
        return any(f.attribute == fact.attribute and not {*f.answers} & {*fact.answers} for f in self._facts[page])

    def _short_cut(self, one: Candidate) -> bool:
        """Whether a sentence holds the answer, and is on the first page or about both."""
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


COMPARED = 0.35
"""Largest share of comparisons."""


def choose(candidates: Iterable[Candidate], count: int, most: int, refused: Counter[str]) -> list[Candidate]:
    """Take reviewed candidates in the order of their hashes, a type after the other in turn.

    Returns:
        At most `count`, in the order of their hashes. No page is in two of them.
    """
    waiting: dict[str, list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda c: c.id):
        waiting.setdefault(candidate.type, []).append(candidate)
    sizes = {name: (len(of), name) for name, of in waiting.items()}
    are_compared = {name: of[0].is_comparison for name, of in waiting.items()}
    taken: list[Candidate] = []
    used: set[str] = set()
    # bridges before comparisons, which can be made of any pages; the rarest type first, lest others use up its pages
    for compared in (False, True):
        types = sorted((t for t in waiting if are_compared[t] == compared), key=sizes.__getitem__)
        left = int(COMPARED * count) if compared else count
        enough = dict.fromkeys(types, most)
        while any(waiting[t] for t in types):
            for name in types:
                one = _next(waiting[name], used, refused)
                if one is None:
                    continue
                if enough[name] == 0 or left == 0 or len(taken) == count:
                    refused["enough of its type" if enough[name] == 0 else "enough questions"] += 1
                    continue
                taken.append(one)
                used.update(one.pages)
                enough[name] -= 1
                left -= 1
    return sorted(taken, key=lambda c: c.id)


def _next(waiting: list[Candidate], used: set[str], refused: Counter[str]) -> Candidate | None:
    """The first candidate of which no page is used; those before it are refused. None if there is none left."""
    while waiting:
        one = waiting.pop(0)
        if not used & set(one.pages):
            return one
        refused["a page is in another question"] += 1
    return None


def row_of(one: Candidate) -> dict[str, Any]:
    """A question as a row of the dataset `file`."""
    return {
        "id": one.id,
        "question": one.question,
        "answer": list(one.answers),
        "subject": one.type,
        "kind": "comparison" if one.is_comparison else "bridge",
        "bridge": one.bridge,
        "gold_sentences": [s.id for s in one.sentences],
        "gold_pages": list(one.pages),
        "hops": [
            {"page": s.page, "relation": how, "sentence": s.text}
            for s, how in zip(one.sentences, one.hops, strict=True)
        ],
    }


def build(
    corpus: Corpus, count: int, most: int, sources: Sequence[str] = ()
) -> tuple[list[Candidate], Counter[str], int]:
    """Make the questions.

    Returns:
        The questions, how many candidates each rule refused, and how many candidates there were.
    """

    def may_be_gold(sentence: Sentence) -> bool:
        return sentence.page is not None and (not sources or sentence.source in sources)

    review = Review(corpus)
    results = [*bridges(corpus, may_be_gold), *comparisons(corpus, may_be_gold)]
    refused: Counter[str] = Counter()
    passed: list[Candidate] = []
    for one in results:
        why = review.refuses(one)
        if why:
            refused[why] += 1
        else:
            passed.append(one)
    return choose(passed, count, most, refused), refused, len(results)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the pool, write questions and documents, and print refusals on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="sentences as JSON lines: id, page, text, source")
    parser.add_argument("--out", type=Path, required=True, help="where the questions go")
    parser.add_argument("--documents", type=Path, help="directory for the pool as documents, a file a page")
    parser.add_argument("--count", type=int, default=80, help="number of questions")
    parser.add_argument("--most", type=int, default=12, help="most questions of one type")
    parser.add_argument("--source", action="append", default=[], help="collection of gold sentences; may be repeated")
    args = parser.parse_args(arguments)
    if args.count < 1 or args.most < 1:
        parser.error("--count and --most must be at least 1")
    corpus = read_corpus(args.corpus)
    questions, refused, candidates = build(corpus, args.count, args.most, args.source)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row_of(one), ensure_ascii=False) + "\n" for one in questions]
    args.out.write_text("".join(lines), encoding="utf-8")
    print(f"{len(questions)} questions of {candidates} candidates; refused:", file=sys.stderr)
    for why, how_many in refused.most_common():
        print(f"  {how_many:6} {why}", file=sys.stderr)
    for name, how_many in sorted(Counter(one.type for one in questions).items()):
        print(f"  {how_many:6} of type {name}", file=sys.stderr)
    if args.documents is not None:
        print(f"{write_documents(corpus, args.documents)} documents in {args.documents}", file=sys.stderr)


if __name__ == "__main__":
    main()
