"""`Adam`: the optimizer, as torch defines it.

    m = m + (1 - b1)(g - m);  v = b2 v + (1 - b2) g²
    w = w - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)

Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; b1 = 0.9, b2 = 0.999, eps = 1e-8 as there.

The loss of a batch and its gradient, backwards through the dueling network by hand.

The loss is mean_n (Q(s_n, a_n) - y_n)². With d = dL/dQ, which is 0 but for the actions taken, the dueling sum gives
dL/dv = sum_a d and dL/dA = d - mean_a d; the rest is the chain rule through linear layers and relu, whose slope at 0
is 0.

Reading a learner's state again: every part is looked at before any of it is used.

`Learning`: the numbers that govern training, and the two that change while it goes on.

`Transition`: what one block did to a chain, as the learner sees it.

`Replay`: the newest transitions, out of which batches are drawn at random.

What the online network should have said: the targets of Double DQN, over legal actions alone.

    a* = argmax over legal a of Q_online(s', a);  y = r + gamma (1 - done) Q_target(s', a*)

Source: van Hasselt, Guez, Silver 2016, arXiv:1509.06461, equation 4. Differs from Hao, Li, Yuan, Li 2025,
arXiv:2505.14140, whose program looks at blocks that may not run too; with everything legal it is theirs.

`Learner`: Double DQN on a dueling network, which learns at every step once enough transitions are there.

It knows no model and no environment: it is asked what to do and told what came of it. Everything that it draws follows
from its seed, and its state is complete: a learner that takes it over goes on as if nothing had been between.

Source: Hao, Li, Yuan, Li 2025, "RL of Thoughts", arXiv:2505.14140, and their program; van Hasselt, Guez, Silver 2016,
arXiv:1509.06461, for the target.
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
    """The running moments of the gradients of the network's weights.

    Attributes:
        first: Running mean of the gradients, by the name of the weights.
        second: Running mean of their squares.
        updates: Updates so far, t.
    """

    def __init__(self) -> None:
        import numpy as np

        self.first: dict[str, Array] = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        self.second: dict[str, Array] = {name: np.zeros(shape) for name, shape in SHAPES.items()}
        self.updates = 0

    def step(self, weights: Mapping[str, Array], gradients: Mapping[str, Array], lr: float) -> dict[str, Array]:
        """One update.

        Args:
            weights: The weights before, by name; they stay as they are.
            gradients: Of the loss, by the same names.
            lr: The learning rate of this update.

        Returns:
            The weights after it.
        """
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

    Args:
        network: The online network.
        states: `[n, 7]`, scores from 0 to 3.
        actions: The actions taken, `[n]`.
        targets: What their values should be, `[n]`.

    Returns:
        The loss; the gradient by the name of the weights, of their shapes.
    """
    import numpy as np

    weights = network.weights
    passed = network.forward(states)
    rows = np.arange(len(actions))
    errors = passed.q[rows, actions] - targets
    d_q = np.zeros_like(passed.advantage)
    d_q[rows, actions] = 2 * errors / len(errors)

    d_adv = d_q - d_q.mean(axis=1, keepdims=True)
    d_val = d_q.sum(axis=1, keepdims=True)
    d_hidden_adv = (d_adv @ weights["Linear3_adv.weight"]) * (passed.hidden_adv > 0)
    d_hidden_val = (d_val @ weights["Linear3_val.weight"]) * (passed.hidden_val > 0)
    d_shared = d_hidden_adv @ weights["Linear2_adv.weight"] + d_hidden_val @ weights["Linear2_val.weight"]
    d_shared *= passed.shared > 0

    gradients: dict[str, Array] = {}
    for layer, inputs, outputs in (
        ("Linear1", passed.x, d_shared),
        ("Linear2_adv", passed.shared, d_hidden_adv),
        ("Linear2_val", passed.shared, d_hidden_val),
        ("Linear3_adv", passed.hidden_adv, d_adv),
        ("Linear3_val", passed.hidden_val, d_val),
    ):
        gradients[f"{layer}.weight"] = outputs.T @ inputs
        gradients[f"{layer}.bias"] = outputs.sum(axis=0)
    with np.errstate(over="ignore"):  # an endless loss is the caller's to see
        return float(np.mean(errors * errors)), gradients


if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .navigator import Array

    LearnerState: TypeAlias = Mapping[str, NDArray[Any] | JsonValue]

DAMAGED = "the state is damaged, or of another version of reason; train anew"


def below(state: LearnerState, part: str) -> dict[str, NDArray[Any] | JsonValue]:
    """The entries whose names begin with a part and a full stop, by what follows."""
    return {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}


