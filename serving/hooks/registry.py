"""The hook's contract, and hooks by name: `HookState`, `hook_names`, `make_hooks`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

from ...core.errors import CapabilityMissing, UserError
from ...core.installed import installed
from ...core.messages import HookCall

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
    return frozenset(e.name for group in (GROUP, *([GROUPS] if groups else [])) for e in installed(group))


def make_hooks(calls: Sequence[HookCall], model: str, also: Iterable[str] = ()) -> list[tuple[str, Hook]]:
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


def _make(call: HookCall, model: str, also: Iterable[str]) -> Hook:
    found: tuple[EntryPoint, ...] = (*installed(GROUP, call.name), *installed(GROUPS, call.name))
    if not found:
        error = CapabilityMissing(f"hook {call.name}", model, alternative="")
        error.hint = f"hooks that exist: {', '.join(sorted(hook_names().union(also))) or 'none'}"
        raise error
    factory: HookFactory = found[0].load()
    try:
        return factory(**call.args)
    except TypeError as error:
        raise UserError(f"hook {call.name!r} does not take {call.args!r}: {error}") from error
