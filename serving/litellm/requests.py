"""Request bodies of chat, in the form of `litellm.acompletion` or OpenAI's, with the fields of the model's profile."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from pydantic import JsonValue

from ...core.errors import CapabilityMissing, UserError
from ...core.json_schema import OBJECT_SCHEMA, is_strict
from ...core.messages import (
    TOOL_CHOICE_AUTO,
    TOOL_CHOICE_REQUIRED,
    Effort,
    Frozen,
    Message,
    Prompt,
    Request,
    SamplingParams,
    Thought,
)
from ..logits_processors import make_logits_processors
from ..model import Capabilities
from ..profiles.profile import ModelProfile, check_sampling
from ..refusals import without_refused
from ..tool_calls import shorten_call_ids
from .prompt_cache import KEY_CHARS, prompt_start_key, with_marks
from .providers import Target, reasoning_series

MAX_STOPS = 4
"""Maximum stop strings of OpenAI's service; LiteLLM leaves out all further ones, whatever the provider."""


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
        reports: Whether the server returns reports of logits processors (`serving/vllm/endpoint.py`).
        priorities: Whether the server takes a priority of each request.
        frame_tokens: Maximum tokens that the chat template adds to one short message; a longer prompt may need the
            exact count to decide whether it fits. 0 if unknown.
        max_output_tokens: Maximum tokens of a response that the provider accepts as a limit; None if unknown.
    """

    multi_sample: bool = False
    vllm: bool = False
    tokenizer: bool = False
    reports: bool = False
    priorities: bool = False
    frame_tokens: int = 0
    max_output_tokens: int | None = None


class ThinkingMode(NamedTuple):
    """How a model thinks in one request.

    Attributes:
        is_on: Whether the response begins with a thought, or inside one.
        effort: The effort whose fields are sent; None sends none.
        max_tokens: Maximum tokens of the thought; 0 if that of the response is all there is.
    """

    is_on: bool = False
    effort: Effort | None = None
    max_tokens: int = 0


def thinking_of(request: Request, profile: ModelProfile) -> ThinkingMode:
    """How a model thinks in a request."""
    sampling, prompt = request.sampling, request.prompt
    if not profile.can_think:
        return ThinkingMode()
    effort = sampling.effort
    is_named = effort == "none" or profile.is_known
    off = ThinkingMode(effort="none" if is_named and "none" in profile.efforts else None)
    if not profile.starts_thinking(prompt, effort):
        return off
    if effort == "none" or (effort is None and profile.thinks == "opt-in"):  # the prompt has an open thought
        effort = next((e for e in ("medium", "high", "low") if e in profile.efforts), None)
    limit = profile.thinking_tokens(effort) if sampling.thinking_tokens is None else sampling.thinking_tokens
    # a thought shorter than the provider allows is none; nor is one begun in a turn whose signed thoughts are lost
    is_possible = not profile.thinking_budget or (
        limit >= profile.min_thinking_tokens and not _lacks_signed_thoughts(prompt, profile)
    )
    if prompt.tool_choice != TOOL_CHOICE_AUTO and profile.refused("tool_choice", thinking=True):
        is_possible = False
    if not is_possible and profile.can_skip_thinking and prompt.thought is None:
        return off
    return ThinkingMode(True, effort, limit)


def measuring_params(profile: ModelProfile, **params: Any) -> SamplingParams:
    """Parameters of a request that measures what follows a prompt: without a thought, unless one is open or must be."""
    skips = profile.can_think and profile.can_skip_thinking and profile.is_known
    return SamplingParams(effort="none" if skips else None, thinking_tokens=0 if profile.can_think else None, **params)


def _lacks_signed_thoughts(prompt: Prompt, profile: ModelProfile) -> bool:
    if profile.return_thoughts != "signed" or not prompt.messages or prompt.messages[-1].role != "tool":
        return False
    caller = next((m for m in reversed(prompt.messages) if m.role == "assistant"), None)
    return caller is not None and (caller.thought is None or not caller.thought.blocks)


def applied_stops(request: Request, profile: ModelProfile, thinking: ThinkingMode) -> tuple[str, ...]:
    """The stop strings that are applied to the answer here, since the provider refuses them or would end the thought.

    Those of a prompt with an open thought apply to the thought, and so are the server's.
    """
    stop = request.sampling.stop
    if not stop or (thinking.is_on and request.prompt.thought is not None):
        return ()
    is_blank = profile.refused("blank_stop", thinking=False) and not all(map(str.strip, stop))
    is_refused = is_blank or len(stop) > MAX_STOPS or profile.refused("stop", thinking=False)
    return stop if thinking.is_on or is_refused else ()


def check_request(request: Request, target: Target, can: Capabilities, traits: RequestTraits) -> None:
    """Refuse what the model cannot do, before anything is sent."""
    sampling, prompt, profile = request.sampling, request.prompt, can.profile
    held = sampling.json_schema is not None
    if any(not 0 <= i < 1 << 20 for i in request.indices):
        raise UserError("a sample's index must be between 0 and 1048575")
    thinking = thinking_of(request, profile)
    check_sampling(profile, target.name, sampling, thinking=thinking.is_on)
    tokens = by_tokens(request, profile, traits)
    attachments = [attachment for message in prompt.messages for attachment in message.attachments]
    lacks = [
        *((f"logits processor {p.name}", p.name not in can.logits_processors) for p in sampling.logits_processors),
        (f"top_logprobs={sampling.top_logprobs}", sampling.top_logprobs > can.top_logprobs),
        ("json_schema", held and not can.json_schema),
        ("top_logprobs with json_schema", held and sampling.top_logprobs > 0),
        # a provider may put the schema's JSON into a call of a tool, which nothing can stand before
        ("prefix with json_schema", held and bool(prompt.prefix) and not traits.vllm),
        ("prefix", bool(prompt.prefix) and not can.prefix),
        ("prefix", bool(prompt.prefix) and profile.refused("prefix", thinking=thinking.is_on)),
        ("thought in the prompt", prompt.thought is not None and not (tokens and profile.prefix == "thought")),
        *((f"{a.kind} input", a.kind not in can.inputs) for a in attachments),
        # a self-hosted server would open an address of the caller's choice, and so would LiteLLM in this process
        (
            "input by address",
            (target.is_own_server or not target.openai_wire) and any(a.url for a in attachments),
        ),
        ("input with raw tokens", bool(attachments) and tokens),
        ("tools", bool(prompt.tools) and not can.tools),
        (
            f"tool_choice={prompt.tool_choice}",
            prompt.tool_choice != TOOL_CHOICE_AUTO
            and ("tool_choice" not in target.parameters or profile.refused("tool_choice", thinking=thinking.is_on)),
        ),
        # a prompt sent as tokens is not a chat request, so the server would not parse tool calls
        ("tools with raw tokens", bool(prompt.tools) and tokens),
        ("prefix of token ids", not isinstance(prompt.prefix, str) and not traits.tokenizer),
        ("raw text prompts", prompt.text is not None and not traits.tokenizer),
        ("ignore_eos", sampling.ignore_eos and not traits.vllm),
        ("top_k", sampling.top_k > 0 and not (traits.vllm or "top_k" in target.parameters)),
    ]
    for feature, missing in lacks:
        if missing:
            raise CapabilityMissing(feature, target.name)
    make_logits_processors(sampling.logits_processors, target.name)


def by_tokens(request: Request, profile: ModelProfile, traits: RequestTraits) -> bool:
    """Whether a prompt is sent as tokens: raw text, prefixes and thoughts, and where only we can close a thought."""
    if not traits.tokenizer:
        return False
    prompt = request.prompt
    if prompt.text is not None or prompt.prefix or prompt.thought is not None:
        return True
    closes = profile.thinks in ("default", "always") and "none" not in profile.efforts
    return closes and not thinking_of(request, profile).is_on


def max_response_tokens(request: Request, profile: ModelProfile) -> int:
    """Maximum tokens of a sample that are sent: those of the answer, and of the thought where they count."""
    thinking = thinking_of(request, profile)
    if request.prompt.thought is not None and thinking.is_on and thinking.max_tokens == 1:
        return 1  # the next token of a thought, and no more
    thought = thinking.max_tokens if thinking.is_on and profile.cap_includes_thoughts else 0
    return request.sampling.max_tokens + thought


def messages_of(
    prompt: Prompt, profile: ModelProfile, *, thinking: bool = False, own_server: bool = False
) -> list[dict[str, Any]]:
    """A prompt's messages in OpenAI's form, without its prefix, with the thoughts that the model wants back.

    Args:
        thinking: Whether the model thinks in this request; signed thoughts are of no use to it otherwise.
        own_server: Whether a self-hosted server reads them, which also gets vLLM's name of the field.
    """
    messages = [_message(m) for m in prompt.messages]
    when = profile.return_thoughts
    for i, message in enumerate(prompt.messages):
        thought = message.thought or Thought(text="")
        if message.role != "assistant" or when == "never":
            continue
        if when == "signed" and thinking and thought.blocks:
            is_anthropic = all(str(block.get("type", "")).endswith("thinking") for block in thought.blocks)
            messages[i]["thinking_blocks" if is_anthropic else "reasoning_details"] = [dict(b) for b in thought.blocks]
        text = thought.text or (" " if thinking and not own_server else "")  # DeepSeek refuses a turn without any
        if when == "with-tools" and text and _is_tool_turn(prompt.messages, i):
            messages[i]["reasoning_content"] = text
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
        fields["content"] = _parts(message) if message.role == "user" else message.content or RESULT_FOLLOWS
    if message.tool_calls:
        fields["content"] = message.content or None
        fields["tool_calls"] = [call.as_openai() for call in message.tool_calls]
    if message.tool_call_id:
        fields["tool_call_id"] = message.tool_call_id
    if message.name:
        fields["name"] = message.name
    return fields


RESULT_FOLLOWS = "The result is in the next message of the user."


def with_result_attachments(sent: list[dict[str, Any]], prompt: Prompt) -> list[dict[str, Any]]:
    """The messages of a prompt with the images and PDFs of tool results in a message of the user that follows these.

    OpenAI's API takes only texts in results, and no other provider requires the images there.
    """
    complete: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for fields, message in zip((*sent, None), (*prompt.messages, None), strict=True):
        if parts and (message is None or message.role != "tool"):
            complete.append({"role": "user", "content": parts})
            parts = []
        if fields is not None and message is not None:
            complete.append(fields)
            if message.role == "tool" and message.attachments:
                label = {"type": "text", "text": f"Result of {message.name or 'a tool'} ({message.tool_call_id}):"}
                parts += [label, *(attachment.as_openai() for attachment in message.attachments)]
    return complete


def _parts(message: Message) -> list[dict[str, Any]]:
    """The texts and attachments of a message in order, without the line break that separates texts around one."""
    parts: list[dict[str, Any]] = []
    start = 0
    for attachment in (*message.attachments, None):
        position = None if attachment is None else attachment.position
        text = message.content[start:position].removeprefix("\n" if start else "")
        if text.strip():
            parts.append({"type": "text", "text": text})
        if attachment is not None:
            parts.append(attachment.as_openai())
            start = len(message.content) if position is None else max(start, position)
    return parts


def chat_body(
    request: Request,
    indices: Sequence[int],
    target: Target,
    can: Capabilities,
    traits: RequestTraits,
    marks: Sequence[int] = (),
) -> dict[str, Any]:
    """Arguments of `litellm.acompletion` for some samples of a request, without those of the connection.

    For an endpoint in OpenAI's format they may have fields that LiteLLM does not know (see `openai_body`); `marks` are
    the numbers of leading messages after which the provider caches the prompt.
    """
    sampling, prompt, profile = request.sampling, request.prompt, can.profile
    thinking = thinking_of(request, profile)
    messages = messages_of(prompt, profile, thinking=thinking.is_on, own_server=target.is_own_server)
    with_marks(messages, marks)
    if target.provider == "mistral":
        shorten_call_ids(messages)
    messages = with_result_attachments(messages, prompt)
    body: dict[str, Any] = {"messages": messages, **sampling_fields(request, indices, target, profile, traits)}
    if profile.prompt_cache == "key" and target.provider == "openai" and not target.is_own_server:
        body["prompt_cache_key"] = prompt_start_key(prompt)[:KEY_CHARS]
    if prompt.tools:
        body |= _tools(prompt, target)
    body |= profile.effort_fields(thinking.effort, thinking.max_tokens)
    if prompt.prefix:
        last: dict[str, Any] = {"role": "assistant", "content": prompt.prefix}
        if traits.vllm:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        else:
            last["prefix"] = True
        messages.append(last)
    if sampling.json_schema is not None and not traits.vllm:
        body["response_format"] = _response_format(sampling.json_schema)
    if can.logprobs and shows_logprobs(sampling) and not profile.refused("logprobs", thinking=thinking.is_on):
        body["logprobs"] = True
        if sampling.top_logprobs:
            body["top_logprobs"] = sampling.top_logprobs
    return without_refused(body, profile)


def _response_format(schema: dict[str, JsonValue]) -> dict[str, Any]:
    """A schema in OpenAI's form; any object has a type of its own, and strict mode takes few schemas."""
    if schema == OBJECT_SCHEMA:
        return {"type": "json_object"}
    named = {"name": "reply", "schema": schema, "strict": is_strict(schema)}
    return {"type": "json_schema", "json_schema": named}


