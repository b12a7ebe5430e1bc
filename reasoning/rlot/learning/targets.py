"""What the online network should have said: the targets of Double DQN, over legal actions alone.

    a* = argmax over legal a of Q_online(s', a);  y = r + gamma (1 - done) Q_target(s', a*)

Source: van Hasselt, Guez, Silver 2016, arXiv:1509.06461, equation 4. Differs from Hao, Li, Yuan, Li 2025,
arXiv:2505.14140, whose program looks at blocks that may not run too; with everything legal it is theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .replay import Batch

if TYPE_CHECKING:
    from ..network import Array, DuelingNetwork


def double_dqn_targets(batch: Batch, online: DuelingNetwork, target: DuelingNetwork, gamma: float) -> Array:
    """The target of each transition, `[n]`.

    Args:
        batch: The transitions.
        online: The network that chooses the next action; among equals the one of the lowest number.
        target: The network that says what it is worth.
        gamma: Discount of the next state's value, in [0, 1].
    """
    import numpy as np

    q_online = np.where(batch.next_legal, online.q(batch.next_states), -np.inf)
    best = q_online.argmax(axis=1)
    q_next = target.q(batch.next_states)[np.arange(len(best)), best]
    result: Array = batch.rewards + gamma * np.where(batch.dones, 0.0, q_next)
    return result
