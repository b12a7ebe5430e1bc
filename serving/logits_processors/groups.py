"""Logits processors over several requests in lockstep, and `contrast`, which mixes the logits of two prompts.

The members of a group are requests of one call. They sample the same tokens: at every step the processor gets the rows
of all members and returns the same new row for each, and since their generators have the same seed, the same token is
sampled for each. Processors before it in a member's list act on the member's own row; those after it must be the same
for all members.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from ...core.errors import BackendError, UserError
from ...core.messages import Request
from ...core.registry import entry_points_in
from .registry import GROUP_ENTRY_POINTS, LogitsProcessor, ProcessorState, count, make_logits_processors, number

if TYPE_CHECKING:
    from .registry import Row

EXPERT: Final = "expert"
AMATEUR: Final = "amateur"


class LockstepLost(BackendError):
    """A group that was started together is no longer in lockstep, so its processor cannot act."""

    code: ClassVar[str] = "lockstep_lost"


@dataclass(frozen=True)
class GroupMember:
    """A member of a group at one step.

    Attributes:
        role: Its role in the group.
        row: Its logits after the processors before the group's.
    """

    role: str
    row: Row


@dataclass(frozen=True, eq=False)
class GroupLogitsProcessor:
    """A processor over the rows of a group.

    It reports `mixed`, the number of tokens at which it has acted, under its name in `Completion.extras`.

    Attributes:
        group: Name of the group, which its members share and no other group of the call has.
        role: This member's role.
        roles: Roles of a complete group, sorted.
        mix: The new row of all members, from all members; must not change a row in place.
    """

    group: str
    role: str
    roles: tuple[str, ...]
    mix: Callable[[Sequence[GroupMember]], Row]

    def __call__(self, row: Row, state: ProcessorState) -> Row:
        """The group's row; the member's own one if the group is not complete.

        Raises:
            LockstepLost: The group was started in lockstep and is no longer.
        """
        position = len(state.generated_ids)
        if not state.peers:
            if state.together:
                raise LockstepLost(f"group {self.group!r} lost its lockstep at token {position}")
            return row
        if state.memory.get(self) != position:  # an engine may request the same position twice
            state.memory[self] = position
            state.extras["mixed"] = state.extras.get("mixed", 0) + 1
        return self.mix(state.peers)


@dataclass(eq=False)
class LogitsRow:
    """A row of logits on its way through the processors of its sample.

    Attributes:
        row: The logits after the processors run so far.
        prompt_ids: Tokens of the prompt.
        generated_ids: Tokens of the sample so far.
        processors: The sample's processors, by name, in order.
        states: Their states.
        scope: Groups of the same name are different ones in different scopes.
        done: Number of processors that have run.
        error: Error of a processor, after which the others do not run.
    """

    row: Row
    prompt_ids: Sequence[int]
    generated_ids: Sequence[int]
    processors: Sequence[tuple[str, LogitsProcessor]]
    states: dict[str, ProcessorState]
    scope: object = None
    done: int = 0
    error: Exception | None = None

    @property
    def has_next(self) -> bool:
        return self.error is None and self.done < len(self.processors)

    @property
    def next(self) -> LogitsProcessor:
        return self.processors[self.done][1]

    def group_key(self, processor: GroupLogitsProcessor) -> tuple[object, ...]:
        """Equal for the members of one group."""
        name = self.processors[self.done][0]
        return (self.scope, name, processor.group, self.states[name].sample_index, len(self.generated_ids))

    def run(self, peers: Sequence[GroupMember] = ()) -> None:
        """Run the next processor. If it fails, only its own sample ends."""
        import numpy as np

        name, processor = self.processors[self.done]
        self.done += 1
        state = self.states[name]
        state.prompt_ids, state.generated_ids, state.peers = self.prompt_ids, self.generated_ids, peers
        try:
            self.row = np.asarray(processor(self.row, state), dtype=np.float32)
        except Exception as error:  # noqa: BLE001 - third-party code: its failure ends its own sample
            self.error = error
        finally:
            state.peers = ()


def run_logits_processors(rows: Sequence[LogitsRow]) -> None:
    """Run the processors of all rows of a step; a group's processor runs when all its members have reached it."""
    while unfinished := [row for row in rows if row.has_next]:
        groups: dict[tuple[object, ...], list[tuple[LogitsRow, GroupLogitsProcessor]]] = {}
        for row in unfinished:
            while row.has_next and not isinstance(row.next, GroupLogitsProcessor):
                row.run()
            if row.has_next and isinstance(row.next, GroupLogitsProcessor):
                groups.setdefault(row.group_key(row.next), []).append((row, row.next))
        for members in groups.values():
            is_complete = _is_in_lockstep(members)
            peers = tuple(GroupMember(p.role, row.row) for row, p in members) if is_complete else ()
            for row, _ in members:
                row.run(peers)


def _is_in_lockstep(members: Sequence[tuple[LogitsRow, GroupLogitsProcessor]]) -> bool:
    """Whether a group is complete, and all its members have sampled the same tokens."""
    first, processor = members[0]
    generated = list(first.generated_ids)
    return tuple(sorted(p.role for _, p in members)) == processor.roles and all(
        p.roles == processor.roles and list(row.generated_ids) == generated for row, p in members
    )


