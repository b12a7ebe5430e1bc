"""`ModelUnderTest`: one model on the bench, with the requests that every trial needs.

What measuring finds: `CheckResult`, one line of the table of capabilities, and `Throughput`.

Trials of capabilities: each makes a small request whose effect is visible, and looks at the effect.

Trials of the logits hooks: each is asked for something that a sample would not do of its own accord.

`measure`: every capability of a model, declared and seen.
"""

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

from ..core.errors import BackendError, CapabilityMissing, ContextTooLong, ReasonError
from ..core.messages import Completion, Frozen, LogitsProcessorSpec, Prompt, Request, SamplingParams, Usage
from .kv_store import kv_store_of
from .model import Capabilities, LanguageModel, Listener
from .structured_output import TRIAL_SCHEMA, TRIAL_TOKENS, is_trial
from .tool_calls import TRIAL_TOOL
from .worker_group import GroupStep, SupportsWorkers, WorkerGroupConfig, WorkerInput, WorkerToken

ASK = Prompt.user("Write the numbers from one to twenty in words, with commas between them.")
OTHER = Prompt.user("Name three animals that can swim.")
TOKENS = 8
"""Tokens of the sample that trials compare theirs with."""


class ModelUnderTest:
    """A model that is being measured.

    Args:
        model: The model.

    Attributes:
        model: The model.
        can: What it declares.
        first: Its most likely reply to `ASK`, `TOKENS` tokens long; set by `begin`.
        usage: What all samples so far have used.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.can = model.capabilities
        self.first = Completion(text="", finish_reason="stop")
        self.usage: list[Usage] = []

    async def begin(self) -> None:
        """Have it say something.

        Raises:
            ReasonError: Not even that works.
        """
        self.first = await self.ask(temperature=0, max_tokens=TOKENS)

    async def ask(self, prompt: Prompt = ASK, **sampling: Any) -> Completion:
        """One sample.

        Raises:
            ReasonError: The model refuses, or the sample failed.
        """
        [made] = await self.batch([Request(prompt=prompt, sampling=SamplingParams(**{"seed": 0} | sampling))])
        return made

    async def batch(self, requests: Sequence[Request], listener: Listener | None = None) -> list[Completion]:
        """All samples of some requests, in order. Raises as `ask`."""
        made = [c for reply in await self.model.generate(requests, listener) for c in reply]
        self.usage += [c.usage for c in made]
        for completion in made:
            if completion.failure is not None:
                raise BackendError(completion.failure.message)
        return made


State = Literal["ok", "differs", "more", "declared"]


class CapabilityResult(Frozen):
    """One capability: what the model says of it, and what a request showed.

    Attributes:
        feature: Its name, as in `Capabilities`; a hook is `hook <name>`.
        declared: What the model says.
        measured: What was seen; None if nothing was measured.
        state: "ok": as declared. "differs": declared and not there. "more": there and not declared, which misleads
            nobody. "declared": not measured.
        note: Figures, or why it was not measured.
    """

    feature: str
    declared: JsonValue
    measured: JsonValue = None
    state: State
    note: str = ""


class Throughput(Frozen):
    """How fast a model is, for one short look; not a benchmark.

    Attributes:
        prompt_tokens_per_s: Tokens of a fresh prompt a second, its first new token included; None if nothing says how
            many tokens it has.
        decode_tokens_per_s: New tokens a second of one sample, without its first.
        batch_tokens_per_s: Likewise of all samples of a batch together.
        batch: Samples of that batch.
    """

    prompt_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    batch_tokens_per_s: float | None
    batch: int


def judged(feature: str, declared: bool, measured: bool, note: str = "") -> CapabilityResult:
    """The finding on a capability that is there or not."""
    state: State = "ok" if declared == measured else "differs" if declared else "more"
    return CapabilityResult(feature=feature, declared=declared, measured=measured, state=state, note=note)


def unmeasured(feature: str, declared: JsonValue, note: str) -> CapabilityResult:
    """The finding on a capability that was not measured."""
    return CapabilityResult(feature=feature, declared=declared, state="declared", note=note)


NEAR_NATS = 0.35
"""Most that two computations of one log-probability in bf16 may lie apart: logits of 32 to 64 are quarters."""

ROUNDING = 1e-3

MOST_ASKED = 1000
"""Most alternatives that a request may ask for (`SamplingParams.top_logprobs`)."""

CapabilityCheck = Callable[[ModelUnderTest], Awaitable[CapabilityResult]]


async def logprobs(bench: ModelUnderTest) -> CapabilityResult:
    """Log-probabilities of the tokens said."""
    shown = bench.first.logprobs
    good = bool(shown) and all(math.isfinite(v) and v <= ROUNDING for v in shown or ())
    if good and bench.first.token_ids:
        good = len(shown or ()) == len(bench.first.token_ids)
    return judged("logprobs", bench.can.logprobs, good)


async def top_logprobs(bench: ModelUnderTest) -> CapabilityResult:
    """As many alternatives as are declared, best first."""
    declared = bench.can.top_logprobs
    try:
        asked = max(1, min(declared, MOST_ASKED))
        reply = await bench.ask(temperature=0, max_tokens=1, top_logprobs=asked)
    except CapabilityMissing:
        reply = Completion(text="", finish_reason="stop")
    values = [t.logprob for t in (reply.top_logprobs or ((),))[0]]
    mass = math.fsum(math.exp(v) for v in values)
    whole = mass > 1 - ROUNDING  # a vocabulary that has no more
    good = values == sorted(values, reverse=True) and mass <= 1 + ROUNDING
    found = len(values) if good else 0
    enough = found >= min(declared, MOST_ASKED) or (whole and good)
    state: State = "differs" if not enough else "ok" if declared or not found else "more"
    return CapabilityResult(feature="top_logprobs", declared=declared, measured=found, state=state)


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
    note = f"entropy {token.entropy:.2f} nats" if token.support == "full" else "the listed tokens alone"
    return judged("full_vocabulary", declared, token.support == "full" and possible, note)


async def scoring(bench: ModelUnderTest) -> CapabilityResult:
    """The score of what the model said is what it said of it itself, and that of nonsense is lower."""
    said = bench.first
    what: str | tuple[int, ...] = said.token_ids or said.text
    scored = await bench.model.score(ASK, [what, " zqx zqx zqx"])
    good = len(scored) == 2 and bool(scored[0].logprobs) and scored[0].logprob > scored[1].logprob
    note = ""
    if good and said.token_ids and said.logprobs and len(said.logprobs) == len(scored[0].logprobs):
        apart = max(abs(a - b) for a, b in zip(said.logprobs, scored[0].logprobs, strict=True))
        good, note = apart <= NEAR_NATS, f"{apart:.3f} nats from the sample's own"
    return judged("scoring", bench.can.scoring, good, note)


async def prefix(bench: ModelUnderTest) -> CapabilityResult:
    """The reply's beginning is continued as the whole reply went on."""
    said = bench.first
    half = len(said.token_ids) // 2
    if half:
        try:
            rest = await bench.ask(
                ASK.with_prefix(said.token_ids[:half]), temperature=0, max_tokens=len(said.token_ids) - half
            )
        except CapabilityMissing:  # no token ids, but perhaps text
            half = 0
        else:
            return judged("prefix", bench.can.prefix, continues(said, rest, half))
    cut = said.text.find(" ", len(said.text) // 2)
    if cut <= 0:
        return unmeasured("prefix", bench.can.prefix, "the reply is too short to be cut")
    rest = await bench.ask(ASK.with_prefix(said.text[:cut]), temperature=0, max_tokens=4)
    good = bool(rest.text.strip()) and said.text[cut:].strip().startswith(rest.text.strip()[:4])
    return judged("prefix", bench.can.prefix, good, "by text")


def continues(whole: Completion, rest: Completion, start: int) -> bool:
    """Whether `rest` is the whole from token `start` on, or leaves it at a token that was as likely as the other."""
    for at, (a, b) in enumerate(zip(whole.token_ids[start:], rest.token_ids, strict=False)):
        if a != b:
            if whole.logprobs is None or rest.logprobs is None:
                return False
            return abs(whole.logprobs[start + at] - rest.logprobs[at]) <= NEAR_NATS and at > 0
    return bool(rest.token_ids)


async def seed(bench: ModelUnderTest) -> CapabilityResult:
    """The same seed says the same, alone and in a batch, and other seeds say something else."""

    def one(number: int, prompt: Prompt = ASK) -> Request:
        return Request(prompt=prompt, sampling=SamplingParams(temperature=1.0, max_tokens=12, seed=number))

    [alone] = await bench.batch([one(1)])
    [_, beside, *others] = await bench.batch([one(4, OTHER), one(1), one(2), one(3)])
    if all(said(o) == said(alone) for o in others):
        return unmeasured("seed", bench.can.seed, "every seed says the same here, which proves nothing")
    return judged("seed", bench.can.seed, said(beside) == said(alone))


def said(completion: Completion) -> tuple[object, ...]:
    """What two equal samples have in common."""
    return completion.text, completion.token_ids


async def json_schema(bench: ModelUnderTest) -> CapabilityResult:
    """A reply satisfies a schema that nobody told the model of."""
    try:
        reply = await bench.ask(temperature=0, max_tokens=TRIAL_TOKENS, logprobs=False, json_schema=TRIAL_SCHEMA)
    except CapabilityMissing:
        return judged("json_schema", bench.can.json_schema, False)
    return judged("json_schema", bench.can.json_schema, is_trial(reply.text))


async def tools(bench: ModelUnderTest) -> CapabilityResult:
    """A prompt is longer by the tools that it comes with."""
    try:
        beside = await bench.ask(ASK.model_copy(update={"tools": (TRIAL_TOOL,)}), temperature=0, max_tokens=1)
    except CapabilityMissing:
        return judged("tools", bench.can.tools, False)
    return judged("tools", bench.can.tools, beside.usage.prompt_tokens > bench.first.usage.prompt_tokens > 0)


async def forks(bench: ModelUnderTest) -> CapabilityResult:
    """A second prompt that begins like the first takes its keys and values over."""
    start = long_text(bench)
    await bench.ask(Prompt.user(f"{start} Say one of them."), temperature=0, max_tokens=1)
    second = await bench.ask(Prompt.user(f"{start} Add them up."), temperature=0, max_tokens=1)
    cached, whole = second.usage.cached_tokens, second.usage.prompt_tokens
    return judged("forks", bench.can.forks, cached > 0, f"{cached} of {whole} prompt tokens came from the cache")


def long_text(bench: ModelUnderTest) -> str:
    """A text of some hundred tokens that no cache has seen, or as much as the context allows."""
    draw = random.Random(secrets.token_hex(8))  # noqa: S311 (it is no secret, only new)
    count = 120 if (bench.can.context_tokens or 4096) >= 1024 else 12
    return "Keep these numbers in mind: " + ", ".join(str(draw.randrange(100, 1000)) for _ in range(count)) + "."


async def pins(bench: ModelUnderTest) -> CapabilityResult:
    """A prefix that is kept under a name is taken over by a prompt that begins with it."""
    if not bench.can.pins:
        return judged("pins", False, False)
    store, name = kv_store_of(bench.model), f"measuring-{secrets.token_hex(6)}"
    prompt = Prompt(text=long_text(bench))
    kept = await store.save(name, prompt)
    try:
        reply = await bench.ask(prompt.with_prefix(" And"), temperature=0, max_tokens=1)
        listed = name in [state.saved.name for state in await store.saved()]
    finally:
        await store.drop(name)
    cached, stored = reply.usage.cached_tokens, kept.saved.stored
    note = f"{cached} of {stored} tokens kept were taken over; {kept.saved.nbytes / 1e6:.1f} MB on disk"
    return judged("pins", True, listed and cached > 0 and cached >= stored - 64, note)


async def kv_sharing(bench: ModelUnderTest) -> CapabilityResult:
    """What one worker reads changes the chances of what another one draws in the same pass."""
    model = bench.model
    if not bench.can.kv_sharing or not isinstance(model, SupportsWorkers):
        return judged("kv_sharing", bench.can.kv_sharing, False)
    drawn: list[WorkerToken | None] = []
    for text in (" one, two", " nine, ten", " one, two"):
        group = await model.start_workers(
            WorkerGroupConfig(prompt=ASK, layout="contiguous", own_header=" Mine:", temperature=0)
        )
        try:
            drawn.append(
                (await group.advance(GroupStep(inputs=(WorkerInput(text=" I say"), WorkerInput(text=text)))))[0]
            )
            bench.usage.append(group.usage)
        finally:
            await group.aclose()
    first, other, again = drawn
    return judged("kv_sharing", True, first == again and first != other)


async def context_tokens(bench: ModelUnderTest) -> CapabilityResult:
    """A request that fills the context is taken, and one that needs a token more is refused."""
    declared = bench.can.context_tokens
    if declared is None:
        return unmeasured("context_tokens", None, "unknown")
    counted = bench.model.count_tokens(ASK)
    over, fits = await _taken(bench, declared), counted is None or await _taken(bench, declared - counted)
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
    """Whether a request for so many tokens is begun; it is stopped at its first piece."""
    if tokens < 1:
        return False
    request = Request(prompt=ASK, sampling=SamplingParams(temperature=0, max_tokens=tokens, seed=0))
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
    """The prices charged for the requests so far are those declared."""
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
    told = "no cost was told" if cost is None else f"${cost:.6f} for the requests above" if cost else "nothing charged"
    state = "ok" if good else "differs"
    return CapabilityResult(feature="prices", declared=declared, measured=cost, state=state, note=told)


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
    ("pins", pins),
    ("kv_sharing", kv_sharing),
    ("context_tokens", context_tokens),
)
"""The trials, in the order of the table; hooks and prices come after them."""


