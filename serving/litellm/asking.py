"""From our `Request` to the body of a request: chat through LiteLLM, tokens to a vLLM server's `/v1/completions`."""

from __future__ import annotations

import json
from typing import Any

from ...core.errors import CapabilityMissing, UserError
from ...core.messages import Prompt, Request, Sampling
from ..model import Capabilities
from .seeds import sample_seed
from .target import Target
from .traits import Traits
from .vllm_server import messages_of


def check(request: Request, target: Target, can: Capabilities, traits: Traits) -> None:
    """Refuse what the model cannot do, before anything is sent.

    Raises:
        CapabilityMissing: The request needs what this model lacks.
        UserError: The samples' indices are out of range.
    """
    sampling, prompt = request.sampling, request.prompt
    if any(not 0 <= i < 1 << 20 for i in request.indices):
        raise UserError("a sample's index must be between 0 and 1048575")
    lacks = [
        ("hooks", bool(sampling.hooks) and not {h.name for h in sampling.hooks} <= can.hooks),
        (f"top_logprobs={sampling.top_logprobs}", sampling.top_logprobs > can.top_logprobs),
        ("prefix", bool(prompt.prefix) and not can.prefix),
        ("prefix of token ids", not isinstance(prompt.prefix, str) and not traits.tokenizer),
        ("raw text prompts", prompt.text is not None and not traits.tokenizer),
        ("ignore_eos", sampling.ignore_eos and not traits.vllm),
        ("top_k", sampling.top_k > 0 and not (traits.vllm or "top_k" in target.parameters)),
        ("stop", bool(sampling.stop) and not _takes(target, "stop")),
        ("temperature", sampling.temperature != 1.0 and not _takes(target, "temperature")),
        ("top_p", sampling.top_p != 1.0 and not _takes(target, "top_p")),
    ]
    for feature, missing in lacks:
        if missing:
            raise CapabilityMissing(feature, target.name)


def _takes(target: Target, parameter: str) -> bool:
    return parameter in target.parameters


def by_tokens(prompt: Prompt, traits: Traits) -> bool:
    """Whether a prompt must be sent as tokens.

    Raw text and token prefixes must; so must a text prefix with blanks at its ends, which chat templates strip.
    """
    if not traits.tokenizer:
        return False
    prefix = prompt.prefix
    return prompt.text is not None or not isinstance(prefix, str) or prefix != prefix.strip()


def chat_body(request: Request, indices: tuple[int, ...], target: Target, can: Capabilities, traits: Traits) -> Any:
    """Arguments of `litellm.acompletion` for some samples of a request, without the connection's own."""
    sampling, prompt = request.sampling, request.prompt
    messages = messages_of(prompt)
    body: dict[str, Any] = {"messages": messages, **_sampling(sampling, indices, target)}
    extra: dict[str, Any] = {}
    if prompt.prefix:
        last: dict[str, Any] = {"role": "assistant", "content": prompt.prefix}
        if traits.vllm:
            extra |= {"continue_final_message": True, "add_generation_prompt": False}
        else:
            last["prefix"] = True
        messages.append(last)
    if can.logprobs and (sampling.logprobs or sampling.top_logprobs):
        body["logprobs"] = True
        if sampling.top_logprobs:
            body["top_logprobs"] = sampling.top_logprobs
    if traits.vllm:
        extra |= vllm_extra(sampling)
    if extra:
        body["extra_body"] = extra
    return body


def completion_body(request: Request, indices: tuple[int, ...], ids: list[int], target: Target) -> Any:
    """Arguments of the client's `completions.create` for some samples of a request."""
    sampling = request.sampling
    body: dict[str, Any] = {"prompt": ids, **_sampling(sampling, indices, target), "extra_body": vllm_extra(sampling)}
    if sampling.logprobs or sampling.top_logprobs:
        body["logprobs"] = sampling.top_logprobs
    return body


def vllm_extra(sampling: Sampling) -> dict[str, Any]:
    """Fields of a request that only vLLM knows."""
    extra: dict[str, Any] = {"return_token_ids": True, "top_k": sampling.top_k, "ignore_eos": sampling.ignore_eos}
    if sampling.top_logprobs:
        extra["return_tokens_as_token_ids"] = True
    if sampling.hooks:
        calls = [h.model_dump(mode="json") for h in sampling.hooks]
        extra["vllm_xargs"] = {"reason": json.dumps({"hooks": calls})}
    return extra


def _sampling(sampling: Sampling, indices: tuple[int, ...], target: Target) -> dict[str, Any]:
    body: dict[str, Any] = {"max_tokens": sampling.max_tokens}
    # what is not said is the provider's default, which need not be ours
    if _takes(target, "temperature"):
        body["temperature"] = sampling.temperature
    if _takes(target, "top_p"):
        body["top_p"] = sampling.top_p
    if sampling.top_k and not target.vllm:
        body["top_k"] = sampling.top_k
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.seed is not None and _takes(target, "seed"):
        body["seed"] = sample_seed(sampling.seed, indices[0])
    if len(indices) > 1:
        body["n"] = len(indices)
    return body
