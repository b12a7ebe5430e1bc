"""Custom datasets: any JSONL or CSV file, with a map of its fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast, get_args

from ...core.errors import UserError
from ...core.types import AnswerKind, Document, Question
from ...reasoning.answers.extraction import answer_kind
from ...reasoning.code_test_files import parse_tests
from .items import ChoiceGold, CodeGold, Item, MathGold, TextGold
from .records import Record
from .spec import DatasetSpec, ReadOptions

FIELDS = {
    "question": "the question",
    "answer": "the right answer, or a list of answers that all count; with choices a letter, a position from 0, or the "
    "right choice's text",
    "choices": "a list, or several columns as a|b|c|d",
    "id": "a unique name; by default the line's number",
    "subject": "what breakdowns group by",
    "group": "what belongs to one source; standard errors are clustered by it",
    "documents": "texts to rest on: a text, or a list of texts or of {name, text}",
    "tests": "tests of an answer that is Python code, in place of an answer: functions test_…, asserts or >>> examples",
    "answer_kind": "what this answer is, as --option kind says it for all: " + ", ".join(get_args(AnswerKind)),
}
"""What a map may name."""


def parse_map(text: str) -> dict[str, str]:
    """Read a field map: `question=prompt,answer=target,choices=A|B|C|D`.

    Raises:
        UserError: A part is no `name=field`, or a name is used twice.
    """
    results: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, field = (p.strip() for p in part.partition("="))
        if not equals or not name or not field:
            raise UserError(f"--map: {part!r} is no NAME=FIELD", hint="for example question=prompt,answer=target")
        if name in results:
            raise UserError(f"--map names {name!r} twice")
        results[name] = field
    return results


def _read(rows: Iterator[Record], reading: ReadOptions) -> Iterator[Item]:
    kinds = get_args(AnswerKind)
    usual = reading.options.get("kind", "auto")
    if usual not in kinds:
        raise UserError(f"unknown kind of answer {usual!r}", hint="one of " + ", ".join(kinds))
    for row in rows:
        kind = row.optional("answer_kind") or usual
        if kind not in kinds:
            raise row.bad(f"unknown kind of answer {kind!r}", hint="one of " + ", ".join(kinds))
        name = row.text("id") if row.has("id") else str(row.position)
        documents = _documents(row)
        subject, group = row.optional("subject"), row.optional("group")
        text = row.text("question")
        if row.has("choices"):
            choices = row.texts("choices", least=2)
            right = _position(row, choices)
            order = reading.order(name, len(choices))
            shown = tuple(choices[i] for i in order)
            request = Question(text=text, choices=shown, documents=documents, kind="choice")
            yield Item(
                id=name, question=request, gold=ChoiceGold(correct=(order.index(right),)), subject=subject, group=group
            )
            continue
        if row.has("tests"):
            gold = CodeGold(tests=parse_tests(row.text("tests"), row.where))
            request = Question(text=text, documents=documents, kind="code")
            yield Item(id=name, question=request, gold=gold, subject=subject, group=group)
            continue
        request = Question(text=text, documents=documents, kind=cast(AnswerKind, kind))
        if kind == "choice":
            raise row.bad("the field 'choices' is missing", hint="--map choices=… names it")
        yield Item(id=name, question=request, gold=plain_gold(_answers(row), request), subject=subject, group=group)


def plain_gold(answers: tuple[str, ...], question: Question) -> MathGold | TextGold:
    """What is right of a question without choices: answers that all count."""
    kind = answer_kind(question)
    if kind in ("number", "math"):
        return MathGold(answer=answers[0], equivalents=answers[1:], kind="number" if kind == "number" else "math")
    return TextGold(answers=answers)


def _answers(row: Record) -> tuple[str, ...]:
    value = row.value("answer")
    if isinstance(value, bool):
        return ("yes" if value else "no",)
    if isinstance(value, list):
        return row.texts("answer")
    return (row.text("answer"),)


def _position(row: Record, choices: tuple[str, ...]) -> int:
    """Position of the right choice in the source's order."""
    value = row.value("answer")
    text = str(value).strip()
    same = [i for i, choice in enumerate(choices) if choice.strip() == text]
    if len(same) == 1 and not isinstance(value, int):
        return same[0]
    if len(text) == 1 and text.isascii() and text.isalpha():
        index = ord(text.upper()) - ord("A")
    elif text.isascii() and text.isdigit() and len(text) < 4:
        index = int(text)
    else:
        index = -1
    if not 0 <= index < len(choices):
        raise row.bad(
            f"the answer {text!r} is none of the {len(choices)} choices",
            hint="a letter, a position from 0, or its text",
        )
    return index


def _documents(row: Record) -> tuple[Document, ...]:
    if not row.has("documents"):
        return ()
    value = row.value("documents")
    if isinstance(value, str):
        return (Document(name="document", text=row.text("documents")),)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return tuple(Document(name=d.text("name"), text=d.text("text")) for d in row.rows("documents"))
    return tuple(Document(name=f"document {i}", text=t) for i, t in enumerate(row.texts("documents", least=0), 1))


CUSTOM = DatasetSpec(
    name="file",
    summary="your own questions: any JSONL or CSV with --data FILE, fields named with --map",
    licence="that of your file",
    warning="",
    read=_read,
    options={"kind": "what the answers are: " + ", ".join(get_args(AnswerKind))},
)
