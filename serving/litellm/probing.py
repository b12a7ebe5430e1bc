"""Capabilities of a server, measured by requests with a visible effect.

Servers ignore fields that they do not know, so an accepted request proves nothing; each probe checks the response. Each
of our logits processors is tried in the same way, since a vLLM server without our plug-in ignores them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...core.errors import BackendError, CapabilityMissing, UnknownName, UserError
from ...core.messages import Completion, LogitsProcessorSpec, Prompt, Request, SamplingParams
from ...core.registry import nearest
from ..entropy import min_entropy
from ..logits_processors import logits_processor_names
from ..model import Capabilities
from ..structured_output import TRIAL_SCHEMA, TRIAL_TOKENS, is_trial
from ..tool_calls import TRIAL_TOOL
from .model import LiteLLMModel
from .providers import Target
from .requests import RequestTraits
from .vllm_server import list_server_processors

TOKENS = 6
SEED = 20
CERTAIN = 1000.0
"""A change of a logit, or a threshold of confidence, in nats, that no model outweighs."""
SILENT = frozenset({"only_tokens", "forbid_tokens", "steer"})
"""Logits processors without reports, which need no report route of the server."""


@dataclass(frozen=True)
class _Trial:
    """A request that tries a logits processor.

    Attributes:
        processor: Its name.
        calls: The logits processors of the request, itself among them.
        works: Whether a sample shows its effect.
    """

    processor: str
    calls: tuple[LogitsProcessorSpec, ...]
    works: Callable[[Completion], bool]


async def working_processors(model: LiteLLMModel, prompt: Prompt, listed: frozenset[str] | None) -> frozenset[str]:
    """The logits processors that work on a server.

    One of a third party is assumed to work if it is installed both here and there and ours work; one over several
    requests is not, since a server does not start them in the same step. Of a server without reports, only those of
    ours count that report nothing.

    Args:
        model: The model, with all logits processors among its capabilities.
        prompt: The prompt to continue.
        listed: The logits processors that the server lists; None if it has no such page.
    """
    known = logits_processor_names(groups=False)
    ids, _ = await model.retried(lambda: model.ids_of(prompt))
    one = ids[-1]
    other = next((i for i in reversed(ids) if i != one), None)
    if other is None:
        return frozenset()
    trials = [t for t in _trials(one, other) if t.processor in (known & SILENT if listed is None else known & listed)]
    if not trials:
        return frozenset()
    top = min(20, model.capabilities.top_logprobs)
    requests = [
        Request(
            prompt=prompt,
            sampling=SamplingParams(
                max_tokens=TOKENS, seed=SEED, logits_processors=t.calls, top_logprobs=top, ignore_eos=True
            ),
        )
        for t in trials
    ]
    try:
        completions = [completion for [completion] in await model.generate(requests)]
    except (BackendError, CapabilityMissing, UserError):
        return frozenset()
    failed = {t.processor for t, c in zip(trials, completions, strict=True) if not (c.ok and t.works(c))}
    working = {t.processor for t in trials} - failed
    if listed is not None and "only_tokens" in working:
        working |= (known & listed) - {t.processor for t in _trials(one, other)}
    return frozenset(working)


def _trials(one: int, other: int) -> list[_Trial]:
    """Trials of all our logits processors with two tokens, which no model repeats six times of its own accord."""
    both = _call("only_tokens", ids=[one, other])
    opener = [one, other] * (TOKENS // 2)

    def repeats(token: int) -> Callable[[Completion], bool]:
        return lambda c: c.token_ids == (token,) * TOKENS

    return [
        _Trial("only_tokens", (_call("only_tokens", ids=[one]),), repeats(one)),
        # which of the two the model likes better is unknown, so each is tried
        _Trial("forbid_tokens", (both, _call("forbid_tokens", ids=[one])), repeats(other)),
        _Trial("forbid_tokens", (both, _call("forbid_tokens", ids=[other])), repeats(one)),
        _Trial("steer", (both, _call("steer", ids=[one], weight=CERTAIN)), repeats(one)),
        _Trial("steer", (both, _call("steer", ids=[other], weight=CERTAIN)), repeats(other)),
        _Trial(
            "step_control",
            (_call("step_control", opener_ids=opener, open_after_tokens=1),),
            lambda c: list(c.token_ids[1:]) == opener[: TOKENS - 1] and _extra(c, "step_control", "opened_at") == 1,
        ),
        _Trial(
            "stop_on_confidence",
            (_call("stop_on_confidence", threshold=CERTAIN, window=1, top=1, end_ids=[one]),),
            lambda c: repeats(one)(c) and _extra(c, "stop_on_confidence", "stopped_at") == 0,
        ),
        _Trial("entropy_probe", (_call("entropy_probe"),), _measured),
    ]


def _measured(completion: Completion) -> bool:
    """Whether every token has an entropy, at least as large as the alternatives allow."""
    entropy = _extra(completion, "entropy_probe", "entropy")
    if _extra(completion, "entropy_probe", "positions") != list(range(TOKENS)) or len(entropy) != TOKENS:
        return False
    rows = completion.top_logprobs or ((),) * TOKENS
    bounds = [min_entropy([t.logprob for t in row]) for row in rows]
    return all(h >= low - 1e-2 for h, low in zip(entropy, bounds, strict=True))


def _extra(completion: Completion, processor: str, name: str) -> Any:
    report: Any = completion.extras.get(processor) or {}
    return report.get(name)


def _call(name: str, **args: Any) -> LogitsProcessorSpec:
    return LogitsProcessorSpec(name=name, args=args)


PROMPT = Prompt.user("Write a word.", prefix="The word is")
MOST_TOP = 20
"""Maximum alternatives of OpenAI's API."""

