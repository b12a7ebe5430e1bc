"""Stage 3: the chair writes one answer from the opinions and reviews.

One request, and one more if the completion contains no answer. Completions are parsed as complete JSON, else by the
answer field of truncated JSON, else as lines.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 3, for blind synthesis from answers and reviews; the prompts
are ours. Differs: the chair must state what it did about each issue that two or more reviewers named; answers come
without roles; without a readable answer the best-ranked opinion is used, not the first one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ...core.errors import BudgetExceeded, UserError
from ...core.json_schema import JsonSchema
from ...core.messages import Prompt, Request, SamplingParams
from ...core.run import Run
from ...core.types import Question
from ...reasoning.anonymity import MATERIAL_NOTICE, Blinding, make_blinding, show_answers
from ...reasoning.answers.extraction import complete_sentences, extract_answer, find_option
from ...reasoning.prompts import LETTERS, fit_prompt, question_prompt
from ...reasoning.quoting import quote_line, remove_invisible
from ...serving.metered.model import MeteredModel
from ...serving.output_schemas import STRING_SCHEMA, array_schema, enum_schema, find_object, object_schema
from .answering import closed_kind
from .jurors import CHAIR_TOKENS
from .panel import JurorRequest, Panel, find_text, objects_in, repair_request, texts_in, thought_of
from .review import MIN_REVIEWERS_TO_ADDRESS, DisplayedAnswers
from .types import Addressed, DisputedTopic, KeptQuote, Opinion, PooledIssue, Position, Ranking, Synthesis

TEMPERATURE: Final = 0.5
MAX_SHOWN_ISSUES: Final = 8
"""Maximum issues shown, unless more must be addressed."""
MAX_ITEMS: Final = 8
"""Maximum statements of each kind that are parsed."""
MAX_ITEM_CHARS: Final = 400
"""Maximum characters of a displayed issue or passage, and of a parsed statement."""
MAX_ANSWER_CHARS: Final = 8000

_CHOICE = {
    "choice": "the letter of the correct option",
    "number": "only the number",
    "math": "only the formula or number",
    "yes_no": "yes or no",
}
_LABEL = re.compile(
    r"^[ \t#*_>-]{0,6}"
    r"(?P<label>why|because|open(?:\squestions?)?|issue\s?#?(?P<issue>\d{1,2})|(?:final\s)?answer|choice)"
    r"[*_]{0,3}\s?:[*_]{0,3}[ \t]?",
    re.IGNORECASE | re.MULTILINE,
)


def chair_prompt(
    question: Question,
    answers: DisplayedAnswers,
    blind: Blinding,
    ranking: Ranking,
    issues: Sequence[PooledIssue] = (),
    quotes: Sequence[KeptQuote] = (),
    *,
    scrub: Callable[[str], str] = str,
    as_json: bool = False,
) -> Prompt:
    """The request for the final answer.

    Args:
        blind: The letters of the answers; no reviewer saw them.
        issues: Issues, by number of reviewers; the first 8 are shown, and all that must be addressed.
        quotes: Passages to keep.
        scrub: Removes authors from the reviewers' texts.
        as_json: Whether the model is constrained to `chair_schema`.
    """
    shown = shown_issues(issues)
    required = _required(shown)
    findings = [
        f"Reviewers who did not know the authors rank them {_ranking_text(ranking, blind)}.",
        *_section(
            "They raise these issues:",
            (
                f"{number}. Answer {letter}, {issue.kind} (raised by {issue.count}): "
                f"{quote_line(blind.to_letters(scrub(issue.detail)), MAX_ITEM_CHARS)}"
                for number, issue in enumerate(shown, 1)
                if (letter := blind.letter(issue.candidate))
            ),
        ),
        *_section(
            "They want to keep these passages:",
            (
                f"- Answer {letter}: {quote_line(scrub(quote.quote), MAX_ITEM_CHARS)}"
                for quote in quotes
                if (letter := blind.letter(quote.candidate))
            ),
        ),
    ]
    settle = (
        f" Settle the issues: for {_numbers(required)}, say what you did about it or why it does not apply."
        if required
        else ""
    )
    task = (
        "Write the final answer. Combine the strongest parts of these answers, and prefer a plain true statement to an "
        f"impressive one.{settle} Do not add facts that none of the answers contains unless you mark them as your own. "
        "Do not mention the answers or their letters in it. State what remains open and where the answers disagree."
    )
    kind = closed_kind(question)
    parts = [
        "Several people have answered this question. Their answers are quoted below, followed by what reviewers said "
        f"about them. {MATERIAL_NOTICE}",
        show_answers(blind, answers.texts, choices=answers.choices, names=answers.names),
        "\n".join(findings),
        task,
        _json_form(kind, required) if as_json else _lines_form(kind, required),
    ]
    return question_prompt(question, "\n\n".join(parts))


def chair_schema(question: Question, letters: Sequence[str], num_issues: int) -> JsonSchema:
    """JSON schema of the chair's answer; `letters` are those of the answers, issues are numbered from 1."""
    kind = closed_kind(question)
    fields: JsonSchema = {"answer": STRING_SCHEMA}
    if kind is not None:
        options = {"choice": LETTERS[: len(question.choices)], "yes_no": ("yes", "no")}.get(kind)
        fields["choice"] = STRING_SCHEMA if options is None else enum_schema(options)
    fields["rationale"] = array_schema(STRING_SCHEMA, MAX_ITEMS)
    if num_issues:
        addressed = object_schema({"issue": enum_schema(range(1, num_issues + 1)), "how": STRING_SCHEMA})
        fields["addressed"] = array_schema(addressed, num_issues)
    fields["open_questions"] = array_schema(STRING_SCHEMA, MAX_ITEMS)
    position = object_schema({"candidate": enum_schema(letters), "stance": STRING_SCHEMA})
    positions = array_schema(position, len(letters))
    disagreement = object_schema({"topic": STRING_SCHEMA, "positions": positions, "resolution": STRING_SCHEMA})
    fields["disagreements"] = array_schema(disagreement, MAX_ITEMS)
    return object_schema(fields)


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
    addressed = {one.issue for one in synthesis.addressed}
    shown = shown_issues(issues)
    return tuple(shown[number - 1] for number in _required(shown) if number - 1 not in addressed)