async def tried(
    bench: ModelUnderTest, feature: str, declared: object, trial: CapabilityCheck, seconds: float
) -> CapabilityResult:
    """Run a trial; what the model refuses or fails at is not there.

    Args:
        bench: The model.
        feature: The capability's name.
        declared: What the model says of it.
        trial: Its trial.
        seconds: Time left.
    """
    shown = declared if isinstance(declared, bool | int | float | str | None) else str(declared)
    if seconds <= 0:
        return unmeasured(feature, shown, "the time was up")
    try:
        async with asyncio.timeout(seconds) as clock:
            return await trial(bench)
    except TimeoutError:
        if not clock.expired():
            raise
        return unmeasured(feature, shown, "the time was up")
    except ReasonError as error:
        note = "" if isinstance(error, CapabilityMissing) and not declared else error.message
        return CapabilityResult(
            feature=feature, declared=shown, measured=False, state="differs" if declared else "ok", note=note
        )


async def entropy_probe(bench: ModelUnderTest, token: int) -> bool:
    """The entropy reported is the next token's own."""
    reply = await hooked(bench, "entropy_probe", {"first": 1}, 2)
    report: Any = reply.extras.get("entropy_probe")
    if not isinstance(report, dict) or report.get("positions") != [0]:
        return False
    if not bench.can.full_vocabulary:
        return bool(report["entropy"][0] >= 0)
    [exact] = await bench.model.next_token([ASK], top=1)
    return bool(abs(report["entropy"][0] - exact.entropy) < 0.05)


