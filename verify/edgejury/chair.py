"""Stage 3: what the chair is asked, which issues it must address, and what stands in where it gives no answer.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for blind synthesis from answers and reviews; the wording is our
own. Differs: the chair must say what it did about each issue that two or more reviewers named; answers come without
roles; and where nothing can be read, the best ranked opinion stands in, not the first one.

`read_chair`: the chair's reply as a final answer: whole JSON, else the answer field of a broken one, else lines.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for what a synthesis holds; replies get cut off, so that the answer,
which comes first, is taken from what there is. What follows if nothing can be read is `chairing`'s.

Stage 3: the chair makes one answer of the opinions and of what the reviewers said, and may be asked to think again.

One request; one more where its reply holds no answer; after that the best opinion stands in, which is not decided here.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), stage 3; see `chairing` for what differs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from ...core.errors import UserError
from ...core.json_schema import STRING_SCHEMA, JsonSchema, array_schema, enum_schema, object_schema
from ...core.messages import Message, Prompt, Request
from ...core.run import Run
from ...core.types import Question
from ...reasoning.answers.extraction import extract_answer, find_option
from ...reasoning.answers.kinds import ResolvedKind
from ...reasoning.answers.normalization import visible_text
from ...reasoning.candidates import complete_sentences
from ...reasoning.prompts import LETTERS, fit_prompt, question_prompt
from ...reasoning.retrieval.quoting import quote_line
from ...serving.metered.model import MeteredModel
from .anonymity import Blinding, OptionOrder, blinding, option_orders, own_order
from .answering import closed_kind
from .config import JuryConfig
from .panel import Ask, Panel
from .requests import (
    MATERIAL,
    MOST_REPLY_CHARS,
    Asked,
    Form,
    asked,
    asked_again,
    find_object,
    find_text,
    objects_in,
    texts_in,
)
from .review import ADDRESSED_FROM, Shown
from .types import Addressed, ClaimLabel, Disagreement, KeptQuote, Opinion, PooledIssue, Position, Ranking, Synthesis

MOST_ISSUES: Final = 8
"""Issues that are shown, unless more than that must be addressed."""

MOST_ITEMS: Final = 8
"""Statements of each kind that are taken of a reply."""

MOST_ITEM_CHARS: Final = 400
"""Characters of an issue or passage that are shown, and of each thing that is read of a reply."""

ANSWER, WHY, HOW, OPEN = "the final answer", "why it is so", "what you did about it", "what stays open"
"""What stands in the form in the places that the chair fills in."""

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
    begin: bool = False,
    held: bool = False,
) -> Asked:
    """What the chair is asked.

    Args:
        question: The question, with its options in the order that the chair sees.
        answers: The answers, quoted and fenced, under letters that no reviewer saw (see `blinding.show_answers`).
        blind: Their letters.
        ranking: How the reviewers rank them.
        issues: What they find wrong, most named first; the first 8 are shown, and all that must be addressed.
        quotes: What they want kept.
        scrub: Takes out of a reviewer's words what tells who wrote them, and tells letters of options as shown here.
        form: In which form the chair is to reply.
        begin: Whether its model can be given the beginning of the reply.
        held: Whether its model can be held to a JSON schema.
    """
    shown = shown_issues(issues)
    found = [
        f"Reviewers who did not know whose answer they read rank them {_ranked(ranking, blind)}.",
        *_section(
            "They name these issues:",
            (
                f"{number}. Answer {blind.letter(issue.candidate)}, {issue.kind} (named by {issue.count}): "
                f"{quote_line(blind.to_letters(scrub(issue.detail)), MOST_ITEM_CHARS)}"
                for number, issue in enumerate(shown, 1)
                if blind.letter(issue.candidate)
            ),
        ),
        *_section(
            "They want these passages kept:",
            (
                f"- Answer {blind.letter(quote.candidate)}: {quote_line(scrub(quote.quote), MOST_ITEM_CHARS)}"
                for quote in quotes
                if blind.letter(quote.candidate)
            ),
        ),
    ]
    must = [number for number, issue in enumerate(shown, 1) if issue.count >= ADDRESSED_FROM]
    kind = closed_kind(question)
    schema = (
        chair_schema(question, kind, blind.letters, len(shown), MOST_ITEMS)
        if held and form == "json" and blind.letters
        else None
    )
    parts = [
        "Several people have answered this question; their answers are quoted below, and after them what reviewers "
        f"say. {MATERIAL}",
        answers,
        "\n".join(found),
        _task(must),
        _lines_form(kind, must)
        if form == "lines"
        else _json_form(kind, blind)
        if schema is None
        else _fields(kind, must),
    ]
    opening, stop = ('{"answer": "', ()) if form == "json" else ("", _LINES_STOPS)
    return asked(question_prompt(question, "\n\n".join(parts)), opening, stop, form, begin=begin, schema=schema)


def chair_repair(
    first: Asked, reply: str, question: Question, issues: Sequence[PooledIssue] = (), *, begin: bool = False
) -> Asked:
    """What the chair is asked whose reply holds no answer that can be read; once, and always for lines.

    Args:
        first: What it was asked.
        reply: What it replied, opening included.
        question: The question, with its options in the order that the chair sees.
        issues: The issues, as `chair_request` got them.
        begin: Whether its model can be given the beginning of a reply.
    """
    must = [number for number, issue in enumerate(shown_issues(issues), 1) if issue.count >= ADDRESSED_FROM]
    request = f"There is no answer in your reply that could be read. {_lines_form(closed_kind(question), must)}"
    return asked_again(first, reply, request, "", _LINES_STOPS, begin=begin)


def fallback(ranking: Ranking, opinions: Sequence[Opinion]) -> Synthesis:
    """The best ranked opinion in the place of a chair's answer.

    Raises:
        UserError: It is not among the opinions.
    """
    best = next((opinion for opinion in opinions if opinion.juror == ranking.best and opinion.ok), None)
    if best is None:
        raise UserError(f"the best ranked opinion, of juror {ranking.best}, is not there", hint="rank these opinions")
    why = "the chair gave no answer that could be read: the best ranked answer stands"
    return Synthesis(answer=best.text, choice=best.choice, rationale=(why,), source="fallback")


def shown_issues(issues: Sequence[PooledIssue]) -> tuple[PooledIssue, ...]:
    """The issues that the chair is shown, in the order of their numbers, which begin at 1 in its prompt."""
    return tuple(issue for at, issue in enumerate(issues) if at < MOST_ISSUES or issue.count >= ADDRESSED_FROM)


def left_out(synthesis: Synthesis, issues: Sequence[PooledIssue]) -> tuple[PooledIssue, ...]:
    """The issues that two or more reviewers named and the chair says nothing of."""
    said = {addressed.issue for addressed in synthesis.addressed}
    return tuple(
        issue for at, issue in enumerate(shown_issues(issues)) if issue.count >= ADDRESSED_FROM and at not in said
    )


def _task(must: Sequence[int]) -> str:
    settle = (
        f" Settle the issues: say for {_numbers(must)} what you did about it, or why it does not hold." if must else ""
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
        f'{{"answer": "{ANSWER}", {choice}"rationale": ["{WHY}"], "addressed": [{{"issue": 1, "how": "{HOW}"}}], '
        f'"open_questions": ["{OPEN}"], "disagreements": [{{"topic": "...", "positions": [{{"candidate": "{letter}", '
        '"stance": "..."}], "resolution": "..."}]}'
    )


def _fields(kind: str | None, must: Sequence[int]) -> str:
    """The form for a model that is held to it, without words that could be copied in place of an answer."""
    choice = f' "choice" is {_CHOICE[kind]}.' if kind is not None else ""
    addressed = f' "addressed" says how you settled {_numbers(must)}, by number.' if must else ""
    return (
        f'Reply with JSON alone. "answer" is the whole final answer, in sentences that stand by themselves.{choice} '
        f'"rationale" gives the reasons.{addressed} "open_questions" names what nobody knows, and "disagreements" each '
        "topic on which the answers differ, the stance of each by its letter, and your resolution. All lists may be "
        "empty."
    )


def _lines_form(kind: str | None, must: Sequence[int]) -> str:
    """The form in lines, without words that could be copied in place of an answer."""
    parts = ["Reply in plain text, with the final answer in a few sentences and why it is so."]
    if must:
        parts.append(
            f'For {_numbers(must)} add a line that begins with "Issue {must[0]}:" and says what you did about it.'
        )
    parts.append('If something stays open, add a line that begins with "Open:".')
    if kind is not None:
        parts.append(f'End with a last line "Answer:" and {_CHOICE[kind]}.')
    return " ".join(parts)


def _numbers(must: Sequence[int]) -> str:
    if len(must) == 1:
        return f"issue {must[0]}"
    return f"each of the issues {', '.join(map(str, must[:-1]))} and {must[-1]}"


def _ranked(ranking: Ranking, blind: Blinding) -> str:
    """The order with mean marks, best first."""
    told = []
    for standing in ranking.standings:
        letter = blind.letter(standing.juror)
        if letter is not None:
            mark = "" if standing.mark is None else f", mark {standing.mark:.1f} of 10"
            told.append(f"{letter} (above {standing.borda:.0%} of the others{mark})")
    return ", ".join(told)


def _section(title: str, lines: Iterator[str]) -> list[str]:
    told = list(lines)
    return [title, *told] if told else []


def chair_schema(
    question: Question, kind: ResolvedKind | None, letters: Sequence[str], issues: int, most: int
) -> JsonSchema:
    """The chair's answer.

    Args:
        question: The question, with its options in the order that the chair sees.
        kind: What its one short answer is; None if it is open.
        letters: Letters of the answers that are shown, at least one.
        issues: How many issues are shown, numbered from 1.
        most: Most statements of each kind.
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
    fields["rationale"] = array_schema(STRING_SCHEMA, most)
    if issues:
        addressed = object_schema({"issue": enum_schema(range(1, issues + 1)), "how": STRING_SCHEMA})
        fields["addressed"] = array_schema(addressed, issues)
    position = object_schema({"candidate": enum_schema(letters), "stance": STRING_SCHEMA})
    fields["open_questions"] = array_schema(STRING_SCHEMA, most)
    fields["disagreements"] = array_schema(
        object_schema(
            {"topic": STRING_SCHEMA, "positions": array_schema(position, len(letters)), "resolution": STRING_SCHEMA}
        ),
        most,
    )
    return object_schema(fields)


