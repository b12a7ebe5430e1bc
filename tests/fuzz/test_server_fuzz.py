"""The fuzz run of the server reports what blocks the event loop; its watchdog counts processor time."""

import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import pytest
from server_run import Report, ServerFuzzer, fuzz
from support.echo_model import PLANTED
from support.fuzz_requests import Case, catalogue
from support.loop_lag import MAX_BLOCK_S, LoopWatchdog
from support.watched_server import WatchedServer

PAUSE_S = 0.1


async def test_the_watchdog_counts_processor_time_and_no_waiting():
    with LoopWatchdog() as watchdog:
        await asyncio.sleep(PAUSE_S)
        time.sleep(3 * MAX_BLOCK_S)  # noqa: ASYNC251 (blocks the loop)
        await asyncio.sleep(PAUSE_S)
        assert watchdog.longest_s > 2 * MAX_BLOCK_S
        assert watchdog.longest_cpu_s < MAX_BLOCK_S
        end = time.thread_time() + 3 * MAX_BLOCK_S
        while time.thread_time() < end:
            pass
        await asyncio.sleep(PAUSE_S)
        assert watchdog.longest_cpu_s > 2 * MAX_BLOCK_S
        assert "test_the_watchdog_counts" in watchdog.stack


@pytest.mark.nightly
def test_a_fuzz_run_finds_only_the_planted_block():
    with WatchedServer() as server:
        report = fuzz(server, seconds=60, seed=1, only="budget {", max_rounds=1)
        assert report.faults == []
        assert report.num_cases > 10
        fuzzer = ServerFuzzer(server, report := Report())
        body = {"question": PLANTED}
        fuzzer.try_case(Case("planted", "POST", "/v1/reason", body, {"content-type": "application/json"}))
        (fault,) = report.faults
        assert "planted: POST /v1/reason" in fault
        assert "the event loop was blocked for" in fault
        assert "echo_model" in fault
        assert len({case.name for case in catalogue(fuzzer.kinds, 1, complete=False)}) > 1000
