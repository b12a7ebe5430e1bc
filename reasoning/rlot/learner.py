"""`Learner`: Double DQN on the navigator's dueling network, in NumPy, with one update per step.

    a* = argmax over legal a of Q_online(s', a);  y = r + gamma (1 - done) Q_target(s', a*);  loss = mean (Q_online(s,
    a) - y)²

It has no model and no environment. All randomness follows from its seed, and its state is complete: a learner that
loads it continues bit for bit.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, and their program; van Hasselt, Guez, Silver 2016,
arXiv:1509.06461, equation 4, for the target. Differs: the maximum is over legal blocks only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, TypeAlias

from pydantic import Field, JsonValue, model_validator

from ...core.errors import DataError, UserError
from ...core.messages import Frozen
from .assessment import State
from .blocks import Legal, best_legal
from .navigator import ACTIONS, SHAPES, STATE_SIZE, DuelingNetwork

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from .navigator import Array


BETA_1: Final = 0.9
BETA_2: Final = 0.999
EPSILON: Final = 1e-8


class Adam:
    """The Adam optimizer, as in torch.

        m = m + (1 - b1)(g - m);  v = b2 v + (1 - b2) g²
        w = w - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)

    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; b1 = 0.9, b2 = 0.999, eps = 1e-8 as there.

    Attributes:
        first: Running mean of the gradients, by the name of the weights.
        second: Running mean of their squares.
        updates: Number of updates, t.
    """

    def __init__(self) -> None:
        import numpy as np

        self.first: dict[str, Array] = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        self.second: dict[str, Array] = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        self.updates = 0

    def step(self, weights: Mapping[str, Array], gradients: Mapping[str, Array], lr: float) -> dict[str, Array]:
        """The weights after one update with learning rate `lr`."""
        import numpy as np

        self.updates += 1
        size = lr / (1 - BETA_1**self.updates)
        root = math.sqrt(1 - BETA_2**self.updates)
        updated: dict[str, Array] = {}
        for name, gradient in gradients.items():
            first, second = self.first[name], self.second[name]
            first += (1 - BETA_1) * (gradient - first)
            second *= BETA_2
            second += (1 - BETA_2) * gradient * gradient
            updated[name] = weights[name] - size * first / (np.sqrt(second) / root + EPSILON)
        return updated


def loss_and_gradients(
    network: DuelingNetwork, states: ArrayLike, actions: NDArray[np.int64], targets: Array
) -> tuple[float, dict[str, Array]]:
    """The mean squared error of the actions' values, and its gradient.

    With d = dL/dQ, which is 0 except for the actions taken, the dueling sum gives dL/dv = sum_a d and dL/dA = d -
    mean_a d; the rest is the chain rule.

    Args:
        states: `[n, 7]`, scores from 0 to 3.
        actions: The actions taken, `[n]`.
        targets: Their target values, `[n]`.

    Returns:
        The loss; the gradient by the name of the weights.
    """
    import numpy as np

    weights = network.weights
    activations = network.forward(states)
    rows = np.arange(len(actions))
    errors = activations.q[rows, actions] - targets
    d_q = np.zeros_like(activations.advantage)
    d_q[rows, actions] = 2 * errors / len(errors)

    d_adv = d_q - d_q.mean(axis=1, keepdims=True)
    d_val = d_q.sum(axis=1, keepdims=True)
    d_hidden_adv = (d_adv @ weights["Linear3_adv.weight"]) * (activations.hidden_adv > 0)
    d_hidden_val = (d_val @ weights["Linear3_val.weight"]) * (activations.hidden_val > 0)
    d_shared = d_hidden_adv @ weights["Linear2_adv.weight"] + d_hidden_val @ weights["Linear2_val.weight"]
    d_shared *= activations.shared > 0

    gradients: dict[str, Array] = {}
    for layer, inputs, outputs in (
        ("Linear1", activations.x, d_shared),
        ("Linear2_adv", activations.shared, d_hidden_adv),
        ("Linear2_val", activations.shared, d_hidden_val),
        ("Linear3_adv", activations.hidden_adv, d_adv),
        ("Linear3_val", activations.hidden_val, d_val),
    ):
        gradients[f"{layer}.weight"] = outputs.T @ inputs
        gradients[f"{layer}.bias"] = outputs.sum(axis=0)
    with np.errstate(over="ignore"):  # the caller checks for an infinite loss
        return float(np.mean(errors * errors)), gradients


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .navigator import Array

    LearnerState: TypeAlias = Mapping[str, NDArray[Any] | JsonValue]

DAMAGED = "the state is damaged, or of another version of reason; start a new training"


def entries_under(state: LearnerState, part: str) -> dict[str, NDArray[Any] | JsonValue]:
    """The entries whose names begin with `part.`, by the rest of the name."""
    return {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}


def read_count(state: LearnerState, name: str) -> int:
    """A non-negative integer.

    Raises:
        DataError: It is missing or something else.
    """
    value = state.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DataError(f"the learner's state has {value!r} as {name}", hint=DAMAGED)
    return value


def read_arrays(state: LearnerState, part: str) -> dict[str, Array]:
    """A float64 array for each array of weights, copied.

    Raises:
        DataError: One is missing, of another shape or dtype, or not finite.
    """
    import numpy as np

    loaded: dict[str, Array] = {}
    for name, shape in SHAPES.items():
        array = state.get(f"{part}.{name}")
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != np.float64:
            raise DataError(f"the learner's {part}.{name} is missing or of another shape or dtype", hint=DAMAGED)
        if not np.isfinite(array).all():
            raise DataError(f"the learner's {part}.{name} is not finite", hint=DAMAGED)
        loaded[name] = array.copy()
    return loaded


def read_network(state: LearnerState, part: str) -> DuelingNetwork:
    """A network of saved arrays (raises as `read_arrays`)."""
    return DuelingNetwork(read_arrays(state, part))


def generator_state(rng: np.random.Generator) -> JsonValue:
    """The state of a random generator for JSON; its integers have up to 128 bits."""
    value: JsonValue = dict(rng.bit_generator.state)
    return value


def read_generator(state: LearnerState, name: str) -> np.random.Generator:
    """A random generator in a saved state.

    Raises:
        DataError: The state is missing or damaged.
    """
    import numpy as np

    bits = np.random.PCG64()
    value: Any = state.get(name)
    try:
        bits.state = value
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise DataError(f"the learner's random generator {name} is damaged", hint=DAMAGED) from e
    return np.random.Generator(bits)


class LearningConfig(Frozen):
    """Hyperparameters of the learner; the defaults are the paper's and its program's.

    Attributes:
        gamma: Discount of the next state's value.
        lr: Initial learning rate of Adam.
        lr_halved_every: Episodes between two halvings of the learning rate.
        batch: Transitions of an update.
        capacity: Size of the replay buffer.
        learning_starts: Transitions before the first update.
        gradient_steps: Updates after each step, each with its own batch; 1 in the paper. More pay off where an episode
            takes a minute and an update a millisecond.
        sync_every: Updates between two copies of the online network to the target network.
        eps_start: Initial share of random actions.
        eps_min: Minimum share.
        eps_decay: Factor of the share at each step.
    """

    gamma: Annotated[float, Field(ge=0, le=1)] = 0.9
    lr: Annotated[float, Field(gt=0, le=1)] = 0.01
    lr_halved_every: Annotated[int, Field(ge=1)] = 1000
    batch: Annotated[int, Field(ge=1)] = 64
    capacity: Annotated[int, Field(ge=1, le=10_000_000)] = 500
    learning_starts: Annotated[int, Field(ge=1)] = 500
    gradient_steps: Annotated[int, Field(ge=1, le=1000)] = 1
    sync_every: Annotated[int, Field(ge=1)] = 50
    eps_start: Annotated[float, Field(ge=0, le=1)] = 1.0
    eps_min: Annotated[float, Field(ge=0, le=1)] = 0.0
    eps_decay: Annotated[float, Field(gt=0, le=1)] = 0.9995

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if not self.batch <= self.learning_starts <= self.capacity:
            raise ValueError("batch must be at most learning_starts, and that at most capacity")
        if self.eps_min > self.eps_start:
            raise ValueError("eps_min must be at most eps_start")
        return self

    def epsilon(self, steps: int) -> float:
        """The share of random actions after `steps`: max(eps_min, eps_start * eps_decay^steps)."""
        return max(self.eps_min, self.eps_start * self.eps_decay**steps)

    def learning_rate(self, episodes: int) -> float:
        """Adam's learning rate after `episodes`: lr * 0.5^floor(episodes / lr_halved_every)."""
        return self.lr * 0.5 ** (episodes // self.lr_halved_every)


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of an episode.

    Attributes:
        state: The assessment before the block.
        action: The block, 0 to 4.
        done: Whether it ended the episode.
        next_state: The assessment after it; undefined if the episode ended.
        next_legal: Legality of the next blocks; undefined if the episode ended.
    """

    state: State
    action: int
    reward: float
    done: bool
    next_state: State
    next_legal: Legal


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    ReplayState: TypeAlias = Mapping[str, NDArray[Any] | JsonValue]


@dataclass(frozen=True, slots=True)
class TransitionBatch:
    """Transitions as arrays.

    Attributes:
        states: Scores from 0 to 3, `[n, 7]`.
        actions: `[n]`.
        rewards: `[n]`.
        dones: `[n]`.
        next_states: `[n, 7]`.
        next_legal: `[n, 5]`.
    """

    states: NDArray[np.int8]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float64]
    dones: NDArray[np.bool_]
    next_states: NDArray[np.int8]
    next_legal: NDArray[np.bool_]


class ReplayBuffer:
    """A ring buffer of the last `capacity` transitions."""

    def __init__(self, capacity: int) -> None:
        import numpy as np

        if capacity < 1:
            raise UserError(f"the replay buffer's capacity must be positive, got {capacity}", hint="the paper uses 500")
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
        """Add a transition.

        Raises:
            UserError: A score, action or reward is invalid, or no block is legal although the episode continues.
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

    def sample(self, rng: np.random.Generator, batch: int) -> TransitionBatch:
        """A batch of distinct transitions, drawn uniformly with one call of the generator.

        Raises:
            UserError: There are fewer transitions.
        """
        if not 1 <= batch <= len(self):
            raise UserError(f"cannot sample {batch} of {len(self)} transitions", hint="wait until there are more")
        rows = rng.choice(len(self), size=batch, replace=False)
        return TransitionBatch(**{name: column[rows] for name, column in self._columns.items()})

    def state_dict(self) -> dict[str, NDArray[Any] | JsonValue]:
        """All arrays, copied, and the number of transitions added."""
        return {"added": self.added, **{name: column.copy() for name, column in self._columns.items()}}

    def load_state(self, state: ReplayState) -> None:
        """Restore the state of a buffer of the same capacity.

        Raises:
            DataError: Something is missing, or of another shape or dtype; nothing changes then.
        """
        import numpy as np

        added = state.get("added")
        if not isinstance(added, int) or isinstance(added, bool) or added < 0:
            raise DataError(f"the replay has {added!r} transitions", hint=_DAMAGED)
        loaded: dict[str, NDArray[Any]] = {}
        for name, column in self._columns.items():
            array = state.get(name)
            if not isinstance(array, np.ndarray) or array.shape != column.shape or array.dtype != column.dtype:
                raise DataError(f"the replay's {name} is missing or of another shape or dtype", hint=_DAMAGED)
            loaded[name] = array.copy()
        self.added, self._columns = added, loaded


_DAMAGED = "the state is damaged, or of a learner of another capacity; start a new training"


def _check(transition: Transition) -> None:
    for state in (transition.state, transition.next_state):
        if len(state) != STATE_SIZE or any(score not in (0, 1, 2, 3) for score in state):
            raise UserError(f"{state} is not a state", hint="a state is seven scores from 0 to 3")
    if transition.action not in range(ACTIONS):
        raise UserError(f"there is no block {transition.action}", hint="blocks are numbered 0 to 4")
    if not math.isfinite(transition.reward):
        raise UserError(f"the reward {transition.reward} is not finite", hint="rewards are finite numbers")
    if len(transition.next_legal) != ACTIONS:
        raise UserError(f"expected {ACTIONS} legality flags, got {len(transition.next_legal)}", hint=f"give {ACTIONS}")
    if not transition.done and not any(transition.next_legal):
        raise UserError("the episode continues but no block is legal", hint="Terminate always is")


def double_dqn_targets(batch: TransitionBatch, online: DuelingNetwork, target: DuelingNetwork, gamma: float) -> Array:
    """The target of each transition, `[n]`; ties of the online network go to the lowest action."""
    import numpy as np

    q_online = np.where(batch.next_legal, online.q(batch.next_states), -np.inf)
    best = q_online.argmax(axis=1)
    q_next = target.q(batch.next_states)[np.arange(len(best)), best]
    result: Array = batch.rewards + gamma * np.where(batch.dones, 0.0, q_next)
    return result


class Learner:
    """A navigator in training.

    Args:
        learning: Hyperparameters; the paper's by default.
        seed: Seeds the initial weights, exploration and batches, each with its own stream.

    Attributes:
        online: The network that learns and chooses.
        target: The network that values next states.
        replay: The last transitions.
        steps: Actions chosen so far.
        episodes: Episodes ended so far.
    """

    def __init__(self, learning: LearningConfig | None = None, seed: int = 0) -> None:
        import numpy as np

        if seed < 0:
            raise UserError(f"the seed must not be negative, got {seed}", hint="seeds are integers from 0")
        self.learning = learning or LearningConfig()
        self.seed = seed
        weights, acting, sampling = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
        self.online = DuelingNetwork.random(weights)
        self.target = self.online  # networks never change, so one may be both
        self.replay = ReplayBuffer(self.learning.capacity)
        self.steps = 0
        self.episodes = 0
        self._adam = Adam()
        self._acting = acting
        self._sampling = sampling

    @property
    def epsilon(self) -> float:
        """The probability that the next action is random."""
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
        """An action for each state: with probability epsilon a random legal one, else the best legal one.

        Epsilon decays from state to state, as if they came one by one.

        Raises:
            UserError: The lengths differ, a state is invalid, or nothing is legal.
        """
        if len(states) != len(legal):
            raise UserError(
                f"{len(states)} states but {len(legal)} legality masks", hint="give one mask for each state"
            )
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
        """Add a transition, and learn `gradient_steps` times once enough are there.

        Returns:
            The loss before the last update; None before the first one.

        Raises:
            UserError: The transition is invalid, or training diverged.
        """
        self.replay.add(transition)
        if len(self.replay) < self.learning.learning_starts:
            return None
        losses = [
            self.learn(self.replay.sample(self._sampling, self.learning.batch))
            for _ in range(self.learning.gradient_steps)
        ]
        return losses[-1]

    def learn(self, batch: TransitionBatch) -> float:
        """One update with a batch; the target network is synchronised when due.

        Returns:
            The loss before the update.

        Raises:
            UserError: The loss is not finite; nothing changes then.
        """
        targets = double_dqn_targets(batch, self.online, self.target, self.learning.gamma)
        loss, gradients = loss_and_gradients(self.online, batch.states, batch.actions, targets)
        if not math.isfinite(loss):
            raise UserError(f"training diverged: the loss is {loss}", hint="use a smaller learning rate or rewards")
        self.online = DuelingNetwork(self._adam.step(self.online.weights, gradients, self.learning_rate))
        if self.updates % self.learning.sync_every == 0:
            self.target = self.online
        return loss

    def end_episode(self) -> None:
        """Count an episode, on which the learning rate depends."""
        self.episodes += 1

    def state_dict(self) -> dict[str, NDArray[Any] | JsonValue]:
        """The complete state, copied: arrays, and values for JSON."""
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
        """Restore the state of another learner, its seed included.

        Raises:
            DataError: Something is missing or damaged, or the hyperparameters differ; nothing changes then.
        """
        ours = self.learning.model_dump(mode="json")
        theirs = state.get("learning")
        if theirs != ours:
            differ = sorted(name for name in ours if not isinstance(theirs, dict) or theirs.get(name) != ours[name])
            raise DataError(
                f"the state is of a learner with other hyperparameters: {', '.join(differ) or 'unknown ones'}",
                hint="resume with the same hyperparameters, or start a new training",
            )
        seed, steps, updates, episodes = (read_count(state, name) for name in ("seed", "steps", "updates", "episodes"))
        online, target = read_network(state, "online"), read_network(state, "target")
        adam = Adam()
        adam.first, adam.second, adam.updates = (
            read_arrays(state, "adam.first"),
            read_arrays(state, "adam.second"),
            updates,
        )
        acting, sampling = read_generator(state, "acting"), read_generator(state, "sampling")
        replay = ReplayBuffer(self.learning.capacity)
        replay.load_state(entries_under(state, "replay"))
        self.seed, self.steps, self.episodes = seed, steps, episodes
        self.online, self.target, self.replay = online, target, replay
        self._adam, self._acting, self._sampling = adam, acting, sampling
