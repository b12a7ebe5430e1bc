"""From our `Request` to the body of a request: chat through LiteLLM, tokens to a vLLM server's `/v1/completions`."""

from __future__ import annotations

import json
from typing import Any

from ...core.errors import CapabilityMissing, UserError
from ...core.messages import Prompt, Request, Sampling
from ..hooks import make_hooks
from ..model import Capabilities
from .seeds import sample_seed
from .target import VLLM_ONLY, Target
from .traits import Traits
from .vllm_server import messages_of


def check(request: Request, target: Target, can: Capabilities, traits: Traits) -> None:
    """Refuse what the model cannot do, before anything is sent.

    Raises:
        CapabilityMissing: The request needs what this model lacks.
        UserError: The samples' indices are out of range, or a hook does not take its arguments.
    """
    sampling, prompt = request.sampling, request.prompt
    if any(not 0 <= i < 1 << 20 for i in request.indices):
        raise UserError("a sample's index must be between 0 and 1048575")
    lacks = [
        *((f"hook {h.name}", h.name not in can.hooks) for h in sampling.hooks),
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
    make_hooks(sampling.hooks, target.name)


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


def may_not_fit(request: Request, can: Capabilities, traits: Traits) -> bool:
    """Whether a prompt has so many bytes that only its exact count can tell whether it fits the context.

    No tokenizer makes more tokens of a text than it has bytes.
    """
    if can.context_tokens is None or not traits.tokenizer:
        return False
    prompt = request.prompt
    texts = [*(m.content for m in prompt.messages), prompt.prefix if isinstance(prompt.prefix, str) else ""]
    most = sum(len(t.encode()) + traits.frame_tokens for t in texts)
    return most + request.sampling.max_tokens > can.context_tokens


def chat_body(
    request: Request,
    indices: tuple[int, ...],
    target: Target,
    can: Capabilities,
    traits: Traits,
    report: str = "",
) -> Any:
    """Arguments of `litellm.acompletion` for some samples of a request, without the connection's own.

    Args:
        request: The request.
        indices: The samples; a request with hooks is for one alone.
        target: Where it goes.
        can: What the model can do.
        traits: How it takes requests.
        report: Name under which the hooks' report will be fetched; empty if it will not.
    """
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
        extra |= vllm_extra(sampling, indices, target, report)
    if extra:
        body["extra_body"] = extra
    return body


def completion_body(
    request: Request, indices: tuple[int, ...], ids: list[int], target: Target, report: str = ""
) -> Any:
    """Arguments of the client's `completions.create` for some samples of a request. Arguments as `chat_body`."""
    sampling = request.sampling
    extra = vllm_extra(sampling, indices, target, report)
    body: dict[str, Any] = {"prompt": ids, **_sampling(sampling, indices, target), "extra_body": extra}
    if sampling.logprobs or sampling.top_logprobs:
        body["logprobs"] = sampling.top_logprobs
    return body


def vllm_extra(sampling: Sampling, indices: tuple[int, ...], target: Target, report: str = "") -> dict[str, Any]:
    """Fields of a request that only vLLM knows."""
    extra: dict[str, Any] = {"return_token_ids": True, "top_k": sampling.top_k, "ignore_eos": sampling.ignore_eos}
    extra |= placed(target)
    if sampling.top_logprobs:
        extra["return_tokens_as_token_ids"] = True
    if sampling.hooks:
        calls = [h.model_dump(mode="json") for h in sampling.hooks]
        extra["vllm_xargs"] = {"reason": json.dumps({"id": report, "sample": indices[0], "hooks": calls})}
    return extra


def placed(target: Target) -> dict[str, Any]:
    """Whose cache a request shares and how soon it is served, where the settings say so.

    Neither changes what is said, so neither is part of a request, of a model's identity or of the run store's keys.
    """
    return {name: value for name in VLLM_ONLY if (value := getattr(target.settings, name)) is not None}


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
