"""Which requests of a call go together: the groups that hooks such as `contrast` make of them."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.errors import UserError
from ...core.installed import installed
from ...core.messages import Request
from .groups import GroupHook
from .registry import GROUPS, make_hooks


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
    known = {e.name for e in installed(GROUPS)}
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
