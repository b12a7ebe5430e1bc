"""The files that say which problems a training has: all with their halves, and the held-out ones to evaluate on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue, ValidationError

from ...core.errors import DataError
from ...core.messages import Frozen
from ..folder import write_whole
from ..items import ChoiceGold, Item, LabelGold, MathGold, TextGold
from .problems import Halves, Problem

Key = tuple[str, str]


class ProblemLine(Frozen):
    """A line of `problems.jsonl`.

    Attributes:
        dataset: Where the question is from.
        item: Its name there.
        digest: Digest of its text, which decides the half.
        half: "training" or "held-out".
        direct: Whether the direct answer was right; None where nobody asked.
        trained_on: Whether episodes are about it.
    """

    dataset: str
    item: str
    digest: str
    half: str
    direct: bool | None = None
    trained_on: bool = False


def write_problems(path: Path, halves: Halves, direct: Mapping[Key, bool], chosen: Sequence[Problem]) -> None:
    """Note all problems.

    Raises:
        StoreError: It cannot be written.
    """
    trained = {problem.key for problem in chosen}
    lines = [
        ProblemLine(
            dataset=problem.dataset,
            item=problem.item.id,
            digest=problem.digest,
            half=half,
            direct=direct.get(problem.key),
            trained_on=problem.key in trained,
        )
        for half, problems in (("training", halves.training), ("held-out", halves.held_out))
        for problem in problems
    ]
    write_whole(path, "".join(line.model_dump_json() + "\n" for line in lines))


def read_problems(path: Path, halves: Halves) -> tuple[Problem, ...] | None:
    """The problems that a training was about; None if that was not decided yet.

    Raises:
        DataError: The file is damaged, or not of these problems.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror}") from e
    try:
        lines = [ProblemLine.model_validate_json(line) for line in raw.split(b"\n") if line]
    except ValidationError as e:
        raise DataError(f"{path} is damaged", hint="train anew in another folder") from e
    known = {problem.key: problem for problem in halves.training}
    wanted = [line for line in lines if line.trained_on]
    if not wanted or any((line.dataset, line.item) not in known for line in wanted):
        raise DataError(f"{path} is not of the questions of this training", hint="train anew in another folder")
    return tuple(known[line.dataset, line.item] for line in wanted)


def write_held_out(path: Path, problems: Sequence[Problem]) -> None:
    """Write the held-out problems as a dataset of one's own, which `reason eval` reads.

    Raises:
        StoreError: It cannot be written.
    """
    records = [own_record(problem) for problem in problems]
    write_whole(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def own_record(problem: Problem) -> dict[str, JsonValue]:
    """A problem as a line of a dataset of one's own (`datasets.own`)."""
    item = problem.item
    question = item.question
    record: dict[str, JsonValue] = {
        "id": f"{problem.dataset}/{item.id}",
        "question": question.text,
        "answer": _answer(item),
    }
    if question.choices:
        record["choices"] = list(question.choices)
    elif question.kind != "auto":
        record["answer_kind"] = question.kind
    if question.documents:
        record["documents"] = [{"name": d.name, "text": d.text} for d in question.documents]
    if item.subject:
        record["subject"] = item.subject
    if item.group:
        record["group"] = item.group
    return record


def _answer(item: Item) -> JsonValue:
    """The right answer as a dataset of one's own has it: with choices a position, else all that counts."""
    gold = item.gold
    if item.gold_positions and item.question.choices:
        return item.gold_positions[0]
    match gold:
        case MathGold():
            answers = (gold.answer, *gold.equivalents)
        case TextGold():
            answers = gold.answers
        case LabelGold():
            answers = (gold.label,)
        case ChoiceGold():
            answers = tuple(item.question.choices[i] for i in gold.correct)
        case _:
            return ""
    return list(answers) if len(answers) > 1 else answers[0]
