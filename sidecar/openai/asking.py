"""From a request in OpenAI's format to the configurations of its runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from ...agents.reasoner import Reasoner
from ...core.budget import Budget
from ...core.errors import UnknownName, UserError
from ...core.question import Question
from ...core.run import RunConfig
from ..offered import bounded, refuse_places
from .chat_request import ChatRequest, ReasonOptions, ResponseFormat
from .conversation import question_of
from .fields import CHAT, refuse_fields
from .model_names import named, strategy_of
from .parameters import Knob, knobs


@dataclass(frozen=True)
class Asked:
    """What a request comes to.

    Attributes:
        model: The model name as it was given, which the reply repeats.
        configs: A run for each answer wanted.
        stop: Strings before the first of which the answer's text ends.
        one_call: Whether of several tool calls the first alone is returned.
        stream_events: Whether a stream carries the runs' events.
    """

    model: str
    configs: tuple[RunConfig, ...]
    stop: tuple[str, ...] = ()
    one_call: bool = False
    stream_events: bool = False


def chat_asks(request: ChatRequest, reasoner: Reasoner, tenant: str) -> Asked:
    """What a chat request comes to.

    Raises:
        UserError: It asks for something that it would not get; names the field.
        ModelNotFound: The model is not offered.
    """
    refuse_fields(request.model_dump(exclude_unset=True), CHAT)
    most = reasoner.settings.serve.max_samples
    if request.n is not None and request.n > most:
        raise UserError(f"n is {request.n}, and the server gives at most {most} answers to a request", param="n")
    kept = {"metadata": request.metadata, "user": request.user, "safety_identifier": request.safety_identifier}
    question = question_of(
        request.messages,
        tools=request.tools or (),
        tool_choice=request.tool_choice,
        metadata={name: value for name, value in kept.items() if value is not None},
    )
    limit = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    config = planned(
        question,
        model=request.model,
        options=request.reason,
        given={"temperature": request.temperature, "top_p": request.top_p, "max_tokens": limit},
        form=request.response_format,
        seed=request.reason.seed if request.seed is None else request.seed,
        reasoner=reasoner,
        tenant=tenant,
    )
    return Asked(
        model=request.model,
        configs=several(config, request.n or 1),
        stop=request.stops,
        one_call=request.parallel_tool_calls is False,
        stream_events=request.reason.stream_events,
    )


def planned(
    question: Question,
    *,
    model: str,
    options: ReasonOptions,
    given: Mapping[Knob, JsonValue],
    form: ResponseFormat | None,
    seed: int | None,
    reasoner: Reasoner,
    tenant: str,
) -> RunConfig:
    """The configuration of one run.

    What a model name brings along (an alias does) gives way to the request; limits of both hold.

    Args:
        question: The question.
        model: The model name as it was given.
        options: The request's `reason` object.
        given: The fields of OpenAI's format that become parameters.
        form: The form of the answer.
        seed: The run's seed; None is the settings', else a new one.
        reasoner: Who plans.
        tenant: Whose run it is.

    Raises:
        UserError: It asks for something that it would not get; names the field.
        ModelNotFound: The model is not offered.
    """
    settings = reasoner.settings
    name = named(model, settings)
    strategy = strategy_of(name, options.strategy, settings)
    refuse_places(options.parameters, settings.strategies.get(strategy), param="reason.parameters")
    for verifier, given_to_it in options.verify_parameters.items():
        refuse_places(given_to_it, settings.verifiers.get(verifier), param=f"reason.verify_parameters.{verifier}")
    from_fields, tokens = knobs(strategy, {**given, "json_schema": schema_of(form)}, options.parameters)
    own: dict[str, JsonValue] = {**name.parameters, **from_fields, **options.parameters}
    verify = name.verify or None if options.verify is None else options.verify
    try:
        return reasoner.plan(
            question,
            strategy=strategy,
            model=name.model,
            parameters=own,
            verify=verify,
            verify_parameters=options.verify_parameters or None,
            budget=bounded(options.budget, settings.serve, settings.budget, name.budget, Budget(tokens=tokens)),
            seed=seed,
            tenant=tenant,
        )
    except UserError as e:
        # a wrong name in a body is a bad request; that a path or model does not exist is something else
        raise UserError(e.message, hint=e.hint, param=_place(e, options)) from e


def _place(error: UserError, options: ReasonOptions) -> str | None:
    """Which field of a request a refusal is about."""
    if error.param is not None and error.param.partition(".")[0] in options.parameters:
        return f"reason.parameters.{error.param}"
    if isinstance(error, UnknownName) and error.kind == "verifier":
        return "reason.verify"
    return error.param


def schema_of(form: ResponseFormat | None) -> dict[str, JsonValue] | None:
    """The JSON Schema that the answer is to satisfy; None leaves it free.

    Raises:
        UserError: JSON is asked for without a schema.
    """
    if form is None or form.type == "text":
        return None
    if form.json_schema is None or not form.json_schema.schema_:
        raise UserError(
            f"{form.type} without a schema is not supported", hint="give a json_schema", param="response_format"
        )
    return form.json_schema.schema_


def several(config: RunConfig, n: int) -> tuple[RunConfig, ...]:
    """A run and n - 1 more like it, whose seeds follow from its own: the same request gives the same answers."""
    return (config, *(config.model_copy(update={"seed": _seed(config.seed, i)}) for i in range(1, n)))


def _seed(seed: int, index: int) -> int:
    digest = hashlib.sha256(f"{seed}\x1fanswer\x1f{index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF
