"""An engine ends with the program that started it, even if that program is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from reason.serving.vllm.engine import OWNER_PID, start_watchdog
from support.waiting import wait_blocking

PROGRAM = """
import pathlib, sys, time
from reason.core.settings import VllmSettings
from reason.serving.model_files.find import ModelFiles
from reason.serving.vllm.model import VllmModel
from reason.serving.vllm.engine import engine_processes

if __name__ == "__main__":
    files = ModelFiles("vllm/tiny", pathlib.Path(sys.argv[1]), "tiny", "")
    engine = {"max_model_len": 256, "kv_cache_memory_bytes": 64 << 20}
    model = VllmModel.load("vllm/tiny", files, VllmSettings(engine=engine))
    print("engine:", *(process.pid for process in engine_processes(model.engine)), flush=True)
    time.sleep(600)
"""


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"  # its new parent may not have reaped it yet


@pytest.mark.slow
def test_an_engine_ends_with_a_killed_program(tiny_vllm_files, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    program = subprocess.Popen([sys.executable, script, tiny_vllm_files.directory], stdout=subprocess.PIPE, text=True)
    pids = []
    try:
        assert program.stdout is not None
        for line in program.stdout:
            if line.startswith("engine:"):
                pids = [int(pid) for pid in line.split()[1:]]
                break
        assert pids
        assert all(lives(pid) for pid in pids)
    finally:
        program.kill()
        program.wait()
        if program.stdout is not None:
            program.stdout.close()
    wait_blocking(lambda: not any(lives(pid) for pid in pids))


@pytest.mark.parametrize("owner", ["", "nobody", str(os.getpid())], ids=["empty", "a word", "itself"])
def test_a_server_and_the_program_itself_watch_nobody(owner, monkeypatch):
    started = []
    monkeypatch.setattr("reason.serving.vllm.engine.threading.Thread", lambda **k: started.append(k))
    monkeypatch.setenv(OWNER_PID, owner)
    start_watchdog()
    assert started == []
