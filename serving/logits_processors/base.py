"""The hook's contract, and hooks by name: `HookState`, `hook_names`, `make_hooks`.

Checks of what a caller hands to a hook, before any token is sampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

from ...core.errors import CapabilityMissing, UserError
from ...core.messages import LogitsProcessorSpec
from ...core.registry import entry_points_in

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .groups import Peer

    Row = NDArray[np.float32]

GROUP = "reason.hooks"
"""Entry-point group of the factories."""

GROUPS = "reason.group_hooks"
"""Entry-point group of the factories of hooks over several requests (`GroupHook`)."""


@dataclass
class HookState:
    """Where a sample stands.

    Attributes:
        prompt_ids: Tokens of the prompt, its prefix included.
        generated_ids: Tokens of the sample so far; the row is of the token after them.
        sample_index: Which sample of the request.
        extras: What the hook wants reported in `Completion.extras` under its name; JSON values.
        eos_ids: Tokens that end a text.
        memory: What a hook remembers of the sample between two tokens, under a key of its own. An engine may ask for
            the same position twice (a prompt computed in pieces): the second time counts.
        peers: For a hook over a group, all members at this step; empty if they are not together.
        together: Whether the engine has begun the group as a whole.
    """

    prompt_ids: Sequence[int]
    generated_ids: Sequence[int]
    sample_index: int
    extras: dict[str, Any] = field(default_factory=dict)
    eos_ids: frozenset[int] = frozenset()
    memory: dict[object, Any] = field(default_factory=dict)
    peers: Sequence[Peer] = ()
    together: bool = False


Hook = Callable[["Row", HookState], "Row"]
HookFactory = Callable[..., Hook]


def hook_names(*, groups: bool = True) -> frozenset[str]:
    """Names of all registered hooks.

    Args:
        groups: Whether hooks over several requests count, which must start in one step.
    """
    return frozenset(e.name for group in (GROUP, *([GROUPS] if groups else [])) for e in entry_points_in(group))


def make_hooks(calls: Sequence[LogitsProcessorSpec], model: str, also: Iterable[str] = ()) -> list[tuple[str, Hook]]:
    """The hooks of a request, in order, with their names.

    Args:
        calls: Names and arguments.
        model: Name of the model, for messages.
        also: Names of further hooks that the model has, for messages.

    Raises:
        CapabilityMissing: No hook of that name is registered.
        UserError: A hook does not take these arguments.
    """
    return [(call.name, _make(call, model, also)) for call in calls]


def _make(call: LogitsProcessorSpec, model: str, also: Iterable[str]) -> Hook:
    found: tuple[EntryPoint, ...] = (*entry_points_in(GROUP, call.name), *entry_points_in(GROUPS, call.name))
    if not found:
        error = CapabilityMissing(f"hook {call.name}", model, alternative="")
        error.hint = f"hooks that exist: {', '.join(sorted(hook_names().union(also))) or 'none'}"
        raise error
    factory: HookFactory = found[0].load()
    try:
        return factory(**call.args)
    except TypeError as error:
        raise UserError(f"hook {call.name!r} does not take {call.args!r}: {error}") from error


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
