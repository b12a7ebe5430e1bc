"""`reason eval calibrate` and `--calibration` as a user types them, and every way to get them wrong."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from reason.core.calibration import load_calibration_map
from reason.evals.results import ResultRow
from reason.evals.run_directory import read_rows
from support.calibration_maps import failed_row, make_row, write_run
from support.eval_tasks import adder, write_sums

VOTES = ("-s", "self-consistency", "--set", "n=3", "--set", "max_tokens=40", "--set", "temperature=1.0", "-m", "adder")


def overconfident(items: int) -> list[ResultRow]:
    """Votes of eight that are right half as often as they say, in even turns."""
    rng = random.Random(1)
    rows = []
    for i in range(items):
        votes = rng.randint(2, 8)
        rows.append(make_row(f"item-{i:03}", votes / 8, rng.random() < votes / 16))
    return rows


@pytest.fixture
def sums(home: Path) -> Path:
    return write_sums(home / "sums.jsonl", 24)


def test_map_is_fitted_to_a_run_directory(cli):
    run = write_run([*overconfident(120), failed_row("silent", None)], Path("votes"))
    status, out, err = cli("eval", "calibrate", str(run), "--method", "platt", "--out", "maps/votes.json")
    assert status == 0, err
    results = load_calibration_map(Path("maps/votes.json"))
    assert (results.curve.method, results.items, results.folds) == ("platt", 120, 5)
    assert f"{results.before.ece:.4f}" in out
    assert f"{results.after.ece:.4f}" in out
    assert "out of sample (5 folds)" in out
    assert "1 rows without a confidence are left out" in err
    assert "reason ask QUESTION -s self-consistency --calibration maps/votes.json" in err


def test_map_that_is_worse_out_of_sample_or_constant_is_a_warning(cli):
    rng = random.Random(3)
    worse = [make_row(f"i{i}", c := rng.uniform(0.05, 0.95), rng.random() < c) for i in range(40)]
    constant = [make_row(f"i{i}", 0.9 if i % 3 else 0.6, not i % 3) for i in range(30)]
    for rows, method, warning in (
        (worse, "isotonic", "out of sample the map made ECE, Brier worse; the stated confidence may be the better one"),
        (constant, "platt", "the map is constant"),
    ):
        run = write_run(rows, Path(method))
        status, _, err = cli("eval", "calibrate", str(run), "--method", method, "--out", "m.json")
        assert (status, warning in err) == (0, True), err


def test_invalid_calibration_is_refused(cli):
    few = write_run(overconfident(10), Path("few"))
    complete = write_run(overconfident(30), Path("whole"))
    for arguments, message in (
        ((few, "--out", "m.json"), "at least 20 items"),
        ((complete, "--out", "m.json", "--method", "beta"), "'platt', 'isotonic'"),
        (("nowhere", "--out", "m.json"), "holds no evaluation"),
        ((complete,), "--out"),
    ):
        status, out, err = cli("eval", "calibrate", *map(str, arguments))
        assert (status, out) == (2, ""), err
        assert message in err
    assert not Path("m.json").exists()
    Path("file").write_text("")
    status, _, err = cli("eval", "calibrate", str(complete), "--out", "file/m.json")
    assert status == 3
    assert "file/m.json" in err


def test_from_development_to_an_answer(cli, scripted, sums):
    """A run, its map, another run with it, a question with it, and the question's run shown."""
    model = scripted(adder)
    common = ("eval", str(sums), "--map", "question=q", *VOTES)
    assert cli(*common, "--out", "dev", "--seeds", "1")[0] == 0
    status, _, err = cli("eval", "calibrate", "dev", "--method", "platt", "--out", "map.json")
    assert status == 0, err
    results = load_calibration_map(Path("map.json"))
    assert results.engines["main"] == model.identity

    status, out, err = cli(*common, "--out", "test", "--seed", "7", "--seeds", "1", "--calibration", "map.json")
    assert status == 0, err
    assert "calibrated (" in out
    assert "the calibration map map (platt, sums) was fitted on this dataset" in err
    rows = read_rows(Path("test"))
    assert all(r.calibrated_confidence == results.apply(r.confidence or 0.0) for r in rows)

    status, out, err = cli("ask", "What is 3 + 4?", *VOTES, "--calibration", "map.json", "--seed", "1", "--json")
    assert status == 0, err
    answer = json.loads(out)
    assert answer["calibrated_confidence"] == results.apply(answer["confidence"])
    assert answer["calibration"] == "map (platt, sums)"
    status, out, err = cli("ask", "What is 3 + 4?", *VOTES, "--calibration", "map.json", "--seed", "1")
    assert f"confidence {answer['confidence']:.2f} (calibrated {answer['calibrated_confidence']:.2f})" in err
    status, out, _ = cli("runs", "show", answer["run_id"])
    assert f"calibrated {answer['calibrated_confidence']:.2f} by map (platt, sums)" in out


def test_maps_are_stored_with_the_run_and_refused_for_other_setups_before_any_call(cli, scripted, sums):
    model = scripted(adder)
    assert cli("eval", str(sums), "--map", "question=q", *VOTES, "--seeds", "1", "--out", "dev")[0] == 0
    assert cli("eval", "calibrate", "dev", "--out", "map.json")[0] == 0
    ask = ("ask", "What is 3 + 4?")
    made = len(model.made)
    model.identity, own = "another@1", model.identity
    for how, message in (
        (("-s", "cot", "-m", "adder"), "fitted to strategy 'self-consistency', not to 'cot'"),
        (VOTES, "(scripted@1), not to adder (another@1)"),
    ):
        status, _, err = cli(*ask, *how, "--calibration", "map.json")
        assert (status, message in err) == (2, True), err
    Path("torn.json").write_text("{")
    status, _, err = cli(*ask, *VOTES, "--calibration", "torn.json")
    assert (status, "torn.json is not a complete JSON file" in err) == (2, True)
    assert len(model.made) == made

    model.identity = own
    Path("reason.toml").write_text('strategy = "self-consistency"\n[calibration]\nself-consistency = "map.json"\n')
    status, out, err = cli(*ask, *VOTES, "--json")
    assert status == 0, err
    answer = json.loads(out)
    assert answer["calibration"] == "map (temperature, sums)"
    assert json.loads(cli(*ask, *VOTES, "--calibration", "none", "--json")[1])["calibration"] is None
    Path("map.json").unlink()
    status, _, err = cli(*ask, *VOTES)
    assert (status, "no calibration map map.json" in err) == (2, True)
    assert cli("runs", "replay", answer["run_id"])[0] == 0
