"""Pools of recorded samples: import from other formats, and summaries (`reason pool`).

Formats of a source:

    jsonl     a JSON object a line, whose fields a map may rename
    lm-eval   `samples_*.jsonl` of lm-evaluation-harness with `--log_samples`, or their directory
    inspect   a log of Inspect: `.eval`, or its `.json` form
    run       the directory of an evaluation (`reason eval`), whose run store has the samples
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Final, Literal, cast, get_args

from pydantic import JsonValue, ValidationError

from ..core.errors import DataError, UserError
from ..core.files import question_digest
from ..core.messages import Completion
from ..core.store import open_store
from ..core.types import AnswerKind, Question
from ..reasoning.answers.equivalence import equal_without_algebra
from ..reasoning.candidates import read_answer
from ..reasoning.prompts import LETTERS
from ..serving.recorded.pool import Pool, PoolSample, first_error
from .datasets.custom import parse_map
from .datasets.items import ChoiceGold, Dataset, LabelGold, MathGold, TextGold
from .datasets.records import Record, read_file
from .results import ResultRow
from .run_directory import MANIFEST, StoredRun, load_run, run_store_path

SourceFormat = Literal["jsonl", "lm-eval", "inspect", "run"]

Fields = dict[str, Any]
"""Fields of a sample before they are checked, and `where` they come from."""

FIELDS: Final = tuple(PoolSample.model_fields)
"""What a map may name."""

FORMATS: Final = get_args(SourceFormat)

_TEXTS: Final = ("model", "dataset", "question_id", "gold", "answer")
"""Fields whose numbers are written as text."""

_TEMPLATE = re.compile(r"\{([^{}]+)\}")
_LM_EVAL_NAME = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d\d-\d\dT[\d.-]+)?\.jsonl")
_LM_EVAL_QUESTIONS = ("question", "problem", "query", "input", "prompt")
_LM_EVAL_OPTIONS = ("options", "choices")
_LM_EVAL_UNREAD = ("[invalid]", "")
_INSPECT_RIGHT: Final[Mapping[Any, bool]] = {"C": True, "I": False, 1: True, 0: False}
_FINISH_REASONS: Final = {"stop": "stop", "max_tokens": "length", "model_length": "length", "length": "length"}


@dataclass(frozen=True)
class ImportOptions:
    """How sources are read.

    Attributes:
        source_format: Their format; None is the one that each looks like.
        mapping: Where fields of a sample come from: a field's dotted path, or a text with paths in braces
            (`model={model}-{temperature}`).
        model: Name of the model of every sample; empty takes the source's.
        dataset: Name of the dataset of every sample; empty takes the source's.
        only: Values that fields of a record must have, as texts; others are left out.
        lm_eval_filter: Which filter's answers of lm-evaluation-harness are taken; empty is the first.
        questions: Dataset that has the texts and right answers that the source lacks, by question id.
    """

    source_format: SourceFormat | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    dataset: str = ""
    only: Mapping[str, str] = field(default_factory=dict)
    lm_eval_filter: str = ""
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
        UserError: A source is of no known format, or an option is invalid.
    """
    records: list[Fields] = []
    for source in sources:
        source_format = options.source_format or detect_format(source)
        if source_format == "run":
            records += await _read_run(source)
        else:
            records += _READERS[source_format](source, options)
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


def detect_format(source: Path) -> SourceFormat:
    """The format that a source looks like.

    Raises:
        UserError: It looks like none.
        DataError: It cannot be read.
    """
    if source.is_dir():
        if (source / MANIFEST).is_file():
            return "run"
        if any(source.glob("samples_*.jsonl")):
            return "lm-eval"
        raise UserError(f"{source} is no evaluation", hint=f"a directory with {MANIFEST}, or with samples_*.jsonl")
    if source.suffix == ".eval":
        return "inspect"
    if source.suffix == ".json":
        return "inspect"
    if source.name.endswith((".jsonl", ".jsonl.gz", ".csv")):
        first = next(read_file(source), None)
        is_lm_eval = first is not None and {"doc_id", "resps", "filtered_resps"} <= set(first.values)
        return "lm-eval" if is_lm_eval else "jsonl"
    raise UserError(f"{source} is of no known format", hint="--format " + ", ".join(FORMATS) + " says which")


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


# -- lm-evaluation-harness


