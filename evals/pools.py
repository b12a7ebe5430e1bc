"""Pools of recorded samples: import from other formats, and summaries (`reason pool`).

A source is a file with a JSON object a line (or CSV), whose fields a map may rename; or the directory of an evaluation
(`reason eval`), whose run store has the samples. Logs of lm-evaluation-harness are such files:
`--map question_id=doc_id,question=doc.question,text=resps.0.0,answer=filtered_resps.0,gold=target`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Final, cast

from pydantic import JsonValue, ValidationError

from ..core.errors import DataError, UserError
from ..core.files import question_digest
from ..core.messages import Completion
from ..core.store import open_store
from ..core.types import AnswerKind, Question
from ..reasoning.answers.equivalence import equal_without_algebra
from ..reasoning.answers.extraction import read_answer
from ..reasoning.prompts import LETTERS
from ..serving.recorded.pool import Pool, PoolSample, first_error
from .datasets.custom import parse_map
from .datasets.items import ChoiceGold, Dataset, LabelGold, MathGold, TextGold
from .datasets.records import Record, read_file
from .results import ResultRow
from .run_directory import MANIFEST, StoredRun, load_run, run_store_path

Fields = dict[str, Any]
"""Fields of a sample before they are checked, and `where` they come from."""

FIELDS: Final = tuple(PoolSample.model_fields)
"""What a map may name."""

_TEXTS: Final = ("model", "dataset", "question_id", "gold", "answer")
"""Fields whose numbers are written as text."""

_TEMPLATE = re.compile(r"\{([^{}]+)\}")
_FINISH_REASONS: Final = {"stop": "stop", "max_tokens": "length", "model_length": "length", "length": "length"}


@dataclass(frozen=True)
class ImportOptions:
    """How sources are read.

    Attributes:
        mapping: Where fields of a sample come from: a field's dotted path, or a text with paths in braces
            (`model={model}-{temperature}`).
        model: Name of the model of every sample; empty takes the source's.
        dataset: Name of the dataset of every sample; empty takes the source's.
        only: Values that fields of a record must have, as texts; others are left out.
        questions: Dataset that has the texts and right answers that the source lacks, by question id.
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    dataset: str = ""
    only: Mapping[str, str] = field(default_factory=dict)
    questions: Dataset | None = None


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


async def import_pool(sources: Sequence[Path], options: ImportOptions) -> list[PoolSample]:
    """Read samples from files and directories of other formats.

    What a source does not state is completed: a missing answer is read from the text, as the project reads answers; a
    missing `correct` compares answer and right answer, and stays unknown where that needs algebra; missing sample
    numbers count the samples of a model and question in the order of the sources.

    Raises:
        DataError: A source cannot be read, or a record makes no sample; names file and line.
        UserError: An option is invalid.
    """
    records: list[Fields] = []
    for source in sources:
        if (source / MANIFEST).is_file():
            records += await _read_run(source)
        else:
            records += _read_jsonl(source, options)
    if not records:
        raise DataError(f"{', '.join(map(str, sources))}: there is no sample in it")
    _require_shared_questions(records, options.questions)
    counts: dict[tuple[str, str, str], int] = {}
    names: dict[tuple[str, str, str, int], str] = {}
    samples = []
    for fields in records:
        where = fields.pop("where")
        try:
            sample = PoolSample.model_validate(_completed(fields, options, counts))
        except ValidationError as e:
            raise DataError(f"{where}: {first_error(e)}", hint="--map NAME=FIELD names another field") from e
        named = (sample.model, *sample.key, sample.sample)
        if names.setdefault(named, where) != where:
            raise DataError(
                f"{where}: sample {sample.sample} of {sample.model} on {sample.dataset}:{sample.question_id} is that "
                f"of {names[named]} already",
                hint="tell them apart by the model's name: --map model={model}-{temperature}",
            )
        samples.append(sample)
    return samples


