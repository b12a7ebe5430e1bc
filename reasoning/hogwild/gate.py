"""Which models are known to work together.

Source: Rodionov et al. 2025, Hogwild! Inference, arXiv:2504.06261: what the authors ran with success. Smaller models
are poor collaborators, they say themselves of their demonstration with a model of 3B weights.
"""

from __future__ import annotations

import re

from ...core.errors import UserError

_WORKS = re.compile(
    r"qwq-?32b|phi-?4-reasoning|deepseek-?r1(?!-distill)|deepseek-reasoner"
    r"|qwen-?3-?(?:8b|14b|30b|32b|235b)",
    re.IGNORECASE,
)
LISTED = "QwQ-32B, Phi-4-reasoning-plus, Qwen3 from 8B on, DeepSeek-R1"
"""The list in words."""


def is_listed(model: str) -> bool:
    """Whether a model, by its name, is one of those that were seen to work together."""
    return _WORKS.search(re.sub(r"[_ ]", "-", model)) is not None


def require_listed(model: str) -> None:
    """Refuse a model that was not seen to work together.

    Raises:
        UserError: It was not; says how to go on all the same.
    """
    if not is_listed(model):
        raise UserError(
            f"hogwild is not known to work with {model}: small or unlisted models mostly repeat one another",
            hint=f"models that were seen to work: {LISTED}; --set any_model=true goes on all the same",
        )
