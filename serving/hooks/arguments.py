"""Checks of what a caller hands to a hook, before any token is sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...core.errors import UserError

if TYPE_CHECKING:
    from .registry import Row


def token_ids(hook: str, name: str, value: object) -> list[int]:
    """A list of token ids without repetitions.

    Raises:
        UserError: It is none; names the hook and the argument.
    """
    return list(dict.fromkeys(token_sequence(hook, name, value)))


def token_sequence(hook: str, name: str, value: object) -> list[int]:
    """A sequence of token ids, repetitions kept. Raises as `token_ids`."""
    if not isinstance(value, list | tuple) or not all(
        isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in value
    ):
        raise UserError(f"hook {hook!r}: {name} must be a list of token ids, not {value!r}")
    return list(value)


def count(hook: str, name: str, value: object, least: int = 0) -> int:
    """A whole number of at least `least`.

    Raises:
        UserError: It is none; names the hook and the argument.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"hook {hook!r}: {name} must be a whole number of at least {least}, not {value!r}")
    return value


def number(hook: str, name: str, value: object) -> float:
    """A finite number. Raises as `count`."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise UserError(f"hook {hook!r}: {name} must be a finite number, not {value!r}")
    return float(value)


def within(hook: str, ids: Sequence[int], row: Row) -> list[int]:
    """The ids, if the vocabulary has them all.

    Raises:
        UserError: One is outside; names it.
    """
    if ids and max(ids) >= len(row):
        raise UserError(f"hook {hook!r}: token {max(ids)} is not in a vocabulary of {len(row)}")
    return list(ids)
