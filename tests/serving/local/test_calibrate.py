from __future__ import annotations

import pytest
from reason.serving.local import calibrate
from reason.serving.local.calibrate import RETRY, StepWatch, default_kv_bytes, default_threads, native_format


def feed(watch: StepWatch, seconds: float, count: int = 8, rows: int = 1) -> None:
    for _ in range(count):
        watch.observe(rows, seconds)


def test_slow_steps_go_to_one_thread_and_back() -> None:
    watch = StepWatch(4)
    feed(watch, 0.01)
    assert watch.threads == 4
    feed(watch, 0.04)
    assert watch.threads == 1
    feed(watch, 0.02, RETRY)
    assert watch.threads == 4
    feed(watch, 0.01)
    assert watch.threads == 4


def test_larger_batches_may_take_longer() -> None:
    watch = StepWatch(2)
    feed(watch, 0.01, rows=1)
    feed(watch, 0.05, rows=16)
    assert watch.threads == 2


def test_one_slow_step_is_nothing() -> None:
    watch = StepWatch(2)
    feed(watch, 0.01, 20)
    feed(watch, 5.0, 2)
    assert watch.threads == 2


def test_one_thread_stays_one() -> None:
    watch = StepWatch(1)
    feed(watch, 0.01)
    feed(watch, 1.0)
    assert watch.threads == 1


def test_defaults_are_sane() -> None:
    assert native_format() in ("bf16", "fp32")
    assert default_threads() >= 1
    assert default_kv_bytes() >= 64 << 20


@pytest.mark.parametrize(("cores", "load", "threads"), [(1, 0.0, 1), (2, 0.0, 1), (8, 0.0, 7), (8, 7.0, 1)])
def test_threads_leave_a_core_and_give_way_to_others(monkeypatch, cores: int, load: float, threads: int) -> None:
    monkeypatch.setattr(calibrate, "_physical_cores", lambda: cores)
    monkeypatch.setattr(calibrate.os, "getloadavg", lambda: (load, load, load))
    assert default_threads() == threads
