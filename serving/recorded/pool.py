"""Pools: recorded samples of language models, a JSON line each, and how they are read.

    {"model": "gpt-4o-mini", "dataset": "gsm8k", "question_id": "gsm8k-test-0002", "question": "A robe takes …",
     "gold": "3", "sample": 0, "answer": "3", "correct": true, "completion_tokens": 96}

`docs/recorded-outputs.md` has the table of fields.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from ...core.errors import DataError, UserError
from ...core.files import write_file
from ...core.messages import Tool, ToolCall

SUFFIXES = (".jsonl", ".jsonl.gz")
"""How the name of a pool ends."""

_NO_COST: Final = {"completion_tokens": 0, "prompt_tokens": 0, "thinking_tokens": None, "usd": 0.0, "seconds": 0.0}

QuestionKey = tuple[str, str]
"""Dataset and id of a question."""

Count = Annotated[int, Field(ge=0)]
Logprob = Annotated[float, Field(le=1e-3, allow_inf_nan=False)]
"""A log-probability in nats; rounding may leave it just above 0."""


class RecordedCall(BaseModel):
    """A recorded tool call.

    Attributes:
        arguments: An object, or the text that the model wrote in place of one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    arguments: dict[str, JsonValue] | str

    @property
    def call(self) -> ToolCall:
        """It as a call of a model."""
        arguments = self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)
        return ToolCall(name=self.name, arguments=arguments)


