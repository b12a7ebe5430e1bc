"""Hooks about sets of tokens: forbid them, allow nothing else, lean towards one set and away from another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...core.errors import UserError
from .arguments import count, number, token_ids, within
from .registry import Hook, HookState

if TYPE_CHECKING:
    from .registry import Row


def forbid_tokens(ids: Sequence[int]) -> Hook:
    """A hook that never lets the given tokens be said.

    Args:
        ids: Token ids.
    """
    banned = token_ids("forbid_tokens", "ids", ids)

    def hook(row: Row, state: HookState) -> Row:
        changed = row.copy()
        changed[within("forbid_tokens", banned, row)] = float("-inf")
        return changed

    return hook


def only_tokens(ids: Sequence[int]) -> Hook:
    """A hook that lets nothing but the given tokens be said; the end-of-text token too if it is among them.

    Args:
        ids: Token ids, at least one.
    """
    allowed = token_ids("only_tokens", "ids", ids)
    if not allowed:
        raise UserError("hook 'only_tokens' got no token ids", hint="give at least one in args['ids']")

    def hook(row: Row, state: HookState) -> Row:
        return just(row, within("only_tokens", allowed, row))

    return hook


def steer(
    ids: Sequence[int] = (),
    weight: float = 2.0,
    away_ids: Sequence[int] = (),
    half_life_tokens: int | None = None,
    first: int | None = None,
) -> Hook:
    """A hook that leans towards one set of tokens, away from another, or both (the contrast between the two).

    Args:
        ids: Tokens whose logits are raised by `weight`.
        weight: Change of a logit, in nats; a negative one leans the other way.
        away_ids: Tokens whose logits are lowered by `weight`.
        half_life_tokens: After that many generated tokens the change is half as large, and so on; None keeps it.
        first: Only that many tokens are steered; None steers all.
    """
    toward, away = token_ids("steer", "ids", ids), token_ids("steer", "away_ids", away_ids)
    if not toward and not away:
        raise UserError("hook 'steer' got no token ids", hint="give args['ids'] or args['away_ids']")
    if both := set(toward) & set(away):
        raise UserError(f"hook 'steer': token {min(both)} is in both ids and away_ids")
    strength = number("steer", "weight", weight)
    half_life = None if half_life_tokens is None else count("steer", "half_life_tokens", half_life_tokens, 1)
    end = None if first is None else count("steer", "first", first, 1)

    def hook(row: Row, state: HookState) -> Row:
        at = len(state.generated_ids)
        if end is not None and at >= end:
            return row
        change = strength if half_life is None else strength * 0.5 ** (at / half_life)
        changed = row.copy()
        changed[within("steer", toward, row)] += change
        changed[within("steer", away, row)] -= change
        return changed

    return hook


def just(row: Row, ids: Sequence[int]) -> Row:
    """A copy of the row that leaves nothing but the given tokens."""
    changed = row.copy()
    changed[:] = float("-inf")
    changed[list(ids)] = row[list(ids)]
    return changed
