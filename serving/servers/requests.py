"""Request bodies of a vLLM server: vLLM's own fields of a chat request, and prompts of tokens to `/v1/completions`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import JsonValue

from ...core.messages import Prompt, Request
from ..litellm.prompt_cache import KEY_CHARS, prompt_start_key
from ..litellm.providers import Target
from ..litellm.requests import (
    RequestTraits,
    ThinkingMode,
    chat_body,
    max_response_tokens,
    sampling_fields,
    shows_logprobs,
    thinking_of,
)
from ..metered.model import conversation_bytes
from ..model import Capabilities
from ..profiles.profile import ModelProfile


def rendering_of(request: Request, profile: ModelProfile) -> ThinkingMode:
    """How a model thinks in the turn that a request continues: with a thought of the prompt, as when it is open."""
    thought = request.prompt.thought
    if thought is None or not (thought.text or thought.token_ids):
        return thinking_of(request, profile)
    opened = request.prompt.with_thought(thought.model_copy(update={"closed": False}))
    return thinking_of(request.model_copy(update={"prompt": opened}), profile)


def may_not_fit(request: Request, can: Capabilities, traits: RequestTraits) -> bool:
    """Whether a prompt has so many bytes that only its exact count can decide whether it fits the context.

    No tokenizer makes more tokens of a text than it has bytes.
    """
    if can.context_tokens is None or not traits.tokenizer:
        return False
    prompt = request.prompt
    prefix = prompt.prefix if isinstance(prompt.prefix, str) else ""
    upper_bound = conversation_bytes(prompt) + len(prefix.encode()) + traits.frame_tokens * (len(prompt.messages) + 1)
    return upper_bound + max_response_tokens(request, can.profile) > can.context_tokens


def server_chat_body(
    request: Request,
    indices: Sequence[int],
    target: Target,
    can: Capabilities,
    traits: RequestTraits,
    report: str = "",
) -> dict[str, Any]:
    """`chat_body` with what a server of one's own is sent; `report` is as in `completion_body`."""
    body = chat_body(request, indices, target, can, traits)
    if traits.vllm:
        body |= _vllm_fields(request, indices, target, traits, report, has_temperature="temperature" in body)
    return _with_session(body, target, request.prompt)


def completion_body(
    request: Request,
    indices: Sequence[int],
    ids: Sequence[int],
    target: Target,
    profile: ModelProfile,
    traits: RequestTraits,
    report: str = "",
) -> dict[str, Any]:
    """The JSON of a request to `/v1/completions` for some samples of a request, without its model.

    As in `chat_body`, `extra_headers` has the request's headers. Under the name `report` the server keeps the report of
    the logits processors; empty keeps none.
    """
    sampling = request.sampling
    body: dict[str, Any] = {"prompt": list(ids), **sampling_fields(request, indices, target, profile, traits)}
    body |= _vllm_fields(request, indices, target, traits, report, has_temperature="temperature" in body)
    if profile.can_think and request.prompt.text is None:
        body["skip_special_tokens"] = False  # tags and channels may be special tokens, and are read here
    if shows_logprobs(sampling):
        body["logprobs"] = sampling.top_logprobs
    return _with_session(body, target, request.prompt)


def template_arguments(profile: ModelProfile, thinking: ThinkingMode) -> dict[str, JsonValue]:
    """Arguments of the chat template for a request."""
    fields = profile.effort_fields(thinking.effort, thinking.max_tokens).get("chat_template_kwargs")
    return dict(fields) if isinstance(fields, dict) else {}


def _vllm_fields(
    request: Request,
    indices: Sequence[int],
    target: Target,
    traits: RequestTraits,
    report: str,
    *,
    has_temperature: bool,
) -> dict[str, Any]:
    """Fields of a request that only vLLM knows; without a temperature, `top_k` is the model's own as well."""
    sampling = request.sampling
    fields: dict[str, Any] = {"return_token_ids": True, "ignore_eos": sampling.ignore_eos}
    if sampling.top_k or has_temperature:
        fields["top_k"] = sampling.top_k
    fields |= salt_fields(target, request.prompt.cache_salt)
    if traits.priorities and request.priority:
        fields["priority"] = request.priority
    if sampling.top_logprobs:
        fields["return_tokens_as_token_ids"] = True
    if sampling.json_schema is not None:
        fields["structured_outputs"] = {"json": sampling.json_schema}
    if sampling.logits_processors:
        calls = [p.model_dump(mode="json") for p in sampling.logits_processors]
        fields["vllm_xargs"] = {"reason": json.dumps({"id": report, "sample": indices[0], "logits_processors": calls})}
    return fields


def salt_fields(target: Target, salt: str = "") -> dict[str, Any]:
    """Cache salt of a request to a vLLM server: that of the run (`Prompt.cache_salt`) or settings, or a hash of both.

    It does not change the samples, so it is no part of a request, of a model's identity or of the run store's keys.
    """
    salts = [one for one in (target.settings.cache_salt, salt) if one] if target.vllm else []
    if len(salts) > 1:  # programs that share a server share nothing of their tenants' prompts
        salts = [hashlib.sha256(json.dumps(salts).encode()).hexdigest()[:32]]
    return {"cache_salt": salts[0]} if salts else {}


def session_headers(target: Target, prompt: Prompt) -> dict[str, str]:
    """The header by which common routers of vLLM servers recognise requests that begin alike."""
    return {"X-Session-ID": prompt_start_key(prompt)[:KEY_CHARS]} if target.vllm else {}


def _with_session(body: dict[str, Any], target: Target, prompt: Prompt) -> dict[str, Any]:
    headers = session_headers(target, prompt)
    return body | {"extra_headers": headers} if headers else body
