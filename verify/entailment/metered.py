"""`MeteredEntailment`: a classifier of one run, with budget, run store and trace; `RecordedEntailment` for replays.

A judge needs neither: its language model is metered and records its own responses.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from ...core.budget import CostBound, LimitKind
from ...core.errors import StoreError
from ...core.run import Run
from ...serving.metered.calls import RecordedCalls, ResponseCodec
from ...serving.metered.replay import ReplayStub
from ..types import Entailment, Pair, Support


class MeteredEntailment:
    """An entailment in one role of one run; it is an `Entailment` itself.

    The pairs of a call are charged to `Budget.reward_calls` before anything is computed, one pass each; equal pairs are
    judged once. Pairs that the run store has are not judged again, but charged all the same, so that a resumed run
    spends what it would have spent. Unparsed responses are neither stored nor charged.

    Args:
        entailment: What judges; not closed by this object.
        run: The run that pays.
        role: Its role.
    """

    def __init__(self, entailment: Entailment, run: Run, role: str = "entailment") -> None:
        self._entailment, self.role = entailment, role
        self.name, self.identity, self.max_words = entailment.name, entailment.identity, entailment.max_words
        self._calls = RecordedCalls(run, role, self.name, self.identity)

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """See `Entailment.judge`; pairs that the store has are not judged again.

        Raises:
            BudgetExceeded: The pairs do not fit the budget, or the time is over.
        """
        if not pairs:
            return []
        distinct = list(dict.fromkeys(pairs))

        async def compute(positions: list[int]) -> list[Support | None]:
            return await self._entailment.judge([distinct[i] for i in positions])

        requests: list[dict[str, JsonValue]] = [{"entailment": dict(pair._asdict())} for pair in distinct]
        cost = CostBound(reward_calls=len(distinct))
        verdicts = await self._calls.answer("entailment", requests, compute, _CODEC, cost=cost)
        by_pair = dict(zip(distinct, verdicts, strict=True))
        return [by_pair[pair] for pair in pairs]

    async def aclose(self) -> None:
        """Do nothing: the entailment is closed by its owner."""


def _dump(support: Support | None) -> dict[str, JsonValue]:
    return {"probs": [] if support is None else list(support)}


def _load(response: dict[str, JsonValue]) -> Support | None:
    probs = response.get("probs")
    numbers = [float(p) for p in probs if isinstance(p, int | float)] if isinstance(probs, list) else []
    if len(numbers) != 3:
        raise StoreError(
            f"the store has {str(response)[:80]!r} as the verdict of a pair",
            hint="another version of reason wrote it",
        )
    return Support(*numbers)


_CODEC: ResponseCodec[Support | None] = ResponseCodec(
    dump=_dump,
    load=_load,
    reward_calls=lambda support: 1,
    is_ok=lambda support: support is not None,
    failure=lambda error: None,
)


class RecordedEntailment(ReplayStub):
    """Replaces an entailment in a replay.

    Unparsed verdicts are not stored, so a finished run may request verdicts that the store does not have: they are
    unparsed again.

    Args:
        name: The string of the recorded run.
        identity: The identity of what judged.
        max_words: Its limit, which decides how long evidence was split.
        limit: The limit that ended the run, if one did: missing verdicts were not reached.
        finished: Whether the run finished: missing verdicts were unparsed.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        max_words: int | None,
        *,
        limit: LimitKind | None = None,
        finished: bool = True,
    ) -> None:
        super().__init__(name, identity, limit=limit, finished=finished)
        self.max_words = max_words

    async def judge(self, pairs: Sequence[Pair]) -> list[Support | None]:
        """Raise `not_recorded`; `MeteredEntailment` returns None for the pairs if the recorded run finished."""
        raise self.not_recorded("a verdict")
