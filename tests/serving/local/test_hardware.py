from __future__ import annotations

import pytest
from reason.serving.local import hardware
from reason.serving.local.hardware import (
    fastest_threads,
    max_threads,
)


@pytest.mark.parametrize(
    ("cores", "seconds_of", "threads"),
    [
        (1, {1: 4.0}, 1),
        (2, {1: 4.0, 2: 3.0}, 2),
        (2, {1: 4.0, 2: 5.0}, 1),
        (6, {1: 8.0, 2: 5.0, 4: 4.0, 6: 3.0}, 6),
        (16, {1: 8.0, 2: 5.0, 4: 4.0, 8: 6.0, 16: 1.0}, 4),
    ],
)
def test_the_fastest_number_of_threads_is_chosen(monkeypatch, cores, seconds_of, threads):
    count, clock = [1], [0.0]

    def step() -> None:
        clock[0] += seconds_of[count[0]]

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(hardware, "_physical_cores", lambda: cores)
    monkeypatch.setattr(hardware.torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(hardware.torch, "set_num_threads", lambda value: count.__setitem__(0, value))
    monkeypatch.setattr(hardware.time, "perf_counter", lambda: clock[0])
    assert fastest_threads(step) == threads
    assert count == [1]  # as before


def test_threads_of_the_environment_are_the_maximum(monkeypatch):
    monkeypatch.setattr(hardware, "_physical_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert max_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert max_threads() == 8