Build = Callable[[Capabilities, RequestTraits], LiteLLMModel]


async def list_served_models(model: LiteLLMModel) -> list[dict[str, Any]]:
    """The models that the server lists under `/models`; empty if it has no such page.

    Raises:
        ReasonError: The server cannot be reached, or refuses the key.
    """

    async def call() -> Any:
        return await model.wire.client.get("/models", cast_to=object)

    try:
        response, _ = await model.retried(call)
    except UnknownName:  # no such page
        return []
    return [dict(m) for m in response.get("data") or ()] if isinstance(response, dict) else []


def find_served_model(listed: list[dict[str, Any]], target: Target) -> dict[str, Any]:
    """The entry of the target's model.

    Raises:
        UnknownName: The server serves other models.
    """
    names = [str(m.get("id")) for m in listed]
    if target.served not in names:
        near = tuple(f"{target.provider}/{n}" for n in nearest(target.served, names))
        raise UnknownName("model", target.name, near, hint=f"{target.endpoint} serves: {', '.join(names[:5])}")
    return listed[names.index(target.served)]


async def probe_capabilities(
    build: Build, context_tokens: int | None, vllm: bool
) -> tuple[Capabilities, RequestTraits]:
    """Capabilities of the model at a server.

    Args:
        build: Makes the model with given capabilities; its connection is shared.
        context_tokens: Context length, if the server reported it.
        vllm: Whether it may know vLLM's own fields.

    Raises:
        ReasonError: Not even a plain request works.
    """
    traits = RequestTraits(vllm=vllm, tokenizer=vllm and await _has_tokenizer(build))
    plain = PROMPT.with_prefix("")
    can = Capabilities(
        logprobs=True, top_logprobs=MOST_TOP, prefix=vllm, context_tokens=context_tokens, logits_processors=frozenset()
    )
    completions: list[Completion] = []
    for top in (MOST_TOP, 5, 0):
        can = can.model_copy(update={"logprobs": top > 0})
        request = _request(PROMPT if vllm else plain, top=top, n=2)
        try:
            asker = build(can, traits.model_copy(update={"multi_sample": True}))
            [completions] = await asker.generate([request])
            break
        except BackendError:
            if top == 0:
                raise
    first = completions[0]
    shown = first.logprobs is not None
    top = (top if first.top_logprobs and any(first.top_logprobs) else 0) if shown else 0
    many = asker.traits.multi_sample and all(r.ok for r in completions)
    can = can.model_copy(update={"logprobs": shown, "top_logprobs": top})
    single = build(can, traits)
    [[zeroth, second]] = await single.generate([_request(PROMPT if vllm else plain, top=0, n=2)])
    seeded = _same(first, zeroth)
    can = can.model_copy(update={"seed": seeded, "json_schema": await _holds_to_schema(build, can, traits)})
    can = can.model_copy(update={"tools": await _shows_tools(build, can, traits)})
    if vllm:
        # with seeds that follow one another, the second sample of one request is the sample of the next seed
        many = many and seeded and _same(completions[1], second)
        counted = len(await single.ids_of(PROMPT)) if traits.tokenizer else None
        listed = await _listed(single)
        traits = traits.model_copy(update={"reports": listed is not None, "frame_tokens": counted or 0})
        able = build(can.model_copy(update={"logits_processors": logits_processor_names(groups=False)}), traits)
        working = await working_processors(able, PROMPT, listed) if traits.tokenizer else frozenset()
        can = can.model_copy(
            update={
                "prefix": counted is not None and counted == first.usage.prompt_tokens,
                "scoring": traits.tokenizer and await _scores(single),
                "logits_processors": working,
                "full_vocabulary": "entropy_probe" in working and top > 0,
            }
        )
    return can, traits.model_copy(update={"multi_sample": many})


