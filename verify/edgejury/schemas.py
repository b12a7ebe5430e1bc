"""JSON schemas of what a jury's readers expect: reviews, the chair's answer, stances.

Where a model can be held to one (`Capabilities.json_schema`), its reply is JSON with everything in it that is read, and
names no letter, kind or number that does not exist. What JSON Schema cannot say stays with the readers: that a text is
copied exactly, or not copied from the form. Every field is required and no other is allowed, which is the part of JSON
Schema that all providers take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from ...core.json_schemas import TEXT, Schema, list_of, object_of, one_of
from ...core.question import Question
from ...reasoning.answer_kind import ResolvedKind
from ...reasoning.prompts import LETTERS
from .agreement import Stance
from .opinions import LEAST_MARK, MOST_MARK, IssueKind


def review_schema(letters: Sequence[str], most: int) -> Schema:
    """A review: three marks for each letter, issues, passages to keep.

    Args:
        letters: Letters of the answers that are shown, at least one.
        most: Most issues, and likewise passages.
    """
    marks = object_of(dict.fromkeys(("accuracy", "insight", "clarity"), one_of(range(LEAST_MARK, MOST_MARK + 1))))
    issue = object_of({"candidate": one_of(letters), "kind": one_of(get_args(IssueKind)), "detail": TEXT})
    kept = object_of({"candidate": one_of(letters), "quote": TEXT})
    return object_of(
        {
            "scores": object_of(dict.fromkeys(letters, marks)),
            "issues": list_of(issue, most),
            "keep": list_of(kept, most),
        }
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
    fields: Schema = {"answer": TEXT}
    if kind is not None:
        fields["choice"] = (
            one_of(LETTERS[: len(question.choices)])
            if kind == "choice"
            else one_of(("yes", "no"))
            if kind == "yes_no"
            else TEXT
        )
    fields["rationale"] = list_of(TEXT, most)
    if issues:
        addressed = object_of({"issue": one_of(range(1, issues + 1)), "how": TEXT})
        fields["addressed"] = list_of(addressed, issues)
    position = object_of({"candidate": one_of(letters), "stance": TEXT})
    fields["open_questions"] = list_of(TEXT, most)
    fields["disagreements"] = list_of(
        object_of({"topic": TEXT, "positions": list_of(position, len(letters)), "resolution": TEXT}), most
    )
    return object_of(fields)


def stance_schema(claims: int) -> Schema:
    """What a text says of each of some claims, numbered from 1."""
    return object_of({str(number): one_of(get_args(Stance)) for number in range(1, claims + 1)})
