"""`MeteredReward`: a reward model as a strategy sees it, with budget, run store and trace between the two.

`MeteredEmbedding`: an embedding model as a strategy sees it: its tokens, dollars and time are the run's.

Vectors are not put into the run store: what runs here gives them again, and a provider's are paid again by a resumed
run. Embedding is no model call: `Budget.calls` does not count it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from ...core.budget import CostBound, require_known_price
from ...core.errors import LimitExceeded
from ...core.events import CallFinished, CallStarted, StepsScored
from ...core.messages import Failure, Usage
from ...core.run import Run
from ...core.store import StoredCall, call_key
from ..encoders.protocols import Charged, EmbeddingModel, Kind
from ..rewards.model import (
    ReusesPrefixes,
    RewardCapabilities,
    RewardModel,
    StepScores,
    Which,
    check_solutions,
    count_passes,
)
from .calls import tell_spending

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class MeteredReward:
    """A reward model in one role of one run; it is a `RewardModel` itself.

    Before anything is computed, the passes of the whole call are fitted into `Budget.reward_calls`. Solutions whose
    scores the run store has are not scored again, but count all the same, so that a resumed run spends what it would
    have spent; equal solutions of one call are scored once. What could not be scored is neither stored nor charged.

    Args:
        model: The reward model; it is not closed by this object.
        role: Part it plays: "reward".
        run: The run that pays.

    Raises:
        UserError: The run limits dollars, and the model's price is unknown.
    """

    def __init__(self, model: RewardModel, role: str, run: Run) -> None:
        require_known_price(run.config.budget, model.name, model.capabilities.price_known)
        self._model = model.salted(run.config.tenant) if isinstance(model, ReusesPrefixes) else model
        self._run = run
        self.role = role
        self.name = model.name
        self.identity = model.identity

    @property
    def capabilities(self) -> RewardCapabilities:
        """What the model is."""
        return self._model.capabilities

    def most_usd(self, problem: str, solutions: Sequence[Sequence[str]], which: Which = "all") -> float:
        """See `RewardModel.most_usd`."""
        return self._model.most_usd(problem, solutions, which)

    async def aclose(self) -> None:
        """Do nothing: the model belongs to whoever opened it."""

    async def score_steps(
        self, problem: str, solutions: Sequence[Sequence[str]], which: Which = "all"
    ) -> list[StepScores]:
        """Score solutions, as far as the store does not have them (see `RewardModel.score_steps`).

        Raises:
            LimitExceeded: The passes do not fit the budget, or the time is over.
        """
        check_solutions(solutions)
        if not solutions:
            return []
        run = self._run
        asked: list[dict[str, JsonValue]] = [
            {"reward": {"problem": problem, "steps": list(steps), "which": which}} for steps in solutions
        ]
        keys = [call_key(self.identity, dict(a), None, 0) for a in asked]
        passes = count_passes(self.capabilities.one_pass, solutions, which)
        usd = 0.0 if run.config.budget.usd is None else self.most_usd(problem, solutions, which)
        with run.ledger.reserve(CostBound(reward_calls=passes, usd=usd)):
            stored = {k: StepScores.model_validate(c.reply) for k, c in (await run.stored(keys)).items()}
            missing: dict[str, int] = {}
            for i, key in enumerate(keys):
                if key not in stored:
                    missing.setdefault(key, i)
            call = run.emit(
                CallStarted(
                    role=self.role,
                    model=self.name,
                    operation="reward",
                    requests=len(solutions),
                    samples=passes,
                    replayed=sum(key in stored for key in keys),
                )
            )
            started = time.monotonic()
            fresh: dict[str, StepScores] = {}
            try:
                async with asyncio.timeout(run.ledger.seconds_left()) as clock:
                    wanted = [solutions[i] for i in missing.values()]
                    made = await self._made(problem, wanted, which, bool(stored))
                    fresh = dict(zip(missing, made, strict=True))
            except TimeoutError:
                if not clock.expired():
                    raise
                raise run.ledger.refuse("seconds") from None
            finally:
                seconds = time.monotonic() - started
                paid = [
                    StoredCall(
                        key=key,
                        role=self.role,
                        model=self.name,
                        request=asked[missing[key]],
                        reply=scores.model_dump(mode="json"),
                    )
                    for key, scores in fresh.items()
                    if scores.ok
                ]
                await run.store.add_calls(run.id, paid)
                results = [found for key in keys if (found := stored.get(key) or fresh.get(key)) is not None]
                self._charge(call, results, sum(key in stored for key in keys), seconds)
                await run.save_events()
        return results

    async def _made(
        self, problem: str, wanted: Sequence[Sequence[str]], which: Which, others: bool
    ) -> list[StepScores]:
        """The scores that the store does not have."""
        try:
            return await self._model.score_steps(problem, wanted, which) if wanted else []
        except LimitExceeded as e:
            # a replay: the recorded run could not pay for these any more; if it had others of the call, they stand
            if not others:
                raise
            return [StepScores(passes=0, failure=Failure(code=e.code, message=e.message)) for _ in wanted]

    def _charge(self, call: int, results: Sequence[StepScores], replayed: int, seconds: float) -> None:
        """Book what the call has spent, and tell of it."""
        run = self._run
        good = [scores for scores in results if scores.ok]
        usage = sum((scores.usage for scores in good), Usage())
        passes = sum(scores.passes for scores in good)
        run.ledger.charge(
            self.role,
            self.name,
            usage,
            reward_calls=passes,
            working_s=max(0.0, seconds - usage.waited_s),
        )
        if results:
            odds = tuple(scores.log_odds for scores in results)
            run.emit(StepsScored(role=self.role, model=self.name, log_odds=odds, replayed=replayed), parent=call)
        failed = len(results) - len(good)
        run.emit(
            CallFinished(
                role=self.role, model=self.name, seconds=seconds, tokens=usage.completion_tokens, failed=failed
            ),
            parent=call,
        )
        tell_spending(run, call, self.role, self.name, tokens=usage.completion_tokens, reward_calls=passes)


class MeteredEmbedding:
    """An embedding model in one role of one run; it is an `EmbeddingModel` itself.

    Args:
        model: The model; it is not closed by this object.
        role: Part it plays: "embedding".
        run: The run that pays.

    Raises:
        UserError: The run limits dollars, and the model's price is unknown.
    """

    def __init__(self, model: EmbeddingModel, role: str, run: Run) -> None:
        require_known_price(run.config.budget, model.name, model.price_known)
        self._model, self._run, self.role = model, run, role
        self.name, self.identity = model.name, model.identity
        self.dimension, self.max_tokens, self.price_known = model.dimension, model.max_tokens, model.price_known

    async def embed(
        self, texts: Sequence[str], *, kind: Kind = "text", unit: bool = True, charged: Charged | None = None
    ) -> NDArray[np.float32]:
        """Vectors of texts (see `EmbeddingModel.embed`).

        Raises:
            LimitExceeded: The price does not fit the budget, or the time is over.
        """
        run = self._run
        spent: list[Usage] = []

        def hear(usage: Usage) -> None:
            spent.append(usage)
            if charged is not None:
                charged(usage)

        usd = 0.0 if run.config.budget.usd is None else self._model.most_usd(texts)
        with run.ledger.reserve(CostBound(usd=usd)):
            call = run.emit(
                CallStarted(
                    role=self.role, model=self.name, operation="embed", requests=len(texts), samples=0, replayed=0
                )
            )
            started = time.monotonic()
            try:
                async with asyncio.timeout(run.ledger.seconds_left()) as clock:
                    return await self._model.embed(texts, kind=kind, unit=unit, charged=hear)
            except TimeoutError:
                if not clock.expired():
                    raise
                raise run.ledger.refuse("seconds") from None
            finally:
                self._charge(call, sum(spent, Usage()), time.monotonic() - started)
                await run.save_events()

    async def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        """See `EmbeddingModel.count_tokens`."""
        return await self._model.count_tokens(texts)

    def most_usd(self, texts: Sequence[str]) -> float:
        """See `EmbeddingModel.most_usd`."""
        return self._model.most_usd(texts)

    async def aclose(self) -> None:
        """Do nothing: the model belongs to whoever opened it."""

    def _charge(self, call: int, usage: Usage, seconds: float) -> None:
        run = self._run
        run.ledger.charge(self.role, self.name, usage, working_s=max(0.0, seconds - usage.waited_s))
        run.emit(CallFinished(role=self.role, model=self.name, seconds=seconds, tokens=0), parent=call)
        tell_spending(run, call, self.role, self.name)
