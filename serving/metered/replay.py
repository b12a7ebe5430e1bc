"""Stubs that replace models when a stored run is replayed: the run store responds before a call reaches them.

A stub has the name and the identity under which the store knows the responses of the recorded model. A call that
reaches it was not recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...core.budget import LimitKind
from ...core.errors import BudgetExceeded, ReasonError, StoreError
from ...core.messages import Prompt
from ..model import Capabilities
from ..rewards.model import RewardCapabilities, StepSelection


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
        capabilities: What it could do; None for an embedding model.
        limit: The limit that may have ended the recorded run: a call that was not recorded was not reached then.
        finished: Whether the recorded run came to its end (see `NotRecorded`).
    """

    def __init__(
        self,
        name: str,
        identity: str,
        capabilities: Any = None,
        *,
        limit: LimitKind | None = None,
        finished: bool = False,
    ) -> None:
        self.name, self.identity, self.capabilities = name, identity, capabilities
        self._limit, self._finished = limit, finished

    def not_recorded(self, response: str) -> ReasonError:
        """The error of a call that was not recorded: `BudgetExceeded` if a limit may be the reason."""
        if self._limit is not None:
            return BudgetExceeded(self._limit, 0, 0)
        message = f"the run store has no recorded response of {self.name} for {response}"
        return NotRecorded(message, run_finished=self._finished)

    async def aclose(self) -> None:
        """Do nothing."""


def _missing(response: str) -> Any:
    """A method whose response was not recorded."""

    async def method(self: ReplayStub, *args: object, **kwargs: object) -> Any:
        raise self.not_recorded(response)

    return method


class ReplayModel(ReplayStub):
    """Stub of a language model with the capabilities that the recorded model had."""

    capabilities: Capabilities

    generate = _missing("a sample")
    score = _missing("a score")
    next_token = _missing("a distribution of the next token")
    start_workers = _missing("a pass of workers")

    def count_tokens(self, prompt: Prompt) -> int | None:
        """None: there is no tokenizer."""
        return None


class ReplayReward(ReplayStub):
    """Stub of a reward model with the capabilities that the recorded model had."""

    capabilities: RewardCapabilities

    score_steps = _missing("a step score")

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
        """The stub for the model that a run's record describes."""
        limit = known["max_tokens"]
        return cls(
            str(known["name"]), str(known["identity"]), int(known["dimension"]), None if limit is None else int(limit)
        )

    embed = _missing("an embedding")

    async def count_tokens(self, texts: Sequence[str]) -> list[int] | None:
        """None: there is no tokenizer."""
        return None

    def max_usd(self, texts: Sequence[str]) -> float:
        """0: a replay pays nothing."""
        return 0.0
