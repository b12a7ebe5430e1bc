"""The connector in a vLLM server that was started from the command line, on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reason.serving.model_files.find import ModelFiles
from support.vllm_server import SERVED, RealServer, real_server

pytestmark = [pytest.mark.real, pytest.mark.slow]
IDS = [100 + i % 90 for i in range(150)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served") / "prefixes"


@pytest.fixture(scope="module")
def server(_vllm: None, tiny_vllm_files: ModelFiles, root: Path) -> Iterator[RealServer]:
    transfer = {
        "kv_connector": "PrefixConnector",
        "kv_connector_module_path": "reason.serving.vllm.kv_connector",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {"root": str(root), "limit": 32 << 20},
    }
    log = root.parent / "server.log"
    with real_server(tiny_vllm_files.directory, log, "--kv-transfer-config", json.dumps(transfer)) as running:
        yield running


def ask(server: RealServer, ids: list[int], **requested: str) -> tuple[str, int, dict[str, Any]]:
    """Text, cached tokens, and the connector's response."""
    body = {"model": SERVED, "prompt": ids, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    if requested:
        body["kv_transfer_params"] = {"reason": requested}
    response = server.post("/v1/completions", body)
    assert response.status_code == 200, response.text
    said = response.json()
    cached = (said["usage"].get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return said["choices"][0]["text"], cached, (said.get("kv_transfer_params") or {}).get("reason", {})


def forget(server: RealServer) -> None:
    assert server.post("/reset_prefix_cache", {}).status_code == 200


def test_clients_save_pin_and_restore_by_name(server: RealServer, root: Path) -> None:
    text, cached, reported = ask(server, IDS, save="rules")
    assert (cached, reported["code"], reported["stored_tokens"]) == (0, "", 128)
    forget(server)
    assert ask(server, IDS)[:2] == (text, 0)
    forget(server)
    again, cached, reported = ask(server, IDS, restore="rules", pin="rules")
    assert (again, cached, reported["read_tokens"], reported["pinned_blocks"]) == (text, 128, 128, 4)
    forget(server)  # in vain: what is pinned stays
    assert ask(server, IDS)[:2] == (text, 128)
    body = {"model": SERVED, "prompt": IDS, "max_tokens": 1, "kv_transfer_params": {"reason": {"unpin": ["rules"]}}}
    assert server.post("/v1/completions", body).status_code == 200
    forget(server)
    assert ask(server, IDS)[:2] == (text, 0)


def test_a_damaged_file_and_nonsense_are_misses(server: RealServer, root: Path) -> None:
    text, _, _ = ask(server, IDS, save="hurt")
    [file] = root.glob("*/hurt/*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    for requested, code in (("hurt", "data_error"), ("unknown", "unknown_name"), ("../hurt", "user_error")):
        forget(server)
        again, cached, reported = ask(server, IDS, restore=requested)
        assert (again, cached, reported["code"]) == (text, 0, code)
    response = server.post("/v1/completions", {"model": SERVED, "prompt": IDS, "max_tokens": 1})
    assert response.status_code == 200