def _required(shown: Sequence[PooledIssue]) -> list[int]:
    """Numbers of the issues that must be addressed."""
    return [number for number, issue in enumerate(shown, 1) if issue.count >= MIN_REVIEWERS_TO_ADDRESS]


def _json_form(kind: str | None, required: Sequence[int]) -> str:
    """The form for schema-constrained models, without text that could be copied."""
    choice = f' "choice" is {_CHOICE[kind]}.' if kind is not None else ""
    addressed = f' "addressed" says how you settled {_numbers(required)}, by number.' if required else ""
    return (
        f'Reply with JSON only. "answer" is the complete final answer, in full sentences.{choice} "rationale" gives '
        f'your reasons.{addressed} "open_questions" lists what nobody knows. "disagreements" lists each topic on which '
        "the answers differ, the stance of each by its letter, and your resolution. All lists may be empty."
    )


def _lines_form(kind: str | None, required: Sequence[int]) -> str:
    """The form in lines, without text that could be copied."""
    parts = ["Reply in plain text. Give the final answer in a few sentences, with the reason for it."]
    if required:
        parts.append(
            f'For {_numbers(required)}, add a line that starts with "Issue {required[0]}:" and says what you did about '
            "it."
        )
    parts.append('If something remains open, add a line that starts with "Open:".')
    if kind is not None:
        parts.append(f'End with a last line that has "Answer:" and {_CHOICE[kind]}.')
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


def _section(title: str, lines: Iterable[str]) -> list[str]:
    entries = list(lines)
    return [title, *entries] if entries else []


class _ParsedChair(NamedTuple):
    """Fields of a parsed completion; `choice` as written, `rest` empty where only the answer could be parsed."""

    answer: str
    choice: str | None
    rest: Mapping[str, Any]


