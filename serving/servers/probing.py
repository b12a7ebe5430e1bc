"""Capabilities of a server, measured by requests with a visible effect.

Servers ignore fields that they do not know, so an accepted request proves nothing; each probe checks the response.
Probes are short, and those that do not depend on one another are sent at the same time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from pydantic import JsonValue

from ...core.errors import BackendError, BackendUnavailable, CapabilityMissing, UnknownName, UserError
from ...core.messages import (
    EFFORTS,
    Completion,
    Effort,
    LogitsProcessorSpec,
    Prompt,
    Request,
    SamplingParams,
    ScoredContinuation,
    Usage,
)
from ...core.registry import nearest
from ..litellm.factory import MAX_TOP_LOGPROBS
from ..litellm.model import LiteLLMModel
from ..litellm.profiles import MAP_SOURCE
from ..litellm.providers import Target
from ..litellm.requests import RequestTraits, measuring_params
from ..litellm.responses import StreamedSample, split_usage
from ..logits_processors import logits_processor_names
from ..model import Capabilities
from ..profiles.profile import ModelProfile, Parameter, quick_sampling
from ..structured_output import TRIAL_SCHEMA, TRIAL_TOKENS, is_trial
from ..template_profiles import RENDERS, profile_of_renders
from ..thoughts import COMMON_TAGS
from ..tool_calls import TRIAL_TOOL
from .model import ServerModel
from .pages import detokenize, list_server_processors, tokenize_messages, tokenize_text

T = TypeVar("T")

TOKENS = 6
SEED = 20
MAX_RETRIES = 2
"""Maximum retries of one probe."""


async def _working_processors(model: MeasuredModel, prompt: Prompt, listed: frozenset[str]) -> frozenset[str]:
    """The logits processors that both sides have, if a request with one of ours shows its effect."""
    known = logits_processor_names() & listed
    if "only_tokens" not in known:
        return frozenset()
    ids, _ = await model.retried(lambda: model.ids_of(prompt))
    only = LogitsProcessorSpec(name="only_tokens", args={"ids": [ids[-1]]})  # no model repeats it of its own accord
    sampling = SamplingParams(max_tokens=TOKENS, seed=SEED, logits_processors=(only,), ignore_eos=True)
    completion = await _completion(model, Request(prompt=prompt, sampling=sampling))
    return known if completion is not None and completion.token_ids == (ids[-1],) * TOKENS else frozenset()


PROMPT = Prompt.user("Write a word.", prefix="The word is")

HARMONY_STARTS = ("<|channel|>analysis", "analysis")
"""Beginnings of a text in harmony's channels, with and without special tokens."""


class MeasuredModel(ServerModel):
    """A model that is measured.

    Args:
        model: The model, whose connection is used.
        spent: Gets the usage of each response.
    """

    def __init__(self, model: ServerModel, spent: list[Usage]) -> None:
        super().__init__(
            model.target, model.wire, model.capabilities, model.traits, model.prices, model.limiter, model.identity
        )
        self._retrying = replace(self._retrying, max_retries=min(self._retrying.max_retries, MAX_RETRIES))
        self._spent = spent

    async def _completed(self, sample: StreamedSample, usage: Usage, request: Request) -> Completion:
        self._spent.append(usage)
        return await super()._completed(sample, usage, request)

    async def raw_sample(self, request: Request) -> tuple[StreamedSample, Any]:
        sample, usage = await super().raw_sample(request)
        self._spent += split_usage(usage, [sample], self.prices, self.target, 0.0)
        return sample, usage

    async def score(self, prompt: Prompt, continuations: Sequence[str | tuple[int, ...]]) -> list[ScoredContinuation]:
        scored = await super().score(prompt, continuations)
        self._spent += [one.usage for one in scored]
        return scored


Build = Callable[[Capabilities, RequestTraits], MeasuredModel]
WithMeasured = Callable[[Mapping[str, JsonValue]], ModelProfile]


async def list_served_models(model: LiteLLMModel) -> list[dict[str, Any]]:
    """The models that the server lists under `/models`; empty if it has no such page."""
    try:
        response, _ = await model.retried(lambda: model.wire.http.get_json("/models"))
    except UnknownName:  # no such page
        return []
    return [dict(m) for m in response.get("data") or ()] if isinstance(response, dict) else []


