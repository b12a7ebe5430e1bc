"""Samples from files: rows, questions, extraction, kinds; and every way a row can be wrong."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import DataError
from reason.reasoning.voting.path_votes import Path
from reason.reasoning.voting.sample_files import SamplePool, read_pools, vote_on_pools


def rows(*records: object) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def test_rows_become_paths() -> None:
    content = rows(
        {"text": "a", "answer": "4", "mean_logprob": -0.5},
        {"text": "b", "answer": 4, "logprobs": [-0.1, -0.3], "id": 7},
        {"text": "c", "answer": 0.5, "mean_logprob": 0},
        {"text": "d", "answer": "", "mean_logprob": None, "logprobs": None},
        {"text": "", "answer": " "},
        {"text": "<think>f</think>e", "answer": "5", "logprobs": [-9.0, -9.0, -0.1, -0.3], "answer_from": 2},
    )
    (pool,) = read_pools(content, "x.jsonl")
    assert (pool.question, pool.kind, pool.lines) == (None, "math", (1, 2, 3, 4, 5, 6))
    assert pool.paths[:4] == (Path("a", "4", -0.5), Path("b", "4", -0.2), Path("c", "0.5", 0.0), Path("d", None))
    assert pool.paths[4] == Path("", None)
    assert pool.paths[5] == Path("<think>f</think>e", "5", -0.2)


def test_a_missing_answer_is_read_from_the_text() -> None:
    content = rows(
        {"text": "So x = 4.\nThe answer is \\frac{1}{2}."},
        {"text": "Hence \\boxed{Paris}", "answer": None},
        {"text": "2 + 2 = 4"},
        {"text": "It may rain there."},
        {"text": "I do not know."},
    )
    (pool,) = read_pools(content, "x.jsonl")
    assert [p.answer for p in pool.paths] == ["\\frac{1}{2}", "Paris", "4", None, None]
    (pool,) = read_pools(content, "x.jsonl", "text")
    assert pool.paths[3].answer is not None
    assert pool.paths[4].answer is None


def test_questions_have_pools_of_their_own_in_the_order_of_their_first_rows() -> None:
    content = b"\xef\xbb\xbf" + rows(
        {"question": "What is 2 + 2?", "text": "4"},
        {"question": "Is it late?", "text": "Yes."},
        {"question": "What is 2 + 2?", "text": "5"},
    ).replace(b"\n", b"\n\n")
    first, second = read_pools(content, "x.jsonl")
    assert (first.question, first.kind, first.lines) == ("What is 2 + 2?", "number", (1, 5))
    assert (second.kind, second.paths[0].answer) == ("yes_no", "yes")
    assert [pool.kind for pool in read_pools(content, "x.jsonl", "text")] == ["text", "text"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\n  \n", ["x.jsonl contains no sample"]),
        (b'{"text": "a"}\n[1]\n', ["x.jsonl line 2", "no JSON object"]),
        (rows({"answer": "4"}), ["line 1", "'text'", "required", "the record has: answer"]),
        (rows({"text": 4}), ["line 1", "'text'", "valid string"]),
        (rows({"text": "a", "answer": True}), ["line 1", "'answer"]),
        (rows({"text": "a", "logprobs": [-0.1], "answer_from": 1}), ["line 1", "'answer_from' is 1", "1 logprobs"]),
        (rows({"text": "a", "logprobs": [-0.1], "answer_from": -1}), ["line 1", "'answer_from'"]),
        (rows({"text": "a", "mean_logprob": "-0.1"}), ["line 1", "'mean_logprob'", "valid number"]),
        (rows({"text": "a"}, {"text": "a", "mean_logprob": 0.3}), ["line 2", "0.3, above 0"]),
        (rows({"text": "a", "mean_logprob": -(10**400)}), ["line 1", "mean"]),
        (rows({"text": "a", "logprobs": []}), ["line 1", "empty"]),
        (rows({"text": "a", "logprobs": [-0.1, None]}), ["line 1", "'logprobs.1'", "valid number"]),
        (rows({"text": "a", "logprobs": [-0.1, 2]}), ["line 1", "token 2", "above 0"]),
        (rows({"text": "a", "question": " "}), ["line 1", "'question'"]),
        (rows({"text": "a", "question": "Why?"}, {"text": "a"}), ["line 2", "some rows have the field 'question'"]),
    ],
)
def test_errors_name_the_line(content: bytes, says: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read_pools(content, "x.jsonl")
    for words in says:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_choice_needs_its_letter() -> None:
    with pytest.raises(DataError, match="line 1: the field 'answer' is missing.*option"):
        read_pools(rows({"text": "B"}), "x.jsonl", "choice")
    (pool,) = read_pools(rows({"text": "B", "answer": "(b)"}), "x.jsonl", "choice")
    assert pool.paths[0].answer == "(b)"


@given(
    st.lists(st.tuples(st.text(), st.one_of(st.none(), st.text()), st.one_of(st.none(), st.floats(-50, 0))), min_size=1)
)
def test_what_was_written_is_read(paths: list[tuple[str, str | None, float | None]]) -> None:
    given_ = [{"text": t, "answer": "" if a is None else a, "mean_logprob": s} for t, a, s in paths]
    (pool,) = read_pools(("\n".join(map(json.dumps, given_))).encode(), "x.jsonl")
    assert [p.text for p in pool.paths] == [t for t, _, _ in paths]
    assert [p.mean_logprob for p in pool.paths] == [s for _, _, s in paths]
    assert [p.answer for p in pool.paths] == [a if a and a.strip() else None for _, a, _ in paths]


async def test_equal_answers_vote_together() -> None:
    answers = ["0.5", "1/2", "50%", "\\frac12", "0.25", None]
    pool = SamplePool(None, "math", tuple(Path(str(i), a, -0.1 * i) for i, a in enumerate(answers)), tuple(range(1, 7)))
    (found,) = await vote_on_pools([pool], "pc")
    assert [c.members for c in found.classes] == [(0, 1, 2, 3), (4,)]
    weights = [math.exp(-0.1 * i) for i in range(5)]
    assert found.confidence == pytest.approx(sum(weights[:4]) / sum(weights))
    assert found.unparsed == 1
