"""Sample files: JSON lines of samples generated elsewhere, of one or several questions, and votes over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeInt, ValidationError

from ...core.errors import DataError
from ...core.files import json_lines
from ...core.types import AnswerKind, Question
from ..answers.equivalence import Equivalence
from ..answers.extraction import ResolvedKind, answer_kind, extract_answer
from .path_votes import Method, Parity, Path, Vote, vote

_UNKNOWN_QUESTION = "?"


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)

    text: str
    answer: str | int | float | None = None
    question: Annotated[str, Field(pattern=r"\S")] | None = None
    mean_logprob: float | None = None
    logprobs: list[float] | None = None
    answer_from: NonNegativeInt = 0


@dataclass(frozen=True, slots=True)
class SamplePool:
    """The paths of one question.

    Attributes:
        question: The question; None if the rows have none.
        kind: Kind of its answers.
        paths: Its paths, in the order of the rows.
        lines: Line number of each in the file, from 1.
    """

    question: str | None
    kind: ResolvedKind
    paths: tuple[Path, ...]
    lines: tuple[int, ...]


def read_bytes(file: FilePath) -> bytes:
    """A file's content.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as e:
        raise DataError(f"cannot read {file}: {e.strerror}", hint="name a file of JSON lines, or - for input") from e


def read_pools(content: bytes, name: str, kind: AnswerKind = "auto") -> list[SamplePool]:
    """The questions of a file with their paths, in the order of their first rows.

    A row is a JSON object with `text`; `answer` (if missing or null it is extracted from the text; an empty string
    means no answer); `mean_logprob`, or `logprobs`, the list of its tokens' log-probabilities, or neither; with
    `logprobs` perhaps `answer_from`, the index of the first token after the thought, from which on they count; and
    `question`, in all rows or in none. Other fields are ignored.

    Args:
        content: UTF-8 text, one row a line; empty lines are ignored.
        name: Name of the file in errors.
        kind: Kind of the answers; "auto" is inferred from the question, and without one is "math", which accepts
            numbers, formulas, and text after an answer marker.

    Raises:
        DataError: There is no row, or one is invalid; names the line.
    """
    rows: dict[str | None, list[tuple[int, Path]]] = {}
    kinds: dict[str | None, ResolvedKind] = {}
    for line in json_lines(content, name):
        try:
            row = _read_row(line.values)
            if rows and (row.question is None) != (None in rows):
                raise DataError("only some rows have the field 'question'", hint="give it in all rows or in none")
            if row.question not in kinds:
                rows[row.question] = []
                kinds[row.question] = _resolved(row.question, kind)
            rows[row.question].append((line.number, _path(row, kinds[row.question])))
        except DataError as e:
            raise DataError(f"{line.where}: {e.message}", hint=e.hint) from e
    if not rows:
        raise DataError(f"{name} contains no sample", hint='one JSON object per line, such as {"text": "…"}')
    return [
        SamplePool(
            question, kinds[question], tuple(path for _, path in numbered), tuple(number for number, _ in numbered)
        )
        for question, numbered in rows.items()
    ]


def _resolved(question: str | None, kind: AnswerKind) -> ResolvedKind:
    if question is None:
        return "math" if kind == "auto" else kind
    return answer_kind(Question(text=question, kind=kind))


def _read_row(values: Mapping[str, JsonValue]) -> _Row:
    try:
        return _Row.model_validate(values)
    except ValidationError as e:
        first = e.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"the field '{field}': {first['msg']}", hint=f"the record has: {', '.join(values)}") from e


def _path(row: _Row, kind: ResolvedKind) -> Path:
    answer = _answer(row, kind)
    if row.mean_logprob is not None or row.logprobs is None:
        return Path(row.text, answer, row.mean_logprob)
    if row.answer_from and row.answer_from >= len(row.logprobs):
        raise DataError(f"the field 'answer_from' is {row.answer_from}, there are {len(row.logprobs)} logprobs")
    return Path.from_logprobs(row.text, answer, row.logprobs[row.answer_from :])


def _answer(row: _Row, kind: ResolvedKind) -> str | None:
    if row.answer is not None:
        answer = str(row.answer)
        return answer if answer.strip() else None
    if kind == "choice":
        raise DataError(
            "the field 'answer' is missing, and an option cannot be extracted without the list of options",
            hint="give the letter as 'answer'",
        )
    extracted = extract_answer(row.text, Question(text=row.question or _UNKNOWN_QUESTION, kind=kind))
    return None if extracted is None else extracted.value


def vote_record(pool: SamplePool, result: Vote) -> dict[str, Any]:
    """A vote as a JSON object, whose `paths` are line numbers; numbers that are not finite are null."""
    return {
        **({} if pool.question is None else {"question": pool.question}),
        "answer": result.answer,
        "confidence": _finite(result.confidence),
        "method": result.method_used,
        "classes": [
            {"answer": voted.answer, "confidence": _finite(voted.confidence), "paths": lines_of(pool, voted.members)}
            for voted in result.classes
        ],
        "ties": len(result.ties),
        "pruned": lines_of(pool, result.pruned),
        "unparsed": result.unparsed,
        "fit": None if result.fit is None else result.fit.diagnostics(),
        "degraded": list(result.degraded),
    }


def lines_of(pool: SamplePool, positions: Sequence[int]) -> list[int]:
    """Line numbers of paths."""
    return [pool.lines[i] for i in positions]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


async def vote_on_pools(pools: Sequence[SamplePool], method: Method, parity: Parity = "none") -> list[Vote]:
    """One vote for each question.

    Raises:
        UnknownName: There is no such method.
    """
    votes = []
    async with Equivalence() as equivalence:
        for pool in pools:
            classes = await equivalence.group([path.answer for path in pool.paths], pool.kind)
            votes.append(vote(pool.paths, classes, method, parity))
    return votes
