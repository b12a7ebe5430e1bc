"""Hooks over several samples at once: `GroupHook`, and `run_hooks`, which brings the rows of a step together.

The members of a group are requests of one call. They say the same tokens, in lock-step: at every step the hook sees the
rows of all of them and gives each the same new row, and since their generators are of the same seed, the same token is
drawn for each. Whatever stands before the hook in a member's list acts on its own row alone; whatever stands behind it
must be the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...core.errors import BackendError

if TYPE_CHECKING:
    from .registry import Hook, HookState, Row


class OutOfStep(BackendError):
    """A group that was begun together is no longer in lock-step, so its hook cannot act."""

    code: ClassVar[str] = "out_of_step"


@dataclass(frozen=True)
class Peer:
    """A member of a group at one step.

    Attributes:
        role: Its part.
        row: Its logits, as the hooks before the group's left them.
    """

    role: str
    row: Row


@dataclass(frozen=True, eq=False)
class GroupHook:
    """A hook over the rows of a group.

    It reports, under its name in `Completion.extras`, `mixed`: at how many tokens it has acted.

    Attributes:
        group: Name of the group, which its members have in common and no other group of the same call has.
        role: This member's part.
        roles: Parts of a whole group, sorted.
        mix: The new row of all members, from all of them; must not change a row in place.
    """

    group: str
    role: str
    roles: tuple[str, ...]
    mix: Callable[[Sequence[Peer]], Row]

    def __call__(self, row: Row, state: HookState) -> Row:
        """The group's row, or where the group is not whole the member's own.

        Raises:
            OutOfStep: The group was promised to be in lock-step and is not.
        """
        at = len(state.generated_ids)
        if not state.peers:
            if state.together:
                raise OutOfStep(f"group {self.group!r} lost its lock-step at token {at}")
            return row
        if state.memory.get(self) != at:  # an engine may ask for the same position twice
            state.memory[self] = at
            state.extras["mixed"] = state.extras.get("mixed", 0) + 1
        return self.mix(state.peers)


@dataclass(eq=False)
class Line:
    """A row of logits on its way through the hooks of its sample.

    Attributes:
        row: The logits, changed by the hooks run so far.
        prompt_ids: Tokens of the prompt.
        generated_ids: Tokens said so far.
        hooks: The sample's hooks, by name, in order.
        states: Their states.
        scope: Groups of the same name are different ones in different scopes.
        done: Hooks that have run.
        error: What a hook raised; the others do not run then.
    """

    row: Row
    prompt_ids: Sequence[int]
    generated_ids: Sequence[int]
    hooks: Sequence[tuple[str, Hook]]
    states: dict[str, HookState]
    scope: object = None
    done: int = 0
    error: Exception | None = None

    @property
    def open(self) -> bool:
        """Whether hooks are left to run."""
        return self.error is None and self.done < len(self.hooks)

    @property
    def next(self) -> Hook:
        """The hook whose turn it is."""
        return self.hooks[self.done][1]

    def meeting(self, hook: GroupHook) -> tuple[object, ...]:
        """What the members of a group have in common when they meet."""
        name = self.hooks[self.done][0]
        return (self.scope, name, hook.group, self.states[name].sample_index, len(self.generated_ids))

    def run(self, peers: Sequence[Peer] = ()) -> None:
        """Run the next hook. One that fails ends its own sample and touches no other."""
        import numpy as np

        name, hook = self.hooks[self.done]
        self.done += 1
        state = self.states[name]
        state.prompt_ids, state.generated_ids, state.peers = self.prompt_ids, self.generated_ids, peers
        try:
            self.row = np.asarray(hook(self.row, state), dtype=np.float32)
        except Exception as error:  # noqa: BLE001 - a hook is foreign code: its failure belongs to its sample alone
            self.error = error
        finally:
            state.peers = ()


def run_hooks(lines: Sequence[Line]) -> None:
    """Run the hooks of all rows of a step; those of a group meet where each comes to the group's hook."""
    while left := [line for line in lines if line.open]:
        groups: dict[tuple[object, ...], list[tuple[Line, GroupHook]]] = {}
        for line in left:
            while line.open and not isinstance(line.next, GroupHook):
                line.run()
            if line.open and isinstance(line.next, GroupHook):
                groups.setdefault(line.meeting(line.next), []).append((line, line.next))
        for members in groups.values():
            peers = tuple(Peer(hook.role, line.row) for line, hook in members) if _whole(members) else ()
            for line, _ in members:
                line.run(peers)


def _whole(members: Sequence[tuple[Line, GroupHook]]) -> bool:
    """Whether a group is complete, and all its members have said the same."""
    first, hook = members[0]
    said = list(first.generated_ids)
    return tuple(sorted(h.role for _, h in members)) == hook.roles and all(
        h.roles == hook.roles and list(line.generated_ids) == said for line, h in members
    )
