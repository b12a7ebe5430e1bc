"""Checkpoints: read as they were written, whole or not at all, and nothing else is taken for one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reason.core.errors import DataError, StoreError
from reason.evals.training.navigator.episodes import EpisodeRecord
from reason.evals.training.navigator.trainer import EpisodeState, NavigatorState, TrainingProgress
from reason.evals.training.run_directory import Checkpoint, JsonLinesWriter, load_checkpoint, save_checkpoint
from reason.reasoning.rlot.learner import Learner, Transition
from safetensors.numpy import save_file
from support.navigation_model import QUICK

ALL = (True, True, True, True, True)


def checkpoint_of(learner, slots=()):
    progress = TrainingProgress(begun=4, finished=2, steps=9, slots=slots)
    return NavigatorState("abc", learner.state_dict(), progress, 2, 1, {"main": "m@1"}).to_checkpoint()


@settings(max_examples=8)
@given(
    st.integers(0, 2**31),
    st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 3), st.booleans()), min_size=60, max_size=90),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4),
)
def test_a_restored_learner_continues_bit_for_bit(tmp_path_factory, seed, told, losses):
    path = tmp_path_factory.mktemp("c") / "checkpoint.safetensors"
    learner = Learner(QUICK, seed)

    def tell(some, reward, action, done):
        state = (action, 1, 2, 3, 0, 1, 2)
        (chosen,) = some.act([state], [ALL])
        return some.observe(Transition(state, chosen, reward, done, state[::-1], ALL))

    for one in told:
        tell(learner, *one)
    place = EpisodeState(problem=("d", "i"), actions=(0, 3), losses=tuple(losses), epsilon=0.1)
    save_checkpoint(checkpoint_of(learner, (place, None)), path)
    result = NavigatorState.from_checkpoint(load_checkpoint(path))
    assert result.progress == TrainingProgress(begun=4, finished=2, steps=9, slots=(place, None))
    assert (result.plan, result.validated, result.validations, result.identities) == ("abc", 2, 1, {"main": "m@1"})
    other = Learner(QUICK, seed)
    other.load_state(result.learner)
    for one in told:
        assert tell(learner, *one) == tell(other, *one)
    for name, value in learner.online.weights.items():
        np.testing.assert_array_equal(value, other.online.weights[name])


def test_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(DataError, match="there is no checkpoint"):
        load_checkpoint(path)
    save_checkpoint(checkpoint_of(Learner()), path)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 997):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match="damaged"):
            load_checkpoint(path)
    save_file({}, path, metadata={"reason.training.checkpoint": json.dumps({"format": 2})})
    with pytest.raises(DataError, match="another version"):
        load_checkpoint(path)
    np.savez(path, checkpoint=np.array([{"format": 1}], dtype=object))  # numpy names it checkpoint.safetensors.npz
    path.with_name(f"{path.name}.npz").replace(path)
    with pytest.raises(DataError, match="damaged"):  # nothing is unpickled
        load_checkpoint(path)
    save_checkpoint(Checkpoint("abc", {}, {}), path)
    with pytest.raises(DataError, match="holds no navigator"):
        NavigatorState.from_checkpoint(load_checkpoint(path))


def test_unwritable_checkpoints_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        save_checkpoint(checkpoint_of(Learner()), tmp_path / "file" / "checkpoint.safetensors")
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(checkpoint_of(Learner()), path)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def record(n):
    nothing = dict.fromkeys(("blocks", "states", "actions", "rewards"), ())
    return EpisodeRecord(episode=n, dataset="d", item="i", length=0, episode_return=0, correct=False, **nothing)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 40))
def test_lines_after_the_checkpoint_are_rewritten(tmp_path_factory, written, keep, torn):
    path = tmp_path_factory.mktemp("l") / "lines.jsonl"
    with JsonLinesWriter(path, 0) as file:
        for n in range(1, written + 1):
            file.add(record(n))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:torn].replace(b"\n", b""))
    if keep > written:
        with pytest.raises(DataError, match=f"has {written} lines"):
            JsonLinesWriter(path, keep)
        return
    with JsonLinesWriter(path, keep) as file:
        for n in range(keep + 1, written + 1):
            file.add(record(n))
        file.sync()
    assert path.read_bytes() == whole
