"""Navigators: selected blocks, metadata, and files: valid, damaged and of other programs."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from reason.core.errors import DataError, UserError
from reason.core.files import question_digest
from reason.reasoning.rlot import navigator as navigator_module
from reason.reasoning.rlot.navigator import (
    SHAPES,
    DuelingNetwork,
    Navigator,
    NavigatorCard,
    load_navigator,
    save_navigator,
)
from support.torch_navigator import TorchDueling, random_weights

BARE = (0, 0, 0, 0, 0, 0, 0)
ANY = (True,) * 5
CARD = NavigatorCard(
    name="gsm8k-small",
    model="local/smollm2-135m",
    model_identity="sha256:1234",
    reward="outcome",
    datasets=("gsm8k", "math500"),
    episodes=3000,
    steps=9123,
    problems=2,
    seed=7,
    gamma=0.95,
    max_blocks=4,
    parity="reference",
    parameters={"plans": 3, "limits": {"step_tokens": 64}, "system": "Zähle! \U0001f600"},
    trained_on=(question_digest("What is 1 + 1?"), question_digest("And 2 + 2?")),
    created="2026-01-02T03:04:05Z",
    version="0.1",
    notes={"accuracy": 0.25},
)


def network(seed: int = 0) -> DuelingNetwork:
    return DuelingNetwork(random_weights(seed))


def answering(*q: float) -> DuelingNetwork:
    """A network that gives these values in every state."""
    weights = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    weights["Linear3_adv.bias"] = np.array(q) - np.mean(q)
    weights["Linear3_val.bias"] = np.array([np.mean(q)])
    return DuelingNetwork(weights)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kept.safetensors"
    save_navigator(Navigator(network(), CARD), path)
    return path


def rewritten(file: Path, **changes: object) -> None:
    """Change the entry in a file's metadata; None takes something away, a function changes the card."""
    arrays = safetensors.numpy.load(file.read_bytes())
    with safetensors.safe_open(file, framework="numpy") as opened:
        entry = json.loads(opened.metadata()["reason.navigator"])
    entry = {name: value for name, value in {**entry, **changes}.items() if value is not None}
    file.write_bytes(safetensors.numpy.save(arrays, metadata={"reason.navigator": json.dumps(entry)}))


def test_navigator_chooses_best_legal_block():
    navigator = Navigator(answering(1, 3, 2, 3, 0))
    assert navigator.q(BARE) == pytest.approx((1, 3, 2, 3, 0), abs=1e-6)
    assert navigator.choose(BARE, ANY) == 1  # of two equal ones the first
    assert navigator.choose(BARE, (True, False, True, True, True)) == 3
    assert navigator.choose(BARE, (True, False, True, False, True)) == 2
    assert navigator.choose(BARE, (False, False, False, False, True)) == 4


def test_invalid_state_or_no_legal_block_raises():
    navigator = Navigator(network())
    with pytest.raises(UserError, match="other than 0, 1, 2 or 3"):
        navigator.choose((0, 0, 0, 0, 0, 0, 4), ANY)
    with pytest.raises(UserError, match="no block is legal"):
        navigator.choose(BARE, (False,) * 5)


def test_values_are_equal_after_round_trip(file):
    before, after = Navigator(network(), CARD), load_navigator(file)
    assert after.card == CARD
    assert after.digest == before.digest
    for state in np.random.default_rng(1).integers(0, 4, (200, 7)).tolist():
        assert after.q(state) == before.q(state)
    assert after.q(BARE) == pytest.approx(tuple(network().q([BARE])[0]), abs=1e-6)


def test_digest_depends_only_on_weights():
    assert Navigator(network(), CARD).digest == Navigator(network()).digest
    assert Navigator(network(1)).digest != Navigator(network()).digest
    almost = {name: np.array(array) for name, array in Navigator(network()).network.weights.items()}
    almost["Linear1.bias"][0] = np.nextafter(np.float32(almost["Linear1.bias"][0]), np.float32(1))
    assert Navigator(DuelingNetwork(almost)).digest != Navigator(network()).digest


def test_navigator_knows_its_training_questions():
    navigator = Navigator(network(), CARD)
    assert navigator.knows("What is 1 + 1?")
    assert navigator.knows("  what IS\n1 +\t1? ")
    assert not navigator.knows("What is 1 + 2?")
    assert not Navigator(network()).knows("What is 1 + 1?")


