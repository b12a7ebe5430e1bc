"""`/readyz` of a real server whose store cannot be written any more: its disk is full."""

from __future__ import annotations

import contextlib
import subprocess

import httpx
import pytest
from support.injected_models import loaded_models
from support.scripted_model import ScriptedModel, replies
from support.sidecar_server import serving, settings_for


@pytest.fixture
def disk(tmp_path):
    """A small file system in memory; the test is skipped where none may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a file system may not be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def started(folder, monkeypatch):
    monkeypatch.setattr("reason.sidecar.run_manager.PROBE_INTERVAL_S", 0.0)
    models = {"scripted": ScriptedModel(replies("The answer is 4."))}
    with loaded_models(models), serving(settings_for(folder)) as server:
        assert ready(server) == (200, "ok")
        yield server


def ready(server):
    reply = httpx.get(f"{server.url}/readyz", timeout=30)
    assert reply.json()["ready"] is (reply.status_code == 200)
    return reply.status_code, reply.json()["store"]


def asked(server):
    return httpx.post(f"{server.url}/v1/reason", json={"question": "q"}, timeout=30).status_code


def test_readyz_fails_while_the_disk_is_full(disk, monkeypatch):
    with started(disk, monkeypatch) as server:
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            for size in (1 << 16, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))
        assert httpx.get(f"{server.url}/healthz", timeout=60).status_code == 200
        assert ready(server) == (503, "unreachable")
        assert asked(server) == 500
        ballast.unlink()
        assert ready(server) == (200, "ok")
        assert asked(server) == 200
