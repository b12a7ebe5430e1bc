"""`ConnectionTable`: which connections a server process keeps when there are too many.

A connection counts for its address until a request on it has a valid key, and from then on for that key. Each address,
each key and the process have a maximum. When one is reached, the connection that has been idle for longest is closed:
idle connections never take the place of callers. Requests are refused only if no connection is idle, and health checks
are not refused.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from ..core.errors import ReasonError
from .logs import log_event

RESERVED = 64
"""Connections that callers with a key leave to others: new connections, health checks, pages."""
HEALTH_PATHS = frozenset({"/healthz", "/readyz"})
GRACE_S = 1.0
"""Time in which a new connection is not closed for the limit of its address: clients may connect in a burst."""
LOG_INTERVAL_S = 60.0


class ServerOverloaded(ReasonError):
    """Callers with a key use all connections of the process."""

    code = "server_overloaded"
    exit_code = 3
    http_status = 503


class TooManyConnections(ReasonError):
    """An address or a key uses all of its connections."""

    code = "too_many_connections"
    exit_code = 3
    http_status = 429


class Peer(Protocol):
    """The transport side of a connection."""

    def is_idle(self) -> bool:
        """Whether closing the connection loses no request that is being processed."""

    def drop(self) -> None:
        """Close the connection."""


class Connection:
    """A connection in a `ConnectionTable`.

    Attributes:
        owner: The address, or the id of the key.
        has_key: Whether a request on it was authenticated.
        used_at: When it was opened, or a request on it began or ended.
    """

    def __init__(self, table: ConnectionTable, peer: Peer, address: str) -> None:
        self._table, self.peer = table, peer
        self.owner, self.has_key, self.used_at = address, False, 0.0

    def touch(self) -> None:
        """Note that a request begins or ends."""
        self._table.touch(self)

    def authenticate(self, key_id: str) -> None:
        """Count the connection for a key; `""` is no key's, on a server without authentication.

        Raises:
            TooManyConnections: All connections of the key are in use.
            ServerOverloaded: All connections for callers with a key are in use.
        """
        if not self.has_key or self.owner != key_id:
            self._table.assign(self, key_id)
        self._table.require_room(self)

    def require_room(self) -> None:
        """Check the limit of the connection's address or key, before a request is processed.

        Raises:
            TooManyConnections: All connections of the address or the key are in use.
            ServerOverloaded: All connections for callers with a key are in use.
        """
        self._table.require_room(self)

    def close(self) -> None:
        """Remove the connection from the table. Idempotent."""
        self._table.remove(self)


Group = OrderedDict[Connection, None]
"""Connections, the least recently used first."""


class ConnectionTable:
    """The open connections of a server process.

    Args:
        limit: Maximum number of connections of callers with a key; a key has at most half of them, and an address, for
            connections without a key, a quarter. `RESERVED` more are for connections without a key.
        clock: Monotonic clock in seconds.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.max_per_key, self.max_per_address = max(1, limit // 2), max(1, limit // 4)
        self._clock = clock
        self._with_key: Group = OrderedDict()
        self._without_key: Group = OrderedDict()
        self._groups: dict[tuple[bool, str], Group] = {}
        self._logged_at = -LOG_INTERVAL_S
        self._num_closed = 0

    def __len__(self) -> int:
        return len(self._with_key) + len(self._without_key)

    def open(self, peer: Peer, address: str) -> Connection | None:
        """Add a connection; None if it must be closed, because no other one is idle."""
        connection = Connection(self, peer, network_of(address))
        self._insert(connection)
        group = self._group(connection)
        is_crowded = len(group) > self.max_per_address and not self._trim(group, connection)
        if len(self) <= self.limit + RESERVED:
            return connection
        for candidates in ((group,) if is_crowded else ()) + (self._without_key, self._with_key):
            if self._close_idle(candidates, connection):
                return connection
        self.remove(connection)
        self._log()
        return None

    def touch(self, connection: Connection) -> None:
        """Make a connection the most recently used one."""
        group = self._group(connection)
        if connection in group:
            connection.used_at = self._clock()
            group.move_to_end(connection)
            self._all(connection).move_to_end(connection)

    def assign(self, connection: Connection, key_id: str) -> None:
        """Move a connection from its address or key to a key."""
        self.remove(connection)
        connection.owner, connection.has_key = key_id, True
        self._insert(connection)

    def require_room(self, connection: Connection) -> None:
        """Close an idle connection if a limit is exceeded, or raise if there is none (see `Connection`)."""
        group = self._group(connection)
        if connection.has_key:
            if connection.owner and len(group) > self.max_per_key and not self._close_idle(group, connection):
                raise TooManyConnections(
                    f"the key has {self.max_per_key} connections in use", hint="reuse connections, or end some streams"
                )
            if len(self._with_key) > self.limit and not self._close_idle(self._with_key, connection):
                self._log()
                raise ServerOverloaded(f"all {self.limit} connections of the server are in use", hint="try again later")
        elif len(group) > self.max_per_address and not self._trim(group, connection):
            self._log()
            raise TooManyConnections(
                f"the address has {self.max_per_address} connections without a key in use", hint="send a key"
            )

    def remove(self, connection: Connection) -> None:
        """Remove a connection. Idempotent."""
        group = self._group(connection)
        if connection not in group:
            return
        del group[connection], self._all(connection)[connection]
        if not group:
            del self._groups[connection.has_key, connection.owner]

    def _insert(self, connection: Connection) -> None:
        connection.used_at = self._clock()
        self._groups.setdefault((connection.has_key, connection.owner), OrderedDict())[connection] = None
        self._all(connection)[connection] = None

    def _group(self, connection: Connection) -> Group:
        return self._groups.get((connection.has_key, connection.owner), OrderedDict())

    def _all(self, connection: Connection) -> Group:
        return self._with_key if connection.has_key else self._without_key

    def _trim(self, group: Group, spared: Connection) -> bool:
        """Close idle connections of an address until it has no more than its maximum; whether that was possible."""
        while len(group) > self.max_per_address:
            if not self._close_idle(group, spared, min_idle_s=GRACE_S):
                return False
        return True

    def _close_idle(self, group: Group, spared: Connection, min_idle_s: float = 0.0) -> bool:
        """Close the least recently used idle connection of a group, but not `spared`; whether there was one."""
        latest = self._clock() - min_idle_s
        for connection in group:
            if connection.used_at > latest:
                return False
            if connection is not spared and connection.peer.is_idle():
                self.remove(connection)
                connection.peer.drop()
                self._num_closed += 1
                self._log()
                return True
        return False

    def _log(self) -> None:
        """Log that connections are closed or refused, at most once in `LOG_INTERVAL_S`."""
        now = self._clock()
        if now - self._logged_at >= LOG_INTERVAL_S:
            self._logged_at = now
            log_event(
                "connections.full",
                logging.WARNING,
                open=len(self),
                with_key=len(self._with_key),
                addresses=sum(not has_key for has_key, _ in self._groups),
                idle_closed=self._num_closed,
            )


def network_of(address: str) -> str:
    """The address, or the /64 network of an IPv6 address, which one caller usually has."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64))
