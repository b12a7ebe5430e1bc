"""One short drill of each kind: a fault loses no run, and no completion is paid twice."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.forked_server import ForkedChild, ForkServer
from support.postgres_server import CannotStart

pytest.importorskip("fastapi")
from drills import fault_drills

pytestmark = pytest.mark.nightly

RUNS = 8


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    fork_server = ForkServer()
    yield fork_server
    fork_server.close()


@pytest.fixture(autouse=True)
def quick(fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`reason serve` is forked, so that it begins at once."""
    from sidecar_servers import Process

    start = Process.spawned

    def spawned(
        self: Process, command: Sequence[str], directory: Path, environment: Mapping[str, str]
    ) -> ForkedChild | subprocess.Popen[bytes]:
        if Path(command[0]).name == "reason":
            return ForkedChild(fork_server, command, directory, environment, self.log)
        return start(self, command, directory, environment)

    monkeypatch.setattr(Process, "spawned", spawned)


def held(outcome: Any) -> None:
    assert outcome.faults == []
    assert (outcome.lost, outcome.doubled, outcome.paid_twice) == ([], [], 0)


def test_killed_sidecar_loses_no_run(tmp_path):
    outcome = fault_drills.drill_sidecar_kill(tmp_path, 0, 1, RUNS)
    held(outcome)
    assert outcome.runs == RUNS


def test_restarted_model_server_loses_no_run(tmp_path):
    held(fault_drills.drill_model_server_kill(tmp_path, 0, 1, RUNS))


def test_full_disk_loses_no_run(tmp_path):
    outcome = fault_drills.drill_full_disk(tmp_path, 0, 1, RUNS)
    held(outcome)
    assert outcome.runs == RUNS + RUNS // 2


def test_file_size_limit_loses_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(fault_drills, "MOUNT", ["false"])
    outcome = fault_drills.drill_full_disk(tmp_path, 0, 1, RUNS)
    held(outcome)
    assert outcome.notes[fault_drills.SmallFiles.kind] == 1


def test_disconnected_clients_leave_nothing_running(tmp_path):
    outcome = fault_drills.drill_client_disconnects(tmp_path, 0)
    held(outcome)
    assert outcome.runs == len(fault_drills.PHASES)


def test_restarted_database_loses_no_run(tmp_path):
    try:
        outcome = fault_drills.drill_postgres_kill(tmp_path, 0, 1, RUNS)
    except CannotStart as e:
        pytest.skip(f"no Postgres: {e}")
    held(outcome)
