"""What a reply cost: tokens by sample, from the provider's own count where it gives one, and dollars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.messages import Usage
from .reading import Sample
from .target import Target, load_litellm

MOST_TOKENS = 1 << 40
"""What says more of one reply is no count."""


@dataclass(frozen=True)
class Prices:
    """Dollars per token; None where nobody knows.

    Attributes:
        prompt: Of the prompt.
        completion: Of the completion.
        cached: Of prompt tokens that the provider had cached.
    """

    prompt: float | None = None
    completion: float | None = None
    cached: float | None = None

    def cost(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> float | None:
        """Dollars; None if a price is unknown."""
        if self.prompt is None or self.completion is None:
            return None
        cached = self.prompt if self.cached is None else self.cached
        fresh = prompt_tokens - cached_tokens
        return fresh * self.prompt + cached_tokens * cached + completion_tokens * self.completion


def find_prices(target: Target) -> tuple[Prices, int | None]:
    """Prices and context length of a model in LiteLLM's map; the settings' own prices come first."""
    litellm = load_litellm()
    known: dict[str, Any] = litellm.model_cost.get(f"{target.provider}/{target.served}") or {}
    own_place = target.settings.api_base is not None or target.vllm
    if not known and not own_place:
        # the plain name means the provider's own service, not somebody's server that speaks its language
        plain = litellm.model_cost.get(target.served) or {}
        known = plain if plain.get("litellm_provider") == target.provider else {}
    if own_place:
        known = {}
    settings = target.settings
    given = settings.usd_per_prompt_token, settings.usd_per_completion_token
    prices = Prices(
        prompt=known.get("input_cost_per_token") if given[0] is None else given[0],
        completion=known.get("output_cost_per_token") if given[1] is None else given[1],
        cached=known.get("cache_read_input_token_cost") if given[0] is None else None,
    )
    context = known.get("max_input_tokens") or known.get("max_tokens")
    return prices, context if isinstance(context, int) else None


def share(usage: Any, samples: Sequence[Sample], prices: Prices, target: Target, waited_s: float) -> list[Usage]:
    """Each sample's part of a reply's usage; the prompt belongs to the first.

    Where the provider gives no usage, or one that is no count of tokens, the tokens are those that were seen, or else
    LiteLLM's count of the text.

    Args:
        usage: What the provider sent as `usage`; None if it sent none.
        samples: The reply's samples.
        prices: What tokens cost.
        target: Where the reply comes from.
        waited_s: Seconds that the request waited; they are told on the first sample.
    """
    seen = [s.tokens for s in samples]
    prompt = cached = thoughts = 0
    counts = _counts(usage)
    if counts is not None:
        prompt, cached, thoughts, total = counts
        if len(samples) == 1:
            made = [total]
        elif all(t is not None for t in seen) and sum(t or 0 for t in seen) == total:
            made = [t or 0 for t in seen]
        else:
            made = _split(total, [t or s.pieces for t, s in zip(seen, samples, strict=True)])
    else:
        made = [_counted(s, target) if t is None else t for t, s in zip(seen, samples, strict=True)]
    shares = []
    for i, tokens in enumerate(made):
        first = i == 0
        paid = (prompt, min(cached, prompt)) if first else (0, 0)
        shares.append(
            Usage(
                prompt_tokens=paid[0],
                cached_tokens=paid[1],
                completion_tokens=tokens,
                reasoning_tokens=min(thoughts, tokens) if first else 0,
                waited_s=waited_s if first else 0.0,
                cost_usd=prices.cost(*paid, tokens),
            )
        )
    return shares


def _counts(usage: Any) -> tuple[int, int, int, int] | None:
    """Tokens of the prompt, those cached, those of thoughts and all generated ones; None if they cannot be read."""
    if not isinstance(usage, Mapping):
        return None
    read, made = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    told = (
        usage.get("prompt_tokens"),
        read.get("cached_tokens") if isinstance(read, Mapping) else None,
        made.get("reasoning_tokens") if isinstance(made, Mapping) else None,
        usage.get("completion_tokens"),
    )
    prompt, cached, thoughts, total = (0 if count is None else count for count in told)
    if not all(isinstance(count, int) and 0 <= count <= MOST_TOKENS for count in (prompt, cached, thoughts, total)):
        return None
    return prompt, cached, thoughts, total


def _split(total: int, weights: Sequence[int]) -> list[int]:
    """A number cut into whole parts that sum to it, in proportion to the weights."""
    whole = sum(weights)
    if whole == 0:
        weights, whole = [1] * len(weights), len(weights)
    marks = [total * sum(weights[: i + 1]) // whole for i in range(len(weights))]
    return [b - a for a, b in zip([0, *marks], marks, strict=False)]


def _counted(sample: Sample, target: Target) -> int:
    called = "".join(call.name + "".join(call.arguments) for call in sample.calls.values())
    text = "".join(sample.reasoning) + "".join(sample.text) + called
    return int(load_litellm().token_counter(model=target.served, text=text)) if text else 0
