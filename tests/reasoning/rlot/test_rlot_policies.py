"""The policies on a scripted model: what each chooses, and what it asks for."""

import pytest
from reason.core.errors import DataError
from reason.reasoning.rlot.rlot import RLoT
from support.block_model import QUESTION, BlockRuns, BlockWorld
from support.navigators import stored


def kinds(runs):
    return [kind for kind, _, _ in runs.world.seen]


async def test_navigator_policy_takes_highest_value(store, tmp_path):
    runs = BlockRuns(store, BlockWorld())
    file = stored(tmp_path / "n.safetensors", [1, 0, 0, 0, -1], ends_at=2)
    made = await runs.solve(navigator=file)
    assert made.notes["chain"] == ["R", "R", "Ga"]
    assert made.notes["states"] == [[0] * 7, [3, 2, 3, 1, 2, 1, 3], [3, 2, 3, 1, 2, 2, 3]]
    assert made.notes["ended"] == "terminated"
    assert not made.notes["forced"]
    assert (made.notes["scores_requested"], made.notes["scores_missing"]) == (21, 0)
    assert made.best.answer == "7"
    assert runs.run.ledger.used("calls") == 1 + 3 + 3 + 1 == made.notes["calls"]
    notes = runs.notes("block.run")
    assert [(n["letter"], n["state"], n["missing"]) for n in notes] == [
        (letter, state, 0) for letter, state in zip(["R", "R", "Ga"], made.notes["states"], strict=True)
    ]
    assert notes[0]["legal"] == ["R", "D", "Db", "Ga"]
    assert notes[1]["legal"] == ["R", "D", "Db", "Rf", "Ga"]
    assert all(sum(note["q"]) == pytest.approx(0, abs=1e-3) for note in notes)
    (loaded,) = runs.notes("navigator.loaded")
    assert loaded["name"] == "by hand"
    assert runs.run.degraded == []


@pytest.mark.parametrize(("mode", "chain"), [("none", "D Rf Rf Ga"), ("reference", "R Rf Rf Ga")])
async def test_masked_block_is_replaced_by_best_legal(store, tmp_path, mode, chain):
    runs = BlockRuns(store, BlockWorld())
    file = stored(tmp_path / "n.safetensors", [0, 2, 1, 3, -1])
    made = await runs.solve(navigator=file, parity=mode, max_blocks=3)
    assert made.notes["chain"] == chain.split()
    assert made.notes["forced"]
    assert made.notes["ended"] == "limit"


@pytest.mark.parametrize(
    ("sequence", "chain", "asked"),
    [
        (("R", "Rf", "Ga"), "R Rf Ga", "reason finished refine finished answer"),
        (("R",), "R Ga", "reason finished answer"),
        (("Ga",), "Ga", "answer"),
        (("Db", "Ga", "R"), "Db Ga", "plans compare follow finished answer"),
    ],
)
async def test_fixed_sequence_needs_no_assessment(store, sequence, chain, asked):
    runs = BlockRuns(store, BlockWorld())
    made = await runs.solve(policy="fixed", sequence=sequence)
    assert made.notes["chain"] == chain.split()
    assert kinds(runs) == asked.split()
    assert made.notes["states"] == []
    assert made.notes["scores_requested"] == 0
    assert made.best.answer == "7"


def test_invalid_sequence_raises():
    with pytest.raises(ValueError, match="none to refine yet"):
        RLoT.Config(policy="fixed", sequence=("Rf", "Ga"))
    assert RLoT.Config(policy="fixed", sequence=("Rf", "Ga"), parity="reference").sequence == ("Rf", "Ga")
    with pytest.raises(ValueError, match="sequence"):
        RLoT.Config(policy="fixed", sequence=("X",))
    with pytest.raises(ValueError, match="sequence"):
        RLoT.Config(policy="fixed", sequence=())


async def test_model_policy(store):
    runs = BlockRuns(store, BlockWorld(choose=lambda steps: ("2", "4", "hm", "5")[len(steps)]))
    made = await runs.solve(policy="llm")
    assert made.notes["chain"] == ["D", "Rf", "R", "Ga"]  # what cannot be read is Reason
    assert made.notes["unparsed"] == {"choice": 1}
    assert kinds(runs).count("choose") == 4
    assert "assess" not in kinds(runs)


async def test_missing_navigator_error_names_it(store, tmp_path):
    runs = BlockRuns(store, BlockWorld())
    with pytest.raises(DataError, match=r"missing\.safetensors"):
        await runs.solve(navigator=str(tmp_path / "missing.safetensors"))
    assert runs.world.seen == []
    assert QUESTION.text
