"""Stage 2: every juror reviews the others' answers anonymously, all concurrently; pooled issues and quotes.

A completion that cannot be parsed is requested once more in the same stage; after that the review is empty.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 2, for structured marks, issues and passages to keep; the
    prompts,
and which issues are merged, are ours. Differs: the question is shown, which the public implementation omits. Its
example with marks is copied verbatim by models of one or two billion parameters; here the form has a line for each
candidate and no number. If the answers do not fit a reviewer's context, all are shortened to the same length.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from ...core.concurrency import gather
from ...core.errors import BackendError, BudgetExceeded, ContextTooLong, StoreError
from ...core.events import ReviewAdded
from ...core.json_schema import STRING_SCHEMA, JsonSchema, array_schema, enum_schema, object_schema
from ...core.messages import Request
from ...core.run import Run
from ...core.types import Question
from ...reasoning.anonymity import MATERIAL_NOTICE, Blinding, Scrubber, make_blinding, show_answers
from ...reasoning.judge import AnswerJudge
from ...reasoning.prompts import fit_prompt, question_prompt
from ...reasoning.quoting import remove_invisible
from ...reasoning.retrieval.words import split_words
from ...reasoning.tournament import hold_tournament
from ...serving.metered.model import MeteredModel
from ...serving.quick_calls import quick_capabilities
from ..claims.model_splitter import locate_quote
from .config import REVIEW_TEMPERATURE, PanelConfig
from .jurors import Juror, make_roster
from .option_orders import OptionOrder
from .panel import (
    Form,
    JurorRequest,
    JurorResponse,
    Panel,
    StructuredRequest,
    continues_prefix,
    find_object,
    objects_in,
    repair_conversation,
    structured_request,
)
from .types import MAX_MARK, MIN_MARK, Issue, IssueKind, KeptQuote, Marks, Opinion, PooledIssue, Quote, Review

MAX_ISSUES: Final = 12
"""Maximum issues, and quotes, of a review."""
MAX_DETAIL_CHARS: Final = 300

_CRITERIA = ("accuracy", "insight", "clarity")
_KEEP = "keep"
_BLANK = "..."
"""Stands for text to be filled in."""
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
"""The form for schema-constrained models, without an example, which small ones copy."""
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
_CRITERION_NAME = re.compile(r"\b(?:accuracy|insight|clarity)\b\s?[:=]?", re.IGNORECASE)
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
    supports_prefix: bool = False,
    supports_schema: bool = False,
    own_excluded: bool = True,
) -> StructuredRequest:
    """The request for a review.

    Args:
        question: The question with the options in the reviewer's order.
        answers: The answers, quoted and fenced (see `anonymity.show_answers`).
        blind: Their letters.
        supports_prefix: Whether the model supports prefixes.
        supports_schema: Whether the model supports JSON schemas.
        own_excluded: Whether to state that the reviewer's own answer is not among them.
    """
    letter = blind.letters[0] if blind.letters else "A"
    whose = "They are anonymous, and yours is not among them." if own_excluded else "They are anonymous."
    introduction = f"Others have answered this question; their answers are quoted below. {whose} {MATERIAL_NOTICE}"
    max_items = min(MAX_ISSUES, 3 * len(blind.letters))  # small models fill all the space they get
    schema = review_schema(blind.letters, max_items) if supports_schema and form == "json" and blind.letters else None
    if form == "json":
        form_text = _json_form(blind.letters, letter) if schema is None else _FIELDS
        prefix, stop = f'{{"scores": [{{"candidate": "{letter}", "accuracy": ', _JSON_STOPS
    else:
        form_text = _lines_form(blind)
        prefix, stop = f"{letter}: ", _LINES_STOPS
    text = f"{introduction}\n\n{answers}\n\n{_TASK}\n{form_text}"
    return structured_request(
        question_prompt(question, text), prefix, stop, form, supports_prefix=supports_prefix, schema=schema
    )


def _json_form(letters: Sequence[str], first: str) -> str:
    scores = ", ".join(
        f'{{"candidate": "{letter}", "accuracy": {_BLANK}, "insight": {_BLANK}, "clarity": {_BLANK}}}'
        for letter in letters
    )
    return (
        f'Reply with JSON alone, of this form, with something of your own for each "{_BLANK}"; marks are numbers, '
        "issues are told in one sentence, what is to be kept is copied exactly, and both lists may be empty:\n"
        f'{{"scores": [{scores}], "issues": [{{"candidate": "{first}", "kind": "{_BLANK}", "detail": "{_BLANK}"}}], '
        f'"keep": [{{"candidate": "{first}", "quote": "{_BLANK}"}}]}}'
    )


def repair_request(
    first: StructuredRequest, completion: str, blind: Blinding, *, supports_prefix: bool = False
) -> StructuredRequest:
    """The request after a review that could not be parsed, for lines.

    Args:
        first: The first request.
        completion: Its completion, including the prefix.
    """
    request = f"There are no marks in your reply that could be read. {_lines_form(blind)}"
    prefix = f"{blind.letters[0] if blind.letters else 'A'}: "
    return repair_conversation(first, completion, request, prefix, _LINES_STOPS, supports_prefix=supports_prefix)


def read_review(
    completion: str,
    blind: Blinding,
    reviewer: int,
    *,
    question: Question | None = None,
    order: OptionOrder | None = None,
) -> Review:
    """Parse a review in either form.

    Marks are rounded and clipped to 1..10; missing ones are replaced by the mean of the others. Unknown letters and
    copied blanks are dropped.

    Args:
        completion: The completion, including its prefix.
        blind: The reviewer's letters.
        question: The question in its own order, if the reviewer saw another one.
        order: The reviewer's order.

    Returns:
        The review with candidates by juror and the question's option letters; not ok without any mark.
    """

    def clean(text: Any, max_chars: int = MAX_DETAIL_CHARS) -> str:
        line = " ".join(str(text).split())[:max_chars] if isinstance(text, str) else ""
        if not line.strip(" .\u2026"):
            return ""
        line = order.to_question_letters(line, question) if order is not None and question is not None else line
        return blind.to_juror_numbers(line)

    data = find_object(completion, lambda value: any(_marks_in_json(value, blind)))
    if data is not None:
        marks = _first_of_each(_marks_in_json(data, blind))
        raw_issues = [
            (_juror(item, blind), item.get("kind"), item.get("detail")) for item in objects_in(data.get("issues"))
        ]
        raw_quotes = [(_juror(item, blind), item.get("quote")) for item in objects_in(data.get("keep"))]
    else:
        lines = remove_invisible(completion).splitlines()
        marks = _first_of_each(_marks_in_lines(lines, blind))
        labelled = [(blind.juror(m[1]), m[2].strip(), m[3]) for line in lines if (m := _issue_line(line))]
        raw_issues = list(labelled)
        raw_quotes = [
            (juror, text.strip(" \"'\u201c\u201d")) for juror, kind, text in labelled if kind.casefold() == _KEEP
        ]
    if not marks:
        return Review(reviewer=reviewer, order=blind.jurors, ok=False, failure="no marks could be parsed")
    issues = [(juror, _kind(kind), clean(detail)) for juror, kind, detail in raw_issues]
    quotes = [(juror, clean(text)) for juror, text in raw_quotes]
    return Review(
        reviewer=reviewer,
        scores=tuple(marks),
        issues=tuple(
            Issue(candidate=juror, kind=kind, detail=detail)
            for juror, kind, detail in dict.fromkeys(issues)
            if juror is not None and kind is not None and detail
        )[:MAX_ISSUES],
        keep=tuple(
            Quote(candidate=juror, quote=text) for juror, text in dict.fromkeys(quotes) if juror is not None and text
        )[:MAX_ISSUES],
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
        f"{first} factual_risk: {_BLANK}\n{first} {_KEEP}: {_BLANK}"
    )


def _marks_in_json(value: dict[str, Any], blind: Blinding) -> Iterator[Marks]:
    """Marks from a list of objects or an object by letter."""
    scores = value.get("scores")
    if isinstance(scores, dict):
        entries = [
            {"candidate": letter, **(m if isinstance(m, dict) else {"marks": m})} for letter, m in scores.items()
        ]
    else:
        entries = objects_in(scores)
    for entry in entries:
        juror = _juror(entry, blind)
        marks = entry.get("marks", entry.get("scores"))
        three = marks if isinstance(marks, list) else [entry.get(name) for name in _CRITERIA]
        yield from _complete_marks(juror, [_number(mark) for mark in three[:3]] or [None])


def _marks_in_lines(lines: Sequence[str], blind: Blinding) -> Iterator[Marks]:
    for line in lines:
        match = _MARK_LINE.match(line)
        if match is None or _issue_line(line) is not None:  # a number in an issue is not a mark
            continue
        text = _CRITERION_NAME.sub(" ", match[2])
        numbers = [float(number) for number in _NUMBER.findall(text)]
        if 0 < len(numbers) <= len(_CRITERIA) and not _SUM.search(text):
            yield from _complete_marks(blind.juror(match[1]), numbers)


def _issue_line(line: str) -> re.Match[str] | None:
    """Match of a line with an issue or a passage to keep: letter, kind, text; "A: clarity: 8" is a mark."""
    match = _ISSUE_LINE.match(line)
    if match is None or match[2].strip().casefold() in _CRITERIA:
        return None
    return match if match[2].strip().casefold() == _KEEP or _kind(match[2]) is not None else None


def _complete_marks(juror: int | None, marks: Sequence[float | None]) -> Iterator[Marks]:
    known = [mark for mark in marks if mark is not None]
    if juror is None or not known:
        return
    mean = math.fsum(known) / len(known)
    complete = [*(mean if mark is None else mark for mark in marks), *[mean] * (len(_CRITERIA) - len(marks))]
    accuracy, insight, clarity = (min(MAX_MARK, max(MIN_MARK, math.floor(mark + 0.5))) for mark in complete)
    yield Marks(candidate=juror, accuracy=accuracy, insight=insight, clarity=clarity)


def _first_of_each(marks: Iterator[Marks]) -> list[Marks]:
    firsts: dict[int, Marks] = {}
    for one in marks:
        firsts.setdefault(one.candidate, one)
    return list(firsts.values())


def _juror(entry: dict[str, Any], blind: Blinding) -> int | None:
    letter = entry.get("candidate", entry.get("answer"))
    return blind.juror(letter) if isinstance(letter, str) else None


def _number(mark: Any) -> float | None:
    """A mark that is a number or a text that begins with one; booleans are not."""
    if isinstance(mark, bool):
        return None
    if isinstance(mark, int):
        return float(min(MAX_MARK, max(MIN_MARK, mark)))
    if isinstance(mark, float):
        return mark if math.isfinite(mark) else None
    match = _NUMBER.match(mark.strip()) if isinstance(mark, str) else None
    return None if match is None else float(match[1])


def _kind(kind: Any) -> IssueKind | None:
    """The known kind that a reviewer's word refers to."""
    word = re.sub(r"[\s-]+", "_", kind.strip().casefold()) if isinstance(kind, str) else ""
    return next((known_kind for part, known_kind in _KIND_WORDS.items() if part in word), None)


