"""`reason mcp` before it serves; `tests/sidecar/test_mcp.py` has the tools, over standard streams too."""

import sys

import pytest
import reason.cli.serve as serve_command
from reason.core.extras import install_command


def test_over_http_it_is_the_server_with_the_endpoint(cli, monkeypatch):
    started = []
    monkeypatch.setattr(serve_command, "start_server", started.append)
    assert cli("serve", "--mcp", "--no-auth", "--port", "0", "--model", "local/smollm2-135m")[0] == 0
    (settings,) = started
    assert (settings.serve.mcp, settings.serve.auth, settings.serve.port) == (True, False, 0)
    assert settings.model == "local/smollm2-135m"


@pytest.mark.parametrize("command", [("mcp",), ("serve", "--mcp", "--no-auth", "--port", "0")])
def test_a_missing_library_is_named(cli, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "reason.sidecar.mcp", None)
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    status, _, err = cli(*command)
    assert (status, install_command("mcp") in err) == (2, True)
