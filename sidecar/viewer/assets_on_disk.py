"""The viewer's built script and style, read from the package once."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def asset(name: str) -> str:
    """The text of a built file: `app.js`, `app.css` or `THIRD_PARTY.txt`."""
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")
