"""Confidence of thoughts by groups of tokens, and the chains that it keeps for a vote. Pure arithmetic.

    confidence of a token   minus the mean log-probability of the k most likely tokens at its position: high where one
                            token has nearly all the mass
    confidence of a group   mean over `window` consecutive tokens, for each position of the window
    confidence of a chain   the mean of the lowest tenth of its groups

Source: Fu et al., "Deep Think with Confidence" (2025, arXiv:2508.15260), equations 2 to 4 and section 3.2 (offline
thinking: the chains of the highest confidence vote, each weighted by it).

Differs: of a thought shorter than the window, all tokens are one group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from ...core.messages import Completion, TopToken

TOP_LOGPROBS: Final = 20
"""Most likely tokens that count at a position."""
WINDOW: Final = 2048
"""Tokens of a group in the paper."""
BOTTOM_SHARE: Final = 0.1


def token_confidence(top: Sequence[TopToken]) -> float:
    """Minus the mean log-probability of the listed tokens, in nats; tokens of probability 0 do not count."""
    logprobs = [token.logprob for token in top if token.logprob > -math.inf]
    return -math.fsum(logprobs) / len(logprobs) if logprobs else 0.0


def group_confidences(confidences: Sequence[float], window: int) -> list[float]:
    """The mean of each `window` consecutive tokens; of fewer tokens their mean, of none nothing."""
    size = min(window, len(confidences))
    if not size:
        return []
    sums = [0.0, *accumulate(confidences)]
    return [(sums[i + size] - sums[i]) / size for i in range(len(confidences) - size + 1)]


def chain_confidence(confidences: Sequence[float], window: int = WINDOW) -> float | None:
    """Confidence of a chain from those of its tokens, in nats: the mean of the lowest tenth of its groups.

    Args:
        confidences: `token_confidence` of each token; None is returned without tokens.
        window: Tokens of a group.
    """
    groups = group_confidences(confidences, window)
    if not groups:
        return None
    lowest = sorted(groups)[: max(1, int(BOTTOM_SHARE * len(groups)))]
    return math.fsum(lowest) / len(lowest)


def thought_confidence(completion: Completion) -> float | None:
    """Confidence of a chain's thought, in nats; None if it has none, or if its log-probabilities are hidden."""
    if completion.top_logprobs is None:
        return None
    return chain_confidence([token_confidence(top) for top in completion.top_logprobs[: completion.answer_from]])


def most_confident(confidences: Sequence[float], keep: float) -> list[int]:
    """Positions of the share `keep` of highest confidence, ascending: at least one, of equals the first.

    Args:
        keep: In (0, 1]; the number is rounded up.
    """
    count = max(1, math.ceil(round(keep * len(confidences), 9)))
    ranking = sorted(range(len(confidences)), key=lambda i: (-confidences[i], i))
    return sorted(ranking[:count])