def _request(prompt: Prompt, *, top: int, n: int) -> Request:
    return Request(prompt=prompt, sampling=SamplingParams(max_tokens=TOKENS, n=n, seed=SEED, top_logprobs=top))


def _same(a: Completion, b: Completion) -> bool:
    """Whether two samples are equal; an empty one proves nothing."""
    return a.ok and b.ok and (a.text, a.token_ids) == (b.text, b.token_ids) and bool(a.text or a.token_ids)


async def _shows_tools(build: Build, can: Capabilities, traits: RequestTraits) -> bool:
    """Whether tools become part of the prompt: it has more tokens with them."""
    able = build(can.model_copy(update={"tools": True}), traits)
    plain = PROMPT.with_prefix("")
    prompts = plain, plain.model_copy(update={"tools": (TRIAL_TOOL,)})
    sampling = SamplingParams(max_tokens=1, seed=SEED, logprobs=False)
    try:
        [[without], [with_tools]] = await able.generate([Request(prompt=p, sampling=sampling) for p in prompts])
    except (BackendError, UserError):  # refused
        return False
    return with_tools.ok and with_tools.usage.prompt_tokens > without.usage.prompt_tokens > 0


async def _holds_to_schema(build: Build, can: Capabilities, traits: RequestTraits) -> bool:
    """Whether a text satisfies a schema that the prompt does not mention."""
    able = build(can.model_copy(update={"json_schema": True}), traits)
    # sampled blanks could fill all of the response, where a server's grammar leaves them free
    heat = 0.0 if "temperature" in able.target.parameters else 1.0
    sampling = SamplingParams(
        temperature=heat, max_tokens=TRIAL_TOKENS, seed=SEED, logprobs=False, json_schema=TRIAL_SCHEMA
    )
    try:
        [[completion]] = await able.generate([Request(prompt=PROMPT.with_prefix(""), sampling=sampling)])
    except (BackendError, UserError):  # refused
        return False
    return is_trial(completion.text)


async def _has_tokenizer(build: Build) -> bool:
    model = build(Capabilities(), RequestTraits())
    try:
        ids, _ = await model.retried(lambda: model.ids_of(PROMPT))
    except (UnknownName, BackendError):
        return False
    return bool(ids)


async def _scores(model: LiteLLMModel) -> bool:
    able = LiteLLMModel(
        model.target,
        model.wire,
        model.capabilities.model_copy(update={"scoring": True}),
        model.traits,
        model.prices,
        model.limiter,
        model.identity,
    )
    try:
        [scored] = await able.score(PROMPT, [" a"])
    except BackendError:
        return False
    return bool(scored.logprobs)


async def _listed(model: LiteLLMModel) -> frozenset[str] | None:
    """The logits processors that the server lists; None if it does not have our pages."""
    try:
        names, _ = await model.retried(lambda: list_server_processors(model.wire.client))
    except (UnknownName, BackendError):
        return None
    return frozenset(names)
