"""From what vLLM pools of an input to log-odds at the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...core.errors import BadReply
from .forms import Rendered


def odds_of_rows(pooled: Any, rendered: Rendered, *, activated: bool = False) -> list[float]:
    """Log-odds of the places of an input.

    Args:
        pooled: `[labels]` of the whole input; or rows `[steps, labels]`, or a row for every token.
        rendered: The input.
        activated: Whether the numbers are probabilities, not logits.

    Raises:
        BadReply: The numbers have another shape.
    """
    rows = pooled if pooled and isinstance(pooled[0], Sequence) else [pooled]
    if len(rows) == len(rendered.ids) != len(rendered.positions):
        rows = [rows[p] for p in rendered.positions]  # the server pools all tokens
    elif len(rows) > len(rendered.positions):
        rows = rows[len(rows) - len(rendered.positions) :]  # all steps, of which the last is wanted
    if len(rows) != len(rendered.positions) or any(len(row) not in (1, 2) for row in rows):
        raise BadReply(f"{len(rows)} scores came back for {len(rendered.positions)} steps")
    return [_odds([float(x) for x in row], activated) for row in rows]


def _odds(row: list[float], activated: bool) -> float:
    if not activated:
        return row[0] if len(row) == 1 else row[1] - row[0]
    no, yes = (1.0 - row[0], row[0]) if len(row) == 1 else (row[0], row[1])
    return _log(yes) - _log(no)


def _log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf
