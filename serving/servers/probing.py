"""Capabilities of a server, measured by requests with a visible effect.

Servers ignore fields that they do not know, so an accepted request proves nothing; each probe checks the response.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from pydantic import JsonValue

from ...core.errors import BackendError, BackendUnavailable, CapabilityMissing, UnknownName, UserError
from ...core.messages import EFFORTS, Completion, Effort, LogitsProcessorSpec, Prompt, Request, SamplingParams
from ...core.registry import nearest
from ..litellm.factory import MAX_TOP_LOGPROBS
from ..litellm.model import LiteLLMModel
from ..litellm.profiles import MAP_SOURCE
from ..litellm.providers import Target
from ..litellm.requests import RequestTraits, measuring_params
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


async def _working_processors(model: ServerModel, prompt: Prompt, listed: frozenset[str]) -> frozenset[str]:
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

Build = Callable[[Capabilities, RequestTraits], ServerModel]
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
    if target.served not in names:
        prefix = target.name.removesuffix(target.served)
        near = tuple(prefix + n for n in nearest(target.served, names))
        served = ", ".join(names[:5]) or "nothing"
        raise UnknownName("model", target.name, near, hint=f"{target.endpoint} serves: {served}")
    return listed[names.index(target.served)]


async def probe_capabilities(
    build: Build, with_measured: WithMeasured, context_tokens: int | None, vllm: bool
) -> tuple[Capabilities, RequestTraits]:
    """Capabilities of the model at a server, and its profile.

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
        logprobs=True,
        top_logprobs=MAX_TOP_LOGPROBS,
        prefix=bool(prompt.prefix),
        context_tokens=context_tokens,
        logits_processors=frozenset(),
        inputs=profile.inputs,
        profile=profile,
    )
    refused = profile.refused("logprobs", thinking=not profile.can_skip_thinking)
    attempts = [(top, 2) for top in (() if refused else (MAX_TOP_LOGPROBS, 5))] + [(0, 2), (0, 1)]
    completions: list[Completion] = []
    top, several = 0, False
    for top, n in attempts:
        can = can.model_copy(update={"logprobs": top > 0})
        several = n > 1
        try:
            asker = build(can, traits.model_copy(update={"multi_sample": several}))
            [completions] = await asker.generate([_request(prompt, profile, top=top, n=2)])
            several = asker.traits.multi_sample
            break
        except (BackendError, CapabilityMissing):
            if (top, n) == attempts[-1]:
                raise
    first = completions[0]
    shown = first.logprobs is not None
    top = (top if first.top_logprobs and any(first.top_logprobs) else 0) if shown else 0
    many = several and all(r.ok for r in completions)
    can = can.model_copy(update={"logprobs": shown, "top_logprobs": top})
    single = build(can, traits)
    [[zeroth, second]] = await single.generate([_request(prompt, profile, top=0, n=2)])
    seeded = _same(first, zeroth)
    can = can.model_copy(update={"seed": seeded, "json_schema": await _constrains_json(build, can, traits)})
    can = can.model_copy(update={"tools": await _shows_tools(build, can, traits)})
    if vllm:
        # with seeds that follow one another, the second sample of one request is the sample of the next seed
        many = many and seeded and _same(completions[1], second)
        counted = len(await single.ids_of(prompt)) if traits.tokenizer else None
        listed = await _listed(single)
        traits = traits.model_copy(
            update={
                "reports": listed is not None,
                "frame_tokens": counted or 0,
                "priorities": await _takes_priorities(build, can, traits, prompt),
            }
        )
        working: frozenset[str] = frozenset()
        if traits.tokenizer and listed is not None:
            able = build(can.model_copy(update={"logits_processors": logits_processor_names()}), traits)
            working = await _working_processors(able, prompt, listed)
        exact = counted is not None and counted == first.usage.prompt_tokens
        if not exact and profile.prefix != "none":
            profile = with_measured({**measured, "prefix": "none"})
        can = can.model_copy(
            update={
                "prefix": exact and profile.prefix != "none",
                "scoring": traits.tokenizer and profile.prefix != "none" and await _scores(build, can, traits),
                "logits_processors": working,
                "full_vocabulary": "entropy_probe" in working and top > 0,
                "profile": profile,
            }
        )
    return can, traits.model_copy(update={"multi_sample": many})


