"""Which hooks work on a vLLM server: each of ours is tried by an effect that is visible.

A vLLM server ignores what no plug-in of it reads, so an accepted request proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...core.errors import BackendError, CapabilityMissing, UserError
from ...core.messages import Completion, HookCall, Prompt, Request, Sampling
from ..entropies import lower_entropy
from ..hooks import hook_names
from .model import LiteLLMModel

TOKENS = 6
SEED = 20
CERTAIN = 1000.0
"""A change of a logit, or a threshold of confidence, in nats, that no model outweighs."""
SILENT = frozenset({"only_tokens", "forbid_tokens", "steer"})
"""Our hooks that measure nothing, so that they are whole where no report comes back."""


@dataclass(frozen=True)
class _Trial:
    """A request that tries a hook.

    Attributes:
        hook: The hook.
        calls: What is asked for; the hook is among it.
        works: Whether the sample is what the hook makes of it.
    """

    hook: str
    calls: tuple[HookCall, ...]
    works: Callable[[Completion], bool]


async def working_hooks(model: LiteLLMModel, prompt: Prompt, listed: frozenset[str] | None) -> frozenset[str]:
    """The hooks that work on a server.

    A third party's hook is believed if it is installed both here and there and ours work; one over several requests is
    not, since a server does not begin them in one step. A server that gives no reports gets those of ours alone that
    have nothing to report.

    Args:
        model: The model, with all hooks among its capabilities.
        prompt: What to continue.
        listed: The hooks that the server lists; None if it has no such page.
    """
    known = hook_names(groups=False)
    ids, _ = await model.retried(lambda: model.ids_of(prompt))
    one = ids[-1]
    other = next((i for i in reversed(ids) if i != one), None)
    if other is None:
        return frozenset()
    trials = [t for t in _trials(one, other) if t.hook in (known & SILENT if listed is None else known & listed)]
    if not trials:
        return frozenset()
    top = min(20, model.capabilities.top_logprobs)
    requests = [
        Request(
            prompt=prompt,
            sampling=Sampling(max_tokens=TOKENS, seed=SEED, hooks=t.calls, top_logprobs=top, ignore_eos=True),
        )
        for t in trials
    ]
    try:
        made = [completion for [completion] in await model.generate(requests)]
    except (BackendError, CapabilityMissing, UserError):
        return frozenset()
    failed = {t.hook for t, c in zip(trials, made, strict=True) if not (c.ok and t.works(c))}
    working = {t.hook for t in trials} - failed
    if listed is not None and "only_tokens" in working:
        working |= (known & listed) - {t.hook for t in _trials(one, other)}
    return frozenset(working)


def _trials(one: int, other: int) -> list[_Trial]:
    """Trials of all our hooks with two tokens, which no model says six times of its own accord."""
    both = _call("only_tokens", ids=[one, other])
    opener = [one, other] * (TOKENS // 2)

    def says(token: int) -> Callable[[Completion], bool]:
        return lambda c: c.token_ids == (token,) * TOKENS

    return [
        _Trial("only_tokens", (_call("only_tokens", ids=[one]),), says(one)),
        # which of the two the model likes better is unknown, so each is tried
        _Trial("forbid_tokens", (both, _call("forbid_tokens", ids=[one])), says(other)),
        _Trial("forbid_tokens", (both, _call("forbid_tokens", ids=[other])), says(one)),
        _Trial("steer", (both, _call("steer", ids=[one], weight=CERTAIN)), says(one)),
        _Trial("steer", (both, _call("steer", ids=[other], weight=CERTAIN)), says(other)),
        _Trial(
            "step_control",
            (_call("step_control", opener_ids=opener, open_after_tokens=1),),
            lambda c: list(c.token_ids[1:]) == opener[: TOKENS - 1] and _extra(c, "step_control", "opened_at") == 1,
        ),
        _Trial(
            "stop_on_confidence",
            (_call("stop_on_confidence", threshold=CERTAIN, window=1, top=1, end_ids=[one]),),
            lambda c: says(one)(c) and _extra(c, "stop_on_confidence", "stopped_at") == 0,
        ),
        _Trial("entropy_probe", (_call("entropy_probe"),), _measured),
    ]


def _measured(made: Completion) -> bool:
    """Whether every token has an entropy, at least as large as the alternatives shown allow."""
    entropy = _extra(made, "entropy_probe", "entropy")
    if _extra(made, "entropy_probe", "positions") != list(range(TOKENS)) or len(entropy) != TOKENS:
        return False
    rows = made.top_logprobs or ((),) * TOKENS
    least = [lower_entropy([t.logprob for t in row]) for row in rows]
    return all(h >= low - 1e-2 for h, low in zip(entropy, least, strict=True))


def _extra(made: Completion, hook: str, name: str) -> Any:
    found: Any = made.extras.get(hook) or {}
    return found.get(name)


def _call(name: str, **args: Any) -> HookCall:
    return HookCall(name=name, args=args)