MOST_ANSWER_CHARS: Final = 8000

_COPIED = frozenset([ANSWER, WHY, HOW, OPEN, "...", "\u2026"])
_LABEL = re.compile(
    r"^[ \t#*_>-]{0,6}"
    r"(?P<label>why|because|open(?:\squestions?)?|issue\s?#?(?P<issue>\d{1,2})|(?:final\s)?answer|choice)"
    r"[*_]{0,3}\s?:[*_]{0,3}[ \t]?",
    re.IGNORECASE | re.MULTILINE,
)


class _Read(NamedTuple):
    """What was found in a reply.

    Attributes:
        answer: The answer's text.
        choice: What it says that its choice is, as written.
        rest: The other fields; empty where they cannot be read.
    """

    answer: str
    choice: str | None
    rest: dict[str, Any]


def read_chair(
    reply: str, question: Question, blind: Blinding, *, form: Form = "json", order: OptionOrder | None = None
) -> Synthesis | None:
    """Read the chair's reply: whole JSON, else the answer field alone, else lines where these were asked for.

    Args:
        reply: The reply, opening included.
        question: The question in its own order.
        blind: The chair's letters.
        form: The form that was asked for.
        order: The order in which the chair saw the options; None for the question's own.

    Returns:
        The answer, with candidates by juror and letters of options as the question has them; for a closed question its
        choice in normal form, or None if it names none. None if no answer can be read: time for a repair.
    """
    seen = order.shown(question) if order is not None and question.choices else question
    found = _in_json(reply) or (_in_lines(reply, seen) if form == "lines" else None)
    if found is None:
        return None
    answer, choice, rest = found

    def told(text: str) -> str:
        return order.retell(text, question) if order is not None else text

    picked = _choice(choice, answer, seen)
    if picked is not None and order is not None and question.choices:
        picked = order.to_question(picked)
    return Synthesis(
        answer=blind.without_letters(told(answer[:MOST_ANSWER_CHARS])),
        choice=picked,
        rationale=tuple(blind.to_jurors(told(text)) for text in _items(rest.get("rationale"))),
        open_questions=tuple(blind.to_jurors(told(text)) for text in _items(rest.get("open_questions"))),
        disagreements=tuple(_disagreements(rest.get("disagreements"), blind, told)),
        addressed=tuple(
            Addressed(issue=number, how=blind.to_jurors(told(how))) for number, how in _addressed(rest.get("addressed"))
        ),
        source="chair",
    )


