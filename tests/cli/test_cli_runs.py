"""`reason runs`, `strategies`, `config`, `doctor`: their output."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field
from reason.cli.catalog import list_parameters
from reason.cli.render.console import age
from reason.core.events import EVENT_ADAPTER
from reason.core.types import Answer
from reason.core.version import __version__
from support.cli_json import printed_answer
from support.scripted_model import replies

Cli = Callable[..., tuple[int, str, str]]


def ask(cli: Cli, *flags: str) -> Answer:
    return printed_answer(cli("ask", "What is 6 * 7?", "--json", *flags)[1])


def test_runs_are_listed_newest_first(cli, scripted):
    assert cli("runs") == (0, "", "no runs yet\n")
    scripted()
    first, second = ask(cli), ask(cli, "-s", "self-consistency")
    listed = json.loads(cli("runs", "list", "--json")[1])
    assert [r["id"] for r in listed] == [second.run_id, first.run_id]
    assert (listed[0]["strategy"], listed[0]["answer"], listed[0]["status"]) == ("self-consistency", "42", "finished")
    shown = cli("runs")[1]
    assert first.run_id in shown
    assert "What is 6 * 7?" in shown
    assert len(json.loads(cli("runs", "list", "-n", "1", "--json")[1])) == 1


def test_old_runs_are_pruned(cli, scripted, monkeypatch):
    scripted()
    ask(cli)
    status, _, error = cli("runs", "prune")
    assert (status, "'--older-than'" in error) == (2, True)
    status, _, error = cli("runs", "prune", "--older-than", "soon")
    assert (status, "--older-than 'soon' is not a duration" in error) == (2, True)
    assert cli("runs", "prune", "--older-than", "1w") == (0, "", "removed 0 runs\n")
    in_eight_days = time.time() + 8 * 86_400
    monkeypatch.setattr("reason.cli.runs.time.time", lambda: in_eight_days)
    assert cli("runs", "prune", "--older-than", "1w") == (0, "", "removed 1 run\n")
    assert cli("runs") == (0, "", "no runs yet\n")


def test_a_run_is_shown(cli, scripted):
    scripted(replies("The answer is 42.", "The answer is [b]41[/b]."))
    answer = ask(cli, "-s", "self-consistency", "--set", "n=6", "--seed", "5", "--budget", "tokens=4000")
    status, out, err = cli("runs", "show", answer.run_id[:-2])
    assert (status, err) == (0, "")
    for part in (
        answer.run_id,
        "self-consistency",
        "n=6",
        "What is 6 * 7?",
        "4000 tokens",
        "candidates",
        "usage",
        "[b]",
    ):
        assert part in out
    assert out.count("The answer is") >= 6
    first = next(line for line in out.splitlines() if line.split()[:1] == ["1"])
    assert first.split()[1] in ("42", "41")  # the columns before the text are there, however long it is
    record = json.loads(cli("runs", "show", answer.run_id, "--json")[1])
    assert Answer.model_validate(record["answer"]) == answer
    events = [
        EVENT_ADAPTER.validate_json(line) for line in cli("runs", "show", answer.run_id, "--events")[1].splitlines()
    ]
    assert [e.number for e in events] == sorted(e.number for e in events)
    assert events[-1].type == "run.finished"
    assert cli("runs", "show", answer.run_id, "--trace", "page.html") == (0, "", "")
    assert answer.run_id in Path("page.html").read_text()


def test_replay_prints_what_ask_printed_without_a_model(cli, scripted, monkeypatch):
    scripted(replies("The answer is 42.", "The answer is 41."))
    answer = ask(cli, "-s", "self-consistency", "--seed", "5")

    async def gone(*_args: object, **_options: object) -> None:
        raise AssertionError("a replay opens no model")

    monkeypatch.setattr("reason.agents.reasoner.load_model", gone)
    status, out, err = cli("runs", "replay", answer.run_id, "--json")
    assert (status, err) == (0, "")
    again = printed_answer(out)
    assert (again.answer, again.text, again.candidates) == (answer.answer, answer.text, answer.candidates)
    assert again.usage.replayed_calls == again.usage.model_calls == 1
    status, out, err = cli("runs", "replay", answer.run_id)
    assert (status, out) == (0, f"{answer.answer}\n")
    assert f"runs show {answer.run_id}" in err


def test_removing_runs_is_all_or_nothing(cli, scripted):
    scripted()
    first, second = ask(cli), ask(cli)
    assert cli("runs", "rm", first.run_id, "20990101")[0] == 2
    assert len(json.loads(cli("runs", "list", "--json")[1])) == 2
    status, out, err = cli("runs", "rm", first.run_id, second.run_id, first.run_id)
    assert (status, out) == (0, "")
    assert err.splitlines() == [f"removed {first.run_id}", f"removed {second.run_id}"]
    assert cli("runs", "list", "--json")[1] == "[]\n"


def test_list_parameters_every_shape():
    class Inner(BaseModel):
        depth: Annotated[int, Field(gt=0, description="how deep")] = 3

    class Config(BaseModel):
        name: str
        mode: Literal["a", "b"] = "a"
        ratio: Annotated[float, Field(ge=0, lt=1)] = 0.5
        seeds: tuple[int, ...] = (1, 2)
        text: str | None = None
        flag: bool = False
        inner: Inner = Inner(depth=7)

    results = {p.name: p for p in list_parameters(Config)}
    assert list(results) == ["name", "mode", "ratio", "seeds", "text", "flag", "inner.depth"]
    assert results["name"].required
    assert [p.type for p in results.values()] == [
        "text",
        "a | b",
        "number ≥ 0, < 1",
        "list of integer",
        "text or null",
        "true or false",
        "integer > 0",
    ]
    assert results["inner.depth"].default == 7
    assert results["inner.depth"].meaning == "how deep"


def test_config_shows_sources(cli, home, monkeypatch):
    (home / "work" / "reason.toml").write_text('model = "local/other"\n[strategies.cot]\ntemperature = 0.5\n')
    (home / "config" / "reason").mkdir(parents=True)
    (home / "config" / "reason" / "reason.toml").write_text('model = "local/weaker"\nstrategy = "self-consistency"\n')
    monkeypatch.setenv("REASON_BUDGET__TOKENS", "2000")
    shown = json.loads(cli("config", "show", "--json")[1])
    settings = shown["settings"]
    here, own = str(home / "work" / "reason.toml"), str(home / "config" / "reason" / "reason.toml")
    assert settings["model"] == {"value": "local/other", "source": here}
    assert settings["strategy"] == {"value": "self-consistency", "source": own}
    assert settings["budget.tokens"] == {"value": 2000, "source": "environment"}
    assert settings["reuse"] == {"value": "run", "source": "default"}
    assert settings["strategies.cot.temperature"]["value"] == 0.5
    assert shown["files"] == [{"path": here, "found": True}, {"path": own, "found": True}]
    assert "reuse" in cli("config")[1]


def test_ages():
    assert [age(s) for s in (-1, 5, 61, 3600, 90_000)] == ["0 s", "5 s", "1 min", "1 h", "1 d"]


@pytest.mark.parametrize("command", [[], ["runs", "resume"]])
def test_every_command_has_help(command, cli):
    status, out, err = cli(*command, "--help")
    assert (status, err) == (0, "")
    assert "Usage: reason" in out
    assert cli("--version") == (0, f"reason {__version__}\n", "")
