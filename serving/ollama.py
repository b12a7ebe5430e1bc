"""Ollama's address, found as its own client finds it.

Its models are called at its `/v1`, in OpenAI's format, and not through LiteLLM: LiteLLM asks `/api/show` after every
response and blocks the event loop meanwhile (`llms/ollama/common_utils.py`, 1.110).

Source: `envconfig/config.go` (`Host`, `ConnectableHost`) of ollama/ollama, August 2026.
"""

from __future__ import annotations

import ipaddress
import os
import urllib.parse
from contextlib import suppress
from typing import Final

DEFAULT_PORT: Final = 11434


def ollama_address(named: str | None) -> str:
    """The address of Ollama's interface in OpenAI's format, which ends in `/v1`.

    Args:
        named: An address with or without `/v1`, as in LiteLLM's `OLLAMA_API_BASE`. None is that of `OLLAMA_HOST`, in
            which scheme and port may be missing, or else port 11434 of this machine.
    """
    return (named or _host()).rstrip("/").removesuffix("/v1") + "/v1"


def _host() -> str:
    host = os.environ.get("OLLAMA_HOST", "").strip()
    has_scheme = "://" in host
    parts = urllib.parse.urlsplit(host if has_scheme else f"http://{host}")
    try:
        port = parts.port
    except ValueError:  # Ollama ignores an invalid port too
        port = None
    name = parts.hostname or "127.0.0.1"
    with suppress(ValueError):  # not an address but a name
        address = ipaddress.ip_address(name)
        if address.is_unspecified:  # Ollama listens on all interfaces
            name = "::1" if address.version == 6 else "127.0.0.1"
    name = f"[{name}]" if ":" in name else name
    port = port or (None if has_scheme else DEFAULT_PORT)
    return f"{parts.scheme}://{name}{f':{port}' if port else ''}{parts.path}"