def review_schema(letters: Sequence[str], max_items: int) -> JsonSchema:
    """JSON schema of a review: three marks for each letter, issues, passages to keep."""
    marks = object_schema(dict.fromkeys(("accuracy", "insight", "clarity"), enum_schema(range(MIN_MARK, MAX_MARK + 1))))
    issue = object_schema(
        {"candidate": enum_schema(letters), "kind": enum_schema(get_args(IssueKind)), "detail": STRING_SCHEMA}
    )
    kept = object_schema({"candidate": enum_schema(letters), "quote": STRING_SCHEMA})
    return object_schema(
        {
            "scores": object_schema(dict.fromkeys(letters, marks)),
            "issues": array_schema(issue, max_items),
            "keep": array_schema(kept, max_items),
        }
    )


NO_SPACE = "the answers do not fit the context"


@dataclass(frozen=True)
class Reviewer:
    """A reviewer; as a juror it has the same id.

    Attributes:
        order: The order in which it sees the options.
    """

    id: int
    model: MeteredModel
    order: OptionOrder


@dataclass(frozen=True)
class DisplayedAnswers:
    """Answers as other models see them.

    Attributes:
        texts: The scrubbed answers by candidate.
        choices: The answers in normal form, for closed questions.
        names: The author of each; None if anonymous.
    """

    texts: Mapping[int, str]
    choices: Mapping[int, str | None]
    names: Mapping[int, str] | None = None

    def render(self, blind: Blinding, texts: Sequence[str], question: Question, order: OptionOrder) -> str:
        """The answers for the prompt of one reader.

        Args:
            blind: The reader's letters.
            texts: The answers in the reader's order.
            question: The question in its own order.
            order: The reader's order of the options.
        """
        has_options = bool(question.choices)
        shown = {
            candidate: order.to_shown_letters(text, question) if has_options else text
            for candidate, text in zip(blind.jurors, texts, strict=True)
        }
        choices = {
            candidate: order.to_shown(choice) if has_options and choice is not None else choice
            for candidate, choice in self.choices.items()
        }
        return show_answers(blind, shown, choices=choices, names=self.names)


@dataclass(frozen=True)
class _ReviewTask:
    """The letters and the request of one reviewer."""

    reviewer: Reviewer
    blind: Blinding
    request: StructuredRequest


async def collect_reviews(
    reviewers: Sequence[Reviewer],
    answers: DisplayedAnswers,
    question: Question,
    panel: Panel,
    config: PanelConfig,
    run: Run,
    *,
    exclude_self: bool,
) -> tuple[Review, ...]:
    """A review of each reviewer, in order, including failed ones.

    Args:
        exclude_self: Whether reviewers do not see the answer of their own id.
    """
    tasks: dict[int, _ReviewTask] = {}
    by_reviewer: dict[int, Review] = {}
    for reviewer in reviewers:
        exclude = reviewer.id if exclude_self else None
        seed = run.derive_seed("edgejury", "review", reviewer.id)
        blind = make_blinding(tuple(answers.texts), question, seed, shuffle=config.shuffle, exclude=exclude)
        request = await _fit_request(reviewer, blind, answers, question, config, run)
        if request is None:
            by_reviewer[reviewer.id] = Review(reviewer=reviewer.id, ok=False, failure=NO_SPACE)
        else:
            tasks[reviewer.id] = _ReviewTask(reviewer, blind, request)
    responses = await panel.call([_juror_request(task, config) for task in tasks.values()])
    cut = sum(response.is_cut_in_thought for response in responses)
    if cut:
        run.degrade(
            f"edgejury: {cut} of {len(reviewers)} reviewers were cut while they thought; their reviews were requested "
            "again, without a thought where the model can do that"
        )
    unparsed: dict[int, JurorResponse] = {}
    for response in responses:
        review = by_reviewer[response.juror] = _parse_response(response, tasks[response.juror], question)
        if response.ok and not review.ok:
            unparsed[response.juror] = response
    if unparsed and not panel.is_over:
        repairs = [_repair_task(tasks[reviewer_id], response) for reviewer_id, response in unparsed.items()]
        try:
            requests = [_juror_request(task, config) for task in repairs]
        except BudgetExceeded as e:
            run.record_limit(e)
            repairs, requests = [], []
        for task, response in zip(repairs, await panel.call(requests), strict=True):
            review = _parse_response(response, task, question)
            tokens = unparsed[response.juror].tokens + response.tokens
            by_reviewer[response.juror] = review.model_copy(update={"tokens": tokens})
    if config.comparisons and not panel.is_over:
        blindings = {reviewer_id: task.blind for reviewer_id, task in tasks.items()}
        by_reviewer |= await _with_comparisons(reviewers, by_reviewer, blindings, answers, question, run)
    reviews = tuple(by_reviewer[reviewer.id] for reviewer in reviewers)
    for review in reviews:
        run.emit(ReviewAdded(reviewer=review.reviewer, report=review.model_dump(mode="json")))
    return reviews


