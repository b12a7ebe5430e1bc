"""Several hosts on one machine: network namespaces with an address each, joined by a bridge; needs root."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress


class CannotCreate(Exception):
    """There can be no such network here; says why."""


def _ip(*arguments: str) -> str:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as e:
        raise CannotCreate(f"ip {' '.join(arguments)}: {e}") from e
    if done.returncode:
        raise CannotCreate(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


class Host:
    """One host.

    Attributes:
        address: Its address.
        prefix: A command that executes another one on it.
    """

    def __init__(self, namespace: str, address: str) -> None:
        self.namespace, self.address = namespace, address
        self.prefix = ("ip", "netns", "exec", namespace)

    def cut_off(self) -> None:
        """Take it off the network: what is sent to it gets no answer."""
        _ip("-n", self.namespace, "link", "set", "eth0", "down")

    def rejoin(self) -> None:
        """Be reachable again."""
        _ip("-n", self.namespace, "link", "set", "eth0", "up")


class Network:
    """Hosts by name, and this process' own address in their network; `remove` it.

    Raises:
        CannotCreate: This process may not create namespaces.
    """

    def __init__(self, *names: str) -> None:
        if os.getuid() != 0:
            raise CannotCreate("network namespaces need root")
        base = f"rs{os.getpid()}"
        self._bridge = f"{base}b"
        routes = _ip("route")
        third = next(i for i in (*range(os.getpid() % 250, 250), *range(250)) if f"10.77.{i}." not in routes)
        self.address = f"10.77.{third}.1"
        self.hosts: dict[str, Host] = {}
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("addr", "add", f"{self.address}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for number, name in enumerate(names, 1):
                host = Host(f"{base}{name}", f"10.77.{third}.{10 + number}")
                _ip("netns", "add", host.namespace)
                self.hosts[name] = host
                veth = f"{base}v{number}"
                _ip("link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
                _ip("link", "set", veth, "master", self._bridge, "up")
                _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
                _ip("-n", host.namespace, "link", "set", "eth0", "up")
                _ip("-n", host.namespace, "link", "set", "lo", "up")
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Delete the hosts; processes in them must have ended."""
        for host in self.hosts.values():
            with suppress(CannotCreate):
                _ip("netns", "del", host.namespace)
        with suppress(CannotCreate):
            _ip("link", "del", self._bridge)
