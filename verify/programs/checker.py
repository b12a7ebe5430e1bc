"""`check_claim`: whether a program can tell that a claim is right or wrong; silent whenever in doubt."""

from __future__ import annotations

from .arithmetic import check_arithmetic_claim
from .dates import check_dates
from .text import ProgramVerdict
from .units import check_units

__all__ = ["ProgramVerdict", "check_claim"]

_CHECKS = (check_arithmetic_claim, check_units, check_dates)


def check_claim(claim_text: str) -> ProgramVerdict | None:
    """Check a claim's arithmetic, units and dates. Never raises, whatever the text is; linear in its length.

    Args:
        claim_text: One claim. It is data and is read by grammars of our own; nothing in it is evaluated.

    Returns:
        The first thing that is surely wrong; else what is right, of several the one that is the whole claim; None where
        there is nothing to check or anything else may be meant.
    """
    text = claim_text.encode("utf-8", "replace").decode("utf-8")  # halves of surrogate pairs are no text
    found = [verdict for check in _CHECKS if (verdict := check(text)) is not None]
    return min(found, key=lambda verdict: (verdict.holds, not verdict.is_complete), default=None)
