"""`MeteredEmbedding`: an embedding model as a strategy sees it: its tokens, dollars and time are the run's.

Vectors are not put into the run store: what runs here gives them again, and a provider's are paid again by a resumed
run. Embedding is no model call: `Budget.calls` does not count it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..core.budget import Need, refuse_unpriced
from ..core.events import CallFinished, CallStarted
from ..core.messages import Usage
from ..core.run import Run
from .embeddings import Charged, EmbeddingModel, Kind
from .spending import tell_spending

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
        refuse_unpriced(run.config.budget, model.name, model.price_known)
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
        with run.ledger.reserve(Need(usd=usd)):
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
