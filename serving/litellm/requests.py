"""Request bodies: chat through LiteLLM's parameter map, tokens to a vLLM server's `/v1/completions`."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ...core.errors import CapabilityMissing, UserError
from ...core.messages import TOOL_CHOICE_AUTO, TOOL_CHOICE_REQUIRED, Frozen, Prompt, Request, SamplingParams
from ..logits_processors import make_logits_processors
from ..metered.model import conversation_bytes
from ..model import Capabilities
from .providers import VLLM_ONLY, Target, load_litellm
from .vllm_server import messages_of


def sample_seed(seed: int, index: int) -> int:
    """The seed that a provider is given for a sample, below 2^31 for indices below 2^20.

    Consecutive indices get consecutive seeds, since a vLLM server gives the samples of one request the seeds s, s + 1,
    …; the runs' own seeds are hashed, so that those of two runs do not overlap.
    """
    spread = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "big") >> 2
    return spread + index


def consecutive(indices: Sequence[int]) -> list[tuple[int, ...]]:
    """The indices split into runs of neighbours, each of which can be one request."""
    if len(indices) == 1:
        return [tuple(indices)]
    cuts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(indices)) if b != a + 1), len(indices)]
    return [tuple(indices[start:stop]) for start, stop in pairwise(cuts) if start < stop]


class RequestTraits(Frozen):
    """How a model takes requests, in addition to its capabilities.

    Attributes:
        multi_sample: Whether one request can have n samples; on vLLM it was also measured that sample i of a request
            with seed s is the sample of seed s + i.
        vllm: Whether vLLM's own fields work: prefixes, token ids, top_k, ignore_eos.
        tokenizer: Whether `/tokenize` works, so that prompts can be sent as tokens.
        prefill: Whether a last message of the assistant is continued (documented, for other providers).
        wants_usage: Whether to request the usage in the stream.
        reports: Whether the server returns reports of logits processors (`serving/vllm/endpoint.py`).
        frame_tokens: Maximum tokens that the chat template adds to one short message; a longer prompt may need the
            exact count to decide whether it fits. 0 if unknown.
    """

    multi_sample: bool = False
    vllm: bool = False
    tokenizer: bool = False
    prefill: bool = False
    wants_usage: bool = True
    reports: bool = False
    frame_tokens: int = 0


def check_request(request: Request, target: Target, can: Capabilities, traits: RequestTraits) -> None:
    """Refuse what the model cannot do, before anything is sent.

    Raises:
        CapabilityMissing: The request needs what this model lacks.
        UserError: The samples' indices are out of range, or a logits processor does not take its arguments.
    """
    sampling, prompt = request.sampling, request.prompt
    held = sampling.json_schema is not None
    if any(not 0 <= i < 1 << 20 for i in request.indices):
        raise UserError("a sample's index must be between 0 and 1048575")
    lacks = [
        *((f"logits processor {p.name}", p.name not in can.logits_processors) for p in sampling.logits_processors),
        (f"top_logprobs={sampling.top_logprobs}", sampling.top_logprobs > can.top_logprobs),
        ("json_schema", held and not can.json_schema),
        ("top_logprobs with json_schema", held and sampling.top_logprobs > 0),
        # a provider may put the schema's JSON into a call of a tool, which nothing can stand before
        ("prefix with json_schema", held and bool(prompt.prefix) and not traits.vllm),
        ("prefix", bool(prompt.prefix) and not can.prefix),
        ("tools", bool(prompt.tools) and not can.tools),
        (
            f"tool_choice={prompt.tool_choice}",
            prompt.tool_choice != TOOL_CHOICE_AUTO and not _takes(target, "tool_choice"),
        ),
        # what is sent as tokens is no chat to the server, which then reads no calls
        ("tools with raw tokens", bool(prompt.tools) and by_tokens(prompt, traits)),
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
    make_logits_processors(sampling.logits_processors, target.name)


def _takes(target: Target, parameter: str) -> bool:
    return parameter in target.parameters


def by_tokens(prompt: Prompt, traits: RequestTraits) -> bool:
    """Whether a prompt must be sent as tokens.

    Raw text and token prefixes must be; so must a text prefix with white space at its ends, which chat templates strip.
    """
    if not traits.tokenizer:
        return False
    prefix = prompt.prefix
    return prompt.text is not None or not isinstance(prefix, str) or prefix != prefix.strip()


def may_not_fit(request: Request, can: Capabilities, traits: RequestTraits) -> bool:
    """Whether a prompt has so many bytes that only its exact count can decide whether it fits the context.

    No tokenizer makes more tokens of a text than it has bytes.
    """
    if can.context_tokens is None or not traits.tokenizer:
        return False
    prompt = request.prompt
    prefix = prompt.prefix if isinstance(prompt.prefix, str) else ""
    upper_bound = conversation_bytes(prompt) + len(prefix.encode()) + traits.frame_tokens * (len(prompt.messages) + 1)
    return upper_bound + request.sampling.max_tokens > can.context_tokens


def chat_body(
    request: Request,
    indices: tuple[int, ...],
    target: Target,
    can: Capabilities,
    traits: RequestTraits,
    report: str = "",
) -> Any:
    """Arguments of `litellm.acompletion` for some samples of a request, without those of the connection.

    Args:
        request: The request.
        indices: The samples; a single one if the request has logits processors.
        target: Its endpoint and model.
        can: What the model can do.
        traits: How it takes requests.
        report: Name under which the report of the logits processors is fetched; empty if it is not.
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


