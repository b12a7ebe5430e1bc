"""What is released: the source distribution, the wheel that is made of it, and that the wheel alone is enough.

The wheel is installed into an environment of its own. What the package depends on is reached by a `.pth` file from the
environment that runs the tests, to save time: through a folder of links to everything there but the package itself. So
`reason` and its metadata can come from the wheel alone, and a check sees that they do.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import pytest
from setuptools import find_packages

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = {PurePosixPath(), *(PurePosixPath(*name.split(".")) for name in find_packages(str(ROOT)))}
NOT_THE_PACKAGE = {"benchmarks", "deploy", "docs", "examples", "tests", "training"}
VIEWER_SOURCES = PurePosixPath("sidecar/viewer/web")
MADE = {"__pycache__", "node_modules", "build", "dist", "site", "venv"}
CALLERS = [ROOT / "tests" / "release" / name for name in ("typed_caller.py", "mistaken_caller.py")]
UNREAD = (
    *("aiohttp", "fastapi", "langgraph", "litellm", "numpy", "openai", "scipy", "torch", "transformers"),
    *(f"reason.{part}" for part in ("cli", "evals", "serving.litellm", "serving.local", "serving.vllm", "sidecar")),
)
"""What says nothing about the types of public names, and takes mypy long."""
SECONDS = 240
"""A process that takes longer hangs."""


@cache
def committed_files() -> set[PurePosixPath]:
    """The files that git has, new ones too; in a copy without git, all that nothing made."""
    if (ROOT / ".git").exists():
        command = ["git", "-c", f"safe.directory={ROOT}", "-C", ROOT, "ls-files", "-z", "-co", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
        return {PurePosixPath(name) for name in listed if name and (ROOT / name).is_file()}
    found = set()
    for folder, below, names in os.walk(ROOT):
        below[:] = [b for b in below if b not in MADE and not b.startswith(".") and not b.endswith(".egg-info")]
        found |= {PurePosixPath((Path(folder) / name).relative_to(ROOT).as_posix()) for name in names}
    return found


def data_of_packages() -> set[PurePosixPath]:
    """Every committed file that lies in a package and is no Python, the sources of the built viewer left out."""
    inside = {path for path in committed_files() if len(path.parts) > 1 and path.parts[0] not in NOT_THE_PACKAGE}
    return {
        path
        for path in inside
        if path.suffix != ".py" and VIEWER_SOURCES not in path.parents and not path.parts[0].startswith(".")
    } | {PurePosixPath("py.typed")}


def copy_of_checkout(folder: Path) -> Path:
    """The committed files in a folder: setuptools writes beside what it builds."""
    for path in committed_files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path)
    return folder


@dataclass(frozen=True)
class Released:
    """The two distributions, and what is in them."""

    sdist: Path
    wheel: Path
    in_sdist: frozenset[PurePosixPath]
    in_wheel: frozenset[PurePosixPath]
    version: str


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """Both built by `build`, the wheel from the source distribution; out of a copy, as setuptools writes beside it."""
    copy, out = copy_of_checkout(tmp_path_factory.mktemp("checkout")), tmp_path_factory.mktemp("dist")
    private = [copy / "runs" / "store.sqlite3", copy / ".issues" / "1.md", copy / "reason.toml", copy / ".env"]
    for path in private:  # what work in a checkout leaves
        path.parent.mkdir(exist_ok=True)
        path.write_text("private")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy])
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    with tarfile.open(sdist) as opened:
        named = [PurePosixPath(member.name) for member in opened.getmembers() if member.isfile()]
    with zipfile.ZipFile(wheel) as zipped:
        in_wheel = frozenset(PurePosixPath(name) for name in zipped.namelist())
    version = wheel.name.split("-")[1]
    assert {path.parts[0] for path in named} == {f"reason_orchestrator-{version}"}
    return Released(sdist, wheel, frozenset(path.relative_to(path.parts[0]) for path in named), in_wheel, version)


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it, and an empty folder to work in."""

    python: Path
    command: Path
    packages: Path
    folder: Path

    def run(self, *command: str | Path, **more: str) -> str:
        """The output of a command that has to end well, with nothing of the checkout to be found by it."""
        return run(command, cwd=self.folder, **more)


