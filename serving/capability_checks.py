"""`check_capabilities`: what a model declares, checked by small requests with a visible effect."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Literal

from pydantic import JsonValue

from ..core.errors import BackendError, CapabilityMissing, ContextTooLong, ReasonError, UserError
from ..core.messages import Completion, Frozen, LogitsProcessorSpec, Prompt, Request, SamplingParams, Usage
from .model import Capabilities, LanguageModel, Listener
from .profiles.profile import ModelProfile
from .structured_output import TRIAL_SCHEMA, TRIAL_TOKENS, is_trial
from .tool_calls import TRIAL_TOOL
from .worker_group import GroupStep, SupportsWorkers, WorkerGroupConfig, WorkerInput, WorkerToken

ASK = Prompt.user("Write the numbers from one to twenty in words, with commas between them.")
OTHER = Prompt.user("Name three animals that can swim.")
TOKENS = 8
"""Tokens of the sample that trials compare theirs with."""


def trial_sampling(profile: ModelProfile, **sampling: Any) -> SamplingParams:
    """Sampling parameters of a short trial: greedy and without a thought, as far as the model allows.

    Args:
        profile: The model's profile.
        sampling: Fields of `SamplingParams`.
    """
    return SamplingParams(**{"seed": 0, "default_temperature": 0.0, **profile.quick_fields, **sampling})


class ModelUnderTest:
    """A model under test.

    Attributes:
        model: The model.
        can: Its declared capabilities.
        first: Its most likely completion of `ASK`, `TOKENS` tokens long; set by `begin`.
        usage: Usage of all samples so far.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.can = model.capabilities
        self.first = Completion(text="", finish_reason="stop")
        self.usage: list[Usage] = []

    async def begin(self) -> None:
        """Generate the first completion, of which the answer counts.

        Raises:
            ReasonError: Not even that works.
        """
        try:
            first = await self.ask(max_tokens=TOKENS, logprobs=True)
        except (CapabilityMissing, UserError):
            first = await self.ask(max_tokens=TOKENS)
        start = first.answer_from
        self.first = first.model_copy(
            update={"token_ids": first.token_ids[start:], "logprobs": first.answer_logprobs, "answer_from": 0}
        )

    def sampling(self, **sampling: Any) -> SamplingParams:
        """Parameters of a trial (`trial_sampling`)."""
        return trial_sampling(self.can.profile, **sampling)

    async def ask(self, prompt: Prompt = ASK, **sampling: Any) -> Completion:
        """One sample.

        Raises:
            ReasonError: The model refuses, or the sample failed.
        """
        [completions] = await self.batch([Request(prompt=prompt, sampling=self.sampling(**sampling))])
        return completions

    async def batch(self, requests: Sequence[Request], listener: Listener | None = None) -> list[Completion]:
        """All samples of some requests, in order. Raises as `ask`."""
        completions = [c for completion in await self.model.generate(requests, listener) for c in completion]
        self.usage += [c.usage for c in completions]
        for completion in completions:
            if completion.failure is not None:
                raise BackendError(completion.failure.message)
        return completions


State = Literal["ok", "differs", "more", "declared"]


class CapabilityResult(Frozen):
    """One capability: declared and measured.

    Attributes:
        feature: Its name, as in `Capabilities`; that of a logits processor is `logits processor <name>`.
        declared: What the model declares.
        measured: What was measured; None if nothing was.
        state: "ok": as declared. "differs": declared and not there. "more": there and not declared, which is harmless.
            "declared": not measured.
        note: Numbers, or why it was not measured.
    """

    feature: str
    declared: JsonValue
    measured: JsonValue = None
    state: State
    note: str = ""


class Throughput(Frozen):
    """Throughput of a model by a short measurement; not a benchmark.

    Attributes:
        prompt_tokens_per_s: Tokens per second of a new prompt, with its first generated token; None if their number is
            unknown.
        decode_tokens_per_s: Generated tokens per second of one sample, without its first.
        batch_tokens_per_s: Generated tokens per second of all samples of a batch together.
        batch: Samples of that batch.
    """

    prompt_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    batch_tokens_per_s: float | None
    batch: int