async def forbid_tokens(bench: ModelUnderTest, token: int) -> bool:
    """The most likely first token is not said."""
    first = bench.first.token_ids[0]
    reply = await hooked(bench, "forbid_tokens", {"ids": [first]}, 2)
    return bool(reply.token_ids) and first not in reply.token_ids


async def only_tokens(bench: ModelUnderTest, token: int) -> bool:
    """One token is said again and again."""
    return (await hooked(bench, "only_tokens", {"ids": [token]}, 3)).token_ids == (token,) * 3


async def steer(bench: ModelUnderTest, token: int) -> bool:
    """A token that is pushed hard is said."""
    return (await hooked(bench, "steer", {"ids": [token], "weight": 1000.0}, 2)).token_ids == (token,) * 2


async def step_control(bench: ModelUnderTest, token: int) -> bool:
    """The answer is opened by the token given, at the place given."""
    reply = await hooked(bench, "step_control", {"opener_ids": [token], "open_after_tokens": 2}, 3)
    return reply.token_ids[:2] == bench.first.token_ids[:2] and reply.token_ids[2:3] == (token,)


async def stop_on_confidence(bench: ModelUnderTest, token: int) -> bool:
    """A threshold that nothing reaches ends the text as soon as the window is full."""
    args = {"threshold": 1e6, "window": 2, "top": 2, "end_ids": [token]}
    return (await hooked(bench, "stop_on_confidence", args, 2)).token_ids[1:] == (token,)


