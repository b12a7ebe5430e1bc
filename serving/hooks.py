"""Logits hooks: pure functions that change what a sample may say next, by registered name.

A hook is `(logits_row, state) -> logits_row`: `logits_row` is a NumPy array `[vocab]` of fp32 logits, which it must not
change in place, and `state` tells where the sample stands. Hooks act on the sampling alone: log-probabilities are
reported from the raw distribution. Ours and third parties' are found through the entry-point group `reason.hooks`,
whose entries name a factory that takes the call's arguments and returns the hook.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from ..core.errors import CapabilityMissing, UserError
from ..core.messages import HookCall

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Row = NDArray[np.float32]

GROUP = "reason.hooks"
"""Entry-point group of the factories."""


@dataclass
class HookState:
    """Where a sample stands.

    Attributes:
        prompt_ids: Tokens of the prompt, its prefix included.
        generated_ids: Tokens of the sample so far.
        sample_index: Which sample of the request.
        extras: What the hook wants reported in `Completion.extras` under its name; JSON values.
    """

    prompt_ids: Sequence[int]
    generated_ids: Sequence[int]
    sample_index: int
    extras: dict[str, Any] = field(default_factory=dict)


Hook = Callable[["Row", HookState], "Row"]
HookFactory = Callable[..., Hook]


def forbid_tokens(ids: Sequence[int]) -> Hook:
    """A hook that never lets the given tokens be said.

    Args:
        ids: Token ids.
    """
    banned = _checked("forbid_tokens", ids)

    def hook(row: Row, state: HookState) -> Row:
        changed = row.copy()
        changed[_within("forbid_tokens", banned, row)] = float("-inf")
        return changed

    return hook


def only_tokens(ids: Sequence[int]) -> Hook:
    """A hook that lets nothing but the given tokens be said; the end-of-text token too if it is among them.

    Args:
        ids: Token ids, at least one.
    """
    allowed = _checked("only_tokens", ids)
    if not allowed:
        raise UserError("hook 'only_tokens' got no token ids", hint="give at least one in args['ids']")

    def hook(row: Row, state: HookState) -> Row:
        index = _within("only_tokens", allowed, row)
        changed = row.copy()
        changed[:] = float("-inf")
        changed[index] = row[index]
        return changed

    return hook


def hook_names() -> frozenset[str]:
    """Names of all registered hooks."""
    return frozenset(entry_points(group=GROUP).names)


def make_hooks(calls: Sequence[HookCall], model: str) -> list[tuple[str, Hook]]:
    """The hooks of a request, in order, with their names.

    Args:
        calls: Names and arguments.
        model: Name of the model, for messages.

    Raises:
        CapabilityMissing: No hook of that name is registered.
        UserError: A hook does not take these arguments.
    """
    return [(call.name, _make(call, model)) for call in calls]


def _make(call: HookCall, model: str) -> Hook:
    found: tuple[EntryPoint, ...] = tuple(entry_points(group=GROUP, name=call.name))
    if not found:
        error = CapabilityMissing(f"hook {call.name}", model, alternative="")
        error.hint = f"hooks that exist: {', '.join(sorted(hook_names())) or 'none'}"
        raise error
    factory: HookFactory = found[0].load()
    try:
        return factory(**call.args)
    except TypeError as error:
        raise UserError(f"hook {call.name!r} does not take {call.args!r}: {error}") from error


def _checked(name: str, ids: object) -> list[int]:
    if not isinstance(ids, list | tuple) or not all(isinstance(i, int) and i >= 0 for i in ids):
        raise UserError(f"hook {name!r}: ids must be a list of token ids, not {ids!r}")
    return list(dict.fromkeys(ids))


def _within(name: str, ids: list[int], row: Row) -> list[int]:
    if ids and max(ids) >= len(row):
        raise UserError(f"hook {name!r}: token {max(ids)} is not in a vocabulary of {len(row)}")
    return ids
