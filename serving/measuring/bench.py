"""`Bench`: one model on the bench, with the requests that every trial needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.errors import BackendError
from ...core.messages import Completion, Prompt, Request, Sampling, Usage
from ..model import LanguageModel, Listener

ASK = Prompt.user("Write the numbers from one to twenty in words, with commas between them.")
OTHER = Prompt.user("Name three animals that can swim.")
TOKENS = 8
"""Tokens of the sample that trials compare theirs with."""


class Bench:
    """A model that is being measured.

    Args:
        model: The model.

    Attributes:
        model: The model.
        can: What it declares.
        first: Its most likely reply to `ASK`, `TOKENS` tokens long; set by `begin`.
        usage: What all samples so far have used.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.can = model.capabilities
        self.first = Completion(text="", finish_reason="stop")
        self.usage: list[Usage] = []

    async def begin(self) -> None:
        """Have it say something.

        Raises:
            ReasonError: Not even that works.
        """
        self.first = await self.ask(temperature=0, max_tokens=TOKENS)

    async def ask(self, prompt: Prompt = ASK, **sampling: Any) -> Completion:
        """One sample.

        Raises:
            ReasonError: The model refuses, or the sample failed.
        """
        [made] = await self.batch([Request(prompt=prompt, sampling=Sampling(**{"seed": 0} | sampling))])
        return made

    async def batch(self, requests: Sequence[Request], listener: Listener | None = None) -> list[Completion]:
        """All samples of some requests, in order. Raises as `ask`."""
        made = [c for reply in await self.model.generate(requests, listener) for c in reply]
        self.usage += [c.usage for c in made]
        for completion in made:
            if completion.failure is not None:
                raise BackendError(completion.failure.message)
        return made
