"""`reason serve` before it serves: refusals and messages."""

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import reason.cli.serve as serve_module
from reason.cli.render.status import StatusLine
from reason.core.settings import Settings, load_settings
from reason.core.store import open_store
from reason.sidecar.key_store import ApiKey, KeyStore
from support.waiting import wait_blocking


@pytest.fixture
def serve(cli, home):
    """Serves from a port that is free; returns the exit status and the standard error."""

    def serve(*flags):
        status, _, err = cli("serve", "--port", "0", "--store", str(home / "s.sqlite3"), *flags)
        return status, err

    return serve


@pytest.mark.parametrize(("flags", "remedy"), [((), "reason keys create"), (("--no-auth",), "--no-auth")])
def test_public_address_needs_keys(serve, flags, remedy):
    status, err = serve("--host", "0.0.0.0", *flags)
    assert (status, "0.0.0.0 is a public address" in err, remedy in err) == (2, True, True)


@pytest.mark.parametrize(
    ("expires", "revoked", "error"),
    [(1.0, None, "there is no API key"), (None, 1.0, "there is no API key"), (None, None, "unknown model 'no-such'")],
    ids=["expired", "revoked", "valid"],
)
def test_a_public_address_needs_a_key_that_is_neither_expired_nor_revoked(serve, home, expires, revoked, error):
    async def add():
        store = await open_store(home / "s.sqlite3")
        names = {"id": "k", "name": "k", "tenant": "t", "digest": "d", "scopes": frozenset({"ask"})}
        await (await KeyStore.open(store)).add(ApiKey(**names, created=0, expires=expires, revoked=revoked))
        await store.aclose()

    asyncio.run(add())
    status, err = serve("--host", "0.0.0.0", "--model", "no-such")
    assert (status, error in err, "there is no API key" in err) == (2, True, "no API key" in error)


def test_port_in_use_is_an_error(serve):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        status, err = serve("--no-auth", "--port", str(port))
    assert status == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in err


def test_unavailable_model_ends_the_server_with_one_line_after_the_warnings(serve):
    assert "there is no API key yet" in serve("--model", "no-such")[1]
    status, err = serve("--no-auth", "--model", "no-such")
    assert status == 2
    assert "warning: authentication is off: every user and every program of this machine can do everything" in err
    errors = [line for line in err.splitlines() if "error" in line]
    assert len(errors) == 1, err
    assert "unknown model 'no-such'" in errors[0]


def workers_of(parent):
    """Process numbers of a server's workers."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def ask(url):
    with contextlib.suppress(httpx.TransportError):  # not there yet, or killed meanwhile
        return [httpx.post(f"{url}/v1/reason", json={"question": "?", "parameters": {"max_tokens": 5}}, timeout=60)]


def until_answered(url):
    return wait_blocking(lambda: ask(url))[0]


@pytest.mark.nightly
@pytest.mark.real
def test_workers_share_a_socket_and_are_restarted(process, tiny_model, home):
    flags = ("-m", f"local/{tiny_model}")
    child = process("serve", "--no-auth", "--port", "0", "--workers", "2", *flags, "--store", str(home / "s.sqlite3"))
    message = []
    for line in child.stderr:
        message.append(line)
        if "serving " in line:
            break
    assert any("each of the 2 workers loads the weights" in line for line in message)
    url = re.search(r"http://[0-9.:]+", message[-1])[0]
    assert f"in the browser at {url}/ui" in message[-1]
    payload = until_answered(url)
    assert (payload.status_code, payload.json()["candidates"][0]["tokens"]) == (200, 5), payload.text
    before = workers_of(child.pid)
    assert len(before) == 2
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    wait_blocking(lambda: len(workers_of(child.pid) - {killed}) == 2)
    assert before - {killed} < workers_of(child.pid)
    assert until_answered(url).status_code == 200
    child.terminate()
    assert child.wait(60) == 0


def test_the_start_line_ends_the_progress(home, monkeypatch, capsys):
    events = []

    class Progress(StatusLine):
        def __init__(self, note: str) -> None:
            super().__init__(note)
            events.append(note)

        def close(self) -> None:
            super().close()
            events.append("ended")

    async def serve_here(settings: Settings, sock: object, *, progress: object, ready: Callable[[], None]) -> None:
        ready()
        events.append("served")

    monkeypatch.setattr(serve_module, "StatusLine", Progress)
    monkeypatch.setattr("reason.sidecar.server.serve_here", serve_here)
    serve_module._serve_process(load_settings(model="local/tiny"), None, "http://here")
    assert events == ["loading local/tiny", "ended", "served"]
    assert "serving local/tiny at http://here, in the browser at http://here/ui" in capsys.readouterr().err
