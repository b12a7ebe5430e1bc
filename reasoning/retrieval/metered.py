"""`MeteredRetriever`: a retriever of one run, whose results are in the run store; `RecordedRetriever` for replays."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import JsonValue, ValidationError

from ...core.errors import StoreError
from ...core.events import EvidenceRetrieved
from ...core.run import Run
from ...core.store.protocol import StoredCall, call_key
from ...serving.metered.calls import RecordedCalls
from ...serving.metered.replay import ReplayStub
from ..knowledge import Passage, Retriever

ROLE = "retriever"


class MeteredRetriever:
    """A retriever of one run; it is a `Retriever` itself.

    Searching costs neither tokens nor passes, so nothing is reserved or charged. The passages are stored by claim, and
    answer a resumed or replayed run. The retriever is not closed by this object.
    """

    def __init__(self, retriever: Retriever, run: Run) -> None:
        self._retriever, self._run = retriever, run
        self.name, self.identity = retriever.name, retriever.identity
        self._calls = RecordedCalls(run, ROLE, self.name, self.identity)

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """See `Retriever.retrieve`; claims with stored passages are not searched again."""
        started = time.monotonic()
        distinct = list(dict.fromkeys(claims))
        requests: dict[str, dict[str, JsonValue]] = {c: {"retrieval": {"claim": c, "k": k}} for c in distinct}
        keys = {c: call_key(self.identity, requests[c], None, 0) for c in distinct}
        stored = await self._run.lookup_calls(list(keys.values()))
        by_claim = {c: _passages(stored[key]) for c, key in keys.items() if key in stored}
        missing = [c for c in distinct if c not in by_claim]
        if missing:
            by_claim.update(zip(missing, await self._retriever.retrieve(missing, k), strict=True))
            records = [
                self._calls.record(keys[c], requests[c], {"passages": [p.model_dump(mode="json") for p in by_claim[c]]})
                for c in missing
            ]
            await self._run.save_calls(records)
        self._run.emit(
            EvidenceRetrieved(
                retriever=self.name,
                claims=len(distinct),
                passages=sum(map(len, by_claim.values())),
                replayed=len(distinct) - len(missing),
                seconds=time.monotonic() - started,
            )
        )
        return [list(by_claim[c]) for c in claims]

    async def aclose(self) -> None:
        """Do nothing: the retriever is closed by its owner."""


class RecordedRetriever(ReplayStub):
    """Replaces a retriever in a replay; `degraded` is what the recorded one reported."""

    def __init__(self, name: str, identity: str, degraded: tuple[str, ...] = ()) -> None:
        super().__init__(name, identity)
        self.degraded = degraded

    async def retrieve(self, claims: Sequence[str], k: int) -> list[list[Passage]]:
        """Raise `not_recorded`."""
        raise self.not_recorded(f"the passages of {claims[0][:60]!r}")


def _passages(call: StoredCall) -> list[Passage]:
    stored = call.response.get("passages")
    try:
        return [Passage.model_validate(passage) for passage in stored] if isinstance(stored, list) else []
    except ValidationError as e:
        raise StoreError(
            f"the store has {str(call.response)[:80]!r} as passages", hint="another version of reason wrote it"
        ) from e