def _in_json(reply: str) -> _Read | None:
    """Answer, choice and all the fields; of a broken reply the first two alone."""
    found = find_object(reply, lambda value: isinstance(value.get("answer"), str) and not _is_copied(value["answer"]))
    if found is not None:
        choice = found.get("choice")
        plainly = isinstance(choice, str | int | float) and not isinstance(choice, bool)
        return _Read(found["answer"].strip(), str(choice) if plainly else None, found)
    scanned = find_text(reply, "answer")
    if scanned is None:
        return None
    text, ended = scanned
    text = text if ended else complete_sentences(text).strip() or text
    if _is_copied(text):
        return None
    choice_scanned = find_text(reply, "choice")
    return _Read(text.strip(), choice_scanned[0] if choice_scanned else None, {})


def _in_lines(reply: str, question: Question) -> _Read | None:
    """The same from lines: what stands before the first label is the answer, else what "Answer:" says."""
    text = visible_text(reply).text.strip()
    labels = list(_LABEL.finditer(text))
    fields: dict[str, list[str]] = {}
    addressed: list[dict[str, Any]] = []
    ends = [*(label.start() for label in labels[1:]), len(text)]
    for label, end in zip(labels, ends, strict=False):
        said = text[label.end() : end].strip()
        name = label["label"].casefold()
        if label["issue"]:
            addressed.append({"issue": int(label["issue"]), "how": said})
        else:
            key = "rationale" if name in ("why", "because") else "open_questions" if name[0] == "o" else "answer"
            fields.setdefault(key, []).append(said)
    stated = fields.get("answer", [])
    answer = text[: labels[0].start()].strip() if labels else text
    answer = answer or next((said for said in stated if said), "")
    if not answer or _is_copied(answer) or answer.startswith("{"):
        return None
    if closed_kind(question) is not None and not stated and extract_answer(text, question) is None:
        return None
    return _Read(answer, stated[-1] if stated else None, {**fields, "addressed": addressed})


