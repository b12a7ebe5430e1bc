"""`entropy_probe`: the exact entropy of the next-token distribution at chosen positions of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...core.errors import UserError
from .arguments import count, token_ids, within
from .registry import Hook, HookState

if TYPE_CHECKING:
    from .registry import Row


def entropy_probe(
    first: int | None = None, positions: Sequence[int] | None = None, token_logprobs: Sequence[int] = ()
) -> Hook:
    """A hook that changes nothing and reports the entropy over the whole vocabulary.

    It reports, in `Completion.extras["entropy_probe"]`, lists of one length: `positions` (0 is the first generated
    token), `entropy` (in nats), and with `token_logprobs` also `logprobs` (for each position a list with one natural
    log-probability for each of those tokens, for example of Yes and No).

    Args:
        first: Only that many tokens are measured; None measures all.
        positions: Only these positions are measured, counted from 0. Not together with `first`.
        token_logprobs: Tokens whose log-probability is reported beside.
    """
    if first is not None and positions is not None:
        raise UserError("hook 'entropy_probe' takes either first or positions")
    end = None if first is None else count("entropy_probe", "first", first, 1)
    chosen = None
    if positions is not None:
        if not isinstance(positions, list | tuple):
            raise UserError(f"hook 'entropy_probe': positions must be a list of whole numbers, not {positions!r}")
        chosen = {count("entropy_probe", "positions", p) for p in positions}
    labels = token_ids("entropy_probe", "token_logprobs", token_logprobs)

    def hook(row: Row, state: HookState) -> Row:
        at = len(state.generated_ids)
        if (end is not None and at >= end) or (chosen is not None and at not in chosen):
            return row
        entropy, logprobs = measure(row, within("entropy_probe", labels, row))
        extras = state.extras
        seen: list[int] = extras.setdefault("positions", [])
        again = bool(seen) and seen[-1] == at
        _note(seen, at, again)
        _note(extras.setdefault("entropy", []), entropy, again)
        if labels:
            _note(extras.setdefault("logprobs", []), logprobs, again)
        return row

    return hook


def measure(row: Row, ids: Sequence[int] = ()) -> tuple[float, list[float]]:
    """Shannon entropy of a row of logits, in nats, and the log-probabilities of some tokens.

    With logits z, m = max z and Z = sum exp(z - m): H = log Z - sum exp(z - m) (z - m) / Z. Tokens at minus infinity
    have no share. Exponentials are fp32, sums fp64: the error stays below 1e-5 for vocabularies of 2e5.
    """
    import numpy as np

    shifted = row - row.max()
    weights = np.exp(shifted)
    total = float(weights.sum(dtype=np.float64))
    # A weight of zero next to minus infinity would give nan.
    moment = float(np.multiply(weights, shifted, where=weights > 0, out=np.zeros_like(weights)).sum(dtype=np.float64))
    log_total = float(np.log(total))
    return log_total - moment / total, [float(shifted[i]) - log_total for i in ids]


def _note(values: list[Any], value: Any, again: bool) -> None:
    """Append, or replace the last if the engine asks for its position a second time."""
    if again:
        values[-1] = value
    else:
        values.append(value)
