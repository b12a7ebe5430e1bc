"""Pages of a vLLM server in addition to chat, as functions over one `HttpClient`.

The client's address ends in `/v1`; `/tokenize` and the others are outside it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from ...core.errors import BackendError, InvalidResponse
from ...core.messages import Message, Prompt
from ..logits_processors.registry import PROCESSORS_PAGE, REPORTS_PAGE
from ..profiles.profile import ModelProfile
from ..thoughts import prompt_tags, rest_of_closing


def messages_of(
    prompt: Prompt, profile: ModelProfile | None = None, *, thinking: bool = False, own_server: bool = False
) -> list[dict[str, Any]]:
    """A prompt's messages in OpenAI's form, without its prefix, with the thoughts that the model wants back.

    Args:
        prompt: The prompt.
        profile: The model's profile; None returns no thoughts.
        thinking: Whether the model thinks in this request; signed thoughts are of no use to it otherwise.
        own_server: Whether a self-hosted server reads them, which also gets vLLM's name of the field.
    """
    messages = [_message(m) for m in prompt.messages]
    when = "never" if profile is None else profile.return_thoughts
    for i, message in enumerate(prompt.messages):
        thought = message.thought
        if message.role != "assistant" or thought is None or when == "never":
            continue
        if when == "signed" and thinking and thought.blocks:
            is_anthropic = all(str(block.get("type", "")).endswith("thinking") for block in thought.blocks)
            messages[i]["thinking_blocks" if is_anthropic else "reasoning_details"] = [dict(b) for b in thought.blocks]
        if when == "with-tools" and thought.text and _is_tool_turn(prompt.messages, i):
            messages[i]["reasoning_content"] = thought.text
            if own_server:
                messages[i]["reasoning"] = thought.text
    return messages


def _is_tool_turn(messages: Sequence[Message], index: int) -> bool:
    """Whether tools are called in the turn of a message: between the user's messages before and after it."""
    start = max((i for i in range(index) if messages[i].role == "user"), default=-1)
    end = next((i for i in range(index, len(messages)) if messages[i].role == "user"), len(messages))
    return any(m.tool_calls for m in messages[start + 1 : end])


