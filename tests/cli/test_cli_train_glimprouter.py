"""`reason train glimprouter`: exact thresholds of two scripted models, refused input."""

from __future__ import annotations

import json
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


RUN = ("-s", "glimprouter", "--set", "threshold=100", "--set", "answer=writer", "--seeds", "1", *PAIR)


@pytest.fixture
def run(models, cli):
    """An evaluation in which the small model writes everything."""
    status, _, err = cli("eval", "sums.jsonl", *RUN, "--out", "dev")
    assert status == 0, err
    return "dev"


def calibrate(cli, *more, out="pair.json"):
    return cli("train", "glimprouter", "dev", "--out", out, *more)


ENTROPIES = [entropy_of(a) for a in range(N)] + [0.0] * (2 * N)
"""Solutions of three steps, of which only the first is uncertain."""


def test_router_of_a_model_pair_is_calibrated_and_used(models, run, cli):
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
    assert "routes 25.0% of these steps" in out
    assert "24 steps are few" in err
    assert f"reason ask QUESTION -s glimprouter --set router=pair.json -m {LARGE} --small-model {SMALL}" in err

    for a, by_large in ((1, 0), (2, 1)):  # fewer ways to begin than the threshold has, and as many
        status, out, err = cli(
            "ask", f"What is {a} + {a + 1}?", "-s", "glimprouter", "--set", "router=pair.json", *PAIR, "--json"
        )
        assert status == 0, err
        answer = json.loads(out)
        assert answer["text"].startswith("Z") == bool(by_large), answer["text"]


def test_calibrating_again_needs_no_model_and_moves_the_threshold(models, run, cli, monkeypatch):
    async def load_model(*_):
        raise AssertionError("a model was opened")

    monkeypatch.setattr("reason.agents.reasoner.load_model", load_model)
    assert calibrate(cli)[0] == 0
    first = load_glimprouter_file(Path("pair.json"))
    status, _, err = calibrate(cli, "--rate", "0.1", out="other.json")
    assert status == 0, err
    other = load_glimprouter_file(Path("other.json"))
    assert other.quantiles == first.quantiles
    assert other.threshold > first.threshold
    _, _, err = calibrate(cli, "--rate", "0.9", out="other.json")
    assert "the threshold routes 100.0% of these steps instead of 90.0%: many steps have the same entropy" in err
    status, out, err = calibrate(cli, "--json")
    payload = json.loads(out)
    assert (payload["router"]["questions"], payload["rows_without_entropies"]) == (N, 0)
    assert payload["digest"] == first.digest
    Path("dev/store.sqlite3").rename("moved.sqlite3")
    assert "there is no run store dev/store.sqlite3" in calibrate(cli)[2]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("dev", "--rate", "0"), "routes no step to the large model"),
        (("nowhere",), "nowhere holds no evaluation"),
    ],
)
def test_invalid_calibrations_are_refused(models, cli, arguments, why):
    status, _, err = cli("train", "glimprouter", *arguments, "--out", "pair.json")
    assert status == 2
    assert why in err
    assert not Path("pair.json").exists()


def test_runs_of_other_strategies_are_refused(models, cli):
    assert cli("eval", "sums.jsonl", "--limit", "2", "-m", LARGE, "--out", "cot")[0] == 0
    status, _, err = cli("train", "glimprouter", "cot", "--out", "pair.json")
    assert status == 2
    assert "the run is one of cot" in err
