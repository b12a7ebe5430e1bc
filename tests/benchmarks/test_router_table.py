"""The sweeps that the table of routers is made from, and what its cells say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import router_table
from reason.cli.main import main
from reason.core.settings import Settings
from support.small_and_large import LARGE, SMALL, both_models, entropy_of


def run(*arguments, monkeypatch, capsys):
    """The script as a user runs it; what it prints."""
    monkeypatch.setattr(sys, "argv", ["router_table.py", *map(str, arguments)])
    capsys.readouterr()
    assert router_table.main() == 0
    return capsys.readouterr().out


@pytest.fixture
def swept(tmp_path, monkeypatch, capsys):
    """A sweep over two scripted models, run."""
    opened = both_models()

    async def load_model(name: str, settings: Settings, *_):
        return opened[name]

    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.chdir(tmp_path)
    rows = [f'{{"id": "s{i}", "question": "What is {i} + {i + 1}?", "answer": "{2 * i + 1}"}}\n' for i in range(4)]
    Path("sums.jsonl").write_text("".join(rows))
    plan = ("--large", LARGE, "--small", SMALL, "--data", "sums.jsonl", "--kind", "number", "--out", "plans")
    methods = ("--thresholds", 1, "--random-rates", 1, "--cascade", 1.0, "--cascade-samples", 2)
    run("plan", *plan, *methods, monkeypatch=monkeypatch, capsys=capsys)
    for name in ("sums", "sums-small"):
        assert main(["eval", "sweep", f"plans/{name}.toml", "--out", f"runs/{name}", "--concurrency", "4"]) == 0
    return tmp_path / "runs"


def test_table_of_a_sweep(swept, monkeypatch, capsys):
    printed = run("table", swept / "sums", swept / "sums-small", monkeypatch=monkeypatch, capsys=capsys)
    main_part = printed.partition("### ")[0]
    lines = [line for line in main_part.splitlines() if line.startswith("| ")]
    head, _, *body = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    rows = {row[0]: dict(zip(head, row, strict=True)) for row in body}
    assert list(rows) == [
        "large, one request",
        "small, one request",
        "large, step by step",
        "small, step by step",
        "glimprouter, threshold 1",
        "by chance, rate 1.0",
        "cascade, self-consistency, n = 2, threshold 1.0",
    ]
    right = {name: row["right % [95 %]"].split()[0] for name, row in rows.items()}
    assert right["large, one request"] == right["large, step by step"] == right["by chance, rate 1.0"] == "100.0"
    assert right["small, one request"] == right["small, step by step"] == "50.0"  # it fails at every third sum
    assert rows["small, step by step"]["less large, step by step [95 %]"].startswith("-50.0 [")
    assert {rows[f"{who}, step by step"]["to large %"] for who in ("large", "small")} == {"100.0", "0.0"}
    by_large = sum(entropy_of(i) >= 1 for i in range(4))  # the first of three steps
    routed = rows["glimprouter, threshold 1"]
    assert (routed["steps"], routed["to large %"]) == ("3.0", f"{100 * by_large / 12:.1f}")
    assert routed["discarded"] == "3"  # a probe a step