def _read_lm_eval(source: Path, options: ImportOptions) -> Iterator[Fields]:
    paths = sorted(source.glob("samples_*.jsonl")) if source.is_dir() else [source]
    for path in paths:
        name = _LM_EVAL_NAME.fullmatch(path.name)
        model = options.model or _lm_eval_model(path)
        chosen = options.lm_eval_filter
        filters: set[str] = set()
        for record in read_file(path):
            own = record.optional("filter") or "none"
            filters.add(own)
            chosen = chosen or own
            if own == chosen:
                yield from _lm_eval_samples(record, model, name["task"] if name else path.stem, options.mapping)
        if chosen not in filters:
            raise UserError(
                f"{path} has no filter {chosen!r}", hint=f"--filter {' or '.join(sorted(filters)) or 'is not needed'}"
            )


def _lm_eval_model(path: Path) -> str:
    """The model of a log: as the results beside it state, else the name of its directory."""
    for results in sorted(path.parent.glob("results_*.json"), reverse=True):
        try:
            model = json.loads(results.read_text(encoding="utf-8")).get("model_name")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(model, str) and model:
            return model
    return path.resolve().parent.name


def _lm_eval_samples(record: Record, model: str, task: str, mapping: Mapping[str, str]) -> Iterator[Fields]:
    doc: Any = record.value("doc")
    responses: Any = record.value("resps")
    filtered: Any = record.value("filtered_resps")
    texts = responses[0] if isinstance(responses, list) and responses else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise record.bad(
            "its responses are no texts: the task compares log-likelihoods and samples nothing",
            hint="import a task that generates",
        )
    document = doc if isinstance(doc, dict) else {}
    question = next((document[n] for n in _LM_EVAL_QUESTIONS if isinstance(document.get(n), str)), None)
    if question is None:
        question = _lm_eval_prompt(record)
    shown: list[Any] = next((document[n] for n in _LM_EVAL_OPTIONS if isinstance(document.get(n), list)), [])
    choices = tuple(str(option) for option in shown)
    answers = filtered[0] if isinstance(filtered, list) and filtered else None
    if isinstance(answers, str) and len(texts) == 1:
        answers = [answers]
    common: Fields = {
        "model": model,
        "dataset": task,
        "question_id": str(record.value("doc_id")),
        "question": None if question is None else with_options(question, choices),
        "gold": _lm_eval_gold(record, choices),
        **_mapped(record, mapping),
        "where": record.where,
    }
    for i, text in enumerate(texts):
        fields = {**common, "text": text}
        if isinstance(answers, list) and len(answers) == len(texts) and "answer" not in mapping:
            answer = answers[i]
            fields["answer"] = None if str(answer).strip() in _LM_EVAL_UNREAD else str(answer).strip()
        if len(texts) == 1:
            fields["correct"] = _lm_eval_correct(record)
        yield fields


def _lm_eval_prompt(record: Record) -> str | None:
    arguments = record.values.get("arguments")
    first = arguments.get("gen_args_0") if isinstance(arguments, dict) else None
    prompt = first.get("arg_0") if isinstance(first, dict) else None
    return prompt if isinstance(prompt, str) else None


def _lm_eval_gold(record: Record, choices: Sequence[str]) -> str | None:
    target = record.values.get("target")
    if isinstance(target, list):
        target = target[0] if target else None
    if target is None:
        return None
    text = str(target)
    if choices and text.isdigit() and int(text) < len(choices):
        return LETTERS[int(text)]
    if "####" in text:  # a solution with its answer after it, as in GSM8K
        return text.rpartition("####")[2].strip().replace(",", "")
    return text.strip()


def _lm_eval_correct(record: Record) -> bool | None:
    metrics = record.values.get("metrics")
    names = [name for name in metrics if isinstance(name, str)] if isinstance(metrics, list) else []
    values = [record.values.get(name) for name in names]
    return next((bool(value) for value in values if value in (0, 1)), None)


# -- Inspect


def _read_inspect(source: Path, options: ImportOptions) -> Iterator[Fields]:
    header, samples = _inspect_log(source)
    evaluation = header.get("eval") if isinstance(header, dict) else None
    if not isinstance(evaluation, dict):
        raise DataError(f"{source} is no log of Inspect: it has no field 'eval'")
    model, task = str(evaluation.get("model", "")), str(evaluation.get("task", "")).rpartition("/")[2]
    for where, sample in samples:
        record = Record(sample, where, 1)
        fields = _inspect_sample(record)
        if fields is not None:
            yield {"model": model, "dataset": task, **fields, **_mapped(record, options.mapping), "where": where}


