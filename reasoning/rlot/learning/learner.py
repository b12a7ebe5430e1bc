"""`Learner`: Double DQN on a dueling network, which learns at every step once enough transitions are there.

It knows no model and no environment: it is asked what to do and told what came of it. Everything that it draws follows
from its seed, and its state is complete: a learner that takes it over goes on as if nothing had been between.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, and their program; van Hasselt, Guez, Silver 2016,
arXiv:1509.06461, for the target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from ....core.errors import DataError, UserError
from ..aspects import State
from ..blocks import Legal, best_legal
from ..network import DuelingNetwork
from .adam import Adam
from .backward import loss_and_gradients
from .learner_state import arrays, below, count, generator, generator_state, network
from .replay import Batch, Replay
from .schedules import Learning
from .targets import double_dqn_targets
from .transition import Transition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .learner_state import LearnerState

__all__ = ["Learner", "Learning", "Transition", "double_dqn_targets"]


class Learner:
    """A navigator in training.

    Args:
        learning: The numbers that govern it; the paper's by default.
        seed: Where its randomness comes from: weights at the start, exploration, and batches, each a stream of its own.

    Attributes:
        learning: As given.
        seed: As given.
        online: The network that learns and chooses.
        target: The network that says what next states are worth; the online one of the last synchronisation.
        replay: The newest transitions.
        steps: Actions chosen so far.
        updates: Updates so far.
        episodes: Episodes that ended so far.
    """

    def __init__(self, learning: Learning | None = None, seed: int = 0) -> None:
        import numpy as np

        if seed < 0:
            raise UserError(f"the seed {seed} is negative", hint="seeds are whole numbers from 0")
        self.learning = learning or Learning()
        self.seed = seed
        weights, acting, sampling = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
        self.online = DuelingNetwork.random(weights)
        self.target = self.online  # networks never change, so one may be both
        self.replay = Replay(self.learning.capacity)
        self.steps = 0
        self.episodes = 0
        self._adam = Adam()
        self._acting = acting
        self._sampling = sampling

    @property
    def epsilon(self) -> float:
        """The chance that the next action is random."""
        return self.learning.epsilon(self.steps)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next update."""
        return self.learning.learning_rate(self.episodes)

    @property
    def updates(self) -> int:
        """Updates so far."""
        return self._adam.updates

    def act(self, states: Sequence[State], legal: Sequence[Legal]) -> list[int]:
        """An action for each state: random among the legal ones with probability epsilon, else the best legal one.

        Epsilon falls from state to state, as if they came one by one.

        Args:
            states: One of each episode that goes on.
            legal: Which blocks may run in each.

        Raises:
            UserError: The two differ in length, something is no state, or nothing is legal.
        """
        if len(states) != len(legal):
            raise UserError(f"{len(states)} states and {len(legal)} marks of what is legal", hint="give one a state")
        if not states:
            return []
        greedy = [best_legal(values, may) for values, may in zip(self.online.q(states).tolist(), legal, strict=True)]
        chosen: list[int] = []
        for best, may in zip(greedy, legal, strict=True):
            explores = self._acting.random() < self.epsilon
            self.steps += 1
            if explores:
                allowed = [action for action, is_legal in enumerate(may) if is_legal]
                best = allowed[int(self._acting.integers(len(allowed)))]
            chosen.append(best)
        return chosen

    def observe(self, transition: Transition) -> float | None:
        """Keep what came of an action, and learn if enough is there, `gradient_steps` times.

        Returns:
            The loss before the last of these updates; None while there is none yet.

        Raises:
            UserError: The transition cannot be, or training diverged.
        """
        self.replay.add(transition)
        if len(self.replay) < self.learning.begins_at:
            return None
        losses = [
            self.learn(self.replay.sample(self._sampling, self.learning.batch))
            for _ in range(self.learning.gradient_steps)
        ]
        return losses[-1]

    def learn(self, batch: Batch) -> float:
        """One update by a batch; the target network follows where it is due.

        Returns:
            The loss before the update.

        Raises:
            UserError: Training diverged: the loss is no finite number; nothing changes then.
        """
        targets = double_dqn_targets(batch, self.online, self.target, self.learning.gamma)
        loss, gradients = loss_and_gradients(self.online, batch.states, batch.actions, targets)
        if not math.isfinite(loss):
            raise UserError(f"training diverged: a loss of {loss}", hint="choose a smaller learning rate, or rewards")
        self.online = DuelingNetwork(self._adam.step(self.online.weights, gradients, self.learning_rate))
        if self.updates % self.learning.sync_every == 0:
            self.target = self.online
        return loss

    def end_episode(self) -> None:
        """Count an episode; the learning rate depends on it."""
        self.episodes += 1

    def state_dict(self) -> dict[str, NDArray[Any] | JsonValue]:
        """All of it, copied: arrays in double precision or of whole numbers, and values for JSON."""
        state: dict[str, NDArray[Any] | JsonValue] = {
            "learning": self.learning.model_dump(mode="json"),
            "seed": self.seed,
            "steps": self.steps,
            "updates": self.updates,
            "episodes": self.episodes,
            "acting": generator_state(self._acting),
            "sampling": generator_state(self._sampling),
        }
        for part, named in (
            ("online", self.online.weights),
            ("target", self.target.weights),
            ("adam.first", self._adam.first),
            ("adam.second", self._adam.second),
        ):
            state |= {f"{part}.{name}": array.copy() for name, array in named.items()}
        return state | {f"replay.{name}": value for name, value in self.replay.state_dict().items()}

    def load_state(self, state: LearnerState) -> None:
        """Go on where another learner stood, bit for bit; its seed comes along.

        Args:
            state: What `state_dict` gave.

        Raises:
            DataError: Something is missing or damaged, or the other one learned by other numbers; nothing changes then.
        """
        ours = self.learning.model_dump(mode="json")
        theirs = state.get("learning")
        if theirs != ours:
            differ = sorted(name for name in ours if not isinstance(theirs, dict) or theirs.get(name) != ours[name])
            raise DataError(
                f"the state is of a learner with other parameters: {', '.join(differ) or 'more than these'}",
                hint="go on with the same parameters, or train anew",
            )
        seed, steps, updates, episodes = (count(state, name) for name in ("seed", "steps", "updates", "episodes"))
        online, target = network(state, "online"), network(state, "target")
        adam = Adam()
        adam.first, adam.second, adam.updates = arrays(state, "adam.first"), arrays(state, "adam.second"), updates
        acting, sampling = generator(state, "acting"), generator(state, "sampling")
        replay = Replay(self.learning.capacity)
        replay.load_state(below(state, "replay"))
        self.seed, self.steps, self.episodes = seed, steps, episodes
        self.online, self.target, self.replay = online, target, replay
        self._adam, self._acting, self._sampling = adam, acting, sampling
