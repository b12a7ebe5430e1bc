"""`Endpoints`: which of several endpoints of one model takes the next request.

LiteLLM's Router does this too, and it was tried first (1.110). It cannot stand in front of what `wire` reads: it gives
back its own wrapper of LiteLLM's stream, which joins samples and makes up finishes; an endpoint whose stream breaks off
in the middle is not cooled down; its count of requests under way is kept by callbacks of LiteLLM's own stream; the
methods that merely choose are deprecated or new from one release to the next; and a call through it takes longer than
through bare LiteLLM (`benchmarks/backend_overhead.py`). So choice and health are ours, and LiteLLM keeps what it does
for a single endpoint: provider, address, key, prices and the mapping of parameters.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from ...core.messages import Prompt
from .health import Health
from .limiter import Limiter
from .model import LiteLLMModel

SLACK = 8
"""Requests that the endpoint of a prompt's beginning may have more than the least busy one before that one is taken."""
BEGINNING = 2048
"""Characters of a prompt's beginning that decide its endpoint, where that is wanted."""


@dataclass(eq=False)
class Endpoint:
    """One endpoint.

    Attributes:
        place: Its address.
        limiter: How many requests it takes at once.
        weight: Its share of the requests relative to the others'.
        health: Whether it is to be asked.
        model: The model there; None until it could be reached.
        excluded: Why it is never asked: it serves something else.
    """

    place: str
    limiter: Limiter
    weight: float = 1.0
    health: Health = field(default_factory=Health)
    model: LiteLLMModel | None = None
    excluded: str = ""
    _last: int = 0

    @property
    def load(self) -> float:
        """Requests that it would have with one more, by its weight."""
        return (self.limiter.busy + 1) / self.weight


class Endpoints:
    """Several endpoints of one model.

    Args:
        endpoints: The endpoints, at least one.
        clock: Seconds, only forward.
    """

    def __init__(self, endpoints: Sequence[Endpoint], clock: Callable[[], float] = time.monotonic) -> None:
        self.all = tuple(endpoints)
        self.clock = clock
        self._turn = 0
        self._news = asyncio.Event()

    def choose(self, key: str | None, without: Collection[Endpoint]) -> Endpoint | None:
        """The least busy usable endpoint, or that of the key if it is not much busier; None if none is usable.

        Args:
            key: Prompts with the same key go to the same endpoint while they can; None if it does not matter.
            without: Endpoints that are not wanted.
        """
        now = self.clock()
        usable = [e for e in self.all if e not in without and not e.excluded and e.health.usable(now)]
        if not usable:
            return None
        chosen = min(usable, key=lambda e: (e.limiter.full, e.load, e._last))
        if key is not None:
            own = min(usable, key=lambda e: _rank(key, e))
            if own.limiter.busy <= chosen.limiter.busy + SLACK and not own.limiter.full:
                chosen = own
        self._turn += 1
        chosen._last = self._turn
        return chosen

    def due_s(self) -> float | None:
        """Seconds until the first endpoint may be tried; None if that depends on a request under way."""
        now = self.clock()
        due = [s for e in self.all if not e.excluded and (s := e.health.due_s(now)) is not None]
        return min(due, default=None)

    def changed(self) -> None:
        """Tell those who wait that an endpoint's health may have changed."""
        self._news.set()
        self._news = asyncio.Event()

    async def news(self, seconds: float) -> None:
        """Wait for such a change, at most so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def account(self) -> str:
        """Each endpoint with why it is not asked, for messages."""
        return "; ".join(f"{e.place}: {e.excluded or e.health.last_error or 'not tried'}" for e in self.all)


def beginning(prompt: Prompt) -> str:
    """A name for a prompt's beginning: its salt, and its first turns up to the user's or the beginning of its text."""
    texts: list[str] = [prompt.cache_salt] if prompt.cache_salt else []
    texts += [] if prompt.text is None else [prompt.text]
    for message in prompt.messages:
        texts.append(f"{message.role}\n{message.content}")
        if message.role == "user":
            break
    return hashlib.sha256("\n".join(texts)[:BEGINNING].encode(errors="surrogatepass")).hexdigest()


def _rank(key: str, endpoint: Endpoint) -> float:
    """Where an endpoint stands for a key: the least wins, so that the loss of one moves its own keys alone.

    Source: rendezvous hashing (Thaler and Ravishankar, 1998) with the weight w as -ln(u) / w, u uniform by the hash:
    the least of such numbers falls on each endpoint in proportion to its weight.
    """
    digest = hashlib.sha256(f"{key}\n{endpoint.place}".encode()).digest()
    return -math.log((int.from_bytes(digest[:8], "big") + 1) / (2.0**64 + 1)) / endpoint.weight