class RecordedTurn(BaseModel):
    """A model turn of a recorded run, with the results of its calls, in their order."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str = ""
    calls: tuple[RecordedCall, ...] = ()
    results: tuple[str, ...] = ()


class PoolSample(BaseModel):
    """One recorded sample: a line of a pool. Unknown fields are ignored.

    Attributes:
        model: The model that generated it.
        dataset: Where the question comes from.
        question_id: Name of the question, unique within the dataset.
        question: Text of the question, with its options if it has some; None if it is not in the pool.
        gold: The right answer; None if unknown.
        sample: Number of the sample among those of its model and question, from 0.
        answer: The answer read from it; None if none could be read.
        correct: Whether the source counts the answer as right; None if unknown.
        completion_tokens: Generated tokens, thoughts included; None if not recorded.
        mean_logprob: Mean log-probability of a token, in nats; None if not recorded.
        text: Its text; None if not recorded.
        prompt_tokens: Tokens of the prompt; None if not recorded.
        token_logprobs: Log-probability of each generated token, in nats; None if not recorded.
        finish_reason: "stop", or "length" if it was cut at the source's limit; None if not recorded.
        thinking_tokens: The first of `completion_tokens`, which are a thought; None if not recorded.
        usd: What it cost, in US dollars; None if not recorded.
        tools: Tools that the question offers; a question has those of any of its samples.
        calls: Tools that the sample calls: name, and arguments as an object; empty if it calls none.
        turns: Of a sample that is a run of an agent, its model turns. If the last one calls tools, the run did not end
            by itself. Tokens, seconds and price are those of the whole run.
        seconds: How long it took, tools included; None if not recorded.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: Annotated[str, Field(min_length=1)]
    dataset: Annotated[str, Field(min_length=1)]
    question_id: Annotated[str, Field(min_length=1)]
    question: Annotated[str, Field(min_length=1)] | None = None
    gold: str | None = None
    sample: Count
    answer: str | None
    correct: bool | None = None
    completion_tokens: Count | None = None
    mean_logprob: Logprob | None = None
    text: str | None = None
    prompt_tokens: Count | None = None
    token_logprobs: tuple[Logprob, ...] | None = None
    finish_reason: Literal["stop", "length"] | None = None
    thinking_tokens: Count | None = None
    usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    tools: tuple[Tool, ...] | None = None
    calls: tuple[RecordedCall, ...] | None = None
    turns: Annotated[tuple[RecordedTurn, ...], Field(min_length=1)] | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _truncated_is_length(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("truncated") is True and data.get("finish_reason") is None:
            return {**data, "finish_reason": "length"}
        return data

    @model_validator(mode="after")
    def _token_counts_agree(self) -> Self:
        tokens, logprobs, thinking = self.completion_tokens, self.token_logprobs, self.thinking_tokens
        if logprobs is not None and tokens is not None and len(logprobs) != tokens:
            raise ValueError(f"token_logprobs has {len(logprobs)} values and completion_tokens is {tokens}")
        if thinking is not None and (tokens is None or thinking > tokens):
            raise ValueError(f"thinking_tokens={thinking} is no part of completion_tokens={tokens}")
        return self

    @property
    def num_tokens(self) -> int | None:
        """Generated tokens; None if not recorded."""
        if self.completion_tokens is None and self.token_logprobs is not None:
            return len(self.token_logprobs)
        return self.completion_tokens

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """Its calls as those of a model, with IDs."""
        calls = (one.call for one in self.calls or ())
        return tuple(call.model_copy(update={"id": f"call_{i}"}) for i, call in enumerate(calls))

    def turn(self, number: int) -> PoolSample:
        """A turn of a run as a sample, which has an even share of the run's tokens, seconds and price.

        What comes after the last turn is empty and cut, as what a limit has stopped.
        """
        turns = self.turns or ()
        if number >= len(turns):
            return self.model_copy(
                update={**_NO_COST, "turns": None, "text": "", "answer": None, "finish_reason": "length"}
            )

        def share(total: int | None) -> int | None:
            return None if total is None else total * (number + 1) // len(turns) - total * number // len(turns)

        milliseconds = share(None if self.seconds is None else round(1000 * self.seconds))
        costs = {
            **{name: share(getattr(self, name)) for name in ("prompt_tokens", "completion_tokens", "thinking_tokens")},
            "usd": None if self.usd is None else self.usd / len(turns),
            "seconds": None if milliseconds is None else milliseconds / 1000,
        }
        own = {"turns": None, "text": turns[number].text, "calls": turns[number].calls, "finish_reason": "stop"}
        return self.model_copy(update={**own, **costs})

    @property
    def key(self) -> QuestionKey:
        """Dataset and id of its question."""
        return (self.dataset, self.question_id)

    @property
    def question_text(self) -> str:
        """The question as a prompt has to show it: its text, or `<dataset>:<question_id>` if there is none."""
        return f"{self.dataset}:{self.question_id}" if self.question is None else self.question


class NotInPool(UserError):
    """A request that a pool has no sample for."""

    code = "not_in_pool"


@dataclass(frozen=True)
class Pool:
    """The samples of one file.

    Attributes:
        path: The file.
        fingerprint: The first 16 hexadecimal digits of the SHA-256 of its lines, before compression.
        samples: The samples, in the order of the file.
    """

    path: Path
    fingerprint: str
    samples: tuple[PoolSample, ...]

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The models, in the order of the file."""
        return tuple(dict.fromkeys(sample.model for sample in self.samples))

    def by_question(self, model: str) -> dict[QuestionKey, tuple[PoolSample, ...]]:
        """The samples of a model, by question; those of a question in the order of their numbers."""
        questions: dict[QuestionKey, list[PoolSample]] = {}
        for sample in self.samples:
            if sample.model == model:
                questions.setdefault(sample.key, []).append(sample)
        return {key: tuple(sorted(samples, key=lambda s: s.sample)) for key, samples in questions.items()}


def read_pool(path: Path) -> Pool:
    """Read a pool.

    Raises:
        DataError: The file cannot be read, has no sample, a line is none, or two lines are the same sample; names the
            first such line.
    """
    content = _content(path)
    samples: list[PoolSample] = []
    first: dict[tuple[str, QuestionKey, int], int] = {}
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            sample = PoolSample.model_validate_json(raw)
        except ValidationError as e:
            raise DataError(f"{path} line {number}: {first_error(e)}", hint="a pool has one sample a line") from e
        before = first.setdefault((sample.model, sample.key, sample.sample), number)
        if before != number:
            raise DataError(
                f"{path} line {number}: sample {sample.sample} of {sample.model} on "
                f"{sample.dataset}:{sample.question_id} is in line {before} already",
                hint="number the samples of a model and question from 0",
            )
        samples.append(sample)
    if not samples:
        raise DataError(f"{path} has no sample", hint="a pool is JSON lines, one sample a line")
    return Pool(path, hashlib.sha256(content).hexdigest()[:16], tuple(samples))


def write_pool(path: Path, samples: Iterable[PoolSample]) -> None:
    """Write a pool, sorted by dataset, question, model and sample, without empty fields; compressed if it ends in .gz.

    Equal samples give equal files.

    Raises:
        UserError: The name does not end as that of a pool.
        StoreError: It cannot be written.
    """
    require_pool_name(str(path))
    ordered = sorted(samples, key=lambda s: (s.dataset, s.question_id, s.model, s.sample))
    content = "".join(map(_line, ordered)).encode()
    write_file(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def require_pool_name(name: str) -> None:
    """Refuse a file name that is none of a pool.

    Raises:
        UserError: It is none.
    """
    if not name.endswith(SUFFIXES):
        raise UserError(f"{name!r} is no name of a pool", hint="it ends in .jsonl or .jsonl.gz")


def _line(sample: PoolSample) -> str:
    """A sample as a line: without empty fields, but with the answer."""
    return sample.model_dump_json(exclude={n for n, v in sample if v is None and n != "answer"}) + "\n"


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as e:
        raise DataError(f"there is no pool {path}", hint="`reason pool import` makes one") from e
    except OSError as e:
        raise DataError(f"cannot read the pool {path}: {e.strerror}") from e
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"cannot decompress {path}: {e}", hint="it was truncated, or is no gzip file") from e


def first_error(error: ValidationError) -> str:
    """The first thing that is wrong with a sample, with its field and value."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return f"this is no JSON: {reason.removeprefix('Invalid JSON: ')}"
    if first["type"] == "missing":
        return f"the field {where!r} is missing"
    if not where:
        return reason
    return f"the field {where!r}: {reason[:1].lower()}{reason[1:]}, got {_shown(first['input'])}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def normalized(text: str) -> str:
    """A text with every run of white space as one blank, by which questions are compared."""
    return " ".join(text.split())
