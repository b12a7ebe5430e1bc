"""The measured servers as child processes: started on a free port with one worker, and always ended.

reason   `reason serve` with required keys; a request is one chain of thought (`cot`), kept in a run store on disk
OptiLLM  `optillm`, its only documented command (Flask's own server, a thread for each request); the approach `none`
its-hub  `its-iaas`, its documented command (uvicorn); self-consistency of one sample
LiteLLM  `litellm --config` with the settings of its documentation's page for production and a key, without a database

Each asks the same server for one response. OptiLLM's approach `none` and LiteLLM pass a request through, which is less
work than the others do; its-hub has no keys, and OptiLLM's are optional and not set.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from sidecar_backend import Pace

HERE = Path(__file__).resolve().parent
PAGE = os.sysconf("SC_PAGE_SIZE")
START_S = 120.0
"""Longest time that a server may take to answer its first request, in seconds."""
END_S = 60.0
"""Maximum time until a server ends after a signal, in seconds."""


class ServerFailed(RuntimeError):
    """A server did not start or did not end; the message has the end of its output."""


def exit_on_sigterm() -> None:
    """Have SIGTERM end this program by an exception, as Ctrl-C does, so that what it has started is ended as well."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def free_port() -> int:
    """A port of the loopback that no component listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
    return port


def fetch(url: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout: float = 10.0) -> Any:
    """The JSON of a page; a POST where there is a body.

    Raises:
        OSError: It could not be had.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    with urllib.request.urlopen(request, timeout=timeout) as reply:
        text = reply.read()
    return json.loads(text) if text else None


class Process:
    """One server and what it started, in a process group of its own."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        name: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self.child = self.spawned(command, directory, environment or {})

    def spawned(
        self, command: Sequence[str], directory: Path, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start it."""
        with self.log.open("ab") as out:
            return subprocess.Popen(
                command,
                cwd=directory,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, url: str, seconds: float = START_S) -> None:
        """Wait until a page answers with a status below 400; it is killed if the waiting ends otherwise.

        Raises:
            Failed: It ended, or took too long.
        """
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                if self.child.poll() is not None:
                    raise ServerFailed(f"{self.name} ended with {self.child.returncode}:\n{self.tail()}")
                with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
                    return
                time.sleep(0.05)
            raise ServerFailed(f"{self.name} did not answer at {url} within {seconds:.0f} s:\n{self.tail()}")
        except BaseException:
            self.kill()
            raise

    def tail(self, most: int = 3000) -> str:
        """The end of what it wrote."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-most:]

    def resident(self) -> int:
        """Memory that it and its children have in use (resident set), in bytes."""
        return sum(_resident(pid) for pid in family(self.child.pid))

    def cpu_seconds(self) -> float:
        """Processor time of it and its children that still run."""
        ticks = os.sysconf("SC_CLK_TCK")
        return sum(_ticks(pid) for pid in family(self.child.pid)) / ticks

    def kill(self) -> None:
        """End it and its children without a warning, as a crash or a lack of memory does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def end(self, seconds: float = END_S) -> int:
        """End it and wait; returns its exit code.

        Raises:
            Failed: It did not end in time; it has been killed then.
        """
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
                raise ServerFailed(f"{self.name} did not end within {seconds:.0f} s:\n{self.tail()}") from None
        self.kill()  # whatever it left after
        return self.child.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


