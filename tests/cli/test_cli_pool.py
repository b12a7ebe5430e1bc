"""`reason pool` as a user types it, and recorded models through `ask`, `eval` and `sweep`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from reason.serving.recorded.pool import PoolSample, read_pool
from support.recorded_pools import sample, samples, write

VOTES = {"q1": ["4", "4", "5", "4", None], "q2": ["7", "8", "7", "8", "7"], "q3": ["9", "9", "9", None, "9"]}
GOLD = {"q1": "4", "q2": "8", "q3": "9"}
LENGTHS = [10, 20, 30, 40, 50]


def small() -> list[PoolSample]:
    """Three questions; the majority is right on the first and the last."""
    return [row for q, votes in VOTES.items() for row in samples(votes, LENGTHS, question_id=q, gold=GOLD[q])]


def large() -> list[PoolSample]:
    """One sample of another model, always right."""
    return [sample(q, 0, gold, gold=gold, model="big", completion_tokens=100, correct=True) for q, gold in GOLD.items()]


@pytest.fixture
def pool(home: Path) -> Path:
    return write(home, [*small(), *large()])


@pytest.fixture(autouse=True)
def without_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")


def test_import_writes_a_pool_and_shows_it(cli, home):
    source = home / "a.jsonl"
    rows = [{"name": "m", "q": q, "pred": v, "gold": GOLD[q], "n": i} for q in VOTES for i, v in enumerate(VOTES[q])]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = home / "out.jsonl.gz"
    mapping = "model=name,question_id=q,answer=pred,completion_tokens=n"
    status, shown, err = cli("pool", "import", str(source), "--map", mapping, "--dataset", "sums", "--out", str(out))
    assert status == 0, err
    header, row = (line.split() for line in shown.splitlines())
    assert " ".join(header) == "model dataset questions samples each accuracy unparsed cut tokens longest"
    assert row == ["m", "sums", "3", "15", "5", "60.0", "%", "2", "0", "2", "4"]
    assert "recorded: m on sums: gold, correct, completion_tokens" in err
    assert [s.answer for s in read_pool(out).samples] == [v for votes in VOTES.values() for v in votes]
    status, again, _ = cli("pool", "show", str(out), "--json")
    summary = json.loads(again)
    assert (summary["fingerprint"], summary["samples"]) == (read_pool(out).fingerprint, 15)
    assert summary["models"][0]["accuracy"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "pool.json"), "'pool.json' is no name of a pool"),
        (("--out", "p.jsonl", "--map", "label=x"), "--map names 'label'"),
        (("--out", "p.jsonl"), "line 1: the field 'model'"),
    ],
)
def test_a_mistaken_import_is_refused(cli, home, arguments, message):
    (home / "a.jsonl").write_text('{"answer": "4"}\n')
    status, out, err = cli("pool", "import", str(home / "a.jsonl"), *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_self_consistency_gives_the_majority_of_the_recorded_answers(cli, pool):
    options = ("-s", "self-consistency", "--set", "n=5", "--seeds", "2", "--out", "run")
    status, out, err = cli("eval", "pool", "--data", str(pool), "-m", f"recorded/{pool}:m", *options, "--json")
    assert status == 0, err
    summary = json.loads(out)
    assert summary["accuracy"]["value"] == pytest.approx(2 / 3)
    rows = [json.loads(line) for line in Path("run", "items.jsonl").read_text().splitlines()]
    assert [(r["id"], r["seed"], r["answer"], r["correct"]) for r in rows] == [
        (q, seed, answer, answer == GOLD[q]) for seed in (0, 1) for q, answer in (("q1", "4"), ("q2", "7"), ("q3", "9"))
    ]
    assert {r["ledger"]["completion_tokens"] for r in rows} == {sum(LENGTHS)}
    assert {r["id"]: r["confidence"] for r in rows} == {"q1": 0.6, "q2": 0.6, "q3": 0.8}
    orders = [[c["answer"] for c in r["candidates"]] for r in rows if r["id"] == "q3"]
    assert sorted(map(str, orders[0])) == sorted(map(str, orders[1]))
