"""Writing a model's profile into a settings file."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from ...core.errors import DataError, UserError
from ...core.files import write_file
from .profile import parse_profile


def append_profile(path: Path, model: str, fields: Mapping[str, JsonValue]) -> None:
    """Append the table `[profiles."MODEL"]` to a settings file, which is created if it is missing.

    Args:
        path: The file.
        model: The model string.
        fields: Fields of the profile.

    Raises:
        UserError: The file has a profile of the model already, or a field is invalid.
        DataError: The file is no TOML.
        StoreError: It cannot be written.
    """
    parse_profile(fields, f"the new profile of {model}")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    try:
        before = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise DataError(f"{path} is no TOML: {e}") from e
    if model in before.get("profiles", {}):
        raise UserError(
            f"{path} has a profile of {model!r} already", hint=f'edit or remove [profiles."{model}"] there, and retry'
        )
    table = [f"[profiles.{json.dumps(model)}]", *(f"{name} = {_toml(value)}" for name, value in fields.items())]
    gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
    content = f"{text}{gap}" + "\n".join(table) + "\n"
    write_file(path, content.encode())


def _toml(value: Any) -> str:
    """A JSON value in TOML, whose strings, numbers and booleans are written alike."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
