"""Trials of the logits hooks: each is asked for something that a sample would not do of its own accord."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ...core.messages import Completion, HookCall, Request, Sampling
from .bench import ASK, OTHER, Bench
from .features import Trial
from .findings import Finding, judged, unmeasured


async def entropy_probe(bench: Bench, token: int) -> bool:
    """The entropy reported is the next token's own."""
    reply = await hooked(bench, "entropy_probe", {"first": 1}, 2)
    report: Any = reply.extras.get("entropy_probe")
    if not isinstance(report, dict) or report.get("positions") != [0]:
        return False
    if not bench.can.full_vocabulary:
        return bool(report["entropy"][0] >= 0)
    [exact] = await bench.model.next_token([ASK], top=1)
    return bool(abs(report["entropy"][0] - exact.entropy) < 0.05)


async def forbid_tokens(bench: Bench, token: int) -> bool:
    """The most likely first token is not said."""
    first = bench.first.token_ids[0]
    reply = await hooked(bench, "forbid_tokens", {"ids": [first]}, 2)
    return bool(reply.token_ids) and first not in reply.token_ids


async def only_tokens(bench: Bench, token: int) -> bool:
    """One token is said again and again."""
    return (await hooked(bench, "only_tokens", {"ids": [token]}, 3)).token_ids == (token,) * 3


async def steer(bench: Bench, token: int) -> bool:
    """A token that is pushed hard is said."""
    return (await hooked(bench, "steer", {"ids": [token], "weight": 1000.0}, 2)).token_ids == (token,) * 2


async def step_control(bench: Bench, token: int) -> bool:
    """The answer is opened by the token given, at the place given."""
    reply = await hooked(bench, "step_control", {"opener_ids": [token], "open_after_tokens": 2}, 3)
    return reply.token_ids[:2] == bench.first.token_ids[:2] and reply.token_ids[2:3] == (token,)


async def stop_on_confidence(bench: Bench, token: int) -> bool:
    """A threshold that nothing reaches ends the text as soon as the window is full."""
    args = {"threshold": 1e6, "window": 2, "top": 2, "end_ids": [token]}
    return (await hooked(bench, "stop_on_confidence", args, 2)).token_ids[1:] == (token,)


async def contrast(bench: Bench, token: int) -> bool:
    """Two requests with different prompts say the same tokens."""

    def member(role: str) -> Request:
        call = HookCall(name="contrast", args={"pair": "measuring", "role": role})
        sampling = Sampling(temperature=1.0, seed=1, max_tokens=6, hooks=(call,))
        return Request(prompt=ASK if role == "expert" else OTHER, sampling=sampling)

    expert, amateur = await bench.batch([member("expert"), member("amateur")])
    report: Any = expert.extras.get("contrast")
    whole = isinstance(report, dict) and report.get("mixed") == len(expert.token_ids)
    return whole and expert.token_ids == amateur.token_ids


async def hooked(bench: Bench, name: str, args: dict[str, Any], tokens: int) -> Completion:
    """A greedy sample with one hook."""
    return await bench.ask(temperature=0, max_tokens=tokens, hooks=(HookCall(name=name, args=args),))


Effect = Callable[[Bench, int], Awaitable[bool]]

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


def hook_trial(name: str) -> Trial:
    """The trial of a hook; one of another package is not measured, since nobody knows what it should do."""

    async def trial(bench: Bench) -> Finding:
        effect, feature = EFFECTS.get(name), f"hook {name}"
        if effect is None:
            return unmeasured(feature, True, "of another package")
        said = bench.first.token_ids
        others = [i for i in said if i not in said[:3]]  # said later, so it does not end the text and is no surprise
        if not others:
            return unmeasured(feature, True, "the model hides its token ids, or says too few of them")
        return judged(feature, True, await effect(bench, others[0]))

    return trial
