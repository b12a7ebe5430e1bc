"""What a sentence says of its page in a form that can be asked for: the second hop of a question.

Everything is told by patterns over the first words of an encyclopaedia's article ("X (born DATE) is a …", "X is a 2007
American … film directed by …"). A pattern that is not sure gives nothing.
"""

# ruff: noqa: RUF001 (typographic signs of the texts are meant)
from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Literal

from multihop_corpus import Sentence, bare

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
    """Something that can be asked of a page.

    Attributes:
        sentence: What says so.
        attribute: What of the page is asked: "birth year", "network", …; one page has one value of it.
        question: The question, with `{x}` where the page is described.
        answers: The answer as the sentence has it, then other ways to write it.
        kind: What the page is.
        words: What the sentence says of it ("American film director and actor"), for telling namesakes apart.
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
    """What the first sentence of a person's article says.

    Attributes:
        born: Day of birth; None where it is not told to the day.
        died: Day of death likewise.
        birth_year: Year of birth.
        birth_name: Name at birth, where it is another.
        nation: A nationality, where the sentence names one alone.
        words: What the person is.
    """

    born: date | None
    died: date | None
    birth_year: int
    birth_name: str
    nation: str
    words: str


def person_of(sentence: Sentence) -> Person | None:
    """The person that a sentence introduces; None if it introduces none, or in a way that leaves room for doubt."""
    if sentence.page is None:
        return None
    found = _LIFE.match(sentence.text)
    if found is None or bare(sentence.page).split()[-1].casefold() not in sentence.text.casefold():
        return None
    life = found["life"].replace("--", "–")
    words = _words_of(found["rest"])
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


def _words_of(rest: str) -> str:
    """What stands behind "is a", up to the end of the clause."""
    found = _IS_A.search(rest)
    return (
        re.split(r"[.;]|\b(?:who|whose|which|that|best known|known for)\b", found["what"])[0].strip() if found else ""
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
    """The ways to write a day."""
    month = MONTHS[day.month - 1]
    return (f"{month} {day.day}, {day.year}", f"{day.day} {month} {day.year}")


def definition_of(sentence: Sentence) -> Definition | None:
    """What kind of work a sentence says its page is; it must name the page first."""
    if sentence.page is None:
        return None
    title = re.escape(bare(sentence.page))
    found = re.match(
        rf'^"?{title}"?,?(?: \((?:[^()]|\([^()]*\))*\))?(?: \[[^\]]*\])*,? (?:is|was) (?:an?|the)\b(?P<what>.*)',
        sentence.text,
        re.I,
    )
    if found is None:
        return None
    what = re.split(
        r"\b(?:by|of|from|which|that|based|starring|featuring|released|created|developed|in)\b|[.;]", found["what"]
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
    """All that a sentence says of its page and that can be asked."""
    if sentence.page is None:
        return []
    return [*_of_person(sentence), *_of_work(sentence), *_of_band(sentence)]


def _of_person(sentence: Sentence) -> list[Fact]:
    person = person_of(sentence)
    if person is None:
        return []
    found: list[tuple[str, str, tuple[str, ...]]] = [
        ("birth year", "In which year was {x} born?", (str(person.birth_year),))
    ]
    if person.born is not None:
        found.append(("birth day", "On what date was {x} born?", _as_written(sentence, day_answers(person.born))))
    if person.died is not None:
        found.append(("death day", "On what date did {x} die?", _as_written(sentence, day_answers(person.died))))
        found.append(("death year", "In which year did {x} die?", (str(person.died.year),)))
    if person.birth_name:
        found.append(("birth name", "What is the birth name of {x}?", (person.birth_name,)))
    # "American" is too easily guessed, and "British" is as often told more closely
    if person.nation not in ("", "American", "British"):
        alias = ("British",) if person.nation in ("English", "Scottish", "Welsh") else ()
        found.append(("nationality", "What is the nationality of {x}?", (person.nation, *alias)))
    return [Fact(sentence, a, q, answers, "person", person.words) for a, q, answers in found]


def _as_written(sentence: Sentence, answers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(answers, key=lambda a: a not in sentence.text))


def _of_work(sentence: Sentence) -> list[Fact]:
    """Release and premiere of works."""
    what = definition_of(sentence)
    if what is None:
        return []
    found: list[Fact] = []
    if what.kind == "film" and what.year is not None:
        found.append(
            Fact(sentence, "film year", "In which year was {x} released?", (str(what.year),), "film", what.noun)
        )
    day = re.search(rf"\breleased on (?P<day>{_DATE})", sentence.text)
    if what.kind == "album" and day is not None and (on := _day(day["day"])) is not None:
        answers = _as_written(sentence, day_answers(on))
        found.append(Fact(sentence, "release day", "On what date was {x} released?", answers, "album", what.noun))
    if what.kind == "series":
        first = re.search(
            rf"\b(?:premiered|aired|airs|ran|broadcast)\b[^.;]*?\b(?:on|from) (?P<day>{_DATE})", sentence.text
        )
        if first is not None and (on := _day(first["day"])) is not None:
            answers = _as_written(sentence, day_answers(on))
            found.append(Fact(sentence, "premiere", "On what date did {x} premiere?", answers, "series", what.noun))
    return found


_BAND = re.compile(
    rf"\b(?:is|was|are|were) an? (?P<nation>{NATIONS}) (?P<words>[\w /&-]*?(?:band|group|duo|trio))\b(?P<rest>.*)"
)


def _of_band(sentence: Sentence) -> list[Fact]:
    """Where a band is from, and since when it is one."""
    assert sentence.page is not None
    title = bare(sentence.page)
    if not re.match(rf"^(?:The )?{re.escape(title)}\b", sentence.text):
        return []
    found: list[Fact] = []
    band = _BAND.search(sentence.text)
    if band is not None and "label" not in band["words"]:
        place = re.search(
            r"\b(?P<how>formed in|from) "
            r"(?P<place>[A-Z][\w'’-]+(?: [A-Z][\w'’-]+)*(?:, [A-Z][\w'’-]+(?: [A-Z][\w'’-]+)*)*)"
            r"(?=[.,;]| in \d| by | and (?!(?:the )?[A-Z])|$)",
            band["rest"],
        )
        year = re.search(r"\bformed (?:in|by) [^.;]*?\b(?P<year>\d{4})\b", band["rest"])
        if place is not None and not re.match(_MONTH, place["place"]):
            answers = _places(place["place"])
            asked = "Where was {x} formed?" if place["how"] == "formed in" else "Where is {x} from?"
            found.append(Fact(sentence, "band place", asked, answers, "band", band["words"]))
        if year is not None:
            found.append(
                Fact(sentence, "band year", "In which year was {x} formed?", (year["year"],), "band", band["words"])
            )
    return found


def _places(place: str) -> tuple[str, ...]:
    """A place as it is written, and without what it lies in."""
    parts = place.split(", ")
    return tuple(dict.fromkeys([place, *([", ".join(parts[:2])] if len(parts) > 2 else []), parts[0]]))
