"""The seven aspects under which a model assesses its own reasoning: the navigator's whole view of it.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

ASPECTS: Final = ("A1", "A2", "A3", "B1", "B2", "C1", "C2")
"""Correctness of the modelling, clarity for further reasoning, correctness of the calculation; complexity still ahead,
existence of alternative methods; closeness to the final answer, completeness within the step."""

State: TypeAlias = tuple[int, int, int, int, int, int, int]
"""A score for each of `ASPECTS`: 1 false, 2 unsure, 3 true, 0 not involved."""

NAMED: Final = re.compile(r"(?<![A-Za-z0-9])(A[123]|B[12]|C[12])(?![A-Za-z0-9])", re.IGNORECASE)
"""The name of an aspect, as a word; an underscore ends a word."""
