"""A jury on the command line: `--juror`, its output, `reason verify --verifier edgejury`."""

from __future__ import annotations

from pathlib import Path

import pytest
from reason.core.errors import BackendUnavailable
from reason.core.settings import Settings
from support.cli_json import printed_answer
from support.scripted_jury import ScriptedJuror, model, rules, says
from support.scripted_model import ScriptedModel

QUESTION = ["What is the capital of Australia?", "--choices", "Sydney|Canberra|Melbourne|Perth", "--seed", "7"]
ASK = ["ask", *QUESTION, "-s", "edgejury", "-m", "m/main"]


def gold(text: str) -> tuple[int, int, int]:
    return (9, 8, 8) if "chosen" in text else (3, 4, 5)


@pytest.fixture
def jurors(monkeypatch: pytest.MonkeyPatch) -> dict[str, ScriptedModel]:
    """Three jurors of different opinions and a chair, by name."""
    models = {
        "a/one": model(ScriptedJuror(says("Sydney", "It is the largest."), gold), "a/one"),
        "b/two": model(ScriptedJuror(says("Canberra", "It was chosen."), gold), "b/two"),
        "c/three": model(ScriptedJuror(says("Sydney", "It is the largest."), gold), "c/three"),
        "d/chair": model(ScriptedJuror(chair=rules("Canberra it is.", "Canberra")), "d/chair"),
        "m/main": model(ScriptedJuror("Ada Byron wrote the timetable."), "m/main"),
    }

    async def load_model(name: str, settings: Settings, *_: object) -> ScriptedModel:
        if name not in models:
            raise BackendUnavailable(f"no model {name}")
        return models[name]

    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    return models


THREE = ["--juror", "a/one", "--juror", "b/two", "--juror", "c/three", "-m", "d/chair"]


def test_several_models_answer_one_question(cli, jurors):
    status, out, _ = cli(*ASK, *THREE, "--json")
    answer = printed_answer(out)
    assert (status, answer.answer) == (0, "B")
    assert set(answer.usage.by_role) == {"juror-1:a/one", "juror-2:b/two", "juror-3:c/three", "main:d/chair"}
    assert answer.degraded == ()
    shown = cli("runs", "show", answer.run_id)[1]
    for line in ("juror-1 model  a/one", "model          d/chair", "strategy"):
        assert line in shown
    status, out, _ = cli("runs", "replay", answer.run_id, "--json")
    assert (status, printed_answer(out).answer) == (0, "B")


def test_text_is_verified_by_a_jury(cli, jurors, home):
    for name in ("a/one", "b/two"):
        jurors[name] = model(ScriptedJuror("Ada Byron wrote the timetable."), name)
    jurors["c/three"] = model(ScriptedJuror("Ada Byron did not write the timetable."), "c/three")
    (home / "work" / "answer.txt").write_text("Ada Byron wrote the timetable.")
    (home / "work" / "facts.md").write_text("Ada Byron did not write the timetable.")
    requested = ["verify", "--answer", "answer.txt", "--question", "Who wrote it?", "--verifier", "edgejury"]
    unfitted = '{"verdicts": "none", "threshold": 0.5}'
    arguments = ["--judge", "lexical", "--set", f"davinci={unfitted}", *THREE[:6]]
    status, out, err = cli(*requested, *arguments)
    assert (status, err) == (0, "")
    assert "not enough evidence" in out
    assert "2 of 3 jurors agree, 1 disagrees (not evidence)" in out
    assert "juror #" not in out  # jurors are no origin of the answer
    page = home / "checked.html"
    Path("reason.toml").write_text('embedding_model = "none"\n')
    status, out, _ = cli(*requested, *arguments, "--docs", "facts.md", "--html", str(page))
    assert status == 0
    assert "refuted" in out
    shown = page.read_text(encoding="utf-8")
    counts = '"agreement":{"label":"uncertain","support":2,"contradict":1,"silent":0}'
    assert counts in shown.replace(": ", ":").replace(", ", ",")
    assert "juror #2" not in shown
    assert "supported" not in out.splitlines()[0]
    assert cli(*requested[:3], "--verifier", "davinci")[0] == 2