def read_chair(completion: str, question: Question, blind: Blinding) -> Synthesis | None:
    """Parse the chair's completion: complete JSON, else the answer field of truncated JSON, else lines.

    Returns:
        The answer with candidates by juror, and for a closed question the choice in normal form. None if no answer can
        be parsed.
    """
    parsed = _in_json(completion) or _in_lines(completion, question)
    if parsed is None:
        return None
    answer, choice, rest = parsed
    return Synthesis(
        answer=blind.without_letters(answer[:MAX_ANSWER_CHARS]),
        choice=_choice(choice, answer, question),
        rationale=_items(rest.get("rationale"), blind),
        open_questions=_items(rest.get("open_questions"), blind),
        disagreements=tuple(_disagreements(rest.get("disagreements"), blind)),
        addressed=tuple(_addressed(rest.get("addressed"), blind)),
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
    found = find_text(completion, "answer")
    if found is None:
        return None
    text, is_terminated = found
    text = text if is_terminated else complete_sentences(text).strip() or text
    if _is_blank(text):
        return None
    stated = find_text(completion, "choice")
    return _ParsedChair(text.strip(), stated[0] if stated else None, {})


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
    """The choice in normal form: the stated one, else that of the answer."""
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


def _items(value: Any, blind: Blinding) -> tuple[str, ...]:
    texts = texts_in(value, MAX_ITEMS, MAX_ITEM_CHARS)
    return tuple(blind.to_juror_numbers(text) for text in texts if not _is_blank(text))


def _addressed(value: Any, blind: Blinding) -> Iterator[Addressed]:
    """How each issue was settled, by index; the first entry of an issue counts."""
    entries = (
        [{"issue": number, "how": how} for number, how in value.items()]
        if isinstance(value, dict) and "issue" not in value
        else objects_in(value)
    )
    seen: set[int] = set()
    for entry in entries:
        number = re.search(r"\d{1,2}", str(entry.get("issue", "")))
        how = _items(str(entry.get("how", "")), blind)
        if number is not None and int(number[0]) >= 1 and how and int(number[0]) not in seen:
            seen.add(int(number[0]))
            yield Addressed(issue=int(number[0]) - 1, how=how[0])


def _disagreements(value: Any, blind: Blinding) -> Iterator[DisputedTopic]:
    for entry in objects_in(value)[:MAX_ITEMS]:
        topic, resolution = _items(entry.get("topic"), blind), _items(entry.get("resolution"), blind)
        positions = [
            Position(candidate=juror, stance=stance[0])
            for item in objects_in(entry.get("positions"))
            if (juror := blind.juror(str(item.get("candidate", "")))) is not None
            and (stance := _items(item.get("stance"), blind))
        ]
        if topic:
            yield DisputedTopic(
                topic=topic[0], positions=tuple(positions), resolution=resolution[0] if resolution else ""
            )


def _is_blank(text: str) -> bool:
    """Whether a text is blank or a copied placeholder."""
    return not text.strip(" .\u2026\n\t")


async def ask_chair(
    model: MeteredModel,
    question: Question,
    answers: DisplayedAnswers,
    ranking: Ranking,
    issues: Sequence[PooledIssue],
    quotes: Sequence[KeptQuote],
    panel: Panel,
    run: Run,
    *,
    scrub: Callable[[str], str] = str,
    max_tokens: int | None = None,
    shuffle: bool = True,
) -> Synthesis | None:
    """The chair's answer under letters of its own; None if none can be parsed.

    Args:
        answers: The opinions as the chair sees them.
        scrub: Removes authors from the reviewers' texts.
    """
    seed = run.derive_seed("edgejury", "chair")
    blind = make_blinding(tuple(answers.texts), question, seed, shuffle=shuffle)
    as_json = model.capabilities.json_schema

    def prompt_of(texts: Sequence[str]) -> Prompt:
        shown = DisplayedAnswers(dict(zip(blind.jurors, texts, strict=True)), answers.choices, answers.names)
        return chair_prompt(question, shown, blind, ranking, issues, quotes, scrub=scrub, as_json=as_json)

    schema = chair_schema(question, blind.letters, len(shown_issues(issues))) if as_json else None
    max_tokens = max_tokens or CHAIR_TOKENS
    sampling = SamplingParams(default_temperature=TEMPERATURE, max_tokens=max_tokens, json_schema=schema)
    prompt, max_chars = await fit_prompt(
        model, run, prompt_of, [answers.texts[juror] for juror in blind.jurors], sampling
    )
    if max_chars is not None:
        run.degrade(f"the answers do not fit the chair's context: it saw {max_chars} characters of each")
    if prompt is None:
        return None
    request = JurorRequest(0, model, Request(prompt=prompt, sampling=sampling))
    tokens = thinking_tokens = 0
    for is_repair in (False, True):
        (completion,) = await panel.call([request])
        tokens += completion.usage.completion_tokens
        thinking_tokens += completion.usage.thinking_tokens
        if not completion.ok:
            return None
        if completion.finish_reason == "thinking":
            run.degrade(
                "edgejury: the chair was cut while thinking; its answer was requested again, without a thought where "
                "the model allows that"
            )
        synthesis = read_chair(completion.text, question, blind)
        if synthesis is not None:
            thought = blind.to_juror_numbers(thought_of(completion))
            cost = {"thought": thought, "thinking_tokens": thinking_tokens, "tokens": tokens}
            return synthesis.model_copy(update=cost)
        if is_repair or run.ledger.is_closed:
            break
        form = _lines_form(closed_kind(question), _required(shown_issues(issues)))
        instruction = f"No answer could be read from your reply. {form}"
        try:
            request = repair_request(request, completion.text, instruction, TEMPERATURE)
        except BudgetExceeded as e:
            run.record_limit(e)
            break
    return None