@pytest.fixture(scope="module")
def installed(released: Released, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment of its own; see the head of this file for its dependencies."""
    root = tmp_path_factory.mktemp("environment")
    venv.create(root / "venv", with_pip=False, symlinks=True)
    python = root / "venv" / "bin" / "python"
    packages = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    run([sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", released.wheel])
    links = root / "dependencies"
    links.mkdir()
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(place).iterdir():
            ours = path.name.startswith(("reason", "__editable__")) or path.suffix == ".pth"
            if not ours and not (links / path.name).is_symlink():
                (links / path.name).symlink_to(path)
    (packages / "dependencies.pth").write_text(f"{links}\n")
    (root / "work").mkdir()
    return Installed(python, python.parent / "reason", packages, root / "work")


def run(command: Sequence[str | Path], cwd: Path | None = None, **more: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "REASON_", "COV_"))}
    if "PYTHONPYCACHEPREFIX" in os.environ:
        kept["PYTHONPYCACHEPREFIX"] = os.environ["PYTHONPYCACHEPREFIX"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**kept, **more},
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_wheel_has_every_module_and_every_file_of_data(released):
    modules = {path for path in committed_files() if path.suffix == ".py" and path.parent in PACKAGES}
    assert len(modules) > 300
    data = data_of_packages()
    assert {PurePosixPath("py.typed"), PurePosixPath("sidecar/viewer/assets/app.js")} < data
    assert {path.suffix for path in data} >= {".json", ".toml", ".safetensors", ".css"}
    ours = {path.relative_to("reason") for path in released.in_wheel if path.parts[0] == "reason"}
    assert ours == modules | data
    others = {path.parts[0] for path in released.in_wheel} - {"reason"}
    assert others == {f"reason_orchestrator-{released.version}.dist-info"}


def test_the_source_distribution_has_what_a_build_needs_and_nothing_else(released):
    packaged = {path for path in committed_files() if path.suffix == ".py" and path.parent in PACKAGES}
    told = {"ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md"}
    made = {"PKG-INFO", "setup.cfg"}
    beside = {path for path in committed_files() if VIEWER_SOURCES in path.parents}
    top = {PurePosixPath(name) for name in told | made | {"pyproject.toml", "MANIFEST.in", "uv.lock"}}
    found = {path for path in released.in_sdist if path.parts[0] != "reason_orchestrator.egg-info"}
    assert found == packaged | data_of_packages() | beside | top


def test_the_package_and_its_version_come_from_the_wheel_alone(released, installed):
    script = (
        "import sys, json, reason, importlib.metadata as m\n"
        "found = [str(d.locate_file('')) for d in m.distributions() if d.name == 'reason-orchestrator']\n"
        "from reason.core.version import __version__\n"
        "print(json.dumps([reason.__file__, found, sys.path, reason.__version__, __version__]))"
    )
    file, distributions, path, *versions = json.loads(installed.run(installed.python, "-c", script))
    assert Path(file) == installed.packages / "reason" / "__init__.py"
    assert [Path(one) for one in distributions] == [installed.packages]
    assert not any(Path(one).resolve() == ROOT or ROOT in Path(one, "reason").resolve().parents for one in path if one)
    assert versions == [released.version, released.version]


def test_the_command_tells_its_version_and_its_help(released, installed):
    assert installed.run(installed.command, "--version") == f"reason {released.version}\n"
    told = installed.run(installed.command, "--help")
    assert "Usage: reason" in told
    assert all(re.search(rf"\b{name}\b", told) for name in ("ask", "verify", "eval", "serve", "doctor", "runs"))


@pytest.mark.nightly
def test_every_entry_point_of_the_wheel_loads(installed):
    script = (
        "import json, importlib.metadata as m\n"
        "tried = {}\n"
        "for e in m.distribution('reason-orchestrator').entry_points:\n"
        "    try:\n"
        "        tried[f'{e.group}/{e.name}'] = e.load() is None and 'nothing'\n"
        "    except ModuleNotFoundError as error:\n"
        "        tried[f'{e.group}/{e.name}'] = error.name\n"
        "print(json.dumps(tried))"
    )
    tried = json.loads(installed.run(installed.python, "-c", script).splitlines()[-1])
    project = PROJECT["project"]
    wanted = {f"{group}/{name}" for group, names in project["entry-points"].items() for name in names}
    assert set(tried) == wanted | {f"console_scripts/{name}" for name in project["scripts"]}
    missing = {name: module for name, module in tried.items() if module}
    # plug-ins of vLLM are loaded by it alone
    assert all(re.split("[./]", name)[0] == module == "vllm" for name, module in missing.items())


@pytest.mark.nightly  # `.ci/run` installs the package and asks, by the README
@pytest.mark.real
def test_it_answers_a_question(installed, smollm2_files):
    home = {"HOME": str(installed.folder), "XDG_DATA_HOME": str(installed.folder / "data")}
    cache = str(smollm2_files.directory.parents[1])
    question = ["ask", "What is the capital of France?", "--budget", "tokens=40", "--json"]
    done = subprocess.run(
        [installed.command, *question],
        capture_output=True,
        text=True,
        cwd=installed.folder,
        env={"PATH": os.environ["PATH"], "REASON_CACHE_DIR": cache, **home},
        timeout=SECONDS,
    )
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["answer"]) in ((0, "Paris"), (4, "Paris")), done.stderr


def test_an_editable_installation_is_found_by_its_path_which_type_checkers_read(tmp_path):
    copy, out = copy_of_checkout(tmp_path / "checkout"), tmp_path / "out"
    (copy / ".package").mkdir()
    (copy / ".package" / "reason").symlink_to("..")
    out.mkdir()
    run([sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_editable({str(out)!r})"], cwd=copy)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as zipped:
        (pth,) = (name for name in zipped.namelist() if "/" not in name)  # and no import hook
        directory = Path(zipped.read(pth).decode().strip())
    assert pth.endswith(".pth")
    assert directory == copy / ".package"
    assert (directory / "reason" / "py.typed").is_file()


@pytest.mark.nightly
def test_a_callers_program_is_checked_by_the_types_of_the_wheel(installed, tmp_path):
    unread = [f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in UNREAD]
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\nplugins = pydantic.mypy\n" + "".join(unread))
    for caller in CALLERS:  # beside the checkout, mypy would take that for a package
        shutil.copy(caller, tmp_path)
    page = (ROOT / "docs" / "writing-a-strategy.md").read_text(encoding="utf-8")
    documented = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert documented is not None
    (tmp_path / "documented_strategy.py").write_text(documented[1])
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", installed.python, "--cache-dir", tmp_path / "cache",
         "--no-error-summary", "--hide-error-context", *(caller.name for caller in CALLERS), "documented_strategy.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=SECONDS,
    )  # fmt: skip
    found = [
        re.sub(r"^(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", r"\1:\2 \3", line)
        for line in checked.stdout.splitlines()
        if ": note: " not in line
    ]
    mistakes = CALLERS[1].read_text(encoding="utf-8").splitlines()
    expected = [
        f"{CALLERS[1].name}:{number} {line.split('# error: ')[1]}"
        for number, line in enumerate(mistakes, start=1)
        if "# error: " in line
    ]
    assert len(expected) >= 4
    assert found == expected, checked.stdout + checked.stderr
