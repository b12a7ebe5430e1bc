"""The scheduled job: which models it checks, what it writes, and when it ends with an error."""

from __future__ import annotations

import json
from typing import Any

import live_contract as job
import pytest
from anyio.from_thread import start_blocking_portal
from reason.serving.litellm.providers import EXAMPLE_MODELS
from support.wires.kinds import Kind
from support.wires.server import WireServer


def found(**states: str) -> dict[str, Any]:
    cells = [{"name": name, "state": state, "detail": "why"} for name, state in states.items()]
    return {"ok": "fail" not in states.values(), "checks": cells}


def test_a_cell_that_held_and_is_broken_is_an_error_and_a_new_one_is_not(tmp_path, monkeypatch, capsys):
    file = tmp_path / "live.json"
    results = {"a": found(answer="ok", stop="fail"), "b": found(answer="ok")}
    monkeypatch.setattr(job, "check", lambda model: results[model])
    assert job.main([str(file), "a", "b"]) == 0  # nothing to compare with
    assert json.loads(file.read_text())["models"] == results
    assert job.main([str(file), "a", "b"]) == 0  # as the last time
    first, results = results, {"a": found(answer="fail", stop="fail"), "b": {"error": "no key"}}
    assert job.main([str(file), "a", "b"]) == 1
    assert json.loads(file.read_text())["models"] == {"a": results["a"], "b": first["b"]}
    err = capsys.readouterr().err
    assert "worse than the last time: a, answer: why" in err
    assert "b cannot be checked: no key" in err
    assert "stop" not in err


def test_the_models_are_those_of_the_keys_in_the_environment(tmp_path, monkeypatch):
    checked = []
    monkeypatch.setattr(job, "check", lambda model: checked.append(model) or found(answer="ok"))
    for provider in EXAMPLE_MODELS:
        monkeypatch.delenv(f"{provider.upper()}_API_KEY", raising=False)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    with pytest.raises(SystemExit):
        job.main([str(tmp_path / "live.json")])
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("DEEPSEEK_API_KEY", "k")
    assert job.main([str(tmp_path / "live.json")]) == 0
    assert checked == [EXAMPLE_MODELS["anthropic"], EXAMPLE_MODELS["deepseek"]]


@pytest.mark.nightly
def test_the_doctor_is_run_and_its_errors_are_shown(monkeypatch, tmp_path):
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    server = WireServer(Kind("small", "openai/small"), pause_s=0.001)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server.run()) as address:
        assert job.states(job.check(f"small@{address}"))["answer"] == "ok"
    assert "cannot be reached" in job.check("small@http://127.0.0.1:9/v1")["error"]
