"""How long juries are said to take, on a clock that counts the steps of scripted models."""

from __future__ import annotations

import json
import sys

import jury_batching
import numpy as np
import pytest
from jury_batching import Batch, JuryTiming, Measured, continues, quotient, tables, with_fixed_length
from reason.core.messages import Message, Prompt, Request, SamplingParams
from support.scripted_jury import ScriptedJuror, letter_of, model

OPINION = "It is right."


def opinion(prompt):
    if ") right" not in prompt:
        return "One."  # an engine is warmed up by another question
    return f"{OPINION}\nAnswer: {letter_of(prompt, 'right')}"


def chair(prompt):
    return f"So it is.\nAnswer: {letter_of(prompt, 'right')}"


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A clock that goes on by a second for each step of a batch, and the models that were opened, in order."""
    now, opened = [0.0], []

    def tick():
        now[0] += 1

    async def load_model(name, settings):
        opened.append(model(ScriptedJuror(opinion=opinion, chair=chair), name=name, step=tick))
        return opened[-1]

    monkeypatch.setattr(jury_batching, "clock", lambda: now[0])
    monkeypatch.setattr(jury_batching, "load_model", load_model)
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return opened


def cells(printed):
    """The rows of both tables, by their first cell."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_jury_takes_as_long_as_its_longest_chain_if_batching_is_free(counted, tmp_path, monkeypatch, capsys):
    targets = {"choices": ["right", "wrong", "odd"], "labels": [1, 0, 0]}
    lines = [json.dumps({"id": f"q{i}", "question": f"What of {i}?", "mc1_targets": targets}) for i in range(2)]
    (tmp_path / "tqa.jsonl").write_text("\n".join(lines) + "\n")
    arguments = ("--model", "m/one", "--data", tmp_path / "tqa.jsonl", "--questions", 2)
    monkeypatch.setattr(sys, "argv", ["jury_batching.py", *map(str, arguments)])
    assert jury_batching.main() == 0
    printed = capsys.readouterr().out
    assert printed.startswith("one, 3 jurors, 2 questions of TruthfulQA MC1;")
    result = cells(printed)
    said = len(f"{OPINION}\nAnswer: A") + 1  # and the end
    reviewed = len("5 5 5\nQ: 5 5 5") + 1  # behind "P: ", with which it begins
    ruled = len("So it is.\nAnswer: A") + 1
    # rounds, requests, tokens, seconds as batches, of the longest, of all one by one
    assert result["answer"][:6] == ["1.00", "3.00", f"{3 * said}", *(f"{s:.2f}" for s in (said, said, 3 * said))]
    assert result["review"][:6] == [
        "1.00",
        "3.00",
        f"{3 * reviewed}",
        *(f"{s:.2f}" for s in (reviewed, reviewed, 3 * reviewed)),
    ]
    assert result["chair"][:6] == ["1.00", "1.00", f"{ruled}", *(f"{ruled:.2f}",) * 3]
    whole, serial = said + reviewed + ruled, 3 * said + 3 * reviewed + ruled
    assert result["2"][:2] == [f"{whole:.2f}", f"{whole:.2f}"]
    assert result["2"][2:4] == ["1.00 [1.00, 1.00]", "met"]
    assert result["2"][4] == f"{serial / whole:.2f} [{serial / whole:.2f}, {serial / whole:.2f}]"
    # one to warm up; then for each question a jury, seven isolated requests, a jury one by one, and a jury again
    assert len(counted) == 1 + 2 * 10
    assert all(engine.closed for engine in counted)
    rounds = [[len(call) for call in engine.generate_calls[1:]] for engine in counted[1:11]]
    assert rounds == [[3, 3, 1], *[[1]] * 7, [1] * 7, [3, 3, 1]]
    isolated = counted[2].generate_calls[1][0].sampling
    assert (isolated.ignore_eos, isolated.max_tokens, isolated.stop) == (True, said, ())


async def test_continued_request_finds_the_earlier_one(counted, monkeypatch):
    first, more = Message(role="user", content="a"), Message(role="user", content="b")
    asked = [Request(prompt=Prompt(messages=messages)) for messages in ((first,), (more,), (first, more))]
    rounds = [Batch("answer", tuple(asked[:2]), (2, 3), 1.0), Batch("review", (asked[2],), (4,), 1.0)]
    bench = jury_batching.Bench(type("Given", (), {"model": "m/one"})(), None, None)
    monkeypatch.setattr(ScriptedJuror, "script", lambda self, text: {"x": 1.0})
    assert await bench.time_isolated(rounds, 1, 0) == 4.0  # the earlier one is there already and not counted
    calls = [(call[0].prompt, call[0].sampling.max_tokens) for call in counted[0].generate_calls[1:]]
    assert calls == [(asked[0].prompt, 2), (asked[2].prompt, 4)]


def test_prompts_and_lengths():
    a, b = (Message(role="user", content=c) for c in "ab")
    one, two = Prompt(messages=(a,)), Prompt(messages=(a, b))
    assert continues(two, one)
    assert continues(one.with_prefix("It"), one)
    assert not continues(one, two)
    assert not continues(Prompt(messages=(b,)), one)
    sampling = with_fixed_length(
        Request(prompt=one, sampling=SamplingParams(max_tokens=9, stop=("\n",), seed=4)), 0
    ).sampling
    assert (sampling.max_tokens, sampling.stop, sampling.ignore_eos, sampling.seed) == (1, (), True, 4)


def test_goal_is_measured_on_the_sums():
    def measured(jury, chain):
        batch = Batch("answer", (), (5, 5), jury)
        return Measured(
            (JuryTiming(jury, 10, [batch]), JuryTiming(jury + 2, 10, [batch])),
            ((chain, 1.0),),
            JuryTiming(4 * jury, 20),
        )

    result = cells("\n".join(tables([measured(5.0, 3.0), measured(2.0, 5.0)])))
    assert result["answer"] == ["1.00", "0.00", "10", "3.50", "4.00", "5.00", "0.88", "1.43"]
    assert result["2"][:2] == ["4.50", "4.00"]
    assert (result["2"][2].split()[0], result["2"][3]) == ("1.12", "met")
    assert cells("\n".join(tables([measured(5.0, 3.0)])))["1"][2:4] == ["2.00", "not met"]
    assert quotient(np.array([[3.0, 2.0]])) == "1.50"
