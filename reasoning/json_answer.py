"""An answer as JSON of a given schema, written behind the reasoning that led to it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from ..core.answer import Candidate, Step
from ..core.errors import BadReply, CapabilityMissing
from ..core.messages import Message, Prompt, Request, Sampling
from ..serving.metered import MeteredModel

AS_JSON = "Write this answer as JSON of the form that was asked for, and nothing else."


def require_json(model: MeteredModel) -> None:
    """Refuse a model whose texts cannot be held to a schema, before anything is spent.

    Raises:
        CapabilityMissing: They cannot.
    """
    if not model.capabilities.json_schema:
        raise CapabilityMissing("json_schema", model.name)


async def as_json(
    chain: Candidate, prompt: Prompt, schema: Mapping[str, JsonValue], model: MeteredModel, max_tokens: int
) -> Candidate:
    """The answer of a chain as JSON: asked for in a turn behind it, greedily, and held to the schema.

    The chain itself is free, and stays among the steps: a schema that held all of it would leave no room to reason.

    Args:
        chain: The chain.
        prompt: What it was the reply to.
        schema: The schema.
        model: Who writes it.
        max_tokens: Most tokens of the JSON.

    Raises:
        LimitExceeded: The budget does not cover it.
        BadReply: There was no sample.
    """
    asked = Prompt(
        messages=(
            *prompt.messages,
            Message(role="assistant", content=chain.text),
            Message(role="user", content=AS_JSON),
        )
    )
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens, json_schema=dict(schema))
    ((written,),) = await model.generate([Request(prompt=asked, sampling=sampling)])
    if written.failure is not None:
        raise BadReply(f"the model gave no sample: {written.failure.message}")
    return Candidate(
        text=written.text,
        answer=written.text if written.finish_reason == "stop" else None,
        steps=(*chain.steps, Step(text=written.text)),
        logprob=written.logprob,
        tokens=written.usage.completion_tokens,
        finish_reason=written.finish_reason,
    )
