"""Import of pools from other formats, on files in the layouts that those programs write; and summaries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reason.core.errors import DataError, UserError
from reason.core.messages import Message, Prompt, Request
from reason.evals.datasets.loading import load_dataset
from reason.evals.pools import import_pool, parse_pool_map, summarize
from reason.evals.scoring import Scorer
from reason.reasoning.answers.extraction import read_candidate
from reason.serving.recorded.model import load_recorded
from reason.serving.recorded.pool import read_pool
from support.recorded_pools import sample, samples, write
from support.viewer_runs import answer_of


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# -- JSON lines


def test_a_map_renames_fields_and_composes_them(tmp_path):
    row = {"llm": "m", "t": 0.4, "set": "sums", "q": {"id": 7, "text": "2 + 2?"}, "right": 4, "pred": 4.0, "out": "4"}
    mapping = parse_pool_map(
        "model={llm}-{t},dataset=set,question_id=q.id,question=q.text,gold=right,answer=pred,text=out"
    )
    (made,) = import_pool([lines(tmp_path / "a.jsonl", row)], mapping=mapping)
    assert (made.model, made.dataset, made.question_id, made.question) == ("m-0.4", "sums", "7", "2 + 2?")
    assert (made.gold, made.answer, made.correct, made.sample) == ("4", "4.0", True, 0)


def test_what_is_missing_is_completed(tmp_path):
    rows = [
        {"question": "What is 2 + 2?", "text": "Let me see. The answer is 4.", "gold": "4"},
        {"question": "What is 2 + 2?", "text": "No idea at", "gold": "4", "answer": None},
        {"question": "What is 2 + 3?", "text": "The answer is 6.", "gold": "5"},
    ]
    made = import_pool([lines(tmp_path / "a.jsonl", *rows)], model="m", dataset="sums")
    assert [(s.sample, s.answer, s.correct) for s in made] == [(0, "4", True), (1, None, False), (0, "6", False)]
    assert made[0].question_id == made[1].question_id != made[2].question_id


def test_question_texts_and_right_answers_come_from_a_dataset(tmp_path):
    data = lines(tmp_path / "gsm8k.jsonl", {"id": "g1", "question": "How many?", "answer": "so\n#### 1,200"})
    row = {"model": "m", "dataset": "gsm8k", "question_id": "g1", "sample": 0, "answer": "1200"}
    questions = load_dataset("gsm8k", data=data)
    (made,) = import_pool([lines(tmp_path / "a.jsonl", row)], questions=questions)
    assert (made.question, made.gold, made.correct) == ("How many?", "1200", True)
    other = lines(tmp_path / "b.jsonl", {**row, "question_id": "7"})
    with pytest.raises(DataError, match=r"its ids are like 'g1', those of the samples like '7'"):
        import_pool([other], questions=questions)


def test_options_become_a_part_of_the_question(tmp_path):
    data = lines(
        tmp_path / "own.jsonl", {"id": "c1", "question": "Which?", "choices": ["red", "seven"], "answer": "red"}
    )
    row = {"model": "m", "dataset": "own", "question_id": "c1", "answer": "A"}
    questions = load_dataset(str(data), seed=None)
    (made,) = import_pool([lines(tmp_path / "a.jsonl", row)], questions=questions)
    assert (made.question, made.gold, made.correct) == ("Which?\n\nA) red\nB) seven", "A", True)


def test_a_faulty_record_is_named_with_its_line(tmp_path):
    path = lines(tmp_path / "a.jsonl", sample().model_dump(), {"answer": "4"})
    with pytest.raises(DataError, match=r"a\.jsonl line 2: the field 'model'"):
        import_pool([path])
    twice = lines(tmp_path / "b.jsonl", sample().model_dump(), sample().model_dump())
    with pytest.raises(DataError, match=r"line 2: sample 0 of m on sums:q1 is a duplicate of .*line 1") as caught:
        import_pool([twice])
    assert "--map model=" in caught.value.hint
    with pytest.raises(DataError, match="there is no field 'x'"):
        import_pool([path], mapping={"answer": "x"})
    with pytest.raises(UserError, match="no field of a sample"):
        parse_pool_map("label=x")


def test_sample_logs_of_lm_evaluation_harness_are_read_by_a_map(tmp_path):
    row = {"doc_id": 2, "doc": {"question": "2 + 2?"}, "target": "4", "resps": [["The answer is 4."]]}
    mapping = parse_pool_map("question_id=doc_id,question=doc.question,text=resps.0.0,gold=target")
    made = import_pool([lines(tmp_path / "samples.jsonl", row)], mapping=mapping, model="org/tiny", dataset="gsm8k")
    assert [(s.question_id, s.sample, s.question, s.gold, s.answer, s.correct) for s in made] == [
        ("2", 0, "2 + 2?", "4", "4", True)
    ]


# -- summaries


def test_a_summary_states_what_is_recorded(tmp_path):
    rows = [
        *samples(["4", None, "5", "4"], [10, 20, 30, 40], text="so", correct=True),
        *samples(["4", "7"], [5, 15], question_id="q2", text="so", correct=False),
        sample(model="other", completion_tokens=None, finish_reason="length"),
    ]
    first, second = summarize(read_pool(write(tmp_path, rows)))
    assert (first.model, first.questions, first.samples, first.min_samples, first.max_samples) == ("m", 2, 6, 2, 4)
    assert (first.accuracy, first.unparsed, first.cut, first.mean_tokens, first.max_tokens) == (0.5, 1, 0, 20.0, 40)
    assert first.recorded == ("gold", "correct", "completion_tokens", "text")
    assert (second.accuracy, second.cut, second.mean_tokens, second.recorded) == (
        None, 1, None, ("gold", "finish_reason")
    )  # fmt: skip


# -- a pool as a dataset


def test_the_questions_of_a_pool_are_a_dataset(tmp_path):
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


async def test_recorded_tool_calls_are_answered_and_judged_by_the_source(tmp_path):
    tools = [{"name": "find", "parameters": {"type": "object", "properties": {"k": {"default": 5}}}}]
    called = {"name": "find", "arguments": {"city": "Rome"}}
    rows = [
        sample(answer=None, calls=[called], tools=tools, correct=True, gold=None),
        sample(answer=None, model="b", calls=[{**called, "arguments": {"city": "Oslo"}}], correct=False, gold=None),
        sample(answer="no call", model="c", calls=[], correct=False, gold=None),
    ]
    pool = write(tmp_path, rows)
    (item,) = load_dataset("pool", data=pool).items
    assert item.gold.right == ('[{"arguments":{"city":"Rome","k":5},"name":"find"}]',)
    prompt = Prompt(messages=(Message(role="user", content=item.question.text),), tools=item.question.tools)
    async with Scorer() as scorer:
        for model, value in (("m", 1.0), ("b", 0.0), ("c", 0.0)):
            ((completion,),) = await load_recorded(f"recorded/{pool}:{model}").generate([Request(prompt=prompt)])
            candidate = read_candidate(completion, item.question)
            answer = answer_of(candidate.text, candidate.answer, tool_calls=candidate.tool_calls)
            score = await scorer.score(item, answer)
            assert (score.value, score.parsed) == (value, True)
    missing = [row.model_copy(update={"correct": None}) for row in rows]
    with pytest.raises(DataError, match="its field 'correct' is missing"):
        load_dataset("pool", data=write(tmp_path, missing, "other.jsonl"))
