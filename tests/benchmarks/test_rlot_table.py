"""The sweeps that the table of navigators is made from, and what its cells say."""

from __future__ import annotations

import json
import sys

import pytest
import rlot_table
from reason.cli.main import main
from reason.core.events import StrategyNote
from reason.reasoning.rlot.navigator import DuelingNetwork, Navigator, save_navigator
from rlot_table import Chains, chains_in
from support.navigation_model import SumsModel, SumsWorld
from support.torch_navigator import random_weights


def run(*arguments, monkeypatch, capsys):
    """The script as a user runs it; what it prints."""
    monkeypatch.setattr(sys, "argv", ["rlot_table.py", *map(str, arguments)])
    capsys.readouterr()
    assert rlot_table.main() == 0
    return capsys.readouterr().out


def note(vote, chain, expected, missing, name="navigated"):
    data = {"vote": vote, "chain": chain, "scores_requested": expected, "scores_missing": missing}
    return StrategyNote(strategy="rlot", name=name, data=data)


def test_chains_are_read_from_the_notes():
    events = [
        note(0, ["R"], 7, 7, name="block.run"),
        note(0, ["R", "Rf", "Ga"], 21, 2),
        note(1, ["D", "R", "R"], 28, 0),
        note(0, ["R", "Ga"], 14, 1),  # the same attempt, gone on with
    ]
    assert chains_in(events) == Chains((1, 3), 42, 1)
    assert chains_in([]) == Chains()


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep over a scripted model, run once."""
    directory = tmp_path_factory.mktemp("swept")
    model = SumsModel(SumsWorld())

    async def load_model(*_):
        return model

    rows = [
        {
            "id": f"s{i}",
            "question": f"What is {i} + {i + 1}?",
            "answer": f"{2 * i + 1}",
            "subject": ("low", "high")[i > 3],
        }
        for i in range(12)
    ]
    (directory / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_navigator(Navigator(DuelingNetwork(random_weights(1))), directory / "nav.safetensors")
    plan = "plan --models scripted/sums --data sums.jsonl --navigator nav.safetensors --samples 1 3 9"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reason.agents.reasoner.load_model", load_model)
        for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
            patch.setenv(variable, str(directory / variable))
        patch.chdir(directory)
        patch.setattr(sys, "argv", ["rlot_table.py", *plan.split(), "--kind", "number", "--out", "plans"])
        assert rlot_table.main() == 0
        assert main(["eval", "sweep", "plans/sums.toml", "--out", str(directory / "runs")]) == 0
    return directory / "runs"


def cells_of(printed):
    """The table's rows by method."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| ")]
    head, _, *body = rows
    return {row[1]: dict(zip(head, row, strict=True)) for row in body}


def test_table_of_a_sweep(swept, monkeypatch, capsys):
    printed = run("table", swept, monkeypatch=monkeypatch, capsys=capsys)
    assert "## sums" in printed
    rows = cells_of(printed)
    assert list(rows) == [
        "cot",
        "self-consistency, n = 1",
        "self-consistency, n = 3",
        "self-consistency, n = 9",
        "rlot, learned, nav",
        "rlot, fixed, R-Rf-Ga",
        "rlot, llm",
    ]
    fixed, learned, cot = rows["rlot, fixed, R-Rf-Ga"], rows["rlot, learned, nav"], rows["cot"]
    assert fixed["right % [95 %]"].startswith("100.0 [")
    assert cot["right % [95 %]"].startswith("25.0 [")  # every fourth
    assert (fixed["blocks"], fixed["unread scores %"], cot["blocks"]) == ("2.00", "", "")
    assert learned["unread scores %"] == "0.0"
    assert fixed["calls"] == "5.0"
    assert learned["learned less it [95 %]"] == ""
    at = float(learned["right % [95 %]"].split()[0])
    assert fixed["learned less it [95 %]"].split()[0] == f"{at - 100:+.1f}"
    assert cot["learned less it [95 %]"].split()[0] == f"{at - 25:+.1f}"
    # self-consistency is 25 % right at any number of samples
    beside = "it less self-consistency at its tokens [95 %]"
    assert rows["rlot, llm"][beside].split()[0] == "-25.0"
    assert fixed[beside] == "costs less than its fewest"  # a curve begins at three samples
    assert rows["self-consistency, n = 3"][beside] == ""