def shows_logprobs(sampling: SamplingParams) -> bool:
    """Whether to request log-probabilities: not under a schema, where servers return those of the masked distribution.

    vLLM computes them after its grammar's mask (seen with 0.32), so that they are not those of the raw distribution.
    """
    return sampling.json_schema is None and (sampling.logprobs or sampling.top_logprobs > 0)


def _tools(prompt: Prompt, target: Target) -> dict[str, Any]:
    """A prompt's tools and its tool choice, in OpenAI's form."""
    body: dict[str, Any] = {"tools": [tool.as_openai() for tool in prompt.tools]}
    choice: Any = prompt.tool_choice
    if choice not in (TOOL_CHOICE_AUTO, TOOL_CHOICE_REQUIRED):
        choice = {"type": "function", "function": {"name": choice}}
    if choice != TOOL_CHOICE_AUTO or "tool_choice" in target.parameters:
        body["tool_choice"] = choice
    return body


def sampling_fields(
    request: Request, indices: Sequence[int], target: Target, profile: ModelProfile, traits: RequestTraits
) -> dict[str, Any]:
    """The sampling parameters; what is not sent is the model's own."""
    sampling = request.sampling
    thinking = thinking_of(request, profile)
    tokens = max_response_tokens(request, profile)
    body: dict[str, Any] = {
        "max_tokens": tokens if traits.max_output_tokens is None else min(tokens, traits.max_output_tokens)
    }
    temperature = profile.temperature(sampling, thinking=thinking.is_on)
    if temperature is not None:
        body["temperature"] = temperature
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    elif temperature is not None and traits.vllm and not profile.refused("top_p", thinking=thinking.is_on):
        body["top_p"] = 1.0  # not the model's own, which a server takes from the files
    if sampling.top_k and not traits.vllm:
        body["top_k"] = sampling.top_k
    if sampling.stop and not applied_stops(request, profile, thinking):
        body["stop"] = list(sampling.stop)
    if sampling.seed is not None and "seed" in target.parameters and profile.is_known:
        body["seed"] = sample_seed(sampling.seed, indices[0])
    if len(indices) > 1:
        body["n"] = len(indices)
    return body


def openai_body(body: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """The JSON of a chat request for an endpoint in OpenAI's format, from the arguments of `litellm.acompletion`.

    OpenAI's own service, and its models that reason wherever they are, limit tokens by `max_completion_tokens`;
    self-hosted servers seldom know that name.
    """
    sent = {k: v for k, v in body.items() if k != "extra_headers"}
    if "max_tokens" in sent and (target.api_base is None or reasoning_series(target.served)):
        sent["max_completion_tokens"] = sent.pop("max_tokens")
    return {"model": target.served, **sent}
