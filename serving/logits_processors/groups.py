"""Hooks over several samples at once: `GroupHook`, and `run_hooks`, which brings the rows of a step together.

The members of a group are requests of one call. They say the same tokens, in lock-step: at every step the hook sees the
rows of all of them and gives each the same new row, and since their generators are of the same seed, the same token is
drawn for each. Whatever stands before the hook in a member's list acts on its own row alone; whatever stands behind it
must be the same for all.

Which requests of a call go together: the groups that hooks such as `contrast` make of them.

`contrast`: what one prompt makes more likely than another does, from two or more requests in lock-step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...core.errors import BackendError, UserError
from ...core.messages import Request
from ...core.registry import entry_points_in
from .base import GROUPS, count, make_hooks, number

if TYPE_CHECKING:
    from .base import Hook, HookState, Row


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


def companions(requests: Sequence[Request], model: str) -> list[tuple[int, ...]]:
    """Positions of the requests that must be sampled in lock-step, group by group.

    A request whose partners are not in the call belongs to no group: its hook then changes nothing.

    Args:
        requests: The requests of one call.
        model: Name of the model, for messages.

    Raises:
        UserError: A group has a member too many, or its members are not sampled alike.
        CapabilityMissing: A hook of theirs is unknown.
    """
    if not any(request.sampling.hooks for request in requests):
        return []
    known = {e.name for e in entry_points_in(GROUPS)}
    found: dict[tuple[str, str], list[tuple[int, GroupHook]]] = {}
    for i, request in enumerate(requests):
        if not any(call.name in known for call in request.sampling.hooks):
            continue
        made = [(n, h) for n, h in make_hooks(request.sampling.hooks, model) if isinstance(h, GroupHook)]
        if len(made) > 1:
            raise UserError(f"a request takes one hook of a group, not {' and '.join(n for n, _ in made)}")
        for name, hook in made:
            found.setdefault((name, hook.group), []).append((i, hook))
    return [
        tuple(i for i, _ in members)
        for (name, group), members in found.items()
        if _complete(requests, members, f"hook {name!r}, group {group!r}")
    ]


def _complete(requests: Sequence[Request], members: Sequence[tuple[int, GroupHook]], what: str) -> bool:
    """Whether all members are there. Raises as `companions`."""
    wanted = members[0][1].roles
    roles = sorted(h.role for _, h in members)
    for role in set(roles):
        if roles.count(role) > wanted.count(role):
            raise UserError(f"{what}: {roles.count(role)} requests as {role!r}, not {wanted.count(role)}")
    if len(roles) < len(wanted):
        return False
    first = requests[members[0][0]]
    for i, _ in members[1:]:
        other = requests[i]
        if _alike(first) != _alike(other) or first.indices != other.indices:
            raise UserError(f"{what}: its requests must be sampled alike", hint="they differ in prompt and role alone")
    if first.sampling.temperature > 0 and first.sampling.seed is None:
        raise UserError(f"{what}: a temperature above 0 needs a seed, so that all draw the same token")
    return True


def _alike(request: Request) -> object:
    """What the requests of a group must have in common: the sampling but for the member's role."""
    hooks = [(call.name, {k: v for k, v in call.args.items() if k != "role"}) for call in request.sampling.hooks]
    return request.sampling.model_copy(update={"hooks": ()}), hooks


EXPERT, AMATEUR = "expert", "amateur"


def contrast(pair: str, role: str, strength: float = 0.5, plausible: float = 0.1, size: int = 2) -> GroupHook:
    """A hook that samples an expert's and an amateur's request as one text.

    With the logits e of the expert and a of the amateur, both rows become (1 + strength) e - strength a, over the
    tokens whose probability is at least `plausible` times that of the expert's most likely one; no other can be said.
    The requests differ in their prompt: an instruction and its absence (classifier-free guidance), a good and a bad
    example. Everything else of their sampling is the same, and a temperature above 0 needs a seed.

    Args:
        pair: Name of the pair, the same in all its requests; it counts within one call of `generate`.
        role: "expert" or "amateur".
        strength: How much of the difference is added; 0 samples the expert.
        plausible: Share of the most likely token's probability, in [0, 1]; 0 lets every token be said.
        size: Requests of the group: one expert, the others amateurs, whose logits are averaged.

    Source: O'Brien and Lewis 2023, Contrastive Decoding Improves Reasoning in Large Language Models, section 2.1 (their
        beta is `strength`, their alpha `plausible`); classifier-free guidance by Sanchez et al. 2023, Stay on topic
        with Classifier-Free Guidance, is `plausible` = 0 with their gamma = 1 + strength.
    """
    name = "contrast"
    if not isinstance(pair, str) or not pair:
        raise UserError(f"hook {name!r}: pair must be a name, not {pair!r}")
    if role not in (EXPERT, AMATEUR):
        raise UserError(f"hook {name!r}: role must be 'expert' or 'amateur', not {role!r}")
    weight, share = number(name, "strength", strength), number(name, "plausible", plausible)
    if weight < 0:
        raise UserError(f"hook {name!r}: strength must not be negative", hint="swap the roles instead")
    if not 0 <= share <= 1:
        raise UserError(f"hook {name!r}: plausible must lie in [0, 1], not {plausible!r}")
    members = count(name, "size", size, 2)

    def mix(peers: Sequence[Peer]) -> Row:
        return mixed(
            next(p.row for p in peers if p.role == EXPERT), [p.row for p in peers if p.role == AMATEUR], weight, share
        )

    return GroupHook(group=pair, role=role, roles=(*[AMATEUR] * (members - 1), EXPERT), mix=mix)


def mixed(expert: Row, amateurs: Sequence[Row], strength: float, plausible: float) -> Row:
    """The contrastive row of logits.

    A token at minus infinity for the expert stays there; for one that only amateurs forbid, there is no difference to
    add and the expert's logit counts. Logits may be shifted by a constant, so raw ones serve as well as normalised.

    Args:
        expert: Logits `[vocab]`.
        amateurs: Logits `[vocab]` each, at least one.
        strength: Weight of the difference.
        plausible: Least share of the most likely token's probability.
    """
    import numpy as np

    top = expert.max()
    other = amateurs[0] if len(amateurs) == 1 else np.mean(np.stack(amateurs), axis=0, dtype=np.float32)
    both = np.isfinite(expert) & np.isfinite(other)
    difference = np.subtract(expert, other, where=both, out=np.zeros_like(expert))
    row: Row = (expert + np.float32(strength) * difference).astype(np.float32)
    if plausible > 0:
        row[expert < top + np.float32(math.log(plausible))] = float("-inf")
    return row
