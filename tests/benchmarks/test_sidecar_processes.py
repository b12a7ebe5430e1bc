"""Whatever ends a benchmark, the servers that it has started end with it."""

import os
import signal
import subprocess
import sys

import pytest
from sidecar_servers import HERE, Process, ServerFailed

BENCHMARK = """
import sys
from pathlib import Path
from sidecar_backend import Pace
from sidecar_servers import Backend, exit_on_sigterm

exit_on_sigterm()
with Backend(Path(sys.argv[1]), Pace(tokens=2)) as backend:
    print(backend.child.pid, flush=True)
    backend.child.wait()
"""


def test_sigterm_ends_a_benchmark_and_its_servers(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), os.environ.get("PYTHONPATH", "")))}
    command = [sys.executable, "-c", BENCHMARK, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as benchmark:
        assert benchmark.stdout is not None
        server = int(benchmark.stdout.readline())
        os.kill(server, 0)  # it runs
        benchmark.send_signal(signal.SIGTERM)
        assert benchmark.wait() == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_unresponsive_server_is_not_left_running(tmp_path):
    process = Process([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path, "silent")
    with pytest.raises(ServerFailed, match="silent did not answer"):
        process.wait_for("http://127.0.0.1:1/", seconds=0.2)
    assert process.child.poll() == -signal.SIGKILL