class Backend(Process):
    """`sidecar_backend.py` as a process."""

    def __init__(
        self, directory: Path, pace: Pace, port: int = 0, journal: Path | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.port = port or free_port()
        self.root = f"http://{host}:{self.port}"
        command = [sys.executable, str(HERE / "sidecar_backend.py"), "--host", host, "--port", str(self.port)]
        command += ["--pace", json.dumps(vars(pace))]
        command += [] if journal is None else ["--journal", str(journal)]
        super().__init__(command, directory, "backend")
        self.wait_for(f"{self.root}/health")

    def stats(self) -> dict[str, Any]:
        """What it counted so far."""
        return dict(fetch(f"{self.root}/stats", timeout=60.0))

    def set_pace(self, pace: Pace) -> None:
        """Change how responses come, from the next request on."""
        fetch(f"{self.root}/pace", vars(pace), timeout=60.0)


def family(pid: int) -> list[int]:
    """A process and all below it that still run."""
    results = [pid]
    for known in results:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{known}/task").iterdir():
                results += [int(child) for child in (task / "children").read_text().split()]
    return results


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except OSError:
        return 0


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


QUESTION = "What is 6 times 7?"
MAX_TURNS = 1024
"""Runs and calls at once that ours is allowed, so that it is measured and not its limits; the others have none."""


@dataclass
class Server:
    """A server that runs.

    Attributes:
        name: What it is called in tables.
        version: Its version.
        process: It.
        url: Where chat requests go.
        model: How the model is called there.
        headers: What a request needs next to.
    """

    name: str
    version: str
    process: Process
    url: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, stream: bool) -> dict[str, Any]:
        """The request that everyone is sent."""
        messages = [{"role": "user", "content": QUESTION}]
        return {"model": self.model, "messages": messages, "stream": stream, "max_tokens": 64, "temperature": 0.0}


def direct(backend: Backend) -> Server:
    """The model server itself, nothing before it."""
    return Server("(direct)", "", backend, f"{backend.root}/v1/chat/completions", "fake")


def reason_server(directory: Path, backend: Backend, *, keys: bool = True, **variant: Any) -> Server:
    """`reason serve` of this environment, with a key; `keys=False` lets everybody in. See `started` for `variant`."""
    write_settings(directory, backend.root)
    return started(directory, free_port(), keys=keys, **variant)


def write_settings(
    directory: Path, backend: str, *, store: str = "", calls: int = MAX_TURNS, turns: int = MAX_TURNS
) -> None:
    """The settings of `started`, as `reason.toml` in the directory where it runs."""
    (directory / "reason.toml").write_text(
        f'model = "openai/fake"\nstrategy = "cot"\nstore = "{store or directory / "runs.sqlite3"}"\n'
        f'[providers.openai]\napi_base = "{backend}/v1"\nconcurrency = {calls}\n'
        f"[serve]\nmax_runs = {turns}\n",
        encoding="utf-8",
    )


