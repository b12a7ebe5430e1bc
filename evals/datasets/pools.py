"""The questions of a pool of recorded samples as a dataset: `reason eval pool --data POOL -m recorded/POOL:MODEL`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast, get_args

from pydantic import ValidationError

from ...core.errors import UserError
from ...core.types import AnswerKind, Question
from ...reasoning.answers.calls import normalized_calls
from ...reasoning.answers.normalization import parse_numeral
from ...serving.recorded.pool import PoolSample, QuestionKey, first_error
from .custom import plain_gold
from .items import CallsGold, Item, RunsGold, run_digest
from .records import Record
from .spec import DatasetSpec, ReadOptions

_KINDS = tuple(kind for kind in get_args(AnswerKind) if kind != "choice")


def _read(rows: Iterator[Record], reading: ReadOptions) -> Iterator[Item]:
    kind, dataset = reading.options.get("kind", "auto"), reading.options.get("dataset")
    if kind not in _KINDS:
        raise UserError(
            f"unknown kind of answer {kind!r}",
            hint=f"one of {', '.join(_KINDS)}; options of a recorded question are part of its text",
        )
    first: dict[QuestionKey, tuple[PoolSample, Record]] = {}
    called: dict[QuestionKey, list[PoolSample]] = {}
    run: dict[QuestionKey, list[PoolSample]] = {}
    for row in rows:
        try:
            sample = PoolSample.model_validate(dict(row.values))
        except ValidationError as e:
            raise row.bad(first_error(e), hint="a pool has one sample a line") from e
        if dataset in (None, sample.dataset):
            first.setdefault(sample.key, (sample, row))
            if sample.turns is not None:
                run.setdefault(sample.key, []).append(sample)
            elif sample.tools is not None or sample.calls is not None:
                called.setdefault(sample.key, []).append(sample)
    datasets = {sample.dataset for sample, _ in first.values()}
    with_numbers = {
        name
        for name in datasets
        if all(parse_numeral(s.gold or "") is not None for s, _ in first.values() if s.dataset == name)
    }
    for sample, row in first.values():
        if sample.key in run:
            yield _of_runs(run[sample.key], row, reading.data, is_only=len(datasets) == 1)
            continue
        if sample.key in called:
            yield _of_calls(called[sample.key], row, is_only=len(datasets) == 1)
            continue
        if sample.gold is None:
            raise row.bad(
                f"the field 'gold' of {sample.dataset}:{sample.question_id} is missing",
                hint="evaluate on the dataset itself, or give the right answers to `reason pool import`",
            )
        own_kind = "number" if kind == "auto" and sample.dataset in with_numbers else kind
        question = Question(text=sample.question_text, kind=cast(AnswerKind, own_kind))
        yield Item(
            id=sample.question_id if len(datasets) == 1 else f"{sample.dataset}:{sample.question_id}",
            question=question,
            gold=plain_gold((sample.gold,), question),
            subject=sample.dataset if len(datasets) > 1 else "",
        )


def _of_runs(samples: Sequence[PoolSample], row: Record, pool: Path | None, *, is_only: bool) -> Item:
    """A question with the tools of its recorded runs: right is a run that the source counts as right."""
    first = samples[0]
    name = f"{first.dataset}:{first.question_id}"
    if any(sample.correct is None for sample in samples):
        raise row.bad(f"a run on {name} has no field 'correct'", hint="the source has to say which runs are right")
    right = [
        run_digest([call.call for call in turn.calls] for turn in sample.turns or ())
        for sample in samples
        if sample.correct
    ]
    return Item(
        id=first.question_id if is_only else name,
        question=Question(text=first.question_text),
        gold=RunsGold(right=tuple(sorted(right))),
        subject="" if is_only else first.dataset,
        tools=(f"recorded/{pool}#{name}",),
    )


def _of_calls(samples: Sequence[PoolSample], row: Record, *, is_only: bool) -> Item:
    """A question about tool calls: right is what the source counts as right among the samples."""
    first = samples[0]
    tools = next((sample.tools for sample in samples if sample.tools is not None), ())
    if any(sample.correct is None for sample in samples):
        raise row.bad(
            f"a sample of {first.dataset}:{first.question_id} calls tools, and its field 'correct' is missing",
            hint="the source has to say which calls are right",
        )
    votes: Counter[str] = Counter()  # a source may judge equal calls by their form too: most of its verdicts count
    for sample in samples:
        votes[normalized_calls(sample.tool_calls, tools) if sample.calls else ""] += 1 if sample.correct else -1
    return Item(
        id=first.question_id if is_only else f"{first.dataset}:{first.question_id}",
        question=Question(text=first.question_text, tools=tools),
        gold=CallsGold(right=tuple(sorted(form for form, vote in votes.items() if vote >= 0))),
        subject="" if is_only else first.dataset,
    )


POOL = DatasetSpec(
    name="pool",
    summary="the questions of a pool of recorded samples (--data POOL), as `recorded/POOL` answers them",
    licence="that of the pool",
    warning="",
    read=_read,
    options={
        "dataset": "the dataset of the pool; by default all of them",
        "kind": "what the answers are, by default numbers where all right answers of a dataset are: "
        + ", ".join(_KINDS),
    },
)
