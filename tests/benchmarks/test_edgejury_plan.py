"""The sweeps that the table of juries is made from."""

from __future__ import annotations

import sys

import edgejury_table
import pytest
from edgejury_table import equal_calls, juror_instruction
from reason.core.types import Question
from reason.evals.sweep import expand_sweep, read_sweep
from reason.reasoning.strategy import create_strategy
from reason.verify.edgejury.answering import answer_prompt

THREE = ("m/one", "m/two", "m/three")
VOTE = {"review": False, "decision": "vote", "early_exit": False}
LIMITS = {"max_tokens": 64}


@pytest.fixture
def plan(tmp_path, monkeypatch, capsys):
    """Writes the sweeps, and reads them by name."""

    def written(*more):
        arguments = ("plan", "--jurors", *THREE, "--limit", 30, "--tokens", 64, "--out", tmp_path / "plans", *more)
        monkeypatch.setattr(sys, "argv", ["edgejury_table.py", *map(str, arguments)])
        assert edgejury_table.main() == 0
        paths = capsys.readouterr().out.split()
        return {path.rpartition("/")[2]: read_sweep(tmp_path / "plans" / path.rpartition("/")[2]) for path in paths}

    return written


def test_sweeps_are_of_the_jury_its_ablations_and_its_baselines(plan):
    limits = ("--ablations-limit", 20, "--one-model-limit", 10)
    sweeps = plan(
        "--one-model", "m/two", "--sizes", 2, 4, "--data", "tqa.jsonl", "--samples", 1, 8, "--seeds", 3, 4, *limits
    )
    assert list(sweeps) == ["jury.toml", "single.toml", "ablations.toml", "one-model.toml", "timed.toml"]
    for name, sweep in sweeps.items():
        (dataset,) = sweep.dataset
        assert (dataset.name, dataset.variant, dataset.data.name) == ("truthfulqa", "mc1", "tqa.jsonl")
        limited = {"timed.toml": 6, "ablations.toml": 20, "one-model.toml": 10}
        assert (dataset.limit, sweep.seeds) == (limited.get(name, 30), [3, 4])
        for run in expand_sweep(sweep):  # every parameter is one
            create_strategy(run.strategy, run.parameters)
        if name not in ("single.toml", "one-model.toml"):
            (models,) = sweep.models
            assert (models.main, models.jurors, models.chair) == ("m/three", THREE, "m/three")
    chain = {"max_tokens": 64, "instruction": juror_instruction()}

    def juries(name):
        runs = [run for run in expand_sweep(sweeps[name]) if run.strategy == "edgejury"]
        assert all(run.parameters.items() >= LIMITS.items() for run in runs)
        return [{k: v for k, v in run.parameters.items() if k not in LIMITS} for run in runs]

    sampled = [r.parameters for r in expand_sweep(sweeps["jury.toml"]) if r.strategy == "self-consistency"]
    assert sampled == [{"n": 8, **chain}, {"n": 1, **chain}]
    top = [{"decision": "top"}, {"decision": "top", "parity": "reference"}]
    assert juries("jury.toml") == [
        *({"early_exit": False}, {}, VOTE, {"decision": "vote"}, *top, {"review": False}),
        *({"roles": False}, {"roles": False, **VOTE}),
    ]
    assert juries("ablations.toml") == [
        *({"shuffle": False}, {"shuffle": False, **VOTE}),
        *({"anonymise": False}, {"parity": "reference"}),
    ]
    assert juries("one-model.toml") == [{"n": 4}, {"n": 4, **VOTE}, {"n": 2}, {"n": 2, **VOTE}]
    assert [m.main for m in sweeps["one-model.toml"].models] == ["m/two"]
    assert sweeps["one-model.toml"].models[0].jurors == ()
    assert [(r.models.main, r.strategy, r.parameters) for r in expand_sweep(sweeps["single.toml"])] == [
        (model, "cot", {"temperature": 0.7, **chain}) for model in ("m/three", "m/one", "m/two")
    ]
    assert juries("timed.toml") == [VOTE, {"review": False}, {}]


def test_unrequested_sweeps_are_not_planned(plan):
    sweeps = plan()
    assert "one-model.toml" not in sweeps
    assert sweeps["jury.toml"].dataset[0].data is None
    sampled = [r.parameters["n"] for r in expand_sweep(sweeps["jury.toml"]) if r.strategy == "self-consistency"]
    assert sampled == [8, 4, 2, 1]
    assert {r.strategy for r in expand_sweep(sweeps["single.toml"])} == {"cot"}


def test_models_instruction_and_parameters_can_be_set(plan):
    more = ("--likelihood", "--step-by-step", "--choice-seed", 1, "--best", "m/one", "--chair", "m/four")
    sweeps = plan(*more, "--set", 'judge="lexical"', "roles=false")
    (models,) = sweeps["jury.toml"].models
    assert (models.main, models.chair) == ("m/one", "m/four")
    assert {r.strategy for r in expand_sweep(sweeps["single.toml"])} == {"cot", "logprob"}
    assert sweeps["jury.toml"].dataset[0].choice_seed == 1
    for run in expand_sweep(sweeps["jury.toml"]):
        assert "instruction" not in run.parameters
        if run.strategy == "edgejury":
            reported = {name: run.parameters[name] for name in ("judge", "roles")}
            assert reported == {"judge": "lexical", "roles": False}


def test_chains_get_the_instruction_of_a_juror_without_a_role():
    question = Question(text="Who sleeps?", choices=("cats", "dogs", "stones"))
    assert answer_prompt(None, question).messages[-1].content.endswith(f"\n\n{juror_instruction()}")
    assert "letter" in juror_instruction()


def test_equal_calls_are_the_published_count():
    assert [equal_calls(n) for n in (1, 3, 4)] == [8, 8, 10]
