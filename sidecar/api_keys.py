"""API keys as text: `reason-<id>-<secret>`. The key is shown once; what is kept is a hash of its secret part.

The secret is 256 random bits, so one SHA-256 is enough to keep it: slow hashes (bcrypt, Argon2) make guessing dear
where people choose what is drafted, and no one draft tokens 256 random bits at any speed. They would cost every request
some tens of milliseconds instead, and hand anyone who sends wrong keys a way to keep the server busy.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

PREFIX = "reason"
_ID_BYTES, _SECRET_BYTES = 5, 32
_KEY = re.compile(rf"{PREFIX}-([a-z2-7]{{8}})-([a-z2-7]{{52}})")
KEY_PATTERN = re.compile(rf"{PREFIX}-[a-z2-7]{{8}}-[a-z2-7]{{8,}}")
"""What looks like a key, for what must not show any."""


def new_key() -> tuple[str, str, str]:
    """A new key.

    Returns:
        The key, its id, and the digest of its secret part.
    """
    key_id, secret = _base32(_ID_BYTES), _base32(_SECRET_BYTES)
    return f"{PREFIX}-{key_id}-{secret}", key_id, digest_of(secret)


def parse_key(key: str) -> tuple[str, str] | None:
    """Id and secret of a key; None if the text is none."""
    match = _KEY.fullmatch(key)
    return None if match is None else (match[1], match[2])


def digest_of(secret: str) -> str:
    """SHA-256 of a secret, in hexadecimal."""
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def verify_secret(secret: str, digest: str | None) -> bool:
    """Whether a secret has that digest, in a time that does not depend on either.

    Args:
        secret: What the caller has shown.
        digest: What is kept; None where there is no such key, which takes as long and is never right.
    """
    known = digest_of("") if digest is None else digest
    return hmac.compare_digest(digest_of(secret).encode(), known.encode()) and digest is not None


def _base32(size: int) -> str:
    return base64.b32encode(secrets.token_bytes(size)).decode("ascii").rstrip("=").lower()
