"""`SharedCacheScheduler`: vLLM's scheduler, which starts a pass when all of its workers have arrived.

A pass that does not come completely into one step, as when one of its workers does not fit the cache, ends its
group: a worker that stays behind would be missing in the others' views.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason
from vllm.v1.request import RequestStatus

from .shared_cache import PassGate, WorkerRequest

LOST_PASS = "not all workers of a pass came into one step of the engine: its cache or its batch has no room for them"  # noqa: S105
"""Stop reason in a worker's last output."""


class SharedCacheScheduler(Scheduler):  # type: ignore[misc]
    """Holds workers until their pass is complete."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._gate = PassGate()
        self._lost: list[Any] = []

    def add_request(self, request: Any) -> None:
        """A request, or what a session reads next."""
        params = request.sampling_params
        worker_request = WorkerRequest.from_arguments(params.extra_args) if params is not None else None
        if worker_request is None or worker_request.kind != "pass" or not request.resumable:
            super().add_request(request)
            return
        for member in self._gate.add(worker_request, request.request_id, request):
            super().add_request(member)

    def schedule(self, *args: Any, **more: Any) -> Any:
        """A step."""
        output = super().schedule(*args, **more)
        is_idle = not output.num_scheduled_tokens and not self.running and self.pause_state == PauseState.UNPAUSED
        self._lost += self._gate.check_step(output.num_scheduled_tokens, is_idle)
        return output

    def update_from_output(self, *args: Any, **more: Any) -> dict[int, EngineCoreOutputs]:
        """The outputs of a step; workers of a lost pass are aborted."""
        outputs: dict[int, EngineCoreOutputs] = super().update_from_output(*args, **more)
        lost, self._lost = self._lost, []
        for request in lost:
            if request.request_id not in self.requests:
                continue
            self.finish_requests(request.request_id, RequestStatus.FINISHED_ABORTED)
            ended = EngineCoreOutput(request.request_id, [], finish_reason=FinishReason.ABORT, stop_reason=LOST_PASS)
            own = outputs.setdefault(request.client_index, EngineCoreOutputs(outputs=[]))
            own.outputs.append(ended)
        return outputs

    def finish_requests(self, request_ids: Any, finished_status: RequestStatus) -> Any:
        """Requests have ended; the other workers of their passes are released by their own aborts."""
        if request_ids is None:
            request_ids = list(self.requests)
        names = [request_ids] if isinstance(request_ids, str) else list(request_ids)
        self._gate.discard(names)
        return super().finish_requests(names, finished_status)