async def contrast(bench: ModelUnderTest, token: int) -> bool:
    """Two requests with different prompts say the same tokens."""

    def member(role: str) -> Request:
        call = LogitsProcessorSpec(name="contrast", args={"pair": "measuring", "role": role})
        sampling = SamplingParams(temperature=1.0, seed=1, max_tokens=6, logits_processors=(call,))
        return Request(prompt=ASK if role == "expert" else OTHER, sampling=sampling)

    expert, amateur = await bench.batch([member("expert"), member("amateur")])
    report: Any = expert.extras.get("contrast")
    whole = isinstance(report, dict) and report.get("mixed") == len(expert.token_ids)
    return whole and expert.token_ids == amateur.token_ids


async def hooked(bench: ModelUnderTest, name: str, args: dict[str, Any], tokens: int) -> Completion:
    """A greedy sample with one hook."""
    return await bench.ask(temperature=0, max_tokens=tokens, logits_processors=(LogitsProcessorSpec(name=name, args=args),))


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


def hook_trial(name: str) -> CapabilityCheck:
    """The trial of a hook; one of another package is not measured, since nobody knows what it should do."""

    async def trial(bench: ModelUnderTest) -> CapabilityResult:
        effect, feature = EFFECTS.get(name), f"logits processor {name}"
        if effect is None:
            return unmeasured(feature, True, "of another package")
        said = bench.first.token_ids
        others = [i for i in said if i not in said[:3]]  # said later, so it does not end the text and is no surprise
        if not others:
            return unmeasured(feature, True, "the model hides its token ids, or says too few of them")
        return judged(feature, True, await effect(bench, others[0]))

    return trial