def lockstep_groups(requests: Sequence[Request], model: str) -> list[tuple[int, ...]]:
    """Positions of the requests of a call that must be sampled in lockstep, group by group.

    A request whose partners are not in the call belongs to no group: its processor changes nothing.

    Args:
        requests: The requests of one call.
        model: Name of the model, for messages.

    Raises:
        UserError: A group has a member too many, or its members have different sampling parameters.
        CapabilityMissing: A processor is not registered.
    """
    if not any(request.sampling.logits_processors for request in requests):
        return []
    group_names = {e.name for e in entry_points_in(GROUP_ENTRY_POINTS)}
    groups: dict[tuple[str, str], list[tuple[int, GroupLogitsProcessor]]] = {}
    for i, request in enumerate(requests):
        specs = request.sampling.logits_processors
        if not any(spec.name in group_names for spec in specs):
            continue
        group_processors = [
            (n, p) for n, p in make_logits_processors(specs, model) if isinstance(p, GroupLogitsProcessor)
        ]
        if len(group_processors) > 1:
            names = " and ".join(n for n, _ in group_processors)
            raise UserError(f"a request takes one logits processor over a group, got {names}")
        for name, processor in group_processors:
            groups.setdefault((name, processor.group), []).append((i, processor))
    return [
        tuple(i for i, _ in members)
        for (name, group), members in groups.items()
        if _is_complete(requests, members, f"logits processor {name!r}, group {group!r}")
    ]


def _is_complete(requests: Sequence[Request], members: Sequence[tuple[int, GroupLogitsProcessor]], label: str) -> bool:
    """Whether all members of a group are there. Raises as `lockstep_groups`."""
    expected = members[0][1].roles
    roles = sorted(p.role for _, p in members)
    for role in set(roles):
        if roles.count(role) > expected.count(role):
            raise UserError(
                f"{label}: {roles.count(role)} requests with role {role!r}, expected {expected.count(role)}"
            )
    if len(roles) < len(expected):
        return False
    first = requests[members[0][0]]
    for i, _ in members[1:]:
        other = requests[i]
        if _shared_sampling(first) != _shared_sampling(other) or first.indices != other.indices:
            raise UserError(
                f"{label}: its requests have different sampling parameters", hint="only prompt and role may differ"
            )
    sampling = first.sampling
    temperature = sampling.default_temperature if sampling.temperature is None else sampling.temperature
    if temperature != 0 and sampling.seed is None:
        raise UserError(f"{label}: a temperature above 0 needs a seed, so that all members sample the same token")
    return True


def _shared_sampling(request: Request) -> object:
    """What the requests of a group must have in common: the sampling parameters without the member's role."""
    specs = [
        (spec.name, {k: v for k, v in spec.args.items() if k != "role"}) for spec in request.sampling.logits_processors
    ]
    return request.sampling.model_copy(update={"logits_processors": ()}), specs


def contrast(
    pair: str, role: str, strength: float = 0.5, plausible: float = 0.1, size: int = 2
) -> GroupLogitsProcessor:
    """A processor that samples the requests of an expert and an amateur as one text.

    With the logits e of the expert and a of the amateur, both rows become (1 + strength) e - strength a, over the
    tokens whose probability is at least `plausible` times that of the expert's most likely one; no other is sampled.
    The requests differ in their prompt: an instruction and its absence (classifier-free guidance), a good and a bad
    example. All other sampling parameters are the same, and a temperature above 0 needs a seed.

    Args:
        pair: Name of the group, the same in all its requests, within one call of `generate`.
        role: "expert" or "amateur".
        strength: Weight of the difference; 0 samples the expert.
        plausible: Share of the most likely token's probability, in [0, 1]; 0 allows every token.
        size: Number of requests: one expert, the others amateurs, whose logits are averaged.

    Source: O'Brien and Lewis 2023, Contrastive Decoding Improves Reasoning in Large Language Models, section 2.1 (their
        beta is `strength`, their alpha `plausible`); classifier-free guidance by Sanchez et al. 2023, Stay on topic
        with Classifier-Free Guidance, is `plausible` = 0 with their gamma = 1 + strength.
    """
    name = "contrast"
    if not isinstance(pair, str) or not pair:
        raise UserError(f"logits processor {name!r}: pair must be a name, got {pair!r}")
    if role not in (EXPERT, AMATEUR):
        raise UserError(f"logits processor {name!r}: role must be 'expert' or 'amateur', got {role!r}")
    weight, share = number(name, "strength", strength), number(name, "plausible", plausible)
    if weight < 0:
        raise UserError(f"logits processor {name!r}: strength must not be negative", hint="swap the roles instead")
    if not 0 <= share <= 1:
        raise UserError(f"logits processor {name!r}: plausible must be in [0, 1], got {plausible!r}")
    members = count(name, "size", size, 2)

    def mix(peers: Sequence[GroupMember]) -> Row:
        expert = next(p.row for p in peers if p.role == EXPERT)
        return mix_logits(expert, [p.row for p in peers if p.role == AMATEUR], weight, share)

    return GroupLogitsProcessor(group=pair, role=role, roles=(*[AMATEUR] * (members - 1), EXPERT), mix=mix)


def mix_logits(expert: Row, amateurs: Sequence[Row], strength: float, plausible: float) -> Row:
    """The contrastive row of logits.

    A token at minus infinity for the expert stays there; for one that only amateurs forbid, there is no difference to
    add, and the expert's logit counts. Logits may be shifted by a constant, so raw ones serve as well as normalised.

    Args:
        expert: Logits `[vocab]`.
        amateurs: Logits `[vocab]` each, at least one.
        strength: Weight of the difference.
        plausible: Minimum share of the most likely token's probability.
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
