"""`HttpSource`: a web service as a knowledge source: POST {"query", "k", "context"} returns {"snippets": [...]}."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ....core.concurrency import PerLoop
from ....core.errors import BackendError, BackendTimeout, BackendUnavailable, InvalidResponse, RateLimited, UserError
from ...knowledge import Snippet
from .snippets import parse_snippets

if TYPE_CHECKING:
    import aiohttp

MAX_RESPONSE_BYTES = 4 << 20
TIMEOUT_S = 30.0


class HttpSource:
    """A service at a URL.

    The request body is `{"query": text, "k": number, "context": text}` as JSON, the response body
    `{"snippets": [{"text": …, "source_id": …, "score": …}, …]}`, best first; `source_id` and `score` are optional.
    Redirects are not followed, so that a trusted URL cannot forward the query to another.

    Args:
        url: `http://…` or `https://…`, without credentials.
        headers: Further headers, such as `Authorization`; not part of name and identity.
        timeout_s: Maximum seconds of a request.
        name: Name of the source; None is the URL.

    Raises:
        UserError: The URL is invalid.
    """

    kind = "http"

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        name: str | None = None,
    ) -> None:
        self._url = validate_url(url)
        self.name = name or self._url
        self.identity = f"http:{self._url}"
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._sessions = PerLoop(self._open_session, lambda session: session.close())
        self._closed = False

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """The snippets that the service returns (see `KnowledgeSource`).

        Raises:
            BackendUnavailable: It cannot be reached.
            BackendTimeout: It did not respond in time.
            RateLimited: It refused temporarily.
            BackendError: It responded with another status than 200.
            InvalidResponse: Its response is too long, or cannot be read as snippets.
        """
        import aiohttp

        body = {"query": text, "k": k, "context": context}
        try:
            async with self._sessions.get().post(self._url, json=body, allow_redirects=False) as response:
                self._check_status(response)
                content = await self._read(response)
        except TimeoutError as e:
            raise BackendTimeout(f"{self.name} did not respond within {self._timeout_s:g} seconds") from e
        except aiohttp.ClientConnectorError as e:
            raise BackendUnavailable(f"{self.name} cannot be reached: {e.strerror or e}", hint="is it running?") from e
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise BackendError(f"the connection to {self.name} failed: {type(e).__name__}") from e
        try:
            value: object = json.loads(content)
        except (ValueError, RecursionError) as e:
            raise InvalidResponse(f"the response of {self.name} is not valid JSON") from e
        return parse_snippets(value, self.name)[:k]

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        self._closed = True
        await self._sessions.aclose()

    def _open_session(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._closed:
            raise BackendUnavailable(f"{self.name} is closed")
        return aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            # cookies must not link one query to another
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,
        )

    def _check_status(self, response: aiohttp.ClientResponse) -> None:
        if response.status == 429:
            after = response.headers.get("Retry-After", "")
            raise RateLimited(f"{self.name} is rate limited", retry_after_s=float(after) if after.isdecimal() else None)
        if 300 <= response.status < 400:
            raise BackendError(f"{self.name} redirects to another URL", hint="give that URL, if it is to be queried")
        if response.status != 200:
            raise BackendError(f"{self.name} responded with status {response.status}")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        async for piece in response.content.iter_chunked(1 << 16):
            content += piece
            if len(content) > MAX_RESPONSE_BYTES:
                raise InvalidResponse(f"the response of {self.name} is longer than {MAX_RESPONSE_BYTES >> 20} MiB")
        return bytes(content)


def validate_url(url: str) -> str:
    """The URL, if it is an HTTP URL without credentials.

    Raises:
        UserError: It is not.
    """
    try:
        parts = urlsplit(url)
        is_port_valid = parts.port is None or parts.port > 0
    except ValueError:
        parts, is_port_valid = urlsplit(""), False
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_port_valid or not url.isprintable():
        raise UserError(f"{url!r} is not an HTTP URL", hint="expected: https://host:port/path")
    if parts.username is not None or parts.password is not None:
        raise UserError(
            f"the URL of {parts.hostname} contains a password, which traces would show",
            hint='pass it as a header: HttpSource(url, headers={"Authorization": "…"})',
        )
    return url