MAX_CHECK_TOKENS = (8000, 1000)
"""Most tokens that measuring takes, of prompts and of completions, speed included."""


def worst_cost_usd(can: Capabilities) -> float | None:
    """Most that measuring costs, in US dollars; None if the price is unknown."""
    if can.usd_per_prompt_token is None or can.usd_per_completion_token is None:
        return None
    prompt, completion = MAX_CHECK_TOKENS
    return prompt * can.usd_per_prompt_token + completion * can.usd_per_completion_token


async def check_capabilities(
    model: LanguageModel,
    *,
    only_declared: bool = False,
    seconds: float = 120.0,
    tell: Callable[[str, int, int], None] = lambda feature, done, total: None,
) -> AsyncIterator[CapabilityResult]:
    """What a model declares and what it does, capability by capability.

    Args:
        model: The model.
        only_declared: Whether to make no request at all.
        seconds: Time for all of it; what does not come in time is left as declared.
        tell: Told what comes next, how many are done, and how many there are.

    Raises:
        ReasonError: Not even a plain request works.
    """
    can, bench, until = model.capabilities, ModelUnderTest(model), time.monotonic() + seconds
    trials = [(name, getattr(can, name), trial) for name, trial in FEATURES]
    trials += [(f"logits processor {name}", True, hook_trial(name)) for name in sorted(can.logits_processors)]
    total = len(trials) + 2
    if not only_declared:
        tell("a plain request", 0, total)
        await bench.begin()
    for done, (feature, declared, trial) in enumerate(trials, 1):
        if only_declared:
            yield unmeasured(feature, declared, "")
            continue
        tell(feature, done, total)
        yield await tried(bench, feature, declared, trial, until - time.monotonic())
    if not can.logits_processors:
        yield (
            unmeasured("logits_processors", False, "")
            if only_declared
            else await tried(bench, "logits_processors", False, _no_hooks, until - time.monotonic())
        )
    yield unmeasured("max_batch", can.max_batch, "")
    shown = [can.usd_per_prompt_token, can.usd_per_completion_token]
    if only_declared:
        yield unmeasured("prices", list(shown) if can.price_known else None, "")
    else:
        yield await prices(bench)


async def _no_hooks(bench: ModelUnderTest) -> CapabilityResult:
    """A model without hooks refuses a request that has one, and does not leave it out in silence."""
    try:
        await bench.ask(
            temperature=0, max_tokens=1, logits_processors=(LogitsProcessorSpec(name="forbid_tokens", args={"ids": [0]}),)
        )
    except CapabilityMissing:
        return judged("logits_processors", False, False)
    return CapabilityResult(
        feature="logits_processors", declared=False, measured=False, state="differs", note="a request with a hook is not refused"
    )
