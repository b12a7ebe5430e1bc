"""Stage 3: what the chair is asked, which issues it must address, and what stands in where it gives no answer.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for blind synthesis from answers and reviews; the wording is our
own. Differs: the chair must say what it did about each issue that two or more reviewers named; answers come without
roles; and where nothing can be read, the best ranked opinion stands in, not the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ...core.errors import UserError
from ...core.question import Question
from ...reasoning.brains.quoting import plain
from ...reasoning.prompts import ask
from .asking import MATERIAL, Asked, Form, asked, asked_again
from .blinding import Blinding
from .closed import closed_kind
from .issues import ADDRESSED_FROM
from .opinions import KeptQuote, Opinion, PooledIssue, Ranking, Synthesis
from .schemas import chair_schema

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
                f"{plain(blind.to_letters(scrub(issue.detail)), MOST_ITEM_CHARS)}"
                for number, issue in enumerate(shown, 1)
                if blind.letter(issue.candidate)
            ),
        ),
        *_section(
            "They want these passages kept:",
            (
                f"- Answer {blind.letter(quote.candidate)}: {plain(scrub(quote.quote), MOST_ITEM_CHARS)}"
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
    return asked(ask(question, "\n\n".join(parts)), opening, stop, form, begin=begin, schema=schema)


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