def _message(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.attachments:
        text = [{"type": "text", "text": message.content}] if message.content else []
        fields["content"] = [*text, *(attachment.as_openai() for attachment in message.attachments)]
    if message.tool_calls:
        fields["content"] = message.content or None
        fields["tool_calls"] = [call.as_openai() for call in message.tool_calls]
    if message.tool_call_id:
        fields["tool_call_id"] = message.tool_call_id
    if message.name:
        fields["name"] = message.name
    return fields


async def call(
    client: Any, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """POST to a path outside `/v1` and return the JSON object of the response.

    Raises:
        InvalidResponse: The response is not a JSON object.
    """
    response = await client.post_json(root(client) + path, body, headers)
    if not isinstance(response, dict):
        raise InvalidResponse(f"{path} did not return a JSON object")
    return response


def root(client: Any) -> str:
    """The server's address without `/v1`."""
    return str(client.base_url).rstrip("/").removesuffix("/v1")


async def version(client: Any) -> str:
    """The server's version."""
    response = await client.get_json(root(client) + "/version")
    return str(response["version"])


async def list_server_processors(client: Any) -> frozenset[str]:
    """Names of the logits processors that our endpoint plug-in lists on the server.

    vLLM's development mode has `/collective_rpc` instead, which is never tried: a method that the workers do not have
    ends vLLM's engine (seen with 0.32).
    """
    response = await client.get_json(root(client) + PROCESSORS_PAGE)
    return frozenset(str(name) for name in response["logits_processors"])


async def take_processor_report(client: Any, name: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Report of the logits processors of one sample; it can be taken once.

    Args:
        client: The client of the server.
        name: The report's name.
        headers: Those of the sample's request, by which a router finds the server that generated it.

    Raises:
        BackendError: There is none: the server ran without them, or has dropped it.
    """
    response = await call(client, REPORTS_PAGE, {"ids": [name]}, headers)
    report = response["reports"].get(name)
    if report is None:
        raise BackendError(
            "the vLLM server has no report of a sample's logits processors",
            hint="with data parallelism, after a restart, or where a router asks another server, reports are lost",
        )
    return dict(report)


async def tokenize_text(client: Any, model: str, text: str, *, special: bool) -> list[int]:
    """Tokens of a text; `special` adds what the tokenizer puts at the beginning of a raw text."""
    response = await call(client, "/tokenize", {"model": model, "prompt": text, "add_special_tokens": special})
    return [int(i) for i in response["tokens"]]


async def tokenize_messages(
    client: Any,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    arguments: Mapping[str, JsonValue] | None = None,
) -> list[int]:
    """Tokens of a conversation with its tools, up to the start of the assistant's turn.

    Args:
        client: The client of the server.
        model: The served name.
        messages: The conversation in OpenAI's form.
        tools: Tools in OpenAI's form.
        arguments: Arguments of the chat template.
    """
    body: dict[str, Any] = {"model": model, "messages": list(messages), "add_generation_prompt": True}
    if tools:
        body["tools"] = list(tools)
    if arguments:
        body["chat_template_kwargs"] = dict(arguments)
    response = await call(client, "/tokenize", body)
    return [int(i) for i in response["tokens"]]


async def detokenize(client: Any, model: str, ids: Sequence[int]) -> str:
    """Text of tokens."""
    response = await call(client, "/detokenize", {"model": model, "tokens": list(ids)})
    return str(response["prompt"])


async def prompt_ids(
    client: Any,
    model: str,
    prompt: Prompt,
    profile: ModelProfile,
    arguments: Mapping[str, JsonValue],
    *,
    thinking: bool,
) -> list[int]:
    """Tokens of a prompt with its thought and its prefix, whose own tokens follow those of the rendered conversation.

    Args:
        client: The client of the server.
        model: The served name.
        prompt: The prompt.
        profile: The model's profile, which has the tags.
        arguments: Arguments of the chat template for this request.
        thinking: Whether the model thinks in it.
    """

    async def tokens(text: str) -> list[int]:
        return await tokenize_text(client, model, text, special=False) if text else []

    if prompt.text is not None:
        if isinstance(prompt.prefix, str):
            return await tokenize_text(client, model, prompt.text + prompt.prefix, special=True)
        return [*await tokenize_text(client, model, prompt.text, special=True), *prompt.prefix]
    tools = [tool.as_openai() for tool in prompt.tools]
    messages = messages_of(prompt, profile, thinking=thinking, own_server=True)
    ids = await tokenize_messages(client, model, messages, tools, arguments)
    if profile.can_think:
        ids += await _thought_ids(client, model, prompt, profile, tokens, thinking=thinking)
    return [*ids, *(await tokens(prompt.prefix) if isinstance(prompt.prefix, str) else prompt.prefix)]


async def _thought_ids(
    client: Any,
    model: str,
    prompt: Prompt,
    profile: ModelProfile,
    tokens: Callable[[str], Awaitable[list[int]]],
    *,
    thinking: bool,
) -> list[int]:
    """Tokens of a prompt's thought with its tags, after the rendered conversation.

    The conversation is rendered for a thought if the model thinks, or if the prompt has one.
    """
    opening, closing, empty = prompt_tags(profile)
    thought, is_open = prompt.thought, profile.opened_by_template
    if thought is None or (thought.closed and not thought.text and not thought.token_ids):
        if thinking or profile.thinks == "opt-in" or "none" in profile.efforts:
            return []  # the template leaves the turn as it should be
        return await tokens(closing if is_open else empty)
    if not thought.token_ids:
        head = "" if is_open else opening.rstrip()
        return await tokens(head + thought.text + (rest_of_closing(closing, thought.text) if thought.closed else ""))
    ids, tag = list(thought.token_ids), await tokens(opening.rstrip())
    written = ids[: len(tag)] == tag  # the model opened the thought itself
    ids = ids[len(tag) :] if written and is_open else ids if written or is_open else [*tag, *ids]
    if not thought.closed:
        return ids
    return [*ids, *await tokens(rest_of_closing(closing, await detokenize(client, model, ids[-16:])))]
