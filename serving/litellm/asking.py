"""From our `Request` to the body of a request: chat through LiteLLM, tokens to a vLLM server's `/v1/completions`."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ...core.errors import CapabilityMissing, UserError
from ...core.messages import Prompt, Request, Sampling
from ...core.tools import ALWAYS, FREE
from ..hooks import make_hooks
from ..meter import said_bytes
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
    held = sampling.json_schema is not None
    if any(not 0 <= i < 1 << 20 for i in request.indices):
        raise UserError("a sample's index must be between 0 and 1048575")
    lacks = [
        *((f"hook {h.name}", h.name not in can.hooks) for h in sampling.hooks),
        (f"top_logprobs={sampling.top_logprobs}", sampling.top_logprobs > can.top_logprobs),
        ("json_schema", held and not can.json_schema),
        ("top_logprobs beside json_schema", held and sampling.top_logprobs > 0),
        # a provider may put the schema's JSON into a call of a tool, which nothing can stand before
        ("prefix beside json_schema", held and bool(prompt.prefix) and not traits.vllm),
        ("prefix", bool(prompt.prefix) and not can.prefix),
        ("tools", bool(prompt.tools) and not can.tools),
        (f"tool_choice={prompt.tool_choice}", prompt.tool_choice != FREE and not _takes(target, "tool_choice")),
        # what is sent as tokens is no chat to the server, which then reads no calls
        ("tools beside raw tokens", bool(prompt.tools) and by_tokens(prompt, traits)),
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
    prefix = prompt.prefix if isinstance(prompt.prefix, str) else ""
    most = said_bytes(prompt) + len(prefix.encode()) + traits.frame_tokens * (len(prompt.messages) + 1)
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
    if prompt.tools:
        body |= _tools(prompt, target)
    if prompt.prefix:
        last: dict[str, Any] = {"role": "assistant", "content": prompt.prefix}
        if traits.vllm:
            extra |= {"continue_final_message": True, "add_generation_prompt": False}
        else:
            last["prefix"] = True
        messages.append(last)
    if sampling.json_schema is not None and not traits.vllm:
        named = {"name": "reply", "schema": sampling.json_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    if can.logprobs and shows_logprobs(sampling):
        body["logprobs"] = True
        if sampling.top_logprobs:
            body["top_logprobs"] = sampling.top_logprobs
    if traits.vllm:
        extra |= vllm_extra(sampling, indices, target, report, prompt.cache_salt)
    if extra:
        body["extra_body"] = extra
    return body


def completion_body(
    request: Request, indices: tuple[int, ...], ids: list[int], target: Target, report: str = ""
) -> Any:
    """Arguments of the client's `completions.create` for some samples of a request. Arguments as `chat_body`."""
    sampling = request.sampling
    extra = vllm_extra(sampling, indices, target, report, request.prompt.cache_salt)
    body: dict[str, Any] = {"prompt": ids, **_sampling(sampling, indices, target), "extra_body": extra}
    if shows_logprobs(sampling):
        body["logprobs"] = sampling.top_logprobs
    return body


def shows_logprobs(sampling: Sampling) -> bool:
    """Whether log-probabilities are asked for: not under a schema, where servers tell them of what it has left.

    vLLM's are computed behind its grammar's mask (seen with 0.32), so that they are not those of the raw distribution.
    """
    return sampling.json_schema is None and (sampling.logprobs or sampling.top_logprobs > 0)


def vllm_extra(
    sampling: Sampling, indices: tuple[int, ...], target: Target, report: str = "", salt: str = ""
) -> dict[str, Any]:
    """Fields of a request that only vLLM knows."""
    extra: dict[str, Any] = {"return_token_ids": True, "top_k": sampling.top_k, "ignore_eos": sampling.ignore_eos}
    extra |= placed(target, salt)
    if sampling.top_logprobs:
        extra["return_tokens_as_token_ids"] = True
    if sampling.json_schema is not None:
        extra["structured_outputs"] = {"json": sampling.json_schema}
    if sampling.hooks:
        calls = [h.model_dump(mode="json") for h in sampling.hooks]
        extra["vllm_xargs"] = {"reason": json.dumps({"id": report, "sample": indices[0], "hooks": calls})}
    return extra


def placed(target: Target, salt: str = "") -> dict[str, Any]:
    """Whose cache a request shares and how soon it is served, where the settings or the run say so.

    Neither changes what is said, so neither is part of a request, of a model's identity or of the run store's keys.

    Args:
        target: Where the request goes; no provider but vLLM's servers is told anything.
        salt: The run's (`Prompt.cache_salt`). Where the settings have one too, a sum of both is sent, so that programs
            that share a server share nothing of what their tenants ask.
    """
    told = {name: value for name in VLLM_ONLY if (value := getattr(target.settings, name)) is not None}
    if salt and target.vllm:
        own = told.get("cache_salt")
        told["cache_salt"] = salt if own is None else _sum(own, salt)
    return told


def _sum(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


def _tools(prompt: Prompt, target: Target) -> dict[str, Any]:
    """A prompt's tools and which of them is to be called, in OpenAI's form."""
    body: dict[str, Any] = {"tools": [tool.as_openai() for tool in prompt.tools]}
    choice: Any = prompt.tool_choice
    if choice not in (FREE, ALWAYS):
        choice = {"type": "function", "function": {"name": choice}}
    if choice != FREE or _takes(target, "tool_choice"):
        body["tool_choice"] = choice
    return body


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
