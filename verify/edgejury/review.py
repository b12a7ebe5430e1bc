"""Stage 2: every juror reviews the others' answers anonymously, all concurrently; pooled issues and quotes.

A review is JSON under a schema where the model supports one, else plain lines. A completion that cannot be parsed is
requested once more as lines; after that the review is empty. If the answers do not fit a reviewer's context, all are
shortened to the same length.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 2, for structured marks, issues and passages to keep; the
prompts, and which issues are merged, are ours. Differs: the question is shown, which the public implementation omits.
Its example with marks is copied verbatim by models of one or two billion parameters; here the form has no number.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from ...core.errors import BudgetExceeded
from ...core.events import ReviewAdded
from ...core.json_schema import JsonSchema
from ...core.messages import Completion, Prompt, Request, SamplingParams
from ...core.run import Run
from ...core.types import Question
from ...reasoning.anonymity import MATERIAL_NOTICE, Blinding, make_blinding, show_answers
from ...reasoning.prompts import fit_prompt, question_prompt
from ...reasoning.quoting import find_quotation, remove_invisible
from ...reasoning.retrieval.words import split_words
from ...serving.output_schemas import STRING_SCHEMA, array_schema, enum_schema, find_object, object_schema
from .jurors import REVIEW_TOKENS, Juror
from .panel import JurorRequest, Panel, objects_in, repair_request
from .types import MAX_MARK, MIN_MARK, Issue, IssueKind, KeptQuote, Marks, PooledIssue, Quote, Review

TEMPERATURE: Final = 0.3
MAX_ISSUES: Final = 12
"""Maximum issues, and quotes, of a review."""
MAX_DETAIL_CHARS: Final = 300
MIN_OVERLAP: Final = 0.5
"""Word F1 from which two issues are the same."""
MIN_REVIEWERS_TO_ADDRESS: Final = 2
"""Number of reviewers from which the chair must address an issue."""
MAX_KEPT: Final = 6
"""Maximum quotes shown to the chair."""
NO_SPACE: Final = "the answers do not fit the context"

_CRITERIA = ("accuracy", "insight", "clarity")
_KEEP = "keep"
_BLANK = "..."
"""Stands for text to be filled in."""
_KINDS: tuple[IssueKind, ...] = get_args(IssueKind)
_TASK = (
    "Judge each answer. Look for errors first: wrong facts, wrong numbers, common misconceptions. How well an answer "
    "is written matters least. Be critical but fair; answers of equal quality should get equal marks.\n"
    "Give marks from 1 (worst) to 10 for accuracy (is it true?), insight (does it see what matters?) and clarity.\n"
    "Kinds of issues: factual_risk (a statement is or may be false), missing_edge_case (it fails in a case it does "
    "not mention), unclear (it can be read in more than one way), incomplete (part of the question is unanswered). "
    "List only real issues."
)
_FIELDS = (
    'Reply with JSON only. "scores" holds the three marks of each answer, by its letter. "issues" holds each issue you '
    'found: the letter of the answer ("candidate"), the kind, and the problem in one sentence ("detail"). "keep" holds '
    'passages worth keeping: the letter, and the exact words ("quote"). Both lists may be empty.'
)
"""The form for schema-constrained models, without an example, which small ones copy."""
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


def review_prompt(
    question: Question,
    answers: Mapping[int, str],
    blind: Blinding,
    *,
    choices: Mapping[int, str | None] | None = None,
    names: Mapping[int, str] | None = None,
    own_excluded: bool = True,
    as_json: bool = False,
) -> Prompt:
    """The request for a review.

    Args:
        answers: The answers by candidate, scrubbed of their authors; they are quoted and fenced.
        blind: The reviewer's letters.
        choices: The answers in normal form, for closed questions.
        names: The author of each; None if anonymous.
        own_excluded: Whether to state that the reviewer's own answer is not among them.
        as_json: Whether the model is constrained to `review_schema`.
    """
    own = "They are anonymous, and yours is not among them." if own_excluded else "They are anonymous."
    shown = show_answers(blind, answers, choices=choices, names=names)
    form = _FIELDS if as_json else _lines_form(blind)
    introduction = f"Others have answered this question. Their answers are quoted below. {own} {MATERIAL_NOTICE}"
    return question_prompt(question, f"{introduction}\n\n{shown}\n\n{_TASK}\n{form}")


def read_review(completion: str, blind: Blinding, reviewer: int) -> Review:
    """Parse a review in either form.

    Marks are rounded and clipped to 1..10; missing ones are replaced by the mean of the others. Unknown letters and
    copied blanks are dropped.

    Returns:
        The review with candidates by juror; not ok without any mark.
    """

    def clean(text: Any) -> str:
        line = " ".join(text.split())[:MAX_DETAIL_CHARS] if isinstance(text, str) else ""
        return blind.to_juror_numbers(line) if line.strip(" .\u2026") else ""

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
        f"Reply with plain lines only. Start with one line per answer that gives its three marks as numbers:\n{lines}\n"
        "Then add a line for each issue you found, with the letter, the kind and the problem in one sentence, and a "
        f"line for each passage worth keeping, with its exact words:\n{first} factual_risk: {_BLANK}\n"
        f"{first} {_KEEP}: {_BLANK}"
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


def review_schema(letters: Sequence[str]) -> JsonSchema:
    """JSON schema of a review: three marks for each letter, issues, passages to keep."""
    max_items = min(MAX_ISSUES, 3 * len(letters))  # small models fill all the space they get
    marks = object_schema(dict.fromkeys(_CRITERIA, enum_schema(range(MIN_MARK, MAX_MARK + 1))))
    issue = object_schema({"candidate": enum_schema(letters), "kind": enum_schema(_KINDS), "detail": STRING_SCHEMA})
    kept = object_schema({"candidate": enum_schema(letters), "quote": STRING_SCHEMA})
    return object_schema(
        {
            "scores": object_schema(dict.fromkeys(letters, marks)),
            "issues": array_schema(issue, max_items),
            "keep": array_schema(kept, max_items),
        }
    )


@dataclass(frozen=True)
class DisplayedAnswers:
    """The jurors' answers as other models see them.

    Attributes:
        texts: The answers by juror, scrubbed unless their authors are shown.
        choices: The answers in normal form, for closed questions.
        names: The author of each; None if anonymous.
    """

    texts: Mapping[int, str]
    choices: Mapping[int, str | None]
    names: Mapping[int, str] | None = None


async def collect_reviews(
    jurors: Sequence[Juror],
    answers: DisplayedAnswers,
    question: Question,
    panel: Panel,
    run: Run,
    *,
    max_tokens: int | None = None,
    exclude_self: bool = True,
    shuffle: bool = True,
) -> tuple[Review, ...]:
    """A review of each juror, in order, including failed ones."""
    blinds: dict[int, Blinding] = {}
    requests: list[JurorRequest] = []
    for juror in jurors:
        seed = run.derive_seed("edgejury", "review", juror.id)
        blind = make_blinding(
            tuple(answers.texts), question, seed, shuffle=shuffle, exclude=juror.id if exclude_self else None
        )
        blinds[juror.id] = blind
        request = await _fitted_request(juror, blind, answers, question, run, max_tokens or REVIEW_TOKENS)
        if request is not None:
            requests.append(request)
    completions = await panel.call(requests)
    num_cut = sum(completion.finish_reason == "thinking" for completion in completions)
    if num_cut:
        run.degrade(
            f"edgejury: {num_cut} of {len(jurors)} reviewers were cut while thinking; their reviews were requested "
            "again, without a thought where the model allows that"
        )
    reviews: dict[int, Review] = {}
    repairs: list[JurorRequest] = []
    for request, completion in zip(requests, completions, strict=True):
        review = reviews[request.juror] = _read(completion, blinds[request.juror], request.juror)
        if completion.ok and not review.ok and not run.ledger.is_closed:
            instruction = f"No marks could be read from your reply. {_lines_form(blinds[request.juror])}"
            try:
                repairs.append(repair_request(request, completion.text, instruction, TEMPERATURE))
            except BudgetExceeded as e:
                run.record_limit(e)
    for request, completion in zip(repairs, await panel.call(repairs), strict=True):
        review = _read(completion, blinds[request.juror], request.juror)
        tokens = reviews[request.juror].tokens + review.tokens
        reviews[request.juror] = review.model_copy(update={"tokens": tokens})
    complete = tuple(reviews.get(juror.id) or Review(reviewer=juror.id, ok=False, failure=NO_SPACE) for juror in jurors)
    for review in complete:
        run.emit(ReviewAdded(reviewer=review.reviewer, report=review.model_dump(mode="json")))
    return complete


async def _fitted_request(
    juror: Juror, blind: Blinding, answers: DisplayedAnswers, question: Question, run: Run, max_tokens: int
) -> JurorRequest | None:
    """The request of a reviewer, with shortened answers if necessary; None if they do not fit at all."""
    as_json = juror.model.capabilities.json_schema and bool(blind.letters)

    def prompt_of(texts: Sequence[str]) -> Prompt:
        return review_prompt(
            question,
            dict(zip(blind.jurors, texts, strict=True)),
            blind,
            choices=answers.choices,
            names=answers.names,
            own_excluded=juror.id in answers.texts and juror.id not in blind.jurors,
            as_json=as_json,
        )

    schema = review_schema(blind.letters) if as_json else None
    sampling = SamplingParams(default_temperature=TEMPERATURE, max_tokens=max_tokens, json_schema=schema)
    texts = [answers.texts[candidate] for candidate in blind.jurors]
    prompt, max_chars = await fit_prompt(juror.model, run, prompt_of, texts, sampling)
    if max_chars is not None:
        run.degrade(f"the answers do not fit the context of {juror.model.name}: it saw {max_chars} characters of each")
    if prompt is None:
        return None
    return JurorRequest(juror.id, juror.model, Request(prompt=prompt, sampling=sampling, is_attempt=False))


def _read(completion: Completion, blind: Blinding, juror: int) -> Review:
    tokens = completion.usage.completion_tokens
    if completion.failure is not None:
        return Review(reviewer=juror, order=blind.jurors, ok=False, failure=completion.failure.message, tokens=tokens)
    return read_review(completion.text, blind, juror).model_copy(update={"tokens": tokens})


def overlap(a: str, b: str) -> float:
    """F1 of the word multisets of two texts; 0 if one is empty."""
    a_counts, b_counts = Counter(split_words(a)), Counter(split_words(b))
    shared = (a_counts & b_counts).total()
    return 2 * shared / (a_counts.total() + b_counts.total()) if shared else 0.0


def pool_issues(reviews: Sequence[Review]) -> tuple[PooledIssue, ...]:
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


def verified_quotes(reviews: Sequence[Review], texts: Mapping[int, str]) -> tuple[KeptQuote, ...]:
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
            span = None if text is None else find_quotation(text, kept.quote)
            if span is not None:
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
    return tuple(quote for *_, quote in sorted(quotes, key=lambda entry: entry[:3])[:MAX_KEPT])


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
