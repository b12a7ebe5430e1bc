"""Stubs that replace models when a stored run is replayed: the run store responds before a call reaches them.

A stub has the name and the identity under which the store knows the responses of the recorded model. A call that
reaches it was not recorded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...core.budget import LimitKind
from ...core.errors import BudgetExceeded, ReasonError, StoreError
from ...core.messages import Chunk, Completion, NextTokenDistribution, Prompt, Request, ScoredContinuation
from ..encoders.protocols import TextKind, UsageCallback
from ..model import Capabilities, Listener
from ..rewards.model import RewardCapabilities, StepScores, StepSelection
from ..worker_group import WorkerGroup, WorkerGroupConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class NotRecorded(StoreError):
    """A replay needs a response that the run store does not have.

    Attributes:
        run_finished: Whether the recorded run came to its end; then the call failed there too, and the run continued.
    """

    def __init__(self, message: str, *, run_finished: bool = False) -> None:
        super().__init__(
            message, hint="the run was not finished, or another version of reason made it: resume it instead"
        )
        self.run_finished = run_finished


class ReplayStub:
    """What all stubs share.

    Args:
        name: Name of the recorded model.
        identity: Its identity.
        limit: The limit that may have ended the recorded run: a call that was not recorded was not reached then.
        finished: Whether the recorded run came to its end (see `NotRecorded`).
    """

    def __init__(self, name: str, identity: str, *, limit: LimitKind | None = None, finished: bool = False) -> None:
        self.name, self.identity = name, identity
        self._limit, self._finished = limit, finished

    def not_recorded(self, response: str) -> ReasonError:
        """The error of a call that was not recorded: `BudgetExceeded` if a limit may be the reason.

        Args:
            response: What is missing, such as "a sample".
        """
        if self._limit is not None:
            return BudgetExceeded(self._limit, 0, 0)
        message = f"the run store has no recorded response of {self.name} for {response}"
        return NotRecorded(message, run_finished=self._finished)

    async def aclose(self) -> None:
        """Do nothing."""


class ReplayModel(ReplayStub):
    """Stub of a language model.

    Args:
        capabilities: What the recorded model could do.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        capabilities: Capabilities,
        *,
        limit: LimitKind | None = None,
        finished: bool = False,
    ) -> None:
        super().__init__(name, identity, limit=limit, finished=finished)
        self.capabilities = capabilities

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        """Raise `not_recorded`."""
        raise self.not_recorded("a sample")

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Raise `not_recorded`."""
        raise self.not_recorded("a sample")

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        """Raise `not_recorded`."""
        raise self.not_recorded("a score")

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        """Raise `not_recorded`."""
        raise self.not_recorded("a distribution of the next token")

    async def start_workers(self, config: WorkerGroupConfig) -> WorkerGroup:
        """Raise `not_recorded`."""
        raise self.not_recorded("a pass of workers")

    def count_tokens(self, prompt: Prompt) -> int | None:
        """None: there is no tokenizer."""
        return None


class ReplayReward(ReplayStub):
    """Stub of a reward model.

    Args:
        capabilities: What the recorded model was.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        capabilities: RewardCapabilities,
        *,
        limit: LimitKind | None = None,
        finished: bool = False,
    ) -> None:
        super().__init__(name, identity, limit=limit, finished=finished)
        self.capabilities = capabilities

    async def score_steps(
        self, problem: str, solutions: Sequence[Sequence[str]], which: StepSelection = "all"
    ) -> list[StepScores]:
        """Raise `not_recorded`."""
        raise self.not_recorded("a step score")

    def max_usd(self, problem: str, solutions: Sequence[Sequence[str]], which: StepSelection = "all") -> float:
        """0: a replay pays nothing."""
        return 0.0


class ReplayEmbedding(ReplayStub):
    """Stub of an embedding model; the results of comparisons by its vectors are in the run store.

    Args:
        dimension: Length of the recorded model's vectors.
        max_tokens: Its maximum text in tokens.
    """

    price_known = True

    def __init__(self, name: str, identity: str, dimension: int, max_tokens: int | None) -> None:
        super().__init__(name, identity)
        self.dimension, self.max_tokens = dimension, max_tokens

    @classmethod
    def from_json(cls, known: Mapping[str, Any]) -> ReplayEmbedding:
        """The stub for the model that a run's record describes.

        Raises:
            KeyError: A field is missing.
        """
        limit = known["max_tokens"]
        return cls(
            str(known["name"]), str(known["identity"]), int(known["dimension"]), None if limit is None else int(limit)
        )

    async def embed(
        self, texts: Sequence[str], *, kind: TextKind = "text", unit: bool = True, charged: UsageCallback | None = None
    ) -> NDArray[np.float32]:
        """Raise `not_recorded`."""
        raise self.not_recorded("an embedding")

    async def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        """None: there is no tokenizer."""
        return None

    def max_usd(self, texts: Sequence[str]) -> float:
        """0: a replay pays nothing."""
        return 0.0
