"""Pages of a vLLM server in addition to chat, as functions over one `HttpClient`.

The client's address ends in `/v1`; `/tokenize` and the others are outside it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from ...core.errors import BackendError, InvalidResponse
from ...core.messages import Prompt
from ..litellm.errors import readable_response
from ..litellm.requests import messages_of
from ..litellm.transport import HttpClient
from ..logits_processors.registry import PROCESSORS_PAGE, REPORTS_PAGE
from ..profiles.profile import ModelProfile
from ..thoughts import prompt_tags, rest_of_closing


async def call(
    client: HttpClient, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """POST to a path outside `/v1` and return the JSON object of the response."""
    response = await client.post_json(root(client) + path, body, headers)
    if not isinstance(response, dict):
        raise InvalidResponse(f"{path} did not return a JSON object")
    return response


def root(client: HttpClient) -> str:
    """The server's address without `/v1`."""
    return str(client.base_url).rstrip("/").removesuffix("/v1")


async def version(client: HttpClient) -> str:
    """The server's version."""
    response = await client.get_json(root(client) + "/version")
    with readable_response("/version"):
        return str(response["version"])


async def list_server_processors(client: HttpClient) -> frozenset[str]:
    """Names of the logits processors that our endpoint plug-in lists on the server.

    vLLM's development mode has `/collective_rpc` instead, which is never tried: a method that the workers do not have
    ends vLLM's engine (seen with 0.32).
    """
    response = await client.get_json(root(client) + PROCESSORS_PAGE)
    with readable_response(PROCESSORS_PAGE):
        return frozenset(str(name) for name in response["logits_processors"])


async def take_processor_report(client: HttpClient, name: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Report of the logits processors of one sample; it can be taken once.

    The headers are those of the sample's request, by which a router finds the server that generated it.

    Raises:
        BackendError: There is none: the server ran without them, or has dropped it.
    """
    response = await call(client, REPORTS_PAGE, {"ids": [name]}, headers)
    with readable_response(REPORTS_PAGE):
        report = response["reports"].get(name)
    if report is None:
        raise BackendError(
            "the vLLM server has no report of a sample's logits processors",
            hint="with data parallelism, after a restart, or where a router asks another server, reports are lost",
        )
    return dict(report)


async def post_tokenize(client: HttpClient, body: Mapping[str, Any]) -> list[int]:
    """The tokens in the response to a request to `/tokenize`."""
    response = await call(client, "/tokenize", body)
    with readable_response("/tokenize"):
        return [int(i) for i in response["tokens"]]


async def tokenize_text(client: HttpClient, model: str, text: str, *, special: bool) -> list[int]:
    """Tokens of a text; `special` adds what the tokenizer puts at the beginning of a raw text."""
    return await post_tokenize(client, {"model": model, "prompt": text, "add_special_tokens": special})


async def tokenize_messages(
    client: HttpClient,
    model: str,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    arguments: Mapping[str, JsonValue] | None = None,
) -> list[int]:
    """Tokens of a conversation with its tools, both in OpenAI's form, up to the start of the assistant's turn.

    `arguments` are those of the chat template.
    """
    body: dict[str, Any] = {"model": model, "messages": list(messages), "add_generation_prompt": True}
    if tools:
        body["tools"] = list(tools)
    if arguments:
        body["chat_template_kwargs"] = dict(arguments)
    return await post_tokenize(client, body)


async def detokenize(client: HttpClient, model: str, ids: Sequence[int]) -> str:
    """Text of tokens."""
    response = await call(client, "/detokenize", {"model": model, "tokens": list(ids)})
    with readable_response("/detokenize"):
        return str(response["prompt"])


async def prompt_ids(
    client: HttpClient,
    model: str,
    prompt: Prompt,
    profile: ModelProfile,
    arguments: Mapping[str, JsonValue],
    *,
    thinking: bool,
) -> list[int]:
    """Tokens of a prompt with its thought and its prefix, whose own tokens follow those of the rendered conversation.

    `arguments` are those of the chat template for this request, `thinking` is whether the model thinks in it.
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
    client: HttpClient,
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
