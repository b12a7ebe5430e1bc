"""Servers of one's own that run on this machine, found at the addresses that they have by default."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..ollama import ollama_address

PORTS: Final = {"LM Studio": 1234, "llama.cpp": 8080, "vLLM": 8000, "SGLang": 30000}
"""Default ports, beside Ollama's, whose address the environment may name."""
OWNERS: Final = {"vllm": "vLLM", "llamacpp": "llama.cpp", "sglang": "SGLang", "library": "Ollama"}
"""Servers by `owned_by` of their models, wherever they listen. Of Ollama's models, those of its library."""
PROVIDERS: Final = {"vLLM": "hosted_vllm", "Ollama": "ollama"}
"""Providers in model strings, where it is not `openai`."""
LOOK_S = 1.0
"""Seconds within which a server lists its models."""


class LocalServer(NamedTuple):
    """A server that lists its models.

    Attributes:
        name: What it is, by its models' owner or else by its port.
        address: Its address, as in `http://127.0.0.1:8000/v1`.
        models: Model strings, those of embedding models last.
    """

    name: str
    address: str
    models: tuple[str, ...]


def default_addresses() -> dict[str, str]:
    """The servers by their addresses."""
    ports = {f"http://127.0.0.1:{port}/v1": name for name, port in PORTS.items()}
    return {ollama_address(None): "Ollama", **ports}


async def find_local_servers(addresses: Mapping[str, str], look_s: float | None = None) -> list[LocalServer]:
    """The servers that list their models, in the order of the addresses; all are asked at the same time.

    Args:
        addresses: The server that is expected at an address.
        look_s: Seconds to wait for a list; None is `LOOK_S`.
    """
    look_s = LOOK_S if look_s is None else look_s
    found = await asyncio.gather(*(_look(address, name, look_s) for address, name in addresses.items()))
    return [server for server in found if server is not None]


def as_server(listed: Sequence[Mapping[str, Any]], address: str, expected: str = "") -> LocalServer:
    """A server by the entries of its list of models.

    Raises:
        LookupError: An entry has no id.
    """
    name = next((OWNERS[owner] for entry in listed if (owner := entry.get("owned_by")) in OWNERS), expected)
    names = sorted((str(entry["id"]) for entry in listed), key=lambda one: "embed" in one.lower())
    provider = PROVIDERS.get(name, "openai")
    return LocalServer(name, address, tuple(f"{provider}/{one}@{address}" for one in names))


async def _look(address: str, expected: str, look_s: float) -> LocalServer | None:
    import httpx

    try:
        # the default addresses are of this machine, so no proxy is asked
        async with asyncio.timeout(look_s), httpx.AsyncClient(timeout=look_s, trust_env=False) as client:
            response = await client.get(f"{address}/models")
        return as_server(response.json()["data"] or (), address, expected)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, LookupError, TypeError, AttributeError):
        return None  # nothing listens there, or something else
