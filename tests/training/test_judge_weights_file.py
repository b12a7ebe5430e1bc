"""The file of a trained change: few bits, the same bytes, and no damage unseen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reason.core.errors import DataError
from reason.verify.entailment.embedded import _unpacked, apply_delta, parse_delta
from train import _packed, compute_delta, serialize_delta


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"0.up.weight": (6, 10), "0.up.bias": (6,), "positions": (9, 4), "words": (5, 4)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def changed(before: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    after = {name: a + 0.01 * rng.standard_normal(a.shape).astype(np.float32) for name, a in before.items()}
    del after["words"]
    after["positions"] = after["positions"][:3]
    return {**after, "labels.bias": np.array([1.0, 2.0, 3.0], dtype=np.float32)}


@given(st.integers(2, 8), st.data())
def test_packed_numbers_come_back(bits, data):
    top = 2 ** (bits - 1)
    numbers = data.draw(st.lists(st.integers(-top, top - 1), max_size=40))
    packed = _packed(np.array(numbers, dtype=np.int8), bits)
    assert len(packed) == -(-len(numbers) * bits // 8)
    assert _unpacked(packed, len(numbers), bits).tolist() == numbers


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_a_change_is_off_by_half_a_step_at_most(bits):
    before = weights()
    after = changed(before)
    found = apply_delta(compute_delta(before, after, base="b", bits=bits), before)
    change = after["0.up.weight"] - before["0.up.weight"]
    step = np.abs(change).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
    assert (np.abs(found["0.up.weight"] - after["0.up.weight"]) <= 0.505 * step).all()
    assert np.abs(found["0.up.bias"] - after["0.up.bias"]).max() < 1e-4
    assert found["labels.bias"].tolist() == [1.0, 2.0, 3.0]


def test_a_file_comes_back_and_has_the_same_bytes():
    before = weights()
    delta = compute_delta(before, changed(before), base="base", bits=5, temperature=1.25, card={"seed": 3})
    raw = serialize_delta(delta)
    assert raw == serialize_delta(delta)
    back = parse_delta(raw, "f")
    assert (back.base, back.bits, back.temperature, back.card) == ("base", 5, 1.25, {"seed": 3})
    assert back.digest == delta.digest
    assert serialize_delta(back) == raw


def test_every_part_of_a_verdict_is_in_the_digest():
    before = weights()
    after = changed(before)
    digests = {
        compute_delta(before, after, base="a").digest,
        compute_delta(before, after, base="b").digest,
        compute_delta(before, after, base="a", bits=7).digest,
        compute_delta(before, after, base="a", temperature=2.0).digest,
        compute_delta(before, {**after, "labels.bias": after["labels.bias"] + 1}, base="a").digest,
    }
    assert len(digests) == 5
    assert compute_delta(before, after, base="a", card={"x": 1}).digest == compute_delta(before, after, base="a").digest


def test_damage_is_seen_wherever_it_is():
    before = weights()
    raw = serialize_delta(compute_delta(before, changed(before), base="b"))
    for at in (0, 20, len(raw) // 2, len(raw) - 1):
        damaged = bytearray(raw)
        damaged[at] ^= 1
        with pytest.raises(DataError, match="file.safetensors"):
            parse_delta(bytes(damaged), "file.safetensors")
    for cut in (0, 7, 100, len(raw) - 1):
        with pytest.raises(DataError):
            parse_delta(raw[:cut], "f")


def test_a_change_for_another_encoder_is_refused():
    before = weights()
    delta = compute_delta(before, changed(before), base="b")
    for name, shape in (("0.up.weight", (5, 10)), ("0.up.bias", (7,)), ("positions", (9, 5))):
        with pytest.raises(DataError, match=name):
            apply_delta(delta, {**before, name: np.zeros(shape, dtype=np.float32)})
    without = {name: array for name, array in before.items() if name != "0.up.bias"}
    with pytest.raises(DataError, match=r"0\.up\.bias"):
        apply_delta(delta, without)


def test_what_is_no_number_is_not_written():
    before = weights()
    with pytest.raises(ValueError, match="up.bias"):
        compute_delta(before, {"0.up.bias": np.full(6, np.nan, dtype=np.float32)}, base="b")
    with pytest.raises(ValueError, match="bits must be from 2 to 8"):
        compute_delta(before, {}, base="b", bits=9)