def judged(feature: str, declared: bool, measured: bool, note: str = "") -> CapabilityResult:
    """The result for a boolean capability."""
    state: State = "ok" if declared == measured else "differs" if declared else "more"
    return CapabilityResult(feature=feature, declared=declared, measured=measured, state=state, note=note)


def unmeasured(feature: str, declared: JsonValue, note: str) -> CapabilityResult:
    """The result for a capability that was not measured."""
    return CapabilityResult(feature=feature, declared=declared, state="declared", note=note)


NEAR_NATS = 0.35
"""Maximum that two computations of one log-probability in bf16 may lie apart: logits of 32 to 64 are quarters."""

ROUNDING = 1e-3

MOST_ASKED = 1000
"""Maximum alternatives that a request may ask for (`SamplingParams.top_logprobs`)."""

CapabilityCheck = Callable[[ModelUnderTest], Awaitable[CapabilityResult]]


async def logprobs(bench: ModelUnderTest) -> CapabilityResult:
    """Log-probabilities of the generated tokens."""
    shown = bench.first.logprobs
    good = bool(shown) and all(math.isfinite(v) and v <= ROUNDING for v in shown or ())
    if good and bench.first.token_ids:
        good = len(shown or ()) == len(bench.first.token_ids)
    return judged("logprobs", bench.can.logprobs, good)


async def top_logprobs(bench: ModelUnderTest) -> CapabilityResult:
    """As many alternatives as are declared, best first."""
    declared = bench.can.top_logprobs
    try:
        num_alternatives_requested = max(1, min(declared, MOST_ASKED))
        completion = await bench.ask(max_tokens=1, top_logprobs=num_alternatives_requested)
    except CapabilityMissing:
        completion = Completion(text="", finish_reason="stop")
    values = [t.logprob for t in (completion.top_logprobs or ((),))[0]]
    mass = math.fsum(math.exp(v) for v in values)
    complete = mass > 1 - ROUNDING  # a vocabulary that has no more
    good = values == sorted(values, reverse=True) and mass <= 1 + ROUNDING
    num_alternatives = len(values) if good else 0
    enough = num_alternatives >= min(declared, MOST_ASKED) or (complete and good)
    state: State = "differs" if not enough else "ok" if declared or not num_alternatives else "more"
    return CapabilityResult(feature="top_logprobs", declared=declared, measured=num_alternatives, state=state)


async def full_vocabulary(bench: ModelUnderTest) -> CapabilityResult:
    """The next token's exact entropy, which must lie between what the listed tokens allow."""
    declared = bench.can.full_vocabulary
    if not declared and not bench.can.top_logprobs:
        return judged("full_vocabulary", False, False)
    [token] = await bench.model.next_token([ASK], top=max(1, min(20, bench.can.top_logprobs)))
    shown = [math.exp(v) for v in token.logprobs]
    rest = max(0.0, 1 - math.fsum(shown))
    least = -math.fsum(p * math.log(p) for p in (*shown, rest) if p > 0)
    possible = token.entropy >= least - 0.01
    note = f"entropy {token.entropy:.2f} nats" if token.support == "full" else "only the listed tokens"
    return judged("full_vocabulary", declared, token.support == "full" and possible, note)


async def scoring(bench: ModelUnderTest) -> CapabilityResult:
    """The score of the model's own completion equals its log-probabilities, and that of nonsense is lower."""
    first = bench.first
    if not bench.can.profile.can_skip_thinking:
        return unmeasured("scoring", bench.can.scoring, "the model always thinks before what could be compared")
    what: str | tuple[int, ...] = first.token_ids or first.text
    scored = await bench.model.score(ASK, [what, " zqx zqx zqx"])
    good = len(scored) == 2 and bool(scored[0].logprobs) and scored[0].logprob > scored[1].logprob
    note = ""
    if good and first.token_ids and first.logprobs and len(first.logprobs) == len(scored[0].logprobs):
        apart = max(abs(a - b) for a, b in zip(first.logprobs, scored[0].logprobs, strict=True))
        good, note = apart <= NEAR_NATS, f"{apart:.3f} nats from the sample's own"
    return judged("scoring", bench.can.scoring, good, note)


