"""Ctrl-C in an evaluation on a real engine: what there is is saved, the command that goes on is said and works."""

from __future__ import annotations

import json
import re
import shlex
import signal
import time
from pathlib import Path

import pytest
from reason.evals.run_directory import read_rows


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_gone_on_with(process, tiny_model: Path, home: Path, number: signal.Signals) -> None:
    path = home / "questions.jsonl"
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(16)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    engine = ("-m", f"local/{tiny_model}", "--weight-format", "fp32", "--threads", "1", "--concurrency", "2")
    sampling = ("-s", "cot", "--set", "max_tokens=400", "--set", "temperature=1")
    child = process("eval", str(path), *engine, *sampling, "--out", "run")
    items = Path("run") / "items.jsonl"
    for _ in range(3000):
        if (items.exists() and b"\n" in items.read_bytes()) or child.poll() is not None:
            break
        time.sleep(0.02)
    child.send_signal(number)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 130, err
    saved = read_rows(Path("run"), torn_end=True)
    assert 0 < len(saved) < 16
    said = re.search(r"what there is is saved: (reason .*)", err)
    assert said is not None, err
    again = process(*shlex.split(said[1])[1:], "--json")
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    summary = json.loads(out)
    assert (summary["rows"], summary["cost"]["paid_replies"]) == (16, 16)
    finished = {r.key: r for r in read_rows(Path("run"))}
    assert all(finished[r.key] == r for r in saved)
