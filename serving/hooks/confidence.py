"""`stop_on_confidence`: end a sample whose confidence over a sliding window of tokens has fallen too low."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...core.errors import UserError
from .arguments import count, number, token_ids, within
from .registry import Hook, HookState
from .tokens import just

if TYPE_CHECKING:
    from .registry import Row


@dataclass
class _Window:
    """Confidences of the last tokens, and the position of the last."""

    values: deque[float]
    last: int = -1


def stop_on_confidence(
    threshold: float, window: int = 1024, top: int = 20, min_tokens: int = 0, end_ids: Sequence[int] = ()
) -> Hook:
    """A hook that forces the end of the text once the group confidence is below a threshold.

    A token's confidence is the mean of -log p over the `top` most likely tokens at its place: high where one token
    holds nearly all the mass. The group confidence is its mean over the last `window` tokens, and counts once the
    window is full. `Completion.extras["stop_on_confidence"]` has `lowest` (lowest group confidence; None if no window
    was ever full) and `stopped_at` (position at which the text was ended; None if it was not).

    Args:
        threshold: Group confidence below which the sample ends, in nats; take it from a few samples that run to their
            end (the paper: such that the best tenth of them stays above).
        window: Tokens of a group.
        top: Most likely tokens that count at each place.
        min_tokens: Before so many tokens nothing is stopped.
        end_ids: What is forced: one of these tokens; empty is the model's own end of text.

    Source: Fu et al. 2025, Deep Think with Confidence, equation 2 (token confidence), equation 3 (group confidence) and
        section 3.2 (stopping online).
    """
    name = "stop_on_confidence"
    bound = number(name, "threshold", threshold)
    size, best = count(name, "window", window, 1), count(name, "top", top, 1)
    least = count(name, "min_tokens", min_tokens)
    ends = token_ids(name, "end_ids", end_ids)
    key = object()

    def hook(row: Row, state: HookState) -> Row:
        seen: _Window = state.memory.setdefault(key, _Window(deque(maxlen=size)))
        extras, at = state.extras, len(state.generated_ids)
        extras.setdefault("lowest", None)
        extras.setdefault("stopped_at", None)
        if seen.last == at:
            seen.values.pop()
        seen.values.append(confidence(row, best))
        seen.last = at
        if len(seen.values) < size:
            return row
        group = sum(seen.values) / size
        extras["lowest"] = group if extras["lowest"] is None else min(extras["lowest"], group)
        if group >= bound or at < least:
            return row
        last = ends or sorted(i for i in state.eos_ids if i < len(row))
        if not last:
            raise UserError(f"hook {name!r}: the model has no end-of-text token", hint="give one in args['end_ids']")
        if extras["stopped_at"] is None:
            extras["stopped_at"] = at
        return just(row, within(name, last, row))

    return hook


def confidence(row: Row, top: int) -> float:
    """Token confidence of a row of logits: mean of -log p over its `top` most likely tokens, in nats.

    Source: Fu et al. 2025, Deep Think with Confidence, equation 2.
    """
    import numpy as np

    shifted = row - row.max()
    log_total = float(np.log(np.exp(shifted).sum(dtype=np.float64)))
    top = min(top, len(row))
    best = np.partition(shifted, len(row) - top)[len(row) - top :]
    best = best[np.isfinite(best)]  # tokens that another hook has forbidden have no finite share
    return log_total - float(best.mean(dtype=np.float64))