def _require_shared_questions(records: Sequence[Fields], questions: Dataset | None) -> None:
    """Refuse a dataset that has none of the samples' questions."""
    if questions is None or any(str(fields.get("question_id")) in questions.by_id for fields in records):
        return
    raise DataError(
        f"no sample is of a question of {questions.name}: its ids are like {questions.items[0].id!r}, those of the "
        f"samples like {str(records[0].get('question_id'))!r}",
        hint="--map question_id=… names the field with the id",
    )


def _completed(fields: Fields, options: ImportOptions, counts: dict[tuple[str, str, str], int]) -> Fields:
    """The fields of a sample with what the source does not state."""
    fields = {name: value for name, value in fields.items() if name in FIELDS or name == "truncated"}
    fields |= {name: own for name, own in (("model", options.model), ("dataset", options.dataset)) if own}
    for name in _TEXTS:
        value = fields.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            fields[name] = str(value)
    text = fields.get("question")
    if fields.get("question_id") is None and isinstance(text, str):
        fields["question_id"] = question_digest(text)
    item = None if options.questions is None else options.questions.by_id.get(str(fields.get("question_id")))
    if item is not None:
        if fields.get("question") is None:
            fields["question"] = with_options(item.question.text, item.question.choices)
        if fields.get("gold") is None:
            fields["gold"] = gold_text(item.gold)
    key = (str(fields.get("model")), str(fields.get("dataset")), str(fields.get("question_id")))
    number = counts.get(key, 0)
    counts[key] = number + 1
    if fields.get("sample") is None:
        fields["sample"] = number
    question = Question(text=fields.get("question") or ":".join(key[1:]))
    if "answer" not in fields and isinstance(fields.get("text"), str):
        read = read_answer(
            fields["text"], question, is_cut=fields.get("finish_reason") == "length" or fields.get("truncated") is True
        )
        fields["answer"] = None if read is None else read.value
    answer, gold = fields.get("answer"), fields.get("gold")
    if fields.get("correct") is None and isinstance(gold, str):
        fields["correct"] = False if answer is None else equal_without_algebra(str(answer), gold, "auto")
    return fields


def with_options(question: str, choices: Sequence[str]) -> str:
    """A question with its options, as the project's prompts show them."""
    if not choices:
        return question
    return question + "\n\n" + "\n".join(f"{letter}) {c}" for letter, c in zip(LETTERS, choices, strict=False))


def gold_text(gold: object) -> str | None:
    """A right answer as an answer is written: a letter, a number, a text; None if it is no such thing."""
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


# -- JSON lines


def _read_jsonl(source: Path, options: ImportOptions) -> Iterator[Fields]:
    for record in read_file(source):
        if any(_as_text(record.values.get(name)) != value for name, value in options.only.items()):
            continue
        yield {**dict(record.values), **_mapped(record, options.mapping), "where": record.where}


