"""What `reason doctor` finds: endpoints on real sockets, models that are missing, directories that cannot be used."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from reason.cli.doctor import check_endpoints
from reason.core.errors import BackendUnavailable
from reason.core.extras import install_command
from reason.core.settings import ProviderSettings, Settings, load_settings
from reason.evals.live_contract import CELLS
from reason.verify.types import Support
from support.scripted_entailment import ScriptedEntailment
from support.wires.kinds import Kind
from support.wires.server import WireServer
from support.wires.stream import Shape

Cli = Callable[..., tuple[int, str, str]]
GPT_4O = Kind("gpt-4o-mini", "openai/gpt-4o-mini")


@pytest.fixture
def endpoint() -> Iterator[Any]:
    """A server with a scripted response of `/models`; it records the request headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.seen.append((self.path, dict(self.headers)))
            status, body = server.reply
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.reply, server.seen = (200, b'{"data": [{"id": "small"}]}'), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def checks_of(cli: Cli, *arguments: str) -> tuple[int, dict[str, Any]]:
    status, out, _ = cli("doctor", "--json", *arguments)
    return status, {check["name"]: check for check in json.loads(out)["checks"]}


def settings_of(port: int, **provider: Any) -> Settings:
    chosen = ProviderSettings(api_base=f"http://127.0.0.1:{port}/v1", **provider)
    return load_settings().model_copy(update={"providers": {"hosted_vllm": chosen}})


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("response", "state", "expected_text"),
    [
        ((200, b'{"data": [{"id": "small"}]}'), "ok", "serves small"),
        ((200, b"hello"), "note", "does not list its models"),
        ((401, b""), "fail", "rejects the key"),
        ((404, b""), "note", "does not list its models"),
        ((500, b""), "fail", "status 500"),
    ],
)
async def test_endpoints_list_their_models(
    home,
    endpoint,
    response,
    state,
    expected_text,
    monkeypatch,
):
    monkeypatch.setenv("BOX_KEY", "secret-value")
    endpoint.reply = response
    settings = settings_of(endpoint.server_port, api_key_env="BOX_KEY", headers={"X-Team": "a"})
    keys, results = await check_endpoints(settings)
    assert (results.state, expected_text in results.detail) == (state, True)
    [(path, headers)] = endpoint.seen
    assert (path, headers["Authorization"], headers["X-Team"]) == ("/v1/models", "Bearer secret-value", "a")
    assert "hosted_vllm (BOX_KEY)" in keys.detail
    assert "secret-value" not in keys.detail + results.detail + results.hint


def test_servers_on_this_machine_are_named_with_the_command_that_asks_them(cli, endpoint, monkeypatch):
    address = f"http://127.0.0.1:{endpoint.server_port}/v1"
    addresses = {address: "LM Studio", "http://127.0.0.1:9/v1": "vLLM"}
    monkeypatch.setattr("reason.serving.servers.discovery.default_addresses", lambda: addresses)
    monkeypatch.setattr("reason.serving.servers.discovery.LOOK_S", 600.0)
    endpoint.reply = 200, b'{"data": [{"id": "text-embedding-a"}, {"id": "qwen/qwen3-8b"}]}'
    server = checks_of(cli, "--quick")[1]["server"]
    assert (server["state"], server["hint"]) == (
        "ok",
        f'reason ask "What is 17 * 23?" -m openai/qwen/qwen3-8b@{address}',
    )
    assert server["detail"] == f"LM Studio at {address} serves qwen/qwen3-8b, text-embedding-a"


async def test_unreachable_endpoint_is_a_failure(home):
    _, results = await check_endpoints(settings_of(9))
    assert results.state == "fail"
    assert "127.0.0.1:9" in results.detail


@pytest.mark.nightly
def test_hosted_model_is_never_called(cli, monkeypatch):
    monkeypatch.setenv("REASON_MODEL", "openai/gpt-4o-mini")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # a request would fail
    status, results = checks_of(cli, "--quick")
    assert status == 0, results
    assert "it was not" in results["model"]["detail"]
    monkeypatch.delenv("OPENAI_API_KEY")
    assert cli("doctor", "--quick", "--json")[0] == 3


@pytest.mark.nightly
def test_gguf_file_is_loaded_and_not_taken_for_a_provider(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)  # not installed
    monkeypatch.setenv("REASON_MODEL", "gguf/model.gguf")
    status, results = checks_of(cli)
    assert (status, results["model"]["state"]) == (3, "fail")
    assert "llama_cpp" in results["model"]["detail"]
    assert install_command("gguf") in results["model"]["hint"]


