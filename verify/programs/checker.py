"""Checks of a claim by programs: arithmetic, units, dates, relations of quantities. Nothing is returned if in doubt."""

from __future__ import annotations

from .arithmetic import check_arithmetic_claim
from .dates import check_dates
from .relations import check_relations
from .text import ProgramVerdict
from .units import check_units

__all__ = ["ProgramVerdict", "check_claim"]

_CHECKS = (check_arithmetic_claim, check_units, check_dates, check_relations)


def check_claim(claim_text: str) -> ProgramVerdict | None:
    """Check a claim's arithmetic, units, dates and relations. Never raises, whatever the text is; linear in its length.

    Args:
        claim_text: One claim. It is data, parsed by our own grammars; nothing in it is evaluated.

    Returns:
        The first wrong part; else a correct part, preferably the complete claim; None if there is nothing to check or
        the claim may mean something else.
    """
    text = claim_text.encode("utf-8", "replace").decode("utf-8")  # replace lone surrogates
    verdicts = [verdict for check in _CHECKS if (verdict := check(text)) is not None]
    return min(verdicts, key=lambda verdict: (verdict.holds, not verdict.is_complete), default=None)
