"""Pools of recorded samples: import from JSON Lines and CSV, and summaries (`reason pool`).

Logs of lm-evaluation-harness are such files:
`--map question_id=doc_id,question=doc.question,text=resps.0.0,answer=filtered_resps.0,gold=target`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from pydantic import ValidationError

from ..core.errors import DataError, UserError
from ..core.files import question_digest
from ..core.types import Question
from ..reasoning.answers.equivalence import equal_without_algebra
from ..reasoning.answers.extraction import read_answer
from ..reasoning.prompts import LETTERS, question_text
from ..serving.recorded.pool import Pool, PoolSample, first_error
from .datasets.custom import parse_map
from .datasets.items import ChoiceGold, Dataset, Item, LabelGold, MathGold, TextGold
from .datasets.records import read_file, rename_fields

FIELDS: Final = tuple(PoolSample.model_fields)
"""What a map may name."""
_TEXTS: Final = ("model", "dataset", "question_id", "gold", "answer")
"""Text fields, which sources may state as numbers."""


def parse_pool_map(text: str) -> dict[str, str]:
    """Read a map of fields: `answer=prediction,model={name}-{temperature}`.

    Raises:
        UserError: A part is no `NAME=FIELD`, or it names no field of a sample.
    """
    mapping = parse_map(text)
    unknown = next((name for name in mapping if name not in FIELDS), None)
    if unknown is not None:
        raise UserError(f"--map names {unknown!r}, which is no field of a sample", hint="one of " + ", ".join(FIELDS))
    return mapping


def import_pool(
    sources: Sequence[Path],
    *,
    mapping: Mapping[str, str] | None = None,
    model: str = "",
    dataset: str = "",
    questions: Dataset | None = None,
) -> list[PoolSample]:
    """Read samples from files of other formats.

    What a source does not state is completed: a missing answer is read from the text; a missing `correct` compares
    answer and right answer, and stays unknown if that needs algebra; missing sample numbers count the samples of a
    model and question in the order of the sources.

    Args:
        mapping: Fields of the source by the names of a sample's, as in `rename_fields`.
        model: Name of the model of every sample; empty takes the source's.
        dataset: Name of the dataset of every sample; empty takes the source's.
        questions: Dataset with the texts and right answers that the source lacks, by question id.

    Raises:
        DataError: A source cannot be read, or a record makes no sample; names file and line.
    """
    records = [r for source in sources for r in rename_fields(read_file(source), mapping or {})]
    if not records:
        raise DataError(f"{', '.join(map(str, sources))}: there is no sample in it")
    items = {} if questions is None else questions.by_id
    if questions is not None and not any(str(r.values.get("question_id")) in items for r in records):
        raise DataError(
            f"no sample is of a question of {questions.name}: its ids are like {questions.items[0].id!r}, those of the "
            f"samples like {str(records[0].values.get('question_id'))!r}",
            hint="--map question_id=… names the field with the id",
        )
    counts: dict[tuple[str, str, str], int] = {}
    places: dict[tuple[str, str, str, int], str] = {}
    samples = []
    for record in records:
        fields: dict[str, Any] = {n: v for n, v in record.values.items() if n in FIELDS or n == "truncated"}
        fields |= {name: own for name, own in (("model", model), ("dataset", dataset)) if own}
        _complete(fields, items, counts)
        try:
            sample = PoolSample.model_validate(fields)
        except ValidationError as e:
            raise DataError(f"{record.where}: {first_error(e)}", hint="--map NAME=FIELD names another field") from e
        key = (sample.model, *sample.key, sample.sample)
        if places.setdefault(key, record.where) != record.where:
            raise DataError(
                f"{record.where}: sample {sample.sample} of {sample.model} on {sample.dataset}:{sample.question_id} is "
                f"a duplicate of {places[key]}",
                hint="distinguish them by the model's name: --map model={model}-{temperature}",
            )
        samples.append(sample)
    return samples


def _complete(fields: dict[str, Any], items: Mapping[str, Item], counts: dict[tuple[str, str, str], int]) -> None:
    """Add the fields of a sample that the source does not state."""
    for name in _TEXTS:
        value = fields.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            fields[name] = str(value)
    text = fields.get("question")
    if fields.get("question_id") is None and isinstance(text, str):
        fields["question_id"] = question_digest(text)
    item = items.get(str(fields.get("question_id")))
    if item is not None:
        if fields.get("question") is None:
            fields["question"] = question_text(Question(text=item.question.text, choices=item.question.choices))
        if fields.get("gold") is None:
            fields["gold"] = _gold_text(item.gold)
    key = (str(fields.get("model")), str(fields.get("dataset")), str(fields.get("question_id")))
    number = counts.get(key, 0)
    counts[key] = number + 1
    if fields.get("sample") is None:
        fields["sample"] = number
    if "answer" not in fields and isinstance(fields.get("text"), str):
        question = Question(text=fields.get("question") or ":".join(key[1:]))
        is_cut = fields.get("finish_reason") == "length" or fields.get("truncated") is True
        read = read_answer(fields["text"], question, is_cut=is_cut)
        fields["answer"] = None if read is None else read.value
    answer, gold = fields.get("answer"), fields.get("gold")
    if fields.get("correct") is None and isinstance(gold, str):
        fields["correct"] = False if answer is None else equal_without_algebra(str(answer), gold, "auto")


def _gold_text(gold: object) -> str | None:
    """A right answer as an answer is written: a letter, a number, a text; None for other golds."""
    match gold:
        case MathGold(answer=answer):
            return answer
        case TextGold(answers=answers):
            return answers[0]
        case ChoiceGold(correct=correct, rule="one"):
            return LETTERS[correct[0]]
        case LabelGold(label=label, shown=shown):
            return LETTERS[shown.index(label)] if label in shown else label
    return None


@dataclass(frozen=True)
class PoolSummary:
    """The samples of one model on one dataset.

    Attributes:
        min_samples: Fewest samples of a question.
        max_samples: Most samples of a question.
        accuracy: Mean share of right samples of a question, in [0, 1]; None if unknown.
        unparsed: Samples without an answer.
        cut: Samples cut by a limit of the source.
        mean_tokens: Mean tokens of a sample; None if not recorded.
        max_tokens: Tokens of the longest sample.
        recorded: Optional fields that every sample has.
    """

    model: str
    dataset: str
    questions: int
    samples: int
    min_samples: int
    max_samples: int
    accuracy: float | None
    unparsed: int
    cut: int
    mean_tokens: float | None
    max_tokens: int | None
    recorded: tuple[str, ...]


_OPTIONAL: Final = tuple(name for name in FIELDS if name not in ("model", "dataset", "question_id", "sample", "answer"))


def summarize(pool: Pool) -> list[PoolSummary]:
    """Summarize a pool by model and dataset, in the order of the file."""
    groups: dict[tuple[str, str], list[PoolSample]] = {}
    for sample in pool.samples:
        groups.setdefault((sample.model, sample.dataset), []).append(sample)
    return [_summary(model, dataset, samples) for (model, dataset), samples in groups.items()]


def _summary(model: str, dataset: str, samples: Sequence[PoolSample]) -> PoolSummary:
    questions: dict[str, list[PoolSample]] = {}
    for sample in samples:
        questions.setdefault(sample.question_id, []).append(sample)
    judged = [[s.correct for s in group if s.correct is not None] for group in questions.values()]
    tokens = [s.num_tokens for s in samples if s.num_tokens is not None]
    return PoolSummary(
        model=model,
        dataset=dataset,
        questions=len(questions),
        samples=len(samples),
        min_samples=min(map(len, questions.values())),
        max_samples=max(map(len, questions.values())),
        accuracy=fmean(fmean(group) for group in judged if group) if any(judged) else None,
        unparsed=sum(s.answer is None for s in samples),
        cut=sum(s.finish_reason == "length" for s in samples),
        mean_tokens=fmean(tokens) if tokens else None,
        max_tokens=max(tokens, default=None),
        recorded=tuple(name for name in _OPTIONAL if all(getattr(s, name) is not None for s in samples)),
    )