async def _with_comparisons(
    reviewers: Sequence[Reviewer],
    reviews: Mapping[int, Review],
    blindings: Mapping[int, Blinding],
    answers: DisplayedAnswers,
    question: Question,
    run: Run,
) -> dict[int, Review]:
    """The reviews with each reviewer's comparisons; one whose comparisons fail keeps its marks.

    Of a limit of calls, one is left for the chair, and the reviewers share the rest.
    """
    comparing = [one for one in reviewers if one.id in blindings and len(blindings[one.id].jurors) > 1]
    max_calls = (run.ledger.remaining("calls") - 1) / max(1, len(comparing))

    async def compared(reviewer: Reviewer) -> Review:
        review, candidates, order = reviews[reviewer.id], blindings[reviewer.id].jurors, reviewer.order
        texts = [answers.texts[candidate] for candidate in candidates]
        if question.choices:
            texts = [order.to_shown_letters(text, question) for text in texts]
        shown = order.shown(question) if question.choices else question
        judge = AnswerJudge(reviewer.model, shown, run, max_calls=max_calls)
        try:
            tournament = await hold_tournament(judge, texts)
        except (BackendError, ContextTooLong, StoreError) as e:
            # a replay has no response where the run itself got an error
            if isinstance(e, StoreError) and run.recording:
                raise
            run.degrade(f"{reviewer.model.name} could not compare the answers: {e.message}")
            return review
        wins = {candidate: win for i, candidate in enumerate(candidates) if (win := tournament.win(i)) is not None}
        if len(wins) < len(candidates):
            return review
        decided = {"wins": wins, "position_bias": judge.position_bias, "ok": True, "failure": ""}
        return review.model_copy(update=decided)

    return {review.reviewer: review for review in await gather([compared(reviewer) for reviewer in comparing])}


