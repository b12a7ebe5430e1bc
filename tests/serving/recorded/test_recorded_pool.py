"""The format of a pool: what a line may hold, what is refused with its line."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from reason.core.errors import DataError, UserError
from reason.serving.recorded.pool import PoolSample, read_pool, write_pool
from support.recorded_pools import sample, samples, write

LINE = {"model": "m", "dataset": "sums", "question_id": "q1", "sample": 0, "answer": "4"}


def pool_of(directory: Path, *lines: dict[str, Any] | str, name: str = "pool.jsonl") -> Path:
    path = directory / name
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def test_unknown_fields_are_ignored_and_truncated_means_length(tmp_path):
    path = pool_of(tmp_path, {**LINE, "pool": "x", "split": "all", "truncated": True}, {**LINE, "sample": 1})
    first, second = read_pool(path).samples
    assert (first.finish_reason, second.finish_reason) == ("length", None)
    assert first.question_text == "sums:q1"


def test_a_written_pool_reads_back_sorted_and_without_empty_fields(tmp_path):
    rows = [sample("q2", 1, None, completion_tokens=None), sample("q2", 0, "5"), sample("q1", 0, "4")]
    for name in ("a.jsonl", "a.jsonl.gz"):
        assert read_pool(write(tmp_path, rows, name)).samples == (rows[2], rows[1], rows[0])
    last = (tmp_path / "a.jsonl").read_text().splitlines()[-1]
    assert json.loads(last) == {**LINE, "question_id": "q2", "sample": 1, "answer": None, "gold": "4"}


def test_the_fingerprint_is_that_of_the_lines_not_of_the_file(tmp_path):
    plain, packed = (read_pool(pool_of(tmp_path, LINE, name=name)) for name in ("p.jsonl", "q.jsonl.gz"))
    assert (
        plain.fingerprint == packed.fingerprint == hashlib.sha256((json.dumps(LINE) + "\n").encode()).hexdigest()[:16]
    )


def test_models_and_questions_come_in_the_order_of_the_file(tmp_path):
    rows = [
        {**LINE, "model": m, "sample": n, "question_id": q} for m in ("b", "a") for q in ("q2", "q1") for n in (1, 0)
    ]
    pool = read_pool(pool_of(tmp_path, *rows))
    assert pool.models == ("b", "a")
    questions = pool.by_question("a")
    assert list(questions) == [("sums", "q2"), ("sums", "q1")]
    assert [s.sample for s in questions["sums", "q2"]] == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 4}, "the field 'answer': input should be a valid string, got 4"),
        ({"model": ""}, "the field 'model'"),
        ({"sample": -1}, "the field 'sample': input should be greater than or equal to 0, got -1"),
        ({"mean_logprob": 0.5}, "the field 'mean_logprob'"),
        ({"finish_reason": "eos"}, "the field 'finish_reason'"),
        ({"token_logprobs": [-1.0], "completion_tokens": 2}, "token_logprobs has 1 values and completion_tokens is 2"),
        ({"thinking_tokens": 3, "completion_tokens": 2}, "thinking_tokens=3 is no part of completion_tokens=2"),
        ({"thinking_tokens": 3}, "thinking_tokens=3 is no part of completion_tokens=None"),
    ],
)
def test_an_invalid_field_is_refused_with_its_line_and_value(tmp_path, change, message):
    path = pool_of(tmp_path, LINE, {**LINE, "sample": 1, **change})
    with pytest.raises(DataError, match=r"pool\.jsonl line 2: ") as caught:
        read_pool(path)
    assert message in str(caught.value)


def test_lines_that_are_no_sample_are_refused(tmp_path):
    unanswered = {k: v for k, v in LINE.items() if k != "answer"}
    refused = [
        ([unanswered], "line 1: the field 'answer' is missing"),
        ([LINE, '{"model": "m"'], "line 2: this is no JSON"),
        ([LINE, LINE], "line 2: sample 0 of m on sums:q1 is in line 1 already"),
        ([], "has no sample"),
    ]
    for lines, message in refused:
        with pytest.raises(DataError, match=message):
            read_pool(pool_of(tmp_path, *lines))
    with pytest.raises(DataError, match="there is no pool"):
        read_pool(tmp_path / "absent.jsonl")
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(DataError, match="cannot decompress"):
        read_pool(tmp_path / "torn.jsonl.gz")


def test_a_pool_is_written_under_the_name_of_one(tmp_path):
    with pytest.raises(UserError, match="is no name of a pool"):
        write_pool(tmp_path / "pool.json", samples(["4"]))


def test_a_count_of_tokens_follows_from_the_log_probabilities():
    assert sample(completion_tokens=None, token_logprobs=(-1.0, -2.0)).num_tokens == 2
    assert sample(completion_tokens=None).num_tokens is None
    with pytest.raises(ValidationError, match="less than or equal to"):
        PoolSample(**LINE, token_logprobs=(0.5,))