def started(
    directory: Path,
    port: int,
    *,
    keys: bool = False,
    name: str = "reason",
    options: Sequence[str] = (),
    package: Path | None = None,
) -> Server:
    """`reason serve` over the settings that are in the directory, once it is ready.

    Args:
        name: What it is called in tables.
        options: Further options of `reason serve`.
        package: Directory that holds another version as the package `reason`.
    """
    program = str(Path(sys.executable).with_name("reason"))
    environment = {"OPENAI_API_KEY": "none", "XDG_CONFIG_HOME": str(directory)}
    environment |= {} if package is None else {"PYTHONPATH": str(package.resolve())}
    headers = {}
    if keys:
        values = subprocess.run(
            [program, "keys", "create", "load", "--json"],
            cwd=directory,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        headers = {"Authorization": f"Bearer {json.loads(values.stdout)['key']}"}
    command = [program, "serve", "--port", str(port), *([] if keys else ["--no-auth"]), *options]
    process = Process(command, directory, "reason", environment)
    root = f"http://127.0.0.1:{port}"
    process.wait_for(f"{root}/readyz")
    version = _version(Path(sys.executable), "reason-orchestrator")
    return Server(name, version, process, f"{root}/v1/chat/completions", "reason/cot", headers)


def optillm(directory: Path, backend: Backend, venv: Path) -> Server:
    """OptiLLM's proxy."""
    port = free_port()
    command = [str(venv / "bin" / "optillm"), "--port", str(port), "--base-url", f"{backend.root}/v1"]
    command += ["--model", "fake", "--approach", "none", "--log", "error"]
    process = Process(command, directory, "optillm", {"OPENAI_API_KEY": "none", "OPTILLM_API_KEY": ""})
    process.wait_for(f"http://127.0.0.1:{port}/health")
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    return Server("OptiLLM", _version(venv / "bin" / "python", "optillm"), process, url, "fake")


def its_hub(directory: Path, backend: Backend, venv: Path) -> Server:
    """its-hub's service, configured over its interface as its documentation does."""
    port = free_port()
    command = [str(venv / "bin" / "its-iaas"), "--port", str(port), "--log-level", "ERROR"]
    process = Process(command, directory, "its_hub", {})
    root = f"http://127.0.0.1:{port}"
    process.wait_for(f"{root}/v1/models")
    algorithm = {"alg": "self-consistency", "regex_patterns": [r"(\d+)"], "budget": 1}
    values = {"endpoint": f"{backend.root}/v1", "api_key": "none", "model": "fake", **algorithm}
    fetch(f"{root}/configure", values)
    return Server(
        "its-hub", _version(venv / "bin" / "python", "its_hub"), process, f"{root}/v1/chat/completions", "fake"
    )


def litellm(directory: Path, backend: Backend, venv: Path) -> Server:
    """LiteLLM's proxy with the settings that its documentation recommends for production."""
    port = free_port()
    (directory / "litellm.yaml").write_text(
        "model_list:\n  - model_name: fake\n    litellm_params:\n      model: openai/fake\n"
        f"      api_base: {backend.root}/v1\n      api_key: none\n"
        "litellm_settings:\n  request_timeout: 600\n  set_verbose: false\n  json_logs: true\n"
        "general_settings:\n  proxy_batch_write_at: 60\n  disable_error_logs: true\n",
        encoding="utf-8",
    )
    command = [str(venv / "bin" / "litellm"), "--config", "litellm.yaml", "--port", str(port), "--num_workers", "1"]
    command += ["--host", "127.0.0.1", "--telemetry", "False"]
    key = f"sk-{secrets.token_hex(24)}"  # it does not start without one
    environment = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": key}
    path = os.pathsep.join((str(venv / "bin"), os.environ.get("PATH", "")))
    process = Process(command, directory, "litellm", {**environment, "PATH": path})
    process.wait_for(f"http://127.0.0.1:{port}/health/liveliness")
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    return Server(
        "LiteLLM",
        _version(venv / "bin" / "python", "litellm"),
        process,
        url,
        "fake",
        {"Authorization": f"Bearer {key}"},
    )


PEERS = {"optillm": optillm, "its_hub": its_hub, "litellm": litellm}
"""By the name of their virtual environment (`peers/install`)."""


def start_all(
    directory: Path, backend: Backend, peers: Path | None, names: Sequence[str], stack: ExitStack
) -> tuple[dict[str, Server], list[str]]:
    """Start servers, which are ended with the stack.

    Returns:
        Those that run, by those names, and what could not be started.
    """
    running: dict[str, Server] = {}
    missing = []
    for name in names:
        venv = None if peers is None else (peers / name).resolve()
        if name != "reason" and (venv is None or not (venv / "bin").is_dir()):
            missing.append(f"{name}, which is not installed (benchmarks/peers/install)")
            continue
        position = directory / name
        position.mkdir()
        try:
            server = (
                reason_server(position, backend)
                if venv is None or name == "reason"
                else PEERS[name](position, backend, venv)
            )
        except ServerFailed as e:
            missing.append(f"{name}, which did not start: {e}")
            continue
        stack.callback(server.process.kill)
        running[name] = server
    return running, missing


def _version(python: Path, package: str) -> str:
    values = f"from importlib.metadata import version; print(version('{package}'))"
    return subprocess.run([str(python), "-c", values], capture_output=True, text=True, check=True).stdout.strip()
