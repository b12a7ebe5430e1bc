"""Kills of a run with tools: no write is repeated, no result lost, and each unknown outcome is asked about."""

from __future__ import annotations

import pytest
from support.loop_drill import drill


@pytest.mark.timeout(1800)  # kills are hundreds of processes, which a busy machine starts slowly
@pytest.mark.parametrize("kills", [100, pytest.param(1000, marks=pytest.mark.nightly)])
def test_kills_repeat_no_write_and_lose_no_result(tmp_path, kills):
    report = drill(tmp_path, seed=kills, kills=kills)
    assert (report.repeated, report.faults) == (0, [])
    assert report.asked > 0
