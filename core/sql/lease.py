"""`Lease`: says every few seconds that this process lives, whatever its event loop is doing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from .group_commit import Connection

_LOG = logging.getLogger(__name__)


class Closable(Connection, Protocol):
    """A connection of the lease's own."""

    def close(self) -> None:
        """Close it."""


class Lease(threading.Thread):
    """Renews a lease from a thread and over a connection of its own.

    While the server cannot be reached it tries on at the same pace. A lease that runs out meanwhile does no harm: what
    this process writes is refused from the moment that another one has taken the run.

    Args:
        connect: Makes the connection.
        renew: Renews the lease.
        pace_s: Seconds between two times.
    """

    def __init__(self, connect: Callable[[], Closable], renew: Callable[[Connection], object], pace_s: float) -> None:
        super().__init__(name="reason-lease", daemon=True)
        self._connect, self._renew, self._pace_s = connect, renew, pace_s
        self._stopped = threading.Event()

    def stop(self) -> bool:
        """Renew no more.

        Returns:
            Whether this is the first time that it is asked to.
        """
        first = not self._stopped.is_set()
        self._stopped.set()
        return first

    def run(self) -> None:
        """Renew until `stop`."""
        connection: Closable | None = None
        while not self._stopped.wait(self._pace_s):
            try:
                if connection is None:
                    connection = self._connect()
                self._renew(connection)
            except Exception as e:  # noqa: BLE001 (whatever it is: the next try is a new one)
                _LOG.warning("the lease of this process could not be renewed: %s", type(e).__name__)
                if connection is not None:
                    with suppress(Exception):  # nothing may end this thread but `stop`
                        connection.close()
                    connection = None
        if connection is not None:
            connection.close()
