"""The learner: when and what it learns, reproducibility, and exact resumption."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import support.navigation_mdp as mdp
from reason.core.errors import DataError, UserError
from reason.reasoning.rlot.blocks import best_legal
from reason.reasoning.rlot.learner import Learner, LearningConfig, Transition
from reason.reasoning.rlot.navigator import NAMES, DuelingNetwork

ANY = (True,) * 5
BARE = (0,) * 7
QUICK = LearningConfig(batch=16, learning_starts=40, capacity=60, sync_every=7, lr_halved_every=5)


def weights_of(network: DuelingNetwork) -> bytes:
    return b"".join(array.tobytes() for array in network.weights.values())


def content(state: Mapping[str, Any]) -> dict[str, Any]:
    """A learner's state as values that can be compared bit by bit."""
    return {
        name: (value.dtype.name, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
        for name, value in state.items()
    }


def walk(learner: Learner, steps: int, state: mdp.State = mdp.BARE) -> tuple[list[tuple[int, float | None]], mdp.State]:
    """Train a learner in the toy environment; returns its actions, losses and state."""
    told: list[tuple[int, float | None]] = []
    for _ in range(steps):
        (action,) = learner.act([state], [mdp.LEGAL[state]])
        reward, after = mdp.WORLD[state][action]
        following = after or mdp.BARE
        loss = learner.observe(Transition(state, action, reward, after is None, following, mdp.LEGAL[following]))
        told.append((action, loss))
        if after is None:
            learner.end_episode()
        state = following
    return told, state


# when it learns


def test_learning_start_and_target_sync() -> None:
    learner = Learner(seed=1)
    begin = weights_of(learner.online)
    told, state = walk(learner, 499)
    assert {loss for _, loss in told} == {None}
    assert learner.updates == 0
    assert weights_of(learner.online) == weights_of(learner.target) == begin
    expected = begin
    for update in range(1, 152):
        ((_, loss),), state = walk(learner, 1, state)
        assert loss is not None
        assert loss >= 0
        assert learner.updates == update
        online = weights_of(learner.online)
        if update % 50 == 0:
            expected = online
        else:
            assert online != expected
        assert weights_of(learner.target) == expected
    assert learner.steps == 650
    assert learner.epsilon == 0.9995**650


def test_gradient_steps_use_separate_batches() -> None:
    fixed = {"eps_decay": 1.0, "lr_halved_every": 1000}
    once, thrice = (Learner(QUICK.model_copy(update=fixed | {"gradient_steps": n}), seed=4) for n in (1, 3))
    state = mdp.BARE
    for step in range(60):
        told, _ = walk(thrice, 1, state)
        again, state = walk(once, 1, state)
        losses = [loss for _, loss in again]
        if once.updates:
            losses = [once.learn(once.replay.sample(once._sampling, QUICK.batch)) for _ in range(2)][-1:]
        assert [loss for _, loss in told] == losses
        assert once.updates == thrice.updates == max(0, 3 * (step + 2 - QUICK.learning_starts))
        assert weights_of(once.online) == weights_of(thrice.online)
        assert weights_of(once.target) == weights_of(thrice.target)


def test_epsilon_and_learning_rate_decay() -> None:
    learner = Learner()
    assert learner.epsilon == 1
    learner.act([BARE] * 3, [ANY] * 3)
    assert learner.act([], []) == []
    learner.act([BARE], [ANY])
    assert learner.steps == 4
    assert learner.epsilon == 0.9995**4
    rates = []
    for _ in range(2001):
        rates.append(learner.learning_rate)
        learner.end_episode()
    assert (rates[0], rates[999], rates[1000], rates[2000]) == (0.01, 0.01, 0.005, 0.0025)
    assert learner.episodes == 2001


# how it acts


def test_random_actions_are_uniform_over_legal() -> None:
    learner = Learner(LearningConfig(eps_decay=1), seed=2)
    legal = (True, False, True, False, True)
    actions = learner.act([BARE] * 6000, [legal] * 6000)
    counts = np.bincount(actions, minlength=5)
    assert counts[[1, 3]].tolist() == [0, 0]
    assert np.abs(counts[[0, 2, 4]] / 2000 - 1).max() < 0.1  # 5 standard deviations


def test_greedy_actions_are_best_legal() -> None:
    learner = Learner(LearningConfig(eps_start=0), seed=2)
    rng = np.random.default_rng(0)
    states = [tuple(row) for row in rng.integers(0, 4, (200, 7)).tolist()]
    legal = [(*row, True) for row in (rng.random((200, 4)) < 0.5).tolist()]
    q = learner.online.q(states)
    assert learner.act(states, legal) == [best_legal(row, may) for row, may in zip(q.tolist(), legal, strict=True)]


def test_epsilon_is_the_share_of_random_actions() -> None:
    learner = Learner(LearningConfig(eps_start=0.25, eps_decay=1), seed=5)
    best = Learner(LearningConfig(eps_start=0), seed=5).act([BARE], [ANY])[0]
    actions = np.array(learner.act([BARE] * 8000, [ANY] * 8000))
    assert np.mean(actions == best) == pytest.approx(0.75 + 0.25 / 5, abs=0.02)


def test_batched_acting_equals_sequential() -> None:
    together, apart = Learner(LearningConfig(eps_start=0.6), seed=8), Learner(LearningConfig(eps_start=0.6), seed=8)
    states = [tuple(row) for row in np.random.default_rng(1).integers(0, 4, (60, 7)).tolist()]
    assert together.act(states, [ANY] * 60) == [apart.act([state], [ANY])[0] for state in states]
    assert together.steps == apart.steps == 60


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Learner(seed=-1), "got -1"),
        (lambda: Learner().act([BARE], []), "1 states but 0"),
        (lambda: Learner().act([BARE], [(False,) * 5]), "no block is legal"),
        (lambda: Learner().act([(4,) * 7], [ANY]), "other than 0, 1, 2 or 3"),
        (lambda: Learner().observe(Transition(BARE, 9, 0.0, False, BARE, ANY)), "no block 9"),
    ],
)
def test_invalid_arguments_raise(call: Any, named: str) -> None:
    with pytest.raises(UserError, match=named) as refused:
        call()
    assert refused.value.hint