def _as_text(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _mapped(record: Record, mapping: Mapping[str, str]) -> Fields:
    """The fields that a map names."""
    return {
        name: _TEMPLATE.sub(lambda match: str(_at(record, match[1])), path) if "{" in path else _at(record, path)
        for name, path in mapping.items()
    }


def _at(record: Record, path: str) -> Any:
    value: Any = dict(record.values)
    if path in value:
        return value[path]
    for part in path.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            known = ", ".join(sorted(record.values))
            raise record.bad(f"there is no field {path!r}, which --map names", hint=f"the record has: {known}")
    return value


# -- our own evaluations


async def _read_run(source: Path) -> list[Fields]:
    """The main model's samples of an evaluation: those of the most frequent prompt of each item and seed."""
    run = load_run(source)
    path = run_store_path(run)
    if isinstance(path, Path) and not path.exists():
        raise DataError(f"there is no run store {path}", hint="it was moved or removed; the rows have no samples")
    store = await open_store(path)
    records: list[Fields] = []
    try:
        for row in run.rows:
            calls = [c for c in await store.list_calls(row.run_id) if c.role == "main" and not c.truncated]
            by_prompt: dict[str, list[tuple[int, Completion]]] = {}
            for call in calls:
                sampled = call.request.get("request")
                if "finish_reason" not in call.response or not isinstance(sampled, dict) or "prompt" not in sampled:
                    continue
                prompt = json.dumps(sampled["prompt"], sort_keys=True)
                completion = Completion.model_validate(call.response)
                by_prompt.setdefault(prompt, []).append((completion.sample_index, completion))
            samples = max(by_prompt.values(), key=len, default=[])
            for _, completion in sorted(samples, key=lambda pair: pair[0]):
                records.append(_run_sample(run, row, completion))
    finally:
        await store.aclose()
    return records


def _run_sample(run: StoredRun, row: ResultRow, completion: Completion) -> Fields:
    gold = row.gold if isinstance(row.gold, dict) else {}
    kind = cast(AnswerKind, "choice" if row.choices else gold.get("kind") or "auto")
    usage = completion.usage
    question = Question(text=row.question, choices=row.choices, kind=kind)
    answer = read_answer(completion.text, question, is_cut=completion.finish_reason != "stop")
    correct = None
    if row.label is not None:
        correct = False if answer is None else equal_without_algebra(answer.value, row.label, kind)
    return {
        "model": row.models["main"],
        "dataset": run.manifest.plan.dataset.name,
        "question_id": row.id,
        "question": with_options(row.question, row.choices),
        "gold": row.label,
        "answer": None if answer is None else answer.value,
        "correct": correct,
        "text": completion.text,
        "completion_tokens": usage.completion_tokens,
        "thinking_tokens": usage.thinking_tokens or None,
        "prompt_tokens": usage.prompt_tokens or None,
        "token_logprobs": completion.logprobs if len(completion.logprobs or ()) == usage.completion_tokens else None,
        "finish_reason": _FINISH_REASONS.get(completion.finish_reason),
        "usd": usage.cost_usd,
        "where": f"{run.path} item {row.id}",
    }


# -- summaries


@dataclass(frozen=True)
class PoolSummary:
    """The samples of one model on one dataset.

    Attributes:
        questions: Number of questions.
        samples: Number of samples.
        min_samples: Fewest samples of a question.
        max_samples: Most samples of a question.
        accuracy: Mean share of right samples of a question, in [0, 1]; None if unknown.
        unread: Samples without an answer.
        cut: Samples that the source's limit cut.
        mean_tokens: Mean tokens of a sample; None if not recorded.
        max_tokens: Tokens of the longest sample.
        recorded: Optional fields that every sample has.
        partly_recorded: Optional fields that some samples have.
    """

    model: str
    dataset: str
    questions: int
    samples: int
    min_samples: int
    max_samples: int
    accuracy: float | None
    unread: int
    cut: int
    mean_tokens: float | None
    max_tokens: int | None
    recorded: tuple[str, ...]
    partly_recorded: tuple[str, ...]


_OPTIONAL: Final = (
    "question",
    "gold",
    "correct",
    "text",
    "completion_tokens",
    "thinking_tokens",
    "prompt_tokens",
    "mean_logprob",
    "token_logprobs",
    "finish_reason",
    "usd",
)


def summarize(pool: Pool) -> list[PoolSummary]:
    """What a pool has, by model and dataset, in the order of the file."""
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
    having = {name: sum(getattr(s, name) is not None for s in samples) for name in _OPTIONAL}
    return PoolSummary(
        model=model,
        dataset=dataset,
        questions=len(questions),
        samples=len(samples),
        min_samples=min(map(len, questions.values())),
        max_samples=max(map(len, questions.values())),
        accuracy=fmean(fmean(group) for group in judged if group) if any(judged) else None,
        unread=sum(s.answer is None for s in samples),
        cut=sum(s.finish_reason == "length" for s in samples),
        mean_tokens=fmean(tokens) if tokens else None,
        max_tokens=max(tokens, default=None),
        recorded=tuple(name for name, count in having.items() if count == len(samples)),
        partly_recorded=tuple(name for name, count in having.items() if 0 < count < len(samples)),
    )
