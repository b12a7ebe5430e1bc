"""A model of an agent that makes another script in each trajectory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from reason.agents.trajectories.runtime import MAX_TRAJECTORIES
from reason.core.messages import Completion, Request

from support.agent_model import AgentModel, Turn


class TrajectoryModel(AgentModel):
    """An `AgentModel` with a script for each trajectory, which it knows by the index of a sample.

    Args:
        scripts: The turns of each trajectory.
        gates: Turns, by trajectory and number from 0, that are made once their event is set.
    """

    def __init__(
        self,
        scripts: Sequence[Sequence[Turn]],
        *,
        gates: Mapping[tuple[int, int], asyncio.Event] | None = None,
    ) -> None:
        super().__init__(())
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
        return request.indices[0] % MAX_TRAJECTORIES, number

    def _completion(self, request: Request, index: int) -> Completion:
        if request.prompt.tools:
            self._turns = self._scripts[self._position(request)[0]]
        return super()._completion(request, index)
