"""Short versions of `tests/drills/fault_drill.py`: what breaks costs no run, and pays for no reply twice."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.forked_server import ForkedChild, Mother

pytest.importorskip("fastapi")

RUNS = 8


@pytest.fixture(scope="module")
def mother() -> Iterator[Mother]:
    mother = Mother()
    yield mother
    mother.close()


@pytest.fixture(autouse=True)
def quick(mother: Mother, monkeypatch: pytest.MonkeyPatch) -> None:
    """`reason serve` is forked, so that it begins at once."""
    from sidecar_servers import Process

    start = Process.spawned

    def spawned(
        self: Process, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> ForkedChild | subprocess.Popen[bytes]:
        if Path(command[0]).name == "reason":
            return ForkedChild(mother, command, folder, environment, self.log)
        return start(self, command, folder, environment)

    monkeypatch.setattr(Process, "spawned", spawned)


def held(outcome: Any) -> None:
    assert outcome.faults == []
    assert (outcome.lost, outcome.doubled, outcome.paid_twice) == ([], [], 0)


def test_a_killed_sidecar_loses_no_run(tmp_path: Path) -> None:
    import drills.drills as drill_kill

    outcome = drill_kill.drill_sidecar_kill(tmp_path, 0, 1, RUNS)
    held(outcome)
    assert outcome.runs == RUNS


def test_a_model_server_that_dies_and_comes_back_loses_no_run(tmp_path: Path) -> None:
    import drills.drills as drill_backend

    held(drill_backend.drill_model_server_kill(tmp_path, 0, 1, RUNS))


def test_a_full_disk_loses_no_run(tmp_path: Path) -> None:
    import drills.drills as drill_disk

    outcome = drill_disk.drill_full_disk(tmp_path, 0, 1, RUNS)
    held(outcome)
    assert outcome.runs == RUNS + RUNS // 2


def test_files_that_must_not_grow_lose_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import drills.drills as drill_disk

    monkeypatch.setattr(drill_disk, "MOUNT", ["false"])
    outcome = drill_disk.drill_full_disk(tmp_path, 0, 1, RUNS)
    held(outcome)
    assert outcome.notes[drill_disk.SmallFiles.kind] == 1


def test_clients_that_go_away_leave_nothing_running(tmp_path: Path) -> None:
    import drills.drills as drill_clients

    outcome = drill_clients.drill_client_disconnects(tmp_path, 0)
    held(outcome)
    assert outcome.runs == len(drill_clients.PHASES)


def test_a_database_that_dies_and_comes_back_loses_no_run(tmp_path: Path) -> None:
    import drills.drills as drill_postgres
    from support.postgres_server import CannotStart

    try:
        outcome = drill_postgres.drill_postgres_kill(tmp_path, 0, 1, RUNS)
    except CannotStart as e:
        pytest.skip(f"no Postgres: {e}")
    held(outcome)