def shows_logprobs(sampling: SamplingParams) -> bool:
    """Whether to request log-probabilities: not under a schema, where servers return those of the masked distribution.

    vLLM computes them after its grammar's mask (seen with 0.32), so that they are not those of the raw distribution.
    """
    return sampling.json_schema is None and (sampling.logprobs or sampling.top_logprobs > 0)


def vllm_extra(
    sampling: SamplingParams, indices: tuple[int, ...], target: Target, report: str = "", salt: str = ""
) -> dict[str, Any]:
    """Fields of a request that only vLLM knows."""
    extra: dict[str, Any] = {"return_token_ids": True, "top_k": sampling.top_k, "ignore_eos": sampling.ignore_eos}
    extra |= vllm_server_fields(target, salt)
    if sampling.top_logprobs:
        extra["return_tokens_as_token_ids"] = True
    if sampling.json_schema is not None:
        extra["structured_outputs"] = {"json": sampling.json_schema}
    if sampling.logits_processors:
        calls = [p.model_dump(mode="json") for p in sampling.logits_processors]
        extra["vllm_xargs"] = {"reason": json.dumps({"id": report, "sample": indices[0], "logits_processors": calls})}
    return extra


def vllm_server_fields(target: Target, salt: str = "") -> dict[str, Any]:
    """Cache salt and priority of a request, where the settings or the run have them.

    Neither changes the samples, so neither is part of a request, of a model's identity or of the run store's keys.

    Args:
        target: The endpoint; only vLLM servers receive these fields.
        salt: The run's (`Prompt.cache_salt`). If the settings have one too, a hash of both is sent, so that programs
            that share a server share nothing of their tenants' prompts.
    """
    fields = {name: value for name in VLLM_ONLY if (value := getattr(target.settings, name)) is not None}
    if salt and target.vllm:
        own = fields.get("cache_salt")
        fields["cache_salt"] = salt if own is None else _sum(own, salt)
    return fields