async def measure_profile(build: Build, with_measured: WithMeasured, traits: RequestTraits) -> dict[str, JsonValue]:
    """The fields of a profile that a server shows: how its template treats thoughts, and how a response shows them."""
    measured: dict[str, JsonValue] = {}

    def model() -> ServerModel:
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


async def _template_fields(model: ServerModel) -> dict[str, JsonValue]:
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


async def _shown_fields(model: ServerModel) -> dict[str, JsonValue]:
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


async def _shown_thought(model: ServerModel, effort: Effort | None) -> dict[str, JsonValue] | None:
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


async def _is_one_token(model: ServerModel, tag: str) -> bool:
    """Whether the server's tokenizer has a token for a tag, so that the model writes it."""
    text = tag.strip()
    ids, _ = await model.retried(partial(tokenize_text, model.wire.http, model.target.served, text, special=False))
    return len(ids) == 1


async def _refusals(model: ServerModel) -> dict[str, JsonValue]:
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


async def _accepts(model: ServerModel, params: Mapping[str, Any], effort: Effort | None) -> bool:
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


async def _completion(model: ServerModel, request: Request) -> Completion | None:
    """One sample; None if the server refuses the request."""
    made = await _tried(model.generate([request]))
    return made[0][0] if made is not None and made[0][0].ok else None


async def _shows_tools(build: Build, can: Capabilities, traits: RequestTraits) -> bool:
    """Whether tools become part of the prompt: it has more tokens with them."""
    able = build(can.model_copy(update={"tools": True}), traits)
    prompt = PROMPT.with_prefix("")
    sampling = SamplingParams(max_tokens=1, seed=SEED, thinking_tokens=0)
    without = await _completion(able, Request(prompt=prompt, sampling=sampling))
    prompt = prompt.model_copy(update={"tools": (TRIAL_TOOL,)})
    with_tools = await _completion(able, Request(prompt=prompt, sampling=sampling))
    if without is None or with_tools is None:
        return False
    return with_tools.usage.prompt_tokens > without.usage.prompt_tokens > 0


async def _constrains_json(build: Build, can: Capabilities, traits: RequestTraits) -> bool:
    """Whether a text satisfies a schema that the prompt does not mention."""
    able = build(can.model_copy(update={"json_schema": True}), traits)
    # sampled blanks could fill all of the response, where a server's grammar leaves them free
    sampling = quick_sampling(can.profile, max_tokens=TRIAL_TOKENS, seed=SEED, json_schema=TRIAL_SCHEMA)
    if can.profile.can_think and can.profile.can_skip_thinking:
        sampling = sampling.model_copy(update={"thinking_tokens": 0})
    completion = await _completion(able, Request(prompt=PROMPT.with_prefix(""), sampling=sampling))
    return completion is not None and is_trial(completion.text)


async def _takes_priorities(build: Build, can: Capabilities, traits: RequestTraits, prompt: Prompt) -> bool:
    """Whether a request with a priority is served: servers with another scheduling policy refuse it."""
    able = build(can, traits.model_copy(update={"priorities": True}))
    sampling = measuring_params(can.profile, max_tokens=1, seed=SEED)
    return await _completion(able, Request(prompt=prompt, sampling=sampling, priority=1)) is not None


async def _has_tokenizer(build: Build) -> bool:
    model = build(Capabilities(), RequestTraits())
    ids = await _tried(model.retried(lambda: model.ids_of(PROMPT)))
    return bool(ids and ids[0])


async def _scores(build: Build, can: Capabilities, traits: RequestTraits) -> bool:
    able = build(can.model_copy(update={"scoring": True}), traits)
    scored = await _tried(able.score(PROMPT, [" a"]))
    return bool(scored and scored[0].logprobs)


async def _listed(model: ServerModel) -> frozenset[str] | None:
    """The logits processors that the server lists; None if it does not have our pages."""
    listed = await _tried(model.retried(lambda: list_server_processors(model.wire.http)))
    return None if listed is None else listed[0]
