"""`measure`: every capability of a model, declared and seen."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

from ...core.errors import CapabilityMissing
from ...core.messages import HookCall
from ..model import Capabilities, LanguageModel
from .bench import Bench
from .features import FEATURES, prices, tried
from .findings import Finding, judged, unmeasured
from .hook_effects import hook_trial

TRIAL_TOKENS = (8000, 1000)
"""Most tokens that measuring takes, of prompts and of completions, speed included."""


def worst_cost_usd(can: Capabilities) -> float | None:
    """Most that measuring costs, in US dollars; None if the price is unknown."""
    if can.usd_per_prompt_token is None or can.usd_per_completion_token is None:
        return None
    prompt, completion = TRIAL_TOKENS
    return prompt * can.usd_per_prompt_token + completion * can.usd_per_completion_token


async def measure(
    model: LanguageModel,
    *,
    only_declared: bool = False,
    seconds: float = 120.0,
    tell: Callable[[str, int, int], None] = lambda feature, done, total: None,
) -> AsyncIterator[Finding]:
    """What a model declares and what it does, capability by capability.

    Args:
        model: The model.
        only_declared: Whether to make no request at all.
        seconds: Time for all of it; what does not come in time is left as declared.
        tell: Told what comes next, how many are done, and how many there are.

    Raises:
        ReasonError: Not even a plain request works.
    """
    can, bench, until = model.capabilities, Bench(model), time.monotonic() + seconds
    trials = [(name, getattr(can, name), trial) for name, trial in FEATURES]
    trials += [(f"hook {name}", True, hook_trial(name)) for name in sorted(can.hooks)]
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
    if not can.hooks:
        yield (
            unmeasured("hooks", False, "")
            if only_declared
            else await tried(bench, "hooks", False, _no_hooks, until - time.monotonic())
        )
    yield unmeasured("max_batch", can.max_batch, "")
    shown = [can.usd_per_prompt_token, can.usd_per_completion_token]
    if only_declared:
        yield unmeasured("prices", list(shown) if can.price_known else None, "")
    else:
        yield await prices(bench)


async def _no_hooks(bench: Bench) -> Finding:
    """A model without hooks refuses a request that has one, and does not leave it out in silence."""
    try:
        await bench.ask(temperature=0, max_tokens=1, hooks=(HookCall(name="forbid_tokens", args={"ids": [0]}),))
    except CapabilityMissing:
        return judged("hooks", False, False)
    return Finding(
        feature="hooks", declared=False, measured=False, state="differs", note="a request with a hook is not refused"
    )
