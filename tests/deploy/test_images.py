"""The images of `deploy/`: what they are made of, what they start, and that the slim one has no torch."""

from __future__ import annotations

import json
import re
import tomllib
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from reason.core.settings import Settings
from reason.sidecar.app import create_app
from setuptools import find_packages

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENGINES = {"torch", "transformers", "sentence-transformers", "faiss-cpu", "vllm", "datasets", "ray", "gguf"}
DOCKERFILES = ["Dockerfile", "Dockerfile.full"]


def instructions(name: str) -> list[tuple[str, str]]:
    """Name and text of each instruction; continued lines joined, comments left out."""
    lines = [line for line in (ROOT / "deploy" / name).read_text(encoding="utf-8").split("\n") if line[:1] != "#"]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(kind, rest) for kind, _, rest in (line.partition(" ") for line in joined.split("\n") if line.strip())]


def last(name: str, kind: str) -> str:
    return [rest for k, rest in instructions(name) if k == kind][-1]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_all_instructions_are_known_and_images_have_versions(name):
    kinds = {kind for kind, _ in instructions(name)}
    known = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "LABEL", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL"}
    assert kinds <= known | {"HEALTHCHECK", "CMD"}
    for rest in (rest for kind, rest in instructions(name) if kind == "FROM"):
        image, _, tag = rest.split()[0].partition(":")
        assert image
        assert tag not in ("", "latest")
        assert re.search(r"\d", tag)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_exists_and_is_not_left_out(name):
    sources = [rest.split()[:-1] for kind, rest in instructions(name) if kind == "COPY"]
    assert sources
    for source in (s for some in sources for s in some if not s.startswith("--")):
        assert (ROOT / source).exists(), source


def left_out(path: str) -> bool:
    """Whether `.dockerignore` keeps a path out of the build, as far as its patterns go."""
    parts = Path(path).parts
    for pattern in (ROOT / ".dockerignore").read_text(encoding="utf-8").split():
        anywhere = pattern.startswith("**/")
        for end in range(1, len(parts) + 1):
            if fnmatch("/".join(parts[:end]), pattern) and "/".join(parts[:end]).count("/") == pattern.count("/"):
                return True
            if anywhere and fnmatch(parts[end - 1], pattern[3:]):
                return True
    return False


def test_the_build_has_every_package_and_every_file_that_it_names():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = [Path(), *(Path(*package.split(".")) for package in find_packages(str(ROOT)))]
    modules = [p.relative_to(ROOT).as_posix() for folder in folders for p in (ROOT / folder).glob("*.py")]
    data = [p for pattern in setuptools["package-data"]["reason"] for p in ROOT.glob(pattern)]
    assert len(modules) > 100
    assert data
    needed = [*modules, *(p.relative_to(ROOT).as_posix() for p in data), "pyproject.toml"]
    needed += [PROJECT["readme"], *PROJECT["license-files"]]
    assert [path for path in needed if left_out(path)] == []
    unwanted = [".git/config", ".venv/bin/python", "tests/conftest.py", "core/__pycache__/run.pyc", "reason.toml"]
    assert [path for path in unwanted if not left_out(path)] == []


@pytest.mark.parametrize("name", DOCKERFILES)
def test_it_runs_without_rights_and_stops_by_a_signal_to_the_process_itself(name):
    user, _, group = last(name, "USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert f"--uid {user} " in " ".join(rest for kind, rest in instructions(name) if kind == "RUN")
    assert last(name, "STOPSIGNAL") == "SIGTERM"
    assert json.loads(last(name, "CMD"))[:2] == ["reason", "serve"]  # no shell before it, which would get the signal
    kinds = [kind for kind, _ in instructions(name)]
    assert kinds.index("USER") > max(n for n, kind in enumerate(kinds) if kind == "RUN")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_command_port_and_health_check_agree_with_the_app(name, tmp_path):
    command = json.loads(last(name, "CMD"))
    options = dict(zip(command[2::2], command[3::2], strict=True))
    assert options == {"--host": "0.0.0.0", "--port": last(name, "EXPOSE")}
    url = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", last(name, "HEALTHCHECK"))
    assert url is not None
    assert url[1] == options["--port"]
    paths = set(create_app(Settings(store=tmp_path / "runs.sqlite3")).openapi()["paths"])
    assert url[2] in paths


@pytest.mark.parametrize(("name", "engine"), [("Dockerfile", False), ("Dockerfile.full", True)])
def test_the_extras_exist_and_the_slim_image_has_no_engine(name, engine):
    runs = [rest for kind, rest in instructions(name) if kind == "RUN" and "pip install" in rest]
    [extras] = re.findall(r"\.whl\)\[([a-z,]+)\]", " ".join(runs))
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    assert all("--no-cache-dir" in rest for rest in runs)
    found = closure(extras.split(","))
    assert {"fastapi", "uvicorn", "litellm", "langgraph"} <= found
    assert bool(found & ENGINES) is engine
    assert ("torch" in " ".join(runs)) is engine


def closure(extras: list[str]) -> set[str]:
    """Names of all packages that an installation with these extras brings, by what is installed here.

    A package that is not installed here counts by its name alone.
    """
    asked = [(Requirement(text), "") for text in PROJECT["dependencies"]]
    asked += [(Requirement(text), "") for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    seen: set[tuple[str, str]] = set()
    while asked:
        wanted, extra = asked.pop()
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(wanted.name)
        for part in ("", *wanted.extras):
            if (name, part) in seen:
                continue
            seen.add((name, part))
            try:
                asked += [(Requirement(text), part) for text in requires(name) or ()]
            except PackageNotFoundError:
                continue
    return {name for name, _ in seen}
