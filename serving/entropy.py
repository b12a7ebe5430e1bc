"""What the entropy of a next token is at least, where only its likeliest alternatives are known.

How uncertain a model is of its next token: entropies in nats, of all that is known of the distribution.

    exact       H      = - sum over the vocabulary of p ln p
    top k       H_top  = - sum over the k likeliest of q ln q,   q = p / S,   S the mass of the k
    sampled     plug-in entropy of n drawn tokens, with the correction of Miller and Madow

They are different scales: H_top <= ln k and H_top <= H, and a sampled entropy is at most ln n + (n - 1) / 2n. A
threshold for one means something else for another.

Source: Zeng et al. 2026, "GlimpRouter", arXiv:2601.05110, whose program computes H_top with k = 20; Miller 1955 for the
correction. The bounds are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def min_entropy(logprobs: Sequence[float]) -> float:
    """Entropy in nats if the mass that is not shown lay on a single token: the least that it can be, but for rounding.

    Args:
        logprobs: Log-probabilities of some tokens, in nats.
    """
    shown = [p for p in (math.exp(v) for v in logprobs) if p > 0]
    rest = 1.0 - math.fsum(shown)
    masses = [*shown, rest] if rest > 0 else shown
    return max(0.0, -math.fsum(p * math.log(p) for p in masses))


def top_k_entropy(logprobs: Sequence[float]) -> float:
    """Entropy of the listed tokens alone, their probabilities made to sum to 1, in nats.

    Exactly ln k for k equal ones and 0 for a single one. The list may be of any scale, since it is normalised.

    Args:
        logprobs: Natural log-probabilities of the likeliest tokens; minus infinity is no token.

    Raises:
        ValueError: There is no token in it.
    """
    known = [value for value in logprobs if value > -math.inf]
    if not known:
        raise ValueError("no token has a log-probability")
    top = max(known)
    if all(value == top for value in known):
        return math.log(len(known))
    weights = [math.exp(value - top) for value in known]
    whole = math.fsum(weights)
    moment = math.fsum(weight * (value - top) for weight, value in zip(weights, known, strict=True))
    return max(0.0, math.log(whole) - moment / whole)


def covered_mass(logprobs: Sequence[float]) -> float:
    """The probability that the listed tokens have together, in [0, 1]."""
    return min(1.0, math.fsum(math.exp(value) for value in logprobs))


def bounds(h_top: float, mass: float, p_k: float, k: int, vocabulary: int) -> tuple[float, float]:
    """Between what the entropy over the whole vocabulary lies, in nats.

    With S the mass of the k likeliest tokens, h(S) = -S ln S - (1 - S) ln(1 - S), and p_k the least of the k:

        S H_top + h(S) + (1 - S) max(0, ln((1 - S) / p_k))  <=  H  <=  S H_top + h(S) + (1 - S) ln(V - k)

    The rest is least uncertain if it sits in as few tokens as it can, none likelier than p_k, and most if it is spread
    evenly.

    Args:
        h_top: `top_k_entropy` of the k likeliest.
        mass: Their `covered_mass`, in (0, 1].
        p_k: Probability of the k-th.
        k: How many they are.
        vocabulary: Tokens of the vocabulary, at least k.

    Returns:
        The lower and the upper bound; equal where the k tokens are all there is.
    """
    rest = 1 - mass
    known = mass * h_top
    if rest <= 0 or vocabulary <= k:
        return known, known
    mixed = known - mass * math.log(mass) - rest * math.log(rest)
    least = mixed + (rest * max(0.0, math.log(rest / p_k)) if p_k > 0 else 0.0)
    return least, max(least, mixed + rest * math.log(vocabulary - k))


def plug_in_entropy(counts: Iterable[int]) -> float:
    """Entropy of a distribution of which a few draws are known, in nats: that of the shares, and (m - 1) / 2n more.

    The second term makes up for most of what the entropy of shares falls short by, with m different tokens among n.

    Args:
        counts: How often each token was drawn.

    Raises:
        ValueError: Nothing was drawn.
    """
    drawn = [count for count in counts if count > 0]
    n = sum(drawn)
    if not n:
        raise ValueError("an entropy needs at least one draw")
    of_shares = math.log(n) - math.fsum(count * math.log(count) for count in drawn) / n
    return max(0.0, of_shares) + (len(drawn) - 1) / (2 * n)