async def _fit_request(
    reviewer: Reviewer, blind: Blinding, answers: DisplayedAnswers, question: Question, config: PanelConfig, run: Run
) -> StructuredRequest | None:
    """The request of a reviewer, with shortened answers if necessary; None if they do not fit at all."""
    order = reviewer.order
    shown = order.shown(question) if question.choices else question

    def make_request(texts: Sequence[str]) -> StructuredRequest:
        return review_request(
            shown,
            answers.render(blind, texts, question, order),
            blind,
            form=config.form,
            supports_prefix=continues_prefix(reviewer.model),
            supports_schema=reviewer.model.capabilities.json_schema,
            own_excluded=reviewer.id in answers.texts and reviewer.id not in blind.jurors,
        )

    texts = [answers.texts[candidate] for candidate in blind.jurors]
    sampling = make_request(texts).sampling(reviewer.model, REVIEW_TEMPERATURE, config.review_tokens)
    prompt, max_chars = await fit_prompt(
        reviewer.model, run, lambda shortened: make_request(shortened).prompt, texts, sampling
    )
    if max_chars is not None:
        run.degrade(
            f"the answers do not fit the context of {reviewer.model.name}: it saw {max_chars} characters of each"
        )
    return None if prompt is None else replace(make_request(texts), prompt=prompt)


def _repair_task(task: _ReviewTask, response: JurorResponse) -> _ReviewTask:
    supports_prefix = quick_capabilities(task.reviewer.model).prefix
    return replace(
        task,
        request=repair_request(
            task.request, task.request.prefix + response.text, task.blind, supports_prefix=supports_prefix
        ),
    )


def _juror_request(task: _ReviewTask, config: PanelConfig) -> JurorRequest:
    structured, reviewer = task.request, task.reviewer
    sampling = structured.sampling(reviewer.model, REVIEW_TEMPERATURE, config.review_tokens)
    return JurorRequest(
        reviewer.id, reviewer.model, Request(prompt=structured.prompt, sampling=sampling, is_attempt=False)
    )


def _parse_response(response: JurorResponse, task: _ReviewTask, question: Question) -> Review:
    juror, blind = response.juror, task.blind
    cost = {"tokens": response.tokens, "latency_ms": response.latency_ms}
    if not response.ok:
        return Review(reviewer=juror, order=blind.jurors, ok=False, failure=response.failure, **cost)
    order = task.reviewer.order if question.choices else None
    review = read_review(task.request.prefix + response.text, blind, juror, question=question, order=order)
    return review.model_copy(update=cost)


def display_opinions(
    jurors: Sequence[Juror], opinions: Sequence[Opinion], question: Question, chair: MeteredModel, *, blind: bool
) -> DisplayedAnswers:
    """The opinions as other models see them, anonymous or with their authors.

    Args:
        opinions: The opinions that are ok.
        chair: The chair, whose name could identify an answer too.
        blind: Whether to hide the authors.
    """
    choices = {opinion.juror: opinion.choice for opinion in opinions}
    if blind:
        scrub = Scrubber(make_roster(jurors, [chair]), question).scrub
        return DisplayedAnswers({opinion.juror: scrub(opinion.text) for opinion in opinions}, choices)
    roles = {juror.id: juror.role_name.replace("-", " ") for juror in jurors}
    names = {o.juror: f"{o.model} as {roles[o.juror]}" if roles[o.juror] else o.model for o in opinions}
    return DisplayedAnswers({opinion.juror: opinion.text for opinion in opinions}, choices, names)


