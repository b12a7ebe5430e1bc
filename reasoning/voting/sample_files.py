"""Sample files: JSON lines of samples generated elsewhere, of one or several questions, and votes over them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final, get_args

from pydantic import JsonValue

from ...core.errors import DataError, UnknownName
from ...core.files import json_lines
from ...core.registry import nearest
from ...core.types import AnswerKind, Question
from ..answers.equivalence import Equivalence
from ..answers.extraction import ResolvedKind, answer_kind, extract_answer
from .path_votes import Method, Parity, Path, Vote, vote

KINDS: Final[tuple[AnswerKind, ...]] = get_args(AnswerKind)

_UNKNOWN_QUESTION = "?"


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


def parse_kind(name: str) -> AnswerKind:
    """The kind of answers of a name.

    Raises:
        UnknownName: There is none.
    """
    for kind in KINDS:
        if kind == name:
            return kind
    raise UnknownName("kind of answers", name, nearest(name, KINDS), hint="one of " + ", ".join(KINDS))


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
        question = _question(line.values, line.where)
        if rows and (question is None) != (None in rows):
            raise DataError(
                f"{line.where}: only some rows have the field 'question'", hint="give it in all rows or in none"
            )
        if question not in rows:
            rows[question] = []
            kinds[question] = _resolved(question, kind)
        rows[question].append((line.number, _path(line.values, line.where, question, kinds[question])))
    if not rows:
        raise DataError(f"{name} contains no sample", hint='one JSON object per line, such as {"text": "…"}')
    return [
        SamplePool(
            question, kinds[question], tuple(path for _, path in numbered), tuple(number for number, _ in numbered)
        )
        for question, numbered in rows.items()
    ]


def _question(row: Mapping[str, JsonValue], where: str) -> str | None:
    value = row.get("question")
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: the field 'question' is {_shown(value)}, expected a non-empty string")
    return value


def _resolved(question: str | None, kind: AnswerKind) -> ResolvedKind:
    if question is None:
        return "math" if kind == "auto" else kind
    return answer_kind(Question(text=question, kind=kind))


def _path(row: Mapping[str, JsonValue], where: str, question: str | None, kind: ResolvedKind) -> Path:
    if row.get("text") is None:
        known = ", ".join(sorted(row)) or "none"
        raise DataError(f"{where}: the field 'text' is missing", hint=f"the record has: {known}")
    text = row["text"]
    if not isinstance(text, str):
        raise DataError(f"{where}: the field 'text' is {_shown(text)}, expected a string")
    answer = _answer(row, where, text, question, kind)
    mean, logprobs = row.get("mean_logprob"), row.get("logprobs")
    try:
        if mean is not None:
            return Path(text, answer, _number(mean, "mean_logprob"))
        if logprobs is None:
            return Path(text, answer)
        if not isinstance(logprobs, list):
            raise DataError(f"the field 'logprobs' is {_shown(logprobs)}, expected a list of numbers")
        start = row.get("answer_from", 0)
        if isinstance(start, bool) or not isinstance(start, int) or not 0 <= start < max(1, len(logprobs)):
            raise DataError(
                f"the field 'answer_from' is {_shown(start)}, expected the index of one of {len(logprobs)} logprobs"
            )
        values = [_number(v, f"logprobs[{i}]") for i, v in enumerate(logprobs)]
        return Path.from_logprobs(text, answer, values[start:])
    except DataError as e:
        raise DataError(f"{where}: {e.message}", hint=e.hint) from e


def _answer(
    row: Mapping[str, JsonValue], where: str, text: str, question: str | None, kind: ResolvedKind
) -> str | None:
    answer = row.get("answer")
    if isinstance(answer, str):
        return answer if answer.strip() else None
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return str(answer)
    if answer is not None:
        raise DataError(f"{where}: the field 'answer' is {_shown(answer)}, expected a string")
    if kind == "choice":
        raise DataError(
            f"{where}: the field 'answer' is missing, and an option cannot be extracted without the list of options",
            hint="give the letter as 'answer'",
        )
    extracted = extract_answer(text, Question(text=question or _UNKNOWN_QUESTION, kind=kind))
    return None if extracted is None else extracted.value


def _number(value: JsonValue, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"the field '{name}' is {_shown(value)}, expected a number")
    try:
        return float(value)
    except OverflowError:
        raise DataError(f"the field '{name}' is {_shown(value)}, too large") from None


def _shown(value: JsonValue) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


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
