"""Stage 3: the chair writes one answer from the opinions and reviews.

One request; one more if the completion contains no answer, or passes over an issue that several reviewers named.
Completions are parsed as complete JSON, else by the answer field of truncated JSON, else as lines.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 3, for blind synthesis from answers and reviews; the prompts
    are
ours. Differs: the chair must state what it did about each issue that two or more reviewers named; answers come without
roles; without a readable answer the best-ranked opinion is used, not the first one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from ...core.errors import BudgetExceeded, UserError
from ...core.json_schema import STRING_SCHEMA, JsonSchema, array_schema, enum_schema, object_schema
from ...core.messages import Completion, Message, Prompt, Request
from ...core.run import Run
from ...core.types import Question
from ...reasoning.anonymity import MATERIAL_NOTICE, Blinding, make_blinding
from ...reasoning.answers.extraction import extract_answer, find_option
from ...reasoning.answers.kinds import ResolvedKind
from ...reasoning.candidates import complete_sentences
from ...reasoning.prompts import LETTERS, fit_prompt, question_prompt
from ...reasoning.quoting import quote_line, remove_invisible
from ...serving.metered.model import MeteredModel
from ...serving.quick_calls import quick_capabilities
from .answering import closed_kind
from .config import CHAIR_TEMPERATURE, JuryConfig
from .option_orders import OptionOrder, identity_order, option_orders
from .panel import (
    MAX_REPEATED_CHARS,
    Form,
    JurorRequest,
    Panel,
    StructuredRequest,
    continues_prefix,
    find_object,
    find_text,
    objects_in,
    repair_conversation,
    structured_request,
    texts_in,
)
from .review import MIN_REVIEWERS_TO_ADDRESS, DisplayedAnswers
from .types import Addressed, ClaimLabel, Disagreement, KeptQuote, Opinion, PooledIssue, Position, Ranking, Synthesis

MAX_SHOWN_ISSUES: Final = 8
"""Maximum issues shown, unless more must be addressed."""

MAX_ITEMS: Final = 8
"""Maximum statements of each kind that are parsed."""

MAX_ITEM_CHARS: Final = 400
"""Maximum characters of a displayed issue or passage, and of a parsed statement."""

ANSWER_BLANK, REASON_BLANK, ADDRESSED_BLANK, OPEN_BLANK = (
    "the final answer",
    "why it is so",
    "what you did about it",
    "what stays open",
)
"""Blanks of the form."""

_CHOICE = {
    "choice": "the letter of the right option",
    "number": "the number alone",
    "math": "the formula or number alone",
    "yes_no": "yes or no",
}
_LINES_STOPS = ("\n\n\n", "</answers>")


def chair_request(
    question: Question,
    answers: str,
    blind: Blinding,
    ranking: Ranking,
    issues: Sequence[PooledIssue] = (),
    quotes: Sequence[KeptQuote] = (),
    *,
    scrub: Callable[[str], str] = str,
    form: Form = "json",
    supports_prefix: bool = False,
    supports_schema: bool = False,
) -> StructuredRequest:
    """The request for the final answer.

    Args:
        question: The question with the options in the chair's order.
        answers: The answers, quoted and fenced, under letters that no reviewer saw (see `anonymity.show_answers`).
        blind: Their letters.
        issues: Issues, by number of reviewers; the first 8 are shown, and all that must be addressed.
        quotes: Passages to keep.
        scrub: Removes authors from the reviewers' texts, and rewrites option letters as shown here.
        supports_prefix: Whether the model supports prefixes.
        supports_schema: Whether the model supports JSON schemas.
    """
    shown = shown_issues(issues)
    findings = [
        f"Reviewers who did not know whose answer they read rank them {_ranking_text(ranking, blind)}.",
        *_section(
            "They name these issues:",
            (
                f"{number}. Answer {blind.letter(issue.candidate)}, {issue.kind} (named by {issue.count}): "
                f"{quote_line(blind.to_letters(scrub(issue.detail)), MAX_ITEM_CHARS)}"
                for number, issue in enumerate(shown, 1)
                if blind.letter(issue.candidate)
            ),
        ),
        *_section(
            "They want these passages kept:",
            (
                f"- Answer {blind.letter(quote.candidate)}: {quote_line(scrub(quote.quote), MAX_ITEM_CHARS)}"
                for quote in quotes
                if blind.letter(quote.candidate)
            ),
        ),
    ]
    required = [number for number, issue in enumerate(shown, 1) if issue.count >= MIN_REVIEWERS_TO_ADDRESS]
    kind = closed_kind(question)
    schema = (
        chair_schema(question, kind, blind.letters, len(shown), MAX_ITEMS)
        if supports_schema and form == "json" and blind.letters
        else None
    )
    parts = [
        "Several people have answered this question; their answers are quoted below, and after them what reviewers "
        f"say. {MATERIAL_NOTICE}",
        answers,
        "\n".join(findings),
        _task(required),
        _lines_form(kind, required)
        if form == "lines"
        else _json_form(kind, blind)
        if schema is None
        else _schema_form(kind, required),
    ]
    prefix, stop = ('{"answer": "', ()) if form == "json" else ("", _LINES_STOPS)
    return structured_request(
        question_prompt(question, "\n\n".join(parts)),
        prefix,
        stop,
        form,
        supports_prefix=supports_prefix,
        schema=schema,
    )


def chair_repair(
    first: StructuredRequest,
    completion: str,
    question: Question,
    issues: Sequence[PooledIssue] = (),
    *,
    supports_prefix: bool = False,
) -> StructuredRequest:
    """The request after a completion without a readable answer, for lines.

    Args:
        first: The first request.
        completion: Its completion, including the prefix.
        question: The question with the options in the chair's order.
        issues: The issues of `chair_request`.
    """
    required = [
        number for number, issue in enumerate(shown_issues(issues), 1) if issue.count >= MIN_REVIEWERS_TO_ADDRESS
    ]
    request = f"There is no answer in your reply that could be read. {_lines_form(closed_kind(question), required)}"
    return repair_conversation(first, completion, request, "", _LINES_STOPS, supports_prefix=supports_prefix)


def fallback_synthesis(ranking: Ranking, opinions: Sequence[Opinion]) -> Synthesis:
    """The best-ranked opinion in place of a chair's answer.

    Raises:
        UserError: It is not among the opinions.
    """
    best = next((opinion for opinion in opinions if opinion.juror == ranking.best and opinion.ok), None)
    if best is None:
        raise UserError(f"the best-ranked opinion of juror {ranking.best} is missing", hint="rank these opinions")
    reason = "the chair gave no readable answer: the best-ranked answer is used"
    return Synthesis(answer=best.text, choice=best.choice, rationale=(reason,), source="fallback", thought=best.thought)


def shown_issues(issues: Sequence[PooledIssue]) -> tuple[PooledIssue, ...]:
    """The issues shown to the chair, in the order of their numbers, which begin at 1 in its prompt."""
    return tuple(
        issue for i, issue in enumerate(issues) if i < MAX_SHOWN_ISSUES or issue.count >= MIN_REVIEWERS_TO_ADDRESS
    )


def unaddressed_issues(synthesis: Synthesis, issues: Sequence[PooledIssue]) -> tuple[PooledIssue, ...]:
    """The issues that two or more reviewers named and the chair did not address."""
    addressed_ids = {addressed.issue for addressed in synthesis.addressed}
    return tuple(
        issue
        for i, issue in enumerate(shown_issues(issues))
        if issue.count >= MIN_REVIEWERS_TO_ADDRESS and i not in addressed_ids
    )


def _task(required: Sequence[int]) -> str:
    settle = (
        f" Settle the issues: say for {_numbers(required)} what you did about it, or why it does not hold."
        if required
        else ""
    )
    return (
        "Write the final answer. Take what is strongest in these answers, and prefer a plain true statement to a "
        f"striking one.{settle} State no fact that none of the answers has, unless you mark it as your own. Do not "
        "speak of the answers or their letters in it. Name what stays open and where the answers differ."
    )


def _json_form(kind: str | None, blind: Blinding) -> str:
    choice = f'"choice": "{_CHOICE[kind]}", ' if kind is not None else ""
    letter = blind.letters[0] if blind.letters else "A"
    return (
        "Reply with JSON alone, of this form; all lists may be empty:\n"
        f'{{"answer": "{ANSWER_BLANK}", {choice}"rationale": ["{REASON_BLANK}"], '
        f'"addressed": [{{"issue": 1, "how": "{ADDRESSED_BLANK}"}}], "open_questions": ["{OPEN_BLANK}"], '
        f'"disagreements": [{{"topic": "...", "positions": [{{"candidate": "{letter}", "stance": "..."}}], '
        '"resolution": "..."}]}'
    )


def _schema_form(kind: str | None, required: Sequence[int]) -> str:
    """The form for schema-constrained models, without text that could be copied."""
    choice = f' "choice" is {_CHOICE[kind]}.' if kind is not None else ""
    addressed = f' "addressed" says how you settled {_numbers(required)}, by number.' if required else ""
    return (
        f'Reply with JSON alone. "answer" is the whole final answer, in sentences that stand by themselves.{choice} '
        f'"rationale" gives the reasons.{addressed} "open_questions" names what nobody knows, and "disagreements" each '
        "topic on which the answers differ, the stance of each by its letter, and your resolution. All lists may be "
        "empty."
    )


def _lines_form(kind: str | None, required: Sequence[int]) -> str:
    """The form in lines, without text that could be copied."""
    parts = ["Reply in plain text, with the final answer in a few sentences and why it is so."]
    if required:
        parts.append(
            f'For {_numbers(required)} add a line that begins with "Issue {required[0]}:" and says what you did '
            "about it."
        )
    parts.append('If something stays open, add a line that begins with "Open:".')
    if kind is not None:
        parts.append(f'End with a last line "Answer:" and {_CHOICE[kind]}.')
    return " ".join(parts)


def _numbers(required: Sequence[int]) -> str:
    if len(required) == 1:
        return f"issue {required[0]}"
    return f"each of the issues {', '.join(map(str, required[:-1]))} and {required[-1]}"


def _ranking_text(ranking: Ranking, blind: Blinding) -> str:
    """The order with mean marks, best first."""
    entries = []
    for standing in ranking.standings:
        letter = blind.letter(standing.juror)
        if letter is not None:
            mark = "" if standing.mark is None else f", mark {standing.mark:.1f} of 10"
            entries.append(f"{letter} (above {standing.borda:.0%} of the others{mark})")
    return ", ".join(entries)


def _section(title: str, lines: Iterator[str]) -> list[str]:
    entries = list(lines)
    return [title, *entries] if entries else []


def chair_schema(
    question: Question, kind: ResolvedKind | None, letters: Sequence[str], issues: int, max_items: int
) -> JsonSchema:
    """JSON schema of the chair's answer.

    Args:
        question: The question with the options in the chair's order.
        kind: The kind of its short answer; None if it is open.
        letters: Letters of the answers, at least one.
        issues: Number of issues shown, numbered from 1.
        max_items: Maximum statements of each kind.
    """
    fields: JsonSchema = {"answer": STRING_SCHEMA}
    if kind is not None:
        fields["choice"] = (
            enum_schema(LETTERS[: len(question.choices)])
            if kind == "choice"
            else enum_schema(("yes", "no"))
            if kind == "yes_no"
            else STRING_SCHEMA
        )
    fields["rationale"] = array_schema(STRING_SCHEMA, max_items)
    if issues:
        addressed = object_schema({"issue": enum_schema(range(1, issues + 1)), "how": STRING_SCHEMA})
        fields["addressed"] = array_schema(addressed, issues)
    position = object_schema({"candidate": enum_schema(letters), "stance": STRING_SCHEMA})
    fields["open_questions"] = array_schema(STRING_SCHEMA, max_items)
    fields["disagreements"] = array_schema(
        object_schema(
            {"topic": STRING_SCHEMA, "positions": array_schema(position, len(letters)), "resolution": STRING_SCHEMA}
        ),
        max_items,
    )
    return object_schema(fields)


MAX_ANSWER_CHARS: Final = 8000

_BLANKS = frozenset([ANSWER_BLANK, REASON_BLANK, ADDRESSED_BLANK, OPEN_BLANK, "...", "\u2026"])
_LABEL = re.compile(
    r"^[ \t#*_>-]{0,6}"
    r"(?P<label>why|because|open(?:\squestions?)?|issue\s?#?(?P<issue>\d{1,2})|(?:final\s)?answer|choice)"
    r"[*_]{0,3}\s?:[*_]{0,3}[ \t]?",
    re.IGNORECASE | re.MULTILINE,
)


class _ParsedChair(NamedTuple):
    """Fields of a parsed completion.

    Attributes:
        choice: The stated choice, as written.
        rest: The other fields; empty if they cannot be parsed.
    """

    answer: str
    choice: str | None
    rest: dict[str, Any]


def read_chair(
    completion: str, question: Question, blind: Blinding, *, form: Form = "json", order: OptionOrder | None = None
) -> Synthesis | None:
    """Parse the chair's completion: complete JSON, else its answer field alone, else lines if these were requested.

    Args:
        completion: The completion, including its prefix.
        question: The question in its own order.
        blind: The chair's letters.
        form: The requested form.
        order: The chair's option order; None for the question's own.

    Returns:
        The answer with candidates by juror, the question's option letters, and for a closed question the choice in
        normal form. None if no answer can be parsed.
    """
    shown_question = order.shown(question) if order is not None and question.choices else question
    parsed = _in_json(completion) or (_in_lines(completion, shown_question) if form == "lines" else None)
    if parsed is None:
        return None
    answer, choice, rest = parsed

    def rewrite(text: str) -> str:
        return order.to_question_letters(text, question) if order is not None else text

    option = _choice(choice, answer, shown_question)
    if option is not None and order is not None and question.choices:
        option = order.to_question(option)
    return Synthesis(
        answer=blind.without_letters(rewrite(answer[:MAX_ANSWER_CHARS])),
        choice=option,
        rationale=tuple(blind.to_juror_numbers(rewrite(text)) for text in _items(rest.get("rationale"))),
        open_questions=tuple(blind.to_juror_numbers(rewrite(text)) for text in _items(rest.get("open_questions"))),
        disagreements=tuple(_disagreements(rest.get("disagreements"), blind, rewrite)),
        addressed=tuple(
            Addressed(issue=number, how=blind.to_juror_numbers(rewrite(how)))
            for number, how in _addressed(rest.get("addressed"))
        ),
        source="chair",
    )


def _in_json(completion: str) -> _ParsedChair | None:
    """Answer, choice and other fields; of truncated JSON only the first two."""
    data = find_object(
        completion, lambda value: isinstance(value.get("answer"), str) and not _is_blank(value["answer"])
    )
    if data is not None:
        choice = data.get("choice")
        is_scalar = isinstance(choice, str | int | float) and not isinstance(choice, bool)
        return _ParsedChair(data["answer"].strip(), str(choice) if is_scalar else None, data)
    answer_scan = find_text(completion, "answer")
    if answer_scan is None:
        return None
    text, ended = answer_scan
    text = text if ended else complete_sentences(text).strip() or text
    if _is_blank(text):
        return None
    choice_scanned = find_text(completion, "choice")
    return _ParsedChair(text.strip(), choice_scanned[0] if choice_scanned else None, {})


def _in_lines(completion: str, question: Question) -> _ParsedChair | None:
    """The same from lines: the text before the first label is the answer, else that after "Answer:"."""
    text = remove_invisible(completion).strip()
    labels = list(_LABEL.finditer(text))
    fields: dict[str, list[str]] = {}
    addressed: list[dict[str, Any]] = []
    ends = [*(label.start() for label in labels[1:]), len(text)]
    for label, end in zip(labels, ends, strict=False):
        content = text[label.end() : end].strip()
        name = label["label"].casefold()
        if label["issue"]:
            addressed.append({"issue": int(label["issue"]), "how": content})
        else:
            key = "rationale" if name in ("why", "because") else "open_questions" if name[0] == "o" else "answer"
            fields.setdefault(key, []).append(content)
    answers = fields.get("answer", [])
    answer = text[: labels[0].start()].strip() if labels else text
    answer = answer or next((content for content in answers if content), "")
    if not answer or _is_blank(answer) or answer.startswith("{"):
        return None
    if closed_kind(question) is not None and not answers and extract_answer(text, question) is None:
        return None
    return _ParsedChair(answer, answers[-1] if answers else None, {**fields, "addressed": addressed})


def _choice(stated: str | None, answer: str, question: Question) -> str | None:
    """The choice in normal form, as the chair sees the options: the stated one, else that of the answer."""
    kind = closed_kind(question)
    if kind is None:
        return None
    if stated is not None and stated.strip():
        option = find_option(stated.strip(), question.choices) if kind == "choice" else None
        if option is not None:
            return option[0]
        match = extract_answer(f"The answer is {stated.strip()}", question)
        if match is not None:
            return match.value
    match = extract_answer(answer, question)
    return None if match is None else match.value


def _items(value: Any) -> tuple[str, ...]:
    return tuple(text for text in texts_in(value, MAX_ITEMS, MAX_ITEM_CHARS) if not _is_blank(text))


def _addressed(value: Any) -> Iterator[tuple[int, str]]:
    """Indices of issues and what was done about each; the first entry of an issue counts."""
    entries = (
        [{"issue": number, "how": how} for number, how in value.items()]
        if isinstance(value, dict) and "issue" not in value
        else objects_in(value)
    )
    seen: set[int] = set()
    for entry in entries:
        number = re.search(r"\d{1,2}", str(entry.get("issue", "")))
        how = " ".join(str(entry.get("how", "")).split())[:MAX_ITEM_CHARS]
        if number is None or int(number[0]) < 1 or not how or _is_blank(how) or int(number[0]) in seen:
            continue
        seen.add(int(number[0]))
        yield int(number[0]) - 1, how


def _disagreements(value: Any, blind: Blinding, rewrite: Callable[[str], str]) -> Iterator[Disagreement]:
    for entry in objects_in(value)[:MAX_ITEMS]:
        topic, resolution = _items(entry.get("topic")), _items(entry.get("resolution"))
        if not topic:
            continue
        positions = [
            Position(candidate=juror, stance=blind.to_juror_numbers(rewrite(stance[0])))
            for item in objects_in(entry.get("positions"))
            if (juror := blind.juror(str(item.get("candidate", "")))) is not None
            and (stance := _items(item.get("stance")))
        ]
        yield Disagreement(
            topic=blind.to_juror_numbers(rewrite(topic[0])),
            positions=tuple(positions),
            resolution=blind.to_juror_numbers(rewrite(resolution[0])) if resolution else "",
        )


def _is_blank(text: str) -> bool:
    """Whether a text is blank or copied from the form."""
    bare = text.strip()
    return not bare or bare.casefold() in _BLANKS or bare.rstrip(".").casefold() in _BLANKS


def _thought(completion: Completion) -> str:
    return "" if completion.thought is None else completion.thought.text.strip()


_CHAIR_ID = 0
"""The chair's number in its own stage."""


