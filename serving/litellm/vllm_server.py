"""Pages of a vLLM server in addition to chat, as functions over one `openai.AsyncOpenAI` client.

The client's address ends in `/v1`; `/tokenize` and the others are outside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...core.errors import BackendError, InvalidResponse
from ...core.messages import Message, Prompt
from ..vllm.options import PROCESSORS_PAGE, REPORTS_PAGE


def messages_of(prompt: Prompt) -> list[dict[str, Any]]:
    """A prompt's messages in OpenAI's form, without its prefix."""
    return [_message(m) for m in prompt.messages]


def _message(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        fields["content"] = message.content or None
        fields["tool_calls"] = [call.as_openai() for call in message.tool_calls]
    if message.tool_call_id:
        fields["tool_call_id"] = message.tool_call_id
    if message.name:
        fields["name"] = message.name
    return fields


async def call(client: Any, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """POST to a path outside `/v1` and return the JSON object of the response.

    Raises:
        InvalidResponse: The response is no JSON object.
    """
    response = await client.post(root(client) + path, body=dict(body), cast_to=object)
    if not isinstance(response, dict):
        raise InvalidResponse(f"{path} answered with no JSON object")
    return response


def root(client: Any) -> str:
    """The server's address without `/v1`."""
    return str(client.base_url).rstrip("/").removesuffix("/v1")


async def version(client: Any) -> str:
    """The server's version."""
    response = await client.get(root(client) + "/version", cast_to=object)
    return str(response["version"])


async def list_server_processors(client: Any) -> frozenset[str]:
    """Names of the logits processors that our endpoint plug-in lists on the server.

    vLLM's development mode has `/collective_rpc` instead, which is never tried: a method that the workers do not have
    ends vLLM's engine (seen with 0.32).
    """
    response = await client.get(root(client) + PROCESSORS_PAGE, cast_to=object)
    return frozenset(str(name) for name in response["logits_processors"])


async def take_processor_report(client: Any, name: str) -> dict[str, Any]:
    """Report of the logits processors of one sample; it can be taken once.

    Raises:
        BackendError: There is none: the server ran without them, or has dropped it.
    """
    response = await call(client, REPORTS_PAGE, {"ids": [name]})
    report = response["reports"].get(name)
    if report is None:
        raise BackendError(
            "the vLLM server has no report of a sample's logits processors",
            hint="with data parallelism, or after a restart, reports are lost",
        )
    return dict(report)


async def tokenize_text(client: Any, model: str, text: str, *, special: bool) -> list[int]:
    """Tokens of a text; `special` adds what the tokenizer puts at the beginning of a raw text."""
    response = await call(client, "/tokenize", {"model": model, "prompt": text, "add_special_tokens": special})
    return [int(i) for i in response["tokens"]]


async def tokenize_messages(
    client: Any, model: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
) -> list[int]:
    """Tokens of a conversation with its tools, up to the start of the assistant's turn."""
    body: dict[str, Any] = {"model": model, "messages": list(messages), "add_generation_prompt": True}
    if tools:
        body["tools"] = list(tools)
    response = await call(client, "/tokenize", body)
    return [int(i) for i in response["tokens"]]


async def detokenize(client: Any, model: str, ids: Sequence[int]) -> str:
    """Text of tokens."""
    response = await call(client, "/detokenize", {"model": model, "tokens": list(ids)})
    return str(response["prompt"])


async def prompt_ids(client: Any, model: str, prompt: Prompt) -> list[int]:
    """Tokens of a prompt with its prefix: the prefix's own tokens follow those of the rendered conversation."""
    if prompt.text is not None:
        if isinstance(prompt.prefix, str):
            return await tokenize_text(client, model, prompt.text + prompt.prefix, special=True)
        return [*await tokenize_text(client, model, prompt.text, special=True), *prompt.prefix]
    tools = [tool.as_openai() for tool in prompt.tools]
    ids = await tokenize_messages(client, model, messages_of(prompt), tools)
    if isinstance(prompt.prefix, str):
        tail = await tokenize_text(client, model, prompt.prefix, special=False) if prompt.prefix else []
        return [*ids, *tail]
    return [*ids, *prompt.prefix]
