"""What was counted of peers becomes the right rows, and rows the right tables."""

from __future__ import annotations

import peers_features
import pytest
from peers_compare import (
    Cell,
    Row,
    costs,
    equal_tokens_table,
    rows_of,
)
from peers_features import VERSIONS, Claim, unfounded, with_table
from reason.core.types import Question
from reason.evals.datasets.items import Item, MathGold
from reason.reasoning.answers.equivalence import Equivalence


def rows(right: str, tokens: int = 100) -> list[Row]:
    return [Row(f"q{i}", mark == "1", False, tokens, 10, 2, 1.0) for i, mark in enumerate(right)]


def line_of(text: str, *starts: str) -> list[str]:
    missing_cells = " | ".join(starts)
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {missing_cells} |")]
    return [part.strip() for part in line.strip("|").split("|")]


async def test_answers_are_read_by_one_extraction_and_calls_added_up_by_question():
    items = [
        Item(id=name, question=Question(text="How many?", kind="number"), gold=MathGold(answer="1100", kind="number"))
        for name in ("a", "b", "c")
    ]
    answers = [
        {"id": "b", "text": "", "error": "RuntimeError: no", "seconds": 2.0},
        {"id": "a", "text": "So $5 and then \\boxed{1,100}.", "error": "", "seconds": 1.0},
        {"seconds": 3.0, "cpu": 0.1, "questions": 2},
    ]
    # what a client asks when it is opened is no question's; what nobody can tell later on is shared evenly
    said = (("", 500), ("a", 5), ("", 90), ("b", 7), ("a", 6), ("", 9))
    calls = [{"item": item, "completion": n, "prompt": 30} for item, n in said]
    async with Equivalence() as same:
        result = await rows_of(items, answers, calls, same)
    assert costs(calls)[""] == (99, 60, 2)
    third = 2 / 3
    assert result == [
        Row("a", True, False, 11 + 33, 60 + 20, 2 + third, 1.0),
        Row("b", False, True, 7 + 33, 30 + 20, 1 + third, 2.0),
    ]


def test_equal_tokens_are_interpolated_between_sizes_on_shared_questions():
    measured = {
        Cell("reason", "best-of-n", 2): rows("0000", 100),
        Cell("reason", "best-of-n", 4): rows("1111", 400),
        Cell("its-hub", "best-of-n", 2): rows("0000", 200),
        Cell("its-hub", "best-of-n", 4): rows("1111", 800),
        Cell("OptiLLM", "best-of-n", 2): rows("1111", 100),  # one size is no curve
    }
    made = equal_tokens_table(measured)
    assert line_of(made, "best-of-n", "reason", "200")[3] == "50.0 [50, 50]"
    assert line_of(made, "best-of-n", "its-hub", "200")[3:] == ["0.0 [0, 0]", "-50.0 [-50.0, -50.0]"]
    assert "OptiLLM" not in made
    assert equal_tokens_table({cell: result for cell, result in measured.items() if cell.size == 2}) == ""


def test_page_has_the_features_of_the_registries():
    page = peers_features.PAGE.read_text(encoding="utf-8")
    assert with_table(page) == page, "run benchmarks/peers_features.py --write"
    with pytest.raises(SystemExit, match="features"):
        with_table("a page without the mark")
    with pytest.raises(SystemExit, match="'no-such'"):
        peers_features.strategies("beam", "no-such")()


def test_claim_contradicted_by_the_installed_version_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(peers_features, "VERSIONS", {"its-hub": VERSIONS["its-hub"]})
    claims = {"its-hub": Claim("`A`", "its_hub/a.py", "class A(")}
    monkeypatch.setattr(peers_features, "FEATURES", {"a": (lambda: "", claims)})
    assert unfounded(tmp_path) == [f"its-hub 1.2.0 is not installed in {tmp_path / 'its_hub'}"]
    packages = tmp_path / "its_hub" / "lib" / "python3.11" / "site-packages"
    (packages / "its_hub-1.2.0.dist-info").mkdir(parents=True)
    assert unfounded(tmp_path) == ["its-hub, a: its_hub/a.py does not contain 'class A('"]
    (packages / "its_hub").mkdir()
    (packages / "its_hub" / "a.py").write_text("class A(B):\n")
    assert unfounded(tmp_path) == []
