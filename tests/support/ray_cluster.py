"""A Ray cluster on this machine: each node in a network namespace, with a host name and a disk of its own."""

from __future__ import annotations

import fcntl
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from .network import Network

TESTS = Path(__file__).resolve().parents[1]
DOCUMENT = TESTS.parent / "docs" / "scale-out.md"
NAMES = ("n1", "n2", "n3")
LEASE_S = 4.0
"""Lease of a worker in Postgres, in seconds; 30 in production."""
OBJECT_STORE_BYTES = 80 << 20
START_S = 90
_ENTER = """
hostname "$1" && mount --bind "$2" "$3" && mount --bind "$4" /etc/hosts && mount --bind /dev/null /etc/resolv.conf &&
cd "$3" && shift 4 && exec "$@"
"""


def documented(start: str, values: Mapping[str, object] | None = None) -> list[str]:
    """The command of docs/scale-out.md that starts so, for the head `n1`, with other words for some of its words."""
    page = DOCUMENT.read_text(encoding="utf-8")
    sections = page[page.index("## Evaluations on a Ray cluster") : page.index("## One model over several nodes")]
    (line,) = (line for line in sections.splitlines() if line.startswith(start))
    program, *words = (str((values or {}).get(word, word)).replace("HEAD", "n1") for word in shlex.split(line))
    return [str(Path(sys.executable).parent / program), *words]


class CannotStart(Exception):
    """A program on a node did not start or failed; says why."""


class Node:
    """One node.

    Attributes:
        address: Its address.
        disk: Where its disk is seen by the test; on the node it is `RayCluster.disk`.
    """

    def __init__(self, name: str, cluster: RayCluster) -> None:
        self.name, self._cluster = name, cluster
        self.host = cluster.network.hosts[name]
        self.address = self.host.address
        self.disk = cluster.folder / f"disk-{name}"
        self.disk.mkdir()

    def popen(self, *command: str, log: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program on the node, in the directory of its disk."""
        own = (self.name, str(self.disk), str(self._cluster.disk), str(self._cluster.hosts))
        enter = ("unshare", "--uts", "sh", "-c", _ENTER, "sh", *own)
        with log.open("ab") as out:
            return subprocess.Popen(
                [*self.host.prefix, *enter, *command],
                env={**self._cluster.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, *command: str, timeout: float = 120.0) -> str:
        """Run a program on the node to its end; returns what it wrote."""
        log = self._cluster.folder / f"run-{secrets.token_hex(4)}.log"
        process = self.popen(*command, log=log)
        try:
            code = process.wait(timeout)  # what it leaves running, as `ray start` does, runs on
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = -signal.SIGKILL
        text = log.read_text(encoding="utf-8", errors="replace")
        if code:
            raise CannotStart(f"{command[:3]} on {self.name} ended with {code}:\n{text[-3000:]}")
        return text

    def start(self) -> None:
        """Start the node, with the documented command; the first one is the head."""
        session = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # the paths of sockets must be short
        self._cluster.sessions.append(session)
        is_head = self.name == "n1"
        command = [
            *documented("ray start --head" if is_head else "ray start --address"),
            *(("--include-dashboard=false",) if is_head else ()),
            f"--node-ip-address={self.address}",
            f"--num-cpus={self._cluster.cpus}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            f"--temp-dir={session}",
            "--include-log-monitor=false",
            "--disable-usage-stats",
        ]
        if resources := self._cluster.resources.get(self.name):
            command.append(f"--resources={resources}")
        self.run(*command, timeout=START_S)

    def pids(self) -> list[int]:
        """All processes on the node."""
        command = ["ip", "netns", "pids", self.host.namespace]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def kill(self) -> None:
        """End all processes of the node with SIGKILL, as the loss of its host does, and wait until they have ended."""
        killed = set[int]()
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed.update(pids)
            time.sleep(0.02)
        # a process leaves its network namespace before it closes its connections
        while any(map(is_running, killed)):
            time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process has a thread that has not ended."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return len(threads) > 1 or state not in "ZX"


class RayCluster:
    """Three running nodes; `remove` it.

    Args:
        folder: A directory for the disks and logs.
        resources: Custom resources of nodes, as JSON, by name.
        cpus: CPUs that Ray counts on each node.
        lease_s: Lease of workers in Postgres; 0 is production's.

    Attributes:
        disk: Path of each node's own disk on the node.
        shared: A directory that all nodes see.

    Raises:
        CannotStart, CannotCreate: It cannot be had here.
    """

    def __init__(self, folder: Path, resources: Mapping[str, str], cpus: int, lease_s: float) -> None:
        self.folder, self.resources, self.cpus, self.sessions = folder, resources, cpus, list[Path]()
        self.disk, self.shared, self.hosts = folder / "disk", folder / "shared", folder / "hosts"
        self.disk.mkdir()
        self.shared.mkdir()
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(TESTS),
            "OPENAI_API_KEY": "none",
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_preload_python_modules": "support.ray_worker",
            "REASON_TEST_LEASE_S": f"{lease_s:g}",
            "XDG_CONFIG_HOME": str(folder),
        }
        self.network = Network(*NAMES)
        addresses = {"localhost": "127.0.0.1", **{name: host.address for name, host in self.network.hosts.items()}}
        self.hosts.write_text("".join(f"{address} {name}\n" for name, address in addresses.items()), encoding="utf-8")
        self.nodes: dict[str, Node] = {}
        try:
            for name in NAMES:
                node = self.nodes[name] = Node(name, self)
                # a host finds its own address by its default route
                route = ["ip", "-n", node.host.namespace, "route", "add", "default", "via", self.network.address]
                subprocess.run(route, check=True, capture_output=True, timeout=30)
            self.start()
        except BaseException:
            self.remove()
            raise

    def start(self) -> None:
        """Start the nodes that do not run, the head first."""
        head, *others = (node for node in self.nodes.values() if not node.pids() or node.name == "n1")
        if not head.pids():
            head.start()
        with ThreadPoolExecutor() as threads:
            list(threads.map(Node.start, others))

    def remove(self) -> None:
        """End all nodes and delete their network."""
        for node in self.nodes.values():
            node.kill()
        self.network.remove()
        for session in self.sessions:
            shutil.rmtree(session, ignore_errors=True)


@contextmanager
def ray_cluster(
    resources: Mapping[str, str] | None = None, *, cpus: int = 1, lease_s: float = LEASE_S
) -> Iterator[RayCluster]:
    """A cluster; those of different processes wait for one another.

    Raises:
        CannotStart, CannotCreate: It cannot be had here.
    """
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError as e:
        raise CannotStart("Ray is not installed") from e
    with (Path(tempfile.gettempdir()) / "reason-cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with tempfile.TemporaryDirectory(prefix="reason-ray-") as folder:
            cluster = RayCluster(Path(folder), resources or {}, cpus, lease_s)
            try:
                yield cluster
            finally:
                cluster.remove()


def finished(process: subprocess.Popen[bytes], log: Path, seconds: float = 120.0) -> Sequence[str]:
    """Wait for a program that must succeed; returns the lines that it wrote."""
    code = process.wait(seconds)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    assert code == 0, (code, lines[-30:])
    return lines
