"""`MeteredReward` and `MeteredEmbedding`: scoring models as a strategy uses them, with the run's budget and trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...core.budget import CostBound, require_known_price
from ...core.events import StepsScored
from ...core.messages import Failure, Usage
from ...core.run import Run
from ..encoders.protocols import EmbeddingModel, TextKind, UsageCallback
from ..rewards.model import (
    CachesPrefixes,
    RewardCapabilities,
    RewardModel,
    StepScores,
    StepSelection,
    check_solutions,
    count_passes,
)
from .calls import CallInFlight, JsonObject, RecordedCalls, ResponseCodec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_STEP_SCORES = ResponseCodec[StepScores](
    dump=lambda scores: scores.model_dump(mode="json"),
    load=StepScores.model_validate,
    usage=lambda scores: scores.usage,
    reward_calls=lambda scores: scores.passes,
    is_ok=lambda scores: scores.ok,
    failure=lambda error: StepScores(passes=0, failure=Failure(code=error.code, message=error.message)),
)


class MeteredReward:
    """A reward model in one role of one run; it is a `RewardModel` itself.

    The passes of a call must fit into `Budget.reward_calls`. Solutions whose scores are in the run store are not scored
    again, but are charged, so that a resumed run spends what it would have spent; equal solutions of a call are scored
    once. Solutions that could not be scored are neither stored nor charged.

    Args:
        model: The reward model; it is not closed by this object.

    Raises:
        UserError: The run limits dollars, and the model's price is unknown.
    """

    def __init__(self, model: RewardModel, role: str, run: Run) -> None:
        require_known_price(run.config.budget, model.name, model.capabilities.price_known)
        self._model = model.with_cache_salt(run.config.tenant) if isinstance(model, CachesPrefixes) else model
        self._run = run
        self._calls = RecordedCalls(run, role, model.name, model.identity)
        self.role, self.name, self.identity = role, model.name, model.identity

    @property
    def capabilities(self) -> RewardCapabilities:
        return self._model.capabilities

    def max_usd(self, problem: str, solutions: Sequence[Sequence[str]], which: StepSelection = "all") -> float:
        """See `RewardModel.max_usd`."""
        return self._model.max_usd(problem, solutions, which)

    async def aclose(self) -> None:
        """Do nothing: the model belongs to its owner."""

    async def score_steps(
        self, problem: str, solutions: Sequence[Sequence[str]], which: StepSelection = "all"
    ) -> list[StepScores]:
        """Score the solutions whose scores are not in the run store (see `RewardModel.score_steps`).

        Raises:
            BudgetExceeded: The passes do not fit the budget, or the time is over.
        """
        check_solutions(solutions)
        if not solutions:
            return []
        run = self._run
        if run.attachments:
            run.degrade(f"{self.name} scored the steps without the question's images and PDFs")
        passes = count_passes(self.capabilities.one_pass, solutions, which)
        usd = 0.0 if run.config.budget.usd is None else self.max_usd(problem, solutions, which)
        prompt_tokens = 0
        if run.config.budget.prompt_tokens is not None:  # no pass reads more tokens than bytes
            prompt_tokens = passes * max(_num_bytes([problem, *steps]) for steps in solutions)
        requests: list[JsonObject] = [
            {"reward": {"problem": problem, "steps": list(steps), "which": which}} for steps in solutions
        ]

        async def compute(missing: list[int]) -> list[StepScores]:
            scores = await self._model.score_steps(problem, [solutions[i] for i in missing], which)
            return [self._calls.shown(one) for one in scores]

        def emit_scores(call: CallInFlight, scores: list[StepScores], replayed: int) -> None:
            if scores:
                log_odds = tuple(one.log_odds for one in scores)
                event = StepsScored(role=self.role, model=self.name, log_odds=log_odds, replayed=replayed)
                run.emit(event, parent=call.number)

        return await self._calls.answer(
            "reward",
            requests,
            compute,
            _STEP_SCORES,
            cost=CostBound(reward_calls=passes, usd=usd, prompt_tokens=prompt_tokens),
            samples=passes,
            on_responses=emit_scores,
        )


class MeteredEmbedding:
    """An embedding model in one role of one run; it is an `EmbeddingModel` itself.

    Vectors are not in the run store: local models compute them again, and a provider's are paid again by a resumed run.
    Embedding is no model call: `Budget.calls` does not count it.

    Args:
        model: The model; it is not closed by this object.

    Raises:
        UserError: The run limits dollars, and the model's price is unknown.
    """

    def __init__(self, model: EmbeddingModel, role: str, run: Run) -> None:
        require_known_price(run.config.budget, model.name, model.price_known)
        self._model, self._run = model, run
        self._calls = RecordedCalls(run, role, model.name, model.identity)
        self.role, self.name, self.identity = role, model.name, model.identity
        self.dimension, self.max_tokens, self.price_known = model.dimension, model.max_tokens, model.price_known

    async def embed(
        self, texts: Sequence[str], *, kind: TextKind = "text", unit: bool = True, charged: UsageCallback | None = None
    ) -> NDArray[np.float32]:
        """Vectors of texts (see `EmbeddingModel.embed`).

        Raises:
            BudgetExceeded: The price does not fit the budget, or the time is over.
        """
        usages: list[Usage] = []

        def on_charged(usage: Usage) -> None:
            usages.append(usage)
            if charged is not None:
                charged(usage)

        run = self._run
        usd = 0.0 if run.config.budget.usd is None else self._model.max_usd(texts)
        prompt_tokens = 0 if run.config.budget.prompt_tokens is None else _num_bytes(texts)
        with run.ledger.reserve(CostBound(usd=usd, prompt_tokens=prompt_tokens)) as release:
            async with self._calls.call("embed", release, requests=len(texts), samples=0) as call:
                try:
                    async with self._calls.time_limit():
                        return await self._model.embed(texts, kind=kind, unit=unit, charged=on_charged)
                finally:
                    call.usage = sum(usages, Usage())

    async def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        """See `EmbeddingModel.count_tokens`."""
        return await self._model.count_tokens(texts)

    def max_usd(self, texts: Sequence[str]) -> float:
        """See `EmbeddingModel.max_usd`."""
        return self._model.max_usd(texts)

    async def aclose(self) -> None:
        """Do nothing: the model belongs to its owner."""


def _num_bytes(texts: Sequence[str]) -> int:
    return sum(len(text.encode()) for text in texts)
