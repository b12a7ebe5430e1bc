"""The navigator's learner: schedules, targets, when it learns and what, and against a second learner in torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import support.navigation_mdp as mdp
import torch
from hypothesis import given
from hypothesis import strategies as st
from navigator_training import Learner, LearningConfig, TorchNavigator, Transition, double_dqn_targets
from pydantic import ValidationError
from reason.core.errors import UserError
from reason.reasoning.rlot.blocks import best_legal
from reason.reasoning.rlot.navigator import SHAPES
from support.torch_navigator import TorchLearner, one_torch_thread

ANY = (True,) * 5
BARE = (0,) * 7
QUICK = LearningConfig(batch=16, learning_starts=40, capacity=60, sync_every=7, lr_halved_every=5)


@pytest.fixture(autouse=True, scope="module")
def _one_torch_thread() -> Iterator[None]:
    with one_torch_thread():
        yield


def weights_of(network: TorchNavigator) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())


def random_network(seed: int) -> TorchNavigator:
    torch.manual_seed(seed)
    return TorchNavigator()


def recorded(seed: int, size: int = 64) -> list[Transition]:
    """A batch as it might come out of the replay, with endings and masks."""
    rng = np.random.default_rng(seed)
    return [
        Transition(
            tuple(rng.integers(0, 4, 7).tolist()),
            int(rng.integers(5)),
            float(rng.random()),
            bool(rng.random() < 0.3),
            tuple(rng.integers(0, 4, 7).tolist()),
            (*(rng.random(4) < 0.7).tolist(), True),
        )
        for _ in range(size)
    ]


def walk(learner: Learner, steps: int, state: mdp.State = mdp.BARE) -> tuple[list[tuple[int, float | None]], mdp.State]:
    """Train a learner in the toy environment; returns its actions, losses and state."""
    told: list[tuple[int, float | None]] = []
    for _ in range(steps):
        action = learner.act(state, mdp.LEGAL[state])
        reward, after = mdp.WORLD[state][action]
        following = after or mdp.BARE
        loss = learner.observe(Transition(state, action, reward, after is None, following, mdp.LEGAL[following]))
        told.append((int(action), loss))
        learner.episodes += after is None
        state = following
    return told, state


# schedules


def test_epsilon_is_half_after_1386_steps():
    assert LearningConfig().epsilon(0) == 1
    assert LearningConfig().epsilon(1386) == pytest.approx(0.5, abs=1e-3)
    assert LearningConfig(eps_min=0.1).epsilon(100_000) == 0.1


def test_learning_rate_halves_every_thousand_episodes():
    rates = [LearningConfig().learning_rate(episode) for episode in (0, 999, 1000, 1999, 2000, 3000)]
    assert rates == [0.01, 0.01, 0.005, 0.005, 0.0025, 0.00125]


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 65, "learning_starts": 64},
        {"learning_starts": 501},
        {"capacity": 499},
        {"gamma": 1.1},
        {"lr": 0},
        {"sync_every": 0},
        {"epsilon": 1},
    ],
)
def test_invalid_hyperparameters_raise(wrong):
    with pytest.raises(ValidationError):
        LearningConfig.model_validate(wrong)


# targets


@given(st.integers(1, 8), st.integers(0, 99), st.floats(0, 1))
def test_targets_match_definition(count, seed, gamma):
    batch = recorded(seed, count)
    online, target = random_network(seed), random_network(seed + 1)
    targets = double_dqn_targets(batch, online, target, gamma)
    for transition, y in zip(batch, targets.tolist(), strict=True):
        said = online.network().q([transition.next_state])[0]
        best = max((a for a in range(5) if transition.next_legal[a]), key=lambda a: said[a])
        worth = 0.0 if transition.done else target.network().q([transition.next_state])[0][best]
        assert y == pytest.approx(transition.reward + gamma * worth, abs=1e-9)


# when it learns, and how it acts


def test_learning_start_and_target_sync():
    learner = Learner(QUICK, seed=1)
    begin = weights_of(learner.online)
    told, state = walk(learner, QUICK.learning_starts - 1)
    assert {loss for _, loss in told} == {None}
    assert learner.updates == 0
    assert weights_of(learner.online) == weights_of(learner.target) == begin
    expected = begin
    for update in range(1, 31):
        ((_, loss),), state = walk(learner, 1, state)
        assert loss is not None
        assert loss >= 0
        assert learner.updates == update
        online = weights_of(learner.online)
        if update % QUICK.sync_every == 0:
            expected = online
        else:
            assert online != expected
        assert weights_of(learner.target) == expected
    assert learner.steps == QUICK.learning_starts + 29
    assert len(learner.replay) == QUICK.capacity  # the newest


def test_gradient_steps_are_updates():
    learner = Learner(QUICK.model_copy(update={"gradient_steps": 3}), seed=4)
    walk(learner, 60)
    assert learner.updates == 3 * (60 - QUICK.learning_starts + 1)


def test_greedy_actions_are_best_legal():
    learner = Learner(LearningConfig(eps_decay=1e-9), seed=2)
    learner.steps = 1
    rng = np.random.default_rng(0)
    for state, may in zip(rng.integers(0, 4, (200, 7)).tolist(), (rng.random((200, 4)) < 0.5).tolist(), strict=True):
        q = learner.online.network().q([state])[0].tolist()
        assert learner.act(tuple(state), (*may, True)) == best_legal(q, (*may, True))


def test_infinite_loss_raises_divergence():
    learner = Learner(LearningConfig(batch=1, learning_starts=1, capacity=1), seed=0)
    before = weights_of(learner.online)
    with pytest.raises(UserError, match="training diverged: the loss is inf") as refused:
        learner.observe(Transition(BARE, 0, 1e200, True, BARE, ANY))
    assert "learning rate" in refused.value.hint
    assert weights_of(learner.online) == before
    assert learner.updates == 0


# what it learns


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(3))
def test_learned_policy_equals_value_iteration(seed):
    learner = Learner(LearningConfig(), seed=seed)
    walk(learner, 3000)
    exact = mdp.values(learner.learning.gamma)
    assert mdp.reachable() == set(mdp.WORLD)
    for state, values in exact.items():
        best = max(values, key=lambda action: values[action])
        second = max((v for action, v in values.items() if action != best), default=-1.0)
        assert values[best] - second > 0.04  # the world is not in doubt
        said = learner.online.network().q([state])[0].tolist()
        assert best_legal(said, mdp.LEGAL[state]) == best, state
        assert said[best] == pytest.approx(values[best], abs=0.05), state


def test_seed_determines_weights_and_replay():
    one_learner, two, other = Learner(QUICK, seed=4), Learner(QUICK, seed=4), Learner(QUICK, seed=5)
    assert walk(one_learner, 150) == walk(two, 150)
    assert weights_of(one_learner.online) == weights_of(two.online)
    assert one_learner.replay == two.replay
    walk(other, 150)
    assert weights_of(other.online) != weights_of(one_learner.online)


# on recorded batches, against a learner written from the paper's description alone


def test_updates_equal_torch():
    ours = Learner(LearningConfig(sync_every=7, lr_halved_every=1), seed=3)
    theirs = TorchLearner(ours.online.network().weights, gamma=0.9, lr=0.01, sync_every=7)
    for update in range(1, 41):
        batch = recorded(update)
        states, actions, rewards, dones, next_states, next_legal = map(np.array, zip(*batch, strict=True))
        our_loss = ours.learn(batch)
        their_loss = theirs.learn(states, actions, rewards, dones, next_states, next_legal)
        assert our_loss == pytest.approx(their_loss, abs=1e-6)
        for mine, other in ((ours.online, theirs.online), (ours.target, theirs.target)):
            weights, told = mine.network().weights, other.told()
            assert max(np.abs(weights[name] - told[name]).max() for name in SHAPES) < 1e-6
        if update % 16 == 0:
            ours.episodes += 1
            theirs.set_rate(ours.learning.learning_rate(ours.episodes))
    assert ours.learning.learning_rate(ours.episodes) == 0.0025
