"""Decisions that a replay could not take again: who finished first, what a tokenizer counted. The run store keeps them.

A replay has no model and no clock, and answers everything from the store. What depended on either is noted there beside
the replies, and taken from there.
"""

from __future__ import annotations

from pydantic import JsonValue

from ...core.run import Run
from ...core.store.protocol import StoredCall, call_key
from .model import MeteredModel


async def load_decision(run: Run, model: MeteredModel, what: dict[str, JsonValue]) -> dict[str, JsonValue] | None:
    """What this run decided; None if it has not yet.

    Args:
        run: The run.
        model: Whom the decision is about.
        what: What was to be decided, whole: the decision's name.
    """
    key = _key(run, model, what)
    noted = (await run.store.find_calls(run.id, [key])).get(key)
    return None if noted is None else noted.response


async def save_decision(
    run: Run, model: MeteredModel, what: dict[str, JsonValue], decided: dict[str, JsonValue]
) -> None:
    """Note a decision; a replay, which has them all, writes nothing."""
    if run.recording:
        call = StoredCall(
            key=_key(run, model, what), role=model.role, model=model.name, request={"decision": what}, response=decided
        )
        await run.store.add_calls(run.id, [call])


def _key(run: Run, model: MeteredModel, what: dict[str, JsonValue]) -> str:
    return call_key(model.identity, {"decision": what}, run.seed, 0)
