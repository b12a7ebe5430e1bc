"""`RecordedBrain`: a brain that is not there. The run store knows its replies by its identity."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from ...core.errors import LimitExceeded, ReasonError, StoreError
from ...serving.model import Capabilities
from ...serving.recorded import RecordedModel
from .brain import Brain, Snippet
from .model import ModelBrain


class NotRecorded(StoreError):
    """A replay asks for what the recorded run never got a reply to."""


class RecordedBrain:
    """Stands for a brain when a stored run is shown again; the store answers before anything comes here.

    What a brain failed to answer is recorded too, so a finished run asks nothing of this object.

    Args:
        name: The string that the recorded run's brain was opened by.
        kind: Its kind.
        identity: Its identity.
        out_of_time: Whether the run had a time limit: what it has no reply to, it did not get to.
    """

    def __init__(self, name: str, kind: str, identity: str, *, out_of_time: bool = False) -> None:
        self.name, self.kind, self.identity = name, kind, identity
        self._out_of_time = out_of_time

    async def query(self, text: str, k: int, context: str = "") -> list[Snippet]:
        """Fail.

        Raises:
            NotRecorded: Always, or
            LimitExceeded: always, if the recorded run had a time limit.
        """
        error: ReasonError = NotRecorded(
            f"the store holds no reply of {self.name} to a query that this run asks",
            hint="the run was not finished, or another version of reason made it: resume it instead",
        )
        raise LimitExceeded("seconds", 0, 0) if self._out_of_time else error

    async def aclose(self) -> None:
        """Do nothing."""


def noted(brain: Brain) -> dict[str, JsonValue]:
    """What is kept of a brain with a run, so that `recorded_brain` can stand for it."""
    about: dict[str, JsonValue] = {"name": brain.name, "kind": brain.kind, "identity": brain.identity}
    if isinstance(brain, ModelBrain):
        model = brain.model
        capabilities = model.capabilities.model_dump(mode="json")
        about["model"] = {"name": model.name, "identity": model.identity, "capabilities": capabilities}
    return about


def recorded_brain(known: Mapping[str, JsonValue], *, out_of_time: bool = False) -> Brain:
    """What stands for a brain when a stored run is shown again.

    Args:
        known: What `noted` told of it.
        out_of_time: See `RecordedBrain`.
    """
    model = known.get("model")
    if isinstance(model, dict):
        # the run pays for what the model said, as it did; the store answers
        capabilities = Capabilities.model_validate(model["capabilities"])
        recorded = RecordedModel(str(model["name"]), str(model["identity"]), capabilities, out_of_time=out_of_time)
        return ModelBrain(recorded)
    name, kind, identity = (str(known[field]) for field in ("name", "kind", "identity"))
    return RecordedBrain(name, kind, identity, out_of_time=out_of_time)
