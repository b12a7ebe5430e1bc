"""`MeteredEntailment`: a classifier as a verification sees it, with budget, run store and trace between the two.

A judge is not metered here: its language model is (`serving.metered`), and stores what it replies.

`RecordedEntailment`: an entailment that is not there. The run store knows its verdicts by its identity.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from pydantic import JsonValue

from ...core.budget import CostBound, LimitKind
from ...core.errors import LimitExceeded, StoreError
from ...core.events import CallFinished, CallStarted
from ...core.messages import Usage
from ...core.run import Run
from ...core.store.protocol import StoredCall, call_key
from ...serving.metered.calls import tell_spending
from ..types import Support
from .protocol import Entailment, Pair


class MeteredEntailment:
    """An entailment in one role of one run; it is an `Entailment` itself.

    Before anything is computed, the pairs of the call are fitted into `Budget.reward_calls`, one pass each; equal pairs
    are judged once. Pairs that the run store has are not judged again, but count all the same, so that a resumed run
    spends what it would have spent. What could not be read is neither stored nor charged.

    Args:
        entailment: What judges; it is not closed by this object.
        run: The run that pays.
        role: Part it plays.
    """

    def __init__(self, entailment: Entailment, run: Run, role: str = "entailment") -> None:
        self._entailment, self._run, self.role = entailment, run, role
        self.name, self.identity, self.max_words = entailment.name, entailment.identity, entailment.max_words

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """What each evidence says of its claim, as far as the store does not have it (see `Entailment.judge`).

        Raises:
            LimitExceeded: The pairs do not fit the budget, or the time is over.
        """
        if not pairs:
            return []
        run = self._run
        wanted = list(dict.fromkeys(pairs))
        asked: dict[Pair, dict[str, JsonValue]] = {p: {"entailment": dict(p._asdict())} for p in wanted}
        keys = {p: call_key(self.identity, dict(asked[p]), None, 0) for p in wanted}
        with run.ledger.reserve(CostBound(reward_calls=len(wanted))):
            stored = await run.stored(list(keys.values()))
            found: dict[Pair, Support | None] = {
                p: _verdict(stored[key].reply) for p, key in keys.items() if key in stored
            }
            missing = [p for p in wanted if p not in found]
            replayed = len(found)
            call = run.emit(
                CallStarted(
                    role=self.role,
                    model=self.name,
                    operation="entailment",
                    requests=len(wanted),
                    samples=len(wanted),
                    replayed=replayed,
                )
            )
            started = time.monotonic()
            try:
                async with asyncio.timeout(run.ledger.seconds_left()) as clock:
                    found.update(zip(missing, await self._judged(missing, replayed > 0), strict=True))
            except TimeoutError:
                if not clock.expired():
                    raise
                raise run.ledger.refuse("seconds") from None
            finally:
                seconds = time.monotonic() - started
                paid = [
                    StoredCall(
                        key=keys[p],
                        role=self.role,
                        model=self.name,
                        request=asked[p],
                        reply={"probs": list(verdict)},
                    )
                    for p in missing
                    if (verdict := found.get(p)) is not None
                ]
                await run.store.add_calls(run.id, paid)
                passes = sum(verdict is not None for verdict in found.values())
                self._charge(call, passes, len(wanted) - passes, seconds)
                await run.save_events()
        return [found[p] for p in pairs]

    async def aclose(self) -> None:
        """Do nothing: the entailment belongs to whoever opened it."""

    async def _judged(self, missing: Sequence[Pair], others: bool) -> list[Support | None]:
        """The verdicts that the store does not have."""
        try:
            return await self._entailment.judge(missing) if missing else []
        except LimitExceeded:
            # a replay: the recorded run could not pay for these any more; if it had others of the call, they stand
            if not others:
                raise
            return [None] * len(missing)

    def _charge(self, call: int, passes: int, failed: int, seconds: float) -> None:
        """Book what the call has spent, and tell of it."""
        run = self._run
        run.ledger.charge(self.role, self.name, Usage(), reward_calls=passes, working_s=seconds)
        run.emit(CallFinished(role=self.role, model=self.name, seconds=seconds, tokens=0, failed=failed), parent=call)
        tell_spending(run, call, self.role, self.name, reward_calls=passes)


def _verdict(reply: dict[str, JsonValue]) -> Support:
    """A verdict as it was stored.

    Raises:
        StoreError: It is none.
    """
    probs = reply.get("probs")
    numbers = [float(p) for p in probs if isinstance(p, int | float)] if isinstance(probs, list) else []
    if len(numbers) != 3:
        raise StoreError(
            f"the store has {str(reply)[:80]!r} as the verdict of a pair", hint="another version of reason made it"
        )
    return Support(*numbers)


class RecordedEntailment:
    """Stands for an entailment when a stored run is shown again; the store answers before anything comes here.

    What could not be read is not stored, so a finished run may ask for verdicts that the store does not have: those are
    told as unread again.

    Args:
        name: The string of the recorded run.
        identity: The identity of what judged.
        max_words: The limit of what judged: it decides how long evidence was cut.
        finished: Whether the run came to its end: what it has no verdict for could not be read.
        spent: The limit that ended the run, if one did: what it has no verdict for, it did not get to.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        max_words: int | None,
        *,
        finished: bool = True,
        spent: LimitKind | None = None,
    ) -> None:
        self.name, self.identity, self.max_words = name, identity, max_words
        self._finished, self._spent = finished, spent

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """Tell that these pairs have no verdict.

        Raises:
            LimitExceeded: A limit ended the recorded run.
            StoreError: The recorded run did not come to its end.
        """
        if self._spent is not None:
            raise LimitExceeded(self._spent, 0, 0)
        if not self._finished:
            raise StoreError(
                f"the store holds no verdict that this run asks of {self.name}",
                hint="the run was not finished, or another version of reason made it: resume it instead",
            )
        return [None] * len(pairs)

    async def aclose(self) -> None:
        """Do nothing."""
