"""Fixtures of runs whose answers are verified against a file of facts."""

from __future__ import annotations

from pathlib import Path

import pytest
from reason.core.settings import Settings
from support.encoder_cache import cache_with_encoders

FACTS = "Paris is the capital of France. Madrid is the capital of Spain. Berlin is the capital of Germany."


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a scripted model, and of none for embeddings: passages are retrieved by their words."""
    return Settings(
        model="scripted",
        embedding_model="none",
        store=tmp_path / "runs.sqlite3",
        cache_dir=cache_with_encoders(tmp_path / "cache"),
        seed=5,
    )


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    """A file of facts."""
    path = tmp_path / "facts.md"
    path.write_text(FACTS)
    return path
