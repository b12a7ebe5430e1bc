"""API keys in the form `reason-<id>-<secret>`. A key is shown once; the store keeps a hash of its secret.

The secret has 256 random bits, so a single SHA-256 is enough. Slow hashes (bcrypt, Argon2) protect passwords that can
be guessed. Here they would only add tens of milliseconds to every request and let invalid keys load the server.
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
"""Matches text that looks like a key, for redaction."""


def new_key() -> tuple[str, str, str]:
    """Generate a key.

    Returns:
        The key, its id and the digest of its secret.
    """
    key_id, secret = _base32(_ID_BYTES), _base32(_SECRET_BYTES)
    return f"{PREFIX}-{key_id}-{secret}", key_id, digest_of(secret)


def parse_key(key: str) -> tuple[str, str] | None:
    """The id and the secret of a key; None if the text is not a key."""
    match = _KEY.fullmatch(key)
    return None if match is None else (match[1], match[2])


def digest_of(secret: str) -> str:
    """Hexadecimal SHA-256 digest of a secret."""
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def verify_secret(secret: str, digest: str | None) -> bool:
    """Whether a secret matches a stored digest, in constant time.

    With `digest=None` (unknown key id) the result is False and takes the same time.
    """
    known = digest_of("") if digest is None else digest
    return hmac.compare_digest(digest_of(secret).encode(), known.encode()) and digest is not None


def _base32(size: int) -> str:
    return base64.b32encode(secrets.token_bytes(size)).decode("ascii").rstrip("=").lower()
