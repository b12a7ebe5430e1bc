"""`reason mcp` before it serves; `tests/sidecar/test_mcp.py` has the tools, over standard streams too."""

import sys

import pytest
import reason.cli.mcp as mcp_command
from reason.core.extras import install_command


def test_options_of_the_server_are_used_over_http(cli):
    status, _, err = cli("mcp", "--port", "0")
    assert (status, "add --http" in err) == (2, True)


def test_over_http_it_is_the_server_with_the_endpoint(cli, monkeypatch):
    pytest.importorskip("mcp")
    started = []
    monkeypatch.setattr(mcp_command, "start_server", started.append)
    assert cli("mcp", "--http", "--no-auth", "--port", "0", "--model", "local/smollm2-135m")[0] == 0
    (settings,) = started
    assert (settings.serve.mcp, settings.serve.auth, settings.serve.port) == (True, False, 0)
    assert settings.model == "local/smollm2-135m"


@pytest.mark.parametrize("flags", [(), ("--http", "--no-auth")])
def test_a_missing_library_is_named(cli, monkeypatch, flags):
    monkeypatch.setitem(sys.modules, "reason.sidecar.mcp", None)
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    status, _, err = cli("mcp", *flags)
    assert (status, install_command("mcp") in err) == (2, True)