def find_served_model(listed: list[dict[str, Any]], target: Target) -> dict[str, Any]:
    """The entry of the target's model."""
    names = [str(m.get("id")) for m in listed]
    if target.provider == "ollama" and f"{target.served}:latest" in names:  # Ollama's default tag
        return listed[names.index(f"{target.served}:latest")]
    if target.served not in names:
        prefix = target.name.removesuffix(target.served)
        near = tuple(prefix + n for n in nearest(target.served, names))
        served = ", ".join(names[:5]) or "nothing"
        raise UnknownName("model", target.name, near, hint=f"{target.endpoint} serves: {served}")
    return listed[names.index(target.served)]


async def probe_capabilities(
    build: Build, with_measured: WithMeasured, context_tokens: int | None, vllm: bool
) -> tuple[Capabilities, RequestTraits, Mapping[str, JsonValue]]:
    """Capabilities of the model at a server, how it takes requests, and the measured fields of its profile.

    Args:
        build: Makes the model with given capabilities; its connection is shared.
        with_measured: The profile with what was measured.
        context_tokens: Context length, if the server reported it.
        vllm: Whether it may know vLLM's own fields.
    """
    traits = RequestTraits(vllm=vllm, tokenizer=vllm and await _has_tokenizer(build))
    measured = await measure_profile(build, with_measured, traits)
    profile = with_measured(measured)
    prompt = PROMPT if traits.tokenizer or (vllm and not profile.can_think) else PROMPT.with_prefix("")
    can = Capabilities(
        prefix=bool(prompt.prefix),
        context_tokens=context_tokens,
        logits_processors=frozenset(),
        inputs=profile.inputs,
        profile=profile,
    )
    model = build(can, traits)
    (
        (can, traits, pair),
        [[zeroth, second]],
        has_schemas,
        has_tools,
        has_priorities,
        scores,
        listed,
        counted,
    ) = await model.gather(
        [
            partial(_sampled_pair, build, can, traits, prompt),
            lambda: model.generate([_request(prompt, profile, top=0, n=2)]),
            partial(_constrains_json, build, can, traits),
            partial(_shows_tools, model),
            partial(_takes_priorities, build, can, traits, prompt),
            partial(_scores, build, can, traits),
            partial(_listed, model),
            partial(_counted, model, prompt),
        ]
    )
    first, is_seeded = pair[0], _same(pair[0], zeroth)
    can = can.model_copy(update={"seed": is_seeded, "json_schema": has_schemas, "tools": has_tools})
    if not vllm:
        return can, traits, measured
    # with seeds that follow one another, the second sample of one request is the sample of the next seed
    many = traits.multi_sample and is_seeded and _same(pair[1], second)
    traits = traits.model_copy(
        update={
            "multi_sample": many,
            "reports": listed is not None,
            "frame_tokens": counted or 0,
            "priorities": has_priorities,
        }
    )
    working: frozenset[str] = frozenset()
    if traits.tokenizer and listed is not None:
        able = build(can.model_copy(update={"logits_processors": logits_processor_names()}), traits)
        working = await _working_processors(able, prompt, listed)
    is_exact = counted is not None and counted == first.usage.prompt_tokens
    if not is_exact and profile.prefix != "none":
        measured |= {"prefix": "none"}
        profile = with_measured(measured)
    has_prefix = is_exact and profile.prefix != "none"
    can = can.model_copy(
        update={
            "prefix": has_prefix,
            "token_prompts": traits.tokenizer,
            "scoring": scores and profile.prefix != "none",
            "logits_processors": working,
            "full_vocabulary": "entropy_probe" in working and can.top_logprobs > 0,
            "profile": profile,
        }
    )
    return can, traits, measured