def test_infinite_loss_raises_divergence() -> None:
    learner = Learner(LearningConfig(batch=1, learning_starts=1, capacity=1), seed=0)
    before = weights_of(learner.online)
    with pytest.raises(UserError, match="training diverged: the loss is inf") as refused:
        learner.observe(Transition(BARE, 0, 1e200, True, BARE, ANY))
    assert "learning rate" in refused.value.hint
    assert weights_of(learner.online) == before
    assert learner.updates == 0


# what it learns


@pytest.mark.parametrize("seed", range(3))
def test_learned_policy_equals_value_iteration(seed: int) -> None:
    learner = Learner(seed=seed)
    walk(learner, 3000)
    exact = mdp.values(learner.learning.gamma)
    assert mdp.reachable() == set(mdp.WORLD)
    for state, values in exact.items():
        best = max(values, key=lambda action: values[action])
        second = max((v for action, v in values.items() if action != best), default=-1.0)
        assert values[best] - second > 0.04  # the world is not in doubt
        said = learner.online.q([state])[0].tolist()
        assert best_legal(said, mdp.LEGAL[state]) == best, state
        assert said[best] == pytest.approx(values[best], abs=0.05), state


# reproducibility and resumption


def test_seed_determines_weights_and_replay() -> None:
    one, two, other = Learner(QUICK, seed=4), Learner(QUICK, seed=4), Learner(QUICK, seed=5)
    assert walk(one, 150) == walk(two, 150)
    assert content(one.state_dict()) == content(two.state_dict())
    walk(other, 150)
    assert weights_of(other.online) != weights_of(one.online)
    assert content(other.state_dict())["replay.actions"] != content(one.state_dict())["replay.actions"]


@pytest.mark.parametrize("steps", [0, 25, 40, 103])
def test_resumed_training_equals_uninterrupted(steps: int) -> None:
    whole = Learner(QUICK, seed=6)
    _, state = walk(whole, steps)
    stored = whole.state_dict()
    # to disk and back: arrays as npz, the rest as JSON
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **{n: v for n, v in stored.items() if isinstance(v, np.ndarray)})
    text = json.dumps({n: v for n, v in stored.items() if not isinstance(v, np.ndarray)})
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        resumed = Learner(QUICK, seed=999)
        resumed.load_state({**arrays, **json.loads(text)})
    assert content(resumed.state_dict()) == content(stored)
    rest, _ = walk(whole, 90, state)
    assert any(loss is not None for _, loss in rest)
    assert walk(resumed, 90, state)[0] == rest
    assert content(resumed.state_dict()) == content(whole.state_dict())
    assert content(stored) != content(whole.state_dict())  # a state is a copy


def test_invalid_state_raises_and_changes_nothing() -> None:
    learner = Learner(QUICK, seed=6)
    walk(learner, 60)
    good = learner.state_dict()
    fresh = Learner(QUICK, seed=7)
    before = content(fresh.state_dict())
    for name, wrong, named in (
        ("learning", {**QUICK.model_dump(mode="json"), "gamma": 0.5, "lr": 0.5}, "other hyperparameters: gamma, lr"),
        ("learning", None, "other hyperparameters"),
        ("steps", None, "steps"),
        ("updates", -1, "updates"),
        ("episodes", "3", "episodes"),
        ("seed", True, "seed"),
        ("acting", None, "acting"),
        ("sampling", {"bit_generator": "MT19937"}, "sampling"),
        ("online.Linear1.bias", None, r"online\.Linear1\.bias"),
        ("target.Linear1.bias", np.zeros(31), r"target\.Linear1\.bias"),
        ("adam.first.Linear1.bias", np.zeros(32, dtype=np.float32), r"adam\.first\.Linear1\.bias"),
        ("adam.second.Linear3_val.bias", np.array([np.nan]), r"adam\.second\.Linear3_val\.bias"),
        ("replay.rewards", np.zeros(59), "rewards"),
        ("replay.added", None, "transitions"),
    ):
        with pytest.raises(DataError, match=named) as refused:
            fresh.load_state({**good, name: wrong})
        assert refused.value.hint
        with pytest.raises(DataError):
            fresh.load_state({n: v for n, v in good.items() if n != name})
        assert content(fresh.state_dict()) == before
    fresh.load_state(good)
    assert content(fresh.state_dict()) == content(good)


def test_state_contains_weights_and_moments() -> None:
    names = set(Learner(QUICK).state_dict())
    assert {f"{part}.{name}" for part in ("online", "target", "adam.first", "adam.second") for name in NAMES} <= names