async def prefix(bench: ModelUnderTest) -> CapabilityResult:
    """A prefix of a completion is continued as the completion was."""
    first = bench.first
    half = len(first.token_ids) // 2
    if half:
        try:
            rest = await bench.ask(
                ASK.with_prefix(first.token_ids[:half]),
                max_tokens=len(first.token_ids) - half,
                logprobs=first.logprobs is not None,
            )
        except CapabilityMissing:  # no token ids, but perhaps text
            half = 0
        else:
            return judged("prefix", bench.can.prefix, continues(first, rest, half))
    cut = first.text.find(" ", len(first.text) // 2)
    if cut <= 0:
        return unmeasured("prefix", bench.can.prefix, "the completion is too short to be split")
    rest = await bench.ask(ASK.with_prefix(first.text[:cut]), max_tokens=4)
    good = bool(rest.text.strip()) and first.text[cut:].strip().startswith(rest.text.strip()[:4])
    return judged("prefix", bench.can.prefix, good, "by text")


def continues(complete: Completion, rest: Completion, start: int) -> bool:
    """Whether `rest` equals `complete` from token `start` on, or departs from it at a token of equal probability."""
    for at, (a, b) in enumerate(zip(complete.token_ids[start:], rest.token_ids, strict=False)):
        if a != b:
            if complete.logprobs is None or rest.logprobs is None:
                return False
            return abs(complete.logprobs[start + at] - rest.logprobs[at]) <= NEAR_NATS and at > 0
    return bool(rest.token_ids)


async def seed(bench: ModelUnderTest) -> CapabilityResult:
    """The same seed gives the same sample, alone and in a batch, and other seeds give other samples."""

    def one(number: int, prompt: Prompt = ASK) -> Request:
        return Request(prompt=prompt, sampling=bench.sampling(default_temperature=1.0, max_tokens=12, seed=number))

    [single] = await bench.batch([one(1)])
    [_, with_tools, *others] = await bench.batch([one(4, OTHER), one(1), one(2), one(3)])
    if all(sample_identity(o) == sample_identity(single) for o in others):
        return unmeasured("seed", bench.can.seed, "every seed gives the same sample here, which proves nothing")
    return judged("seed", bench.can.seed, sample_identity(with_tools) == sample_identity(single))


def sample_identity(completion: Completion) -> tuple[object, ...]:
    """What two equal samples have in common."""
    return completion.text, completion.token_ids


async def json_schema(bench: ModelUnderTest) -> CapabilityResult:
    """A completion satisfies a schema that the prompt does not mention."""
    try:
        completion = await bench.ask(max_tokens=TRIAL_TOKENS, json_schema=TRIAL_SCHEMA)
    except CapabilityMissing:
        return judged("json_schema", bench.can.json_schema, False)
    return judged("json_schema", bench.can.json_schema, is_trial(completion.text))


async def tools(bench: ModelUnderTest) -> CapabilityResult:
    """A prompt is longer with tools."""
    try:
        with_tools = await bench.ask(ASK.model_copy(update={"tools": (TRIAL_TOOL,)}), max_tokens=1)
    except CapabilityMissing:
        return judged("tools", bench.can.tools, False)
    return judged("tools", bench.can.tools, with_tools.usage.prompt_tokens > bench.first.usage.prompt_tokens > 0)


async def forks(bench: ModelUnderTest) -> CapabilityResult:
    """A second prompt that begins like the first reuses its keys and values."""
    start = long_text(bench)
    await bench.ask(Prompt.user(f"{start} Say one of them."), max_tokens=1)
    second = await bench.ask(Prompt.user(f"{start} Add them up."), max_tokens=1)
    cached, complete = second.usage.cached_tokens, second.usage.prompt_tokens
    return judged("forks", bench.can.forks, cached > 0, f"{cached} of {complete} prompt tokens came from the cache")


def long_text(bench: ModelUnderTest) -> str:
    """A text of some hundred tokens that is in no cache, or as much as the context allows."""
    draw = random.Random(secrets.token_hex(8))  # noqa: S311 (it is no secret, only new)
    count = 120 if (bench.can.context_tokens or 4096) >= 1024 else 12
    return "Keep these numbers in mind: " + ", ".join(str(draw.randrange(100, 1000)) for _ in range(count)) + "."


async def kv_sharing(bench: ModelUnderTest) -> CapabilityResult:
    """The input of one worker changes the probabilities of another one's token in the same pass."""
    model = bench.model
    if not bench.can.kv_sharing or not isinstance(model, SupportsWorkers):
        return judged("kv_sharing", bench.can.kv_sharing, False)
    tokens: list[WorkerToken | None] = []
    for text in (" one, two", " nine, ten", " one, two"):
        group = await model.start_workers(
            WorkerGroupConfig(prompt=ASK, layout="contiguous", own_header=" Mine:", temperature=0)
        )
        try:
            tokens.append(
                (await group.advance(GroupStep(inputs=(WorkerInput(text=" I say"), WorkerInput(text=text)))))[0]
            )
            bench.usage.append(group.usage)
        finally:
            await group.aclose()
    first, other, again = tokens
    return judged("kv_sharing", True, first == again and first != other)


async def context_tokens(bench: ModelUnderTest) -> CapabilityResult:
    """A request that fills the context is accepted, and one that needs a token more is refused."""
    declared = bench.can.context_tokens
    if declared is None:
        return unmeasured("context_tokens", None, "unknown")
    counted = bench.model.count_tokens(ASK) and bench.first.usage.prompt_tokens
    room = bench.sampling(max_tokens=1).thinking_tokens or 0
    over, fits = await _taken(bench, declared), counted is None or await _taken(bench, declared - counted - room)
    good = fits and not over
    note = "" if good else "a longer request was taken" if over else "a request of this length was refused"
    return CapabilityResult(
        feature="context_tokens",
        declared=declared,
        measured=declared if good else None,
        state="ok" if good else "differs",
        note=note,
    )


async def _taken(bench: ModelUnderTest, tokens: int) -> bool:
    """Whether a request for so many tokens is accepted; it is stopped at its first chunk."""
    if tokens < 1:
        return False
    request = Request(prompt=ASK, sampling=bench.sampling(max_tokens=tokens))
    try:
        async with aclosing(bench.model.stream(request)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                if piece.completion is not None and piece.completion.failure is not None:
                    return piece.completion.failure.code != ContextTooLong.code
                return True
    except ContextTooLong:
        return False
    return True


async def prices(bench: ModelUnderTest) -> CapabilityResult:
    """The charged prices of the requests so far are those declared."""
    can = bench.can
    declared = [can.usd_per_prompt_token, can.usd_per_completion_token]
    shown = [u.cost_usd for u in bench.usage]
    known = [c for c in shown if c is not None]
    cost = math.fsum(known) if len(known) == len(shown) else None
    if can.usd_per_prompt_token is None or can.usd_per_completion_token is None:
        state: State = "ok" if cost is None else "more"
        return CapabilityResult(
            feature="prices", declared=None, measured=cost, state=state, note="unknown; see docs/backends.md"
        )
    expected = math.fsum(
        can.usd_per_prompt_token * u.prompt_tokens + can.usd_per_completion_token * u.completion_tokens
        for u in bench.usage
    )
    cached = any(u.cached_tokens for u in bench.usage)  # these may cost less
    good = cost is not None and (cost <= expected * 1.01 if cached else math.isclose(cost, expected, rel_tol=0.01))
    text = (
        "no cost was reported" if cost is None else f"${cost:.6f} for the requests above" if cost else "nothing charged"
    )
    state = "ok" if good else "differs"
    return CapabilityResult(feature="prices", declared=declared, measured=cost, state=state, note=text)


FEATURES: tuple[tuple[str, CapabilityCheck], ...] = (
    ("logprobs", logprobs),
    ("top_logprobs", top_logprobs),
    ("full_vocabulary", full_vocabulary),
    ("scoring", scoring),
    ("prefix", prefix),
    ("seed", seed),
    ("json_schema", json_schema),
    ("tools", tools),
    ("forks", forks),
    ("kv_sharing", kv_sharing),
    ("context_tokens", context_tokens),
)
"""The trials, in the order of the table; logits processors and prices come after them."""


async def tried(
    bench: ModelUnderTest, feature: str, declared: object, trial: CapabilityCheck, seconds: float
) -> CapabilityResult:
    """Run a check; a capability that the model refuses or fails at is not there.

    Args:
        bench: The model.
        feature: Name of the capability.
        declared: What the model declares.
        trial: The check.
        seconds: Remaining time.
    """
    shown = declared if isinstance(declared, bool | int | float | str | None) else str(declared)
    if seconds <= 0:
        return unmeasured(feature, shown, "out of time")
    try:
        async with asyncio.timeout(seconds) as clock:
            return await trial(bench)
    except TimeoutError:
        if not clock.expired():
            raise
        return unmeasured(feature, shown, "out of time")
    except ReasonError as error:
        note = "" if isinstance(error, CapabilityMissing) and not declared else error.message
        return CapabilityResult(
            feature=feature, declared=shown, measured=False, state="differs" if declared else "ok", note=note
        )


async def entropy_probe(bench: ModelUnderTest, token: int) -> bool:
    """The reported entropy is the next token's own."""
    completion = await sample_with(bench, "entropy_probe", {"first": 1}, 2)
    report: Any = completion.extras.get("entropy_probe")
    if not isinstance(report, dict) or report.get("positions") != [0]:
        return False
    if not bench.can.full_vocabulary:
        return bool(report["entropy"][0] >= 0)
    [exact] = await bench.model.next_token([ASK], top=1)
    return bool(abs(report["entropy"][0] - exact.entropy) < 0.05)


async def forbid_tokens(bench: ModelUnderTest, token: int) -> bool:
    """The most likely first token is not sampled."""
    first = bench.first.token_ids[0]
    completion = await sample_with(bench, "forbid_tokens", {"ids": [first]}, 2)
    return bool(completion.token_ids) and first not in completion.token_ids


async def only_tokens(bench: ModelUnderTest, token: int) -> bool:
    """One token is sampled repeatedly."""
    return (await sample_with(bench, "only_tokens", {"ids": [token]}, 3)).token_ids == (token,) * 3


async def steer(bench: ModelUnderTest, token: int) -> bool:
    """A token with a large bias is sampled."""
    return (await sample_with(bench, "steer", {"ids": [token], "weight": 1000.0}, 2)).token_ids == (token,) * 2


async def step_control(bench: ModelUnderTest, token: int) -> bool:
    """The answer is opened by the given token, at the given position."""
    completion = await sample_with(bench, "step_control", {"opener_ids": [token], "open_after_tokens": 2}, 3)
    return completion.token_ids[:2] == bench.first.token_ids[:2] and completion.token_ids[2:3] == (token,)


async def stop_on_confidence(bench: ModelUnderTest, token: int) -> bool:
    """A threshold that no sample reaches ends the text once the window is full."""
    args = {"threshold": 1e6, "window": 2, "top": 2, "end_ids": [token]}
    return (await sample_with(bench, "stop_on_confidence", args, 2)).token_ids[1:] == (token,)


async def contrast(bench: ModelUnderTest, token: int) -> bool:
    """Two requests with different prompts sample the same tokens."""

    def member(role: str) -> Request:
        call = LogitsProcessorSpec(name="contrast", args={"pair": "measuring", "role": role})
        sampling = bench.sampling(default_temperature=1.0, seed=1, max_tokens=6, logits_processors=(call,))
        return Request(prompt=ASK if role == "expert" else OTHER, sampling=sampling)

    expert, amateur = await bench.batch([member("expert"), member("amateur")])
    report: Any = expert.extras.get("contrast")
    complete = isinstance(report, dict) and report.get("mixed") == len(expert.token_ids)
    return complete and expert.token_ids == amateur.token_ids


async def sample_with(bench: ModelUnderTest, name: str, args: dict[str, Any], tokens: int) -> Completion:
    """A greedy sample with one logits processor."""
    return await bench.ask(max_tokens=tokens, logits_processors=(LogitsProcessorSpec(name=name, args=args),))


Effect = Callable[[ModelUnderTest, int], Awaitable[bool]]

EFFECTS: dict[str, Effect] = {
    "contrast": contrast,
    "entropy_probe": entropy_probe,
    "forbid_tokens": forbid_tokens,
    "only_tokens": only_tokens,
    "steer": steer,
    "step_control": step_control,
    "stop_on_confidence": stop_on_confidence,
}
"""What shows that a hook acts, by its name."""


def processor_check(name: str) -> CapabilityCheck:
    """The check of a logits processor; one of a third party is not measured, since its effect is unknown."""

    async def trial(bench: ModelUnderTest) -> CapabilityResult:
        effect, feature = EFFECTS.get(name), f"logits processor {name}"
        if effect is None:
            return unmeasured(feature, True, "of a third party")
        first = bench.first.token_ids
        others = [
            i for i in first if i not in first[:3]
        ]  # generated later, so it does not end the text and is no surprise
        if not others:
            return unmeasured(feature, True, "the model hides its token ids, or generates too few of them")
        return judged(feature, True, await effect(bench, others[0]))

    return trial


MAX_CHECK_TOKENS = (8000, 1000)
"""Maximum tokens that measuring takes, of prompts and of completions, speed included."""


def worst_cost_usd(can: Capabilities) -> float | None:
    """Maximum cost of the checks, in US dollars; None if the price is unknown."""
    if can.usd_per_prompt_token is None or can.usd_per_completion_token is None:
        return None
    prompt, completion = MAX_CHECK_TOKENS
    return prompt * can.usd_per_prompt_token + completion * can.usd_per_completion_token


async def check_capabilities(
    model: LanguageModel,
    *,
    only_declared: bool = False,
    seconds: float = 120.0,
    on_check: Callable[[str, int, int], None] = lambda feature, done, total: None,
) -> AsyncIterator[CapabilityResult]:
    """Check what a model declares, capability by capability.

    Args:
        model: The model.
        only_declared: Whether to make no request at all.
        seconds: Maximum time in seconds; what is not measured in time is left as declared.
        on_check: Called with the next check, the number of finished ones, and their total.

    Raises:
        ReasonError: Not even a plain request works.
    """
    can, bench, until = model.capabilities, ModelUnderTest(model), time.monotonic() + seconds
    trials = [(name, getattr(can, name), trial) for name, trial in FEATURES]
    trials += [(f"logits processor {name}", True, processor_check(name)) for name in sorted(can.logits_processors)]
    total = len(trials) + 2
    if not only_declared:
        on_check("a plain request", 0, total)
        await bench.begin()
    for done, (feature, declared, trial) in enumerate(trials, 1):
        if only_declared:
            yield unmeasured(feature, declared, "")
            continue
        on_check(feature, done, total)
        yield await tried(bench, feature, declared, trial, until - time.monotonic())
    if not can.logits_processors:
        yield (
            unmeasured("logits_processors", False, "")
            if only_declared
            else await tried(bench, "logits_processors", False, _refuses_processors, until - time.monotonic())
        )
    yield unmeasured("max_batch", can.max_batch, "")
    shown = [can.usd_per_prompt_token, can.usd_per_completion_token]
    if only_declared:
        yield unmeasured("prices", list(shown) if can.price_known else None, "")
    else:
        yield await prices(bench)


async def _refuses_processors(bench: ModelUnderTest) -> CapabilityResult:
    """A model without logits processors refuses a request that has one, and does not ignore it."""
    try:
        await bench.ask(
            max_tokens=1,
            logits_processors=(LogitsProcessorSpec(name="forbid_tokens", args={"ids": [0]}),),
        )
    except CapabilityMissing:
        return judged("logits_processors", False, False)
    return CapabilityResult(
        feature="logits_processors",
        declared=False,
        measured=False,
        state="differs",
        note="a request with a logits processor is not refused",
    )
