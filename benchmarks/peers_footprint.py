"""What a peer weighs: its packages on disk, and how long it takes to be imported.

Size is that of all files in the environment's `site-packages`, less those of an empty environment made by the same
interpreter; compiled files are not counted. A round imports every peer once, in an order that turns; the first round
is not counted, so that files are in the page cache for everybody.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from peers_methods import ALL, Peer
from sidecar_load_table import spread, table

BARE = "(an empty environment)"
EXTRA = (
    Peer("reason, the package alone", "reason", "reason-orchestrator", "import reason", "", {}),
    Peer("LiteLLM", "litellm", "litellm", "import litellm", "", {}),
)
_TELL = "from importlib.metadata import distributions, version; print(version('{0}'), len(list(distributions())))"


@dataclass(frozen=True)
class Footprint:
    """What a peer weighs.

    Attributes:
        version: Of its package.
        packages: Distributions beside it and those of an empty environment.
        size: Bytes on disk beyond an empty environment.
        imports: Seconds of `import`, with the interpreter's own start, one a round.
    """

    version: str
    packages: int
    size: int
    imports: list[float]


def site_packages(venv: Path) -> Path:
    """The folder of an environment's packages."""
    return next((venv / "lib").glob("python3*")) / "site-packages"


def bytes_of(folder: Path) -> int:
    """Bytes of all files below a folder but compiled caches; links are not followed."""
    return sum(
        path.lstat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc"
    )


def measure(peers: Path, rounds: int) -> tuple[dict[str, Footprint], list[str]]:
    """All peers that are installed, and what could not be measured."""
    found: dict[str, Footprint] = {}
    missing: list[str] = []
    bare = peers / "bare"
    nothing = bytes_of(site_packages(bare))
    empty = len(list(site_packages(bare).glob("*.dist-info")))
    there: list[tuple[str, Path, str]] = [(BARE, bare, "pass")]
    found[BARE] = Footprint("", 0, 0, [])
    for peer in (*ALL, *EXTRA):
        venv = peers / peer.venv
        if not (venv / "bin" / "python").exists():
            missing.append(f"{peer.name}, which is not installed (benchmarks/peers/install)")
            continue
        version, packages = _python(venv, _TELL.format(peer.package)).split()
        size = bytes_of(site_packages(venv)) - nothing
        found[peer.name] = Footprint(version, int(packages) - empty - 1, size, [])
        there.append((peer.name, venv, peer.imported))
    for number in range(rounds + 1):
        for name, venv, imported in there:
            began = time.perf_counter()
            _python(venv, imported)
            if number:
                found[name].imports.append(time.perf_counter() - began)
        there.append(there.pop(0))
    return found, missing


def _python(venv: Path, code: str) -> str:
    done = subprocess.run([venv / "bin" / "python", "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return done.stdout


def footprint_table(found: dict[str, Footprint]) -> str:
    """A row for each peer; times are medians over the rounds with their range."""
    head = ["", "version", "other packages", "MiB on disk", "imported, s", "range"]
    lines = []
    for name, one in found.items():
        size = "" if name == BARE else f"{one.size / 2**20:.0f}"
        line = [name, one.version, "" if name == BARE else str(one.packages), size]
        lines.append([*line, *spread(one.imports, 2)])
    return table(head, lines)