def _choice(told: str | None, answer: str, question: Question) -> str | None:
    """The choice in normal form, as the chair sees the options: what it is told to be, else what the answer states."""
    kind = closed_kind(question)
    if kind is None:
        return None
    if told is not None and told.strip():
        option = find_option(told.strip(), question.choices) if kind == "choice" else None
        if option is not None:
            return option[0]
        found = extract_answer(f"The answer is {told.strip()}", question)
        if found is not None:
            return found.value
    found = extract_answer(answer, question)
    return None if found is None else found.value


def _items(value: Any) -> tuple[str, ...]:
    return tuple(text for text in texts_in(value, MOST_ITEMS, MOST_ITEM_CHARS) if not _is_copied(text))


def _addressed(value: Any) -> Iterator[tuple[int, str]]:
    """Numbers of issues, counted from 0, and what was done about each; a number told twice counts once."""
    entries = (
        [{"issue": number, "how": how} for number, how in value.items()]
        if isinstance(value, dict) and "issue" not in value
        else objects_in(value)
    )
    seen: set[int] = set()
    for entry in entries:
        number = re.search(r"\d{1,2}", str(entry.get("issue", "")))
        how = " ".join(str(entry.get("how", "")).split())[:MOST_ITEM_CHARS]
        if number is None or int(number[0]) < 1 or not how or _is_copied(how) or int(number[0]) in seen:
            continue
        seen.add(int(number[0]))
        yield int(number[0]) - 1, how


def _disagreements(value: Any, blind: Blinding, told: Callable[[str], str]) -> Iterator[Disagreement]:
    for entry in objects_in(value)[:MOST_ITEMS]:
        topic, resolution = _items(entry.get("topic")), _items(entry.get("resolution"))
        if not topic:
            continue
        positions = [
            Position(candidate=juror, stance=blind.to_jurors(told(stance[0])))
            for one in objects_in(entry.get("positions"))
            if (juror := blind.juror(str(one.get("candidate", "")))) is not None
            and (stance := _items(one.get("stance")))
        ]
        yield Disagreement(
            topic=blind.to_jurors(told(topic[0])),
            positions=tuple(positions),
            resolution=blind.to_jurors(told(resolution[0])) if resolution else "",
        )


def _is_copied(text: str) -> bool:
    """Whether a text is blank, or copied from the form."""
    bare = text.strip()
    return not bare or bare.casefold() in _COPIED or bare.rstrip(".").casefold() in _COPIED


_CHAIR = 0
"""The chair's number in its own stage."""


