"""`TokenCounter`: the tokens of a prompt as exactly as its model lets them be known without generating anything.

By the model's own tokenizer, in this process or at a vLLM server; for Claude at Anthropic by its free endpoint
`/v1/messages/count_tokens`; otherwise, or where that fails, by an estimate.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from typing import Literal, NamedTuple

from ..core.errors import BackendError, InvalidResponse
from ..core.messages import Prompt
from .litellm.model import LiteLLMModel
from .litellm.providers import estimate_tokens, load_litellm
from .litellm.requests import messages_of, with_result_attachments
from .model import LanguageModel

MAX_SECONDS = 10.0
"""Maximum time of a count by a request, in seconds; it is not retried."""
MAX_CACHED = 256
"""Maximum counts by a request that are kept."""
MESSAGE_TOKENS = 4
"""Tokens that the estimate adds for each message and tool, about those of a chat template."""
ATTACHMENT_TOKENS = 1500
"""Tokens of an image or a PDF in the estimate: those of a large image of Claude's."""


class PromptCount(NamedTuple):
    """The tokens of a prompt.

    Attributes:
        method: By the model's tokenizer, by its provider, or an estimate.
        error: Why it is an estimate although tokenizer or provider could have counted; else empty.
    """

    tokens: int
    method: Literal["tokenizer", "provider", "estimate"]
    error: str = ""


class TokenCounter:
    """Counts prompts, and keeps the counts that took a request."""

    def __init__(self) -> None:
        self._counted: OrderedDict[str, PromptCount] = OrderedDict()

    async def count(self, model: LanguageModel, prompt: Prompt) -> PromptCount:
        """The tokens of a prompt with its tools, in the model's chat template."""
        counted = await asyncio.to_thread(model.count_tokens, prompt)
        if counted is not None:
            return PromptCount(counted, "tokenizer")
        if not isinstance(model, LiteLLMModel):
            return PromptCount(estimated_tokens(prompt), "estimate")
        key = hashlib.sha256(f"{model.identity}\n{prompt.model_dump_json()}".encode()).hexdigest()
        if key not in self._counted:
            try:
                made = await _count_by_request(model, prompt)
            except (BackendError, TimeoutError) as e:
                return PromptCount(estimated_tokens(prompt), "estimate", str(e) or f"no count in {MAX_SECONDS:g} s")
            if made is None:
                return PromptCount(estimated_tokens(prompt), "estimate")
            self._counted[key] = made
            if len(self._counted) > MAX_CACHED:
                self._counted.popitem(last=False)
        self._counted.move_to_end(key)
        return self._counted[key]


async def _count_by_request(model: LiteLLMModel, prompt: Prompt) -> PromptCount | None:
    """The tokens by a request to the model's server; None if it has no page for it.

    Raises:
        BackendError: The request failed.
        TimeoutError: It took too long.
    """
    ids_of = getattr(model, "ids_of", None) if model.traits.tokenizer else None  # of a server of one's own
    if ids_of is None and (model.target.provider != "anthropic" or prompt.text is not None):
        return None
    async with asyncio.timeout(MAX_SECONDS), model.limiter.slot():
        if ids_of is not None:
            return PromptCount(len(await ids_of(prompt)), "tokenizer")
        counted = await load_litellm().acount_tokens(
            model=model.target.name,
            messages=with_result_attachments(messages_of(prompt, model.capabilities.profile, thinking=True), prompt),
            tools=[tool.as_openai() for tool in prompt.tools] or None,
            api_key=model.target.api_key,
            api_base=model.target.api_base,
        )
    if counted.error or counted.tokenizer_type == "local_tokenizer":  # LiteLLM's own estimate after an error
        raise InvalidResponse(f"{model.target.endpoint} counted no tokens")
    return PromptCount(counted.total_tokens, "provider")


def estimated_tokens(prompt: Prompt) -> int:
    """About how many tokens a prompt has."""
    parts = [prompt.text or "", *(tool.model_dump_json() for tool in prompt.tools)]
    for message in prompt.messages:
        thought = "" if message.thought is None else message.thought.text
        parts += [message.content, thought, *(f"{call.name}{call.arguments}" for call in message.tool_calls)]
    attachments = sum(len(message.attachments) for message in prompt.messages)
    frames = MESSAGE_TOKENS * (len(prompt.messages) + len(prompt.tools))
    return sum(map(estimate_tokens, parts)) + frames + ATTACHMENT_TOKENS * attachments
