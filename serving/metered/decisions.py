"""Saves decisions that a replay cannot make again, such as which request finished first or a tokenizer's count.

A replay has no model and no clock: it reads these decisions from the run store, where they lie next to the responses.
"""

from __future__ import annotations

from pydantic import JsonValue

from ...core.run import Run
from ...core.store.protocol import NewCall, call_key
from .model import MeteredModel


async def load_decision(run: Run, model: MeteredModel, key: dict[str, JsonValue]) -> dict[str, JsonValue] | None:
    """The saved decision of this run, or None.

    Args:
        key: Everything that identifies the decision within the run.
    """
    digest = _digest(run, model, key)
    call = (await run.find_calls([digest])).get(digest)
    return None if call is None else call.response


async def save_decision(
    run: Run, model: MeteredModel, key: dict[str, JsonValue], decision: dict[str, JsonValue]
) -> None:
    """Save a decision; a replay writes nothing."""
    if run.recording:
        call = NewCall(_digest(run, model, key), model.role, model.name, {"decision": key}, decision)
        await run.save_calls([call])


def _digest(run: Run, model: MeteredModel, key: dict[str, JsonValue]) -> str:
    return call_key(model.identity, {"decision": key}, run.seed, 0)
