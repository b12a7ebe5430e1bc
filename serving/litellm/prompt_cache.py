"""What a provider's prompt cache, or a router in front of several servers, is told about prompts that begin alike.

OpenAI caches by itself and routes requests with the same `prompt_cache_key` to the same machine. Anthropic caches up to
a block with `cache_control`; writing costs more than reading the prompt plainly, so only messages are marked that
further requests are expected to begin with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from ...core.messages import Prompt
from .providers import BYTES_PER_TOKEN

BEGINNING = 2048
"""Characters of the user's first turn, or of a raw text, that decide a prompt's key."""
KEY_CHARS = 32
"""Characters of a key that are sent."""
MAX_MARKS = 2
"""The last of several system messages, and the last message; Anthropic refuses more than four marks."""


def prompt_start_key(prompt: Prompt) -> str:
    """A hash of a prompt's beginning: its salt, the turns before the user's first, and the beginning of that one.

    A system prompt counts in full, so that questions under a long one have keys of their own.
    """
    texts: list[str] = [prompt.cache_salt] if prompt.cache_salt else []
    texts += [] if prompt.text is None else [prompt.text[:BEGINNING]]
    for message in prompt.messages:
        is_user = message.role == "user"
        texts.append(f"{message.role}\n{message.content[:BEGINNING] if is_user else message.content}")
        if is_user:
            break
    return hashlib.sha256("\n".join(texts).encode(errors="surrogatepass")).hexdigest()


def prefix_marks(prompt: Prompt, num_requests: int, min_tokens: int) -> tuple[int, ...]:
    """Numbers of leading messages after which the provider caches a prompt.

    Marked are a system prompt, and the last message of a prompt that several requests have or that continues a
    conversation, each if the prefix has enough tokens for the provider's cache. There are at most `MAX_MARKS`.
    """
    messages = prompt.messages
    is_reused = num_requests > 1 or any(m.role == "assistant" for m in messages)
    size = len(json.dumps([tool.as_openai() for tool in prompt.tools])) if prompt.tools else 0
    marks = []
    for number, message in enumerate(messages, 1):
        size += len(message.content.encode(errors="surrogatepass"))
        is_shared = message.role == "system" or (message.role == "user" and number == len(messages) and is_reused)
        if is_shared and message.content and size >= min_tokens * BYTES_PER_TOKEN:
            marks.append(number)
    return tuple(marks[-MAX_MARKS:])


def with_marks(messages: list[dict[str, Any]], marks: Sequence[int]) -> None:
    """Mark messages in OpenAI's form as ends of what the provider caches, as LiteLLM passes it on to Anthropic."""
    for number in marks:
        content = messages[number - 1]["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        marked = {**blocks[-1], "cache_control": {"type": "ephemeral"}}
        messages[number - 1] = {**messages[number - 1], "content": [*blocks[:-1], marked]}
