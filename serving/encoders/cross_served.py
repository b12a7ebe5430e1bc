"""`ServedCrossEncoder`: a reranker on a vLLM server that was started with `--runner pooling`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ...core.scorer_settings import EncoderSettings
from ..cross_encoders import check_pairs
from ..litellm.pooling_server import PoolingServer

_PROBE = (("What is the capital of France?", "Paris is the capital of France."),)


class ServedCrossEncoder:
    """A reranker behind HTTP (see `cross_encoders.CrossEncoder`).

    Args:
        name: The string it was opened by.
        server: Where it is.
        settings: How it is asked.
        activated: Whether the server gives the sigmoid even where the raw output is asked for.
    """

    labels: tuple[str, ...] = ("score",)

    def __init__(self, name: str, server: PoolingServer, settings: EncoderSettings, *, activated: bool = False) -> None:
        self.name, self.identity, self.max_tokens = name, server.weights, server.context
        self._server, self._batch, self._activated = server, settings.batch_texts, activated

    @classmethod
    async def open(cls, name: str, server: PoolingServer, settings: EncoderSettings) -> ServedCrossEncoder:
        """Learn by two short requests what the server gives.

        Raises:
            BackendError: It gives no scores.
        """
        raw = await server.score_pairs(_PROBE, activated=False)
        # a server that does not know the field leaves the activation on: the same number comes twice
        return cls(name, server, settings, activated=raw == await server.score_pairs(_PROBE, activated=True))

    async def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Raw scores `[pairs, 1]` (see `CrossEncoder.logits`)."""
        check_pairs(pairs)
        parts = [pairs[i : i + self._batch] for i in range(0, len(pairs), self._batch)]
        made = await self._server.client.gather(
            [partial(self._server.score_pairs, part, activated=self._activated) for part in parts]
        )
        scores = np.array([x for part in made for x in part], dtype=np.float64).reshape(-1, 1)
        if self._activated:
            with np.errstate(divide="ignore"):
                scores = np.log(scores) - np.log1p(-scores)
        logits: NDArray[np.float32] = scores.astype(np.float32)
        return logits

    async def aclose(self) -> None:
        """Cancel requests under way and close the connections; idempotent."""
        await self._server.aclose()
