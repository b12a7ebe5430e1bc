"""`KeyRing`: from the `Authorization` header to the caller."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from ...core.api_keys import ApiKey
from ...core.errors import KeyRefused
from ..callers import Caller
from .key_text import is_secret_of, parts_of

REMEMBERED_S = 3.0
"""How long a key is not looked up again, in seconds: so long may a revoked one go on to open the door."""
REMEMBERED_KEYS = 4096
_NO_KEY = "this server asks for a key"
_BAD_KEY = "the key is unknown, revoked or expired"
_HOW = "send `Authorization: Bearer KEY`; `reason keys create` on the server makes one"


class KeyStore(Protocol):
    """What is needed of the run store."""

    async def find_key(self, key_id: str) -> ApiKey | None:
        """The key of that id, revoked or not; None if there is none."""


class KeyRing:
    """The keys of a store.

    An unknown id and a wrong secret take the same way and get the same answer.

    Args:
        store: Where the keys are.
        clock: Monotonic seconds; replaced in tests.
        now: Seconds since the epoch; likewise.
    """

    def __init__(
        self, store: KeyStore, *, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._store, self._clock, self._now = store, clock, now
        self._seen: OrderedDict[str, tuple[float, ApiKey | None]] = OrderedDict()

    async def caller(self, authorization: str | None) -> Caller:
        """Who sent a request.

        Args:
            authorization: The header's value; None if there is none.

        Raises:
            KeyRefused: There is no key, or not a good one.
        """
        if not authorization:
            raise KeyRefused(_NO_KEY, hint=_HOW)
        scheme, _, text = authorization.partition(" ")
        parts = parts_of(text.strip()) if scheme.lower() == "bearer" else None
        if parts is None:
            raise KeyRefused(_BAD_KEY, hint=_HOW)
        key_id, secret = parts
        key = await self._find(key_id)
        if not is_secret_of(secret, None if key is None else key.digest) or key is None or not key.is_good(self._now()):
            raise KeyRefused(_BAD_KEY, hint=_HOW)
        return Caller(key_id=key.id, tenant=key.tenant, scopes=key.scopes, limits=key.limits)

    async def _find(self, key_id: str) -> ApiKey | None:
        """The key, looked up at most once in a few seconds; ids that do not exist are remembered too."""
        seen = self._seen.get(key_id)
        if seen is not None and self._clock() - seen[0] < REMEMBERED_S:
            return seen[1]
        asked = self._clock()
        key = await self._store.find_key(key_id)
        self._seen[key_id] = (asked, key)
        self._seen.move_to_end(key_id)
        while len(self._seen) > REMEMBERED_KEYS:
            self._seen.popitem(last=False)
        return key
