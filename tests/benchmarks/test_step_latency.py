"""The latency model: what it is fitted to, that it finds what made the times, and what it refuses."""

import random

import pytest
from reason.core.events import CallFinished, CallStarted
from reason.core.store.sqlite import SqliteStore
from router_table import LatencyModel, Observation, fit, observations
from support.two_models import TwoModels

TRUE = LatencyModel({"large": 0.002, "small": 0.0005}, {"large": 0.05, "small": 0.01})


def timed(count=40, noise=0.0):
    rng = random.Random(5)
    made = []
    for _ in range(count):
        writer = rng.choice(["large", "small"])
        computed, generated = rng.randrange(1, 400), rng.randrange(1, 200)
        seconds = TRUE.predict([(writer, computed, generated)]) * (1 + rng.uniform(-noise, noise))
        made.append(Observation(writer, computed, generated, seconds))
    return made


def test_fit_recovers_the_true_costs():
    result = fit(timed())
    for writer in ("large", "small"):
        assert result.prefill_s[writer] == pytest.approx(TRUE.prefill_s[writer])
        assert result.token_s[writer] == pytest.approx(TRUE.token_s[writer])
    assert result.predict([("large", 100, 10), ("small", 0, 7)]) == pytest.approx(0.2 + 0.5 + 0.07)
    rough = fit(timed(400, noise=0.1))
    assert rough.token_s["large"] == pytest.approx(0.05, rel=0.05)


def test_calls_are_read_from_the_trace():
    def started(number, role="main", replayed=0, operation="generate"):
        return CallStarted(
            number=number, role=role, model="m", operation=operation, requests=1, samples=1, replayed=replayed
        )

    def finished(parent):
        return CallFinished(
            parent=parent, role="x", model="m", seconds=2.0, tokens=7, prompt_tokens=50, cached_tokens=20
        )

    events = [started(1), started(2, "small"), finished(2), finished(1), started(3, replayed=1), finished(3)]
    events += [started(4, "judge"), finished(4), started(5, operation="next_token"), finished(5)]
    assert observations(events) == [Observation("small", 30, 7, 2.0), Observation("large", 30, 7, 2.0)]


async def test_run_is_timed_once_and_a_replay_never(tmp_path):
    store = await SqliteStore.open(tmp_path / "runs.sqlite3")
    harness = TwoModels(store)
    made = await harness.solve(threshold=0.5)
    seen = observations(harness.sink.events)
    assert [(o.writer, o.computed, o.generated) for o in seen] == [(w, c, n) for w, _, c, n in made.notes["calls"]]
    await harness.solve(threshold=0.5, replay=True)
    assert observations(harness.sink.events) == []
    await store.aclose()
