"""Hints that install an extra name the checkout, the wheel or the missing packages, and never our name on an index."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from importlib import metadata
from importlib.metadata import PathDistribution, requires
from pathlib import Path

import pytest
from reason.core import extras
from reason.core.extras import install_command, missing_package
from reason.core.version import DISTRIBUTION

ROOT = Path(__file__).resolve().parents[2]
METADATA = """\
Metadata-Version: 2.4
Name: reason-orchestrator
Version: 0.1.0
Requires-Dist: pydantic>=2
Provides-Extra: local
Requires-Dist: numpy>=1.26; extra == "local"
Requires-Dist: no-such-engine<2,>=1.7; extra == "local"
Provides-Extra: gguf
Requires-Dist: no-such-llama>=0.3; extra == "gguf"
Requires-Dist: reason-orchestrator[local]; extra == "gguf"
Requires-Dist: no-such-loop>=0.21; sys_platform != "win32" and extra == "gguf"
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution with these requirements; what it is called with becomes its origin."""
    information = tmp_path / "reason_orchestrator-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(METADATA)
    distribution = PathDistribution(information)
    real = metadata.distribution
    monkeypatch.setattr(metadata, "distribution", lambda name: distribution if name == DISTRIBUTION else real(name))
    monkeypatch.setattr(metadata, "distributions", lambda name: iter([distribution]))
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)

    def come_from(origin):
        (information / "direct_url.json").write_text(json.dumps(origin))

    return come_from


def test_a_checkout_is_named(installed, tmp_path):
    installed({"url": tmp_path.as_uri(), "dir_info": {"editable": True}})
    assert install_command("gguf") == f"pip install -e '{tmp_path}[gguf]'"
    installed({"url": tmp_path.as_uri(), "dir_info": {}})
    assert install_command("gguf") == f"pip install '{tmp_path}[gguf]'"


def test_metadata_of_building_in_the_current_directory_hide_no_checkout(tmp_path, monkeypatch):
    for directory, information in (
        ("building", "reason_orchestrator.egg-info"),
        ("site", "reason_orchestrator-0.1.0.dist-info"),
    ):
        (tmp_path / directory / information).mkdir(parents=True)
        (tmp_path / directory / information / "METADATA").write_text(METADATA)
        (tmp_path / directory / information / "PKG-INFO").write_text(METADATA)
    origin = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    (tmp_path / "site" / "reason_orchestrator-0.1.0.dist-info" / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "building"), str(tmp_path / "site"), *sys.path])
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    assert install_command("gguf") == f"pip install -e '{tmp_path}[gguf]'"


def test_a_wheel_that_is_still_there_is_named(installed, tmp_path):
    wheel = tmp_path / "a directory" / "reason_orchestrator-0.1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.touch()
    installed({"url": wheel.as_uri(), "archive_info": {}})
    assert install_command("local") == f"pip install '{wheel}[local]'"


def test_an_environment_of_uvx_is_made_again(installed, tmp_path, monkeypatch):
    wheel = tmp_path / "reason_orchestrator-0.1.0-py3-none-any.whl"
    wheel.touch()
    installed({"url": wheel.as_uri(), "archive_info": {}})
    monkeypatch.setattr(sys, "prefix", "/home/me/.cache/uv/archive-v0/feO4B0")
    assert install_command("local") == f"uvx --from '{wheel}[local]' reason"


@pytest.mark.parametrize("origin", [None, {"url": "file:///no/such.whl", "archive_info": {}}, {"url": "https://x/y"}])
def test_else_the_missing_packages_are_named(origin, installed):
    if origin is not None:
        installed(origin)
    expected = {"'no-such-engine<2,>=1.7'", "'no-such-llama>=0.3'", "'no-such-loop>=0.21'"}
    assert set(install_command("gguf").removeprefix("pip install ").split(" ")) == expected  # numpy is here


def test_another_environments_python_is_named(installed, monkeypatch):
    monkeypatch.delenv("VIRTUAL_ENV")
    assert install_command("local").startswith(f"{sys.executable} -m pip install ")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name))
    assert install_command("local").startswith(f"uv pip install --python {sys.executable} ")


def test_the_error_names_what_is_missing_and_the_remedy():
    error = missing_package("the server", "fastapi", "sidecar")
    assert error.message == "the server needs the package 'fastapi', which is not installed"
    assert error.hint == install_command("sidecar")


def test_every_extra_of_the_installed_metadata_is_read():
    found = {m[1] for text in requires(DISTRIBUTION) or () if (m := re.search(r"extra == [\"'](.*)[\"']", text))}
    for extra in found - {"dev", "all"}:
        assert extras._requirements(extra), extra


def test_no_text_installs_our_name_from_an_index():
    """PyPI does not have it: who registers it could run code on the machines of those who follow the text."""
    wrong = re.compile(r"(?:install|inject|--from|--with)\s[^`]{0,80}?(?<![\w./-])reason-orchestrator(?![\w.-])")
    suffixes = {".py", ".md", ".sh", ".toml", ".yaml", ".yml", ".ts", ""}
    texts = {p: p.read_text(encoding="utf-8", errors="replace") for p in _texts() if p.suffix in suffixes}
    found = {str(p.relative_to(ROOT)): match[0] for p, text in texts.items() if (match := wrong.search(text))}
    assert found.keys() <= {"CHANGELOG.md", "tests/core/test_extras.py"}, found


def _texts():
    for top in ROOT.iterdir():
        if top.is_file():
            yield top
        elif not top.name.startswith(".") and top.name not in ("node_modules", "build", "dist", "site", "venv"):
            yield from (p for p in top.rglob("*") if p.is_file() and not {"node_modules", "__pycache__"} & set(p.parts))
