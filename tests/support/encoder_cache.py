"""A cache directory of its own that shares the encoders of the user's, which take seconds and 500 MB to convert."""

from __future__ import annotations

from pathlib import Path

from reason.core.settings import load_settings


def cache_with_encoders(directory: Path) -> Path:
    """Make a cache directory whose encoders are those of the user's cache; they are converted at the first use."""
    shared = load_settings().cache_dir / "encoders"
    shared.mkdir(parents=True, exist_ok=True)
    directory.mkdir(parents=True)
    (directory / "encoders").symlink_to(shared, target_is_directory=True)
    return directory
