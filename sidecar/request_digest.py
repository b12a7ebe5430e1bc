"""The hash of a request, by which a repeated one is told from another with the same idempotency key."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel


def digest_of(path: str, body: BaseModel) -> str:
    """A hash of what was asked for; whether it is streamed makes no difference."""
    told = body.model_dump_json(exclude_unset=True, exclude={"stream", "stream_options"})
    return hashlib.sha256(f"{path}\n{told}".encode()).hexdigest()
