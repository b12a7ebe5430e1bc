"""The REST server in front of a server that plays a provider's model, each on a socket of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal
from reason.core.settings import Settings

from support.sidecar_server import Server, serving
from support.wires.kinds import KINDS, OTHER_KINDS, Kind
from support.wires.server import Calls, WireServer


def kind_named(name: str) -> Kind:
    """The kind of a name."""
    return next(kind for kind in (*KINDS, *OTHER_KINDS) if kind.name == name)


@contextmanager
def played(
    kind: Kind, folder: Path, *, calls: Sequence[Calls] = (), **provider: Any
) -> Iterator[tuple[WireServer, Settings]]:
    """A server of a kind in a thread of its own, and the settings that lead there."""
    server = WireServer(kind, calls=calls)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server.run()) as address:
        own = {"api_base": kind.api_base(address), "probe": False, "max_retries": 0, **provider}
        yield server, Settings(model=kind.model, providers={kind.model: own}, store=folder / "runs.sqlite3")


@contextmanager
def sidecar(
    kind: Kind, folder: Path, *, calls: Sequence[Calls] = (), **provider: Any
) -> Iterator[tuple[WireServer, Server]]:
    """The server of a kind, and the REST server without keys in front of it."""
    with played(kind, folder, calls=calls, **provider) as (upstream, settings):
        serve = {"auth": False, "drain_timeout_s": 0.0}
        with serving(settings.model_copy(update={"serve": Settings(serve=serve).serve})) as server:
            yield upstream, server