@pytest.mark.parametrize(
    ("here", "arguments", "state", "words"),
    [
        (None, [], "note", "the judge small is not on this machine"),
        (None, ["--pull"], "ok", "small, which supports a claim by the same sentence with 0.90"),
        ("base", [], "ok", "base, which supports a claim by the same sentence with 0.90"),
    ],
)
def test_the_judge_of_claims_is_named_and_tried(cli, monkeypatch, here, arguments, state, words):
    async def load_entailment(name: str, settings: Settings) -> ScriptedEntailment:
        return ScriptedEntailment(lambda pair: Support(0.9, 0.05, 0.05), name=name)

    def unavailable(*_args: object, **_options: object) -> None:
        raise BackendUnavailable("not here")

    monkeypatch.setattr("reason.serving.model_files.find.find_model", unavailable)
    monkeypatch.setattr("reason.serving.encoders.files.find_encoder", unavailable)
    monkeypatch.setattr("reason.verify.entailment.factory.find_embedded", lambda settings: here)
    monkeypatch.setattr("reason.verify.entailment.factory.load_entailment", load_entailment)
    judge = checks_of(cli, *arguments)[1]["judge"]
    assert (judge["state"], words in judge["detail"]) == (state, True)
    monkeypatch.setenv("REASON_JUDGE_MODEL", "openai/x")
    assert checks_of(cli)[1]["judge"]["detail"] == "openai/x is not called here"


def test_missing_models_and_unusable_directories_are_failures(cli, home, monkeypatch):
    status, results = checks_of(cli)  # the default model is not in this empty home, and is not downloaded
    assert status == 3
    assert results["run store"]["state"] == results["cache"]["state"] == "ok"
    assert results["model"]["state"] == "fail"
    assert "reason models pull local/smollm2-135m" in results["model"]["hint"]
    assert json.loads(cli("runs", "list", "--json")[1]) == []  # its own trial run is gone
    monkeypatch.setenv("REASON_MODEL", "local/smollm2-135")
    (home / "file").write_text("in the way")
    monkeypatch.setenv("REASON_CACHE_DIR", str(home / "file"))
    monkeypatch.setenv("REASON_STORE", str(home / "file" / "runs.sqlite3"))
    status, out, _ = cli("doctor")
    assert status == 3
    for name in ("run store", "cache", "model"):
        assert re.search(f"^FAIL  {name} ", out, re.MULTILINE)
    assert "did you mean 'local/smollm2-135m'" in " ".join(out.split())


@pytest.mark.parametrize("group", ["reason.strategies", "reason.resources"])
def test_plugins_that_cannot_be_imported_are_named(cli, tmp_path, monkeypatch, group):
    package = tmp_path / "broken-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: broken\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[{group}]\nbad = no_such_module:Thing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins = checks_of(cli, "--quick")[1]["plugins"]
    assert (plugins["state"], "'bad' of broken cannot be loaded" in plugins["detail"]) == ("note", True)


@pytest.mark.nightly
def test_a_model_is_loaded_and_generates(cli, tiny_model, monkeypatch):
    monkeypatch.setenv("REASON_MODEL", f"local/{tiny_model}")
    model = checks_of(cli)[1]["model"]
    assert model["state"] == "ok"
    assert "4 tokens in" in model["detail"]


@pytest.mark.parametrize(("shape", "status"), [(Shape(), 0), (Shape(tokens=4096), 3)])
def test_the_doctor_prints_what_holds_and_what_it_cost(cli, shape, status):
    server = WireServer(GPT_4O, pause_s=0.001, shape=shape, calls=[[("get_weather", {"city": "Oslo"})]])
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server.run()) as address:
        name = f"{GPT_4O.model}@{address}"
        left, out, err = cli("doctor", "--live", name, "--json")
        found = json.loads(out)
        assert (left, found["ok"], found["model"], found["endpoint"]) == (status, not status, name, address)
        assert [check["name"] for check in found["checks"]] == [*CELLS, "cost"]
        assert found["limits"] == {"tokens": 16384, "calls": 24}
        assert found["usage"]["model_calls"] == 10
        assert "at most 24 calls, 16,384 tokens, prices unknown" in err
        left, out, _ = cli("doctor", "--live", name)
        assert left == status
        assert re.search(r"^ok\s+answer ", out, re.MULTILINE)
        assert re.search(r"^absent\s+thought ", out, re.MULTILINE)
        assert bool(re.search(r"^FAIL\s+streaming ", out, re.MULTILINE)) == bool(status)
        assert re.search(r"^ok\s+cost +10 calls, \d+ \+ \d+ tokens$", out, re.MULTILINE)
