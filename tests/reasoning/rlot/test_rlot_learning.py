"""The parts of learning: schedules, replay, targets, gradients and Adam, against hand calculation and torch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from reason.core.errors import DataError, UserError
from reason.reasoning.rlot.learner import (
    Adam,
    Learner,
    LearningConfig,
    ReplayBuffer,
    Transition,
    TransitionBatch,
    double_dqn_targets,
    loss_and_gradients,
)
from reason.reasoning.rlot.navigator import NAMES, SHAPES, DuelingNetwork
from support.torch_navigator import TorchDueling, TorchLearner, one_torch_thread

ANY = (True,) * 5
BARE = (0,) * 7


@pytest.fixture(autouse=True, scope="module")
def _one_torch_thread() -> Iterator[None]:
    with one_torch_thread():
        yield


def drawn(seed: int) -> DuelingNetwork:
    return DuelingNetwork.random(np.random.default_rng(seed))


def answering(*q: float) -> DuelingNetwork:
    """A network that gives these values in every state."""
    weights = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    weights["Linear3_adv.bias"] = np.array(q) - np.mean(q)
    weights["Linear3_val.bias"] = np.array([np.mean(q)])
    return DuelingNetwork(weights)


def recorded(seed: int, size: int = 64) -> TransitionBatch:
    """A batch as it might come out of the replay, with endings and masks."""
    rng = np.random.default_rng(seed)
    legal = rng.random((size, 5)) < 0.7
    legal[:, 4] = True
    return TransitionBatch(
        states=rng.integers(0, 4, (size, 7)).astype(np.int8),
        actions=rng.integers(0, 5, size),
        rewards=rng.random(size),
        dones=rng.random(size) < 0.3,
        next_states=rng.integers(0, 4, (size, 7)).astype(np.int8),
        next_legal=legal,
    )


def one(reward: float, *, done: bool, legal: tuple[bool, ...] = ANY) -> TransitionBatch:
    return TransitionBatch(
        states=np.array([BARE], dtype=np.int8),
        actions=np.array([0]),
        rewards=np.array([reward]),
        dones=np.array([done]),
        next_states=np.array([BARE], dtype=np.int8),
        next_legal=np.array([legal]),
    )


# schedules


def test_defaults_match_the_paper() -> None:
    assert LearningConfig().model_dump() == {
        "gamma": 0.9,
        "lr": 0.01,
        "lr_halved_every": 1000,
        "batch": 64,
        "capacity": 500,
        "learning_starts": 500,
        "gradient_steps": 1,
        "sync_every": 50,
        "eps_start": 1.0,
        "eps_min": 0.0,
        "eps_decay": 0.9995,
    }


def test_epsilon_is_half_after_1386_steps() -> None:
    assert LearningConfig().epsilon(0) == 1
    assert LearningConfig().epsilon(1386) == pytest.approx(0.5, abs=1e-3)
    assert LearningConfig(eps_min=0.1).epsilon(100_000) == 0.1
    assert LearningConfig(eps_start=0.3).epsilon(0) == 0.3


@given(st.integers(0, 3000), st.floats(0, 0.5))
def test_epsilon_equals_stepwise_decay(steps: int, least: float) -> None:
    learning = LearningConfig(eps_min=least)
    eps = 1.0
    for _ in range(steps):
        eps = max(least, eps * 0.9995)
    assert learning.epsilon(steps) == pytest.approx(eps, rel=1e-9)


def test_learning_rate_halves_every_thousand_episodes() -> None:
    rates = [LearningConfig().learning_rate(episode) for episode in (0, 999, 1000, 1999, 2000, 3000)]
    assert rates == [0.01, 0.01, 0.005, 0.005, 0.0025, 0.00125]
    assert LearningConfig(lr=0.1, lr_halved_every=2).learning_rate(5) == 0.025


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 65, "learning_starts": 64},
        {"learning_starts": 501},
        {"capacity": 499},
        {"eps_min": 0.5, "eps_start": 0.4},
        {"gamma": 1.1},
        {"lr": 0},
        {"sync_every": 0},
        {"epsilon": 1},
    ],
)
def test_invalid_hyperparameters_raise(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        LearningConfig.model_validate(wrong)


# replay


def told(count: int) -> list[Transition]:
    """Transitions that differ from each other."""
    rng = np.random.default_rng(count)
    return [
        Transition(
            tuple(rng.integers(0, 4, 7).tolist()),
            int(rng.integers(5)),
            i / 8,
            bool(rng.random() < 0.3),
            tuple(rng.integers(0, 4, 7).tolist()),
            (*(rng.random(4) < 0.7).tolist(), True),
        )
        for i in range(count)
    ]


@given(st.integers(0, 40), st.integers(1, 12))
def test_replay_keeps_newest_transitions(count: int, capacity: int) -> None:
    replay, newest = ReplayBuffer(capacity), deque[Transition](maxlen=capacity)
    for transition in told(count):
        replay.add(transition)
        newest.append(transition)
        assert len(replay) == len(newest)
    if newest:
        batch = replay.sample(np.random.default_rng(0), len(newest))  # all of them, each once
        assert sorted(rows(batch), key=lambda kept: kept.reward) == list(newest)


def rows(batch: TransitionBatch) -> list[Transition]:
    return [
        Transition(tuple(state), action, reward, done, tuple(after), tuple(legal))
        for state, action, reward, done, after, legal in zip(
            batch.states.tolist(),
            batch.actions.tolist(),
            batch.rewards.tolist(),
            batch.dones.tolist(),
            batch.next_states.tolist(),
            batch.next_legal.tolist(),
            strict=True,
        )
    ]


def test_batch_is_sampled_uniformly_without_replacement() -> None:
    replay, rng = ReplayBuffer(10), np.random.default_rng(4)
    for i in range(10):
        replay.add(Transition(BARE, 0, float(i), False, BARE, ANY))
    seen = np.zeros(10)
    for _ in range(3000):
        rewards = replay.sample(rng, 4).rewards
        assert len(set(rewards.tolist())) == 4
        seen[rewards.astype(int)] += 1
    assert np.abs(seen / 1200 - 1).max() < 0.1  # 4 standard deviations


def test_batch_is_a_copy() -> None:
    replay = ReplayBuffer(1)
    replay.add(Transition(BARE, 1, 0.5, False, BARE, ANY))
    batch = replay.sample(np.random.default_rng(0), 1)
    replay.add(Transition((3,) * 7, 2, 0.75, True, BARE, ANY))
    assert rows(batch) == [Transition(BARE, 1, 0.5, False, BARE, ANY)]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (Transition((0,) * 6, 0, 0.0, False, BARE, ANY), "is not a state"),
        (Transition(BARE, 0, 0.0, False, (0, 0, 0, 0, 0, 0, 4), ANY), "is not a state"),
        (Transition(BARE, 5, 0.0, False, BARE, ANY), "no block 5"),
        (Transition(BARE, -1, 0.0, False, BARE, ANY), "no block -1"),
        (Transition(BARE, 0, math.nan, False, BARE, ANY), "reward nan"),
        (Transition(BARE, 0, math.inf, True, BARE, ANY), "reward inf"),
        (Transition(BARE, 0, 0.0, False, BARE, (False,) * 5), "no block is legal"),
        (Transition(BARE, 0, 0.0, False, BARE, (True,) * 4), "got 4"),
    ],
)
def test_replay_rejects_invalid_transitions(wrong: Transition, named: str) -> None:
    replay = ReplayBuffer(3)
    with pytest.raises(UserError, match=named) as refused:
        replay.add(wrong)
    assert refused.value.hint
    assert len(replay) == 0


def test_ended_episode_needs_no_legal_block() -> None:
    replay = ReplayBuffer(1)
    replay.add(Transition(BARE, 4, 1.0, True, BARE, (False,) * 5))
    batch = replay.sample(np.random.default_rng(0), 1)
    assert double_dqn_targets(batch, drawn(0), drawn(1), 0.9).tolist() == [1.0]


def test_too_large_batch_raises() -> None:
    replay = ReplayBuffer(3)
    replay.add(Transition(BARE, 0, 0.0, False, BARE, ANY))
    for size in (0, 2):
        with pytest.raises(UserError, match="of 1 transitions"):
            replay.sample(np.random.default_rng(0), size)
    with pytest.raises(UserError, match="must be positive, got 0"):
        ReplayBuffer(0)


def test_replay_state_is_complete_and_validated() -> None:
    replay = ReplayBuffer(4)
    for i in range(6):
        replay.add(Transition(BARE, i % 5, i / 8, i % 2 == 0, (1,) * 7, ANY))
    state = replay.state_dict()
    again = ReplayBuffer(4)
    again.load_state(state)
    for other in (replay, again):
        other.add(Transition((2,) * 7, 0, 9.0, False, BARE, ANY))
    assert rows(again.sample(np.random.default_rng(1), 4)) == rows(replay.sample(np.random.default_rng(1), 4))
    for name, wrong in (
        ("added", None),
        ("added", -1),
        ("added", True),
        ("rewards", None),
        ("rewards", np.zeros(3)),
        ("actions", np.zeros(4)),
        ("states", [[0] * 7] * 4),
    ):
        with pytest.raises(DataError, match=name if name != "added" else "transitions"):
            ReplayBuffer(4).load_state({**state, name: wrong})


# targets


def test_double_dqn_target() -> None:
    online, target = answering(1, 3, 2, 0, 0), answering(5, 1, 4, 0, 0)
    assert double_dqn_targets(one(0.7, done=False), online, target, 0.9) == pytest.approx([1.6], abs=1e-12)
    # plain DQN, where the target network chooses too
    assert double_dqn_targets(one(0.7, done=False), target, target, 0.9) == pytest.approx([5.2], abs=1e-12)
    assert double_dqn_targets(one(0.7, done=True), online, target, 0.9).tolist() == [0.7]


def test_illegal_block_is_not_in_the_target() -> None:
    online, target = answering(1, 3, 2, 0, 0), answering(5, 1, 4, 0, 0)
    legal = (True, False, True, True, True)
    assert double_dqn_targets(one(0.7, done=False, legal=legal), online, target, 0.9) == pytest.approx([0.7 + 0.9 * 4])
    only = (False, False, False, False, True)
    assert double_dqn_targets(one(0.7, done=False, legal=only), online, target, 0.9) == pytest.approx([0.7])


@settings(max_examples=30)
@given(st.integers(1, 8), st.integers(0, 99), st.floats(0, 1))
def test_targets_match_definition(count: int, seed: int, gamma: float) -> None:
    replay = ReplayBuffer(count)
    for transition in told(count):
        replay.add(transition)
    batch = replay.sample(np.random.default_rng(seed), count)
    online, target = drawn(seed), drawn(seed + 1)
    targets = double_dqn_targets(batch, online, target, gamma)
    for transition, y in zip(rows(batch), targets.tolist(), strict=True):
        said = online.q([transition.next_state])[0]
        best = max((a for a in range(5) if transition.next_legal[a]), key=lambda a: said[a])
        worth = 0.0 if transition.done else target.q([transition.next_state])[0][best]
        assert y == pytest.approx(transition.reward + gamma * worth, abs=1e-9)


# gradients and Adam


@pytest.mark.parametrize("seed", range(3))
def test_gradient_equals_autograd(seed: int) -> None:
    network, batch = drawn(seed), recorded(seed)
    targets = np.random.default_rng(seed).normal(size=64)
    loss, gradients = loss_and_gradients(network, batch.states, batch.actions, targets)
    theirs = TorchDueling().take(network.weights)
    said = theirs(torch.tensor(batch.states)).gather(1, torch.tensor(batch.actions)[:, None])[:, 0]
    their_loss = torch.nn.functional.mse_loss(said, torch.tensor(targets))
    their_loss.backward()
    assert loss == pytest.approx(float(their_loss.detach()), rel=1e-12)
    assert set(gradients) == set(NAMES)
    for name, parameter in theirs.named_parameters():
        assert parameter.grad is not None
        assert gradients[name].shape == SHAPES[name]
        assert np.abs(gradients[name] - parameter.grad.numpy()).max() < 1e-12
        assert np.abs(gradients[name]).max() > 0


def test_adam_equals_torch() -> None:
    rng = np.random.default_rng(0)
    weights = {name: np.array(array) for name, array in drawn(0).weights.items()}
    theirs = {name: torch.tensor(array, requires_grad=True) for name, array in weights.items()}
    adam, torch_adam = Adam(), torch.optim.Adam(theirs.values(), lr=0.01, betas=(0.9, 0.999), eps=1e-8)
    for update in range(1, 201):
        rate = 0.01 if update <= 100 else 0.005
        torch_adam.param_groups[0]["lr"] = rate
        gradients = {
            name: rng.normal(size=array.shape) * 10.0 ** rng.integers(-6, 2) for name, array in weights.items()
        }
        for name, tensor in theirs.items():
            tensor.grad = torch.tensor(gradients[name])
        weights = adam.step(weights, gradients, rate)
        torch_adam.step()
        assert adam.updates == update
        assert max(np.abs(weights[n] - theirs[n].detach().numpy()).max() for n in weights) < 1e-10


def test_weight_without_gradient_is_unchanged() -> None:
    weights = drawn(0).weights
    updated = Adam().step(weights, {name: np.zeros(shape) for name, shape in SHAPES.items()}, 0.01)
    assert all((updated[name] == weights[name]).all() for name in NAMES)


# the learner on recorded batches, against a learner in torch


def test_updates_equal_torch() -> None:
    ours = Learner(LearningConfig(sync_every=7, lr_halved_every=1), seed=3)
    theirs = TorchLearner(ours.online.weights, gamma=0.9, lr=0.01, sync_every=7)
    for update in range(1, 41):
        batch = recorded(update)
        our_loss = ours.learn(batch)
        their_loss = theirs.learn(
            batch.states, batch.actions, batch.rewards, batch.dones, batch.next_states, batch.next_legal
        )
        assert our_loss == pytest.approx(their_loss, abs=1e-6)
        for mine, other in ((ours.online, theirs.online), (ours.target, theirs.target)):
            told = other.told()
            assert max(np.abs(mine.weights[name] - told[name]).max() for name in NAMES) < 1e-6
        if update % 16 == 0:
            ours.end_episode()
            theirs.set_rate(ours.learning_rate)
    assert ours.learning_rate == 0.0025
    assert max(np.abs(ours.online.weights[n] - ours.target.weights[n]).max() for n in NAMES) > 1e-3