class Chair:
    """The chair of one jury.

    Args:
        question: The question in its own order.
        answers: The scrubbed opinions.
        scrub: Removes authors from the reviewers' texts.
    """

    def __init__(
        self,
        model: MeteredModel,
        question: Question,
        answers: DisplayedAnswers,
        scrub: Callable[[str], str],
        config: JuryConfig,
        run: Run,
    ) -> None:
        self._model, self._question, self._answers, self._scrub = model, question, answers, scrub
        self._config, self._run = config, run
        self._supports_prefix = continues_prefix(model)
        # its own letters and order, so that letters in the reviews reveal nothing
        seed = run.derive_seed("edgejury", "chair")
        self._blind = make_blinding(tuple(answers.texts), question, seed, shuffle=config.shuffle)
        permuted = config.permute_choices and bool(question.choices)
        self._order = option_orders(question, 1, seed)[0] if permuted else identity_order(question)
        self._shown_question = self._order.shown(question) if question.choices else question
        self._request: StructuredRequest | None = None

    async def answer(
        self, panel: Panel, ranking: Ranking, issues: Sequence[PooledIssue], quotes: Sequence[KeptQuote]
    ) -> Synthesis | None:
        """The final answer; None if none can be parsed."""

        def make_request(texts: Sequence[str]) -> StructuredRequest:
            return chair_request(
                self._shown_question,
                self._answers.render(self._blind, texts, self._question, self._order),
                self._blind,
                ranking,
                issues,
                quotes,
                scrub=self._as_shown,
                form=self._config.form,
                supports_prefix=self._supports_prefix,
                supports_schema=self._model.capabilities.json_schema,
            )

        texts = [self._answers.texts[juror] for juror in self._blind.jurors]
        sampling = make_request(texts).sampling(self._model, CHAIR_TEMPERATURE, self._config.chair_tokens)
        prompt, max_chars = await fit_prompt(
            self._model, self._run, lambda shortened: make_request(shortened).prompt, texts, sampling
        )
        if max_chars is not None:
            self._run.degrade(f"the answers do not fit the chair's context: it saw {max_chars} characters of each")
        if prompt is None:
            return None
        return await self._read(replace(make_request(texts), prompt=prompt), panel, issues)

    async def revise(
        self, panel: Panel, previous_synthesis: Synthesis, lines: Sequence[str], issues: Sequence[PooledIssue]
    ) -> Synthesis | None:
        """Another answer after comments on the last one; None if none can be parsed.

        Args:
            previous_synthesis: The last answer.
            lines: The comments.
            issues: The issues it was shown.
        """
        if self._request is None:
            return None
        request = "\n".join([*lines, "Write the final answer once more, whole and in the same form."])
        previous = Message(
            role="assistant", content=quote_line(self._as_shown(previous_synthesis.answer), MAX_REPEATED_CHARS)
        )
        turns = (*self._request.prompt.messages, previous, Message(role="user", content=request))
        prompt = Prompt(messages=turns).with_prefix(self._request.prefix)
        revised = await self._read(replace(self._request, prompt=prompt), panel, issues)
        return (
            None
            if revised is None
            else revised.model_copy(
                update={
                    "tokens": previous_synthesis.tokens + revised.tokens,
                    "thinking_tokens": previous_synthesis.thinking_tokens + revised.thinking_tokens,
                }
            )
        )

    def unaddressed_note(self, indices: Sequence[int]) -> list[str]:
        """Comment on unaddressed issues, by their indices in the list shown."""
        numbers = ", ".join(str(number + 1) for number in indices)
        names = f"issue {numbers}" if len(indices) == 1 else f"the issues {numbers}"
        return [f"You said nothing of {names}. Say what you did about it, or why it does not hold."]

    def contradicted_note(self, labels: Sequence[ClaimLabel]) -> list[str]:
        """Comment on claims that the jurors contradict."""
        contradicted = [label.claim.text for label in labels if label.label == "contradicted"]
        return [
            "These statements of your answer are contradicted by most of the answers that speak of them:",
            *(f"- {quote_line(self._as_shown(text))}" for text in contradicted),
            "Look at each again: correct it, leave it out, or keep it where you are sure that the others are wrong.",
        ]

    async def _read(self, request: StructuredRequest, panel: Panel, issues: Sequence[PooledIssue]) -> Synthesis | None:
        self._request = request
        tokens, thinking_tokens = 0, 0
        for attempt in range(2):
            try:
                (response,) = await panel.call([self._juror_request(request)])
            except BudgetExceeded as e:
                self._run.record_limit(e)
                return None
            tokens += response.tokens
            thinking_tokens += response.thinking_tokens
            if not response.ok:
                return None
            if response.is_cut_in_thought:
                self._run.degrade(
                    "edgejury: the chair was cut while it thought; its answer was requested again, without a thought "
                    "where the model can do that"
                )
            text = request.prefix + response.text
            order = self._order if self._question.choices else None
            synthesis = read_chair(text, self._question, self._blind, form=request.form, order=order)
            if synthesis is not None:
                thought = "" if response.completion is None else _thought(response.completion)
                if order is not None:
                    thought = order.to_question_letters(thought, self._question)
                return synthesis.model_copy(
                    update={
                        "thought": self._blind.to_juror_numbers(thought),
                        "thinking_tokens": thinking_tokens,
                        "tokens": tokens,
                        "latency_ms": response.latency_ms,
                    }
                )
            if attempt or panel.is_over:
                break
            supports_prefix = quick_capabilities(self._model).prefix
            request = chair_repair(request, text, self._shown_question, issues, supports_prefix=supports_prefix)
        return None

    def _juror_request(self, structured: StructuredRequest) -> JurorRequest:
        config = self._config
        sampling = structured.sampling(self._model, CHAIR_TEMPERATURE, config.chair_tokens)
        return JurorRequest(_CHAIR_ID, self._model, Request(prompt=structured.prompt, sampling=sampling))

    def _as_shown(self, text: str) -> str:
        """A text as the chair sees it."""
        scrubbed = self._scrub(text)
        return self._order.to_shown_letters(scrubbed, self._question) if self._question.choices else scrubbed