def _sum(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


def _tools(prompt: Prompt, target: Target) -> dict[str, Any]:
    """A prompt's tools and its tool choice, in OpenAI's form."""
    body: dict[str, Any] = {"tools": [tool.as_openai() for tool in prompt.tools]}
    choice: Any = prompt.tool_choice
    if choice not in (TOOL_CHOICE_AUTO, TOOL_CHOICE_REQUIRED):
        choice = {"type": "function", "function": {"name": choice}}
    if choice != TOOL_CHOICE_AUTO or _takes(target, "tool_choice"):
        body["tool_choice"] = choice
    return body


def _sampling(sampling: SamplingParams, indices: tuple[int, ...], target: Target) -> dict[str, Any]:
    body: dict[str, Any] = {"max_tokens": sampling.max_tokens}
    # what is not generated is the provider's default, which need not be ours
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


MAX_CACHED_MAPPINGS = 256
"""Sets of parameters that are remembered."""
MAX_MAPPING_KEY_CHARS = 1 << 16
"""Characters of the longest one: tools and schemas may be long, and belong to a caller."""


class ParameterMap:
    """The JSON that LiteLLM would send to a provider in OpenAI's format, from the arguments of `litellm.acompletion`.

    LiteLLM's decisions on the model and its parameters (`max_completion_tokens` instead of `max_tokens`, values that a
    model refuses) are the same for every request with these parameters, whatever the seed, so they are computed once.
    Its transformation of messages depends only on their roles and fields, since their contents are plain text: where it
    leaves them unchanged, it is not called again for these.
    """

    def __init__(self, target: Target) -> None:
        from litellm.types.utils import LlmProviders
        from litellm.utils import ProviderConfigManager

        self._litellm = load_litellm()
        self._target = target
        self._config: Any = ProviderConfigManager.get_provider_chat_config(
            model=target.served, provider=LlmProviders(target.provider)
        )
        self._sets: dict[object, dict[str, Any]] = {}
        self._plain: set[object] = set()

    def chat(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON of a chat request.

        Args:
            body: Messages, parameters and `extra_body`, as `litellm.acompletion` takes them.

        Raises:
            litellm.UnsupportedParamsError: The model does not take one of the parameters.
        """
        named = {k: v for k, v in body.items() if k not in ("messages", "extra_body", "seed")}
        seed = body.get("seed")
        key = (seed is None, *((k, _hashable(v)) for k, v in named.items()))
        mapped = self._sets.get(key)
        if mapped is None:
            mapped = self._ask(named if seed is None else {**named, "seed": seed})
            if sum(len(str(part)) for part in key) <= MAX_MAPPING_KEY_CHARS:
                if len(self._sets) >= MAX_CACHED_MAPPINGS:
                    del self._sets[next(iter(self._sets))]
                self._sets[key] = mapped
        messages = body["messages"]
        body_json = {"model": self._target.served, "messages": messages, **mapped}
        if seed is not None:
            body_json["seed"] = seed
        form = None
        if key in self._sets:
            form = (key, *((m["role"], tuple(m), m.get("content") is None) for m in messages))
        if form is None or form not in self._plain:
            transformed = self._transform(
                messages, {k: v for k, v in body_json.items() if k not in ("model", "messages")}
            )
            if form is not None and transformed == body_json:
                self._plain = {*self._plain, form} if len(self._plain) < MAX_CACHED_MAPPINGS else {form}
            body_json = transformed
        body_json.update(body.get("extra_body") or {})
        return body_json

    def _transform(self, messages: Any, optional: dict[str, Any]) -> dict[str, Any]:
        transformed: dict[str, Any] = self._config.transform_request(
            model=self._target.served,
            messages=copy.deepcopy(messages),
            optional_params=optional,
            litellm_params={},
            headers={},
        )
        return transformed

    def _ask(self, named: Mapping[str, Any]) -> dict[str, Any]:
        mapped: dict[str, Any] = self._litellm.get_optional_params(
            model=self._target.served, custom_llm_provider=self._target.provider, drop_params=False, **named
        )
        mapped.update(mapped.pop("extra_body", None) or {})
        return mapped


def _hashable(value: Any) -> object:
    """A parameter's value as part of a key; the order of a schema's properties matters."""
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
