"""Log-probabilities of a given continuation, with the prefix taken from vLLM's cache.

By default vLLM does not read its cache for a request that wants log-probabilities of its prompt. Told to, it returns
right values behind the cached part, and whatever lay in memory for the cached part itself: the value of token i is
valid if and only if i > number of cached tokens. And text must not be made of those, which would end the engine's
output. Hence the two flags always go together, and a result whose continuation was itself cached is thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.messages import Scored, Usage

VALUES = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0, "detokenize": False}


def scoring_arguments(cached: bool) -> dict[str, Any]:
    """Arguments of `SamplingParams` that score a prompt.

    Args:
        cached: Whether the cache may be read.
    """
    return VALUES | {"skip_reading_prefix_cache": not cached}


def is_valid(output: Any, before: int) -> bool:
    """Whether the values of all tokens from position `before` on were computed."""
    return (output.num_cached_tokens or 0) < before


def scored(output: Any, ids: Sequence[int], before: int) -> Scored:
    """The result.

    Args:
        output: vLLM's, valid from `before` on.
        ids: All tokens.
        before: Tokens that stand before the continuation, at least one.
    """
    entries = [output.prompt_logprobs[i][ids[i]] for i in range(before, len(ids))]
    return Scored(
        token_ids=tuple(ids[before:]),
        logprobs=tuple(e.logprob for e in entries),
        greedy=all(e.rank == 1 for e in entries),
        usage=Usage(prompt_tokens=len(ids), cached_tokens=output.num_cached_tokens or 0),
    )