async def _sampled_pair(
    build: Build, can: Capabilities, traits: RequestTraits, prompt: Prompt
) -> tuple[Capabilities, RequestTraits, list[Completion]]:
    """Two samples with log-probabilities of one request, and what the server has shown with them."""
    profile = can.profile
    is_refused = profile.refused("logprobs", thinking=not profile.can_skip_thinking)
    attempts = [(top, 2) for top in (() if is_refused else (MAX_TOP_LOGPROBS, 5))] + [(0, 2), (0, 1)]
    for top, n in attempts:
        able = can.model_copy(update={"logprobs": top > 0, "top_logprobs": MAX_TOP_LOGPROBS})
        model = build(able, traits.model_copy(update={"multi_sample": n > 1}))
        try:
            [pair] = await model.generate([_request(prompt, profile, top=top, n=2)])
        except (BackendError, CapabilityMissing):
            if (top, n) == attempts[-1]:
                raise
            continue
        break
    has_logprobs = pair[0].logprobs is not None
    has_top = has_logprobs and pair[0].top_logprobs and any(pair[0].top_logprobs)
    many = model.traits.multi_sample and all(completion.ok for completion in pair)
    return (
        can.model_copy(update={"logprobs": has_logprobs, "top_logprobs": top if has_top else 0}),
        traits.model_copy(update={"multi_sample": many}),
        pair,
    )


async def measure_profile(build: Build, with_measured: WithMeasured, traits: RequestTraits) -> dict[str, JsonValue]:
    """The fields of a profile that a server shows: how its template treats thoughts, and how a response shows them."""
    measured: dict[str, JsonValue] = {}

    def model() -> MeasuredModel:
        return build(Capabilities(profile=with_measured(measured)), traits)

    if traits.tokenizer:
        measured |= await _template_fields(model())
    has_tags = bool(measured) or with_measured(measured).can_think
    measured |= await _shown_fields(model())
    profile = with_measured(measured)
    if traits.tokenizer:
        if not profile.can_think:
            measured["prefix"] = "answer"
        else:
            tags_known = has_tags or profile.thought == "tags" or await _is_one_token(model(), profile.close_tag)
            measured["prefix"] = "thought" if tags_known else "none"
    if not traits.vllm:
        measured |= await _refusals(model())
    return measured


async def _template_fields(model: MeasuredModel) -> dict[str, JsonValue]:
    """What the chat template shows, rendered by the server with and without the usual arguments."""
    client, served = model.wire.http, model.target.served
    messages = [{"role": "user", "content": PROMPT.messages[0].content}]
    texts: dict[tuple[int, ...], str] = {}
    renders: dict[str, str] = {}
    for name, arguments in RENDERS.items():
        try:
            ids, _ = await model.retried(partial(tokenize_messages, client, served, messages, (), arguments))
            key = tuple(ids)
            if key not in texts:
                texts[key], _ = await model.retried(partial(detokenize, client, served, ids))
        except (BackendError, UnknownName):
            continue
        renders[name] = texts[key]
    return profile_of_renders(renders) if "default" in renders else {}


async def _shown_fields(model: MeasuredModel) -> dict[str, JsonValue]:
    """How a response shows a thought, and when, as far as the profile so far does not say."""
    profile = model.capabilities.profile
    shown = await _shown_thought(model, None)
    if shown is not None:
        if profile.thinks in ("default", "always"):
            return shown
        skips = bool(profile.efforts.get("none")) and await _shown_thought(model, "none") is None
        return {"thinks": "default" if skips else "always", **shown}
    if profile.thinks == "opt-in":
        effort = next((e for e in EFFORTS[1:] if e in profile.efforts), None)
        try:
            shown = await _shown_thought(model, effort)
        except (BackendError, CapabilityMissing):
            shown = None
        if shown is None and profile.sources.get("thinks") == MAP_SOURCE:
            return {"thinks": "never"}  # the map does not know the self-hosted servers
    if shown is None and profile.opened_by_template and profile.thought == "tags":
        return {"refuses_while_thinking": ["json_schema"]}  # a grammar would apply to the thought
    return shown or {}


