"""Hints that install an extra name the missing packages, and never our name on an index."""

import importlib.util
import re
import sys
from importlib import metadata
from importlib.metadata import PathDistribution, requires
from pathlib import Path

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


def test_the_missing_packages_are_named_for_this_environment(tmp_path, monkeypatch):
    information = tmp_path / "reason_orchestrator-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(METADATA)
    distribution, real = PathDistribution(information), metadata.distribution
    monkeypatch.setattr(metadata, "distribution", lambda name: distribution if name == DISTRIBUTION else real(name))
    expected = {"'no-such-engine<2,>=1.7'", "'no-such-llama>=0.3'", "'no-such-loop>=0.21'"}
    command = install_command("gguf")
    assert command.startswith(f"{sys.executable} -m pip install ")
    assert set(command.partition(" install ")[2].split(" ")) == expected  # numpy is here
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name))
    assert install_command("local") == f"uv pip install --python {sys.executable} 'no-such-engine<2,>=1.7'"


def test_a_checkout_that_was_never_installed_is_named(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    command = install_command("local")
    assert re.fullmatch(r".* (?:-e )'?/.*\[local\]'?", command), command


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
