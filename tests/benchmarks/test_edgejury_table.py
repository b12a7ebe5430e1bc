"""The table of juries, from sweeps over scripted jurors to its cells."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import edgejury_table
import pytest
from edgejury_table import names_of
from reason.cli.main import main
from reason.core.settings import Settings
from reason.evals.run_directory import load_run
from support.scripted_jury import ScriptedJuror, answers_in, letter_of, model

ONE, TWO, THREE = "m/one", "m/two", "m/three"
QUESTIONS = 3
VOTE = "majority vote of the jurors"
SWEEPS = ("jury", "single", "ablations", "one-model", "timed")


def write_questions(path: Path) -> Path:
    """Questions with three options each, in the form of TruthfulQA's; the right one is first in the file."""
    rows = []
    for i in range(QUESTIONS):
        choices = [f"right {i}", f"wrong {i}", f"odd {i}"]
        rows.append(
            {"id": f"q{i}", "question": f"What of {i}?", "mc1_targets": {"choices": choices, "labels": [1, 0, 0]}}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def number_in(prompt: str) -> int:
    return int(re.search(r"What of (\d)\?", prompt)[1])


def knows(*numbers: int, otherwise: str = "wrong"):
    """An opinion that is right on these questions, and says the same thing on the others."""

    def opinion(prompt: str) -> str:
        i = number_in(prompt)
        option = f"{'right' if i in numbers else otherwise} {i}"
        return f"It is {option}.\nAnswer: {letter_of(prompt, option)}"

    return opinion


def first_option(prompt: str) -> str:
    """An opinion of one who likes what stands first."""
    return "I like the first.\nAnswer: A"


def mark(text: str) -> tuple[int, int, int]:
    return (9, 8, 8) if "It is right" in text else (2, 3, 4)


def chair(prompt: str) -> str:
    """Takes an answer that is right, if there is one among them."""
    i = number_in(prompt)
    result = any("It is right" in text for text in answers_in(prompt).values())
    option = f"{'right' if result else 'wrong'} {i}"
    return f"It is {option}.\nWhy: so it is.\nAnswer: {letter_of(prompt, option)}"


def jurors():
    """Three models: the first prefers the first position, the second knows one fact, the third two; it is the chair."""
    said = {ONE: first_option, TWO: knows(0), THREE: knows(0, 1)}
    return {
        name: model(ScriptedJuror(opinion=opinion, mark=mark, chair=chair), name=name) for name, opinion in said.items()
    }


def table(*arguments, monkeypatch, capsys) -> str:
    """The script as a user runs it; what it prints."""
    monkeypatch.setattr(sys, "argv", ["edgejury_table.py", *map(str, arguments)])
    capsys.readouterr()
    assert edgejury_table.main() == 0
    return capsys.readouterr().out


def sections(printed: str) -> dict[str, list[dict[str, str]]]:
    """The rows of each table by the heading above it."""
    result: dict[str, list[dict[str, str]]] = {}
    for part in re.split(r"^#+ ", printed, flags=re.MULTILINE)[1:]:
        lines = [
            [cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("| ")
        ]
        if lines:
            head = lines[0]
            rows = [row for row in lines[1:] if not row[0].startswith("---") and row != head]
            result[part.partition("\n")[0]] = [dict(zip(head, row, strict=False)) for row in rows]
    return result


def some_of(path: Path, expected: tuple[str, ...]) -> None:
    """Leave the wanted methods of a sweep."""
    head, *blocks = re.split(r"(?=^\[\[strategy\]\])", path.read_text(), flags=re.MULTILINE)
    path.write_text(head + "".join(block for block in blocks if any(word in block for word in expected)))


@pytest.fixture
def swept(tmp_path, monkeypatch, capsys):
    """Sweeps over scripted jurors, run; the jury's models by name."""
    opened = jurors()

    async def load_model(name: str, settings: Settings, *_):
        return opened[name]

    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.chdir(tmp_path)
    write_questions(Path("tqa.jsonl"))
    plan = ("--jurors", ONE, TWO, THREE, "--one-model", TWO, "--sizes", 2, "--data", "tqa.jsonl", "--samples", 1, 8)
    table("plan", *plan, "--timed-limit", 1, "--out", "plans", monkeypatch=monkeypatch, capsys=capsys)
    some_of(Path("plans/ablations.toml"), ("shuffle = false", 'parity = "reference"'))
    some_of(Path("plans/timed.toml"), ('review = false\ndecision = "vote"',))
    for name in SWEEPS:
        more = ("--store", "runs/store.sqlite3", "--concurrency", "8")
        single = ("--concurrency", "1", "--reuse", "none")
        where = (f"plans/{name}.toml", "--out", f"runs/{name}")
        assert main(["eval", "sweep", *where, *(single if name == "timed" else more)]) == 0
    return opened


@pytest.mark.nightly
def test_tables_of_sweeps_over_three_jurors(swept, monkeypatch, capsys):
    folders = [Path("runs") / name for name in SWEEPS[:-1]]
    arguments = ("table", *folders, "--timed", "runs/timed", "--plans", "plans")
    printed = table(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    result = sections(printed)
    right = {row["method"].removesuffix(" (the best single model)"): row for row in result["Right answers"]}
    assert list(right)[:11] == [
        *("one, one sample", "three, one sample", "two, one sample"),
        *("juror 1: one, direct-answerer", "juror 2: two, edge-case-finder"),
        *("juror 3: three, step-by-step-explainer", "three, self-consistency, n = 1"),
        *("three, self-consistency, n = 8", VOTE, f"{VOTE}, minus roles", f"{VOTE}, minus shuffled orders"),
    ]
    assert list(right)[11:] == [
        *("edgejury", "edgejury, without early exit"),
        *("edgejury, as the reference ranks", "edgejury, minus chair: the best ranked"),
        *("edgejury, minus chair: the best ranked, as the reference ranks", "edgejury, minus chair: vote"),
        *("edgejury, minus review", "edgejury, minus roles", "edgejury, minus shuffled orders"),
    ]
    shares = {name: row["right % [95 %]"].split()[0] for name, row in right.items()}
    assert {shares[f"{who}"] for who in ("two, one sample", "juror 2: two, edge-case-finder")} == {"33.3"}
    assert {shares[name] for name in ("three, self-consistency, n = 8", "edgejury", "edgejury, minus roles")} == {
        "66.7"
    }
    equal = "less self-consistency at equal calls"
    assert right["edgejury"][equal].startswith("+0.0 [")
    assert right["edgejury"][equal].endswith("], p = 1.000, p = 1.000 (Holm)")
    assert right["two, one sample"][equal].startswith("-33.3 [")
    assert right["two, one sample"]["less edgejury"] == right["two, one sample"][equal]
    assert (right["edgejury"]["less edgejury"], right[VOTE]["less the majority"]) == ("", "")

    costs = {row["method"]: row for row in result["Costs"]}
    again = {name: int(row["written again"]) for name, row in costs.items() if row["written again"]}
    written = {name: int(row["tokens written"]) for name, row in costs.items()}
    asked = {"one, one sample", "two, one sample", "three, self-consistency, n = 8"}
    asked |= {"edgejury, without early exit"}
    partly = {f"edgejury, minus {part}" for part in ("review", "roles", "shuffled orders")}
    partly |= {"edgejury, minus chair: the best ranked, as the reference ranks"}
    assert {name for name, tokens in again.items() if tokens} == asked | partly  # all else was there already
    assert all(again[name] == written[name] for name in asked)
    assert again["edgejury, minus review"] == written["edgejury, minus review"] - written[VOTE]  # the chair single
    # the texts are the same, and so is what is asked of them; without a role one opinion is a plain sample
    assert again["edgejury, minus roles"] == written[VOTE] - 8
    assert again["edgejury, minus shuffled orders"] <= written["edgejury"]
    calls = {name: row["calls"] for name, row in costs.items()}
    assert (calls[VOTE], calls["edgejury, without early exit"], calls["edgejury, minus chair: vote"]) == (
        "3.0",
        "7.0",
        "6.0",
    )
    assert written["three, self-consistency, n = 8"] == 8 * written["three, one sample"]
    assert int(costs["edgejury"]["written by one"]) + int(costs["edgejury"]["written by two"]) < written["edgejury"]
    clocked = {name: row["s p50 / p95 (n)"] for name, row in costs.items() if row["s p50 / p95 (n)"]}
    assert list(clocked) == [VOTE]
    assert clocked[VOTE].endswith("(1)")

    went = {row["method"]: row for row in result["How it went"]}
    assert (went["edgejury"]["full %"], went["edgejury"]["reviews read %"]) == ("100", "100.0 of 9")
    assert (went["edgejury, minus review"]["no_review %"], went[VOTE]["chair's answers read %"]) == ("100", "")
    positions = {row["who"]: row for row in result["Positions of the chosen options"]}
    assert positions[f"{VOTE}: juror 1 (one)"]["1 chosen / expected"] == "3 / 1.0"
    assert positions[f"{VOTE}, minus shuffled orders: juror 1 (one)"]["first position %"] == "100.0"
    assert "edgejury: first options beyond chance, with shuffled orders less without: " in printed
    assert {row["reviews"] for row in result["Marks by the position of the text"] if row["reviewer"] == "all"} == {"9"}
    errors = {row["jurors"]: row for row in result["Errors in common"] if row["jury"] == VOTE}
    together = errors["2 (two), 3 (three)"]
    assert (together["wrong %"], together["both wrong, the same option %"]) == ("66.7, 33.3", "33.3")
    assert together["correlation of errors [95 %]"].startswith("+0.50 [")
    assert {row["method"] for row in result["Confidence"]} >= {"edgejury", VOTE, "three, self-consistency, n = 8"}
    stages = {row["stage"]: row for row in result["Stages"]}
    assert [stages[name]["calls"] for name in ("answer", "review", "chair")] == ["3.00", "3.00", "1.00"]
    several = {row["method"]: row for row in result["truthfulqa:mc1: one model in several roles"]}
    assert several["two, edgejury, n = 2"]["calls"] == "5.0"
    assert re.fullmatch(r"\+0.0 \[.*\], p = 1.000", several["two, edgejury, n = 2"]["less the model, one sample"])
    assert printed.endswith("Everything that was begun is finished.\n")

    # what is not there is said, and what is there is compared on the rows of both
    by_name = {p.name: load_run(p) for directory in folders for p in directory.iterdir() if (p / "run.json").exists()}
    named = dict(zip(names_of(list(by_name.values())), by_name.values(), strict=True))
    shutil.rmtree(named["edgejury, minus roles"].path)
    short = named["edgejury, minus review"].path / "items.jsonl"
    short.write_text("".join(short.read_text().splitlines(keepends=True)[:2]))
    Path("runs/store.sqlite3").rename("moved.sqlite3")
    printed = table(*arguments, "--store", "moved.sqlite3", monkeypatch=monkeypatch, capsys=capsys)
    assert "\n| edgejury, minus review | 2 of 3 | " in printed
    unfinished = printed.partition("## Not finished")[2].split("\n- ")[1:]
    assert [line.split(" (")[0] for line in unfinished] == ["edgejury, minus review", "jury.toml: edgejury of m/three"]
    assert "2 of 3 rows" in unfinished[0]
    assert "roles = False" in unfinished[1]
    printed = table(*arguments[:-2], monkeypatch=monkeypatch, capsys=capsys)  # without the store and the plans
    assert "no --plans" in printed
    assert "How it went" in printed
    assert not sections(printed).get("Errors in common")


def test_position_bias_by_hand():
    counts, expected, p, distance = edgejury_table.position_bias([(0, 4)] * 60)
    assert (counts.tolist(), expected.tolist(), distance) == ([60, 0, 0, 0], [15.0] * 4, 0.75)
    assert p < 1e-9
    assert edgejury_table.position_bias([(i % 4, 4) for i in range(60)])[2:] == (1.0, 0.0)
    counts, expected, _, distance = edgejury_table.position_bias([(1, 2), (0, 4), (3, 4)])
    assert (counts.tolist(), expected.tolist()) == ([1, 1, 0, 1], [1.0, 1.0, 0.5, 0.5])
    assert distance == pytest.approx(1 / 6)
