"""`MeteredRetriever`: what was found for a claim is kept in the run store, so that the run can be shown again."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import JsonValue, ValidationError

from ...core.errors import StoreError
from ...core.events import PassagesFound
from ...core.run import Run
from ...core.store import StoredCall, call_key
from ..evidence import Passage
from .retriever import Retriever

ROLE = "retriever"


class MeteredRetriever:
    """A retriever of one run; it is a `Retriever` itself.

    Searching is not charged: it costs neither tokens nor passes. What was found is stored by claim, and answers a
    resumed or replayed run.

    Args:
        retriever: What searches; it is not closed by this object.
        run: The run.
    """

    def __init__(self, retriever: Retriever, run: Run) -> None:
        self._retriever, self._run = retriever, run
        self.name, self.identity = retriever.name, retriever.identity

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """See `Retriever.retrieve`; claims that the store has an answer to are not looked up again."""
        began = time.monotonic()
        wanted = list(dict.fromkeys(claims))
        asked: dict[str, dict[str, JsonValue]] = {c: {"retrieval": {"claim": c, "k": k}} for c in wanted}
        keys = {c: call_key(self.identity, asked[c], None, 0) for c in wanted}
        stored = await self._run.stored(list(keys.values()))
        found = {c: _passages(stored[key]) for c, key in keys.items() if key in stored}
        missing = [c for c in wanted if c not in found]
        if missing:
            found.update(zip(missing, await self._retriever.retrieve(missing, k), strict=True))
            calls = [
                StoredCall(
                    key=keys[c],
                    role=ROLE,
                    model=self.name,
                    request=asked[c],
                    reply={"passages": [p.model_dump(mode="json") for p in found[c]]},
                )
                for c in missing
            ]
            await self._run.store.add_calls(self._run.id, calls)
        self._run.emit(
            PassagesFound(
                retriever=self.name,
                claims=len(wanted),
                passages=sum(map(len, found.values())),
                replayed=len(wanted) - len(missing),
                seconds=time.monotonic() - began,
            )
        )
        return [list(found[c]) for c in claims]

    async def aclose(self) -> None:
        """Do nothing: the retriever belongs to whoever opened it."""


class RecordedRetriever:
    """Stands for a retriever when a stored run is shown again; the store answers before anything comes here.

    Args:
        name: The name of the recorded run's.
        identity: Its identity.
        degraded: What it did less well than it could.
    """

    def __init__(self, name: str, identity: str, degraded: tuple[str, ...] = ()) -> None:
        self.name, self.identity, self.degraded = name, identity, degraded

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """Refuse.

        Raises:
            StoreError: Always: the store has nothing for a claim.
        """
        raise StoreError(
            f"the store does not hold what was found for {claims[0][:60]!r}",
            hint="the run was not finished, or another version of reason made it: resume it instead",
        )

    async def aclose(self) -> None:
        """Do nothing."""


def _passages(call: StoredCall) -> list[Passage]:
    """What was stored.

    Raises:
        StoreError: It is no list of passages.
    """
    kept = call.reply.get("passages")
    try:
        return [Passage.model_validate(one) for one in kept] if isinstance(kept, list) else []
    except ValidationError as e:
        raise StoreError(
            f"the store has {str(call.reply)[:80]!r} as passages", hint="another version of reason made it"
        ) from e
