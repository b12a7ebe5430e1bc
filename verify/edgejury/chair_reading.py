"""`read_chair`: the chair's reply as a final answer: whole JSON, else the answer field of a broken one, else lines.

Source: Kumar, "EdgeJury" (2025, arXiv:2601.00850), for what a synthesis holds; replies get cut off, so that the answer,
which comes first, is taken from what there is. What follows if nothing can be read is `chairing`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from ...core.question import Question
from ...reasoning.answers import extract
from ...reasoning.candidates import whole_sentences
from ...reasoning.options import named_option
from ...reasoning.reading import read
from .asking import Form
from .blinding import Blinding
from .chairing import ANSWER, HOW, MOST_ITEM_CHARS, MOST_ITEMS, OPEN, WHY
from .closed import closed_kind
from .lenient_json import find_object, find_text, objects_in, texts_in
from .opinions import Addressed, Disagreement, Position, Synthesis
from .option_orders import OptionOrder

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
    text = text if ended else whole_sentences(text).strip() or text
    if _is_copied(text):
        return None
    choice_scanned = find_text(reply, "choice")
    return _Read(text.strip(), choice_scanned[0] if choice_scanned else None, {})


def _in_lines(reply: str, question: Question) -> _Read | None:
    """The same from lines: what stands before the first label is the answer, else what "Answer:" says."""
    text = read(reply).text.strip()
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
    if closed_kind(question) is not None and not stated and extract(text, question) is None:
        return None
    return _Read(answer, stated[-1] if stated else None, {**fields, "addressed": addressed})


def _choice(told: str | None, answer: str, question: Question) -> str | None:
    """The choice in normal form, as the chair sees the options: what it is told to be, else what the answer states."""
    kind = closed_kind(question)
    if kind is None:
        return None
    if told is not None and told.strip():
        option = named_option(told.strip(), question.choices) if kind == "choice" else None
        if option is not None:
            return option[0]
        found = extract(f"The answer is {told.strip()}", question)
        if found is not None:
            return found.value
    found = extract(answer, question)
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
