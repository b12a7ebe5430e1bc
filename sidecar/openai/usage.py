"""What a request has cost, in OpenAI's shapes: every call of every run, discarded branches and verifiers included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...core.answer import RoleUsage, RunUsage
from .outcome import Outcome


def total(usages: Iterable[RunUsage]) -> RunUsage:
    """Several runs' usage as one; the seconds are the longest, since runs of a request go on at the same time."""
    known = list(usages)
    by_role: dict[str, RoleUsage] = {}
    for usage in known:
        for name, row in usage.by_role.items():
            by_role[name] = row if name not in by_role else _plus(by_role[name], row)
    return RunUsage(
        prompt_tokens=sum(u.prompt_tokens for u in known),
        cached_tokens=sum(u.cached_tokens for u in known),
        completion_tokens=sum(u.completion_tokens for u in known),
        model_calls=sum(u.model_calls for u in known),
        reward_calls=sum(u.reward_calls for u in known),
        replayed_calls=sum(u.replayed_calls for u in known),
        replayed_tokens=sum(u.replayed_tokens for u in known),
        cost_usd=_sum([u.cost_usd for u in known]),
        wall_seconds=max((u.wall_seconds for u in known), default=0.0),
        by_role=by_role,
    )


def chat_usage(outcomes: Sequence[Outcome], failed: Sequence[RunUsage] = ()) -> dict[str, Any]:
    """The `usage` of a chat completion.

    `completion_tokens` are all that was generated; `reasoning_tokens` those of them that are not in the content that is
    returned: thoughts, other candidates, judges and verifiers.

    Args:
        outcomes: What the runs came to.
        failed: What runs have cost that came to nothing.
    """
    spent = total([*(o.answer.usage for o in outcomes), *failed])
    said = sum(o.content_tokens for o in outcomes)
    return {
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.completion_tokens,
        "total_tokens": spent.prompt_tokens + spent.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": spent.cached_tokens,
            "cache_write_tokens": 0,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": spent.completion_tokens - said,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
            "audio_tokens": 0,
        },
    }


def response_usage(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The `usage` of a response; the same numbers under other names."""
    chat = chat_usage(outcomes)
    return {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": chat["prompt_tokens_details"]["cached_tokens"],
            "cache_write_tokens": 0,
        },
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": chat["completion_tokens_details"]["reasoning_tokens"]},
        "total_tokens": chat["total_tokens"],
    }


def _plus(a: RoleUsage, b: RoleUsage) -> RoleUsage:
    return RoleUsage(
        model=a.model,
        prompt_tokens=a.prompt_tokens + b.prompt_tokens,
        cached_tokens=a.cached_tokens + b.cached_tokens,
        completion_tokens=a.completion_tokens + b.completion_tokens,
        model_calls=a.model_calls + b.model_calls,
        reward_calls=a.reward_calls + b.reward_calls,
        replayed_calls=a.replayed_calls + b.replayed_calls,
        replayed_tokens=a.replayed_tokens + b.replayed_tokens,
        cost_usd=_sum([a.cost_usd, b.cost_usd]),
        working_s=a.working_s + b.working_s,
        waited_s=a.waited_s + b.waited_s,
    )


def _sum(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None
