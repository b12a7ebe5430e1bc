"""Tiny reward models, each written once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def one_thread() -> None:
    """Torch on one thread: these models are too small for two."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_reward(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny reward model's folder by its kind; never to be changed."""
    import tiny_rewards

    made: dict[str, Path] = {}
    kinds = {
        "process": tiny_rewards.process_model,
        "scalar": lambda folder: tiny_rewards.process_model(folder, labels=1),
        "decoder": tiny_rewards.decoder_classifier,
        "decoder-2": lambda folder: tiny_rewards.decoder_classifier(folder, labels=2),
        "encoder": tiny_rewards.encoder_classifier,
    }

    def of(kind: str) -> Path:
        if kind not in made:
            made[kind] = kinds[kind](tmp_path_factory.mktemp("reward") / kind)
        return made[kind]

    return of
