"""`HttpSource`: a web service that is asked by POST: {"query", "k", "context"} gives {"snippets": [...]}."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ....core.errors import BackendError, BackendTimeout, BackendUnavailable, InvalidResponse, RateLimited, UserError
from .protocol import Snippet, parse_snippets

if TYPE_CHECKING:
    import aiohttp


MOST_REPLY_BYTES = 4 << 20
TIMEOUT_S = 30.0


class HttpSource:
    """A service at an address.

    The body of a request is `{"query": text, "k": number, "context": text}` as JSON, that of a reply
    `{"snippets": [{"text": …, "source_id": …, "score": …}, …]}`, the best first; `source_id`, `score` may be missing.
    Redirects are not followed, so that an address that was trusted cannot hand the query on to another.

    Args:
        url: The address, `http://…` or `https://…`, without a name and password in it.
        headers: Further headers, such as `Authorization`; they are no part of name and identity.
        timeout_s: Longest time for a request, in seconds; who asks may have less patience.
        name: What it is called; None is the address.

    Raises:
        UserError: That is no such address.
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
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """What the service finds (see `KnowledgeSource`).

        Raises:
            BackendUnavailable: It cannot be reached.
            BackendTimeout: It does not answer in time.
            RateLimited: It refused for now.
            BackendError: It answered with another status than 200.
            BadReply: Its answer is too long, or cannot be read as snippets.
        """
        import aiohttp

        try:
            async with self._opened().post(
                self._url, json={"query": text, "k": k, "context": context}, allow_redirects=False
            ) as reply:
                self._check_status(reply)
                content = await self._content(reply)
        except TimeoutError as e:
            raise BackendTimeout(f"{self.name} did not answer within {self._timeout_s:g} seconds") from e
        except aiohttp.ClientConnectorError as e:
            raise BackendUnavailable(f"{self.name} cannot be reached: {e.strerror or e}", hint="is it running?") from e
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise BackendError(f"{self.name} broke off: {type(e).__name__}") from e
        return parse_snippets(self._parsed(content), self.name)[:k]

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        session, self._session, self._closed = self._session, None, True
        if session is not None:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._closed:
            raise BackendUnavailable(f"{self.name} is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                # what a service sets must not come back to it from another query
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=True,
            )
        return self._session

    def _check_status(self, reply: aiohttp.ClientResponse) -> None:
        if reply.status == 429:
            after = reply.headers.get("Retry-After", "")
            raise RateLimited(f"{self.name} refuses for now", retry_after_s=float(after) if after.isdecimal() else None)
        if 300 <= reply.status < 400:
            raise BackendError(f"{self.name} leads to another address", hint="give that address, if it is to be asked")
        if reply.status != 200:
            raise BackendError(f"{self.name} answered with status {reply.status}")

    async def _content(self, reply: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        async for piece in reply.content.iter_chunked(1 << 16):
            content += piece
            if len(content) > MOST_REPLY_BYTES:
                raise InvalidResponse(f"the answer of {self.name} is longer than {MOST_REPLY_BYTES >> 20} MiB")
        return bytes(content)

    def _parsed(self, content: bytes) -> object:
        try:
            found: object = json.loads(content)
        except (ValueError, RecursionError) as e:
            raise InvalidResponse(f"the answer of {self.name} is no JSON") from e
        return found


def validate_url(url: str) -> str:
    """The address, if it is one that can be asked.

    Raises:
        UserError: It is not.
    """
    try:
        parts = urlsplit(url)
        port_is_number = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_number = urlsplit(""), False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_number or not url.isprintable():
        raise UserError(f"{url!r} is no web address", hint="it looks like https://host:port/path")
    if parts.username is not None or parts.password is not None:
        raise UserError(
            f"the address of {parts.hostname} has a password in it, which traces would show",
            hint='give it as a header: HttpBrain(url, headers={"Authorization": "…"})',
        )
    return url
