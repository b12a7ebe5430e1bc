from __future__ import annotations

import gc

import pytest
from reason.sidecar.server import GC_THRESHOLDS, frozen_heap


@pytest.fixture(autouse=True)
def _frozen():
    """What the tests have imported is frozen (tests/conftest.py), and is so again."""
    yield
    gc.freeze()


def test_what_is_there_is_out_of_sight_as_long_as_the_server_runs():
    there = [[] for _ in range(2000)]
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with frozen_heap():
        assert gc.get_freeze_count() >= frozen + len(there)
        assert gc.get_threshold() == (GC_THRESHOLDS, *before[1:])
        made = []
        made.append(made)
        del made
        assert gc.collect() > 0  # objects created after the freeze are collected
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
