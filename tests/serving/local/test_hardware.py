from __future__ import annotations

import pytest
from reason.serving.local import hardware
from reason.serving.local.hardware import RETRY_STEPS, ThreadTuner, default_kv_bytes, default_threads, native_format


def feed(tuner: ThreadTuner, seconds: float, count: int = 8, rows: int = 1) -> None:
    for _ in range(count):
        tuner.observe(rows, seconds)


def test_slow_steps_go_to_one_thread_and_back() -> None:
    tuner = ThreadTuner(4)
    feed(tuner, 0.01)
    assert tuner.num_threads == 4
    feed(tuner, 0.04)
    assert tuner.num_threads == 1
    feed(tuner, 0.02, RETRY_STEPS)
    assert tuner.num_threads == 4
    feed(tuner, 0.01)
    assert tuner.num_threads == 4


def test_larger_batches_may_take_longer() -> None:
    tuner = ThreadTuner(2)
    feed(tuner, 0.01, rows=1)
    feed(tuner, 0.05, rows=16)
    assert tuner.num_threads == 2


def test_single_slow_step_changes_nothing() -> None:
    tuner = ThreadTuner(2)
    feed(tuner, 0.01, 20)
    feed(tuner, 5.0, 2)
    assert tuner.num_threads == 2


def test_one_thread_stays_one() -> None:
    tuner = ThreadTuner(1)
    feed(tuner, 0.01)
    feed(tuner, 1.0)
    assert tuner.num_threads == 1


def test_defaults_are_sane() -> None:
    assert native_format() in ("bf16", "fp32")
    assert default_threads() >= 1
    assert default_kv_bytes() >= 64 << 20


@pytest.mark.parametrize(("cores", "load", "threads"), [(1, 0.0, 1), (2, 0.0, 1), (8, 0.0, 7), (8, 7.0, 1)])
def test_threads_leave_a_core_and_give_way_to_others(monkeypatch, cores: int, load: float, threads: int) -> None:
    monkeypatch.setattr(hardware, "_physical_cores", lambda: cores)
    monkeypatch.setattr(hardware.os, "getloadavg", lambda: (load, load, load))
    assert default_threads() == threads