def count(state: LearnerState, name: str) -> int:
    """A whole number from 0.

    Raises:
        DataError: It is missing, or something else.
    """
    value = state.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DataError(f"the learner's state has {value!r} as {name}", hint=DAMAGED)
    return value


def arrays(state: LearnerState, part: str) -> dict[str, Array]:
    """An array of double precision for each array of weights, copied.

    Raises:
        DataError: One is missing, of another shape or kind, or not finite.
    """
    import numpy as np

    loaded: dict[str, Array] = {}
    for name, shape in SHAPES.items():
        array = state.get(f"{part}.{name}")
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != np.float64:
            raise DataError(f"the learner's {part}.{name} is missing or of another shape or kind", hint=DAMAGED)
        if not np.isfinite(array).all():
            raise DataError(f"the learner's {part}.{name} is not finite", hint=DAMAGED)
        loaded[name] = array.copy()
    return loaded


def network(state: LearnerState, part: str) -> DuelingNetwork:
    """A network out of its arrays.

    Raises:
        DataError: See `arrays`.
    """
    return DuelingNetwork(arrays(state, part))


def generator_state(rng: np.random.Generator) -> JsonValue:
    """Where a stream of random numbers stands, for JSON; its numbers have up to 128 bits."""
    value: JsonValue = dict(rng.bit_generator.state)
    return value


def generator(state: LearnerState, name: str) -> np.random.Generator:
    """A stream of random numbers that goes on where another one stood.

    Raises:
        DataError: It is missing, or something else.
    """
    import numpy as np

    bits = np.random.PCG64()
    stands: Any = state.get(name)
    try:
        bits.state = stands
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise DataError(f"the learner's stream of random numbers {name} is damaged", hint=DAMAGED) from e
    return np.random.Generator(bits)


class Learning(Frozen):
    """How a navigator learns; the defaults are those of Hao, Li, Yuan, Li 2025, arXiv:2505.14140, as in their program.

    Attributes:
        gamma: Discount of the next state's value.
        lr: Learning rate of Adam at the start.
        lr_halved_every: Episodes after which the learning rate is halved, again and again.
        batch: Transitions an update is made of.
        capacity: Transitions that are kept, the newest.
        begins_at: Transitions that are there before the first update.
        gradient_steps: Updates behind each step, each with a batch of its own; 1 in the paper. More are worth having
            where an episode costs a minute and an update a millisecond.
        sync_every: Updates after which the target network becomes the online one.
        eps_start: Share of random actions at the start.
        eps_min: What it does not fall below.
        eps_decay: What it is multiplied by at each step.
    """

    gamma: Annotated[float, Field(ge=0, le=1)] = 0.9
    lr: Annotated[float, Field(gt=0, le=1)] = 0.01
    lr_halved_every: Annotated[int, Field(ge=1)] = 1000
    batch: Annotated[int, Field(ge=1)] = 64
    capacity: Annotated[int, Field(ge=1, le=10_000_000)] = 500
    begins_at: Annotated[int, Field(ge=1)] = 500
    gradient_steps: Annotated[int, Field(ge=1, le=1000)] = 1
    sync_every: Annotated[int, Field(ge=1)] = 50
    eps_start: Annotated[float, Field(ge=0, le=1)] = 1.0
    eps_min: Annotated[float, Field(ge=0, le=1)] = 0.0
    eps_decay: Annotated[float, Field(gt=0, le=1)] = 0.9995

    @model_validator(mode="after")
    def _can_begin(self) -> Self:
        if not self.batch <= self.begins_at <= self.capacity:
            raise ValueError("batch is at most begins_at, which is at most capacity")
        if self.eps_min > self.eps_start:
            raise ValueError("eps_min is at most eps_start")
        return self

    def epsilon(self, steps: int) -> float:
        """The chance that an action is random after so many steps: max(eps_min, eps_start * eps_decay^steps)."""
        return max(self.eps_min, self.eps_start * self.eps_decay**steps)

    def learning_rate(self, episodes: int) -> float:
        """Adam's learning rate after so many episodes: lr * 0.5^floor(episodes / lr_halved_every)."""
        return self.lr * 0.5 ** (episodes // self.lr_halved_every)


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of an episode.

    Attributes:
        state: The assessment before the block.
        action: The block that was chosen, 0 to 4.
        reward: What it earned.
        done: Whether the episode ended with it.
        next_state: The assessment after it; without meaning where the episode ended.
        next_legal: Which blocks may run after it; without meaning where the episode ended.
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

    def load_state(self, state: ReplayState) -> None:
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
