"""`Replay`: the newest transitions, out of which batches are drawn at random."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import JsonValue

from ....core.errors import DataError, UserError
from ..network import ACTIONS, STATE_SIZE
from .transition import Transition

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    State: TypeAlias = Mapping[str, NDArray[Any] | JsonValue]


@dataclass(frozen=True, slots=True)
class Batch:
    """Transitions as arrays, one a row.

    Attributes:
        states: Scores from 0 to 3, `[n, 7]`.
        actions: Numbers of blocks, `[n]`.
        rewards: `[n]`.
        dones: Whether the episode ended, `[n]`.
        next_states: `[n, 7]`.
        next_legal: Which blocks may run next, `[n, 5]`.
    """

    states: NDArray[np.int8]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float64]
    dones: NDArray[np.bool_]
    next_states: NDArray[np.int8]
    next_legal: NDArray[np.bool_]


class Replay:
    """A ring: once it is full, a new transition takes the place of the oldest one.

    Args:
        capacity: Transitions that it holds.
    """

    def __init__(self, capacity: int) -> None:
        import numpy as np

        if capacity < 1:
            raise UserError(f"a replay of {capacity} transitions", hint="it holds at least one")
        self.capacity = capacity
        self.added = 0
        self._columns: dict[str, NDArray[Any]] = {
            "states": np.zeros((capacity, STATE_SIZE), dtype=np.int8),
            "actions": np.zeros(capacity, dtype=np.int64),
            "rewards": np.zeros(capacity, dtype=np.float64),
            "dones": np.zeros(capacity, dtype=np.bool_),
            "next_states": np.zeros((capacity, STATE_SIZE), dtype=np.int8),
            "next_legal": np.zeros((capacity, ACTIONS), dtype=np.bool_),
        }

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, transition: Transition) -> None:
        """Keep a transition.

        Raises:
            UserError: It has a score, an action or a reward that cannot be, or goes on where nothing may run.
        """
        _check(transition)
        row = self.added % self.capacity
        self.added += 1
        columns = self._columns
        columns["states"][row] = transition.state
        columns["actions"][row] = transition.action
        columns["rewards"][row] = transition.reward
        columns["dones"][row] = transition.done
        columns["next_states"][row] = transition.next_state
        columns["next_legal"][row] = transition.next_legal

    def sample(self, rng: np.random.Generator, batch: int) -> Batch:
        """Different transitions, each equally likely.

        Args:
            rng: The randomness; one draw.
            batch: How many.

        Raises:
            UserError: There are not so many.
        """
        if not 1 <= batch <= len(self):
            raise UserError(f"a batch of {batch} out of {len(self)} transitions", hint="wait until there are more")
        rows = rng.choice(len(self), size=batch, replace=False)
        return Batch(**{name: column[rows] for name, column in self._columns.items()})

    def state_dict(self) -> dict[str, NDArray[Any] | JsonValue]:
        """All that it holds, copied: arrays of `capacity` rows, and how many transitions were added."""
        return {"added": self.added, **{name: column.copy() for name, column in self._columns.items()}}

    def load_state(self, state: State) -> None:
        """Hold what another replay of the same capacity held.

        Raises:
            DataError: Something is missing, or of another shape or kind; nothing changes then.
        """
        import numpy as np

        added = state.get("added")
        if not isinstance(added, int) or isinstance(added, bool) or added < 0:
            raise DataError(f"the replay has {added!r} transitions", hint=_DAMAGED)
        loaded: dict[str, NDArray[Any]] = {}
        for name, column in self._columns.items():
            array = state.get(name)
            if not isinstance(array, np.ndarray) or array.shape != column.shape or array.dtype != column.dtype:
                raise DataError(f"the replay's {name} is missing or of another shape or kind", hint=_DAMAGED)
            loaded[name] = array.copy()
        self.added, self._columns = added, loaded


_DAMAGED = "the state is damaged, or of a learner of another capacity; train anew"


def _check(transition: Transition) -> None:
    for state in (transition.state, transition.next_state):
        if len(state) != STATE_SIZE or any(score not in (0, 1, 2, 3) for score in state):
            raise UserError(f"{state} is no state", hint="a state is seven scores from 0 to 3")
    if transition.action not in range(ACTIONS):
        raise UserError(f"there is no block {transition.action}", hint="blocks have the numbers 0 to 4")
    if not math.isfinite(transition.reward):
        raise UserError(f"a reward of {transition.reward}", hint="rewards are finite numbers")
    if len(transition.next_legal) != ACTIONS:
        raise UserError(f"{len(transition.next_legal)} marks of what is legal", hint=f"give {ACTIONS}")
    if not transition.done and not any(transition.next_legal):
        raise UserError("an episode goes on where no block may run", hint="Terminate always may")
