"""New API keys in a run store."""

from __future__ import annotations

import time
from typing import Any

from reason.sidecar.api_keys import new_key
from reason.sidecar.key_store import ApiKey, KeyLimits, KeyStore


async def add_key(store: Any, *scopes: str, tenant: str = "t", **limits: Any) -> str:
    """The text of a new key, which may ask and read if no scopes are given."""
    text, key_id, digest = new_key()
    scoped = {"scopes": frozenset(scopes or ("ask", "read")), "limits": KeyLimits(**limits)}
    key = ApiKey(id=key_id, name="n", tenant=tenant, digest=digest, created=time.time(), **scoped)
    await (await KeyStore.open(store)).add(key)
    return text
