"""`reason eval signal` as a user types it."""

from __future__ import annotations

import json
import random
from pathlib import Path

from reason.core.types import AnswerCandidate
from reason.evals.results import ResultRow
from reason.serving.rewards.model import sigmoid
from support.calibration_maps import make_row, write_run


def judged_rows(items: int, *, skill: float) -> list[ResultRow]:
    """Eight samples a question; the model's judgement rises with being right by `skill` nats."""
    rng = random.Random(4)
    rows = []
    for i in range(items):
        candidates = []
        for k in range(8):
            right = rng.random() < 0.4
            v = rng.gauss(skill if right else 0.0, 1.0)
            answer = "7" if right else str(10 + k)
            candidates.append(AnswerCandidate(text="t", answer=answer, score=sigmoid(v), logprob=None, tokens=5 + k))
        gold = {"type": "math", "answer": "7", "kind": "number"}
        rows.append(make_row(f"q{i:03}", 0.5, True, gold=gold, candidates=tuple(candidates)))
    return rows


def test_informative_signal_is_reported(cli):
    write_run(judged_rows(60, skill=2.0), Path("run"))
    status, out, err = cli("eval", "signal", "run")
    assert status == 0, err
    assert "within questions" in out
    assert "do not select" not in err
    assert "--set alpha=" in err
    payload = json.loads(cli("eval", "signal", "run", "--json")[1])
    assert (payload["items"], payload["samples"], payload["silent"]) == (60, 480, 0)
    # two normals two standard deviations apart: the area is the normal distribution at sqrt(2)
    assert abs(payload["within"]["auroc"] - 0.921) < 0.04
    assert payload["within"]["interval"]["low"] < payload["within"]["auroc"] < payload["within"]["interval"]["high"]
    assert payload["beta"] > 0


def test_uninformative_signal_is_a_warning(cli):
    write_run(judged_rows(60, skill=0.0), Path("run"))
    status, _, err = cli("eval", "signal", "run")
    assert status == 0
    assert "do not select or prune by it" in err


def test_runs_without_a_signal_are_refused(cli):
    write_run([make_row(f"q{i}", 0.5, True, gold={"type": "math", "answer": "7"}) for i in range(30)], Path("none"))
    status, _, err = cli("eval", "signal", "none")
    assert status == 2
    assert "score=self-evaluation" in err
