"""Three replicas of `reason serve` on hosts of their own: HAProxy, Postgres with a standby, Redis, one model server."""

from __future__ import annotations

import asyncio
import fcntl
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from reason.core.store import open_store

from .api_keys import add_key
from .forked_server import ForkedChild, ForkServer
from .haproxy import HAProxy
from .network import Host, Network
from .postgres_server import PostgresPair
from .redis_server import RedisServer

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS.parent / "benchmarks")]

from sidecar_backend import Pace  # noqa: E402 (found by the path above)
from sidecar_servers import Backend  # noqa: E402

LEASE_S = 6.0
"""Lease of a replica in the store, and of its runs' places in Redis, in seconds; 30 in production."""
NAMES = ("r1", "r2", "r3")
DATABASES = ("pg1", "pg2")
PRELUDE = """
import reason.core.store.postgres as postgres
if {lease_s}:
    postgres.PostgresStore.open.__func__.__kwdefaults__.update(lease_s={lease_s}, renew_s={lease_s} / 6)
"""
MAX_WAIT_S = 60.0


def wait_until(happened: Callable[[], object], what: str, seconds: float = MAX_WAIT_S) -> float:
    """Wait for something; returns how long it took."""
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began


class Replica:
    """One replica: a process that can be killed, drained and started again."""

    def __init__(self, name: str, host: Host, fork_server: ForkServer, folder: Path) -> None:
        self.name, self.url = name, f"http://{host.address}:8080"
        self._fork_server, self._folder = fork_server, folder
        self.log = folder / "log"
        self._child: ForkedChild | None = None

    def start(self) -> None:
        environment = {"XDG_CONFIG_HOME": str(self._folder), "OPENAI_API_KEY": "none", "REASON_DEBUG": "1"}
        self._child = ForkedChild(self._fork_server, ["reason", "serve"], self._folder, environment, self.log)

    @property
    def child(self) -> ForkedChild:
        assert self._child is not None
        return self._child

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.is_running, self.tail()
            try:
                return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(ready, f"{self.name} is not ready\n{self.tail()}")

    def signal(self, number: signal.Signals) -> None:
        self.child.send_signal(number)

    def kill(self) -> None:
        """End the process with SIGKILL, as a lack of memory or a crash of its host does."""
        if self.is_running:
            self.signal(signal.SIGKILL)
            self.child.wait(30)

    def drain(self) -> int:
        """End the process with SIGTERM and wait; returns its exit code."""
        self.signal(signal.SIGTERM)
        return self.child.wait(60)

    def tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-3000:] if self.log.exists() else ""


class Cluster:
    """Everything; close it with `stack`.

    Attributes:
        replicas: The replicas.
        proxy: The proxy before them.
        hosts: All hosts by name.
        postgres: The servers of the run store `store`.
        redis: The server that counts for all replicas.
        backend: The model server, which counts requests and responses.
        key: An API key without limits.
    """

    def __init__(self, folder: Path, stack: ExitStack, lease_s: float) -> None:
        network = Network(*NAMES, *DATABASES, "lb")
        stack.callback(network.remove)
        self.hosts = network.hosts
        self.postgres = PostgresPair([(network.hosts[name].address, network.hosts[name].prefix) for name in DATABASES])
        stack.callback(self.postgres.remove)
        self.redis = RedisServer(network.address)
        stack.callback(self.redis.kill)
        self.store = self.postgres.new_database()
        self.backend = Backend(folder, Pace(single=True), host=network.address)
        stack.callback(self.backend.kill)
        self.replicas: list[Replica] = []
        for name in NAMES:
            host, own = network.hosts[name], folder / name
            own.mkdir()
            (own / "reason.toml").write_text(
                f'model = "openai/fake"\nstrategy = "cot"\nstore = "{self.store}"\n'
                f'[providers.openai]\napi_base = "{self.backend.root}/v1"\nconcurrency = 64\n'
                f'[serve]\nhost = "{host.address}"\nport = 8080\nmax_runs = 256\ndrain_delay_s = 1\n'
                f'drain_timeout_s = 20\nlimits_url = "{self.redis.url}"\n',
                encoding="utf-8",
            )
            fork_server = ForkServer(*host.prefix, prelude=PRELUDE.format(lease_s=lease_s))
            stack.callback(fork_server.close)
            self.replicas.append(Replica(name, host, fork_server, own))
        self.key = self.new_key()
        for replica in self.replicas:
            stack.callback(replica.kill)
            replica.start()
        servers = {r.name: r.url.removeprefix("http://") for r in self.replicas}
        lb = network.hosts["lb"]
        self.proxy = HAProxy(folder, lb.address, servers, lb.prefix)
        stack.callback(self.proxy.kill)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until all replicas are ready and the proxy sends to them; starts those that do not run."""
        for replica in self.replicas:
            if not replica.is_running:
                replica.start()
        for replica in self.replicas:
            replica.wait_ready()
        wait_until(lambda: self.proxy.up() == set(NAMES), "the proxy sends to all replicas")

    def repair(self) -> None:
        """Have everything run again that was killed."""
        if self.postgres.has_failed_over:
            self.hosts[DATABASES[1 - self.postgres.index]].rejoin()
            self.postgres.repair()
        self.redis.start()
        self.wait_ready()

    def new_key(self, tenant: str = "me", **limits: Any) -> str:
        """Create an API key."""

        async def add() -> str:
            store = await open_store(self.store)
            key = await add_key(store, tenant=tenant, **limits)
            await store.aclose()
            return key

        return asyncio.run(add())

    def client(self, url: str = "", key: str = "") -> httpx.Client:
        """A client of a replica, or of the proxy."""
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return httpx.Client(base_url=url or self.proxy.url, headers=headers, timeout=60)


@contextmanager
def cluster(*, lease_s: float = LEASE_S) -> Iterator[Cluster]:
    """A cluster; one at a time on a machine.

    Args:
        lease_s: Lease of a replica in the store, in seconds; 0 is production's.

    Raises:
        CannotCreate, CannotStart: It cannot be had here.
    """
    with ExitStack() as stack:
        lock = stack.enter_context((Path(tempfile.gettempdir()) / "reason-cluster.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reason-cluster-")))
        yield Cluster(folder, stack, lease_s)


def read_events(client: httpx.Client, run_id: str, after: int = 0) -> list[dict[str, Any]]:
    """A run's events until its last."""
    headers = {"Last-Event-ID": str(after)} if after else {}
    with client.stream("GET", f"/v1/runs/{run_id}/events", headers=headers) as response:
        assert response.status_code == 200, response.read()
        return [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]


def question(tag: str) -> str:
    """The question of a tag, by which the model server counts."""
    return f"What is 6 times 7? ({tag})"


def run_body(tag: str, n: int = 4) -> dict[str, Any]:
    """A run of several calls."""
    return {"question": question(tag), "strategy": "self-consistency", "parameters": {"n": n}}


def hold_processes(replicas: Sequence[Replica]) -> Callable[[], None]:
    """Suspend replicas; returns a function that resumes them."""
    for replica in replicas:
        replica.signal(signal.SIGSTOP)

    def resume() -> None:
        for replica in replicas:
            replica.signal(signal.SIGCONT)

    return resume
