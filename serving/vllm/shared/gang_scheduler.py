"""`GangScheduler`: vLLM's scheduler, which begins a pass when all of its workers are there, and with all of them.

A pass that does not come into one step whole, as when the cache has no room for one of its workers, ends its group: who
stays behind would be missing in the others' views.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason
from vllm.v1.request import RequestStatus

from ..shared_cache import Gangs, Part

WHY = "not all workers of a pass came into one step of the engine: its cache or its batch has no room for them"
"""What a worker's last output gives as the reason to stop."""


class GangScheduler(Scheduler):  # type: ignore[misc]
    """Holds workers until their pass is complete."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._gangs = Gangs()
        self._lost: list[Any] = []

    def add_request(self, request: Any) -> None:
        """A request, or what a session reads next."""
        part = Part.of(request.sampling_params.extra_args) if request.sampling_params is not None else None
        if part is None or part.kind != "pass" or not request.resumable:
            super().add_request(request)
            return
        for member in self._gangs.arrive(part, request.request_id, request):
            super().add_request(member)

    def schedule(self, *args: Any, **more: Any) -> Any:
        """A step."""
        output = super().schedule(*args, **more)
        idle = not output.num_scheduled_tokens and not self.running and self.pause_state == PauseState.UNPAUSED
        self._lost += self._gangs.judge(output.num_scheduled_tokens, idle)
        return output

    def update_from_output(self, *args: Any, **more: Any) -> dict[int, EngineCoreOutputs]:
        """What a step has brought; workers of a lost pass are told so."""
        outputs: dict[int, EngineCoreOutputs] = super().update_from_output(*args, **more)
        lost, self._lost = self._lost, []
        for request in lost:
            if request.request_id not in self.requests:
                continue
            self.finish_requests(request.request_id, RequestStatus.FINISHED_ABORTED)
            ended = EngineCoreOutput(request.request_id, [], finish_reason=FinishReason.ABORT, stop_reason=WHY)
            own = outputs.setdefault(request.client_index, EngineCoreOutputs(outputs=[]))
            own.outputs.append(ended)
        return outputs

    def finish_requests(self, request_ids: Any, finished_status: RequestStatus) -> Any:
        """Requests have ended; whoever was to be in a pass with them is let go by its own abort."""
        if request_ids is None:
            request_ids = list(self.requests)
        names = [request_ids] if isinstance(request_ids, str) else list(request_ids)
        self._gangs.forget(names)
        return super().finish_requests(names, finished_status)
