"""JSON schemas of what a jury's readers expect: reviews, the chair's answer, stances.

Where a model can be held to one (`Capabilities.json_schema`), its reply is JSON with everything in it that is read, and
names no letter, kind or number that does not exist. What JSON Schema cannot say stays with the readers: that a text is
copied exactly, or not copied from the form. Every field is required and no other is allowed, which is the part of JSON
Schema that all providers take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, get_args

from pydantic import JsonValue

from ...core.question import Question
from ...reasoning.answer_kind import ResolvedKind
from ...reasoning.prompts import LETTERS
from .agreement import Stance
from .opinions import LEAST_MARK, MOST_MARK, IssueKind

Schema = dict[str, JsonValue]

_TEXT: Final[Schema] = {"type": "string"}


def review_schema(letters: Sequence[str], most: int) -> Schema:
    """A review: three marks for each letter, issues, passages to keep.

    Args:
        letters: Letters of the answers that are shown, at least one.
        most: Most issues, and likewise passages.
    """
    marks = _object({name: _one_of(range(LEAST_MARK, MOST_MARK + 1)) for name in ("accuracy", "insight", "clarity")})
    issue = _object({"candidate": _one_of(letters), "kind": _one_of(get_args(IssueKind)), "detail": _TEXT})
    kept = _object({"candidate": _one_of(letters), "quote": _TEXT})
    return _object(
        {"scores": _object(dict.fromkeys(letters, marks)), "issues": _list(issue, most), "keep": _list(kept, most)}
    )


def chair_schema(
    question: Question, kind: ResolvedKind | None, letters: Sequence[str], issues: int, most: int
) -> Schema:
    """The chair's answer.

    Args:
        question: The question, with its options in the order that the chair sees.
        kind: What its one short answer is; None if it is open.
        letters: Letters of the answers that are shown, at least one.
        issues: How many issues are shown, numbered from 1.
        most: Most statements of each kind.
    """
    fields: Schema = {"answer": _TEXT}
    if kind is not None:
        fields["choice"] = (
            _one_of(LETTERS[: len(question.choices)])
            if kind == "choice"
            else _one_of(("yes", "no"))
            if kind == "yes_no"
            else _TEXT
        )
    fields["rationale"] = _list(_TEXT, most)
    if issues:
        addressed = _object({"issue": _one_of(range(1, issues + 1)), "how": _TEXT})
        fields["addressed"] = _list(addressed, issues)
    position = _object({"candidate": _one_of(letters), "stance": _TEXT})
    fields["open_questions"] = _list(_TEXT, most)
    fields["disagreements"] = _list(
        _object({"topic": _TEXT, "positions": _list(position, len(letters)), "resolution": _TEXT}), most
    )
    return _object(fields)


def stance_schema(claims: int) -> Schema:
    """What a text says of each of some claims, numbered from 1."""
    return _object({str(number): _one_of(get_args(Stance)) for number in range(1, claims + 1)})


def _one_of(values: Sequence[str] | range) -> Schema:
    told: list[JsonValue] = list(values)
    return {"type": "integer" if isinstance(values, range) else "string", "enum": told}


def _list(items: Schema, most: int) -> Schema:
    return {"type": "array", "items": items, "maxItems": most}


def _object(fields: Schema) -> Schema:
    names: list[JsonValue] = list(fields)
    return {"type": "object", "properties": fields, "required": names, "additionalProperties": False}
