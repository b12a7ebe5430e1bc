"""`reason calibrate router`: exact thresholds of two scripted models, resuming, refused input."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from reason.core.settings import Settings
from reason.routers.router_files import load_glimprouter_file, quantiles_of
from support.small_and_large import LARGE, SMALL, both_models, entropy_of

PAIR = ("-m", LARGE, "--small-model", SMALL)
N = 8
"""Sums 0 + 1 to 7 + 8: the small model has 1 to 8 ways to begin."""


@pytest.fixture
def models(home, monkeypatch):
    """The two models, and a file of sums."""
    opened = both_models()

    async def load_model(name: str, settings: Settings, *_progress: object):
        return opened[name]

    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    rows = [f'{{"id": "s{i}", "question": "What is {i} + {i + 1}?", "answer": "{2 * i + 1}"}}\n' for i in range(N)]
    Path("sums.jsonl").write_text("".join(rows))
    return opened


def calibrate(cli, *more, out="pair.json", data=("--data", "sums.jsonl"), pair=PAIR):
    return cli("calibrate", "router", *data, *pair, "--out", out, *more)


ENTROPIES = [entropy_of(a) for a in range(N)] + [0.0] * (2 * N)
"""Solutions of three steps, of which only the first is uncertain."""


def test_router_of_a_model_pair_is_calibrated_and_used(models, cli):
    status, out, err = calibrate(cli, "--rate", "0.25")
    assert status == 0, err
    router = load_glimprouter_file(Path("pair.json"))
    assert (router.steps, router.questions, router.entropy, router.k) == (3 * N, N, "top_k", 20)
    assert router.quantiles == pytest.approx(quantiles_of(ENTROPIES), abs=1e-12)
    assert router.threshold == pytest.approx(entropy_of(2))  # 6 of 24 steps: those of 2 to 7
    assert (router.rate, router.measured_rate) == (0.25, 0.25)
    assert router.engines == {"main": f"{LARGE}@1", "small": f"{SMALL}@1"}
    assert (router.dataset, router.small, router.large) == ("sums", SMALL, LARGE)
    assert models[LARGE].made == []
    assert "top-20 entropies of 24 steps of 8 questions of sums" in out
    assert "25%" in out
    assert "24 steps are few" in err
    assert f"reason ask QUESTION -s glimprouter --set router=pair.json -m {LARGE} --small-model {SMALL}" in err

    for a, by_large in ((1, 0), (2, 1)):  # fewer ways to begin than the threshold has, and as many
        status, out, err = cli(
            "ask", f"What is {a} + {a + 1}?", "-s", "glimprouter", "--set", "router=pair.json", *PAIR, "--json"
        )
        assert status == 0, err
        answer = json.loads(out)
        assert answer["text"].startswith("Z") == bool(by_large), answer["text"]


def test_repeated_command_pays_nothing(models, cli):
    assert calibrate(cli)[0] == 0
    made, first = len(models[SMALL].made), load_glimprouter_file(Path("pair.json"))
    status, _, err = calibrate(cli, "--rate", "0.1", out="other.json")
    assert status == 0, err
    assert len(models[SMALL].made) == made
    other = load_glimprouter_file(Path("other.json"))
    assert other.quantiles == first.quantiles
    assert other.threshold > first.threshold
    _, _, err = calibrate(cli, "--rate", "0.9", out="other.json")
    assert "the threshold sends 100.0% of these steps, not 90.0%: many steps have the same entropy" in err
    status, out, err = calibrate(cli, "--limit", "3", "--json", "--run-dir", "three")
    assert status == 0, err
    payload = json.loads(out)
    assert (payload["router"]["questions"], payload["run"], payload["rows_without_entropies"]) == (3, "three", 0)
    assert payload["digest"] == load_glimprouter_file(Path("pair.json")).digest


def test_calibration_from_an_existing_run_needs_no_model(models, cli, monkeypatch):
    assert cli("eval", "sums.jsonl", "-s", "glimprouter", "--set", "threshold=1", *PAIR, "--out", "dev")[0] == 0

    async def load_model(*_):
        raise AssertionError("a model was opened")

    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    status, out, err = cli("calibrate", "router", "--from-run", "dev", "--out", "pair.json", "--json")
    assert status == 0, err
    payload = json.loads(out)
    assert payload["steps_by_large_model"] == sum(entropy_of(a) >= 1 for a in range(N))
    assert "steps were written by the large model" in err
    router = load_glimprouter_file(Path("pair.json"))
    assert router.parameters["threshold"] == 1.0
    assert router.steps == 3 * N

    Path("dev/store.sqlite3").rename("moved.sqlite3")
    assert (
        "there is no run store dev/store.sqlite3"
        in cli("calibrate", "router", "--from-run", "dev", "--out", "p.json")[2]
    )
    assert cli("calibrate", "router", "--from-run", "dev", "--out", "p.json", "--store", "moved.sqlite3")[0] == 0
    assert load_glimprouter_file(Path("p.json")).digest == router.digest


def test_interrupted_calibration_resumes(models, cli):
    steps = 0

    def interrupt():
        nonlocal steps
        steps += 1
        if steps == 100:
            os.kill(os.getpid(), signal.SIGINT)

    models[SMALL]._step = interrupt
    status, _, err = calibrate(cli, "--concurrency", "1")
    assert status == 130
    assert "the same command goes on" in err
    assert not Path("pair.json").exists()
    made = len(models[SMALL].made)
    status, _, err = calibrate(cli, "--concurrency", "1")
    assert status == 0, err
    assert load_glimprouter_file(Path("pair.json")).quantiles == pytest.approx(quantiles_of(ENTROPIES), abs=1e-12)
    again = [sample for sample in models[SMALL].made[made:] if sample in models[SMALL].made[:made]]
    assert len(again) <= 2  # the call that was cut off: a probe and a step


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--data", "sums.jsonl", *PAIR, "--rate", "0"), "routes no step to the large model"),
        (PAIR, "there is no calibration data"),
        (("--data", "sums.jsonl", "-m", LARGE), "no small model was named"),
        (("--data", "sums.jsonl", *PAIR, "--set", "threshold=1"), "threshold is not to be set here"),
        (("--data", "sums.jsonl", *PAIR, "--set", "thresold=1"), "unknown glimprouter parameter 'thresold'"),
        (("--data", "=x", *PAIR), "is not NAME or NAME=FILE"),
        (("--from-run", "nowhere"), "nowhere holds no evaluation"),
        (("--from-run", "nowhere", *PAIR), "--from-run uses the run as it is"),
    ],
)
def test_invalid_calibrations_are_refused(models, cli, arguments, why):
    status, _, err = cli("calibrate", "router", "--out", "pair.json", *arguments)
    assert status == 2
    assert why in err
    assert not Path("pair.json").exists()
    assert models[SMALL].made == []


def test_unwritable_output_is_refused_before_the_run(models, cli):
    Path("folder").mkdir()
    status, _, err = calibrate(cli, out="folder")
    assert (status, "it is a directory" in err, models[SMALL].made) == (1, True, [])
    assert calibrate(cli, "--limit", "2", "--run-dir", "w")[0] == 0
    made = len(models[SMALL].made)
    status, _, err = calibrate(cli, "--limit", "2", "--run-dir", "w", "--seed", "1")
    assert status == 2
    assert "w holds another run: seeds" in err
    assert len(models[SMALL].made) == made


def test_runs_of_other_strategies_are_refused(models, cli):
    assert cli("eval", "sums.jsonl", "--limit", "2", "-m", LARGE, "--out", "cot")[0] == 0
    status, _, err = cli("calibrate", "router", "--from-run", "cot", "--out", "pair.json")
    assert status == 2
    assert "the run is one of cot" in err
