"""What an installation costs: bytes to download, bytes on disk, seconds; the figures of docs/install.md.

python benchmarks/install_size.py WHEEL                             # each extra into an environment of its own
python benchmarks/install_size.py WHEEL --extras "" local           # these only; "" is the package without extras
python benchmarks/install_size.py WHEEL --extras local --dry-run    # what pip would download, without installing

Uses the indexes that pip is configured for. Environments are made in a temporary directory and removed. Seconds depend
on the network; pip's cache is not used.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

EXTRAS = ("", "providers", "local", "sidecar", "eval")
SHOWN = 6
"""Largest packages that are named."""


def size_of(url: str) -> int:
    """Bytes of a file on an index or on this disk."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path)).stat().st_size
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60) as response:
        return int(response.headers["Content-Length"])


def bytes_below(directory: Path) -> int:
    """Bytes of the files below a directory."""
    return sum(p.stat().st_size for p in directory.rglob("*") if p.is_file() and not p.is_symlink())


def measure(spec: str, *, dry_run: bool) -> dict[str, Any]:
    """Install a specification into a new environment, or only resolve it."""
    with tempfile.TemporaryDirectory() as directory:
        environment, report = Path(directory, "venv"), Path(directory, "report.json")
        venv.create(environment, with_pip=True, symlinks=True)
        before = bytes_below(environment)
        command = [environment / "bin" / "python", "-m", "pip", "install", "-q", "--no-cache-dir", "--report", report]
        started = time.monotonic()
        subprocess.run([*command, *(["--dry-run"] if dry_run else []), spec], check=True)
        seconds = time.monotonic() - started
        installed = json.loads(report.read_text())["install"]
        sizes = {one["metadata"]["name"]: size_of(one["download_info"]["url"]) for one in installed}
        return {
            "packages": len(sizes),
            "download_bytes": sum(sizes.values()),
            "disk_bytes": None if dry_run else bytes_below(environment) - before,
            "seconds": seconds,
            "largest": sorted(sizes.items(), key=lambda item: -item[1])[:SHOWN],
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line of Markdown for each extra."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--extras", nargs="+", default=EXTRAS)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args(arguments)
    print("| extra | packages | download, MB | on disk, MB | seconds | largest downloads, MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for extra in options.extras:
        found = measure(str(options.package) + (f"[{extra}]" if extra else ""), dry_run=options.dry_run)
        disk = "" if found["disk_bytes"] is None else f"{found['disk_bytes'] / 1e6:.0f}"
        largest = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in found["largest"])
        name = f"`[{extra}]`" if extra else "none"
        megabytes = f"{found['download_bytes'] / 1e6:.0f}"
        print(
            f"| {name} | {found['packages']} | {megabytes} | {disk} | {found['seconds']:.0f} | {largest} |", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