MIN_OVERLAP: Final = 0.5
"""Word F1 from which two issues are the same."""
MIN_REVIEWERS_TO_ADDRESS: Final = 2
"""Number of reviewers from which the chair must address an issue."""
MAX_KEPT: Final = 6
"""Maximum quotes shown to the chair."""

_KINDS: tuple[IssueKind, ...] = get_args(IssueKind)


def overlap(a: str, b: str) -> float:
    """F1 of the word multisets of two texts; 0 if one is empty."""
    a_counts, b_counts = Counter(split_words(a)), Counter(split_words(b))
    shared = (a_counts & b_counts).total()
    return 2 * shared / (a_counts.total() + b_counts.total()) if shared else 0.0


def pool_issues(reviews: Sequence[Review], *, exclude_self: bool = True) -> tuple[PooledIssue, ...]:
    """The issues of all reviews, merged.

    Issues of the same candidate and kind are merged if their details overlap, directly or through others. The detail
    with the largest overlap with all of them represents them, ties go to the longest. The order of the reviews does not
    matter.

    Returns:
        Issues by number of reviewers, then by kind, candidate and detail.
    """
    by_kind: dict[tuple[int, IssueKind], list[tuple[int, Issue]]] = defaultdict(list)
    for review in reviews:
        for issue in review.issues:
            if not (exclude_self and issue.candidate == review.reviewer):
                by_kind[issue.candidate, issue.kind].append((review.reviewer, issue))
    pooled = [
        PooledIssue(
            candidate=candidate,
            kind=kind,
            detail=_representative([issue.detail for _, issue in group]),
            reviewers=tuple(sorted({reviewer for reviewer, _ in group})),
        )
        for (candidate, kind), issues in by_kind.items()
        for group in _groups(issues)
    ]
    return tuple(sorted(pooled, key=lambda i: (-i.count, _KINDS.index(i.kind), i.candidate, i.detail)))


def verified_quotes(
    reviews: Sequence[Review], texts: Mapping[int, str], *, maximum: int = MAX_KEPT, exclude_self: bool = True
) -> tuple[KeptQuote, ...]:
    """The passages that reviewers want kept and that appear in the answers, whitespace aside.

    Of overlapping ones the longest is used.

    Args:
        texts: The answers by juror, as the reviewers saw them.

    Returns:
        Quotes by number of reviewers, then by candidate and position.
    """
    spans: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for review in reviews:
        for kept in review.keep:
            text = texts.get(kept.candidate)
            span = None if text is None else locate_quote(kept.quote, text)
            if span is not None and not (exclude_self and kept.candidate == review.reviewer):
                spans[kept.candidate].append((*span, review.reviewer))
    quotes: list[tuple[int, int, int, KeptQuote]] = []
    for candidate, candidate_spans in spans.items():
        for group in _overlap_groups(candidate_spans):
            start, end = max(((a, b) for a, b, _ in group), key=lambda span: (span[1] - span[0], -span[0]))
            quote = KeptQuote(
                candidate=candidate,
                quote=texts[candidate][start:end],
                reviewers=tuple(sorted({reviewer for _, _, reviewer in group})),
            )
            quotes.append((-len(quote.reviewers), candidate, start, quote))
    return tuple(quote for *_, quote in sorted(quotes, key=lambda entry: entry[:3])[:maximum])


def _groups(issues: Sequence[tuple[int, Issue]]) -> list[list[tuple[int, Issue]]]:
    """Issues of one candidate and kind, grouped by overlap."""
    groups: list[list[tuple[int, Issue]]] = []
    for item in issues:
        matching = [g for g in groups if any(overlap(item[1].detail, other.detail) >= MIN_OVERLAP for _, other in g)]
        separate = [group for group in groups if group not in matching]
        groups = [*separate, [item, *(member for group in matching for member in group)]]
    return groups


def _representative(details: Sequence[str]) -> str:
    """The detail with the largest overlap with all of them."""
    shared = {a: math.fsum(overlap(a, b) for b in details) for a in details}
    return min(shared, key=lambda a: (-shared[a], -len(a), a))


def _overlap_groups(places: Sequence[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """Spans grouped by overlap, directly or through others, in order."""
    groups: list[list[tuple[int, int, int]]] = []
    end = -1
    for place in sorted(places):
        if place[0] < end:
            groups[-1].append(place)
        else:
            groups.append([place])
        end = max(end, place[1])
    return groups
