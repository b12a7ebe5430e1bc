"""What a provider's prompt cache, or a router in front of several servers, is told of prompts that begin alike.

OpenAI caches by itself and routes requests of one `prompt_cache_key` to the same machine. Anthropic caches up to a
block with `cache_control`, and writing costs more than reading the prompt plainly: so only those messages are marked
that another request of the same call begins with, or that an earlier call began with.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.messages import Prompt
from .providers import BYTES_PER_TOKEN

BEGINNING = 2048
"""Characters of the user's first turn, or of a raw text, that decide a prompt's key."""
KEY_CHARS = 32
"""Characters of a key that are sent."""
MAX_KNOWN_PREFIXES = 4096
"""Beginnings of earlier calls that are remembered."""
WARM_S = 240.0
"""Seconds for which a written prefix is taken to be in the cache: Anthropic's entries live for 300 s."""


def prompt_start_key(prompt: Prompt) -> str:
    """A hash of a prompt's beginning: its salt, the turns before the user's first, and the beginning of that one.

    A system prompt counts in full, so that questions under a long one have keys of their own.
    """
    texts: list[str] = [prompt.cache_salt] if prompt.cache_salt else []
    texts += [] if prompt.text is None else [prompt.text[:BEGINNING]]
    for message in prompt.messages:
        is_user = message.role == "user"
        texts.append(f"{message.role}\n{message.content[:BEGINNING] if is_user else message.content}")
        if is_user:
            break
    return hashlib.sha256("\n".join(texts).encode(errors="surrogatepass")).hexdigest()


@dataclass
class CachedPrefix:
    """How the requests of one prompt use the provider's cache.

    Attributes:
        marks: Numbers of leading messages after which the prompt is marked.
        begun: Set when the response to the first request of a shared prefix has begun, which is when the provider has
            written it; None if there is no such prefix.
        waits: Whether this prompt's first request waits for that; the further ones do in any case.
    """

    marks: tuple[int, ...] = ()
    begun: asyncio.Event | None = None
    waits: bool = False


@dataclass
class SharedPrefixes:
    """The beginnings that prompts of one model share.

    Attributes:
        min_tokens: Minimum tokens of a prefix that the provider caches.
        clock: Monotonic seconds.
    """

    min_tokens: int
    clock: Callable[[], float] = time.monotonic
    _known: dict[str, None] = field(default_factory=dict)
    _written: dict[str, float] = field(default_factory=dict)

    def of_call(self, prompts: Sequence[Prompt], num_requests: Sequence[int]) -> list[CachedPrefix]:
        """What to mark in the prompts of one call.

        Args:
            prompts: The prompts.
            num_requests: How many requests are sent for each.
        """
        chains = [self._chain(prompt) for prompt in prompts]
        used = Counter[str]()
        for chain, number in zip(chains, num_requests, strict=True):
            used.update(dict.fromkeys((digest for _, digest in chain), number))
        first: dict[str, asyncio.Event] = {}
        results = []
        for chain in chains:
            within = next(((at, digest) for at, digest in reversed(chain) if used[digest] > 1), None)
            before = next((at for at, digest in reversed(chain) if digest in self._known), 0)
            if within is None:
                results.append(CachedPrefix((before,) if before else ()))
                continue
            at, digest = within
            marks = tuple(sorted({at, before} - {0}))
            if self.clock() < self._written.get(digest, 0.0):
                results.append(CachedPrefix(marks))
            else:
                waits = digest in first
                results.append(CachedPrefix(marks, first.setdefault(digest, asyncio.Event()), waits))
        self._remember([digest for chain in chains for _, digest in chain], list(first))
        return results

    def _chain(self, prompt: Prompt) -> list[tuple[int, str]]:
        """(number of leading messages, their digest) of each prefix that can be marked."""
        tools = json.dumps([tool.as_openai() for tool in prompt.tools])
        digest, size = hashlib.sha256(f"{prompt.cache_salt}\n{tools}".encode(errors="surrogatepass")), len(tools)
        chain = []
        for number, message in enumerate(prompt.messages, 1):
            text = message.model_dump_json()
            digest.update(text.encode(errors="surrogatepass"))
            size += len(message.content.encode(errors="surrogatepass"))
            if message.role in ("system", "user") and message.content and size >= self.min_tokens * BYTES_PER_TOKEN:
                chain.append((number, digest.copy().hexdigest()))
        return chain

    def _remember(self, digests: Sequence[str], written: Sequence[str]) -> None:
        until = self.clock() + WARM_S
        for digest in digests:
            self._known.pop(digest, None)
            self._known[digest] = None
        for digest in written:
            self._written.pop(digest, None)
            self._written[digest] = until
        for entries in (self._known, self._written):
            while len(entries) > MAX_KNOWN_PREFIXES:
                del entries[next(iter(entries))]


def with_marks(messages: list[dict[str, Any]], marks: Sequence[int]) -> None:
    """Mark messages in OpenAI's form as ends of what the provider caches, as LiteLLM passes it on to Anthropic."""
    for number in marks:
        content = messages[number - 1]["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        marked = {**blocks[-1], "cache_control": {"type": "ephemeral"}}
        messages[number - 1] = {**messages[number - 1], "content": [*blocks[:-1], marked]}
