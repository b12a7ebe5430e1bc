"""`reason eval agents`: trials in a file, a summary, and resumption."""

import json
from pathlib import Path

import pytest
from support.agent_model import AgentModel, call

MODULE = """
from reason.agents.loop.tool import schema_tool

NUMBER = {"type": "object", "properties": {"x": {"type": "integer"}}}


class Counter:
    system = ""

    def __init__(self):
        self.value = 0
        self.tools = [schema_tool("set", "", NUMBER, self.set)]

    def set(self, x):
        self.value = x
        return "ok"

    async def next_user(self, answer):
        return "Set it." if answer is None else None

    async def score(self, conversation):
        return float(self.value == 1)


class Counters:
    tasks = ("a", "b")

    async def reset(self, task):
        return Counter()


nothing = 3
"""


@pytest.fixture
def environment(home, monkeypatch):
    (home / "work" / "counters.py").write_text(MODULE)

    async def load_model(*_):
        return AgentModel([[call("set", x=1)], "The answer is done."])

    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)


def test_trials_are_written_and_kept(cli, environment):
    command = ("eval", "agents", "counters:Counters", "--trials", "2", "--out", "t.jsonl")
    status, out, err = cli(*command)
    assert status == 0, err
    assert [line.split() for line in out.splitlines()[:5]] == [
        ["tasks", "2"],
        ["trials", "4"],
        ["pass@1", "1.000"],
        ["pass^2", "1.000"],
        ["mean", "score", "1.000"],
    ]
    lines = Path("t.jsonl").read_text().splitlines()
    assert [(row["task"], row["trial"]) for row in map(json.loads, lines)] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert cli(*command)[0] == 2
    Path("t.jsonl").write_text("\n".join(lines[:3]) + "\n" + lines[3][:20])
    status, out, err = cli(*command, "--resume", "--json")
    assert (status, json.loads(out)["pass_hat"]) == (0, {"1": 1.0, "2": 1.0})
    assert err.count("trial: ") == 1
    assert Path("t.jsonl").read_text().splitlines()[:3] == lines[:3]


@pytest.mark.parametrize(("name", "says"), [("counters:nothing", "has no `tasks`"), ("counters:None", "unknown")])
def test_what_is_no_environment_is_refused(cli, environment, name, says):
    status, _, err = cli("eval", "agents", name)
    assert status == 2
    assert says in err
