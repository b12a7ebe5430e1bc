"""Stage 2: every juror reviews the others' answers, without knowing whose they are; all reviews as one round.

A reply that cannot be read is asked for once more, in the same stage; what still cannot be read says nothing.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 2. Differs: see `blinding` and `reviewing`; a reviewer whose
context the answers do not fit sees them shortened, all to the same length.

Stage 2: how a reviewer is asked about the others' answers, and how its reply is read.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for structured marks, issues and passages to keep; the wording is
our own. Differs: the public implementation does not show the question to the reviewer; here it comes first.
And it shows an example with marks for one candidate, which models of one or two billion parameters copy word by word,
marks included; here the form has a line for each candidate and no number.

What reviewers find wrong and want kept, put together: the same issue once, with how many named it.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for structured issues and quotations; when two issues are the same
is our own rule: one candidate, one kind, and words in common.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from ...core.events import ReviewGiven
from ...core.json_schema import STRING_SCHEMA, JsonSchema, array_schema, enum_schema, object_schema
from ...core.messages import Request
from ...core.run import Run
from ...core.types import Question
from ...reasoning.answers.normalization import visible_text
from ...reasoning.prompts import fit_prompt, question_prompt
from ...reasoning.retrieval.words import split_words
from ...serving.metered.model import MeteredModel
from ..claims.model_splitter import located
from .anonymity import Blinding, OptionOrder, Scrubber, blinding, show_answers
from .config import PanelConfig
from .jurors import Seat, roster_of
from .panel import Ask, Panel, Reply
from .requests import MATERIAL, Asked, Form, asked, asked_again, find_object, objects_in
from .types import LEAST_MARK, MOST_MARK, Issue, IssueKind, KeptQuote, Marks, Opinion, PooledIssue, Quote, Review

MOST_ISSUES: Final = 12
"""Issues, and likewise quotations, of one review that are taken."""
MOST_DETAIL_CHARS: Final = 300

_CRITERIA = ("accuracy", "insight", "clarity")
_KEEP = "keep"
_GAP = "..."
"""What stands in the form where the reviewer is to write."""
_KIND_DESCRIPTIONS = (
    "factual_risk (something in it is or may be false), missing_edge_case (it fails in a case that it does not name), "
    "unclear (it can be understood in several ways), incomplete (part of the question is not answered)"
)
_TASK = (
    "Judge each answer. Look first for what is false: facts, numbers, and misconceptions that many share. How an "
    "answer sounds comes last. Be critical and fair; two answers may deserve the same marks.\n"
    "Marks go from 1 (worst) to 10: accuracy (is it true?), insight (does it see what matters?), clarity.\n"
    f"Kinds of issues: {_KIND_DESCRIPTIONS}. Name only issues that are really there."
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
    return asked(question_prompt(question, text), opening, stop, form, begin=begin, schema=schema)


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
        lines = visible_text(reply).text.splitlines()
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


def review_schema(letters: Sequence[str], most: int) -> JsonSchema:
    """A review: three marks for each letter, issues, passages to keep.

    Args:
        letters: Letters of the answers that are shown, at least one.
        most: Most issues, and likewise passages.
    """
    marks = object_schema(
        dict.fromkeys(("accuracy", "insight", "clarity"), enum_schema(range(LEAST_MARK, MOST_MARK + 1)))
    )
    issue = object_schema(
        {"candidate": enum_schema(letters), "kind": enum_schema(get_args(IssueKind)), "detail": STRING_SCHEMA}
    )
    kept = object_schema({"candidate": enum_schema(letters), "quote": STRING_SCHEMA})
    return object_schema(
        {
            "scores": object_schema(dict.fromkeys(letters, marks)),
            "issues": array_schema(issue, most),
            "keep": array_schema(kept, most),
        }
    )


NO_ROOM = "the answers do not fit its context"


@dataclass(frozen=True)
class Reviewer:
    """Who reviews.

    Attributes:
        number: Its number; as a juror it has the same.
        model: Its model.
        order: The order in which it sees the options.
    """

    number: int
    model: MeteredModel
    order: OptionOrder


@dataclass(frozen=True)
class Shown:
    """What is shown of some answers.

    Attributes:
        texts: The answers by candidate, scrubbed.
        choices: The answer in normal form likewise, where the question is closed.
        names: Who wrote each; None where that is no reviewer's business.
    """

    texts: Mapping[int, str]
    choices: Mapping[int, str | None]
    names: Mapping[int, str] | None = None

    def as_seen(self, blind: Blinding, texts: Sequence[str], question: Question, order: OptionOrder) -> str:
        """The answers as one reader sees them.

        Args:
            blind: Its letters of the answers.
            texts: The answers in the order in which it sees them.
            question: The question in its own order.
            order: The order in which the reader sees the options.
        """
        turned = bool(question.choices)
        shown = {
            candidate: order.tell(text, question) if turned else text
            for candidate, text in zip(blind.jurors, texts, strict=True)
        }
        choices = {
            candidate: order.to_shown(choice) if turned and choice is not None else choice
            for candidate, choice in self.choices.items()
        }
        return show_answers(blind, shown, choices=choices, names=self.names)


@dataclass(frozen=True)
class _Sheet:
    """What one reviewer is given: the letters of the answers, and the request."""

    reviewer: Reviewer
    blind: Blinding
    asked: Asked


async def reviews_of(
    reviewers: Sequence[Reviewer],
    answers: Shown,
    question: Question,
    panel: Panel,
    config: PanelConfig,
    run: Run,
    *,
    exclude_self: bool,
) -> tuple[Review, ...]:
    """A review of each reviewer, in order; of those that failed too.

    Args:
        reviewers: Who reviews.
        answers: What is reviewed.
        question: What the answers answer.
        panel: The stage.
        config: Parameters.
        run: The run.
        exclude_self: Whether a reviewer does not see the answer that has its number.
    """
    sheets: dict[int, _Sheet] = {}
    found: dict[int, Review] = {}
    for reviewer in reviewers:
        own = reviewer.number if exclude_self else None
        seed = run.derive_seed("edgejury", "review", reviewer.number)
        blind = blinding(tuple(answers.texts), question, seed, shuffle=config.shuffle, without=own)
        asked = await _fitted(reviewer, blind, answers, question, config, run)
        if asked is None:
            found[reviewer.number] = Review(reviewer=reviewer.number, ok=False, failure=NO_ROOM)
        else:
            sheets[reviewer.number] = _Sheet(reviewer, blind, asked)
    replies = await panel.ask([_ask(sheet, config) for sheet in sheets.values()])
    unread: dict[int, Reply] = {}
    for reply in replies:
        review = found[reply.who] = _read(reply, sheets[reply.who], question)
        if reply.ok and not review.ok:
            unread[reply.who] = reply
    if unread and not panel.over:
        again = [_repaired(sheets[number], reply) for number, reply in unread.items()]
        for sheet, reply in zip(again, await panel.ask([_ask(sheet, config) for sheet in again]), strict=True):
            review = _read(reply, sheet, question)
            tokens = unread[reply.who].tokens + reply.tokens
            found[reply.who] = review.model_copy(update={"tokens": tokens})
    reviews = tuple(found[reviewer.number] for reviewer in reviewers)
    for review in reviews:
        run.emit(ReviewGiven(reviewer=review.reviewer, report=review.model_dump(mode="json")))
    return reviews


async def _fitted(
    reviewer: Reviewer, blind: Blinding, answers: Shown, question: Question, config: PanelConfig, run: Run
) -> Asked | None:
    """What a reviewer is asked, the answers shortened where they must be; None if they do not fit at all."""
    order = reviewer.order
    shown = order.shown(question) if question.choices else question

    def asked(texts: Sequence[str]) -> Asked:
        return review_request(
            shown,
            answers.as_seen(blind, texts, question, order),
            blind,
            form=config.form,
            begin=reviewer.model.capabilities.prefix,
            held=reviewer.model.capabilities.json_schema,
            own_left_out=reviewer.number in answers.texts and reviewer.number not in blind.jurors,
        )

    texts = [answers.texts[candidate] for candidate in blind.jurors]
    prompt, kept = await fit_prompt(reviewer.model, run, lambda cut: asked(cut).prompt, texts, config.review_tokens)
    if kept is not None:
        run.degrade(f"the answers do not fit the context of {reviewer.model.name}: it saw {kept} characters of each")
    return None if prompt is None else replace(asked(texts), prompt=prompt)


def _repaired(sheet: _Sheet, reply: Reply) -> _Sheet:
    """The same sheet with the request for a reply that can be read."""
    begin = sheet.reviewer.model.capabilities.prefix
    return replace(sheet, asked=repair_request(sheet.asked, sheet.asked.opening + reply.text, sheet.blind, begin=begin))


def _ask(sheet: _Sheet, config: PanelConfig) -> Ask:
    asked, reviewer = sheet.asked, sheet.reviewer
    sampling = asked.sampling(config.review_temperature, config.review_tokens)
    return Ask(reviewer.number, reviewer.model, Request(prompt=asked.prompt, sampling=sampling))


def _read(reply: Reply, sheet: _Sheet, question: Question) -> Review:
    number, blind = reply.who, sheet.blind
    cost = {"tokens": reply.tokens, "latency_ms": reply.latency_ms}
    if not reply.ok:
        return Review(reviewer=number, order=blind.jurors, ok=False, failure=reply.failure, **cost)
    order = sheet.reviewer.order if question.choices else None
    read = read_review(sheet.asked.opening + reply.text, blind, number, question=question, order=order)
    return read.model_copy(update=cost)


def shown_opinions(
    seats: Sequence[Seat], given: Sequence[Opinion], question: Question, chair: MeteredModel, *, blind: bool
) -> Shown:
    """The opinions as others see them: without what tells whose they are, or with it where that is wanted.

    Args:
        seats: The jurors.
        given: Their opinions, those that are ok.
        question: What they answer.
        chair: The chair, whose name tells of an answer too.
        blind: Whether nothing is to tell whose they are.
    """
    choices = {opinion.juror: opinion.choice for opinion in given}
    if blind:
        scrub = Scrubber(roster_of(seats, [chair]), question).scrub
        return Shown({opinion.juror: scrub(opinion.text) for opinion in given}, choices)
    roles = {seat.juror: seat.role_name.replace("-", " ") for seat in seats}
    names = {o.juror: f"{o.model} as {roles[o.juror]}" if roles[o.juror] else o.model for o in given}
    return Shown({opinion.juror: opinion.text for opinion in given}, choices, names)


SAME: Final = 0.5
"""F1 of their words from which two issues are one."""
ADDRESSED_FROM: Final = 2
"""Reviewers who must name an issue for the chair to have to address it."""
MOST_KEPT: Final = 6
"""Quotations that are shown to the chair."""

_KINDS: tuple[IssueKind, ...] = get_args(IssueKind)


def overlap(one: str, other: str) -> float:
    """F1 of the words of two texts, each counted as often as it stands there; 0 if one has none."""
    left, right = Counter(split_words(one)), Counter(split_words(other))
    both = (left & right).total()
    return 2 * both / (left.total() + right.total()) if both else 0.0


def pool(reviews: Sequence[Review], *, exclude_self: bool = True) -> tuple[PooledIssue, ...]:
    """The issues of all reviews, the same ones merged.

    Issues are the same if they are of one candidate and kind and their details overlap, by themselves or through others
    between them. Of their details that one stands for all which has the most in common with the rest, of equals the
    longest. A reviewer counts once. Nothing depends on the order of the reviews.

    Args:
        reviews: The reviews; those that are not ok have no issues.
        exclude_self: Whether what a reviewer says of its own opinion is left out.

    Returns:
        Those most named first, then by kind, candidate and detail.
    """
    alike: dict[tuple[int, IssueKind], list[tuple[int, Issue]]] = defaultdict(list)
    for review in reviews:
        for issue in review.issues:
            if not (exclude_self and issue.candidate == review.reviewer):
                alike[issue.candidate, issue.kind].append((review.reviewer, issue))
    pooled = [
        PooledIssue(
            candidate=candidate,
            kind=kind,
            detail=_middle([issue.detail for _, issue in group]),
            reviewers=tuple(sorted({reviewer for reviewer, _ in group})),
        )
        for (candidate, kind), named in alike.items()
        for group in _groups(named)
    ]
    return tuple(sorted(pooled, key=lambda i: (-i.count, _KINDS.index(i.kind), i.candidate, i.detail)))


def worth_keeping(
    reviews: Sequence[Review], texts: Mapping[int, str], *, most: int = MOST_KEPT, exclude_self: bool = True
) -> tuple[KeptQuote, ...]:
    """What reviewers want kept, as far as it stands in the answers.

    A quotation counts if its candidate's text has it, blanks apart. Of several that overlap the longest stands for all.

    Args:
        reviews: The reviews.
        texts: The answers by juror, as the reviewers saw them.
        most: Most quotations.
        exclude_self: Whether what a reviewer says of its own opinion is left out.

    Returns:
        Those most wanted first, then by candidate and place in its text.
    """
    places: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for review in reviews:
        for kept in review.keep:
            text = texts.get(kept.candidate)
            place = None if text is None else located(kept.quote, text)
            if place is not None and not (exclude_self and kept.candidate == review.reviewer):
                places[kept.candidate].append((*place, review.reviewer))
    found: list[tuple[int, int, int, KeptQuote]] = []
    for candidate, wanted in places.items():
        for group in _overlapping(wanted):
            start, end = max(((a, b) for a, b, _ in group), key=lambda span: (span[1] - span[0], -span[0]))
            quote = KeptQuote(
                candidate=candidate,
                quote=texts[candidate][start:end],
                reviewers=tuple(sorted({reviewer for _, _, reviewer in group})),
            )
            found.append((-len(quote.reviewers), candidate, start, quote))
    return tuple(quote for *_, quote in sorted(found, key=lambda entry: entry[:3])[:most])


def _groups(named: Sequence[tuple[int, Issue]]) -> list[list[tuple[int, Issue]]]:
    """Issues of one candidate and kind that belong together: whatever is linked by overlaps."""
    groups: list[list[tuple[int, Issue]]] = []
    for one in named:
        linked = [g for g in groups if any(overlap(one[1].detail, other.detail) >= SAME for _, other in g)]
        apart = [group for group in groups if group not in linked]
        groups = [*apart, [one, *(member for group in linked for member in group)]]
    return groups


def _middle(details: Sequence[str]) -> str:
    """The detail that has the most in common with all of them."""
    shared = {one: math.fsum(overlap(one, other) for other in details) for one in details}
    return min(shared, key=lambda one: (-shared[one], -len(one), one))


def _overlapping(places: Sequence[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """Places in a text that overlap, directly or through others, in order."""
    groups: list[list[tuple[int, int, int]]] = []
    end = -1
    for place in sorted(places):
        if place[0] < end:
            groups[-1].append(place)
        else:
            groups.append([place])
        end = max(end, place[1])
    return groups