async def _shown_thought(model: MeasuredModel, effort: Effort | None) -> dict[str, JsonValue] | None:
    """How the beginning of a response shows a thought; None if it does not."""
    profile = model.capabilities.profile
    sampling = SamplingParams(max_tokens=TOKENS, seed=SEED, effort=effort, thinking_tokens=0)
    sample, usage = await model.raw_sample(Request(prompt=PROMPT.with_prefix(""), sampling=sampling))
    if sample.thought:
        return {} if profile.thought == "channel" else {"thought": "field"}
    tags = next((tags for tags in COMMON_TAGS if sample.text.lstrip().startswith(tags[0].strip())), None)
    if tags is not None:
        own = profile.can_think and profile.open_tag.strip() == tags[0].strip()
        written: dict[str, JsonValue] = {} if own else {"open_tag": tags[0], "close_tag": tags[1]}
        # a grammar would apply to the thought, which is text to the server
        return {"thought": "tags", "refuses_while_thinking": ["json_schema"], **written}
    if sample.text.lstrip().startswith(HARMONY_STARTS):
        return {"thought": "channel", "refuses_while_thinking": ["json_schema"]}
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    if not sample.text and isinstance(details, dict) and details.get("reasoning_tokens"):
        return {"thought": "hidden"}
    return None


async def _is_one_token(model: MeasuredModel, tag: str) -> bool:
    """Whether the server's tokenizer has a token for a tag, so that the model writes it."""
    text = tag.strip()
    ids, _ = await model.retried(partial(tokenize_text, model.wire.http, model.target.served, text, special=False))
    return len(ids) == 1


async def _refusals(model: MeasuredModel) -> dict[str, JsonValue]:
    """The sampling parameters that a server refuses, with a thought and without."""
    profile = model.capabilities.profile
    trials: dict[Parameter, dict[str, Any]] = {
        "temperature": {"temperature": 0.7},
        "top_p": {"top_p": 0.9},
        "stop": {"stop": ("\n\n\n",)},
    }
    always, while_thinking = set(profile.refuses), set(profile.refuses_while_thinking)
    thinks = profile.starts_thinking(PROMPT.with_prefix(""), None)
    trials = {name: trial for name, trial in trials.items() if not profile.refused(name, thinking=thinks)}
    if thinks:
        trials.pop("stop", None)  # it is never sent to a model that thinks
    everything = {name: value for trial in trials.values() for name, value in trial.items()}
    both_refused = profile.refused("temperature_with_top_p", thinking=thinks)
    if not everything or (not both_refused and await _accepts(model, everything, None)):
        return {}
    for name, trial in trials.items():
        if await _accepts(model, trial, None):
            continue
        skips = thinks and "none" in profile.efforts and await _accepts(model, trial, "none")
        (while_thinking if skips else always).add(name)
    return {
        "refuses": [*sorted(always)],
        "refuses_while_thinking": [*sorted(while_thinking)],
    }


async def _accepts(model: MeasuredModel, params: Mapping[str, Any], effort: Effort | None) -> bool:
    sampling = SamplingParams(**params, max_tokens=1, effort=effort, thinking_tokens=0)
    try:
        await model.raw_sample(Request(prompt=PROMPT.with_prefix(""), sampling=sampling))
    except BackendUnavailable:
        raise
    except (BackendError, CapabilityMissing, UserError):
        return False
    return True


def _request(prompt: Prompt, profile: ModelProfile, *, top: int, n: int) -> Request:
    return Request(
        prompt=prompt,
        sampling=measuring_params(profile, max_tokens=TOKENS, n=n, seed=SEED, top_logprobs=top, logprobs=top > 0),
    )


def _same(a: Completion, b: Completion) -> bool:
    """Whether two samples are equal; an empty one proves nothing."""
    thoughts = [c.thought.text if c.thought is not None else "" for c in (a, b)]
    return (
        a.ok
        and b.ok
        and (a.text, a.token_ids, thoughts[0]) == (b.text, b.token_ids, thoughts[1])
        and bool(a.text or a.token_ids or thoughts[0])
    )


async def _tried(work: Awaitable[T]) -> T | None:
    """The result of work; None if the server does not support it."""
    try:
        return await work
    except (BackendError, CapabilityMissing, UserError):
        return None


async def _completion(model: MeasuredModel, request: Request) -> Completion | None:
    """One sample; None if the server refuses the request."""
    made = await _tried(model.generate([request]))
    return made[0][0] if made is not None and made[0][0].ok else None


