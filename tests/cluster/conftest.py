"""A cluster on this machine: three replicas on hosts of their own (network namespaces) behind one proxy.

The clusters of different files exclude one another by a lock, so that they never run at the same time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import haproxy, network, postgres_server, redis_server

if TYPE_CHECKING:
    from support.replicas import Cluster

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

CANNOT = (haproxy.CannotStart, network.CannotCreate, postgres_server.CannotStart, redis_server.CannotStart)


@pytest.fixture(scope="module")
def three_replicas() -> Iterator[Cluster]:
    """A cluster; tests are skipped where none can be had."""
    from support.replicas import cluster

    with ExitStack() as stack:
        try:
            made = stack.enter_context(cluster())
        except CANNOT as e:
            pytest.skip(f"no cluster of replicas: {e}")
        yield made


@pytest.fixture
def replicas(three_replicas: Cluster) -> Cluster:
    """The cluster with all servers running, whatever an earlier test has ended."""
    three_replicas.repair()
    return three_replicas
