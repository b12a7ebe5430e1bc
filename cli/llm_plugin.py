"""A plug-in of the command line tool `llm`: `llm -m reason/cot "What is 17 * 23?"`.

It registers a model for each strategy. A prompt is the chat request of OpenAI's interface, run in this process. `llm`
imports this module whenever it starts, so everything else is imported when a model is used.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future
from contextlib import aclosing, suppress
from importlib.metadata import entry_points
from typing import Any, cast

import llm
from llm.parts import ReasoningPart, StreamEvent, TextPart, ToolCallPart, ToolResultPart
from pydantic import Field, JsonValue, ValidationError, field_validator


class PromptOptions(llm.Model.Options):
    """Options of a prompt, `-o NAME VALUE`."""

    model: str | None = Field(None, description="Model string, such as local/smollm2-135m; else the setting.")
    effort: str | None = Field(None, description="How much the model thinks: none, low, medium, high, ….")
    temperature: float | None = Field(None, description="Sampling temperature.")
    max_tokens: int | None = Field(None, description="Maximum tokens of the answer.")
    seed: int | None = Field(None, description="Random seed.")
    budget_tokens: int | None = Field(None, description="Maximum tokens of the run.")
    verify: str | None = Field(None, description="Name of a verifier, such as davinci.")
    parameters: dict[str, JsonValue] = Field({}, description='Parameters of the strategy as JSON, such as {"n": 8}.')

    @field_validator("parameters", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value


def chat_request(model_id: str, prompt: llm.Prompt) -> dict[str, Any]:
    """A prompt as the body of a chat request."""
    options = cast(PromptOptions, prompt.options)
    body: dict[str, Any] = {
        "model": model_id,
        "messages": [message for one in prompt.messages for message in _messages(one)],
        "temperature": options.temperature,
        "max_tokens": options.max_tokens,
        "seed": options.seed,
        "reason": {
            "parameters": options.parameters,
            "effort": options.effort,
            "budget": {"tokens": options.budget_tokens},
            "verify": None if options.verify is None else [options.verify],
        },
    }
    if prompt.schema:
        schema = {"name": "output", "schema": prompt.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if prompt.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.input_schema},
            }
            for tool in prompt.tools
        ]
    return body


def _messages(message: Any) -> Iterator[dict[str, Any]]:
    """The chat messages of a message: its tool results, and the rest."""
    rest: dict[str, Any] = {"role": message.role, "content": ""}
    for part in message.parts:
        match part:
            case TextPart():
                rest["content"] += part.text
            case ReasoningPart():
                rest["reasoning_content"] = rest.get("reasoning_content", "") + part.text
            case ToolCallPart():
                function = {"name": part.name, "arguments": json.dumps(part.arguments)}
                call = {"id": part.tool_call_id, "type": "function", "function": function}
                rest.setdefault("tool_calls", []).append(call)
            case ToolResultPart():
                yield {"role": "tool", "tool_call_id": part.tool_call_id, "content": part.output}
    if message.role != "tool":
        yield rest


async def answer_prompt(model_id: str, prompt: llm.Prompt, response: Any) -> AsyncGenerator[StreamEvent, None]:
    """Answer a prompt; thoughts are reasoning.

    Raises:
        ModelError: The request is refused, the run failed, or a library is missing.
    """
    try:
        from ..agents.reasoner import Reasoner
        from ..core.errors import ReasonError
        from ..core.events import RunFinished
        from ..core.settings import user_error_of
        from ..sidecar.openai.outcome import chat_usage, outcome_of
        from ..sidecar.openai.requests import ChatRequest
        from ..sidecar.openai.run_config import chat_run_request
        from ..sidecar.openai.streaming import AnswerText, EventTranslator, TextPiece
    except ModuleNotFoundError as e:
        from ..core.extras import missing_package

        raise llm.ModelError(str(missing_package("the model", e.name, "llm"))) from e

    def chunk(piece: TextPiece) -> StreamEvent:
        return StreamEvent(type="text" if piece.kind == "content" else "reasoning", chunk=piece.text)

    try:
        async with Reasoner(cast(PromptOptions, prompt.options).model) as reasoner:
            run_request = chat_run_request(ChatRequest.model_validate(chat_request(model_id, prompt)), reasoner, "")
            (config,) = run_request.configs
            answer_text = AnswerText()
            translator = EventTranslator(config, answer_text)
            answer = None
            async with aclosing(reasoner.astream_run(config)) as events:
                async for event in events:
                    for piece in translator.take(event):
                        yield chunk(piece)
                    if isinstance(event, RunFinished):
                        answer = event.answer
        assert answer is not None
        for piece in translator.finish():
            yield chunk(piece)
        outcome = outcome_of(answer, run_request, translator)
        if left := answer_text.finish(outcome.content, late=translator.late):
            yield chunk(TextPiece("content", left))
    except ValidationError as e:
        raise llm.ModelError(str(user_error_of(e, "option", PromptOptions.model_fields))) from e
    except ReasonError as e:
        raise llm.ModelError(str(e)) from e
    for call in outcome.calls:
        response.add_tool_call(
            llm.ToolCall(name=call.name, arguments=call.parsed_arguments or {}, tool_call_id=call.id)
        )
        yield StreamEvent(type="tool_call_name", chunk=call.name, tool_call_id=call.id)
        yield StreamEvent(type="tool_call_args", chunk=call.arguments, tool_call_id=call.id)
    usage = chat_usage([outcome])
    response.set_usage(
        input=usage["prompt_tokens"], output=usage["completion_tokens"], details=usage["completion_tokens_details"]
    )
    response.response_json = {"run_id": answer.run_id, "confidence": answer.confidence}


class _Shared:
    supports_schema = True
    supports_tools = True
    can_stream = True

    def __init__(self, strategy: str) -> None:
        self.model_id = f"reason/{strategy}"


class ReasonModel(_Shared, llm.Model):
    """A strategy as a model, which is loaded for each prompt."""

    Options = PromptOptions

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: Any
    ) -> Iterator[StreamEvent]:
        """Answer a prompt."""
        return iterate(answer_prompt(self.model_id, prompt, response))


class AsyncReasonModel(_Shared, llm.AsyncModel):
    """A strategy as a model, which is loaded for each prompt."""

    Options = PromptOptions

    async def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.AsyncResponse, conversation: Any
    ) -> AsyncGenerator[StreamEvent, None]:
        """Answer a prompt."""
        async with aclosing(answer_prompt(self.model_id, prompt, response)) as chunks:
            async for chunk in chunks:
                yield chunk


def iterate(source: AsyncGenerator[StreamEvent, None]) -> Iterator[StreamEvent]:
    """Iterate over an asynchronous generator, on the event loop of a thread of its own.

    Leaving early, as after Ctrl-C, cancels it and waits for its end.
    """
    chunks: queue.SimpleQueue[StreamEvent | None] = queue.SimpleQueue()
    ended: Future[None] = Future()
    started = threading.Event()
    loop = asyncio.new_event_loop()
    tasks: list[asyncio.Task[Any] | None] = []

    async def pump() -> None:
        tasks.append(asyncio.current_task())
        started.set()
        async with aclosing(source):
            async for chunk in source:
                chunks.put(chunk)

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                ended.set_result(runner.run(pump()))
        except BaseException as e:  # noqa: BLE001 (raised by the caller)
            ended.set_exception(e)
        chunks.put(None)

    thread = threading.Thread(target=work, daemon=True, name="reason-llm")
    thread.start()
    try:
        while (chunk := chunks.get()) is not None:
            yield chunk
        ended.result()
    finally:
        started.wait()
        with suppress(RuntimeError):  # the loop is closed
            for task in tasks:
                if task is not None:
                    loop.call_soon_threadsafe(task.cancel)
        thread.join()


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Register a model for each installed strategy."""
    for name in sorted(point.name for point in entry_points(group="reason.strategies")):
        register(ReasonModel(name), AsyncReasonModel(name))
