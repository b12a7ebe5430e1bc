"""Splits by digest: a question is in the same split whatever dataset, order or copy it comes in."""

from __future__ import annotations


def is_held_out(digest: str, share: float) -> bool:
    """Whether a question is held out; a larger share only adds to those that are.

    Args:
        digest: Digest of its text: hexadecimal, uniformly distributed.
        share: Share of all questions to hold out, in [0, 1).
    """
    return int(digest[:13], 16) < share * 16**13  # 52 bits: exact in a float
