"""`contrast`: what one prompt makes more likely than another does, from two or more requests in lock-step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...core.errors import UserError
from .arguments import count, number
from .groups import GroupHook, Peer

if TYPE_CHECKING:
    from .registry import Row

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
