"""Import of pools from other formats, on files in the layouts that those programs write; and summaries."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from reason.core.errors import DataError, UserError
from reason.evals.datasets.loading import load_dataset
from reason.evals.pools import ImportOptions, detect_format, import_pool, parse_pool_map, reads_differently, summarize
from reason.serving.recorded.pool import PoolSample, read_pool
from support.recorded_pools import sample, samples, write


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


async def imported(*sources: Path, **options: Any) -> list[PoolSample]:
    return await import_pool(sources, ImportOptions(**options))


# -- JSON lines


async def test_a_map_renames_fields_and_composes_them(tmp_path: Path) -> None:
    row = {"llm": "m", "t": 0.4, "set": "sums", "q": {"id": 7, "text": "2 + 2?"}, "right": 4, "pred": 4.0, "out": "4"}
    mapping = parse_pool_map(
        "model={llm}-{t},dataset=set,question_id=q.id,question=q.text,gold=right,answer=pred,text=out"
    )
    (made,) = await imported(lines(tmp_path / "a.jsonl", row), mapping=mapping)
    assert (made.model, made.dataset, made.question_id, made.question) == ("m-0.4", "sums", "7", "2 + 2?")
    assert (made.gold, made.answer, made.correct, made.sample) == ("4", "4.0", True, 0)


async def test_what_is_missing_is_completed(tmp_path: Path) -> None:
    rows = [
        {"question": "What is 2 + 2?", "text": "Let me see. The answer is 4.", "gold": "4"},
        {"question": "What is 2 + 2?", "text": "No idea at", "gold": "4", "answer": None},
        {"question": "What is 2 + 3?", "text": "The answer is 6.", "gold": "5"},
    ]
    made = await imported(lines(tmp_path / "a.jsonl", *rows), model="m", dataset="sums")
    assert [(s.sample, s.answer, s.correct) for s in made] == [(0, "4", True), (1, None, False), (0, "6", False)]
    assert made[0].question_id == made[1].question_id != made[2].question_id


async def test_samples_are_selected_by_a_field(tmp_path: Path) -> None:
    rows = [{**sample(number=n).model_dump(), "t": t} for n, t in enumerate((0.4, 0.8, 0.4))]
    assert [s.sample for s in await imported(lines(tmp_path / "a.jsonl", *rows), only={"t": "0.4"})] == [0, 2]


async def test_question_texts_and_right_answers_come_from_a_dataset(tmp_path: Path) -> None:
    data = lines(tmp_path / "gsm8k.jsonl", {"id": "g1", "question": "How many?", "answer": "so\n#### 1,200"})
    row = {"model": "m", "dataset": "gsm8k", "question_id": "g1", "sample": 0, "answer": "1200"}
    questions = load_dataset("gsm8k", data=data)
    (made,) = await imported(lines(tmp_path / "a.jsonl", row), questions=questions)
    assert (made.question, made.gold, made.correct) == ("How many?", "1200", True)
    other = lines(tmp_path / "b.jsonl", {**row, "question_id": "7"})
    with pytest.raises(DataError, match=r"its ids are like 'g1', those of the samples like '7'"):
        await imported(other, questions=questions)


async def test_options_become_a_part_of_the_question(tmp_path: Path) -> None:
    data = lines(
        tmp_path / "own.jsonl", {"id": "c1", "question": "Which?", "choices": ["red", "seven"], "answer": "red"}
    )
    row = {"model": "m", "dataset": "own", "question_id": "c1", "answer": "A"}
    questions = load_dataset(str(data), seed=None)
    (made,) = await imported(lines(tmp_path / "a.jsonl", row), questions=questions)
    assert (made.question, made.gold, made.correct) == ("Which?\n\nA) red\nB) seven", "A", True)


async def test_a_faulty_record_is_named_with_its_line(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", sample().model_dump(), {"answer": "4"})
    with pytest.raises(DataError, match=r"a\.jsonl line 2: the field 'model'"):
        await imported(path)
    twice = lines(tmp_path / "b.jsonl", sample().model_dump(), sample().model_dump())
    with pytest.raises(DataError, match=r"line 2: sample 0 of m on sums:q1 is that of .*line 1 already") as caught:
        await imported(twice)
    assert "--map model=" in caught.value.hint
    with pytest.raises(DataError, match="there is no field 'x'"):
        await imported(path, mapping={"answer": "x"})
    with pytest.raises(UserError, match="no field of a sample"):
        parse_pool_map("label=x")


# -- lm-evaluation-harness


def lm_eval_row(doc_id: int, text: str, number: str, *, right: bool, name: str = "strict-match") -> dict[str, Any]:
    question = f"{doc_id} + 2?"
    return {
        "doc_id": doc_id,
        "doc": {"question": question, "answer": f"It is so.\n#### {doc_id + 2}"},
        "target": f"It is so.\n#### {doc_id + 2}",
        "arguments": {"gen_args_0": {"arg_0": f"Question: {question}\nAnswer:", "arg_1": {"until": ["Question:"]}}},
        "resps": [[text]],
        "filtered_resps": [number],
        "filter": name,
        "metrics": ["exact_match"],
        "doc_hash": "0",
        "prompt_hash": "0",
        "target_hash": "0",
        "exact_match": float(right),
    }


async def test_sample_logs_of_lm_evaluation_harness(tmp_path: Path) -> None:
    directory = tmp_path / "out" / "org__tiny"
    rows = [
        lm_eval_row(2, "The answer is 4.", "4", right=True),
        lm_eval_row(3, "I do not know 7", "[invalid]", right=False),
        lm_eval_row(2, "The answer is 4.", "4", right=True, name="flexible-extract"),
        lm_eval_row(3, "I do not know 7", "7", right=False, name="flexible-extract"),
    ]
    path = lines(directory / "samples_gsm8k_2026-01-02T03-04-05.678901.jsonl", *rows)
    (directory / "results_2026-01-02T03-04-05.678901.json").write_text(json.dumps({"model_name": "org/tiny"}))
    assert detect_format(path) == detect_format(directory) == "lm-eval"
    made = await imported(directory)
    assert [(s.model, s.dataset, s.question_id, s.sample) for s in made] == [
        ("org/tiny", "gsm8k", "2", 0), ("org/tiny", "gsm8k", "3", 0)
    ]  # fmt: skip
    assert [(s.question, s.gold, s.answer, s.correct, s.text) for s in made] == [
        ("2 + 2?", "4", "4", True, "The answer is 4."),
        ("3 + 2?", "5", None, False, "I do not know 7"),
    ]
    flexible = await imported(path, lm_eval_filter="flexible-extract")
    assert [s.answer for s in flexible] == ["4", "7"]
    with pytest.raises(UserError, match="has no filter 'none'"):
        await imported(path, lm_eval_filter="none")


async def test_repeats_of_lm_evaluation_harness_are_samples(tmp_path: Path) -> None:
    row = lm_eval_row(2, "", "4", right=True)
    row["resps"] = [["The answer is 4.", "The answer is 5.", "Well"]]
    path = lines(tmp_path / "samples_sums.jsonl", row)
    made = await imported(path, model="m")
    assert [(s.sample, s.answer, s.correct) for s in made] == [(0, "4", True), (1, "5", False), (2, None, False)]
    row["filtered_resps"] = [["4", "5", "[invalid]"]]
    made = await imported(lines(path, row), model="m")
    assert [s.answer for s in made] == ["4", "5", None]


async def test_log_likelihood_tasks_have_no_samples(tmp_path: Path) -> None:
    row = {**lm_eval_row(2, "", "4", right=True), "resps": [[["-1.5", "False"]], [["-2.0", "True"]]]}
    with pytest.raises(DataError, match="compares log-likelihoods and samples nothing"):
        await imported(lines(tmp_path / "samples_arc.jsonl", row), model="m")


# -- Inspect


def inspect_sample(name: str, epoch: int, answer: str, *, right: bool, **output: Any) -> dict[str, Any]:
    content: list[dict[str, Any]] = [
        {"type": "reasoning", "reasoning": "secret 9"},
        {"type": "text", "text": f"ANSWER: {answer}"},
    ]
    choice = {"message": {"role": "assistant", "content": content}, "stop_reason": "stop", **output}
    return {
        "id": name,
        "epoch": epoch,
        "input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"{name}?"}],
        "target": ["4"],
        "messages": [],
        "output": {
            "model": "org/m",
            "choices": [choice],
            "usage": {
                "input_tokens": 5, "input_tokens_cache_read": 6, "output_tokens": 3, "reasoning_tokens": 1,
                "total_cost": 0.25,
            },
        },
        "scores": {"match": {"value": "C" if right else "I", "answer": answer, "explanation": answer}},
    }  # fmt: skip


HEADER = {"version": 2, "status": "success", "eval": {"task": "tasks/sums", "model": "openai/m"}}


async def test_logs_of_inspect_in_both_forms(tmp_path: Path) -> None:
    logprobs = {"content": [{"token": t, "logprob": v} for t, v in (("AN", -0.5), ("SWER", -0.25), (" 4", -1.0))]}
    rows = [
        inspect_sample("b", 1, "4", right=True),
        inspect_sample("a", 2, "5", right=False, stop_reason="max_tokens"),
        inspect_sample("a", 1, "4", right=True, logprobs=logprobs),
        {**inspect_sample("c", 1, "4", right=True), "output": {"choices": []}},
    ]
    packed, plain = tmp_path / "log.eval", tmp_path / "log.json"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_journal/start.json", "{}")
        for row in rows:
            archive.writestr(f"samples/{row['id']}_epoch_{row['epoch']}.json", json.dumps(row))
        archive.writestr("header.json", json.dumps(HEADER))
    plain.write_text(json.dumps({**HEADER, "samples": rows}))
    made = await imported(packed)
    assert await imported(plain) == made
    assert [(s.question_id, s.sample, s.answer, s.correct, s.finish_reason) for s in made] == [
        ("a", 0, "4", True, "stop"), ("a", 1, "5", False, "length"), ("b", 0, "4", True, "stop")
    ]  # fmt: skip
    first = made[0]
    assert (first.model, first.dataset, first.question, first.gold, first.text) == (
        "openai/m", "sums", "a?", "4", "ANSWER: 4"
    )  # fmt: skip
    assert (first.prompt_tokens, first.completion_tokens, first.thinking_tokens, first.usd) == (11, 3, 1, 0.25)
    assert (first.token_logprobs, made[1].token_logprobs) == ((-0.5, -0.25, -1.0), None)


async def test_a_log_that_inspect_wrote_itself(tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="Inspect is not installed")
    path = tmp_path / "log.eval"
    evaluation = {
        "created": "2026-01-02T03:04:05+00:00",
        "task": "sums",
        "dataset": {},
        "model": "openai/m",
        "config": {},
    }
    rows = [inspect_sample("a", 1, "4", right=True)]
    written = {"version": 2, "status": "success", "eval": evaluation, "samples": rows}
    log.write_eval_log(log.EvalLog.model_validate(written), str(path), format="eval")
    (made,) = await imported(path)
    assert (made.model, made.question_id, made.answer, made.correct, made.text) == (
        "openai/m", "a", "4", True, "ANSWER: 4"
    )  # fmt: skip


async def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    torn, other = tmp_path / "log.eval", tmp_path / "other.json"
    torn.write_bytes(b"PK\x03\x04torn")
    other.write_text("{}")
    with pytest.raises(DataError, match="is no complete log of Inspect"):
        await imported(torn)
    with pytest.raises(DataError, match="it has no field 'eval'"):
        await imported(other)
    with pytest.raises(DataError, match="there is no log"):
        await imported(tmp_path / "absent.eval")
    with pytest.raises(UserError, match="is of no known format"):
        await imported(tmp_path / "notes.txt")
    with pytest.raises(UserError, match="is no evaluation"):
        await imported(tmp_path)


# -- summaries


def test_a_summary_states_what_is_recorded(tmp_path: Path) -> None:
    rows = [
        *samples(["4", None, "5", "4"], [10, 20, 30, 40], text="so", correct=True),
        *samples(["4", "7"], [5, 15], question_id="q2", text="so", correct=False),
        sample(model="other", completion_tokens=None, finish_reason="length"),
    ]
    first, second = summarize(read_pool(write(tmp_path, rows)))
    assert (first.model, first.questions, first.samples, first.min_samples, first.max_samples) == ("m", 2, 6, 2, 4)
    assert (first.accuracy, first.unread, first.cut, first.mean_tokens, first.max_tokens) == (0.5, 1, 0, 20.0, 40)
    assert first.recorded == ("gold", "correct", "text", "completion_tokens")
    assert (second.accuracy, second.cut, second.mean_tokens, second.recorded) == (
        None, 1, None, ("gold", "finish_reason")
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "answer", "differs"),
    [("The answer is 4.", "4", False), ("The answer is 4.", "5", True), ("The answer is 4.", None, True)],
)
def test_a_text_from_which_another_answer_is_read_is_noticed(text: str, answer: str | None, differs: bool) -> None:
    assert reads_differently(sample(answer=answer, text=text, question="How many?")) is differs


# -- a pool as a dataset


def test_the_questions_of_a_pool_are_a_dataset(tmp_path: Path) -> None:
    rows = [
        *samples(["4", "5"], question_id="q1"),
        *samples(["red"], question_id="q2", gold="red", dataset="colours", question="Which?"),
    ]
    path = write(tmp_path, rows, "p.jsonl.gz")
    both = load_dataset("pool", data=path)
    assert [(i.id, i.question.text, i.question.kind, i.gold.type, i.subject) for i in both.items] == [
        ("colours:q2", "Which?", "auto", "text", "colours"),
        ("sums:q1", "sums:q1", "number", "math", "sums"),
    ]
    (one,) = load_dataset("pool", data=path, options={"dataset": "sums", "kind": "text"}).items
    assert (one.id, one.question.kind, one.subject) == ("q1", "text", "")
    with pytest.raises(UserError, match="unknown kind of answer 'choice'"):
        load_dataset("pool", data=path, options={"kind": "choice"})
    with pytest.raises(DataError, match=r"line 1: the field 'gold' of sums:q1 is missing"):
        load_dataset("pool", data=write(tmp_path, [sample(gold=None)], "g.jsonl"))
