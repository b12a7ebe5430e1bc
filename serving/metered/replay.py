"""`RecordedModel`: a model that is not there. It carries the identity under which the run store knows its replies.

`RecordedEmbedding`: an embedding model that is not there. What was compared with it is in the run store.

`RecordedReward`: a reward model that is not there. The run store knows its scores by its identity.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...core.budget import LimitKind
from ...core.errors import LimitExceeded, ReasonError, StoreError
from ...core.messages import Chunk, Completion, Failure, NextTokenDistribution, Prompt, Request, ScoredContinuation
from ..encoders.protocols import Charged, Kind
from ..model import Capabilities, Listener
from ..rewards.model import RewardCapabilities, StepScores, Which
from ..worker_group import Opening, WorkerGroup

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class RecordedModel:
    """Stands for a model when a stored run is shown again; a call that was not recorded is an error.

    Args:
        name: The model string of the recorded run.
        identity: The identity of its model.
        capabilities: What its model could do.
        out_of_time: Whether the run had a time limit: what it has no reply to, it did not get to.
    """

    def __init__(self, name: str, identity: str, capabilities: Capabilities, *, out_of_time: bool = False) -> None:
        self._out_of_time = out_of_time
        self.name = name
        self.identity = identity
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        """What the recorded model could do."""
        return self._capabilities

    async def generate(self, requests: Sequence[Request], listener: Listener | None = None) -> list[list[Completion]]:
        """Fail: what was recorded is answered by the store and never comes here.

        Raises:
            StoreError: Always, or
            LimitExceeded: always, if the recorded run had a time limit.
        """
        raise self._missing("a sample")

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Fail likewise."""
        raise self._missing("a sample")

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        """Fail likewise."""
        raise self._missing("a score")

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextTokenDistribution]:
        """Fail likewise."""
        raise self._missing("a distribution")

    async def open_workers(self, opening: Opening) -> WorkerGroup:
        """Fail likewise."""
        raise self._missing("a pass of its workers")

    def count_tokens(self, prompt: Prompt) -> int | None:
        """Unknown without the model."""
        return None

    async def aclose(self) -> None:
        """Do nothing."""

    def _missing(self, what: str) -> ReasonError:
        if self._out_of_time:
            return LimitExceeded("seconds", 0, 0)
        return StoreError(
            f"the store holds no reply for {what} that this run asks of {self.name}",
            hint="the run was not finished, or another version of reason made it: resume it instead",
        )


class RecordedEmbedding:
    """Stands for an embedding model when a stored run is shown again.

    Args:
        name: The string that the recorded run's model was opened by.
        identity: Its identity.
        dimension: Numbers of its vectors.
        max_tokens: Tokens of a text that it looked at.
    """

    price_known = True

    def __init__(self, name: str, identity: str, dimension: int, max_tokens: int | None) -> None:
        self.name, self.identity, self.dimension, self.max_tokens = name, identity, dimension, max_tokens

    @classmethod
    def described(cls, known: Mapping[str, Any]) -> RecordedEmbedding:
        """One of what a run's record says.

        Raises:
            KeyError: Something is missing there.
        """
        most = known["max_tokens"]
        return cls(
            str(known["name"]),
            str(known["identity"]),
            int(known["dimension"]),
            None if most is None else int(most),
        )

    async def embed(
        self, texts: Sequence[str], *, kind: Kind = "text", unit: bool = True, charged: Charged | None = None
    ) -> NDArray[np.float32]:
        """Fail.

        Raises:
            StoreError: Always.
        """
        raise StoreError(
            f"the store holds no comparison by {self.name} that this run asks for",
            hint="the run was not finished, or another version of reason made it: resume it instead",
        )

    async def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        """None: nothing is here to count with."""
        return None

    def most_usd(self, texts: Sequence[str]) -> float:
        """Nothing: it is never asked."""
        return 0.0

    async def aclose(self) -> None:
        """Do nothing."""


class RecordedReward:
    """Stands for a reward model when a stored run is shown again; the store answers before anything comes here.

    A failed score is not stored, so a finished run may ask for scores that the store does not have: those are told as
    failed again.

    Args:
        name: The model string of the recorded run.
        identity: The identity of its model.
        capabilities: What its model was.
        finished: Whether the run came to its end: what it has no score for could not be scored.
        spent: The limit that ended the run, if one did: what it has no score for, it did not get to.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        capabilities: RewardCapabilities,
        *,
        finished: bool = True,
        spent: LimitKind | None = None,
    ) -> None:
        self.name = name
        self.identity = identity
        self._capabilities = capabilities
        self._finished = finished
        self._spent = spent

    @property
    def capabilities(self) -> RewardCapabilities:
        """What the recorded model was."""
        return self._capabilities

    async def score_steps(
        self, problem: str, solutions: Sequence[Sequence[str]], which: Which = "all"
    ) -> list[StepScores]:
        """Tell that these solutions have no scores.

        Raises:
            LimitExceeded: A limit ended the recorded run.
            StoreError: The recorded run did not come to its end.
        """
        if self._spent is not None:
            raise LimitExceeded(self._spent, 0, 0)
        if not self._finished:
            raise StoreError(
                f"the store holds no score that this run asks of {self.name}",
                hint="the run was not finished, or another version of reason made it: resume it instead",
            )
        why = Failure(code="not_recorded", message="it could not be scored when the run was recorded")
        return [StepScores(passes=0, failure=why) for _ in solutions]

    def most_usd(self, problem: str, solutions: Sequence[Sequence[str]], which: Which = "all") -> float:
        """Nothing: a replay pays nobody."""
        return 0.0

    async def aclose(self) -> None:
        """Do nothing."""