def test_torch_file_without_card_loads(tmp_path):
    torch.manual_seed(3)
    theirs = TorchDueling()
    for dtype, within in ((torch.float64, 1e-6), (torch.float32, 1e-6), (torch.float16, 1e-2)):
        path = tmp_path / "theirs.safetensors"
        tensors = {name: tensor.to(dtype) for name, tensor in theirs.state_dict().items()}
        safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
        ours = load_navigator(path)
        assert ours.card == NavigatorCard(name="theirs")
        with torch.no_grad():
            expected = theirs(torch.tensor([BARE])).numpy()[0]
        assert ours.q(BARE) == pytest.approx(tuple(expected), abs=within)


def test_default_navigator_is_bundled(monkeypatch, file):
    asked = []

    def files(package: object) -> Path:
        asked.append(package)
        return file.parent

    monkeypatch.setattr(navigator_module.resources, "files", files)
    file.rename(file.with_name("default.safetensors"))
    assert load_navigator("default").card == CARD
    assert asked == ["reason.reasoning.rlot"]
    file.with_name("default.safetensors").unlink()
    with pytest.raises(DataError, match="there is no navigator") as refused:
        load_navigator("default")
    assert str(file.with_name("default.safetensors")) in refused.value.message
    assert "train_navigator.py makes one" in refused.value.hint
    with pytest.raises(DataError, match="there is no navigator default"):
        load_navigator(Path("default"))  # a path is a path


def test_bundled_navigator_has_a_card():
    shipped = load_navigator("default")
    card = shipped.card
    assert sum(array.size for array in shipped.network.weights.values()) == 2566
    assert (card.model, card.reward) == ("vllm/qwen2.5-coder-1.5b-instruct", "outcome")
    assert (card.episodes, card.steps, card.problems, card.max_blocks) == (138, 585, 117, 4)
    assert card.datasets == ("gsm8k", "math500", "yes_no")
    assert len(set(card.trained_on)) == 117
    assert not any("/" in name for name in (card.name, *card.datasets))
    states = np.array(list(product(range(4), repeat=7)))
    values = shipped.network.q(states)
    assert np.isfinite(values).all()
    assert len(set(values.argmax(1).tolist())) > 1  # not one block whatever the state


def refused(path: Path) -> DataError:
    with pytest.raises(DataError) as error:
        load_navigator(path)
    assert str(path) in error.value.message
    assert error.value.hint
    assert "\n" not in str(error.value)
    return error.value


def test_missing_or_unreadable_file_raises(tmp_path):
    assert "there is no navigator" in refused(tmp_path / "absent.safetensors").message
    assert "cannot read" in refused(tmp_path).message
    assert "cannot read" in refused(Path(f"{tmp_path}/a\0b")).message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"PK\x03\x04" + bytes(200),
        b"\x80\x04\x95" + bytes(100),
        bytes(8),
        b"\xff" * 64,
        b"\x02" + bytes(7) + b"[]",
    ],
    ids=["empty", "json", "zip", "pickle", "zeros", "ones", "a list"],
)
def test_other_file_format_raises(content, tmp_path):
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    refused(path)


def test_other_model_raises(tmp_path):
    path = tmp_path / "other.safetensors"
    good = {name: np.array(array, dtype=np.float32) for name, array in network().weights.items()}
    for arrays, named in (
        ({"embed.weight": np.zeros((4, 4), dtype=np.float32)}, "missing or unknown weights"),
        ({**good, "Linear1.weight": good["Linear1.weight"].T.copy()}, "Linear1.weight"),
    ):
        path.write_bytes(safetensors.numpy.save(arrays))
        error = refused(path)
        assert "is not a navigator" in error.message
        assert named in error.message
    tensors = {name: torch.tensor(array).to(torch.bfloat16) for name, array in good.items()}
    safetensors.torch.save_file(tensors, path)
    refused(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "has format 2; this version of reason reads 1"),
        ({"card": None}, "is damaged"),
        ({"card": []}, "is damaged"),
        ({"card": {**CARD.model_dump(mode="json"), "trained_on": ["What is 1 + 1?"]}}, "is damaged"),
        ({"card": {**CARD.model_dump(mode="json"), "parity": "both"}}, "is damaged"),
    ],
)
def test_mismatched_card_raises(file, changes, message):
    rewritten(file, **changes)
    assert message in refused(file).message
