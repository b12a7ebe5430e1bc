"""`fusion` on the command line and in evaluations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from reason.core.settings import Settings
from support.cli_json import printed_answer
from support.scripted_model import ScriptedModel, replies

Cli = Callable[..., tuple[int, str, str]]
TEXTS = {
    "a/one": "The answer is 4.",
    "b/two": "So the answer is 5.",
    "c/three": "The answer is 4, of course.",
    "m/main": "Two and two make four. The answer is 4.",
}
ASK = ["ask", "What is 2 + 2?", "--strategy", "fusion", "-m", "m/main"]
JURORS = ["--juror", "a/one", "--juror", "b/two", "--juror", "c/three"]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> dict[str, ScriptedModel]:
    """The models, by name."""
    made = {name: ScriptedModel(replies(text), name=name) for name, text in TEXTS.items()}

    async def load_model(name: str, settings: Settings, *_: object) -> ScriptedModel:
        return made[name]

    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    return made


def test_drafts_of_three_models_are_fused(cli: Cli, models: dict[str, ScriptedModel]) -> None:
    status, out, _ = cli(*ASK, *JURORS, "--set", "stopping=none", "--json")
    answer = printed_answer(out)
    assert (status, answer.text, answer.answer) == (0, TEXTS["m/main"], "4")
    assert set(answer.usage.by_role) == {"juror-1:a/one", "juror-2:b/two", "juror-3:c/three", "main:m/main"}


def test_the_answer_is_printed_as_it_is_released(cli: Cli, models: dict[str, ScriptedModel]) -> None:
    status, out, _ = cli(*ASK, *JURORS, "--chair-model", "m/main", "--stream")
    assert (status, out.strip()) == (0, TEXTS["m/main"])


def test_drafts_of_one_model_under_a_rule(cli: Cli, models: dict[str, ScriptedModel]) -> None:
    rule = '{"rule": "first-finished", "finished": 2}'
    status, out, _ = cli(*ASK, "--set", "n=4", "--set", f"stopping={rule}", "--json")
    answer = printed_answer(out)
    assert (status, answer.confidence) == (0, 1.0)
    assert len(models["m/main"].generate_calls) == 2


def test_an_unknown_rule_is_refused(cli: Cli, models: dict[str, ScriptedModel]) -> None:
    status, _, err = cli(*ASK, "--set", "stopping=quorum")
    assert status != 0
    assert "fusion parameter stopping" in err.replace("\n", " ")


def test_it_is_evaluated_like_every_strategy(cli: Cli, models: dict[str, ScriptedModel]) -> None:
    Path("own.jsonl").write_text(
        "".join(json.dumps({"question": f"What is 2 + 2? ({i})", "answer": "4"}) + "\n" for i in range(3))
    )
    status, _, err = cli(
        *("eval", "own.jsonl", "-s", "fusion", "-m", "m/main", *JURORS, "--seeds", "1", "--out", "run", "--json")
    )
    assert status == 0, err
    assert json.loads(Path("run/run.json").read_text())["plan"]["models"]["juror-3"] == "c/three"
    items = [json.loads(line) for line in Path("run/items.jsonl").read_text().splitlines()]
    assert [item["correct"] for item in items] == [True] * 3


def test_it_is_listed(cli: Cli) -> None:
    assert "fusion" in cli("strategies", "list")[1]
    shown = cli("strategies", "show", "fusion")[1]
    assert "synthesis_tokens" in shown
    assert "deadline_s" in shown
