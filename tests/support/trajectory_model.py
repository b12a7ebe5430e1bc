"""A model of an agent that makes another script in each trajectory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

from reason.core.messages import Completion, Request
from reason.core.run import Run

from support.agent_model import AgentModel, Turn


class TrajectoryModel(AgentModel):
    """An `AgentModel` with a script for each trajectory, which it knows by the seed of a request.

    Args:
        scripts: The turns of each trajectory.
        seed: The run's seed.
        gates: Turns, by trajectory and number from 0, that are made once their event is set.
    """

    def __init__(
        self,
        scripts: Sequence[Sequence[Turn]],
        *,
        seed: int = 5,
        gates: Mapping[tuple[int, int], asyncio.Event] | None = None,
    ) -> None:
        super().__init__(())
        run = SimpleNamespace(config=SimpleNamespace(seed=seed))
        self._index = {Run.derive_seed(run, "trajectory", i): i for i in range(len(scripts))}
        self._scripts, self._gates = scripts, gates or {}
        self.requests: list[tuple[int, int]] = []
        """The requested turns."""

    async def generate(self, requests, listener=None):
        for request in requests:
            if request.prompt.tools:
                position = self._position(request)
                self.requests.append(position)
                if gate := self._gates.get(position):
                    await gate.wait()
        return await super().generate(requests, listener)

    def _position(self, request: Request) -> tuple[int, int]:
        number = sum(message.role == "assistant" for message in request.prompt.messages)
        return self._index[request.sampling.seed], number

    def _completion(self, request: Request, index: int) -> Completion:
        if request.prompt.tools:
            self._turns = self._scripts[self._position(request)[0]]
        return super()._completion(request, index)