async def _shows_tools(model: MeasuredModel) -> bool:
    """Whether tools become part of the prompt: it has more tokens with them.

    A server that counts no tokens, or the same for every prompt, is trusted if it takes them. Where the count of a
    prompt does not include its tools, a call of a trial tool shows them.
    """
    plain = PROMPT.with_prefix("")
    longer = Prompt.user(f"{PROMPT.messages[0].content} {' '.join(['Choose any.'] * 20)}")
    prompts = (plain, plain.model_copy(update={"tools": (TRIAL_TOOL,)}), longer)
    counts = await model.gather([partial(_prompt_tokens, model, prompt) for prompt in prompts])
    if any(count is None for count in counts):
        return False
    without, with_tools, of_longer = counts
    if with_tools > without or of_longer == without:
        return True
    asked = Prompt.user('Look up the word "tea".').model_copy(
        update={"tools": (TRIAL_TOOL,), "tool_choice": "required"}
    )
    sampling = quick_sampling(model.capabilities.profile, max_tokens=TRIAL_TOKENS, seed=SEED)
    sampled = await _tried(model.raw_sample(Request(prompt=asked, sampling=sampling)))
    return sampled is not None and bool(sampled[0].calls)


async def _prompt_tokens(model: MeasuredModel, prompt: Prompt) -> int | None:
    """Tokens of a prompt as the server counts them, 0 if it does not; None if it refuses the request."""
    sampled = await _tried(
        model.raw_sample(
            Request(prompt=prompt, sampling=SamplingParams(max_tokens=1, seed=SEED, thinking_tokens=0)),
        )
    )
    if sampled is None:
        return None
    usage = sampled[1] if isinstance(sampled[1], dict) else {}
    return int(usage.get("prompt_tokens") or 0)


async def _constrains_json(build: Build, can: Capabilities, traits: RequestTraits) -> bool:
    """Whether a text satisfies a schema that the prompt does not mention.

    Where a long thought would come first, a server that takes schemas is trusted. One that no text satisfies is never
    tried: servers have ended their engine over such schemas (vllm-project/vllm#4070).
    """
    able = build(can.model_copy(update={"json_schema": True}), traits)
    if can.profile.can_think and not can.profile.can_skip_thinking:
        is_refused = can.profile.refused("json_schema", thinking=True)
        return not is_refused and await _accepts(able, {"json_schema": TRIAL_SCHEMA}, None)
    # sampled blanks could fill all of the response, where a server's grammar leaves them free
    sampling = quick_sampling(can.profile, max_tokens=TRIAL_TOKENS, seed=SEED, json_schema=TRIAL_SCHEMA)
    if can.profile.can_think:
        sampling = sampling.model_copy(update={"thinking_tokens": 0})
    completion = await _completion(able, Request(prompt=PROMPT.with_prefix(""), sampling=sampling))
    return completion is not None and is_trial(completion.text)


async def _takes_priorities(build: Build, can: Capabilities, traits: RequestTraits, prompt: Prompt) -> bool:
    """Whether a request with a priority is served: servers with another scheduling policy refuse it."""
    if not traits.vllm:
        return False
    able = build(can, traits.model_copy(update={"priorities": True}))
    sampling = measuring_params(can.profile, max_tokens=1, seed=SEED)
    return await _completion(able, Request(prompt=prompt, sampling=sampling, priority=1)) is not None


async def _has_tokenizer(build: Build) -> bool:
    model = build(Capabilities(), RequestTraits())
    ids = await _tried(model.retried(lambda: model.ids_of(PROMPT)))
    return bool(ids and ids[0])


async def _scores(build: Build, can: Capabilities, traits: RequestTraits) -> bool:
    if not traits.tokenizer or can.profile.prefix == "none":
        return False
    able = build(can.model_copy(update={"scoring": True}), traits)
    scored = await _tried(able.score(PROMPT, [" a"]))
    return bool(scored and scored[0].logprobs)


async def _listed(model: MeasuredModel) -> frozenset[str] | None:
    """The logits processors that the server lists; None if it does not have our pages."""
    if not model.traits.vllm:
        return None
    listed = await _tried(model.retried(lambda: list_server_processors(model.wire.http)))
    return None if listed is None else listed[0]


async def _counted(model: MeasuredModel, prompt: Prompt) -> int | None:
    """Tokens of a prompt by the server's tokenizer; None without one."""
    return len(await model.ids_of(prompt)) if model.traits.tokenizer else None
