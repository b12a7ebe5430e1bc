"""`reason vote` as a user types it: tables, JSON, standard input, several questions; and every way to get it wrong."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

S = [-0.05, -0.06, -0.07, -0.20, -0.22, -0.50, -0.55, -0.60]
GOLDEN = [
    {"text": f"path {i}", "answer": a, "mean_logprob": s} for i, (a, s) in enumerate(zip("77333999", S, strict=True))
]
UNPARSED = {"text": "I do not know.", "mean_logprob": -0.01}


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def samples(home: Path) -> str:
    return write(home / "samples.jsonl", *GOLDEN, UNPARSED)


def test_the_table_goes_to_stdout_and_the_rest_to_stderr(cli, samples: str) -> None:
    status, out, err = cli("vote", samples)
    assert status == 0
    assert [line.split() for line in out.splitlines()] == [
        ["confidence", "paths", "answer"],
        ["0.5743", "3", "3"],
        ["0.4257", "2", "7"],
        ["0.0000", "3", "9"],
    ]
    pruned, unparsed, fit = err.splitlines()
    assert pruned == "pruned 3 of 9: lines 6, 7, 8"
    assert unparsed == "samples without an answer: 1 of 9"
    assert fit.startswith("fit: 0.626 of the paths around 0.8917 (shape 18.12, scale 0.9183), the others around 0.5773")


def test_json(cli, samples: str) -> None:
    status, out, err = cli("vote", samples, "--json", "--method", "rpc", "--kind", "number")
    assert (status, err) == (0, "")
    results = json.loads(out)
    assert set(results) == {
        "answer", "confidence", "method", "classes", "ties", "pruned", "unparsed", "fit", "degraded"
    }  # fmt: skip
    assert (results["answer"], results["pruned"], results["unparsed"], results["degraded"]) == ("3", [6, 7, 8], 1, [])
    assert results["confidence"] == pytest.approx(0.574286, abs=1e-6)
    assert [(c["answer"], c["paths"]) for c in results["classes"]] == [
        ("3", [3, 4, 5]),
        ("7", [1, 2]),
        ("9", [6, 7, 8]),
    ]
    assert results["fit"]["k1"] == pytest.approx(18.1159, abs=1e-3)


@pytest.mark.parametrize(
    ("method", "answer", "confidence"), [("pc", "3", 0.413282), ("ppl", "7", 0.951229), ("sc", "3", 0.375)]
)
def test_methods(cli, samples: str, method: str, answer: str, confidence: float) -> None:
    _, out, _ = cli("vote", samples, "--method", method, "--json")
    results = json.loads(out)
    assert (results["answer"], results["method"], results["fit"]) == (answer, method, None)
    assert results["confidence"] == pytest.approx(confidence, abs=1e-6)


def test_standard_input_tokens_and_extraction(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"text": "The answer is 1/2.", "logprobs": [-0.1, -0.3]},
        {"text": "So \\boxed{0.5}", "logprobs": [-0.2]},
        {"text": "The answer is 3.", "logprobs": [-0.4]},
    ]
    content = "\n".join(map(json.dumps, rows)).encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    status, out, _ = cli("vote", "-", "--json", "--method", "pc")
    results = json.loads(out)
    assert status == 0
    assert [(c["answer"], c["paths"]) for c in results["classes"]] == [("1/2", [1, 2]), ("3", [3])]


def test_one_result_for_each_question(cli, home: Path) -> None:
    rows = [{"question": q, "text": str(n), "answer": str(n)} for q, n in (("Q1?", 1), ("Q2?", 2), ("Q1?", 1))]
    path = write(home / "two.jsonl", *rows)
    _, out, _ = cli("vote", path, "--method", "sc", "--json")
    assert [(r["question"], r["answer"], r["classes"][0]["paths"]) for r in map(json.loads, out.splitlines())] == [
        ("Q1?", "1", [1, 3]),
        ("Q2?", "2", [2]),
    ]
    _, out, _ = cli("vote", path, "--method", "sc")
    assert out.index("Q1?") < out.index("Q2?")


@pytest.mark.parametrize(
    ("content", "expected_text"),
    [
        (b"", ["bad.jsonl", "contains no sample"]),
        (b"\xff\xfe{\x00", ["bad.jsonl line 1", "UTF-8"]),
        (b'{"text": "a"}\n7\n', ["bad.jsonl line 2", "no JSON object"]),
        (b'{"text": "a"}\n{"text": "b"', ["bad.jsonl line 2", "ends within"]),
        (b'{"text": 1}\n', ["bad.jsonl line 1", "'text'"]),
        (b'{"text": "a", "mean_logprob": NaN}\n', ["bad.jsonl line 1", "NaN"]),
        (b'{"text": "a", "mean_logprob": 0.5}\n', ["bad.jsonl line 1", "above 0"]),
    ],
)
def test_bad_files_are_one_line_and_status_2(cli, home: Path, content: bytes, expected_text: list[str]) -> None:
    path = home / "bad.jsonl"
    path.write_bytes(content)
    status, out, err = cli("vote", str(path))
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    for words in expected_text:
        assert words in line


@pytest.mark.parametrize(
    ("arguments", "expected_text"),
    [
        (["nowhere.jsonl"], ["nowhere.jsonl", "No such file"]),
        (["."], ["directory"]),
        (["FILE", "--method", "rcp"], ["'rcp'", "'rpc'"]),
        (["FILE", "--kind", "nuber"], ["'nuber'", "'number'"]),
        (["FILE", "--parity", "refrence"], ["'refrence'", "'reference'"]),
        ([], ["FILE", "reason vote --help"]),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(
    cli, samples: str, arguments: list[str], expected_text: list[str]
) -> None:
    status, out, err = cli("vote", *(samples if a == "FILE" else a for a in arguments))
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    for words in expected_text:
        assert words in line
