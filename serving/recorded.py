"""`RecordedModel`: a model that is not there. It carries the identity under which the run store knows its replies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from ..core.errors import LimitExceeded, ReasonError, StoreError
from ..core.messages import Chunk, Completion, NextToken, Prompt, Request, Scored
from .model import Capabilities, Listener
from .workers import Opening, WorkerGroup


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

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[Scored]:
        """Fail likewise."""
        raise self._missing("a score")

    async def next_token(self, prompts: Sequence[Prompt], top: int = 20) -> list[NextToken]:
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
