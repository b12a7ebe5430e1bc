"""Seeds of samples: the sample's index decides, whatever else is asked for in the same request."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise


def sample_seed(seed: int, index: int) -> int:
    """The seed that a provider is given for a sample, below 2^31 for indices below 2^20.

    Consecutive indices get consecutive seeds, since a vLLM server gives the samples of one request the seeds
    s, s + 1, …; and the runs' own seeds are spread, so that those of two runs do not meet.
    """
    spread = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4], "big") >> 2
    return spread + index


def consecutive(indices: Sequence[int]) -> list[tuple[int, ...]]:
    """The indices cut into runs of neighbours: each can be one request whose seeds follow one another."""
    if len(indices) == 1:
        return [tuple(indices)]
    cuts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(indices)) if b != a + 1), len(indices)]
    return [tuple(indices[start:stop]) for start, stop in pairwise(cuts) if start < stop]