class Chair:
    """The chair of one jury.

    Args:
        model: Its model.
        question: The question in its own order.
        answers: The opinions, scrubbed.
        scrub: Takes out of reviewers' words what tells who wrote them.
        config: Parameters.
        run: The run.
    """

    def __init__(
        self,
        model: MeteredModel,
        question: Question,
        answers: Shown,
        scrub: Callable[[str], str],
        config: JuryConfig,
        run: Run,
    ) -> None:
        self._model, self._question, self._answers, self._scrub = model, question, answers, scrub
        self._config, self._run = config, run
        self._begin = model.capabilities.prefix
        # letters and orders of its own, so that no letter that a reviewer wrote tells it whose answer is whose
        seed = run.derive_seed("edgejury", "chair")
        self._blind = blinding(tuple(answers.texts), question, seed, shuffle=config.shuffle)
        permuted = config.permute_choices and bool(question.choices)
        self._order = option_orders(question, 1, seed)[0] if permuted else own_order(question)
        self._seen = self._order.shown(question) if question.choices else question
        self._asked: Asked | None = None

    async def answer(
        self, panel: Panel, ranking: Ranking, issues: Sequence[PooledIssue], quotes: Sequence[KeptQuote]
    ) -> Synthesis | None:
        """The final answer; None if there is none that can be read.

        Args:
            panel: The stage.
            ranking: How the reviewers rank the opinions.
            issues: What they find wrong.
            quotes: What they want kept.
        """

        def asked(texts: Sequence[str]) -> Asked:
            return chair_request(
                self._seen,
                self._answers.as_seen(self._blind, texts, self._question, self._order),
                self._blind,
                ranking,
                issues,
                quotes,
                scrub=self._told,
                form=self._config.form,
                begin=self._begin,
                held=self._model.capabilities.json_schema,
            )

        texts = [self._answers.texts[juror] for juror in self._blind.jurors]
        tokens = self._config.chair_tokens
        prompt, kept = await fit_prompt(self._model, self._run, lambda cut: asked(cut).prompt, texts, tokens)
        if kept is not None:
            self._run.degrade(f"the answers do not fit the chair's context: it saw {kept} characters of each")
        if prompt is None:
            return None
        return await self._read(replace(asked(texts), prompt=prompt), panel, issues)

    async def answer_again(
        self, panel: Panel, before: Synthesis, lines: Sequence[str], issues: Sequence[PooledIssue]
    ) -> Synthesis | None:
        """Another answer, with what the chair is told of its last one; None if there is none that can be read.

        Args:
            panel: The stage.
            before: What it answered.
            lines: What it is told.
            issues: The issues that it was shown.
        """
        if self._asked is None:
            return None
        request = "\n".join([*lines, "Write the final answer once more, whole and in the same form."])
        said = Message(role="assistant", content=quote_line(self._told(before.answer), MOST_REPLY_CHARS))
        turns = (*self._asked.prompt.messages, said, Message(role="user", content=request))
        prompt = Prompt(messages=turns).with_prefix(self._asked.opening)
        again = await self._read(replace(self._asked, prompt=prompt), panel, issues)
        return None if again is None else again.model_copy(update={"tokens": before.tokens + again.tokens})

    def on_issues(self, passed_over: Sequence[int]) -> list[str]:
        """What a chair is told that passed over issues, by their positions in the list that it was shown."""
        numbers = ", ".join(str(number + 1) for number in passed_over)
        which = f"issue {numbers}" if len(passed_over) == 1 else f"the issues {numbers}"
        return [f"You said nothing of {which}. Say what you did about it, or why it does not hold."]

    def on_claims(self, labels: Sequence[ClaimLabel]) -> list[str]:
        """What a chair is told whom the jurors contradict."""
        contradicted = [label.claim.text for label in labels if label.label == "contradicted"]
        return [
            "These statements of your answer are contradicted by most of the answers that speak of them:",
            *(f"- {quote_line(self._told(text))}" for text in contradicted),
            "Look at each again: correct it, leave it out, or keep it where you are sure that the others are wrong.",
        ]

    async def _read(self, asked: Asked, panel: Panel, issues: Sequence[PooledIssue]) -> Synthesis | None:
        self._asked = asked
        tokens = 0
        for attempt in range(2):
            (reply,) = await panel.ask([self._ask(asked)])
            tokens += reply.tokens
            if not reply.ok:
                return None
            said = asked.opening + reply.text
            order = self._order if self._question.choices else None
            read = read_chair(said, self._question, self._blind, form=asked.form, order=order)
            if read is not None:
                return read.model_copy(update={"tokens": tokens, "latency_ms": reply.latency_ms})
            if attempt or panel.over:
                break
            asked = chair_repair(asked, said, self._seen, issues, begin=self._begin)
        return None

    def _ask(self, asked: Asked) -> Ask:
        config = self._config
        sampling = asked.sampling(config.chair_temperature, config.chair_tokens)
        return Ask(_CHAIR, self._model, Request(prompt=asked.prompt, sampling=sampling))

    def _told(self, text: str) -> str:
        """A text as the chair is to see it."""
        shown = self._scrub(text)
        return self._order.tell(shown, self._question) if self._question.choices else shown
