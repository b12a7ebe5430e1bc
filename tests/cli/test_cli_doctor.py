"""What `reason doctor` finds of backends: endpoints on real sockets, vLLM's trial, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from reason.cli import doctor_checks
from reason.core.extras import install_command
from reason.core.settings import ProviderSettings, Settings, load_settings
from reason.verify.types import Pair, Support
from support.scripted_entailment import ScriptedEntailment

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def endpoint() -> Iterator[Any]:
    """A server with a scripted response of `/models`; it records the request headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.seen.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]
            status, body = server.reply  # type: ignore[attr-defined]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.reply, server.seen = (200, b'{"data": [{"id": "small"}]}'), []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def settings_of(port: int, **provider: Any) -> Settings:
    chosen = ProviderSettings(api_base=f"http://127.0.0.1:{port}/v1", **provider)
    return load_settings().model_copy(update={"providers": {"hosted_vllm": chosen}})


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("response", "state", "expected_text"),
    [
        ((200, b'{"data": [{"id": "small"}]}'), "ok", "serves small"),
        ((200, b"hello"), "note", "without a list"),
        ((401, b""), "fail", "refuses the key"),
        ((404, b""), "note", "lists no models"),
        ((500, b""), "fail", "status 500"),
    ],
)
async def test_endpoints_list_their_models(
    home: Path,
    endpoint: Any,
    response: tuple[int, bytes],
    state: str,
    expected_text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BOX_KEY", "secret-value")
    endpoint.reply = response
    settings = settings_of(endpoint.server_port, api_key_env="BOX_KEY", headers={"X-Team": "a"})
    litellm, results = await doctor_checks.check_providers(settings)
    assert (results.state, expected_text in results.detail) == (state, True)
    [(path, headers)] = endpoint.seen
    assert (path, headers["Authorization"], headers["X-Team"]) == ("/v1/models", "Bearer secret-value", "a")
    assert "hosted_vllm (BOX_KEY)" in litellm.detail
    assert "secret-value" not in litellm.detail + results.detail + results.hint


async def test_unreachable_endpoint_is_a_failure(home: Path) -> None:
    _, results = await doctor_checks.check_providers(settings_of(9))
    assert results.state == "fail"
    assert "127.0.0.1:9" in results.detail


@pytest.mark.nightly
def test_hosted_model_is_never_called(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REASON_MODEL", "openai/gpt-4o-mini")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # a request would fail
    status, out, _ = cli("doctor", "--quick", "--json")
    results = {c["name"]: c for c in json.loads(out)["checks"]}
    assert status == 0, results
    assert results["model"]["state"] == "note"  # the local model is not here, and not needed
    assert "it was not" in results["answering"]["detail"]
    monkeypatch.delenv("OPENAI_API_KEY")
    assert cli("doctor", "--quick", "--json")[0] == 3


@pytest.mark.nightly
def test_gguf_file_is_loaded_and_not_taken_for_a_provider(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)  # not installed
    monkeypatch.setenv("REASON_MODEL", "gguf/model.gguf")
    status, out, _ = cli("doctor", "--quick", "--json")
    answering = {c["name"]: c for c in json.loads(out)["checks"]}["answering"]
    assert (status, answering["state"]) == (3, "fail")
    assert "llama_cpp" in answering["detail"]
    assert install_command("gguf") in answering["hint"]


@pytest.mark.parametrize(
    ("here", "pull", "state", "words"),
    [
        (None, False, "note", "auto is small, which is not on this machine yet"),
        (None, True, "ok", "auto is small: supported with 0.90"),
        ("small", False, "ok", "auto is small: supported with 0.90 by the same sentence, with 0.10 by one"),
        ("base", False, "ok", "auto is base: supported with 0.90"),
    ],
)
async def test_the_judge_of_claims_is_named_and_tried(
    home: Path, monkeypatch: pytest.MonkeyPatch, here: str | None, pull: bool, state: str, words: str
) -> None:
    def verdict(pair: Pair) -> Support:
        return Support(0.9, 0.05, 0.05) if pair.evidence == pair.claim else Support(0.1, 0.8, 0.1)

    async def load_entailment(name: str, settings: Settings) -> ScriptedEntailment:
        return ScriptedEntailment(verdict, name=name)

    monkeypatch.setattr("reason.verify.entailment.embedded.base_is_available", lambda settings: here == "base")
    monkeypatch.setattr("reason.verify.entailment.factory.find_embedded", lambda settings: here)
    monkeypatch.setattr("reason.verify.entailment.factory.load_entailment", load_entailment)
    check = await doctor_checks.check_judge(load_settings(), pull)
    assert (check.state, words in check.detail) == (state, True)
    assert ("davinci.judge=base" in check.hint) == (state == "ok" and here != "base")
    named = await doctor_checks.check_judge(load_settings(judge_model="openai/x"), pull)
    assert (named.state, named.detail) == ("ok", "auto is the judge model openai/x, which is not called here")


async def test_trial_whose_process_dies_is_a_failure(home: Path) -> None:
    result = await doctor_checks._run_trial("local/no-such-model", load_settings())
    assert "no-such-model" in result["error"]


@pytest.mark.nightly
async def test_trial_runs_a_model_and_leaves_no_process(home: Path, tiny_model: Path) -> None:
    result = await doctor_checks._run_trial(f"local/{tiny_model}", load_settings())
    assert (result["logits_processors"], result["left"], result["tokens"]) == (True, False, 4)


SLOW = (
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print(1)"
)


@pytest.mark.skipif(sys.platform == "win32", reason="process groups of POSIX")
async def test_cancelling_ends_the_process_group(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    create = asyncio.create_subprocess_exec

    async def remembered(*command: str, **options: Any) -> Any:
        code = f"{SLOW}; sys.stdout.flush(); time.sleep(600)"
        started.append(await create(sys.executable, "-c", code, **options))
        return started[0]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", remembered)
    task = asyncio.ensure_future(doctor_checks._run_trial("vllm/x", load_settings()))
    while not started:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await doctor_checks._group_ended(started[0].pid)


@pytest.mark.skipif(sys.platform == "win32", reason="process groups of POSIX")
def test_trial_ends_with_its_parent(home: Path, tiny_model: Path) -> None:
    code = (
        "import sys, threading, time, reason.cli.engine_trial as t\n"
        "async def slow(name, settings):\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(600)\n"
        "t.trial = slow\n"
        "sys.argv = ['x', 'local/x']\n"
        "t.main()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(load_settings().model_dump_json().encode() + b"\n")
    child.stdin.flush()
    assert child.stdout.readline() == b"begun\n"
    child.stdin.close()
    assert child.wait(timeout=60) == -signal.SIGKILL
    child.stdout.close()


@pytest.mark.skipif(sys.platform == "win32", reason="processes of POSIX are forked")
def test_forked_engine_process_is_not_blocked(home: Path) -> None:
    code = (
        "import multiprocessing, sys, time, reason.cli.engine_trial as t\n"
        "async def forking(name, settings):\n"
        "    time.sleep(0.2)\n"  # the thread that waits for the end of standard input is waiting by now
        "    child = multiprocessing.get_context('fork').Process(target=print, args=('from the child',))\n"
        "    child.start()\n"
        "    child.join(20)\n"
        "    return {'code': child.exitcode}\n"
        "t.trial = forking\n"
        "sys.argv = ['x', 'vllm/x']\n"
        "t.main()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(load_settings().model_dump_json().encode() + b"\n")
    child.stdin.flush()
    payload = child.stdout.read()
    child.wait(timeout=60)
    child.stdin.close()
    child.stdout.close()
    assert b'{"code": 0}' in payload


def test_show_reports_false_capabilities_in_red_and_by_status(
    cli: Cli, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reason.serving.local.engine import LocalModel

    declared = LocalModel.capabilities

    def more(self: LocalModel) -> Any:
        return declared.fget(self).model_copy(update={"context_tokens": 10_000_000})  # type: ignore[misc]

    monkeypatch.setattr(LocalModel, "capabilities", property(more))
    status, out, err = cli("models", "show", f"local/{tiny_model}", "--json")
    payload = json.loads(out)
    states = {f["feature"]: f["state"] for f in payload["findings"]}
    assert (status, payload["ok"]) == (3, False)
    assert states["context_tokens"] == "differs"
    assert "error: " in err
    assert "context_tokens" in err
    status, out, _ = cli("models", "show", f"local/{tiny_model}", "--no-measure")
    assert status == 0
    assert "DIFFERS" not in out
    assert os.environ.get("NO_COLOR") or "not measured" in out


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals of POSIX")
def test_checks_go_to_stdout_below_an_animated_status_line(home: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    try:
        code = "import sys; from reason.cli.main import main; sys.exit(main(['doctor', '--quick']))"
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"}
        )
        drained = threading.Thread(target=_drain, args=(ours,), daemon=True)
        drained.start()
        out, _ = child.communicate(timeout=280)
    finally:
        os.close(theirs)
    assert child.returncode == 3  # the default model is not in this empty home
    assert b"run store" in out
    assert b"FAIL  model" in out
    assert b"\x1b" not in out


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 4096):
            continue
    except OSError:  # the other side is closed
        os.close(terminal)