def _inspect_log(source: Path) -> tuple[Any, list[tuple[str, dict[str, Any]]]]:
    """Header and samples of a log, those of a question in the order of their epochs."""
    try:
        if source.suffix == ".json":
            log = json.loads(source.read_bytes())
            header, samples = log, [(f"{source} sample {i}", s) for i, s in enumerate(log.get("samples") or [], 1)]
        else:
            with zipfile.ZipFile(source) as archive:
                header = json.loads(archive.read("header.json"))
                names = [n for n in archive.namelist() if n.startswith("samples/") and n.endswith(".json")]
                samples = [(f"{source} {name}", json.loads(archive.read(name))) for name in names]
    except FileNotFoundError as e:
        raise DataError(f"there is no log {source}") from e
    except NotImplementedError:  # by zipfile: a compression that it does not know
        return _inspect_log_by_package(source)
    except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as e:
        raise DataError(
            f"{source} is no complete log of Inspect: {e}", hint="a finished .eval or .json log is needed"
        ) from e
    return header, sorted(samples, key=lambda s: (str(s[1].get("id")), int(s[1].get("epoch", 1))))


def _inspect_log_by_package(source: Path) -> tuple[Any, list[tuple[str, dict[str, Any]]]]:
    """The same through Inspect itself, for logs in a compression that Python's zip reader lacks."""
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as e:
        raise DataError(
            f"{source} is compressed in a way that Python {'.'.join(map(str, _python()))} cannot read",
            hint="install inspect-ai, or convert it: inspect log convert --to json",
        ) from e
    log = read_eval_log(str(source)).model_dump(mode="json")
    samples = [(f"{source} sample {i}", s) for i, s in enumerate(log.get("samples") or [], 1)]
    return log, sorted(samples, key=lambda s: (str(s[1].get("id")), int(s[1].get("epoch", 1))))


def _python() -> tuple[int, int]:
    import sys

    return sys.version_info[:2]


def _inspect_sample(record: Record) -> Fields | None:
    """The fields of a sample; None if the model answered nothing."""
    values: dict[str, Any] = dict(record.values)
    output = values.get("output") or {}
    choices = output.get("choices") or []
    if not choices:
        return None
    choice, usage = choices[0], output.get("usage") or {}
    options = tuple(str(option) for option in values.get("choices") or ())
    target = values.get("target")
    fields: Fields = {
        "question_id": str(record.value("id")),
        "question": with_options(_inspect_question(values.get("input")), options),
        "gold": str(target[0] if isinstance(target, list) else target) if target else None,
        "text": _inspect_text((choice.get("message") or {}).get("content")),
        "finish_reason": _FINISH_REASONS.get(choice.get("stop_reason")),
    }
    for score in (values.get("scores") or {}).values():
        answer, value = score.get("answer"), score.get("value")
        if isinstance(answer, str):
            fields["answer"] = answer.strip() or None
        if not isinstance(value, list | dict) and value in _INSPECT_RIGHT:
            fields["correct"] = _INSPECT_RIGHT[value]
        break
    if usage:
        cached = (usage.get("input_tokens_cache_read") or 0) + (usage.get("input_tokens_cache_write") or 0)
        fields["prompt_tokens"] = (usage.get("input_tokens") or 0) + cached
        fields["completion_tokens"] = usage.get("output_tokens")
        fields["thinking_tokens"] = usage.get("reasoning_tokens")
        fields["usd"] = usage.get("total_cost")
    logprobs = [token["logprob"] for token in (choice.get("logprobs") or {}).get("content") or []]
    if logprobs and len(logprobs) == fields.get("completion_tokens", len(logprobs)):
        fields["token_logprobs"] = logprobs
    elif logprobs:
        fields["mean_logprob"] = fmean(logprobs)
    return fields


def _inspect_question(value: Any) -> str:
    """The last message of the user."""
    if isinstance(value, str):
        return value
    messages = [m for m in value or [] if isinstance(m, dict) and m.get("role") == "user"]
    return _inspect_text(messages[-1].get("content")) if messages else ""


def _inspect_text(content: Any) -> str:
    """The text of a message, without what the model thought."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or [] if part.get("type") == "text")


_READERS: Final[Mapping[SourceFormat, Callable[[Path, ImportOptions], Iterator[Fields]]]] = {
    "jsonl": _read_jsonl,
    "lm-eval": _read_lm_eval,
    "inspect": _read_inspect,
}


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


def reads_differently(sample: PoolSample) -> bool:
    """Whether the project reads another answer from a sample's recorded text than the source did."""
    if sample.text is None:
        return False
    question = Question(text=sample.question_text)
    read = read_answer(sample.text, question, is_cut=sample.finish_reason == "length")
    if read is None or sample.answer is None:
        return (read is None) != (sample.answer is None)
    return equal_without_algebra(read.value, sample.answer, "auto") is False
