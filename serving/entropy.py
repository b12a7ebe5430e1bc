"""Entropies of a next-token distribution, in nats, from what is known of it.

    exact       H      = - sum over the vocabulary of p ln p
    top k       H_top  = - sum over the k most likely tokens of q ln q,   q = p / S,   S their probability mass
    sampled     plug-in entropy of n sampled tokens, with the correction of Miller and Madow

These are different scales: H_top <= ln k and H_top <= H, and a sampled entropy is at most ln n + (n - 1) / 2n. A
threshold for one has no meaning for another.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110, whose program computes H_top with k = 20; Miller 1955 for the
correction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from ..core.messages import Completion, NextTokenDistribution, TopToken

EntropyKind = Literal["full", "top_k", "sampled"]
"""Over the complete vocabulary; over the k most likely tokens, renormalised; or estimated from k samples."""


def top_k_entropy(logprobs: Sequence[float]) -> float:
    """Entropy of the listed tokens only, with their probabilities renormalised, in nats.

    Exactly ln k for k equal ones and 0 for a single one. The scale of the list does not matter.

    Args:
        logprobs: Natural log-probabilities of the most likely tokens; minus infinity is no token.

    Raises:
        ValueError: No token has a log-probability.
    """
    known = [value for value in logprobs if value > -math.inf]
    if not known:
        raise ValueError("no token has a log-probability")
    top = max(known)
    if all(value == top for value in known):
        return math.log(len(known))
    weights = [math.exp(value - top) for value in known]
    total = math.fsum(weights)
    moment = math.fsum(weight * (value - top) for weight, value in zip(weights, known, strict=True))
    return max(0.0, math.log(total) - moment / total)


def min_entropy(logprobs: Sequence[float]) -> float:
    """Lower bound of the entropy over the vocabulary: the mass that is not listed as one token.

    Args:
        logprobs: Natural log-probabilities of some tokens.
    """
    listed = [p for p in (math.exp(v) for v in logprobs) if p > 0]
    rest = 1.0 - math.fsum(listed)
    masses = [*listed, rest] if rest > 0 else listed
    return max(0.0, -math.fsum(p * math.log(p) for p in masses))


def covered_mass(logprobs: Sequence[float]) -> float:
    """Probability mass of the listed tokens, in [0, 1]."""
    return min(1.0, math.fsum(math.exp(value) for value in logprobs))


def plug_in_entropy(counts: Iterable[int]) -> float:
    """Entropy of a distribution from samples, in nats: that of the frequencies, plus (m - 1) / 2n.

    The second term corrects most of the bias of the first, with m distinct tokens among n samples.

    Args:
        counts: Number of samples of each token.

    Raises:
        ValueError: There are no samples.
    """
    positive = [count for count in counts if count > 0]
    n = sum(positive)
    if not n:
        raise ValueError("an entropy needs at least one sample")
    of_frequencies = math.log(n) - math.fsum(count * math.log(count) for count in positive) / n
    return max(0.0, of_frequencies) + (len(positive) - 1) / (2 * n)


def token_distribution(top: Sequence[TopToken], completion: Completion) -> NextTokenDistribution:
    """The distribution of a sample's token from its most likely ones; the entropy is that of `entropy_probe` if used.

    Args:
        top: The most likely tokens at the position, best first.
        completion: The sample.
    """
    logprobs = tuple(token.logprob for token in top)
    probe: Any = completion.extras.get("entropy_probe")
    return NextTokenDistribution(
        token_ids=tuple(token.token_id for token in top),
        tokens=tuple(token.token for token in top),
        logprobs=logprobs,
        entropy=min_entropy(logprobs) if probe is None else probe["entropy"][0],
        support="top_k" if probe is None else "full",
        usage=completion.usage,
    )
