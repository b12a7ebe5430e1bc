"""Stage 2: how a reviewer is asked about the others' answers, and how its reply is read.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for structured marks, issues and passages to keep; the wording is
our own. Differs: the public implementation does not show the question to the reviewer; here it comes first.
And it shows an example with marks for one candidate, which models of one or two billion parameters copy word by word,
marks included; here the form has a line for each candidate and no number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from ...core.question import Question
from ...reasoning.prompts import ask
from ...reasoning.reading import read
from .asking import MATERIAL, Asked, Form, asked, asked_again
from .blinding import Blinding
from .lenient_json import find_object, objects_in
from .opinions import LEAST_MARK, MOST_MARK, Issue, IssueKind, Marks, Quote, Review
from .option_orders import OptionOrder
from .schemas import review_schema

MOST_ISSUES: Final = 12
"""Issues, and likewise quotations, of one review that are taken."""
MOST_DETAIL_CHARS: Final = 300

_CRITERIA = ("accuracy", "insight", "clarity")
_KEEP = "keep"
_GAP = "..."
"""What stands in the form where the reviewer is to write."""
_KINDS = (
    "factual_risk (something in it is or may be false), missing_edge_case (it fails in a case that it does not name), "
    "unclear (it can be understood in several ways), incomplete (part of the question is not answered)"
)
_TASK = (
    "Judge each answer. Look first for what is false: facts, numbers, and misconceptions that many share. How an "
    "answer sounds comes last. Be critical and fair; two answers may deserve the same marks.\n"
    "Marks go from 1 (worst) to 10: accuracy (is it true?), insight (does it see what matters?), clarity.\n"
    f"Kinds of issues: {_KINDS}. Name only issues that are really there."
)
_FIELDS = (
    'Reply with JSON alone. "scores" has the three marks of each answer, by its letter. "issues" has each issue that '
    'you found: the letter of the answer ("candidate"), the kind, and what is wrong in one sentence ("detail"). "keep" '
    'has the passages worth keeping: the letter, and the exact words ("quote"). Both lists may be empty.'
)
"""The form for a model that is held to it: small ones copy an example, gaps and all."""
_JSON_STOPS = ("}]}", "[]}")
_LINES_STOPS = ("\n\n\n", "</answers>")
_KIND_WORDS: dict[str, IssueKind] = {
    "factual": "factual_risk",
    "fact": "factual_risk",
    "error": "factual_risk",
    "inaccura": "factual_risk",
    "incorrect": "factual_risk",
    "wrong": "factual_risk",
    "false": "factual_risk",
    "edge": "missing_edge_case",
    "unclear": "unclear",
    "clarity": "unclear",
    "vague": "unclear",
    "ambigu": "unclear",
    "incomplete": "incomplete",
    "missing": "incomplete",
    "omission": "incomplete",
}
_NUMBER = re.compile(r"(?<![\w.])(-?\d{1,4}(?:\.\d{1,4})?)(?:(?:\s?/\s?|\sout\sof\s)10\b)?(?![\w%])(?!\.\d)")
_CALLED = re.compile(r"\b(?:accuracy|insight|clarity)\b\s?[:=]?", re.IGNORECASE)
_SUM = re.compile(r"[+=^$\u00d7\u00f7]|\d\s?\*\s?\d")
_ISSUE_LINE = re.compile(
    r"^[\s*_>#-]{0,6}(?:answer\s)?[(\[*]{0,2}(\w{1,2})[)\]*]{0,2}[\s:,-]{1,4}(\w[\w /-]{2,24}?)\s?:\s?(.+)$", re.I
)
_MARK_LINE = re.compile(r"^[\s*_>#|-]{0,6}(?:answer\s)?[(\[*\"]{0,2}(\w{1,2})[)\]*\"]{0,2}\s?[:=|)-]{1,2}(.+)$", re.I)


def review_request(
    question: Question,
    answers: str,
    blind: Blinding,
    *,
    form: Form = "json",
    begin: bool = False,
    held: bool = False,
    own_left_out: bool = True,
) -> Asked:
    """What a reviewer is asked.

    Args:
        question: The question, with its options in the order that this reviewer sees.
        answers: The answers, quoted and fenced (see `blinding.show_answers`).
        blind: Their letters.
        form: In which form it is to reply.
        begin: Whether its model can be given the beginning of the reply.
        held: Whether its model can be held to a JSON schema.
        own_left_out: Whether the reviewer's own answer is not among them; it is told so.
    """
    first = blind.letters[0] if blind.letters else "A"
    whose = "They are anonymous, and yours is not among them." if own_left_out else "They are anonymous."
    head = f"Others have answered this question; their answers are quoted below. {whose} {MATERIAL}"
    most = min(MOST_ISSUES, 3 * len(blind.letters))  # a small model would fill whatever room there is
    schema = review_schema(blind.letters, most) if held and form == "json" and blind.letters else None
    if form == "json":
        shape = _json_form(blind.letters, first) if schema is None else _FIELDS
        opening, stop = f'{{"scores": [{{"candidate": "{first}", "accuracy": ', _JSON_STOPS
    else:
        shape = _lines_form(blind)
        opening, stop = f"{first}: ", _LINES_STOPS
    text = f"{head}\n\n{answers}\n\n{_TASK}\n{shape}"
    return asked(ask(question, text), opening, stop, form, begin=begin, schema=schema)


def _json_form(letters: Sequence[str], first: str) -> str:
    scores = ", ".join(
        f'{{"candidate": "{letter}", "accuracy": {_GAP}, "insight": {_GAP}, "clarity": {_GAP}}}' for letter in letters
    )
    return (
        f'Reply with JSON alone, of this form, with something of your own for each "{_GAP}"; marks are numbers, '
        "issues are told in one sentence, what is to be kept is copied exactly, and both lists may be empty:\n"
        f'{{"scores": [{scores}], "issues": [{{"candidate": "{first}", "kind": "{_GAP}", "detail": "{_GAP}"}}], '
        f'"keep": [{{"candidate": "{first}", "quote": "{_GAP}"}}]}}'
    )


def repair_request(first: Asked, reply: str, blind: Blinding, *, begin: bool = False) -> Asked:
    """What a reviewer is asked whose reply could not be read; once, and always for lines.

    Args:
        first: What it was asked.
        reply: What it replied, opening included.
        blind: The letters.
        begin: Whether its model can be given the beginning of a reply.
    """
    request = f"There are no marks in your reply that could be read. {_lines_form(blind)}"
    opening = f"{blind.letters[0] if blind.letters else 'A'}: "
    return asked_again(first, reply, request, opening, _LINES_STOPS, begin=begin)


def read_review(
    reply: str, blind: Blinding, reviewer: int, *, question: Question | None = None, order: OptionOrder | None = None
) -> Review:
    """Read a reviewer's reply, in whichever form it is.

    Marks are rounded and brought into 1..10; where some of an answer's marks are missing, their mean stands in. Letters
    that stand for nobody are dropped, and so are gaps of the form that were copied.

    Args:
        reply: The reply, opening included.
        blind: The reviewer's letters.
        reviewer: Whose model wrote it.
        question: The question in its own order, where the reviewer saw its options in another one.
        order: That order.

    Returns:
        The review, with candidates by juror and letters of options as the question has them; not ok if no mark could be
        read.
    """

    def told(text: Any, most: int = MOST_DETAIL_CHARS) -> str:
        line = " ".join(str(text).split())[:most] if isinstance(text, str) else ""
        if not line.strip(" .\u2026"):
            return ""
        line = order.retell(line, question) if order is not None and question is not None else line
        return blind.to_jurors(line)

    found = find_object(reply, lambda value: any(_marks_in_json(value, blind)))
    if found is not None:
        marks = _first_each(_marks_in_json(found, blind))
        named = [
            (_juror(item, blind), item.get("kind"), item.get("detail")) for item in objects_in(found.get("issues"))
        ]
        kept = [(_juror(item, blind), item.get("quote")) for item in objects_in(found.get("keep"))]
    else:
        lines = read(reply).text.splitlines()
        marks = _first_each(_marks_in_lines(lines, blind))
        below = [(blind.juror(m[1]), m[2].strip(), m[3]) for line in lines if (m := _issue_line(line))]
        named = list(below)
        kept = [(juror, text.strip(" \"'\u201c\u201d")) for juror, kind, text in below if kind.casefold() == _KEEP]
    if not marks:
        return Review(reviewer=reviewer, order=blind.jurors, ok=False, failure="no marks in its reply could be read")
    issues = [(juror, _kind(kind), told(detail)) for juror, kind, detail in named]
    quotes = [(juror, told(text)) for juror, text in kept]
    return Review(
        reviewer=reviewer,
        scores=tuple(marks),
        issues=tuple(
            Issue(candidate=juror, kind=kind, detail=detail)
            for juror, kind, detail in dict.fromkeys(issues)
            if juror is not None and kind is not None and detail
        )[:MOST_ISSUES],
        keep=tuple(
            Quote(candidate=juror, quote=text) for juror, text in dict.fromkeys(quotes) if juror is not None and text
        )[:MOST_ISSUES],
        order=blind.jurors,
        ok=True,
    )


def _lines_form(blind: Blinding) -> str:
    lines = "\n".join(f"{letter}: accuracy insight clarity" for letter in blind.letters)
    first = blind.letters[0] if blind.letters else "A"
    return (
        f"Reply with plain lines alone. First a line for each answer, with its three marks as numbers:\n{lines}\n"
        "Then, for each issue that you found, a line with the letter, the kind and what is wrong in one sentence, and "
        "for each passage worth keeping one with its exact words:\n"
        f"{first} factual_risk: {_GAP}\n{first} {_KEEP}: {_GAP}"
    )


def _marks_in_json(value: dict[str, Any], blind: Blinding) -> Iterator[Marks]:
    """Marks as a list of objects, or by letter."""
    scores = value.get("scores")
    if isinstance(scores, dict):
        entries = [
            {"candidate": letter, **(m if isinstance(m, dict) else {"marks": m})} for letter, m in scores.items()
        ]
    else:
        entries = objects_in(scores)
    for entry in entries:
        juror = _juror(entry, blind)
        plain = entry.get("marks", entry.get("scores"))
        three = plain if isinstance(plain, list) else [entry.get(name) for name in _CRITERIA]
        yield from _as_marks(juror, [_number(mark) for mark in three[:3]] or [None])


def _marks_in_lines(lines: Sequence[str], blind: Blinding) -> Iterator[Marks]:
    for line in lines:
        found = _MARK_LINE.match(line)
        if found is None or _issue_line(line) is not None:  # a number in an issue is no mark
            continue
        told = _CALLED.sub(" ", found[2])
        numbers = [float(number) for number in _NUMBER.findall(told)]
        if 0 < len(numbers) <= len(_CRITERIA) and not _SUM.search(told):
            yield from _as_marks(blind.juror(found[1]), numbers)


def _issue_line(line: str) -> re.Match[str] | None:
    """A line that names an issue or a passage to keep: letter, kind, what; "A: clarity: 8" is a mark."""
    found = _ISSUE_LINE.match(line)
    if found is None or found[2].strip().casefold() in _CRITERIA:
        return None
    return found if found[2].strip().casefold() == _KEEP or _kind(found[2]) is not None else None


def _as_marks(juror: int | None, three: Sequence[float | None]) -> Iterator[Marks]:
    given = [mark for mark in three if mark is not None]
    if juror is None or not given:
        return
    mean = math.fsum(given) / len(given)
    filled = [*(mean if mark is None else mark for mark in three), *[mean] * (len(_CRITERIA) - len(three))]
    accuracy, insight, clarity = (min(MOST_MARK, max(LEAST_MARK, math.floor(mark + 0.5))) for mark in filled)
    yield Marks(candidate=juror, accuracy=accuracy, insight=insight, clarity=clarity)


def _first_each(marks: Iterator[Marks]) -> list[Marks]:
    firsts: dict[int, Marks] = {}
    for one in marks:
        firsts.setdefault(one.candidate, one)
    return list(firsts.values())


def _juror(entry: dict[str, Any], blind: Blinding) -> int | None:
    letter = entry.get("candidate", entry.get("answer"))
    return blind.juror(letter) if isinstance(letter, str) else None


def _number(mark: Any) -> float | None:
    """A mark that is a number, or a text that begins with one; truth values are none."""
    if isinstance(mark, bool):
        return None
    if isinstance(mark, int):
        return float(min(MOST_MARK, max(LEAST_MARK, mark)))
    if isinstance(mark, float):
        return mark if math.isfinite(mark) else None
    found = _NUMBER.match(mark.strip()) if isinstance(mark, str) else None
    return None if found is None else float(found[1])


def _kind(kind: Any) -> IssueKind | None:
    """The kind that a reviewer means; None if it is none of ours."""
    word = re.sub(r"[\s-]+", "_", kind.strip().casefold()) if isinstance(kind, str) else ""
    return next((ours for part, ours in _KIND_WORDS.items() if part in word), None)
