"""The distribution of the next token on vLLM: one token is sampled for each prompt, and its alternatives are listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.errors import BackendError
from ...core.messages import Completion, HookCall, NextToken, Prompt, Request, Sampling
from ..entropies import lower_entropy


def asking(prompts: Sequence[Prompt], top: int, *, whole: bool) -> list[Request]:
    """Requests whose completions tell the distributions.

    Args:
        prompts: What stands before the token.
        top: Alternatives that are listed.
        whole: Whether a hook can measure the entropy over the whole vocabulary.
    """
    hooks = (HookCall(name="entropy_probe"),) if whole else ()
    sampling = Sampling(temperature=0, max_tokens=1, top_logprobs=top, hooks=hooks, ignore_eos=True)
    return [Request(prompt=p, sampling=sampling) for p in prompts]


def distribution(completion: Completion) -> NextToken:
    """What such a completion tells.

    Raises:
        BackendError: It failed, or lists nothing.
    """
    if completion.failure is not None or not completion.top_logprobs:
        raise BackendError(f"vLLM returned no distribution: {completion.failure}")
    top = completion.top_logprobs[0]
    probe: Any = completion.extras.get("entropy_probe")
    logprobs = tuple(t.logprob for t in top)
    return NextToken(
        token_ids=tuple(t.token_id for t in top),
        tokens=tuple(t.token for t in top),
        logprobs=logprobs,
        entropy=lower_entropy(logprobs) if probe is None else probe["entropy"][0],
        support="top_k" if probe is None else "full",
        usage=completion.usage.model_copy(update={"completion_tokens": 0}),
    )
