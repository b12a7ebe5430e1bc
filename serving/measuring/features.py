"""Trials of capabilities: each makes a small request whose effect is visible, and looks at the effect."""

from __future__ import annotations

import asyncio
import math
import random
import secrets
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from ...core.errors import CapabilityMissing, ContextTooLong, ReasonError
from ...core.messages import Completion, Prompt, Request, Sampling
from ..grammars import TRIAL_SCHEMA, TRIAL_TOKENS, is_trial
from ..kv_store import kv_store_of
from ..tool_calls import TRIAL_TOOL
from ..workers import Drawn, Fed, Opening, Pass, SharesCache
from .bench import ASK, OTHER, Bench
from .findings import Finding, State, judged, unmeasured

NEAR_NATS = 0.35
"""Most that two computations of one log-probability in bf16 may lie apart: logits of 32 to 64 are quarters."""

ROUNDING = 1e-3

MOST_ASKED = 1000
"""Most alternatives that a request may ask for (`Sampling.top_logprobs`)."""

Trial = Callable[[Bench], Awaitable[Finding]]


async def logprobs(bench: Bench) -> Finding:
    """Log-probabilities of the tokens said."""
    shown = bench.first.logprobs
    good = bool(shown) and all(math.isfinite(v) and v <= ROUNDING for v in shown or ())
    if good and bench.first.token_ids:
        good = len(shown or ()) == len(bench.first.token_ids)
    return judged("logprobs", bench.can.logprobs, good)


async def top_logprobs(bench: Bench) -> Finding:
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
    return Finding(feature="top_logprobs", declared=declared, measured=found, state=state)


async def full_vocabulary(bench: Bench) -> Finding:
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


async def scoring(bench: Bench) -> Finding:
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


async def prefix(bench: Bench) -> Finding:
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


async def seed(bench: Bench) -> Finding:
    """The same seed says the same, alone and in a batch, and other seeds say something else."""

    def one(number: int, prompt: Prompt = ASK) -> Request:
        return Request(prompt=prompt, sampling=Sampling(temperature=1.0, max_tokens=12, seed=number))

    [alone] = await bench.batch([one(1)])
    [_, beside, *others] = await bench.batch([one(4, OTHER), one(1), one(2), one(3)])
    if all(said(o) == said(alone) for o in others):
        return unmeasured("seed", bench.can.seed, "every seed says the same here, which proves nothing")
    return judged("seed", bench.can.seed, said(beside) == said(alone))


def said(completion: Completion) -> tuple[object, ...]:
    """What two equal samples have in common."""
    return completion.text, completion.token_ids


async def json_schema(bench: Bench) -> Finding:
    """A reply satisfies a schema that nobody told the model of."""
    try:
        reply = await bench.ask(temperature=0, max_tokens=TRIAL_TOKENS, logprobs=False, json_schema=TRIAL_SCHEMA)
    except CapabilityMissing:
        return judged("json_schema", bench.can.json_schema, False)
    return judged("json_schema", bench.can.json_schema, is_trial(reply.text))


async def tools(bench: Bench) -> Finding:
    """A prompt is longer by the tools that it comes with."""
    try:
        beside = await bench.ask(ASK.model_copy(update={"tools": (TRIAL_TOOL,)}), temperature=0, max_tokens=1)
    except CapabilityMissing:
        return judged("tools", bench.can.tools, False)
    return judged("tools", bench.can.tools, beside.usage.prompt_tokens > bench.first.usage.prompt_tokens > 0)


async def forks(bench: Bench) -> Finding:
    """A second prompt that begins like the first takes its keys and values over."""
    start = long_text(bench)
    await bench.ask(Prompt.user(f"{start} Say one of them."), temperature=0, max_tokens=1)
    second = await bench.ask(Prompt.user(f"{start} Add them up."), temperature=0, max_tokens=1)
    cached, whole = second.usage.cached_tokens, second.usage.prompt_tokens
    return judged("forks", bench.can.forks, cached > 0, f"{cached} of {whole} prompt tokens came from the cache")


def long_text(bench: Bench) -> str:
    """A text of some hundred tokens that no cache has seen, or as much as the context allows."""
    draw = random.Random(secrets.token_hex(8))  # noqa: S311 (it is no secret, only new)
    count = 120 if (bench.can.context_tokens or 4096) >= 1024 else 12
    return "Keep these numbers in mind: " + ", ".join(str(draw.randrange(100, 1000)) for _ in range(count)) + "."


async def pins(bench: Bench) -> Finding:
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


async def kv_sharing(bench: Bench) -> Finding:
    """What one worker reads changes the chances of what another one draws in the same pass."""
    model = bench.model
    if not bench.can.kv_sharing or not isinstance(model, SharesCache):
        return judged("kv_sharing", bench.can.kv_sharing, False)
    drawn: list[Drawn | None] = []
    for text in (" one, two", " nine, ten", " one, two"):
        group = await model.open_workers(Opening(prompt=ASK, layout="contiguous", own=" Mine:", temperature=0))
        try:
            drawn.append((await group.advance(Pass(feeds=(Fed(text=" I say"), Fed(text=text)))))[0])
            bench.usage.append(group.usage)
        finally:
            await group.aclose()
    first, other, again = drawn
    return judged("kv_sharing", True, first == again and first != other)


async def context_tokens(bench: Bench) -> Finding:
    """A request that fills the context is taken, and one that needs a token more is refused."""
    declared = bench.can.context_tokens
    if declared is None:
        return unmeasured("context_tokens", None, "unknown")
    counted = bench.model.count_tokens(ASK)
    over, fits = await _taken(bench, declared), counted is None or await _taken(bench, declared - counted)
    good = fits and not over
    note = "" if good else "a longer request was taken" if over else "a request of this length was refused"
    return Finding(
        feature="context_tokens",
        declared=declared,
        measured=declared if good else None,
        state="ok" if good else "differs",
        note=note,
    )


async def _taken(bench: Bench, tokens: int) -> bool:
    """Whether a request for so many tokens is begun; it is stopped at its first piece."""
    if tokens < 1:
        return False
    request = Request(prompt=ASK, sampling=Sampling(temperature=0, max_tokens=tokens, seed=0))
    try:
        async with aclosing(bench.model.stream(request)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                if piece.completion is not None and piece.completion.failure is not None:
                    return piece.completion.failure.code != ContextTooLong.code
                return True
    except ContextTooLong:
        return False
    return True


async def prices(bench: Bench) -> Finding:
    """The prices charged for the requests so far are those declared."""
    can = bench.can
    declared = [can.usd_per_prompt_token, can.usd_per_completion_token]
    shown = [u.cost_usd for u in bench.usage]
    known = [c for c in shown if c is not None]
    cost = math.fsum(known) if len(known) == len(shown) else None
    if can.usd_per_prompt_token is None or can.usd_per_completion_token is None:
        state: State = "ok" if cost is None else "more"
        return Finding(
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
    return Finding(feature="prices", declared=declared, measured=cost, state=state, note=told)


FEATURES: tuple[tuple[str, Trial], ...] = (
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


async def tried(bench: Bench, feature: str, declared: object, trial: Trial, seconds: float) -> Finding:
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
        return Finding(
            feature=feature, declared=shown, measured=False, state="differs" if declared else "ok", note=note
        )
